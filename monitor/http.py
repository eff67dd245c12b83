"""The one outgoing HTTP client: it goes where it may, to the very address that was checked, and is bounded in all.

A name is resolved once. Every address that it has must be public, or lie in a network that is allowed, and the
connection goes to one of those: who answers otherwise when he is asked again (DNS rebinding) changes nothing.
Certificate and Host are still the name's. Proxies that the environment names are not asked.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urljoin

from urllib3 import HTTPHeaderDict
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError as LibraryError
from urllib3.exceptions import TimeoutError as LibraryTimeoutError

from monitor import bounded
from monitor.places import IPAddress, Place, is_allowed, may, networks, place
from monitor.ports import PluginError

# It logs whole URLs with what can't be read of an answer.
logging.getLogger("urllib3.connection").setLevel(logging.CRITICAL)

HEAD = 64 << 10  # bytes of status and headers that are read
PATIENCE = 30  # seconds of Retry-After that are waited out here
_PAUSE = 0.3  # seconds before the second try, twice as long before each further one
_IDEMPOTENT = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}  # RFC 9110 section 9.2.2
_FOLLOWED = {301, 302, 303, 307, 308}
_METHOD = re.compile(r"[A-Z]{1,20}")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?|")
_OURS = {"host", "connection", "content-length", "transfer-encoding"}  # what callers can't set
# What another origin may be told too: nothing in these is a key.
_HARMLESS = {"accept", "accept-encoding", "accept-language", "user-agent"}
_USUAL = {"User-Agent": "Mailvane", "Accept": "*/*", "Accept-Encoding": "gzip"}

Resolver: TypeAlias = Callable[..., Iterable[tuple[Any, ...]]]  # as socket.getaddrinfo
_Socket: TypeAlias = tuple[int, tuple[Any, ...], IPAddress]  # family and what to connect to, with what that is


class HttpError(PluginError):
    """No answer. ``what`` says why, without the host that the message begins with.

    ``unsent``: nothing was asked yet; ``slow``: the time was over. No path, query, header or body of an answer is in
    either text: a key may stand in any of them.
    """

    def __init__(self, host: str, what: str, *, retry: bool = True, unsent: bool = False, slow: bool = False) -> None:
        super().__init__(f"{host} {what}", retry=retry)
        self.what, self.unsent, self.slow = what, unsent, slow


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` by name in any case; ``body`` unpacked. Neither is shown in a repr."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Http:
    """Asks over HTTP; safe to use from many threads, keeps no connection.

    ``allow``: networks, besides public addresses. ``timeout``: for one try, from resolving to the last byte.
    ``limit``: bytes of an unpacked body. ``plain``: http too, which else is for what ``allow`` names alone.
    ``ca_file``: authorities in place of the system's. ``resolve`` as ``socket.getaddrinfo``.
    """

    def __init__(
        self,
        allow: Iterable[str] = (),
        *,
        timeout: timedelta = timedelta(seconds=10),
        limit: int = 1 << 20,
        plain: bool = False,
        ca_file: Path | None = None,
        resolve: Resolver = socket.getaddrinfo,
    ) -> None:
        self._allow = networks(allow)
        self._seconds = timeout.total_seconds()
        self._limit, self._plain, self._ca_file, self._resolve = limit, plain, ca_file, resolve

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        follow: int = 0,
        tries: int = 1,
        idempotent: bool | None = None,
    ) -> Answer:
        """The answer, whatever its status; of a GET or HEAD at the end of ``follow`` redirects at most.

        Of ``tries`` all but the first come only where nothing was sent, after 429 or 503 with a bearable Retry-After,
        and where it is ``idempotent`` (by default as HTTP has it for the method) after 5xx and any failure. None comes
        after one that took all its time.

        Raises:
            HttpError: no answer, or too large; or the URL or an address of its host is none that may be asked.
        """
        at = _placed(url)
        head = _checked(method, at, headers or {})
        safe = method in _IDEMPOTENT if idempotent is None else idempotent
        for turn in range(1, tries):
            pause = _PAUSE * 2 ** (turn - 1)
            try:
                answer = self._followed(method, at, head, body, follow)
            except HttpError as error:
                if error.slow or not error.retry or not (safe or error.unsent):
                    raise
            else:
                asked = _wait(answer, pause, safe=safe)
                if asked is None:
                    return answer
                pause = asked
            time.sleep(pause)
        return self._followed(method, at, head, body, follow)

    def _followed(self, method: str, at: Place, head: Mapping[str, str], body: bytes | None, follow: int) -> Answer:
        until = time.monotonic() + self._seconds
        inside = True
        for hop in range(follow + 1):
            answer, address = self._asked(method, at, head, body, until, inside=inside)
            where = answer.headers.get("Location")
            if not follow or where is None or answer.status not in _FOLLOWED or method not in ("GET", "HEAD"):
                return answer
            if hop == follow:
                break
            there = _onward(at, where)
            if there.origin != at.origin:
                head = {name: value for name, value in head.items() if name.lower() in _HARMLESS}
            # Whoever answers from outside does not choose what is asked inside.
            inside = inside and is_allowed(address, self._allow)
            at = there
        raise HttpError(at.name, f"sends us on more than {follow} times")

    def _asked(
        self, method: str, at: Place, head: Mapping[str, str], body: bytes | None, until: float, *, inside: bool
    ) -> tuple[Answer, IPAddress]:
        """One request to one place; the address that answered."""
        stream, address = self._connected(at, until, inside=inside)
        with bounded.hung_up(stream), closing(HTTPConnection(at.name, at.port)) as connection:
            connection.sock = stream
            try:
                connection.request(
                    method,
                    at.target,
                    body,
                    {"Host": at.authority, **head, "Connection": "close"},
                    preload_content=False,
                )
                stream.bytes_left = HEAD + bounded.PIECE  # some of the body may come with it
                response = connection.getresponse()
                stream.bytes_left = HEAD + 2 * self._limit  # and what chunks and packing add
                content = response.read(self._limit + 1)
            except OSError as error:
                raise self._failed(at, error) from error
            except (HTTPException, LibraryError, ValueError, bounded.TooLarge) as error:
                # Without its cause, which quotes what came: whoever is asked may repeat what he was told.
                raise self._failed(at, error) from None
        if len(content) > self._limit:
            raise self._failed(at, bounded.TooLarge())
        return Answer(response.status, HTTPHeaderDict(response.headers), content), address

    def _connected(
        self, at: Place, until: float, *, inside: bool
    ) -> tuple[bounded.Bounded | bounded.BoundedTls, IPAddress]:
        try:
            sockets = self._allowed(at, until, inside=inside)
            stream, address = _first(sockets, until)
            if at.scheme == "http":
                return stream, address
            with closing(stream):  # TLS takes it over, or nobody needs it
                return bounded.secured(stream, bounded.tls(self._ca_file), at.name), address
        except OSError as error:
            raise self._failed(at, error, unsent=True) from error

    def _allowed(self, at: Place, until: float, *, inside: bool) -> Sequence[_Socket]:
        """What to connect to; all of it may be."""
        allow = self._allow if inside else ()
        found = self._resolved(at, until)
        for *_, address in found:
            if not may(address, allow):
                raise HttpError(at.name, _refusal(at, address, inside=inside), unsent=True)
            if at.scheme == "http" and not self._plain and not is_allowed(address, allow):
                raise HttpError(at.name, "is asked over http, so that anybody may read it: write https", retry=False)
        if not found:
            raise HttpError(at.name, "has no address", unsent=True)
        return found

    def _resolved(self, at: Place, until: float) -> Sequence[_Socket]:
        if at.ip:
            return [(socket.AF_INET if at.ip.version == 4 else socket.AF_INET6, (str(at.ip), at.port), at.ip)]
        found = bounded.ended(lambda: list(self._resolve(at.host, at.port, type=socket.SOCK_STREAM)), until)
        return [(family, address, ip_address(address[0].partition("%")[0])) for family, *_, address in found]

    def _failed(self, at: Place, error: Exception, *, unsent: bool = False) -> HttpError:
        slow = isinstance(error, TimeoutError | LibraryTimeoutError)
        return HttpError(at.name, self._why(error), unsent=unsent, slow=slow)

    def _why(self, error: Exception) -> str:
        """What went wrong, in our own words: a library's may quote anything."""
        match error:
            case TimeoutError() | LibraryTimeoutError():
                return f"did not answer within {self._seconds:g} s"
            case bounded.TooLarge():
                return f"answers more than is read ({HEAD >> 10} KiB of headers, {self._limit:,} bytes)"
            case OSError():
                return _unreached(error)
            case _:
                return f"does not answer as HTTP has it ({type(error).__name__})"


def _refusal(at: Place, address: IPAddress, *, inside: bool) -> str:
    what = "is no public address" if at.ip else f"is at {address}, which is no public address"
    if not inside:
        return f"{what}, and who sends us there is outside"
    return f"{what}: if it is yours, add it to allow in [outgoing]"


def _unreached(error: OSError) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"shows a certificate that is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return f"fails in TLS ({error.reason or type(error).__name__})"
        case socket.gaierror():
            return f"can't be resolved: {error.strerror}"
        case _:
            return f"can't be reached: {error.strerror or type(error).__name__}"


def _placed(url: str) -> Place:
    try:
        return place(url)
    except ValueError as error:
        raise HttpError("a request", f"can't be made: {error}", retry=False, unsent=True) from None


def _checked(method: str, at: Place, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with the usual ones; what could end a line or a request early is refused by name."""
    if not _METHOD.fullmatch(method):
        raise HttpError(at.name, "is asked with a method that is none", retry=False, unsent=True)
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or name.lower() in _OURS or not _VALUE.fullmatch(value):
            named = f"the header {name[:40]}" if _NAME.fullmatch(name) else "a header whose name is none"
            raise HttpError(at.name, f"can't be told {named}", retry=False, unsent=True)
    given = {name.lower() for name in headers}
    return {**{name: value for name, value in _USUAL.items() if name.lower() not in given}, **headers}


def _onward(at: Place, where: str) -> Place:
    """Where a redirect leads."""
    try:
        there = place(urljoin(f"{at}{at.target}", where))
    except ValueError as error:
        raise HttpError(at.name, f"sends us where nothing can be asked: {error}") from None
    if (at.scheme, there.scheme) == ("https", "http"):
        raise HttpError(at.name, "sends us on from https to http")
    return there


def _first(sockets: Sequence[_Socket], until: float) -> tuple[bounded.Bounded, IPAddress]:
    """A connection to the first that takes it; each has its share of the time."""
    failure: OSError = OSError("nothing to connect to")
    for turn, (family, address, ip) in enumerate(sockets):
        share = time.monotonic() + bounded.left(until) / (len(sockets) - turn)
        try:
            stream = bounded.connect(family, address, share, HEAD)
        except OSError as error:
            failure = error
        else:
            stream.until = until
            return stream, ip
    raise failure


def _wait(answer: Answer, pause: float, *, safe: bool) -> float | None:
    """Seconds until the same may be asked again; None where it may not, or not so soon."""
    asked = answer.headers.get("Retry-After")
    if asked is None:
        return pause if safe and (answer.status == 429 or answer.status >= 500) else None
    if answer.status not in (429, 503) and not (safe and answer.status >= 500):
        return None
    # Its other form, a date, is left to the caller, who has a clock.
    return int(asked) if re.fullmatch(r"[0-9]{1,9}", asked) and int(asked) <= PATIENCE else None
