"""``POST /v1/events``: what is taken, what is refused and in which words, and what never happens to the rest."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
import socket
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from collectors._unpack import unpack
from monitor.api.answers import LIFETIME, Another, Answer, Answers, Busy
from monitor.api.events import ARRAY_LIMIT
from monitor.api.intake import AT_ONCE, BODY_LIMIT, MEMORY, Intake, Refused
from tests.servers.mailvane import Mailvane, mailvane
from tests.waiting import until

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailvane]:
    with mailvane(tmp_path_factory.mktemp("ingest"), "") as running:
        yield running


def post(service: Mailvane, body: Any, **headers: str) -> tuple[int, dict[str, Any], Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{service.url}/v1/events", body, named, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


def event(name: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "sent", "at": datetime.now(UTC).isoformat(), "message_id": f"<{name}@shop.example>", **changes}


def lines(*names: str, **changes: Any) -> bytes:
    return b"\n".join(json.dumps(event(name, **changes)).encode() for name in names)


def stored(service: Mailvane) -> int:
    """Rows that are counted, once all that was acknowledged is."""
    until(lambda: service.get("/v1/facts")["waiting"] == 0, "all to be applied")
    return int(service.get("/v1/facts")["rows"])


def metric(service: Mailvane, name: str) -> float:
    """The sum of a metric over its labels; 0 where it has not been counted."""
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=20) as answer:
        told = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line.startswith(name)]
    return sum(float(value) for _, value in told)


def peak(service: Mailvane) -> int:
    """The most memory that core has had, in MiB."""
    status = Path(f"/proc/{service.pids()['core']}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) >> 10


# what is taken

PACKED = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("encoding", PACKED)
def test_a_packed_body_says_what_it_says_unpacked(service: Mailvane, encoding: str):
    before = stored(service)
    body = lines(f"{encoding}1", f"{encoding}2")
    assert post(service, body)[1] == post(service, PACKED[encoding](body), Content_Encoding=encoding)[1]
    several = PACKED[encoding](lines(f"{encoding}3") + b"\n") + PACKED[encoding](lines(f"{encoding}4"))
    status, said, _ = post(service, several, Content_Encoding=encoding.upper())
    assert (status, said["accepted"]) == (202, 2)
    assert stored(service) == before + 4


def test_an_array_is_taken_as_its_events_are(service: Mailvane):
    before = stored(service)
    body = [event("array1"), event("array2", at="yesterday"), event("array3")]
    status, said, _ = post(service, json.dumps(body, indent=1).encode(), Content_Type="application/json")
    assert (status, said["accepted"], said["rejected_count"]) == (202, 2, 1)
    assert (said["rejected"][0]["line"], said["rejected"][0]["field"]) == (2, "at")
    assert stored(service) == before + 2


def test_what_is_rejected_is_named_by_line_and_field_with_a_reason(service: Mailvane):
    two = lines("first").rstrip() + lines("second").rstrip()
    body = b"\n".join(
        [lines("named"), lines("late", at="yesterday"), b"{", lines("odd", colour="red"), b'{"kind":"sent"}', two]
    )
    status, said, _ = post(service, body)
    assert (status, said["accepted"]) == (202, 1)
    assert [(item["line"], item["field"]) for item in said["rejected"]] == [
        *((2, "at"), (3, None), (4, "colour"), (5, "at"), (6, None))
    ]
    assert all(item["why"] for item in said["rejected"])
    assert "are there two objects on it?" in said["rejected"][-1]["why"]


@pytest.mark.parametrize(("pack", "name"), [(gzip.compress, "gzip"), (zstandard.compress, "zstd")])
def test_a_packed_body_that_does_not_say_so_is_refused_as_a_whole(service: Mailvane, pack, name):
    status, said, _ = post(service, pack(lines("packed")))
    assert status == 415
    assert f"Content-Encoding: {name}" in said["remedy"]


def test_the_schema_says_its_kind_to_who_accepts_it(service: Mailvane):
    for accepted, kind in (("application/schema+json", "application/schema+json"), ("*/*", "application/json")):
        asked = urllib.request.Request(f"{service.url}/v1/events/schema", headers={"Accept": accepted})
        with urllib.request.urlopen(asked, timeout=20) as answer:
            assert answer.headers["Content-Type"] == kind
            assert json.load(answer)["properties"]["kind"]["enum"]


def test_openapi_tells_what_may_be_sent_and_answered(service: Mailvane):
    told = service.get("/openapi.json")["paths"]["/v1/events"]["post"]
    assert {one["name"] for one in told["parameters"]} == {"Content-Encoding", "Idempotency-Key"}
    assert set(told["requestBody"]["content"]) == {"application/x-ndjson", "application/json"}
    assert set(told["responses"]) >= {"202", "400", "401", "408", "409", "413", "415", "422", "429", "503"}


# the same request again


def test_a_repeated_request_is_answered_as_the_first_and_counts_nothing(service: Mailvane):
    body = lines("again1", "again2") + b"\n{"
    first = post(service, body, Idempotency_Key="again")
    counted = [metric(service, f"mailvane_{name}_total") for name in ("observations", "rejected")]
    packed = post(service, gzip.compress(body), Idempotency_Key="again", Content_Encoding="gzip")
    assert packed[:2] == first[:2]
    assert (first[2]["Idempotent-Replayed"], packed[2]["Idempotent-Replayed"]) == (None, "true")
    assert [metric(service, f"mailvane_{name}_total") for name in ("observations", "rejected")] == counted


def test_a_key_belongs_to_one_body(service: Mailvane):
    post(service, lines("mine"), Idempotency_Key="mine")
    status, said, _ = post(service, lines("other"), Idempotency_Key="mine")
    assert (status, said["error"]) == (422, "this Idempotency-Key came with another body")
    assert post(service, lines("long"), Idempotency_Key="k" * 256)[0] == 422


def test_after_a_crash_a_repeated_request_still_counts_once(service: Mailvane):
    body = lines("crash1", "crash2")
    post(service, body, Idempotency_Key="crash")
    before = stored(service)
    service.kill_core()
    service.wait()
    assert post(service, body, Idempotency_Key="crash")[1]["accepted"] == 2
    assert stored(service) == before


def test_who_asks_while_the_first_is_being_taken_is_told_to_wait():
    answers, begun, may_end = Answers(lambda: NOW), threading.Event(), threading.Event()

    def take(_body: bytes) -> Answer:
        begun.set()
        may_end.wait(20)
        return Answer(202, b"{}")

    first = threading.Thread(target=answers.once, args=("k", b"x", take))
    first.start()
    begun.wait(20)
    with pytest.raises(Busy):
        answers.once("k", b"x", take)
    with pytest.raises(Another):
        answers.once("k", b"y", take)
    may_end.set()
    first.join()
    assert answers.once("k", b"x", take) == (Answer(202, b"{}"), True)


@pytest.mark.parametrize("answer", [Answer(429, b""), Answer(503, b""), None])
def test_what_was_put_off_is_taken_when_it_comes_again(answer: Answer | None):
    answers = Answers(lambda: NOW)

    def take(_body: bytes) -> Answer:
        if answer is None:
            raise OSError
        return answer

    if answer is None:
        with pytest.raises(OSError):
            answers.once("k", b"x", take)
    else:
        assert answers.once("k", b"x", take) == (answer, False)
    assert answers.once("k", b"x", lambda _: Answer(202, b"")) == (Answer(202, b""), False)


def test_a_key_is_forgotten_after_a_day():
    now = [NOW]
    answers = Answers(lambda: now[0])
    answers.once("k", b"x", lambda _: Answer(202, b"first"))
    now[0] += LIFETIME - timedelta(seconds=1)
    assert answers.once("k", b"x", lambda _: Answer(202, b"second"))[1]
    now[0] += timedelta(seconds=1)
    assert answers.once("k", b"y", lambda _: Answer(202, b"third")) == (Answer(202, b"third"), False)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3000)), max_size=60))
def test_kept_answers_take_a_bounded_memory_and_the_newest_stay(asked: list[tuple[int, int]]):
    answers = Answers(lambda: NOW, memory=10_000)
    for key, size in asked:
        answers.once(str(key), b"x", lambda _, size=size: Answer(202, b"a" * size))
        assert sum(kept.size for kept in answers._kept.values()) == answers._size <= 10_000
        assert str(key) in answers._kept


# what is refused


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content_Encoding": "br"}, b"x", 415),
        ({"Content_Encoding": "gzip, gzip"}, b"x", 415),
        ({"Content_Type": "multipart/form-data; boundary=x"}, b"--x--", 415),
        ({"Content_Encoding": "gzip"}, b"{}", 400),
        ({"Content_Encoding": "gzip"}, gzip.compress(b"x" * 1000, mtime=0)[:-3], 400),
        ({"Content_Encoding": "zstd"}, zstandard.compress(b"x" * 1000)[:-3], 400),
        ({"Content_Encoding": "zstd"}, zstandard.compress(b"x") + b"y", 400),
        ({"Content_Encoding": "gzip"}, gzip.compress(b"", mtime=0) * 2000, 400),
    ],
)
def test_a_body_that_can_not_be_unpacked_is_refused_with_a_remedy(
    service: Mailvane, headers: dict[str, str], body: bytes, status: int
):
    answered, said, told = post(service, body, **headers)
    assert answered == status
    assert said["error"]
    assert said["remedy"]
    if "encoding" in said["error"].lower() and status == 415:
        assert told["Accept-Encoding"] == "gzip, zstd"


@pytest.mark.parametrize(
    ("encoding", "bomb"),
    [
        ("gzip", zlib.compress(b"\0" * (1 << 28), 9, wbits=31)),
        ("gzip", gzip.compress(b"\0" * (BODY_LIMIT // 2 + 1)) * 2),
        ("zstd", zstandard.compress(b"\0" * (1 << 28))),
        ("zstd", zstandard.compress(b"\0" * (1 << 20)) * 20),
    ],
)
def test_a_bomb_does_not_go_off(service: Mailvane, encoding: str, bomb: bytes):
    before = peak(service)
    assert post(service, bomb, Content_Encoding=encoding)[0] == 413
    assert peak(service) < before + 100
    assert post(service, lines("after"))[0] == 202


def test_a_body_may_ask_for_a_window_of_eight_mebibytes_and_no_more():
    wide = zstandard.ZstdCompressionParameters(window_log=24)
    stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    with pytest.raises(ValueError, match="no whole zstd"):
        unpack(stream.compress(b"x") + stream.flush(), "zstd", 1000)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=2000), max_size=5), st.sampled_from(sorted(PACKED)), st.integers(0, 6000))
def test_unpacking_undoes_packing_up_to_the_bound(members: list[bytes], encoding: str, limit: int):
    whole = b"".join(members)
    packed = b"".join(map(PACKED[encoding], members))
    if len(whole) > limit:
        with pytest.raises(ValueError, match="over"):
            unpack(packed, encoding, limit)
    else:
        assert unpack(packed, encoding, limit) == whole


@pytest.mark.parametrize("chunked", [False, True])
def test_of_a_request_of_200_mb_nothing_stays_but_a_clear_answer(service: Mailvane, chunked: bool):
    before = peak(service)
    piece = b"x" * (1 << 20)
    body: Any = (piece for _ in range(200)) if chunked else piece * 200
    status, said, _ = post(service, body, **({"Transfer_Encoding": "chunked"} if chunked else {}))
    assert (status, said["remedy"]) == (413, "send fewer lines in a request")
    assert peak(service) < before + 100
    assert post(service, lines("after"))[0] == 202


def test_a_line_of_50_mb_is_refused_and_one_of_10_is_named(service: Mailvane):
    before = peak(service)
    line = b'{"kind": "' + b"x" * (50 << 20) + b'"}'
    assert post(service, line)[0] == 413
    assert post(service, gzip.compress(line), Content_Encoding="gzip")[0] == 413
    status, said, _ = post(service, lines("before") + b'\n{"kind": "' + b"x" * (10 << 20) + b'"}\n' + lines("behind"))
    assert (status, said["accepted"], said["rejected"][0]["line"]) == (202, 2, 2)
    assert "longer than" in said["rejected"][0]["why"]
    assert peak(service) < before + 200


def test_an_array_without_end_of_nothing_is_bounded(service: Mailvane):
    before = peak(service)
    for size, answer in ((BODY_LIMIT, 413), (ARRAY_LIMIT, 422)):
        assert post(service, b"[" + b"1," * (size // 2 - 4) + b"1]")[0] == answer
    assert peak(service) < before + 250


def test_where_the_spool_is_full_nothing_is_dropped_in_silence(tmp_path: Path):
    with mailvane(tmp_path, f"spool_limit = {1 << 20}\n") as service:
        status, said, headers = post(service, lines(*(f"full{secrets.token_hex(24)}" for _ in range(60_000))))
        assert (status, headers["Retry-After"]) == (429, "5")
        assert said["error"] == "the spool is full"
        assert metric(service, 'mailvane_events_refused_total{reason="spool"}') == 1
        assert post(service, lines("small"))[0] == 202


def test_when_too_many_are_being_taken_the_next_is_told_when_to_come_again(service: Mailvane):
    place = urlsplit(service.url)
    head = b"POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nx"
    with ExitStack() as open_ones:
        for _ in range(AT_ONCE):
            stuck = open_ones.enter_context(socket.create_connection((place.hostname, place.port), timeout=20))
            stuck.sendall(head)
        refused = until(
            lambda: answer if (answer := post(service, lines("busy")))[0] == 429 else None, "a request to be put off"
        )
        assert refused[2]["Retry-After"] == "1"
        assert "already counts once" in refused[1]["remedy"]
    until(lambda: post(service, lines("busy"))[0] == 202, "room again")
    assert "Traceback" not in service.log.read_text()


# the intake alone


def asked(*parts: bytes, ends: bool = True, **headers: str) -> Request:
    """A request whose body comes in these parts, and then not on if it does not end."""
    waiting = list(parts)

    async def receive() -> dict[str, Any]:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting) or not ends}
        await asyncio.Event().wait()
        raise AssertionError

    told = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": told}, receive)


def taken(intake: Intake, *requests: Request) -> list[int]:
    """The lengths of the bodies, or the statuses with which they were refused; all are held until the last came."""

    async def one(request: Request, everybody: asyncio.Barrier) -> int:
        try:
            async with intake.body(request) as body:
                await everybody.wait()
                return len(body)
        except Refused as refused:
            await everybody.wait()
            return refused.status

    async def all_of_them() -> list[int]:
        everybody = asyncio.Barrier(len(requests))
        return await asyncio.gather(*(one(request, everybody) for request in requests))

    return asyncio.run(all_of_them())


def test_a_body_that_does_not_arrive_is_not_waited_for():
    assert taken(Intake(patience=0.05), asked(b"x", ends=False)) == [408]


def test_what_all_requests_hold_together_is_bounded_and_let_go():
    intake, small = Intake(), 1 << 19
    crowd = [asked(b"x" * small, Content_Length=str(16 << 20)) for _ in range(6)]
    assert sorted(taken(intake, *crowd)) == [429, 429] + [small] * 4
    assert taken(intake, asked(b"x" * small)) == [small]
    assert (intake._requests, intake._bytes) == (0, 0)
    assert MEMORY == 4 * BODY_LIMIT


def test_a_peer_that_waits_to_be_let_in_is_told_at_once_that_it_is_not():
    large = asked(ends=False, Content_Length=str(BODY_LIMIT + 1), Expect="100-continue")
    assert taken(Intake(patience=20), large) == [413]


def test_a_length_that_lies_is_found_out():
    parts = [b"x" * (1 << 20)] * 17
    assert taken(Intake(), asked(*parts, Content_Length="5")) == [413]
