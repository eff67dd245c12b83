"""A connection to an IMAP server by the library imapclient, with what that library leaves open (RFC 9051, RFC 3501).

All of it is for one thread but ``Client.cut``. Everything may raise ``FAILURES``: an ``IMAP4.error`` that is no
``IMAP4.abort`` is the server's no to one command, and after all others the connection is of no use any more.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from imaplib import IMAP4
from pathlib import Path
from typing import Any

import imapclient
from imapclient.exceptions import LoginError

from collectors._imap_words import FAILURES
from monitor.ports import PluginError

logging.getLogger("imapclient").setLevel(logging.CRITICAL)  # it logs whole lines, with what people wrote

_CONNECT = 10.0  # seconds at most for a connection, for its TLS, and for the first word
_FAREWELL = 2.0  # seconds
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
            with _refused():
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


@contextmanager
def _refused() -> Iterator[None]:
    """Only a login that was refused is a ``LoginError``: of the library's, some say that the server broke off."""
    try:
        yield
    except LoginError as error:
        if isinstance(error.__context__, IMAP4.abort):
            raise IMAP4.abort(str(error)) from error
        if "[UNAVAILABLE]" in str(error):  # RFC 5530 section 3
            raise IMAP4.error(str(error)) from error
        raise


def _begin_tls(client: Client, context: ssl.SSLContext | None) -> None:
    if "STARTTLS" not in client.offers:
        raise IMAP4.error('it has no STARTTLS on this port: set tls = "tls", with its port')
    client.starttls(context)


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise PluginError(f"{ca_file} can't be used: {error.strerror or error}", retry=True) from error
