"""Mail that waits in the queue is held while a pause covers it, and nothing else is."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.actuators import _helper, _postsuper, _undo
from monitor.actuators._queue import Message, parse
from monitor.actuators.postfix import Postfix
from monitor.core.leases import answer, granted, spares
from monitor.model import AUTOMATION, SEND, Answer, Deed, Lease, Scope
from monitor.ports import ALL, PluginError
from tests.builders import pause
from tests.servers.mailqueue import Waiting, waiting
from tests.waiting import free_port, until

NOW = datetime.now(UTC)  # of the machine, since files bear its time
SENDER = r"^b-(?P<tenant>[^-]+)-(?P<segment>[^-]+)@"
PROVIDERS = {"there.example": "gmail", "else.example": "gmx"}


class Known:
    """The decide path over a fixed set of leases."""

    def __init__(self, leases: Sequence[Lease]) -> None:
        self.leases = leases

    def check(self, message: Scope, key: str = "", knows: frozenset[str] = ALL) -> Answer:
        said = answer(self.leases, message, key)
        holes = [lease for lease in self.leases if lease.by_person and lease.deed is not Deed.PAUSE]
        return SEND if said.held and said.lease and spares(holes, said.lease, message, knows) else said

    def provider(self, domain: str) -> str:
        return ""

    def refused(self, server: str, reason: str) -> None:
        raise AssertionError


def lease(seq: int = 1, minutes: float = 60, **changes) -> Lease:
    values = {"id": f"{seq}@0", "seq": seq, "at": NOW, "until": NOW + timedelta(minutes=minutes)}
    found = granted(pause(**{**values, **changes}))
    assert found
    return found


def allow(seq: int, **changes) -> Lease:
    return lease(seq, deed=Deed.ALLOW, who="marta", **changes)


SELLER = Scope(tenant="s07", segment="lapsed")


@pytest.fixture(scope="module")
def house() -> Iterator[Waiting]:
    with waiting(free_port()) as running:
        yield running


@pytest.fixture
def queue(house: Waiting) -> Iterator[Waiting]:
    yield house
    house.postsuper("-d", "ALL")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where what is held stands, with somebody who lets it go."""
    path = tmp_path / "out.held"
    _undo.show_life(path)
    return path


def tier(queue: Waiting, state: Path, **more) -> Postfix:
    settings = {"policy": "127.0.0.1:1", "sender_pattern": SENDER, "providers": PROVIDERS, "hold_queued": True}
    found = {**settings, "helper": queue.helper, "config_directory": queue.etc, "state": state, **more}
    return Postfix.model_validate(found)


def sync(actuator: Postfix, *leases: Lease, now: datetime | None = None) -> None:
    actuator.sync(leases, Known(leases), now or datetime.now(UTC))


def held(state: Path) -> set[str]:
    found = _undo.read(state)
    return set(found.until) if found else set()


# What is held


def test_queued_mail_of_a_held_segment_goes_on_hold_and_that_of_others_flows(queue, state):
    theirs, other = (
        queue.send("b-s07-lapsed@shop.example", "kim@there.example"),
        queue.send("b-s07-new@shop.example", "kim@there.example"),
    )
    sync(tier(queue, state), lease(scope=SELLER))
    assert queue.on_hold() == {theirs}
    assert other in queue.where()
    assert held(state) == {theirs}
    sync(tier(queue, state))
    assert queue.on_hold() == set()
    assert set(queue.where()) == {theirs, other}
    assert held(state) == set()


def test_a_message_is_held_only_if_all_of_its_recipients_are(queue, state):
    some = queue.send("b-s07-lapsed@shop.example", "kim@there.example", "lee@else.example")
    both = queue.send("b-s07-lapsed@shop.example", "kim@there.example", "jo@there.example")
    sync(tier(queue, state), lease(scope=Scope(provider="gmail")))
    assert queue.on_hold() == {both}
    sync(tier(queue, state), lease(1, scope=Scope(provider="gmail")), lease(2, 30, scope=Scope(provider="gmx")))
    assert queue.on_hold() == {both, some}
    found = _undo.read(state)
    assert found
    assert found.until[some] == _undo.Until((NOW + timedelta(minutes=30)).timestamp(), "2@0")


def test_a_hole_lets_queued_mail_go(queue, state):
    queued = queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    whole = lease(1, scope=Scope(tenant="s07"))
    sync(tier(queue, state), whole)
    assert queue.on_hold() == {queued}
    sync(tier(queue, state), whole, allow(2, scope=SELLER))
    assert queue.on_hold() == set()


def test_a_hole_that_the_queue_can_not_tell_lets_all_go(queue, state):
    """It names a campaign, of which an envelope says nothing here."""
    queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    sync(tier(queue, state), lease(1, scope=SELLER), allow(2, scope=Scope(tenant="s07", campaign="c1")))
    assert queue.on_hold() == set()


def test_what_only_the_user_could_have_told_is_in_doubt(queue, state):
    queue.send("news@shop.example", "kim@there.example")
    actuator = tier(queue, state, sasl_pattern="^(?P<tenant>.+)$")
    sync(actuator, lease(1, scope=Scope(provider="gmail")), allow(2, scope=Scope(tenant="s07")))
    assert queue.on_hold() == set()
    sync(actuator, lease(1, scope=Scope(provider="gmail")))
    assert len(queue.on_hold()) == 1


def test_throttled_mail_and_bounces_are_not_held(queue, state):
    queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    queue.send("", "kim@there.example")
    sync(tier(queue, state), lease(1, scope=SELLER, deed=Deed.THROTTLE, share=0.01), lease(2, scope=Scope(ip="::1")))
    assert queue.on_hold() == set()
    sync(tier(queue, state, stream="marketing"), lease(1, scope=Scope(stream="marketing", provider="gmail")))
    assert len(queue.on_hold()) == 1


def test_what_a_person_put_on_hold_is_left_alone(queue, state):
    own, ours = (queue.send("b-s07-lapsed@shop.example", "kim@there.example") for _ in range(2))
    queue.postsuper("-h", own)
    sync(tier(queue, state), lease(scope=SELLER))
    assert queue.on_hold() == {own, ours}
    assert held(state) == {ours}
    sync(tier(queue, state))
    assert queue.on_hold() == {own}


def test_what_left_the_queue_is_forgotten(queue, state):
    queued = queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    sync(tier(queue, state), lease(scope=SELLER))
    queue.postsuper("-d", queued)
    sync(tier(queue, state), lease(scope=SELLER))
    assert held(state) == set()


def test_a_tier_that_is_not_to_hold_any_more_lets_all_go(queue, state):
    queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    sync(tier(queue, state), lease(scope=SELLER))
    sync(tier(queue, state, hold_queued=False), lease(scope=SELLER))
    assert queue.on_hold() == set()


def test_what_stays_held_is_held_until_the_newer_end(queue, state):
    queued = queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    sync(tier(queue, state), lease(1, 10, scope=SELLER))
    sync(tier(queue, state), lease(1, 10, scope=SELLER), lease(2, 60, scope=SELLER))
    found = _undo.read(state)
    assert found
    assert found.until[queued].lease == "2@0"


def test_a_message_that_is_just_being_delivered_is_delivered_once(state):
    next_port = free_port()
    with waiting(next_port) as queue:
        queued = queue.send("b-s07-lapsed@shop.example", "kim@there.example")
        with slow_sink(next_port) as (taken, go_on):
            until(lambda: taken, "its delivery to begin")
            sync(tier(queue, state), lease(scope=SELLER))
            assert queue.on_hold() == {queued}
            go_on.set()
            until(lambda: f"{queued}: to=<kim@there.example>, relay=127.0.0.1" in queue.mta.log.read_text(), "its end")
            sync(tier(queue, state))
            until(lambda: not queue.where(), "the queue to be empty")
            assert len(taken) == 1


@contextmanager
def slow_sink(port: int) -> Iterator[tuple[list[str], threading.Event]]:
    """A server that takes mail, and says so only when it may go on."""
    taken, go_on = [], threading.Event()

    class Slow:
        async def handle_DATA(self, _server, _session, envelope):  # noqa: N802  # aiosmtpd's name
            taken.extend(envelope.rcpt_tos)
            await asyncio.to_thread(go_on.wait, 30)
            return "250 2.0.0 Ok: queued"

    controller = Controller(Slow(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield taken, go_on
    finally:
        controller.stop()


def test_a_pause_that_is_about_to_end_holds_nothing_new(queue, state):
    queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    sync(tier(queue, state), lease(minutes=0.05, scope=SELLER))
    assert queue.on_hold() == set()


# Nobody who would let it go


def test_nothing_is_held_while_nobody_would_let_it_go(queue, state):
    queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    _undo.end_life(state)
    for who in (AUTOMATION, "marta"):
        with pytest.raises(PluginError, match="start `mailvane release`") as error:
            sync(tier(queue, state), lease(scope=SELLER, who=who))
        assert error.value.retry
        assert queue.on_hold() == set()


def test_without_a_sign_of_life_nothing_is_held_longer_and_what_is_free_is_let_go(queue, state):
    stays, goes = (queue.send(f"b-s07-{name}@shop.example", "kim@there.example") for name in ("lapsed", "new"))
    short = lease(1, 10, scope=Scope(tenant="s07"))
    sync(tier(queue, state), short)
    silent = NOW.timestamp() - 31
    os.utime(state.with_name("out.held.alive"), (silent, silent))
    hole = allow(3, scope=Scope(tenant="s07", segment="new"))
    with pytest.raises(PluginError, match="start `mailvane release`"):
        sync(tier(queue, state), short, lease(2, 60, scope=SELLER), hole)
    assert queue.on_hold() == {stays}
    assert goes in queue.where()
    found = _undo.read(state)
    assert found
    assert found.until[stays].end == short.until.timestamp()
    with pytest.raises(PluginError):
        sync(tier(queue, state), lease(2, 60, scope=SELLER), now=NOW + timedelta(minutes=11))
    assert queue.on_hold() == set()


# Damage and death


def test_a_damaged_file_is_healed_from_its_copy(queue, state):
    queued = queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    sync(tier(queue, state), lease(scope=SELLER))
    state.write_bytes(state.read_bytes()[:-20])
    with pytest.raises(PluginError, match=r"out\.held: 1 of"):
        sync(tier(queue, state), lease(scope=SELLER))
    assert held(state) == {queued}
    sync(tier(queue, state), lease(scope=SELLER))


def test_what_could_not_be_read_is_told_until_a_person_has_looked(queue, state):
    queued = queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    sync(tier(queue, state), lease(scope=SELLER))
    for place in (state, state.with_name("out.held.copy")):
        place.write_bytes(b"\0" * 100)
    with pytest.raises(PluginError, match="1 messages are on hold by others"):
        sync(tier(queue, state), lease(scope=SELLER))
    for _ in range(2):
        with pytest.raises(PluginError, match=r"out\.held\.damaged could not be read whole"):
            sync(tier(queue, state), lease(scope=SELLER))
    assert queue.on_hold() == {queued}
    queue.postsuper("-H", queued)
    for place in state.parent.glob("*.damaged"):
        place.unlink()
    sync(tier(queue, state), lease(scope=SELLER))
    assert held(state) == {queued}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_the_hold_all_of_it_stands_in_the_file(queue, state, moment):
    queued = queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    killer = state.with_name("killer.py")
    killer.write_text(
        "import os, subprocess, sys\n"
        "def kill(): sys.argv[1] == 'hold' and os.kill(os.getppid(), 9)\n"
        f"{moment == 'before'} and sys.argv[1] == 'hold' and (kill(), sys.exit())\n"
        f"done = subprocess.run([{queue.helper[0]!r}, *sys.argv[1:]]).returncode\n"
        "kill()\n"
        "sys.exit(done)\n"
    )
    script = (
        "import sys; from tests.test_queue import *; import pathlib\n"
        f"q = type('Q', (), dict(helper=(sys.executable, {str(killer)!r}), etc={queue.etc!r}))\n"
        f"sync(tier(q, pathlib.Path({str(state)!r})), lease(scope=SELLER))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60, cwd=Path(__file__).parents[1])
    assert done.returncode == -9
    assert held(state) == {queued}
    assert queue.on_hold() == (set() if moment == "before" else {queued})
    sync(tier(queue, state), lease(scope=SELLER))
    assert queue.on_hold() == held(state) == {queued}
    sync(tier(queue, state))
    assert queue.on_hold() == set()


def test_a_helper_that_can_not_be_asked_is_told(queue, state):
    for helper, why in (
        (("/none/mailvane-postsuper",), "No such file"),
        (("unix:/none",), "No such file"),
        (
            ("/bin/false",),
            "no answer",
        ),
    ):
        with pytest.raises(PluginError, match=why):
            sync(tier(queue, state, helper=helper), lease(scope=SELLER))


def test_where_the_queue_can_not_be_listed_leases_that_are_over_are_let_go_all_the_same(queue, state):
    first, second = (queue.send(f"b-{name}-x@shop.example", "kim@there.example") for name in ("s07", "s08"))
    leases = lease(1, scope=Scope(tenant="s07")), lease(2, scope=Scope(tenant="s08"))
    sync(tier(queue, state), *leases)
    assert queue.on_hold() == {first, second}
    deaf = state.with_name("deaf.sh")
    deaf.write_text(f'#!/bin/sh\n[ "$1" = list ] && echo "failed: no" || exec {queue.helper[0]} "$@"\n')
    deaf.chmod(0o755)
    with pytest.raises(PluginError, match="failed: no"):
        sync(tier(queue, state, helper=(str(deaf),)), leases[1])
    assert queue.on_hold() == {second}


# The helper


def test_the_helper_says_what_it_held_and_released(queue):
    first, second = (queue.send("a@shop.example", "kim@there.example") for _ in range(2))
    asked = f"{first}\n{second}\n4ZZZZZZZZZZZZZZ".encode()
    queue.postsuper("-h", second)
    assert queue.ask("hold", queue.etc, given=asked) == f"{first}\ndone\n"
    assert queue.ask("hold", queue.etc, given=asked) == "done\n"
    assert set(queue.ask("release", queue.etc, given=asked).split()) == {first, second, "done"}
    assert queue.ask("release", queue.etc) == "done\n"


ID = b"4jYbn752dgzJFKL"


@pytest.mark.parametrize(
    "given",
    [
        b"-d\n",
        b"ALL\n",
        b"ALL deferred\n",
        b"-dALL0\n",
        ID + b"\n-d\n",
        ID + b"\n\n" + ID,
        ID + b" ALL\n",
        ID + b"\0\n",
        ID + b"\r\nALL\n",
        ID + b"\x0b" + ID,
        ID + "\N{LINE SEPARATOR}".encode() + ID,
        "\N{ARABIC-INDIC DIGIT ONE}".encode() * 6,
        b"../../etc/passwd",
        b"deferred/4jYbn",
        b"4jYb",
        b"A" * 31,
        b"*****",
        b"\xff" * 8,
        (ID + b"\n") * 5001,
        b"A" * 1_000_000,
    ],
    ids=lambda given: repr(given[:24]),
)
@pytest.mark.parametrize("verb", ["hold", "release"])
def test_the_helper_takes_queue_ids_alone(house, verb, given):
    assert house.ask(verb, house.etc, given=given).startswith("failed: ")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["delete"],
        ["-d"],
        ["hold", "-d"],
        ["-h", "-"],
        ["list", "-f"],
        ["hold", "ETC", "-d"],
        ["hold", "ETC", "ETC"],
        ["hold", "/etc/postfix"],
        ["hold", "ETC/"],
        ["hold", "ETC/../etc"],
        ["hold", ""],
        ["hold ETC"],
        ["served", "hold"],
    ],
    ids=" ".join,
)
def test_the_helper_knows_three_words(house, words):
    assert house.ask(*(word.replace("ETC", house.etc) for word in words), given=ID).startswith("failed: ")


@pytest.mark.parametrize("spoil", ["owner", "mode", "link", "none"])
def test_the_helper_believes_no_file_that_others_may_write(house, tmp_path, spoil):
    content = house.allowed.read_bytes()
    try:
        if spoil == "owner":
            subprocess.run(["chown", "nobody", house.allowed], check=True)
        elif spoil == "mode":
            house.allowed.chmod(0o664)
        else:
            house.allowed.unlink()
        if spoil == "link":
            (tmp_path / "allowed").write_bytes(content)
            house.allowed.symlink_to(tmp_path / "allowed")
        assert house.ask("list", house.etc).startswith("failed: ")
    finally:
        house.allowed.unlink(missing_ok=True)
        house.allowed.write_bytes(content)
        house.allowed.chmod(0o644)


def test_the_helper_does_nothing_where_others_may_write_it(house):
    program = Path(house.helper[0])
    program.chmod(0o775)
    try:
        assert "nobody else may write" in house.ask("list", house.etc)
    finally:
        program.chmod(0o755)


def test_the_helper_runs_as_root_only(house):
    assert house.ask("list", house.etc, user="nobody") == "failed: runs as root only\n"


def test_the_helper_hears_nothing_from_its_environment(queue):
    queued = queue.send("a@shop.example", "kim@there.example")
    said = queue.ask("list", env={"MAIL_CONFIG": queue.etc, "PYTHONPATH": "/tmp", "PATH": "/tmp"})
    assert queued not in said
    assert queued in queue.ask("list", queue.etc, env={})


def test_the_helper_stands_alone_and_needs_no_new_python():
    source = Path(_postsuper.__file__).read_text("utf-8")
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names
    assert source.startswith("#!/usr/bin/python3 -I\n")
    assert Path(_postsuper.__file__).stat().st_mode & 0o111


@contextmanager
def served(queue: Waiting) -> Iterator[tuple[str, ...]]:
    """The helper behind a socket, as systemd serves it with ``Accept=yes``."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            ends = {"stdin": self.request.fileno(), "stdout": self.request.fileno()}
            subprocess.run([*queue.helper, "served"], **ends, check=False, timeout=30)

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield (f"unix:{path}",)
            finally:
                server.shutdown()
                thread.join()


def test_the_helper_may_be_served_on_a_socket(queue, state):
    queued = queue.send("b-s07-lapsed@shop.example", "kim@there.example")
    with served(queue) as helper:
        sync(tier(queue, state, helper=helper), lease(scope=SELLER))
        assert queue.on_hold() == {queued}
        sync(tier(queue, state, helper=helper))
        assert queue.on_hold() == set()
        with pytest.raises(PluginError, match="failed: usage"):
            _helper.done((*helper, "delete"), ["4jYbn752dgzJFKL"])
        with pytest.raises(PluginError, match="no queue id"):
            _helper.done((*helper, "hold", queue.etc), ["ALL"])


# The listing


def listed(name: str = "deferred", queued: str = "4jYbn752dgzJFKL", sender: str = "a@b", to: Iterable[str] = ("k@x",)):
    recipients = [{"address": one, "delay_reason": "later"} for one in to]
    told = {"queue_name": name, "queue_id": queued, "arrival_time": 1, "message_size": 1, "forced_expire": False}
    return json.dumps({**told, "sender": sender, "recipients": recipients}).encode()


def test_a_line_tells_a_message():
    assert parse(listed()) == Message("4jYbn752dgzJFKL", "deferred", "a@b", ("k@x",))
    assert parse(b"postqueue: warning: the mail system is down") is None


@given(st.integers(0, 300))
def test_a_line_that_was_cut_still_tells_which_message_or_stops_all(length):
    line = listed()
    cut = line[: min(length, len(line) - 1)]
    try:
        found = parse(cut)
    except PluginError:
        return
    assert found == (Message("4jYbn752dgzJFKL", "deferred") if cut else None)


@given(st.binary(max_size=80))
def test_any_line_is_survived(line):
    try:
        parse(b"{" + line)
        parse(line)
    except PluginError:
        pass


# A law: the queue holds what the decide path holds


LABELS = st.sampled_from(["", "x", "y"])
SCOPES = st.builds(
    lambda tenant, segment, provider: Scope(tenant=tenant, segment=segment if tenant else "", provider=provider),
    LABELS,
    LABELS,
    st.sampled_from(["", "gmail", "gmx"]),
)
LEASES = st.lists(
    st.tuples(SCOPES, st.sampled_from([Deed.PAUSE, Deed.PAUSE, Deed.ALLOW, Deed.THROTTLE]), st.booleans()), max_size=5
)
MESSAGES = [
    (f"b-{tenant}-{segment}@shop.example", to)
    for tenant in "xyz"
    for segment in "xy"
    for to in (("k@there.example",), ("k@there.example", "l@else.example"))
]
_FAKE = """
import sys
ids = sys.stdin.read() if sys.argv[1] != "list" else open(__file__ + ".list").read()
sys.stdout.write(ids + "done\\n")
"""


@settings(deadline=None, max_examples=25)
@given(LEASES)
def test_the_queue_holds_what_the_decide_path_holds(found):
    leases = [
        lease(seq, scope=scope, deed=deed, who="marta" if by_person else AUTOMATION, share=0.5)
        for seq, (scope, deed, by_person) in enumerate(found, 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        fake, state = Path(folder) / "fake.py", Path(folder) / "held"
        fake.write_text(_FAKE)
        lines = [listed(queued=f"AAAAA{n}", sender=s, to=to).decode() + "\n" for n, (s, to) in enumerate(MESSAGES)]
        Path(f"{fake}.list").write_text("".join(lines))
        _undo.show_life(state)
        settings = {"policy": "127.0.0.1:1", "sender_pattern": SENDER, "providers": PROVIDERS, "hold_queued": True}
        actuator = Postfix.model_validate({**settings, "helper": (sys.executable, str(fake)), "state": state})
        sync(actuator, *leases)
        assert held(state) == {f"AAAAA{n}" for n, message in enumerate(MESSAGES) if paused(leases, *message)}


def paused(leases: Sequence[Lease], sender: str, recipients: Sequence[str]) -> bool:
    _, tenant, segment = sender.partition("@")[0].split("-")
    answers = [
        answer(
            leases,
            Scope(domain="shop.example", tenant=tenant, segment=segment, provider=PROVIDERS[to.rpartition("@")[2]]),
        )
        for to in recipients
    ]
    return all(said.held and said.lease and said.lease.deed is Deed.PAUSE for said in answers)
