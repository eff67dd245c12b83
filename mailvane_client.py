"""May this message go? Answered inside your process, from the leases in force, of which Mailvane's gate tells us.

    with mailvane_client.Client("http://127.0.0.1:8026") as client:
        client.wait_ready(2)
        for message in messages:
            answer = client.check(tenant="s07", segment="lapsed", stream="marketing", provider="gmail", key=message.id)
            if answer.held:
                keep(message, ask_again_in=min(answer.ttl, 60))
            else:
                send(message)

A thread of its own keeps the leases fresh: by the gate's stream of changes, or by long-polls where a stream does not
come through. A question reads memory alone: it never waits, and never fails for what the network does.

It fails open. Where nothing was heard yet, or only what makes no sense or is too large, the answer is *send*. A lease
that is known ends by its own ttl, on this process's monotonic clock, though no gate ever answers again.

What is held is yours to keep: see docs/hooks/README.md. ``trace`` and ``verp`` mark a message that goes, so that what
comes back of it is known for its own: see docs/attribution.md.

This is one file on the standard library alone, for Python 3.9 and newer; it may be copied.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import logging
import math
import os
import random
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing import Self

__all__ = ["LABELS", "Answer", "Client", "Lease", "Pace", "State", "trace", "trace_key", "verp"]

LABELS = ("ip", "domain", "provider", "stream", "tenant", "segment", "campaign", "variant", "region")
OWNED = ("segment", "campaign", "variant")  # their names say nothing without the tenant's
LARGEST = 16 << 20  # bytes of one answer or event: 40,000 leases
AUTOMATION = "automation"
LONGEST_TRACE = 800  # characters of a header
_DRESS = "<> \t\r\n"  # what addresses and Message-IDs may be dressed in
_PIECE = 1 << 16
_SEVERITY = {"pause": 0, "throttle": 1, "reroute": 2, "allow": 3}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """What is in force on a part of the mail flow. ``scope`` has the labels that it names.

    ``since`` and ``until`` are for people (ISO 8601, UTC); ``ends`` is what counts, on the client's own clock.
    """

    id: str
    deed: str  # pause, throttle, reroute or allow
    scope: Mapping[str, str] = field(hash=False)
    who: str
    why: str
    since: str
    until: str
    share: float
    pool: str
    incident: int
    seq: int
    ends: float


@dataclass(frozen=True)
class Answer:
    """What the sender of one message is told. Look at ``held``: an answer itself is always true.

    ``lease`` decided it, None if none applies. ``share`` is the part of such mail that may pass, ``pool`` where a
    reroute leads. ``until`` is for people; in ``ttl`` seconds the lease ends, and the answer may be another one before.
    """

    held: bool
    lease: Lease | None = None
    share: float = 1.0
    pool: str = ""
    until: str | None = None
    ttl: float | None = None


SEND = Answer(held=False)


@dataclass(frozen=True)
class State:
    """How fresh the client's knowledge is.

    ``generation`` of the leases as last told, None before the first time; ``age`` in seconds of the gate's last sign of
    life; ``by`` is "stream" or "poll", empty while not connected.
    """

    generation: int | None
    age: float | None
    connected: bool
    by: str


@dataclass(frozen=True)
class Pace:
    """How long what may take, in seconds; the defaults are for a gate on the same machine or in the same house."""

    connect: float = 5
    first_word: float = 5  # a stream speaks at once; one that does not is kept back by a proxy
    silence: float = 30  # the gate shows every 10 s that it lives; after this it is polled
    wait: float = 30  # of one long-poll; the gate allows 60
    slack: float = 10  # over that, until a long-poll counts as dead
    again: float = 1  # before the first try after a loss, twice as long each time
    cap: float = 30
    stream_again: float = 300  # after which a stream is tried where it did not come through
    longest: float = 300  # for one answer, or one line of the stream, to be complete


PACE = Pace()


class Client:
    """Keeps the leases and answers from them. One for a process, shared by all its threads.

    It connects at ``start``, at the latest at the first question; a fork's child connects anew at its first question.
    ``context`` is for an https gate with a certificate of your own. ``on_change`` is called in the client's thread with
    the leases in force after the gate told of a change; that a lease ends by its ttl calls nobody.

    Raises:
        ValueError: ``url`` is no http or https address, or ``token`` can't stand in a header.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        context: ssl.SSLContext | None = None,
        on_change: Callable[[Sequence[Lease]], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace = PACE,
    ) -> None:
        self._road = _Road(url, token, context)
        self._on_change = on_change
        self._clock = clock
        self._pace = pace
        self._known = _Leases()
        self._whole = False  # whether the next news may build on what is known
        self._heard_at: float | None = None
        self._by = ""
        self._hears = True  # as far as the log was told
        self._adopted = False  # whether this connection brought leases
        self._again = pace.again
        self._begin()
        _clients.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Begin to listen, if that has not begun; does not wait for anything."""
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._listen, name="mailvane-client", daemon=True)
                thread.start()
                self._thread = thread
        return self

    def close(self) -> None:
        """Listen no more, for good. Questions are answered from what is known, to the ends of those leases."""
        self._closing.set()
        self._road.cut()
        thread = self._thread
        if thread and thread is not threading.current_thread():
            thread.join(1)  # longer only while a name is looked up or a connection made; it is a daemon

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Whether the leases were heard of, as soon as they are or after ``timeout`` seconds."""
        self._wake()
        return self._ready.wait(timeout)

    def check(
        self,
        *,
        ip: str = "",
        domain: str = "",
        provider: str = "",
        stream: str = "",
        tenant: str = "",
        segment: str = "",
        campaign: str = "",
        variant: str = "",
        region: str = "",
        key: str = "",
    ) -> Answer:
        """Whether a message with these labels may go; leave out what you do not know.

        ``key`` names the message, such as by its message id: under a throttle the same key gets the same answer, and a
        message without one passes. Segment, campaign and variant say nothing without the tenant that owns the name. A
        label that is None is not known; a number counts as its text.
        """
        if self._thread is None:
            self._wake()
        labels: tuple[str, ...] = (ip, domain, provider, stream, tenant, segment, campaign, variant, region)
        try:
            "".join(labels)  # the quickest way to see that all are text
        except TypeError:
            labels = tuple("" if value is None else str(value) for value in labels)
        return self._known.answer(labels, key, self._clock())

    @property
    def state(self) -> State:
        """How fresh what is known is."""
        heard, by = self._heard_at, self._by
        return State(
            generation=self._known.generation,
            age=None if heard is None else max(0.0, self._clock() - heard),
            connected=bool(by),
            by=by,
        )

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Those in force, as far as is known."""
        return self._known.in_force(self._clock())

    def _wake(self) -> None:
        # No thread to be had is a lack of the machine's, and the mail's sender must not learn of it by an exception.
        with suppress(RuntimeError):
            self.start()

    # What follows runs in the client's thread.

    def _listen(self) -> None:
        failures, stream_from = 0, -math.inf
        while not self._closing.is_set():
            self._adopted, began = False, time.monotonic()
            try:
                if time.monotonic() >= stream_from:
                    self._stream()
                else:
                    self._poll()
                failures = 0
            except _NoStreamError:
                stream_from = time.monotonic() + self._pace.stream_again
            except Exception as error:  # noqa: BLE001 - whatever it is, a thread that ended would hear of no lease again
                stream_from = -math.inf
                # A gate that speaks and tells nonsense is no reason to come back soon.
                failures = 1 if self._adopted or time.monotonic() - began > self._pace.cap else failures + 1
                self._lost(error)
                self._closing.wait(self._delay(failures))

    def _delay(self, failures: int) -> float:
        longest = min(self._pace.cap, self._again * float(1 << min(failures - 1, 16)))
        return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter, so that not all senders come back at once

    @contextmanager
    def _asked(self, path: str, headers: Mapping[str, str], seconds: float) -> Iterator[http.client.HTTPResponse]:
        """The answer's head; each wait for more takes ``seconds`` at most."""
        self._road.connect(self._pace.connect)
        try:
            if self._closing.is_set():  # too late for close() to cut this connection
                raise ConnectionError("closed")
            with closing(self._road.ask(path, headers, seconds)) as response:
                yield response
        finally:
            self._road.close()

    def _stream(self) -> None:
        """Take news as they come; leaves by an exception.

        Raises:
            _NoStreamError: nothing came that is a stream, or not in time: a proxy may keep it back.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if self._whole:
            headers["Last-Event-ID"] = str(self._known.generation)
        try:
            with self._asked("/v1/leases/stream", headers, self._pace.first_word) as response:
                kind = response.headers.get("Content-Type", "")
                if response.status != http.HTTPStatus.OK or not kind.startswith("text/event-stream"):
                    raise _NoStreamError
                if not (first := response.read1(_PIECE)):
                    raise _NoStreamError
                self._road.patience(self._pace.silence)
                self._follow(response, first)
        except socket.timeout:
            self._by = ""
            raise _NoStreamError from None

    def _follow(self, response: http.client.HTTPResponse, piece: bytes) -> None:
        events = _Events()
        complete = time.monotonic()
        while piece:
            lines = events.lines
            for name, value in events.feed(piece):
                self._take(name, value)
            if events.lines > lines:
                complete = time.monotonic()
                self._heard("stream")
            elif time.monotonic() - complete > self._pace.longest:
                raise _BadNewsError("a line without an end")
            piece = response.read1(_PIECE)
        raise ConnectionError("the stream ended")

    def _take(self, name: str, value: str) -> None:
        if name == "set":
            self._adopt(_Leases.told(_parsed(value), self._clock()))
        elif name == "change":
            self._whole, was_whole = False, self._whole
            if not was_whole:
                raise _BadNewsError("a change before the set")
            self._adopt(self._known.changed(_parsed(value), self._clock()))
        elif name == "retry" and value.isascii() and value.isdigit():
            self._again = min(max(int(value[:9]) / 1000, 0.1), self._pace.cap)

    def _poll(self) -> None:
        """Ask once for the set; wait for a change only where asking has worked."""
        wait = self._pace.wait if self._by == "poll" else 0
        headers = {"Accept": "application/json"}
        if self._whole:
            headers["If-None-Match"] = f'"{self._known.generation}"'
        began, before = time.monotonic(), self._known.generation
        with self._asked(
            f"/v1/leases?wait={wait:g}" if wait else "/v1/leases", headers, wait + self._pace.slack
        ) as response:
            if response.status == http.HTTPStatus.OK:
                self._adopt(_Leases.told(_parsed(_body(response, self._pace.longest)), self._clock()))
            elif response.status != http.HTTPStatus.NOT_MODIFIED or not self._whole:
                raise _BadNewsError(f"the gate answered {response.status}")
        self._heard("poll")
        # Somebody on the way may answer without waiting: not faster than this, whatever comes.
        rest = 0.1 if self._known.generation != before else 1
        self._closing.wait(max(0, min(rest, wait) - (time.monotonic() - began)))

    def _heard(self, by: str) -> None:
        self._heard_at, self._by = self._clock(), by
        if not self._hears:
            log.info("the gate is heard again")
        self._hears = True

    def _lost(self, error: Exception) -> None:
        self._by = ""
        if self._hears and not self._closing.is_set():
            log.warning("the gate is not heard, leases go on to their ends: %s: %s", type(error).__name__, error)
            self._hears = False

    def _adopt(self, leases: _Leases) -> None:
        moved = leases.generation != self._known.generation or leases.ids != self._known.ids
        self._known, self._whole, self._adopted = leases, True, True
        self._ready.set()
        if self._on_change and moved:
            try:
                self._on_change(leases.in_force(self._clock()))
            except Exception:
                log.exception("on_change failed")

    def _forked(self) -> None:
        """In a fork's child: the thread is the parent's, and so is the connection."""
        was_closed = self._closing.is_set()
        self._begin()
        self._by = ""
        self._road.leave()
        if was_closed:
            self._closing.set()
        if self._known.generation is not None:
            self._ready.set()


def trace(
    key: str,
    *,
    recipient: str,
    message_id: str,
    at: float | None = None,
    ip: str = "",
    domain: str = "",
    provider: str = "",
    stream: str = "",
    tenant: str = "",
    segment: str = "",
    campaign: str = "",
    variant: str = "",
    region: str = "",
) -> str:
    """The value of the header ``X-Mailvane`` for one message to one recipient: a bounce or complaint brings it back.

        message["X-Mailvane"] = mailvane_client.trace(key, recipient=to, message_id=message["Message-ID"], tenant="s07")

    ``key`` as ``trace_key`` reads it; ``at`` is when the message is sent (POSIX seconds), now if it is not said. Each
    recipient needs a header of its own. The labels stand in it for everybody to read, the recipient does not. It has
    blanks at which mail libraries fold it; without them it may stand in a URL as well, such as List-Unsubscribe's.

    Raises:
        ValueError: no such key, no recipient or Message-ID, a segment without its tenant, or too much for a header.
    """
    secret, name = _trace_secret(key)
    person, message = recipient.strip(_DRESS).lower(), message_id.strip(_DRESS)
    if not person or not message:
        raise ValueError("a trace names one recipient and one Message-ID")
    labels = [ip, domain, provider, stream, tenant, segment, campaign, variant, region]
    labels = ["" if label is None else str(label) for label in labels]
    if not tenant and any(labels[LABELS.index(label)] for label in OWNED):
        raise ValueError("segment, campaign and variant say nothing without tenant")
    while labels and not labels[-1]:
        labels.pop()
    told = [int(time.time() if at is None else at), message, _base64(_mac(secret, "person", person)[:9]), labels]
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    signed = f"1.{name}.{_base64(text)}"
    value = f"{signed}.{_base64(_mac(secret, 'trace', signed)[:16])}"
    if len(value) > LONGEST_TRACE:
        raise ValueError(f"labels and Message-ID make a trace of {len(value)} characters, more than {LONGEST_TRACE}")
    return " ".join(value[first : first + 60] for first in range(0, len(value), 60))


def verp(key: str, address: str, recipient: str, at: float | None = None) -> str:
    """``address`` for the envelope of one message to one recipient, so that whatever bounces there tells whose it was.

        verp(key, "bounces@mta.example", to)    # bounces+6hs…@mta.example

    It is signed, and tells when the message was sent (``at``, POSIX seconds, now if it is not said) and, to nobody but
    us, to whom. Let the server deliver what follows a + to the mailbox before it.

    Raises:
        ValueError: no such key, no recipient, or an address whose name is longer than 31 octets.
    """
    secret, _ = _trace_secret(key)
    person = recipient.strip(_DRESS).lower()
    local, _, domain = address.strip(_DRESS).rpartition("@")
    if not person or not local or not domain:
        raise ValueError("an envelope needs an address with a domain, and one recipient")
    told = int((time.time() if at is None else at) // 60).to_bytes(4, "big") + _mac(secret, "person", person)[:6]
    mac = _mac(secret, "verp", f"{local.lower()}@{domain.lower()}\0{told.hex()}")[:10]
    name = f"{local}+{base64.b32encode(told + mac).decode().lower()}"
    if len(name.encode("utf-8", "replace")) > 64:
        raise ValueError("the name of a return path has 31 octets at most, for what follows it takes 33 of 64")
    return f"{name}@{domain}"


def trace_key(path: str | os.PathLike[str]) -> str:
    """The key with which to sign, the first one in the file that ``mailvane trace key`` makes.

    Raises:
        OSError: it can't be read.
        ValueError: there is no key in it.
    """
    with Path(path).open(encoding="ascii") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                return _trace_secret(line.split()[-1]) and line.split()[-1]
    raise ValueError("no key in that file: see mailvane trace key")


def _trace_secret(key: str) -> tuple[bytes, str]:
    """The bytes of a key, and the name by which it is known."""
    try:
        secret = base64.b64decode(key.encode("ascii") + b"=", b"-_", validate=True)
    except ValueError:  # of both, letters and length
        secret = b""
    if len(secret) != 32:
        raise ValueError("no key: 32 bytes as 43 letters, digits, - and _, as mailvane trace key makes it")
    return secret, _mac(secret, "name", "")[:4].hex()


def _mac(secret: bytes, use: str, text: str) -> bytes:
    """A digest of ``text`` for one use, so that what was made for one is worth nothing for another."""
    key = hmac.new(secret, f"mailvane {use}".encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class _NoStreamError(Exception):
    """A stream does not come through here."""


class _BadNewsError(ValueError):
    """What the gate told makes no sense."""


class _Leases:
    """The leases as told, compiled: a question costs the number of label shapes in use. Never changed once made."""

    def __init__(self, generation: int | None = None, leases: Iterable[Lease] = ()) -> None:
        self.generation = generation
        self._by_id = {lease.id: lease for lease in leases}
        shapes: dict[tuple[int, ...], tuple[Callable[[tuple[str, ...]], Any], dict[Any, list[Lease]]]] = {}
        for lease in self._by_id.values():
            if not _may_cover(lease.scope):
                continue
            values = tuple(lease.scope.get(label, "") for label in LABELS)
            shape = tuple(place for place, value in enumerate(values) if value)
            pick, found = shapes.setdefault(shape, (itemgetter(*shape) if shape else _nothing, {}))
            found.setdefault(pick(values), []).append(lease)
        self._shapes = tuple(shapes.values())

    @classmethod
    def told(cls, document: Mapping[str, Any], now: float) -> _Leases:
        """The whole set.

        Raises:
            _BadNewsError: it is none.
        """
        return cls(_number(document, "generation"), _each_lease(document, "leases", now))

    def changed(self, document: Mapping[str, Any], now: float) -> _Leases:
        """These with a change.

        Raises:
            _BadNewsError: it is none, or does not follow on these.
        """
        if _number(document, "since") != self.generation:
            raise _BadNewsError("a change that does not follow on what is known")
        generation = _number(document, "generation")
        ended = frozenset(_texts(document, "ended"))
        granted = {lease.id: lease for lease in _each_lease(document, "granted", now)}
        stay = {lease.id: lease for lease in self.in_force(now) if lease.id not in ended}
        return _Leases(generation, {**stay, **granted}.values())

    @property
    def ids(self) -> KeysView[str]:
        """Of all, whether they have ended or not."""
        return self._by_id.keys()

    def in_force(self, now: float) -> tuple[Lease, ...]:
        """Those that have not ended."""
        return tuple(lease for lease in self._by_id.values() if lease.ends > now)

    def answer(self, labels: tuple[str, ...], key: str, now: float) -> Answer:
        """What they say of a message."""
        found: list[Lease] = []
        for pick, held in self._shapes:
            if leases := held.get(pick(labels)):
                found += [lease for lease in leases if lease.ends > now]
        return _decided(min(found, key=_rank), key, now) if found else SEND


def _may_cover(scope: Mapping[str, str]) -> bool:
    """Whether a message of ours can lie in it: not if a label is of a later day, or an owned one without its tenant."""
    return all(label in LABELS for label in scope) and ("tenant" in scope or not any(label in OWNED for label in scope))


def _nothing(_labels: tuple[str, ...]) -> tuple[()]:
    return ()


def _rank(lease: Lease) -> tuple[int, int, float, int]:
    """The lowest decides: a person's, narrowest, newest; else automation's pause, lowest share, reroute, allow."""
    if lease.who != AUTOMATION:
        return 0, -len(lease.scope), 0.0, -lease.seq
    return 1, _SEVERITY.get(lease.deed, len(_SEVERITY)), lease.share, -lease.seq


def _decided(lease: Lease, key: str, now: float) -> Answer:
    throttled = lease.deed == "throttle"
    return Answer(
        held=_draw(lease.id, key) >= lease.share if throttled else lease.deed == "pause",
        lease=lease,
        share=lease.share if throttled else 0.0 if lease.deed == "pause" else 1.0,
        pool=lease.pool if lease.deed == "reroute" else "",
        until=lease.until,
        ttl=lease.ends - now,
    )


def _draw(lease: str, key: str) -> float:
    """A number in [0, 1) that depends on the lease and the message alone: the gate draws the same."""
    if not key:
        return 0.0
    # A key out of a header may hold halves of characters; they must not raise here.
    digest = hashlib.blake2b(f"{lease}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _parsed(text: bytes | str) -> Mapping[str, Any]:
    document = json.loads(text.decode() if isinstance(text, bytes) else text)
    if not isinstance(document, dict):
        raise _BadNewsError("no JSON object")
    return document


def _each_lease(document: Mapping[str, Any], name: str, now: float) -> list[Lease]:
    return [_lease(told, now) for told in _list(document, name)]


def _lease(told: object, now: float) -> Lease:
    """A lease as told at ``now``. A deed that is not known lets mail pass; members that are not known are left out."""
    if not isinstance(told, dict) or not isinstance(told.get("scope"), dict):
        raise _BadNewsError("a lease without a scope")
    ttl, share = _real(told, "ttl"), _real(told, "share")
    if not 0 <= share <= 1:
        raise _BadNewsError("a share beyond 0 to 1")
    return Lease(
        id=_text(told, "id"),
        deed=_text(told, "deed"),
        scope={label: _text(told["scope"], label) for label in told["scope"] if told["scope"][label] != ""},
        who=_text(told, "who"),
        why=_text(told, "why", ""),
        since=_text(told, "since", ""),
        until=_text(told, "until", ""),
        share=share,
        pool=_text(told, "pool", ""),
        incident=_number(told, "incident", 0),
        seq=_number(told, "seq"),
        ends=now + ttl,
    )


def _text(told: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = told.get(name, default)
    if not isinstance(value, str):
        raise _BadNewsError(f"{name} is no text")
    return value


def _number(told: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = told.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _BadNewsError(f"{name} is no whole number")
    return value


def _real(told: Mapping[str, Any], name: str) -> float:
    value = told.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise _BadNewsError(f"{name} is no number")
    return float(value)


def _list(told: Mapping[str, Any], name: str) -> list[object]:
    value = told.get(name)
    if not isinstance(value, list):
        raise _BadNewsError(f"{name} is no list")
    return value


def _texts(told: Mapping[str, Any], name: str) -> list[str]:
    return [_text({name: value}, name) for value in _list(told, name)]


class _Events:
    """Server-sent events out of bytes, however they are cut. ``lines`` counts complete ones, comments too."""

    def __init__(self) -> None:
        self.lines = 0
        self._rest = bytearray()
        self._name = ""
        self._values: list[str] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[tuple[str, str]]:
        """Name and value of each event that this piece completes; a ``retry`` line comes as an event of that name.

        Raises:
            ValueError: no UTF-8, or more than anybody should have to keep.
        """
        *lines, rest = piece.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        self._bound(len(self._rest))
        for line in lines:
            self.lines += 1
            yield from self._line(line.rstrip(b"\r").decode())

    def _line(self, line: str) -> Iterator[tuple[str, str]]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if self._values:
                yield self._name or "message", "\n".join(self._values)
            self._name, self._values, self._size = "", [], 0
        elif name == "event":
            self._name = value
        elif name == "data":
            self._bound(len(value))
            self._size += len(value) + 64  # what keeping even an empty line costs
            self._values.append(value)
        elif name == "retry":
            yield name, value

    def _bound(self, more: int) -> None:
        if self._size + more > LARGEST:
            raise _BadNewsError("too large an event")


def _body(response: http.client.HTTPResponse, longest: float) -> bytes:
    """All of it, unless it is too large or takes too long."""
    parts, size, began = [], 0, time.monotonic()
    while part := response.read1(_PIECE):
        parts.append(part)
        size += len(part)
        if size > LARGEST or time.monotonic() - began > longest:
            raise _BadNewsError("too large or too slow an answer")
    return b"".join(parts)


class _Road:
    """The way to the gate, one connection at a time; another thread may cut it."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("the gate's address is like http://127.0.0.1:8026")
        if not (token.isascii() and token.isprintable()):
            raise ValueError("the token can't stand in a header")
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._context = (context or ssl.create_default_context()) if parts.scheme == "https" else None
        self._headers = {"User-Agent": "mailvane-client", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None

    def connect(self, seconds: float) -> None:
        """A new connection, each step of which takes ``seconds`` at most.

        Raises:
            OSError: there is none.
        """
        made = self._made(seconds)
        try:
            made.connect()
        except socket.timeout:
            raise ConnectionError("no connection in time") from None
        self._connection, self._socket = made, made.sock

    def _made(self, seconds: float) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=seconds)
        return http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=self._context)

    def ask(self, path: str, headers: Mapping[str, str], seconds: float) -> http.client.HTTPResponse:
        """The answer's head; to be closed. Each wait for more takes ``seconds`` at most."""
        if self._connection is None:
            raise ConnectionError("not connected")
        self.patience(seconds)
        self._connection.request("GET", self._path + path, headers={**self._headers, **headers})
        return self._connection.getresponse()

    def patience(self, seconds: float) -> None:
        """Set how long a wait for more may take."""
        if self._socket:
            self._socket.settimeout(seconds)

    def close(self) -> None:
        """Done with this connection."""
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection = self._socket = None

    def cut(self) -> None:
        """From another thread: whoever waits for more is told that there is none."""
        with self._lock, suppress(OSError):
            if self._socket:
                # Not TLS's own shutdown, which would change an object that the other thread is using.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def leave(self) -> None:
        """In a fork's child: let go of the parent's connection without a word to the gate."""
        self._lock = threading.Lock()
        if self._socket:
            with suppress(OSError):
                os.close(self._socket.detach())
            # Kept: the parent's thread may have been reading, and then a buffer's lock is never free again.
            _left.append(self._connection)
        self._connection = self._socket = None


_left: list[object] = []
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
