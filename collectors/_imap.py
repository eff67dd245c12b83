"""A folder of an IMAP server by the library imapclient, and what that library leaves open (RFC 9051, RFC 3501).

All of it is for one thread. Every method may raise ``FAILURES``; an ``IMAP4.error`` that is no ``IMAP4.abort`` is the
server's no to one command, and after all others the connection is of no use any more.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from imaplib import IMAP4
from pathlib import Path
from typing import Any

import imapclient
from imapclient.exceptions import LoginError

from collectors._bell import Bell
from collectors._imap_words import FAILURES
from collectors._uids import LAST, packed
from monitor.ports import PluginError

logging.getLogger("imapclient").setLevel(logging.CRITICAL)  # it logs whole lines, with what people wrote

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# A line of answer may have a million bytes in imaplib, and a UID has ten digits and a blank.
_LISTED = 50_000
_NAMED = 500  # letters named in one command: even far apart they fit into the 8,192 bytes that RFC 7162 section 4 tells
_CONNECT = 10.0  # seconds at most for a connection, for its TLS, and for the first word
_FAREWELL = 2.0  # seconds
KEYWORD = "$MailvaneRead"
# What the library stumbles into over lines that it does not expect.
_NONSENSE = (ValueError, TypeError, LookupError, AssertionError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True, slots=True)
class Door:
    """How a server is reached. ``tls`` is tls, starttls or none; ``timeout`` in seconds, for each wait."""

    host: str
    port: int
    tls: str
    timeout: float
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A letter as the server gave it; when it arrived there (POSIX µs, 0 unknown)."""

    content: bytes
    received: int


class Client(imapclient.IMAPClient):  # type: ignore[misc]  # the library has no types
    """The library's, with what may stand between a question and its answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._imap.debug = 0  # else it words each line for a log that nobody keeps

    def idle(self) -> None:
        """Begin to wait; unlike the library's, not thrown by what the server tells before it says that it does."""
        self._idle_tag = self._imap._command("IDLE")  # noqa: SLF001  # as the library's own
        while self._imap._get_response() is not None:  # noqa: SLF001
            if self._imap.tagged_commands.get(self._idle_tag):
                raise IMAP4.error("it has IDLE, and refuses it")

    def has_more(self) -> bool:
        """Whether something has come already, which a look at the socket would not show."""
        stream = self.socket()
        stream.setblocking(False)
        try:
            return bool(self._imap.file.peek(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            self._set_read_timeout()

    def forget(self) -> bool:
        """Drop what the server told without being asked: the library keeps it for ever. Whether letters had come."""
        came = "EXISTS" in self._imap.untagged_responses
        self._imap.untagged_responses.clear()
        return came

    @property
    def offers(self) -> tuple[str, ...]:
        """What it can do before anybody has logged in; the library's own question would be answered so for ever."""
        return tuple(self._imap.capabilities)

    def cut(self) -> None:
        """Let every wait for this connection end, from any thread; it is of no use then."""
        with suppress(OSError):
            socket.socket.shutdown(self.socket(), socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """Close it, politely if that is quick."""
        with suppress(*FAILURES, ValueError):
            self.socket().settimeout(_FAREWELL)
            self.logout()
            return
        with suppress(*FAILURES, ValueError):
            self.shutdown()


@contextmanager
def understood() -> Iterator[None]:
    """Whatever the library makes of an answer that is no IMAP becomes an ``IMAP4.abort``."""
    try:
        yield
    except OSError:  # some are ValueErrors too
        raise
    except _NONSENSE as error:
        raise IMAP4.abort(f"answers what is no IMAP ({type(error).__name__})") from error


def connect(door: Door, login: Callable[[Client], object]) -> Client:
    """A connection on which ``login`` has been done.

    Raises:
        LoginError: it was refused.
        PluginError: the certificates in ``ca_file`` can't be used.
    """
    with understood():
        context = None if door.tls == "none" else _context(door.ca_file)
        client = _opened(door, context)
        try:
            if door.tls == "starttls":
                _begin_tls(client, context)
            login(client)
        except BaseException:
            client.hang_up()
            raise
    return client


def names(client: Client, most: int = 10) -> list[str]:
    """Some of the folders that there are."""
    with understood():
        return [name for _, _, name in client.list_folders()][:most]


def by_password(client: Client, user: str, password: str) -> None:
    """Log in, by SASL where the server has it, since LOGIN knows no letters beyond ASCII.

    Raises:
        LoginError: refused.
    """
    if "AUTH=PLAIN" in client.offers:
        client.plain_login(user, password)
        return
    if "LOGINDISABLED" in client.offers:
        raise LoginError("[PRIVACYREQUIRED]")
    if not (user + password).isascii() or not (user + password).isprintable():
        raise LoginError("the server takes no letters beyond ASCII in user and password")
    # The library quotes the password, and not the user.
    client.login('"' + user.replace("\\", "\\\\").replace('"', '\\"') + '"', password)


def by_token(client: Client, user: str, token: str) -> None:
    """Log in by XOAUTH2.

    Raises:
        LoginError: refused.
    """
    first = [f"user={user}\1auth=Bearer {token}\1\1"]
    # A refusal comes as a further challenge, which is answered with nothing.
    client.sasl_login("XOAUTH2", lambda _challenge: first.pop() if first else "")


def _opened(door: Door, context: ssl.SSLContext | None) -> Client:
    patience = imapclient.SocketTimeout(min(door.timeout, _CONNECT), door.timeout)
    client = Client(door.host, door.port, ssl=door.tls == "tls", ssl_context=context, timeout=patience)
    client.normalise_times = False
    # The library sends a search in two pieces, and the second would wait for a word about the first.
    client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _begin_tls(client: Client, context: ssl.SSLContext | None) -> None:
    if "STARTTLS" not in client.offers:
        raise IMAP4.error('it has no STARTTLS on this port: set tls = "tls", with its port')
    client.starttls(context)


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise PluginError(f"{ca_file} can't be used: {error.strerror or error}", retry=True) from error


class Folder:
    """A folder that is open on a connection of its own."""

    def __init__(self, client: Client, name: str, *, change: bool = True) -> None:
        self._client, self.name = client, name
        with understood():
            told = client.select_folder(name, readonly=not change)
        self.validity = _whole(told.get(b"UIDVALIDITY"))
        self._exists = _whole(told.get(b"EXISTS"))
        self._next = _whole(told.get(b"UIDNEXT")) or LAST
        kept = told.get(b"PERMANENTFLAGS") or ()
        self.keeps_keywords = rb"\*" in kept or KEYWORD.encode() in kept
        self.idles = bool(client.has_capability("IDLE"))
        # Whether more was announced since the last listing began, and whether a second look was worth nothing.
        self._grown, self._in_vain = False, False

    def listed(self, low: int) -> Iterator[list[int]]:
        """UIDs of the letters from ``low`` on, ascending, in lists that are bounded; none that are deleted."""
        self._grown = False
        if self._exists > _LISTED:
            low = max(low, self._first())
            while low < self._next:
                yield self._search(low, low + _LISTED - 1)
                low += _LISTED
            self._exists = 0  # what comes from now on comes by and by
        yield self._search(low, None)

    def present(self, uids: Collection[int]) -> set[int]:
        """Those of the letters that are still there."""
        found: set[int] = set()
        for some in _portions(uids):
            with understood():
                found |= set(self._client.search(["UID", some, "UNDELETED"])) & set(uids)
        self._client.forget()
        return found

    def sizes(self, uids: Sequence[int], small: int) -> dict[int, int]:
        """Bytes of each letter; of those that have no more than ``small``, just that: it is quicker."""
        large: list[int] = []
        for some in _portions(uids):
            with understood():
                large += self._client.search(["UID", some, "LARGER", small])
        with understood():
            found = self._client.fetch(large, ["RFC822.SIZE"])
        self._client.forget()
        return dict.fromkeys(uids, small) | {uid: _whole(parts.get(b"RFC822.SIZE")) for uid, parts in found.items()}

    def fetched(self, uids: Sequence[int], largest: int) -> dict[int, Fetched | None]:
        """The letters that are still there; None where the server has one and gives no content.

        Of each letter so much comes that one that is larger than ``largest`` can be told, whatever its size was said
        to be.
        """
        with understood():
            found = self._client.fetch(uids, [f"BODY.PEEK[]<0.{largest + 1}>", "INTERNALDATE"])
        self._forget()
        return {uid: _letter(parts) for uid, parts in found.items()}

    def wait(self, seconds: float, bell: Bell) -> None:
        """IDLE until the server tells something, so many seconds have passed, or the bell rings (RFC 2177).

        What came between the last listing and now was announced with some other answer, and is not announced again.
        """
        until = time.monotonic() + seconds
        with understood():
            self._client.idle()
            self._forget()
            again, self._in_vain = self._grown and not self._in_vain, self._grown
            if not again and not self._client.has_more():
                bell.wait(self._client.socket(), until - time.monotonic())
            self._client.idle_done()
        self._forget()

    def ask(self) -> None:
        """Have the server tell what is new; the next list has it."""
        with understood():
            self._client.noop()
        self._forget()

    def mark(self, uids: Sequence[int], flag: str) -> None:
        """Set a flag or keyword on these letters."""
        for some in _portions(uids):
            with understood():
                self._client.add_flags(some, flag, silent=True)
        self._forget()

    def move(self, uids: Sequence[int], to: str) -> None:
        """Move these letters to the folder ``to``, which is made where there is none.

        Without MOVE (RFC 6851) they are copied, then deleted.
        """
        moves = self._client.has_capability("MOVE")
        carry = self._client.move if moves else self._client.copy
        for some in _portions(uids):
            with understood():
                try:
                    carry(some, to)
                except IMAP4.abort:
                    raise
                except IMAP4.error:
                    if self._client.folder_exists(to):
                        raise
                    self._client.create_folder(to)
                    with suppress(IMAP4.error):
                        self._client.subscribe_folder(to)  # so that people see it
                    carry(some, to)
            self._forget()
        if not moves:
            self.delete(uids)

    def delete(self, uids: Sequence[int]) -> None:
        """Delete these letters; without UIDPLUS (RFC 4315) they stay, marked as deleted.

        A plain EXPUNGE would also take what others have marked and may still want.
        """
        self.mark(uids, r"\Deleted")
        if self._client.has_capability("UIDPLUS"):
            for some in _portions(uids):
                with understood():
                    self._client.uid_expunge(some)
            self._forget()

    def _forget(self) -> None:
        self._grown |= self._client.forget()

    def _first(self) -> int:
        self._client.use_uid = False
        try:
            with understood():
                found = self._client.fetch([1], ["UID"])
        finally:
            self._client.use_uid = True
        return max(1, _whole(found.get(1, {}).get(b"UID")))

    def _search(self, low: int, high: int | None) -> list[int]:
        if low > LAST:
            return []
        with understood():
            found = self._client.search(["UID", f"{low}:{high or '*'}", "UNDELETED"])
        self._forget()
        # A range that ends in * has the last letter in it, even if that is below `low`.
        uids = sorted(uid for uid in set(found) if low <= uid <= (high or LAST))
        self._in_vain &= not uids
        return uids


def _portions(uids: Collection[int]) -> Iterator[str]:
    ordered = sorted(uids)
    for start in range(0, len(ordered), _NAMED):
        yield packed(ordered[start : start + _NAMED])


def _letter(parts: dict[bytes, Any]) -> Fetched | None:
    content = next((value for name, value in parts.items() if name.startswith(b"BODY[]")), None)
    return Fetched(content, _micros(parts.get(b"INTERNALDATE"))) if isinstance(content, bytes) else None


def _micros(at: object) -> int:
    try:
        return max(0, (at - _EPOCH) // _MICROSECOND) if isinstance(at, datetime) else 0
    except (TypeError, OverflowError):
        return 0


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
