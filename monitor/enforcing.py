"""Telling the dispatch tiers which leases are in force: when that changes, and each minute all the same (ADR 4)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from time import monotonic

from monitor.gate import Gate
from monitor.model import Answer, Scope
from monitor.ports import ALL, Actuator, PluginError

log = logging.getLogger(__name__)

EVERY = 60.0  # seconds between two tellings where nothing changed
AGAIN = 10.0  # seconds until another try after a failure that is worth one
LOOK = 0.5  # seconds between two looks at the generation
LONG = 120.0  # seconds; a telling that takes longer is shown as a fault
LEAVE = 5.0  # seconds that a telling has to end when the service ends


class Enforcer:
    """Keeps each tier told, in a thread of its own: one that hangs delays neither the others nor the service.

    ``shown(part, error)`` shows what is wrong with a part, nothing where all is well; ``failed(name)`` counts.
    """

    def __init__(
        self,
        actuators: Mapping[str, Actuator],
        gate: Gate,
        clock: Callable[[], datetime],
        shown: Callable[[str, str], None],
        failed: Callable[[str], None],
    ) -> None:
        self._tiers = [_Tier(name, actuator, gate, clock) for name, actuator in actuators.items()]
        self._shown, self._failed = shown, failed
        self._stop = threading.Event()
        # What hangs in a tier that does not answer must not keep the service from ending: each sync may be cut off.
        self._threads = [
            threading.Thread(target=self._keep, args=(tier,), name=f"actuator.{tier.name}", daemon=True)
            for tier in self._tiers
        ]

    def start(self) -> None:
        """Begin to tell."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing more, and leave what is under way a moment to end."""
        self._stop.set()
        end = monotonic() + LEAVE
        for thread in self._threads:
            thread.join(max(0.0, end - monotonic()))

    def watch(self) -> None:
        """Show the tiers whose telling takes too long."""
        for tier in self._tiers:
            if tier.busy_for() > LONG:
                self._shown(f"actuator.{tier.name}", f"has been at it for more than {LONG:g} s")

    def _keep(self, tier: _Tier) -> None:
        while not self._stop.wait(LOOK):
            if tier.due():
                self._tell(tier)

    def _tell(self, tier: _Tier) -> None:
        try:
            tier.tell()
        except PluginError as error:
            self._fault(tier, str(error), retry=error.retry)
        except Exception as error:
            log.exception("tier failed", extra={"actuator": tier.name})
            self._fault(tier, f"{type(error).__name__}: see the log", retry=True)
        else:
            if tier.error:
                log.info("tier told again", extra={"actuator": tier.name})
            tier.error = ""
            self._shown(f"actuator.{tier.name}", "")

    def _fault(self, tier: _Tier, error: str, *, retry: bool) -> None:
        self._failed(tier.name)
        self._shown(f"actuator.{tier.name}", error)
        if error != tier.error:  # once a change, not each time
            log.warning("tier not told", extra={"actuator": tier.name, "error": error})
        tier.error = error
        if retry:
            tier.hurry()


class _Tier:
    """One actuator, and when it was told what."""

    def __init__(self, name: str, actuator: Actuator, gate: Gate, clock: Callable[[], datetime]) -> None:
        self.name, self.error = name, ""
        self._actuator, self._gate, self._clock = actuator, gate, clock
        self._generation = -1
        self._began = self._ended = self._next = 0.0
        self._busy = False

    def due(self) -> bool:
        """Whether it should be told now: at most half of the time is spent on telling."""
        now = monotonic()
        rested = now - self._ended >= self._ended - self._began
        known = self._gate.read_at is not None  # else there seem to be no leases, and all would be let go
        return known and rested and (now >= self._next or self._gate.generation != self._generation)

    def tell(self) -> None:
        """Tell it.

        Raises:
            PluginError: as ``sync`` does.
        """
        now = self._clock()
        current = self._gate.current()
        self._began, self._busy = monotonic(), True
        self._generation = current.generation
        try:
            self._actuator.sync(current.leases, _Known(self._gate), now)
        finally:
            self._ended, self._busy = monotonic(), False
            self._next = self._began + EVERY

    def hurry(self) -> None:
        """It failed: be told sooner."""
        self._next = self._ended + AGAIN

    def busy_for(self) -> float:
        """Seconds since the telling began that is under way."""
        return monotonic() - self._began if self._busy else 0.0


class _Known:
    """What the gate knows, without counting: nobody is sending just now."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.provider = gate.provider

    def check(self, message: Scope, key: str = "", knows: frozenset[str] = ALL) -> Answer:
        """See ``ports.Current``."""
        return self._gate.check(message, key, knows)

    def refused(self, server: str, reason: str) -> None:
        """See ``ports.Current``."""
