"""``mailvane release``: lets go what a pause holds in a tier that has no expiry of its own, as soon as it has ended.

It is a process of its own and needs nothing but the tiers' files (``monitor/actuators/_undo.py``): no service, no
ledger, no network. While it lives it says so beside each file; without that sign such a tier is given nothing to hold.
"""

from __future__ import annotations

import logging
import signal
import threading
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from time import monotonic

from monitor import notify
from monitor.actuators import _helper, _undo
from monitor.errors import UserError
from monitor.ports import PluginError

log = logging.getLogger(__name__)

EVERY = 1.0  # seconds between two looks
AGAIN = 30.0  # seconds until that is undone again which may still have been on its way to be held
LEAVE = 5.0  # seconds that what is under way has to end when we end
WAIT = 2.0, 30.0  # seconds until another try after a failure, doubling up to the second


def states(config: Path | None) -> tuple[Path, ...]:
    """The files of the tiers that need us: ``state`` in each ``[actuator.NAME]``; all else is not looked at.

    Raises:
        UserError: the configuration can't be read.
    """
    if config is None:
        return ()
    try:
        tables = tomllib.loads(config.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{config} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{config} is no TOML: {error}") from error
    tiers = tables.get("actuator")
    named = [tier.get("state") for tier in tiers.values() if isinstance(tier, dict)] if isinstance(tiers, dict) else []
    return tuple(Path(state).absolute() for state in dict.fromkeys(named) if isinstance(state, str) and state)


def run(files: Sequence[Path], clock: Callable[[], datetime]) -> bool:
    """Work until a signal comes, then let everything go; whether that was done.

    With us goes whoever would let it go later, and a pause always ends.
    """
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    # A thread for each: a tier that does not answer must not keep the others.
    threads = [threading.Thread(target=_keep, args=(Watch(path), clock, over), daemon=True) for path in files]
    for thread in threads:
        thread.start()
    log.info("started", extra={"files": [str(path) for path in files]})
    notify.notify("READY=1")
    while not over.wait(min(EVERY, notify.watchdog() or EVERY)):
        notify.notify(notify.BEAT)
    notify.notify("STOPPING=1")
    for thread in threads:
        thread.join(LEAVE / len(threads))
    return let_go(files, clock())


def _keep(watch: Watch, clock: Callable[[], datetime], over: threading.Event) -> None:
    while not over.is_set():
        try:
            watch.look(_undo.instant(clock()), monotonic())
        except Exception:  # a fault of ours; where it lasts, the sign of life grows old
            log.exception("fault while letting go")
        over.wait(EVERY)


def let_go(files: Iterable[Path], now: datetime) -> bool:
    """Undo everything, whatever its end; whether all of it was."""
    went = [_let_go(path, _undo.instant(now)) for path in files]  # none is left out where an earlier one fails
    return all(went)


def _let_go(path: Path, at: _undo.Instant) -> bool:
    try:
        _undo.end_life(path)  # first, so that nothing more is held
        if _undo.untouched(path):
            return True  # and let no lock stand there that may belong to another than the file will
        with _undo.locked(path, patience=LEAVE) as alone:
            if not (held := _undo.read(path)):
                return True
            count = _undone(held, [*held.until])
            if alone and not held.lost:
                left = {} if _undo.settled(path, at) else {what: _undo.Until(at.wall, "") for what in held.until}
                _undo.write(path, replace(held, until=left))
    except (PluginError, OSError) as error:
        log.error("not let go", extra={"file": str(path), "error": str(error)})  # noqa: TRY400  # the world's fault
        return False
    log.info("all let go", extra={"file": str(path), "count": count})
    return not held.lost


def _undone(held: _undo.Held, whats: Sequence[str]) -> int:
    """How many of them were still held, and are no more."""
    if not held.undo:
        raise PluginError(f"{held.damage}; how to let go can't be read", retry=True)
    return len(_helper.done(held.undo, whats))


class Watch:
    """One tier's file, and how far it is worked off."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: object = None
        self._held: _undo.Held | None = None
        self._undone: dict[str, _undo.Until] = {}
        self._again = 0.0  # when to undo once more what was undone
        self._wait, self._next = WAIT[0], 0.0
        self._told = ""

    def look(self, at: _undo.Instant, now: float) -> None:
        """Let go what has ended; ``now`` is of the monotonic clock. Errors are told in the log, and tried again."""
        if now < self._next:
            return
        try:
            self._work(at, now)
            if not (self._held and self._held.lost):
                _undo.show_life(self._path)
        except (PluginError, OSError) as error:
            self._next, self._wait = now + self._wait, min(2 * self._wait, WAIT[1])
            damage = self._held.damage if self._held else ""
            self._tell("; ".join(filter(None, (damage, str(error)))))
        else:
            self._wait = WAIT[0]
            self._tell(self._held.damage if self._held else "")

    def _work(self, at: _undo.Instant, now: float) -> None:
        signature = _undo.signature(self._path)
        if signature != self._signature:
            self._held, self._signature = _undo.read(self._path), signature
        ended = self._held.ended(at) if self._held else {}
        if not ended:
            self._undone = {}
        elif not ended.items() <= self._undone.items() or now >= self._again:
            self._let_go(at)
            self._undone, self._again = ended, now + AGAIN

    def _let_go(self, at: _undo.Instant) -> None:
        """Where another is at work, or may have died while he held more, all of it stays to be done once more."""
        with _undo.locked(self._path, patience=0) as alone:
            held = _undo.read(self._path) or self._held
            if held is None:
                return
            ended = held.ended(at)
            if count := _undone(held, [*ended]):
                log.info("let go", extra={"file": str(self._path), "count": count})
            if alone and not held.lost and _undo.settled(self._path, at):
                left = {what: until for what, until in held.until.items() if what not in ended}
                _undo.write(self._path, replace(held, until=left))

    def _tell(self, error: str) -> None:
        """Once a change."""
        if error == self._told:
            return
        self._told = error
        notify.notify(f"STATUS={error or 'all that has ended is let go'}")
        if error:
            log.error("trouble with what is held", extra={"file": str(self._path), "error": error})
        else:
            log.info("all is well again", extra={"file": str(self._path)})
