"""From a request's headers to the one who asks. Light: the gate has it too, and asks it before each answer."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

from pydantic import SecretStr

from monitor.access.keys import Keys
from monitor.access.sessions import COOKIES, Sessions
from monitor.caller import ALL, RIGHTS, Caller, Right, Way
from monitor.hiding import hide
from monitor.ledger.sessions import Session
from monitor.settings import Access
from monitor.ship_settings import is_loopback

MACHINE = Caller("machine", Way.MACHINE, ALL)
NOBODY = Caller("anonymous", Way.ANONYMOUS, frozenset())
_COOKIE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Shown:
    """What of a request's head says who asks, as text; empty where it is missing."""

    authorization: str = field(default="", repr=False)
    cookie: str = field(default="", repr=False)
    host: str = ""
    forwarded: bool = False

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Shown:
        """From the headers of an ASGI scope."""
        found: dict[bytes, bytes] = {}
        forwarded = False
        for name, value in headers:
            if name in _NAMES:
                found.setdefault(name, value)
            elif name in _FORWARDED:
                forwarded = True
        text = {name: found.get(name, b"").decode("latin-1") for name in _NAMES}
        return cls(text[b"authorization"], text[b"cookie"], text[b"host"], forwarded)


_NAMES = (b"authorization", b"cookie", b"host")
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via")


class Wrong(Exception):  # noqa: N818  # an answer, not a fault
    """It shows a key or a token, and there is no such one (any more)."""


class Doorkeeper:
    """Knows callers. ``token`` gives the machine's own, None while there is none."""

    def __init__(
        self,
        settings: Access,
        keys: Keys,
        sessions: Sessions | None,
        token: Callable[[], SecretStr | None],
        clock: Callable[[], datetime],
        *,
        https: bool = False,
    ) -> None:
        # Another host of the same domain can plant a cookie of the plain name, and none of the other.
        self._cookies = COOKIES[:1] if https else COOKIES
        self._anonymous = Caller(
            "anonymous", Way.ANONYMOUS, frozenset(Right(granted) for granted in settings.anonymous)
        )
        self._keys, self._sessions, self._token, self._clock = keys, sessions, token, clock

    def caller(self, shown: Shown) -> tuple[Caller, Session | None]:
        """Who asks, and by which session.

        Raises:
            Wrong: by a key that is none. An ended session is no fault: whoever had it is nobody again.
        """
        if shown.authorization:
            return self._bearer(shown.authorization), None
        if shown.cookie and self._sessions and (session := self._session(self._sessions, shown.cookie)):
            rights = RIGHTS[session.role]
            return Caller(f"person:{session.person}", Way.PERSON, rights, session=session.id), session
        return self._nobody(shown), None

    def _bearer(self, authorization: str) -> Caller:
        """RFC 6750 section 2.1."""
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise Wrong
        if key := self._keys.find(given, self._clock()):
            self._keys.use(key.id, self._clock())
            return Caller(f"key:{key.id}", Way.KEY, key.rights, key.tenant)
        token = self._token()
        if token and hmac.compare_digest(given.encode(), token.get_secret_value().encode()):
            return MACHINE
        raise Wrong

    def _session(self, sessions: Sessions, header: str) -> Session | None:
        if len(header) > _COOKIE_BYTES:
            return None
        try:
            jar = SimpleCookie(header)
        except CookieError:
            return None
        now = self._clock()
        return next(
            (found for name in self._cookies if name in jar and (found := sessions.find(jar[name].value, now))), None
        )

    def _nobody(self, shown: Shown) -> Caller:
        """What was granted to anybody is for this machine alone: not for a page of elsewhere, nor through a proxy.

        A browser that was led here by a name (DNS rebinding) says that name in Host.
        """
        return self._anonymous if _here(shown.host) and not shown.forwarded else NOBODY


@lru_cache(256)
def _here(host: str) -> bool:
    """Whether that Host, with or without a port, names this machine; as none does, which no browser sends."""
    name, _, port = host.rpartition(":")
    return not host or is_loopback((name if port.isdigit() else host).strip("[]").lower())


def token_in(path: Path) -> Callable[[], SecretStr | None]:
    """What gives the token in that file, which another process may make later or anew; None while there is none."""
    known: tuple[int, SecretStr | None] = 0, None

    def token() -> SecretStr | None:
        nonlocal known
        try:
            changed = path.stat().st_mtime_ns
            if changed != known[0]:
                text = path.read_text("utf-8").strip()
                hide(text)
                known = changed, SecretStr(text)
        except (OSError, UnicodeDecodeError):
            return None
        return known[1]

    return token
