"""Laws of holding: whatever happens in whatever order, what we hold stands in the file, and all of it ends."""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from monitor.actuators import _undo
from monitor.actuators._queue import Queue
from monitor.core.leases import granted
from monitor.model import Lease, Scope
from monitor.ports import PluginError
from monitor.release import Watch
from tests.builders import pause
from tests.servers.held import Queued

FAILS = st.sampled_from(["", "", "", "before", "during", "after"])


class Holds(RuleBasedStateMachine):
    """Core, ``mailvane release`` and a person at one queue; any of them may fail or be away."""

    sellers = st.sampled_from(["a", "b"])
    messages = Bundle("messages")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.tier = self.stack.enter_context(Queued(folder / "socket"))
        self.state = folder / "held"
        self.queue = Queue(self.tier.helper, self.state)
        self.watch = Watch(self.state)
        self.began, self.passed = time.time(), 0.0
        self.leases: list[Lease] = []
        self.count = 0
        self.own: set[str] = set()  # on hold by a person
        self.looks()

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.began + self.passed, UTC)

    @rule(target=messages, seller=sellers)
    def mail_comes(self, seller):
        self.count += 1
        queued = f"AAAA{self.count}"
        self.tier.queue[queued], self.tier.sender[queued] = "deferred", f"{seller}@shop.example"
        return queued

    @rule(queued=consumes(messages))
    def mail_leaves(self, queued):
        del self.tier.queue[queued]
        self.own.discard(queued)

    @rule(queued=messages)
    def a_person_holds(self, queued):
        if self.tier.queue.get(queued) == "deferred" and queued not in self.ours():
            self.tier.queue[queued] = "hold"
            self.own.add(queued)

    @rule(queued=messages)
    def a_person_releases(self, queued):
        if queued in self.tier.queue:
            self.tier.queue[queued] = "deferred"
            self.own.discard(queued)

    @rule(seller=sellers, minutes=st.integers(1, 60))
    def a_pause_begins(self, seller, minutes):
        self.count += 1
        until = self.now + timedelta(minutes=minutes)
        found = granted(
            pause(id=f"{self.count}@0", seq=self.count, scope=Scope(tenant=seller), at=self.now, until=until)
        )
        self.leases.append(found)

    @rule(seller=sellers)
    def a_pause_is_resumed(self, seller):
        self.leases = [lease for lease in self.leases if lease.scope.tenant != seller]

    @rule(fails=FAILS)
    def core_works(self, fails):
        self.tier.fails = fails
        live = [lease for lease in self.leases if lease.until > self.now]
        by_seller = {lease.scope.tenant: lease for lease in live}
        with suppress(PluginError):
            self.queue.sync(live, lambda sender, _to: by_seller.get(sender.partition("@")[0]), self.now)
        self.tier.fails = ""

    @rule(minutes=st.integers(0, 40), fails=FAILS)
    def release_works(self, minutes, fails):
        self.passed += 60.0 * minutes
        self.tier.fails = fails
        self.looks()
        self.tier.fails = ""

    @rule(minutes=st.integers(1, 5))
    def release_is_away(self, minutes):
        self.passed += 60.0 * minutes

    @rule(seller=sellers, fails=FAILS)
    def a_pause_comes_and_goes(self, seller, fails):
        self.looks()
        self.mail_comes(seller)
        self.a_pause_begins(seller, 10)
        self.core_works("")
        self.a_pause_is_resumed(seller)
        self.core_works(fails)

    @rule(copy=st.booleans(), keep=st.floats(0, 1))
    def a_file_is_damaged(self, copy, keep):
        path = self.state.with_name("held.copy") if copy else self.state
        other = self.state if copy else self.state.with_name("held.copy")
        if path.exists() and other.exists() and not _undo.read(self.state).damage:
            path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    def looks(self):
        self.watch.look(_undo.instant(self.now), self.passed)
        if (sign := self.state.with_name("held.alive")).exists() and time.time() - sign.stat().st_mtime < 5:
            os.utime(sign, (self.now.timestamp(),) * 2)  # it lives in our time

    def ours(self) -> set[str]:
        found = _undo.read(self.state)
        return set(found.until) if found else set()

    @invariant()
    def what_we_hold_stands_in_the_file(self):
        assert self.tier.on_hold() - self.own <= self.ours()

    @invariant()
    def what_a_person_holds_stays(self):
        assert self.own <= self.tier.on_hold()
        assert not self.own & self.ours()

    def teardown(self):
        """Core is dead for good."""
        for _ in range(4):
            self.passed += 3600.0
            self.looks()
        left = self.tier.on_hold() - self.own
        self.stack.close()
        assert left == set()


TestHolds = Holds.TestCase
TestHolds.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class Quick(Queued):
    """A person puts the first message on hold just before we do."""

    def answer(self, verb: str, ids: list[str]) -> str:
        if verb == "hold":
            self.queue[ids[0]] = "hold"
        return super().answer(verb, ids)


def test_a_message_that_a_person_held_a_moment_earlier_is_not_ours(tmp_path):
    with Quick(tmp_path / "socket", dict.fromkeys(("AAAA1", "AAAA2"), "deferred"), defaultdict(str)) as tier:
        now = datetime.now(UTC)
        lease = granted(pause(at=now, until=now + timedelta(hours=1)))
        _undo.show_life(tmp_path / "held")
        queue = Queue(tier.helper, tmp_path / "held")
        queue.sync([lease], lambda _sender, _to: lease, now)
        assert set(_undo.read(tmp_path / "held").until) == {"AAAA2"}
        queue.sync([], lambda _sender, _to: None, now)
        assert tier.on_hold() == {"AAAA1"}


def test_no_more_is_held_than_can_be_remembered(tmp_path):
    ids = [f"AAAA{n}" for n in range(5)]
    with Queued(tmp_path / "socket", dict.fromkeys(ids, "deferred"), defaultdict(str)) as tier:
        now = datetime.now(UTC)
        lease = granted(pause(at=now, until=now + timedelta(hours=1)))
        _undo.show_life(tmp_path / "held")
        for _ in range(3):
            with pytest.raises(PluginError, match="more than 3 messages"):
                Queue(tier.helper, tmp_path / "held", most=3).sync([lease], lambda _sender, _to: lease, now)
            assert len(tier.on_hold()) == 3
