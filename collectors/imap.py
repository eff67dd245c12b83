"""Reports that come by mail, read from a folder of an IMAP server."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from imaplib import IMAP4
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from imapclient.exceptions import LoginError
from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, model_validator

from collectors._bell import Bell
from collectors._envelope import recipient
from collectors._imap import KEYWORD, Client, Door, Fetched, Folder, by_password, by_token, connect, names
from collectors._imap_words import FAILURES, told
from collectors._letters import Letterbox, Raw
from collectors._oauth import Tokens, safe_url
from collectors._pace import Pace
from collectors._turn import Turn, usual_folder
from collectors._uids import packed, unpacked
from monitor.model import Batch, Rejected
from monitor.ports import Duration, Memory, PluginError
from monitor.scrub import scrub

log = logging.getLogger(__name__)

_PORTS = {"tls": 993, "starttls": 143, "none": 143}
_AT_ONCE = 16 << 20  # bytes of letters fetched together
_SMALL = 32 << 10  # bytes, so many of which are fetched together that their sizes need not be known
_SIZED = 4  # times as many letters as are fetched at once are asked for their sizes
_STRIKES = 5  # looks at a letter that the server does not give
_OWED = 100_000  # letters that wait to be moved, after which no more are read
_LONGEST_PAUSE = 300.0  # seconds between two tries
_GRACE = 2.0  # seconds in which a read may end by itself
_TOO_LARGE = "letter larger than `largest`: it was not read"
_NOT_GIVEN = "letter that the server does not give: it was left where it is"


@dataclass(slots=True)
class _Position:
    """How far a folder has been read: all up to ``uid``, but for those that are to be offered ``later``.

    ``owed`` are counted for good, and not yet moved, marked or deleted.
    """

    validity: int = 0
    uid: int = 0
    owed: set[int] = field(default_factory=set)
    later: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, cursor: Mapping[str, Any]) -> _Position:
        """Where a cursor stands, at the beginning if it is none of ours."""
        try:
            owed, later = unpacked(cursor.get("owed", "")), unpacked(cursor.get("later", ""))
            return cls(int(cursor.get("uidvalidity", 0)), int(cursor.get("uid", 0)), owed, later)
        except (ValueError, TypeError, AttributeError):
            return cls()

    def cursor(self) -> Mapping[str, Any]:
        return {
            "uidvalidity": self.validity,
            "uid": self.uid,
            "owed": packed(self.owed),
            "later": packed(self.later),
        }


class Imap(Letterbox):
    """``[collector.NAME]`` with ``kind = "imap"``."""

    secrets: ClassVar[tuple[str, ...]] = ("password", "client_secret", "refresh_token")

    host: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="Name or address of the server.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="Its port; 993 with `tls`, 143 else, where none is named."
    )
    tls: Literal["tls", "starttls", "none"] = Field(
        default="tls", description="TLS from the first byte, by STARTTLS, or none at all, on this machine alone."
    )
    ca_file: Path | None = Field(
        default=None, description="Certificates that the server's is checked against, in place of the system's."
    )
    user: Annotated[str, Field(min_length=1, pattern=r"^[^\r\n\x00\x01]+$")] = Field(description="Name to log in with.")
    password: SecretStr | None = Field(default=None, description="Password of that user; or else a token:")
    token_url: Annotated[str, AfterValidator(safe_url)] | None = Field(
        default=None, description="Where the provider gives access tokens (OAuth 2.0, used by XOAUTH2)."
    )
    client_id: str = Field(default="", description="How the provider knows your application.")
    client_secret: SecretStr | None = Field(default=None, description="Its secret, where the provider gave one.")
    refresh_token: SecretStr | None = Field(
        default=None, description="What access tokens are got with, from when the mailbox's owner signed in."
    )
    rotated_file: Path | None = Field(
        default=None, description="Where a refresh token is kept that the provider gives in place of the last one."
    )
    folder: Annotated[str, Field(min_length=1)] = Field(default="INBOX", description="The folder that is read.")
    done: dict[Literal["move"], Annotated[str, Field(min_length=1)]] | Literal["flag", "seen", "delete"] = Field(
        default={"move": "Archive"}, description="What becomes of a letter that has been read, see below."
    )
    batch: Annotated[int, Field(ge=1, le=5000)] = Field(default=500, description="Letters fetched at once, at most.")
    largest: Annotated[int, Field(ge=1024, le=1 << 30)] = Field(
        default=16 << 20, description="Bytes of a letter, beyond which it is not fetched."
    )
    idle: Annotated[Duration, Field(gt=timedelta(0), lt=timedelta(minutes=29))] = Field(
        default=timedelta(minutes=10), description="After so long a wait for new mail (IDLE) is begun anew."
    )
    poll: Annotated[Duration, Field(gt=timedelta(0))] = Field(
        default=timedelta(minutes=1), description="How often a server without IDLE is asked for new mail."
    )
    later: Annotated[Duration, Field(gt=timedelta(0))] = Field(
        default=timedelta(minutes=5), description="When letters that could not be judged yet are looked at again."
    )
    timeout: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(minutes=10))] = Field(
        default=timedelta(seconds=30), description="How long the server may be silent when it was asked."
    )
    lock_dir: Path | None = Field(
        default=None, description="Folder of the locks by which one process reads; else one of this machine and user."
    )

    _bell: Bell = PrivateAttr(default_factory=Bell)
    _reading: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _pace: Pace = PrivateAttr(default_factory=lambda: Pace(_LONGEST_PAUSE))
    _turn: Turn | None = PrivateAttr(default=None)
    _tokens: Tokens | None = PrivateAttr(default=None)
    _client: Client | None = PrivateAttr(default=None)
    _open: Folder | None = PrivateAttr(default=None)
    _look: float = PrivateAttr(default=0.0)  # when to look again where there is no IDLE
    _due: float = PrivateAttr(default=0.0)  # when to offer again what was not judged
    _left: float = PrivateAttr(default=math.nan)
    _portion: int = PrivateAttr(default=0)  # letters fetched at once, fewer where connections break
    _strikes: dict[int, int] = PrivateAttr(default_factory=dict)
    _undone: str = PrivateAttr(default="")  # why letters are still where they were read

    @model_validator(mode="after")
    def _whole(self) -> Imap:
        if self.tls == "none" and not _is_here(self.host):
            raise ValueError('tls = "none" is for 127.0.0.1, ::1 and localhost: set tls = "starttls" or "tls"')
        oauth = bool(self.token_url or self.refresh_token or self.client_id or self.client_secret)
        if oauth == bool(self.password):
            raise ValueError("give either a password (password_file), or token_url, client_id and refresh_token_file")
        if oauth and not (self.token_url and self.refresh_token and self.client_id):
            raise ValueError("a login by token needs token_url, client_id and refresh_token_file")
        if self.done == {} or (isinstance(self.done, dict) and self.done["move"] == self.folder):
            raise ValueError("done must move letters to another folder, or be flag, seen or delete")
        return self

    @property
    def where(self) -> str:
        """The server for people."""
        return f"IMAP at {self.host}:{self._port}"

    def collect(self, memory: Memory, now: datetime) -> Iterator[Batch]:
        """Letters that have come, in the order of their arrival; then waits for more, for as long as ``idle`` says.

        What follows a ``yield`` moves, marks or deletes the letters of that batch. A batch without rows says that all
        has been read.
        """
        with self._reading:
            if self._bell.has_rung() or time.monotonic() < self._look:
                return
            self._pace.ready()
            try:
                yield from self._read(_Position.of(memory.cursor), _Clock(now))
            except PluginError as error:
                self._given_up(error)
                raise
            except FAILURES as error:
                if self._bell.has_rung():
                    self._drop()
                    return
                failure = PluginError(f"{self.where} {told(error)}", retry=True)
                self._given_up(failure, careful=isinstance(error, LoginError))
                raise failure from error
            if self._bell.has_rung():
                self._drop()

    def waiting(self) -> float | None:
        """Letters in the folder that are not read or not judged yet, as last seen; NaN while unknown."""
        return self._left

    def unreadable(self) -> str:
        """Why the folder can't be opened; nothing in it is changed."""
        if self._client is not None:
            return ""
        try:
            client = self._connected()
            try:
                self._entered(client, change=False)
            finally:
                client.hang_up()
        except PluginError as error:
            return str(error)
        except FAILURES as error:
            return f"{self.where} {told(error)}"
        return ""

    def close(self) -> None:
        """Let a read end: after its letters if that is soon, else by cutting the connection."""
        self._bell.ring()
        if not self._reading.acquire(timeout=_GRACE):
            if client := self._client:
                client.cut()
            return  # the read that ends drops the rest
        try:
            self._drop()
        finally:
            self._reading.release()

    # one read

    def _read(self, at: _Position, clock: _Clock) -> Iterator[Batch]:
        folder = self._folder()
        if at.validity != folder.validity:
            if at.validity:
                log.warning("folder was renumbered: it is read anew", extra={"source": self.where})
            at = _Position(folder.validity)
            self._strikes.clear()
        self._settle(folder, at)
        while not self._bell.has_rung():
            yield from self._pass(folder, at, clock)
            if self._bell.has_rung():
                return
            if self._undone:
                raise PluginError(f"{self.where} {self._undone}", retry=True)
            self._left = len(at.later)
            yield Batch({}, cursor=at.cursor())
            self._pace.went()
            if not self._news(folder, at):
                return

    def _pass(self, folder: Folder, at: _Position, clock: _Clock) -> Iterator[Batch]:
        """All that there is now: first what is new, then what is to be judged again."""
        for uids in folder.listed(at.uid + 1):
            yield from self._letters(folder, at, clock, uids)
            if self._bell.has_rung():
                return
            at.uid = max(at.uid, *uids, 0)  # the last ones may be gone meanwhile
        if at.later and time.monotonic() >= self._due:
            self._due = time.monotonic() + self.later.total_seconds()
            yield from self._letters(folder, at, clock, sorted(at.later))

    def _letters(self, folder: Folder, at: _Position, clock: _Clock, uids: Sequence[int]) -> Iterator[Batch]:
        start = 0
        while start < len(uids) and not self._bell.has_rung():
            some = uids[start : start + _SIZED * (self._portion or self.batch)]
            start += len(some)
            sizes = folder.sizes(some, min(_SMALL, self.largest))
            left = list(some)
            while left and not self._bell.has_rung():
                self._left = len(uids) - start + len(left) + len(at.later)
                portion = left[: self._fit([sizes[uid] for uid in left])]
                yield from self._taken(folder, at, clock, {uid: sizes[uid] for uid in portion})
                left = left[len(portion) :]

    def _fit(self, sizes: Sequence[int]) -> int:
        """How many of these letters are fetched at once, one at least."""
        self._portion = min(self._portion or self.batch, self.batch)
        count, total = 0, 0
        for size in sizes[: self._portion]:
            total += size if size <= self.largest else 0
            if count and total > _AT_ONCE:
                break
            count += 1
        return count

    def _taken(self, folder: Folder, at: _Position, clock: _Clock, sizes: Mapping[int, int]) -> Iterator[Batch]:
        """A batch of these letters; what becomes of them once it is on disk."""
        fetched = self._fetched(folder, [uid for uid, size in sizes.items() if self._wanted(uid, size)])
        letters = {uid: one for uid, one in fetched.items() if one and len(one.content) <= self.largest}
        read = self.read([self._raw(uid, one) for uid, one in letters.items()], clock.now())
        order = list(letters)
        later = {order[place] for place in read.later}
        large = {uid for uid, size in sizes.items() if size > self.largest}
        large |= {uid for uid, one in fetched.items() if one and len(one.content) > self.largest}
        withheld = {uid for uid in sizes if self._strikes.get(uid)} - letters.keys() - large
        hopeless = {uid for uid in withheld if self._strikes[uid] >= _STRIKES}
        self._note(at, sizes, later | withheld - hopeless)
        at.owed |= letters.keys() - later
        if self.done != "delete":
            at.owed |= large  # else nothing would be left of them
        aside = [*self._aside(_TOO_LARGE, large), *self._aside(_NOT_GIVEN, hopeless)]
        yield replace(read.batch, cursor=at.cursor(), rejected=[*read.batch.rejected, *aside])
        self._pace.went()
        for uid in (*letters, *hopeless):
            self._strikes.pop(uid, None)
        self._settle(folder, at)

    def _note(self, at: _Position, sizes: Mapping[int, int], later: set[int]) -> None:
        if later and not at.later:
            self._due = time.monotonic() + self.later.total_seconds()
        at.uid = max(at.uid, *sizes)
        at.later = (at.later - sizes.keys()) | later

    def _wanted(self, uid: int, size: int) -> bool:
        return size <= self.largest and self._strikes.get(uid, 0) < _STRIKES

    def _fetched(self, folder: Folder, uids: Sequence[int]) -> dict[int, Fetched | None]:
        """The letters; those that the server does not give have a strike more."""
        if not uids:
            return {}
        try:
            found = folder.fetched(uids, self.largest)
        except (IMAP4.abort, OSError):
            self._broke(uids)
            raise
        except IMAP4.error:
            if len(uids) == 1:
                self._strike(uids[0])
                return {}
            half = len(uids) // 2  # the server stumbles over one of them
            return {**self._fetched(folder, uids[:half]), **self._fetched(folder, uids[half:])}
        nothing = {uid for uid, one in found.items() if one is None}
        for uid in nothing | folder.present(set(uids) - found.keys()):
            self._strike(uid)
        self._portion = min(self.batch, 2 * self._portion)
        return {uid: found[uid] for uid in uids if uid in found}

    def _broke(self, uids: Sequence[int]) -> None:
        """A connection broke in a fetch: fewer at the next try, so that it gets on, and past the one to blame."""
        if self._bell.has_rung():
            return
        self._portion = max(1, len(uids) // 2)
        if len(uids) == 1:
            self._strike(uids[0])

    def _strike(self, uid: int) -> None:
        self._strikes[uid] = self._strikes.get(uid, 0) + 1

    def _raw(self, uid: int, one: Fetched) -> Raw:
        return Raw(one.content, self._place(uid), one.received, recipient(one.content))

    def _place(self, uid: int) -> str:
        return f"{self.folder} uid {uid}"

    def _aside(self, why: str, uids: Collection[int]) -> Iterator[Rejected]:
        yield from (Rejected(why, self._place(uid)) for uid in sorted(uids))

    # afterwards

    def _settle(self, folder: Folder, at: _Position) -> None:
        """Move, mark or delete what is owed; a no of the server is kept for later, and lets reading go on."""
        if not at.owed:
            return
        try:
            self._done_with(folder, sorted(at.owed))
        except IMAP4.abort:
            raise
        except IMAP4.error as error:
            self._undone = f"{told(error)} (when letters were to be {self._deed})"
            if len(at.owed) > _OWED:
                raise PluginError(f"{self.where} {self._undone}", retry=True) from error
        else:
            at.owed.clear()
            self._undone = ""

    def _done_with(self, folder: Folder, uids: Sequence[int]) -> None:
        match self.done:
            case "seen":
                folder.mark(uids, r"\Seen")
            case "flag":
                folder.mark(uids, KEYWORD)
            case "delete":
                folder.delete(uids)
            case {"move": to}:
                folder.move(uids, to)

    @property
    def _deed(self) -> str:
        if isinstance(self.done, dict):
            return f"moved to {scrub(self.done['move'], 100)}"
        return {"seen": "marked as seen", "flag": f"marked by {KEYWORD}", "delete": "deleted"}[self.done]

    def _news(self, folder: Folder, at: _Position) -> bool:
        """Wait for something new; whether it is worth a look already. Without IDLE the next read has to look."""
        if not folder.idles:
            self._look = time.monotonic() + self.poll.total_seconds()
            return False
        seconds = self.idle.total_seconds()
        if at.later:
            seconds = max(0.0, min(seconds, self._due - time.monotonic()))
        until = time.monotonic() + seconds
        try:
            folder.wait(seconds, self._bell)
        except IMAP4.abort:
            raise
        except IMAP4.error:
            folder.idles = False
            return False
        return time.monotonic() < until

    # the connection

    @property
    def _port(self) -> int:
        return self.port or _PORTS[self.tls]

    def _folder(self) -> Folder:
        """The folder, open and up to date."""
        self._await_turn()
        if self._open is not None:
            self._open.ask()
            return self._open
        self._client = self._connected()
        self._open = self._entered(self._client)
        if self.done == "flag" and not self._open.keeps_keywords:
            raise PluginError(f'{self.where} keeps no keywords in this folder: set done = "seen", or move', retry=True)
        return self._open

    def _await_turn(self) -> None:
        if self._turn is None:
            port = "imap" if self._port in _PORTS.values() else str(self._port)
            self._turn = Turn(self.lock_dir or usual_folder(), self.host.lower(), port, self.user, self.folder)
        if not self._turn.taken():
            raise PluginError(f"another process reads {self._shown} there: this one waits until that ends", retry=True)

    def _connected(self) -> Client:
        door = Door(self.host, self._port, self.tls, self.timeout.total_seconds(), self.ca_file)
        try:
            return connect(door, self._login())
        except LoginError:
            if self._tokens is None or not self._tokens.forget():
                raise
            return connect(door, self._login())  # the token was an old one, and may have been withdrawn

    def _login(self) -> Callable[[Client], object]:
        if self.password is not None:
            password = self.password.get_secret_value()
            return lambda client: by_password(client, self.user, password)
        token, self._tokens = self._token()
        return lambda client: by_token(client, self.user, token)

    def _token(self) -> tuple[str, Tokens]:
        assert self.token_url and self.refresh_token  # noqa: S101, PT018  # as `_whole` has it
        tokens = self._tokens or Tokens(
            self.token_url,
            self.client_id,
            self.client_secret,
            self.refresh_token,
            kept=self.rotated_file,
            outgoing=self.outgoing,
        )
        return tokens.token(), tokens

    def _entered(self, client: Client, *, change: bool = True) -> Folder:
        try:
            return Folder(client, self.folder, change=change)
        except IMAP4.abort:
            raise
        except IMAP4.error as error:
            there = ", ".join(scrub(name, 60) for name in names(client))
            why = f"does not open {self._shown} ({told(error)}); there are: {there or 'none'}"
            raise PluginError(f"{self.where} {why}", retry=True) from error

    @property
    def _shown(self) -> str:
        return scrub(self.folder, 100)

    def _given_up(self, failure: PluginError, *, careful: bool = False) -> None:
        self._drop(keep_turn=True)
        self._left = math.nan
        self._pace.failed(failure, careful=careful)

    def _drop(self, *, keep_turn: bool = False) -> None:
        client, self._client, self._open = self._client, None, None
        if client:
            client.hang_up()
        if self._turn and not keep_turn:
            self._turn.release()


class _Clock:
    """The service's clock, for a read that takes long."""

    def __init__(self, now: datetime) -> None:
        self._now, self._since = now, time.monotonic()

    def now(self) -> datetime:
        return self._now + timedelta(seconds=time.monotonic() - self._since)


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
