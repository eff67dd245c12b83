"""What is read on another machine is counted here once, whatever dies, is down, full, wrong or late meanwhile."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import random
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from collectors._unpack import unpack
from monitor.config import ConfigError, load, load_ship
from monitor.model import COLUMNS, Batch, Rejected
from monitor.shipping import frames
from monitor.shipping.outbox import Outbox
from monitor.spool import SpoolFull
from tests.servers.shipyard import Core, Yard, lines
from tests.servers.teller import exact
from tests.waiting import answers, free_port, until

FULL = os.environ.get("MAILVANE_SCALE") == "full"
KILLS = 20 if FULL else 4
EVENTS = 100_000 if FULL else 6000
NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)


@pytest.fixture
def yard(tmp_path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def core(tmp_path_factory) -> Iterator[Core]:
    """One that all tests may speak to who do not kill it."""
    made = Yard(tmp_path_factory.mktemp("core"))
    yield made.core()
    made.close()


def counted(core: Core, count: int) -> None:
    """Waits until so many are counted, and sees that there are no more."""
    until(lambda: ((core.facts() or {}).get("rows", 0)) >= count, f"{count} events of {core.facts()}", 60)
    exact(core.facts() or {}, count)


# kills


@pytest.mark.scale(order=3)
def test_each_event_counts_once_whichever_side_is_killed(yard):
    core, shipper = yard.core(), yard.shipper("mx1")
    chance = random.Random(4)
    written = 0
    for kill in range(KILLS):
        shipper.log(lines(written, EVENTS // KILLS // 2) + "what no daemon ever wrote\n")
        if kill % 2:
            core.ready()  # so that not only its start is hit
        time.sleep(chance.random() * 0.5)  # any moment will do
        (shipper, core)[kill % 2].kill()
        shipper.log(lines(written + EVENTS // KILLS // 2, EVENTS // KILLS // 2))
        written += EVENTS // KILLS // 2 * 2
        (shipper, core)[kill % 2].start()
    core.ready()
    counted(core, written)
    shipper.stop()
    core.stop()


def test_what_was_read_waits_for_a_core_that_is_down_and_is_told_to_be_waiting(yard):
    core = yard.core(started=False)
    shipper = yard.shipper("mx1")
    shipper.log(lines(0, 700))
    trouble = until(lambda: shipper.told("trouble"), "the shipper to tell of it")
    assert "does not answer" in trouble[0]["error"]
    until(lambda: _spooled(yard.folder / "mx1"), "what was read to be on disk")
    shipper.kill()
    shipper.path.write_text("")  # what was read stands in the spool
    shipper.start()
    core.start()
    core.ready()
    counted(core, 700)
    assert until(lambda: shipper.told("all is well again"), "the shipper to tell of it")
    mark = until(lambda: _watermark(core), "a watermark")
    assert until(lambda: _watermark(core) > mark, "the watermark to move without mail", 30)
    assert core.metric("mailvane_ship_waiting_frames", node="mx1") == 0
    assert core.metric("mailvane_ship_clock_ahead_seconds", node="mx1") == pytest.approx(0, abs=5)
    shipper.stop()


def _spooled(folder: Path) -> int:
    return sum(file.stat().st_size for file in (folder / "spool").glob("*.seg"))


def _watermark(core: Core) -> float:
    mark = core.metric("mailvane_source_watermark_timestamp_seconds", node="mx1", source="mail")
    return 0.0 if math.isnan(mark) else mark


def test_a_full_spool_stops_the_reading_and_loses_nothing(yard):
    core = yard.core(started=False)
    shipper = yard.shipper("mx1", spool_limit=1 << 20)
    count = 24_000
    shipper.log(lines(0, count, salt="hard to pack"))
    full = until(lambda: [one for one in shipper.told("trouble") if one["part"] == "spool"], "the spool to be full")
    assert "reading stops until the core takes some" in full[0]["error"]
    assert _spooled(yard.folder / "mx1") <= 1 << 20
    core.start()
    core.ready()
    counted(core, count)
    until(lambda: core.errors() == {}, "the core to be well")
    shipper.stop()


def test_once_reads_all_and_ends(yard):
    core = yard.core()
    shipper = yard.shipper("mx1", started=False)
    shipper.log(lines(0, 300) + "what no daemon ever wrote\n")
    done = shipper.once("--once")
    assert (done.returncode, done.stdout) == (
        0,
        f"https://127.0.0.1:{yard.port} has it: 300 events, 1 items that could not be read\n",
    )
    counted(core, 300)
    assert "has it: 0 events, 0 items" in shipper.once("--once").stdout
    core.stop()
    shipper.log(lines(300, 10))
    done = shipper.once("--once")
    assert done.returncode == 1
    assert "is sent next time" in done.stderr


def test_addresses_rest_where_only_the_owner_reads_them(yard):
    shipper = yard.shipper("mx1")
    shipper.log(lines(0, 10))
    until(lambda: shipper.told("trouble"), "a try")
    folder = yard.folder / "mx1"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert [path for path, mode in modes.items() if mode & 0o077 and not path.name.endswith(("-wal", "-shm"))] == []


# what is wrong on the way


@contextmanager
def tls_server(certificate: Path) -> Iterator[int]:
    """Something that speaks TLS with that certificate, on a port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    raw, _ = listener.accept()
                    with raw, suppress(OSError), context.wrap_socket(raw, server_side=True) as peer:
                        peer.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_certificate_of_an_unknown_authority_is_told_with_its_remedy(yard):
    stranger = yard.folder / "stranger.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(stranger)
    with tls_server(stranger) as port:
        done = yard.shipper("mx1", started=False, to=f"https://127.0.0.1:{port}").once("--check")
    assert done.returncode == 1
    assert "shows a certificate that we don't trust" in done.stderr
    assert "ca_file" in done.stderr


def test_an_expired_certificate_is_told(yard):
    old = yard.folder / "old.pem"
    ended = dt.datetime.now(UTC) - timedelta(days=1)
    leaf = yard.authority.issue_cert("127.0.0.1", not_before=ended - timedelta(days=30), not_after=ended)
    leaf.private_key_and_cert_chain_pem.write_to_path(old)
    with tls_server(old) as port:
        done = yard.shipper("mx1", started=False, to=f"https://127.0.0.1:{port}").once("--check")
    assert done.returncode == 1
    assert "certificate has expired" in done.stderr


def test_a_certificate_for_another_name_is_told(yard):
    other = yard.folder / "other.pem"
    yard.authority.issue_cert("core.example").private_key_and_cert_chain_pem.write_to_path(other)
    with tls_server(other) as port:
        done = yard.shipper("mx1", started=False, to=f"https://127.0.0.1:{port}").once("--check")
    assert "IP address mismatch" in done.stderr


def test_a_wrong_token_is_told_and_the_right_one_is_taken(core, yard):
    wrong = yard.folder / "wrong"
    wrong.write_text("some other text of that length\n")
    ca = str(core.config.parent / "ca.pem")
    done = yard.shipper("mx7", started=False, to=core.url, ca_file=ca, token_file=str(wrong)).once("--check")
    assert done.returncode == 1
    assert "refuses our key" in done.stderr
    assert "some other text" not in done.stderr
    done = yard.shipper("mx7", started=False, to=core.url, ca_file=ca).once("--check")
    assert done.returncode == 0, done.stderr
    assert "takes what we send" in done.stdout


def test_whoever_is_no_core_is_not_believed(yard):
    """An answer that any server gives must not let the shipper forget what it has."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        peer.recv(65536)
                        peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        shipper = yard.shipper("mx1", started=False, to=f"http://127.0.0.1:{listener.getsockname()[1]}")
        shipper.log(lines(0, 5))
        done = shipper.once("--once")
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert done.returncode == 1
    assert "answers as no core does" in done.stderr
    box = Outbox(yard.folder / "mx1", 1 << 30)
    assert not box.empty()
    box.close()


# configuration


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ("", "ship.to: is missing"),
        ('[ship]\nto = "http://core.example:8025"', "would carry addresses in the open"),
        ('[ship]\nto = "https://user:secret@core.example"', "a URL with credentials"),
        ('[ship]\nto = "ftp://core.example"', "no URL of a core"),
        ('[ship]\nto = "https://core.example"\nnode = "a b"', "no name of a node"),
        ('[ship]\nto = "https://core.example"\ntoken = "x"', "a secret must not stand in this file"),
        ('[ship]\nto = "https://core.example"\nkey_file = "x"', "key_file without cert_file"),
        ('[ship]\nto = "https://core.example"\n[collector.x]\nkind = "events"', "is told, and reads nothing"),
        (
            '[ship]\nto = "https://core.example"\n[collector.x]\nkind = "maildir"\npath = "/var/mail/reports"',
            "reads reports, which only the core can attribute",
        ),
        ('[ship]\nto = "https://core.example"\n[collector."a b"]\nkind = "sendlog"\npath = "x"', "no name to ship by"),
    ],
)
def test_mistakes_of_the_configuration_are_told_with_their_path(tmp_path, tables, what):
    file = tmp_path / "mailvane.toml"
    file.write_text(tables)
    with pytest.raises(ConfigError) as told:
        load_ship(file)
    assert what in str(told.value)
    assert "secret@" not in str(told.value)


def test_the_service_reads_a_file_with_a_section_for_the_shipper(tmp_path):
    file = tmp_path / "mailvane.toml"
    file.write_text('[ship]\nto = "https://core.example"\n')
    assert load(file).collectors == {}
    file.write_text('[ship]\nto = "nonsense"\n')
    with pytest.raises(ConfigError, match=r"ship\.to"):
        load(file)


# what the core takes


def body(*told: tuple[str, int, bytes], node: str = "mx3", spool: str = "aaaa", **more) -> bytes:
    """A request with these frames: source, sequence, part."""
    values = {
        "version": frames.VERSION,
        "sent_at": frames.micros(datetime.now(UTC)),
        "columns": [],
        "beats": [],
        "waiting": frames.Waiting(),
        "frames": [(source, sequence) for source, sequence, _ in told],
        **more,
    }
    hello = frames.hello(frames.Hello(node=node, spool=spool, **values))
    return hello + b"".join(frames.packed(part) for _, _, part in told)


def part(count: int = 3, rejected: int = 0, **more) -> bytes:
    at = frames.micros(datetime.now(UTC) - timedelta(minutes=1))
    columns = {
        "kind": ["sent"] * count,
        "at": [at] * count,
        "message_id": [f"{time.monotonic_ns()}-{number}" for number in range(count)],
    }
    items = [Rejected("no log line", "mail.log", "x")] * rejected
    (found,) = frames.split(Batch({**columns, **more}, rejected=items))
    return found


def seen(core: Core, node: str) -> float:
    return core.metric("mailvane_ship_repeated_frames_total", node=node)


def rejects(core: Core, source: str) -> float:
    found = core.metric("mailvane_rejected_total", reason="no log line", source=source)
    return 0.0 if math.isnan(found) else found


def test_a_frame_that_is_sent_again_counts_nothing_twice_not_even_rejects(core):
    first, second = part(rejected=250), part()
    before = rejects(core, "twice")
    assert core.post(body(("twice", 1, first), node="again"))[1]["reached"] == {"twice": 1}
    # The answer was lost, and more has come meanwhile.
    status, said, _ = core.post(body(("twice", 1, first), ("twice", 2, second), node="again"))
    assert (status, said["reached"], said["rejected"]) == (200, {"twice": 2}, 0)
    assert rejects(core, "twice") - before == 250
    assert seen(core, "again") == 1
    assert core.metric("mailvane_observations_total", source="twice") == 6


def test_progress_never_goes_back(core):
    mark = datetime.now(UTC) - timedelta(seconds=30)
    labels = {"node": "back", "source": "mail"}
    for sequence, at in ((7, mark), (3, mark - timedelta(hours=1))):
        beat = frames.Beat("mail", frames.micros(at))
        _, said, _ = core.post(body(("mail", sequence, part(1)), node="back", beats=[beat]))
        assert said["reached"] == {"mail": 7}
    until(core.facts, "all to be applied")
    assert core.metric("mailvane_source_watermark_timestamp_seconds", **labels) == pytest.approx(
        mark.timestamp(), abs=1
    )


def test_a_watermark_promises_no_future(core):
    ahead = datetime.now(UTC) + timedelta(days=400)
    core.post(body(("mail", 1, part(1)), node="ahead", beats=[frames.Beat("mail", frames.micros(ahead))]))
    until(core.facts, "all to be applied")
    mark = core.metric("mailvane_source_watermark_timestamp_seconds", node="ahead", source="mail")
    assert mark <= datetime.now(UTC).timestamp()


def test_a_clock_that_is_wrong_is_told(core):
    late = frames.micros(datetime.now(UTC) - timedelta(hours=1))
    core.post(body(node="slow", beats=[frames.Beat("mail")], sent_at=late))
    assert "3600 s behind ours" in core.errors()["ship.slow.clock"]
    assert core.metric("mailvane_ship_clock_ahead_seconds", node="slow") == pytest.approx(-3600, abs=10)
    core.post(body(node="slow", beats=[frames.Beat("mail")]))
    assert "ship.slow.clock" not in core.errors()


def test_what_a_shipper_can_not_read_and_how_full_it_is_are_shown_by_the_core(core):
    beat = frames.Beat("mail", error="/var/log/mail.log can't be read: gone")
    core.post(body(node="full", beats=[beat], waiting=frames.Waiting(12, 9000, 33.0, full=True)))
    errors = core.errors()
    assert "can't be read" in errors["ship.full.mail"]
    assert "its spool is full" in errors["ship.full"]
    found = [
        core.metric(f"mailvane_ship_{name}", node="full")
        for name in ("waiting_frames", "spool_bytes", "oldest_seconds")
    ]
    assert found == [12, 9000, 33]
    core.post(body(node="full", beats=[frames.Beat("mail")]))
    assert not [part for part in core.errors() if part.startswith("ship.full")]


def test_frames_that_are_none_are_named_and_nothing_is_taken(core):
    encode = msgspec.msgpack.encode
    wrong = {
        2: encode({"columns": {"at": ["text"]}}),
        3: encode({"columns": {"kind": ["sent"], "at": [1, 2]}}),
        4: encode({"columns": {"colour": ["red"]}}),
        5: encode({"columns": {"at": [1 << 63]}}),
        6: b"\xc1",
    }
    told = [("mail", 1, part()), *(("mail", sequence, content) for sequence, content in wrong.items())]
    status, said, _ = core.post(body(*told, node="wrong"))
    assert status == 422
    assert [item["sequence"] for item in said["items"]] == [*wrong]
    assert "Expected `int`, got `str`" in said["items"][0]["error"]
    assert "different lengths" in said["items"][1]["error"]
    assert "colour" in said["items"][2]["error"]
    assert core.post(body(("mail", 1, part()), node="wrong"))[1]["reached"] == {"mail": 1}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (frames.packed(b"\xc1"), 400),
        (b"no zstd", 400),
        (b"", 400),
        (frames.packed(b"x" * (17 << 20)), 413),
        (body(version=2), 409),
        (body(columns=["colour"]), 409),
        (body(node="a b"), 400),
        (body(frames=[("mail", 1)]), 400),
    ],
    ids=["no hello", "no zstd", "empty", "large", "version", "column", "node", "frames"],
)
def test_a_request_that_makes_no_sense_is_refused_with_a_remedy(core, content, status):
    found, said, _ = core.post(content)
    assert found == status, said
    assert said["error"]
    assert said["remedy"]


def test_two_machines_of_one_name_are_told_apart(core):
    assert core.post(body(("mail", 1, part()), node="pair", spool="aaaa"))[0] == 200
    status, said, headers = core.post(body(("mail", 1, part()), node="pair", spool="bbbb"))
    assert (status, headers["retry-after"]) == (409, "10")
    assert "two shippers call themselves pair" in said["error"]


def test_what_a_restore_lost_is_told_and_is_no_nought_until_it_is_told_again(yard):
    core = yard.core().ready()
    began = datetime.fromtimestamp(time.time() // 600 * 600, UTC) - timedelta(minutes=30)

    def beat(minute: int) -> list[frames.Beat]:
        return [frames.Beat("mail", frames.micros(began + timedelta(minutes=minute)))]

    def rows(minute: int) -> bytes:
        return part(1, at=[frames.micros(began + timedelta(minutes=minute))])

    def values() -> list[float | None]:
        until(core.facts, "all to be applied")
        ends = f"from={began.isoformat()[:19]}Z&to={(began + timedelta(minutes=30)).isoformat()[:19]}Z"
        return [point[3] for point in core.get(f"/v1/series?kind=sent&step=10m&{ends}")["series"][0]["points"]]

    core.post(body(("mail", 1, rows(5)), node="lost", spool="aaaa", beats=beat(5)))
    core.post(body(("mail", 2, rows(6)), node="lost", spool="aaaa", beats=beat(9), reached=1))
    assert "ship.lost" not in core.errors()
    until(core.facts, "all to be applied")
    core.stop()
    # As if it stood again where it did after frame 2, and the shipper had been told that frame 9 is on disk.
    core.start()
    core.ready()
    core.post(body(node="lost", spool="aaaa", beats=beat(31), reached=9))
    assert "its frames 3 to 9 are not here" in core.errors()["ship.lost"]
    assert values() == [2, None, None]
    core.post(body(("mail", 10, rows(29)), node="lost", spool="aaaa", beats=beat(31), reached=9))
    assert values() == [2, None, 1]
    core.kill()
    core.start()
    core.ready()
    core.post(body(node="lost", spool="aaaa", beats=beat(31), reached=10))
    assert "its frames 3 to 9 are not here" in core.errors()["ship.lost"]
    assert values() == [2, None, 1]
    core.kill()  # else the machine would have to be silent for a minute before it may come by another spool
    core.start()
    core.ready()
    core.post(body(("mail", 1, rows(4)), node="lost", spool="bbbb", beats=beat(31)))
    assert "ship.lost" not in core.errors()
    assert values() == [3, 0, 1]


def test_without_the_token_nothing_is_taken(core):
    status, _, _ = core.post(body(("mail", 1, part())), Authorization="Bearer wrong")
    assert status == 401


# the spool of the shipper


def box_with(folder: Path, **more) -> Outbox:
    return Outbox(folder, **{"limit": 1 << 30, **more})


def test_where_a_collector_stands_outlives_the_process(tmp_path):
    box = box_with(tmp_path)
    box.memory("mail")
    box.put("mail", Batch({"at": [1]}, cursor={"offset": 7}, remember={"a": [1], "b": [2]}), NOW)
    box.put("mail", Batch({"at": [2]}, cursor={"offset": 9}, remember={"a": None}), NOW)
    box.close()  # as a kill would leave it: each put is on disk
    box = box_with(tmp_path)
    found = box.memory("mail")
    assert (found.cursor, dict(found.remembers)) == ({"offset": 9}, {"b": [2]})
    box.took(box.next())
    box.close()
    box = box_with(tmp_path)
    found = box.memory("mail")
    assert (found.cursor, dict(found.remembers)) == ({"offset": 9}, {"b": [2]})
    assert box.empty()
    box.close()


def test_what_only_tells_the_time_is_not_written_and_waits_for_what_came_before(tmp_path):
    box = box_with(tmp_path)
    box.memory("mail")
    box.put("mail", Batch({"at": [1]}, cursor={"offset": 1}), NOW)
    box.put("mail", Batch({}, cursor={"offset": 1}, watermark=NOW), NOW)
    assert box.beats({}) == [frames.Beat("mail")]
    group = box.next()
    assert len(group.frames) == 1
    box.took(group)
    assert box.beats({}) == [frames.Beat("mail", frames.micros(NOW))]
    box.close()


def test_a_long_batch_goes_in_parts_of_which_the_last_moves_the_cursor(tmp_path):
    box = box_with(tmp_path)
    box.memory("mail")
    rows = 12_000
    batch = Batch(
        {"at": range(rows), "reply": ["x" * 900] * rows}, cursor={"offset": 1}, rejected=[Rejected("bad")] * 500
    )
    box.put("mail", batch, NOW)
    found = []
    while (group := box.next()).frames:
        for _, head, packed in group.frames:
            ((_, content),) = [(head, part) for part in _unpacked(packed)]
            found.append(frames.batch(content))
        box.took(group)
    assert len(found) > 1
    assert [at for one in found for at in one.columns["at"]] == [*range(rows)]
    assert [len(one.rejected) for one in found] == [0] * (len(found) - 1) + [500]
    box.close()


def _unpacked(packed: bytes) -> list[bytes]:
    import zstandard

    return list(frames._parts(zstandard.decompress(packed)))


def test_a_full_spool_says_so_until_there_is_room(tmp_path):
    box = box_with(tmp_path, limit=1 << 20)
    box.memory("mail")
    noise = Batch({"reply": [os.urandom(500).hex() for _ in range(300)]}, cursor={"offset": 1})
    with suppress(SpoolFull):
        while True:
            box.put("mail", noise, NOW)
    assert box.full
    while (group := box.next()).frames:
        box.took(group)
    assert not box.full
    box.put("mail", noise, NOW)
    box.close()


texts = st.text(max_size=8)
longs = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.data())
def test_a_batch_is_the_same_on_the_other_side(data):
    names = data.draw(st.lists(st.sampled_from([*COLUMNS]), unique=True))
    count = data.draw(st.integers(0, 5)) if names else 0
    columns = {
        name: data.draw(st.lists(longs if isinstance(COLUMNS[name], int) else texts, min_size=count, max_size=count))
        for name in names
    }
    watermark = data.draw(st.none() | st.just(NOW))
    (content,) = frames.split(Batch(columns, watermark=watermark))
    found = frames.batch(content)
    assert ({**found.columns}, found.watermark) == (columns, watermark)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_fail_in_another_way(content):
    for decode in (frames.opened, frames.batch):
        with suppress(frames.Broken):
            decode(content)


def test_half_a_surrogate_pair_is_shipped_as_a_question_mark():
    (content,) = frames.split(Batch({"reply": ["a\ud800b"]}, rejected=[Rejected("bad", sample="\udfff")]))
    assert frames.batch(content).columns == {"reply": ["a?b"]}


@contextmanager
def scripted(*told: tuple[int, dict[str, str], dict | None]) -> Iterator[tuple[int, list[frames.Hello]]]:
    """A core that answers as told, and then takes everything; yields its port and what it was told."""
    left, heard = list(told), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            packed = self.rfile.read(int(self.headers["Content-Length"]))
            hello, _ = frames.opened(unpack(packed, "zstd", 1 << 24))
            heard.append(hello)
            reached = {"version": "1", "now": 1, "rejected": 0, "reached": dict(hello.frames)}
            status, headers, said = left.pop(0) if left else (200, {}, None)
            content = json.dumps(said or reached).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], heard
        server.shutdown()
    thread.join()


def test_a_frame_that_the_core_refuses_for_itself_is_set_aside_and_the_others_go_on(yard):
    box = box_with(yard.folder / "mx1")
    box.memory("mail")
    for number in (1, 2, 3):
        box.put("mail", Batch({"at": [number]}, cursor={}, rejected=[Rejected("bad")]), NOW)
    box.close()
    wrong = {"error": "1 frames", "remedy": "-", "items": [{"source": "mail", "sequence": 2, "error": "no frame"}]}
    with scripted((422, {}, wrong)) as (port, heard):
        done = yard.shipper("mx1", started=False, to=f"http://127.0.0.1:{port}").once("--once")
    assert done.returncode == 0, done.stderr
    assert [[sequence for _, sequence in hello.frames] for hello in heard[:3]] == [[1, 2, 3, 4], [1], [3, 4]]
    assert "set aside" in done.stderr
    (aside,) = (yard.folder / "mx1" / "dead-letters").iterdir()
    assert frames.batch(*_unpacked(aside.read_bytes())).columns == {"at": [2]}
    assert heard[-1].waiting.dead_letters == 1


def test_a_busy_core_is_asked_again_when_it_says(yard):
    busy = (429, {"Retry-After": "1"}, {"error": "the spool is full", "remedy": "later"})
    with scripted(busy, busy, (503, {}, {})) as (port, heard):
        shipper = yard.shipper("mx1", to=f"http://127.0.0.1:{port}")
        shipper.log(lines(0, 50))
        until(lambda: any(hello.frames for hello in heard[3:]), "the frames to be sent at last", 30)
        until(lambda: shipper.told("all is well again"), "the shipper to be well", 30)
        shipper.stop()
    assert "the spool is full" in shipper.told("trouble")[0]["error"]


def test_lines_that_come_by_syslog_are_shipped(yard):
    core = yard.core()
    shipper = yard.shipper("mx1", started=False)
    port = free_port()
    text = shipper.config.read_text().partition("[collector.mail]")[0]
    shipper.config.write_text(f'{text}[collector.mail]\nkind = "syslog"\nlisten = "127.0.0.1:{port}"\n')
    shipper.start()
    until(lambda: answers(port), "the listener")
    with socket.create_connection(("127.0.0.1", port)) as sender:
        sender.sendall("".join(f"<22>{line}\n" for line in lines(0, 2000).splitlines()).encode())
        counted(core, 2000)
        shipper.stop()


def test_an_unused_port_is_told(yard):
    done = yard.shipper("mx1", started=False, to=f"https://127.0.0.1:{free_port()}").once("--check")
    assert done.returncode == 1
    assert "does not answer (Connection refused)" in done.stderr


def test_a_log_that_cannot_be_read_is_told_before_anything_is_shipped(core, yard):
    shipper = yard.shipper("mx1", started=False, to=core.url, ca_file=str(core.config.with_name("ca.pem")))
    said = shipper.once("--check").stdout
    assert "takes what we send" in said
    assert "can't be read" not in said
    shipper.path.unlink()
    assert f"warning: collector.mail: {shipper.path} can't be read: No such file" in shipper.once("--check").stdout


def test_plain_http_to_a_core_that_speaks_tls_is_told_with_its_remedy(core, yard):
    done = yard.shipper("mx1", started=False, to=f"http://127.0.0.1:{core.port}").once("--check")
    assert done.returncode == 1
    assert "if it speaks TLS, write https" in done.stderr


def test_a_spool_that_cannot_be_made_or_is_in_use_is_told_by_its_key(yard, tmp_path):
    (tmp_path / "file").touch()
    done = yard.shipper("mx1", started=False, data=str(tmp_path / "file" / "data")).once("--once")
    assert done.returncode == 1
    assert "another `data` in [ship]" in done.stderr
    shipper = yard.shipper("mx1")
    until(lambda: shipper.told("started"), "the first one to start")
    done = yard.shipper("mx1", started=False).once("--once")
    assert "another shipper works in" in done.stderr
    assert "--data" not in done.stderr
