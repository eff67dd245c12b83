"""Reports that come by mail, read from a folder of an IMAP server."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from imaplib import IMAP4
from pathlib import Path
from typing import Annotated, Literal

from imapclient.exceptions import LoginError
from pydantic import Field, PrivateAttr, model_validator

from collectors._bell import Bell
from collectors._envelope import recipient
from collectors._imap import KEYWORD, Fetched, Folder
from collectors._imap_account import PORTS, Account
from collectors._imap_care import SMALL, Care
from collectors._imap_client import Client, names
from collectors._imap_position import Position
from collectors._imap_words import FAILURES, told
from collectors._letters import Raw
from collectors._pace import Pace
from collectors._turn import Turn, usual_folder
from monitor.model import Batch, Rejected
from monitor.ports import Duration, Memory, PluginError
from monitor.scrub import scrub

log = logging.getLogger(__name__)

_SIZED = 4  # times as many letters as are fetched at once are asked for their sizes
_OWED = 100_000  # letters that wait to be moved, after which no more are read
_LONGEST_PAUSE = 300.0  # seconds between two tries
_GRACE = 2.0  # seconds in which a read may end by itself
_TOO_LARGE = "letter larger than `largest`: it was not read"
_NOT_GIVEN = "letter that the server does not give: it was left where it is"


class Imap(Account):
    """``[collector.NAME]`` with ``kind = "imap"``."""

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
    lock_dir: Path | None = Field(
        default=None, description="Folder of the locks by which one process reads; else one of this machine and user."
    )

    _bell: Bell = PrivateAttr(default_factory=Bell)
    _reading: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _pace: Pace = PrivateAttr(default_factory=lambda: Pace(_LONGEST_PAUSE))
    _care: Care = PrivateAttr()
    _turn: Turn | None = PrivateAttr(default=None)
    _client: Client | None = PrivateAttr(default=None)
    _open: Folder | None = PrivateAttr(default=None)
    _look: float = PrivateAttr(default=0.0)  # when to look again where there is no IDLE
    _due: float = PrivateAttr(default=0.0)  # when to offer again what was not judged
    _left: float = PrivateAttr(default=math.nan)
    _refusals: int = PrivateAttr(default=0)  # of logins, one after the other
    _undone: str = PrivateAttr(default="")  # why letters are still where they were read

    @model_validator(mode="after")
    def _ready(self) -> Imap:
        if self.done == {} or (isinstance(self.done, dict) and self.done["move"] == self.folder):
            raise ValueError("done must move letters to another folder, or be flag, seen or delete")
        self._care = Care(self.batch, self.largest)
        return self

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
                yield from self._read(Position.of(memory.cursor), _Clock(now))
            except PluginError as error:
                self._given_up(error)
                raise
            except FAILURES as error:
                if not self._bell.has_rung():
                    raise self._failed(error) from error
            finally:
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
            client = self.connected()
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

    def _read(self, at: Position, clock: _Clock) -> Iterator[Batch]:
        folder = self._folder()
        if at.validity != folder.validity:
            if at.validity:
                log.warning("folder was renumbered: it is read anew", extra={"source": self.where})
            at = Position(folder.validity)
            self._care.forget()
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

    def _pass(self, folder: Folder, at: Position, clock: _Clock) -> Iterator[Batch]:
        """All that there is now: first what is new, then what is to be judged again."""
        for uids in folder.listed(at.uid + 1):
            yield from self._letters(folder, at, clock, uids)
        if at.later and time.monotonic() >= self._due:
            self._due = time.monotonic() + self.later.total_seconds()
            yield from self._letters(folder, at, clock, sorted(at.later))

    def _letters(self, folder: Folder, at: Position, clock: _Clock, uids: Sequence[int]) -> Iterator[Batch]:
        start = 0
        while start < len(uids) and not self._bell.has_rung():
            left = uids[start : start + _SIZED * self._care.portion]
            start += len(left)
            sizes = folder.sizes(left, min(SMALL, self.largest))
            while left and not self._bell.has_rung():
                self._left = len(uids) - start + len(left) + len(at.later)
                count = self._care.fit([sizes[uid] for uid in left])
                yield from self._taken(folder, at, clock, {uid: sizes[uid] for uid in left[:count]})
                left = left[count:]

    def _taken(self, folder: Folder, at: Position, clock: _Clock, sizes: Mapping[int, int]) -> Iterator[Batch]:
        """A batch of these letters; what becomes of them once it is on disk."""
        fetched = self._care.fetched(folder, sizes)
        large = {uid for uid, size in sizes.items() if size > self.largest}
        large |= {uid for uid, one in fetched.items() if len(one.content) > self.largest}
        letters = {uid: one for uid, one in fetched.items() if uid not in large}
        read = self.read([self._raw(uid, one) for uid, one in letters.items()], clock.now())
        order = list(letters)
        later = {order[place] for place in read.later}
        hopeless = self._care.hopeless(sizes)
        self._note(at, sizes, later | (self._care.withheld(sizes) - hopeless))
        at.owed |= letters.keys() - later
        if self.done != "delete":
            at.owed |= large  # else nothing would be left of them
        aside = [*self._aside(_TOO_LARGE, large), *self._aside(_NOT_GIVEN, hopeless)]
        yield replace(read.batch, cursor=at.cursor(), rejected=[*read.batch.rejected, *aside])
        self._pace.went()
        self._care.forget(hopeless)
        self._settle(folder, at)

    def _note(self, at: Position, sizes: Mapping[int, int], later: set[int]) -> None:
        if later and not at.later:
            self._due = time.monotonic() + self.later.total_seconds()
        at.uid = max(at.uid, *sizes)
        at.later = (at.later - sizes.keys()) | later

    def _raw(self, uid: int, one: Fetched) -> Raw:
        return Raw(one.content, self._place(uid), one.received, recipient(one.content))

    def _place(self, uid: int) -> str:
        return f"{self.folder} uid {uid}"

    def _aside(self, why: str, uids: Collection[int]) -> Iterator[Rejected]:
        yield from (Rejected(why, self._place(uid)) for uid in sorted(uids))

    # afterwards

    def _settle(self, folder: Folder, at: Position) -> None:
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

    def _news(self, folder: Folder, at: Position) -> bool:
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

    def _folder(self) -> Folder:
        """The folder, open and up to date."""
        self._await_turn()
        if self._open is not None:
            self._open.ask()
            return self._open
        self._client = self.connected()
        self._refusals = 0
        self._open = self._entered(self._client)
        if self.done == "flag" and not self._open.keeps_keywords:
            raise PluginError(f'{self.where} keeps no keywords in this folder: set done = "seen", or move', retry=True)
        return self._open

    def _await_turn(self) -> None:
        if self._turn is None:
            number = self.port_number
            port = "imap" if number in PORTS.values() else str(number)
            self._turn = Turn(self.lock_dir or usual_folder(), self.host.lower(), port, self.user, self.folder)
        if not self._turn.taken():
            raise PluginError(f"another process reads {self._shown} there: this one waits until that ends", retry=True)

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

    def _failed(self, error: BaseException) -> PluginError:
        """What is to be told of a failure of the server or the network; the connection is given up."""
        failure = PluginError(f"{self.where} {told(error)}", retry=True)
        self._refusals = self._refusals + 1 if isinstance(error, LoginError) else 0
        # One may come of a server that is about to end (Dovecot 2.3 was seen to say so).
        self._given_up(failure, careful=self._refusals > 1)
        return failure

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
