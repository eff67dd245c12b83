"""Whichever way a sender asks, the answer follows from the leases in force by what scopes cover and by the two keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from monitor.actuators._fleet import destination
from monitor.actuators._policy import _key
from monitor.actuators._words import refusal, waiting
from monitor.core.leases import active, answer
from monitor.model import AUTOMATION, LABELS, Action, Deed, Lease, Scope, named
from tests.builders import pause, resumed
from tests.servers.houses import HOUSES, VALUES, House, Mail, Message, Told, both, owned
from tests.servers.ways import Ways

FULL = os.environ.get("MAILVANE_SCALE") == "full"
EXAMPLES = 1500 if FULL else 40

scopes = st.dictionaries(st.sampled_from(LABELS), st.integers(0, 2), max_size=4).map(
    lambda picks: owned({label: VALUES[label][pick % len(VALUES[label])] for label, pick in picks.items()})
)
messages = st.builds(
    Mail,
    labels=st.builds(
        lambda **labels: owned(labels),
        **{label: st.sampled_from(("", *values, *values)) for label, values in VALUES.items()},
    ),
    to=st.sampled_from(["one.example", "two.example", "three.example"]),
    has_user=st.booleans(),
    size=st.integers(0, 2),
)
asked = st.lists(messages, min_size=3, max_size=5)
keys = st.sampled_from(["", "<1@shop.example>", "k 2&3", "ü"])
# Short ones end between two looks of the gate without a leap of the clock, which makes it read all anew.
lengths = st.sampled_from([1, 2, 30, 3600, 86400]).map(lambda seconds: timedelta(seconds=seconds))
turns = st.sampled_from([1, 1, 2, 60, 7200]).map(lambda seconds: timedelta(seconds=seconds))
ahead = st.sampled_from([0, 0, 0, 1, 30]).map(lambda seconds: timedelta(seconds=seconds))


class Agreement(RuleBasedStateMachine):
    """People and automation grant and resume, time passes, and after each step random messages are asked about."""

    granted = Bundle("granted")

    @initialize(house=st.sampled_from(sorted(HOUSES)))
    def begin(self, house: str) -> None:
        self.house: House = HOUSES[house]
        self.ways = Ways(self.house.settings)
        self.log: list[Action] = []

    @rule(
        target=granted,
        deed=st.sampled_from([Deed.PAUSE, Deed.PAUSE, Deed.THROTTLE, Deed.REROUTE, Deed.ALLOW]),
        who=st.sampled_from([AUTOMATION, AUTOMATION, "marta", "jan"]),
        scope=scopes,
        length=lengths,
        later=ahead,
        share=st.sampled_from([0.1, 0.5, 0.9]),
        pool=st.sampled_from(["default", "quarantine", "elsewhere"]),
        mails=asked,
        key=keys,
    )
    def grant(
        self,
        deed: Deed,
        who: str,
        scope: Scope,
        length: timedelta,
        later: timedelta,
        share: float,
        pool: str,
        mails: list[Mail],
        key: str,
    ) -> str:
        at = self.now + later
        entry = pause(id=f"{len(self.log)}@0", at=at, who=who, deed=deed, scope=scope, until=at + length)
        entry = replace(entry, share=share * (deed is Deed.THROTTLE), pool=pool if deed is Deed.REROUTE else "")
        self.write(entry)
        self.agree(mails, key)
        return entry.id

    @rule(lease=granted, mails=asked, key=keys)
    def resume(self, lease: str, mails: list[Mail], key: str) -> None:
        self.write(replace(resumed(lease, self.now), id=f"r{len(self.log)}"))
        self.agree(mails, key)

    @rule(span=turns, mails=asked, key=keys)
    def turn(self, span: timedelta, mails: list[Mail], key: str) -> None:
        self.ways.gate.clock.turn(span)
        self.ways.gate.gate.refresh()
        self.agree(mails, key)

    def teardown(self) -> None:
        if hasattr(self, "ways"):
            self.ways.close()

    @property
    def now(self):
        return self.ways.gate.clock.now

    def write(self, entry: Action) -> None:
        self.log.append(replace(entry, seq=len(self.log) + 1))
        self.ways.gate.write(entry)

    def agree(self, mails: list[Mail], key: str) -> None:
        self.live = active(self.log, self.now)
        self.ways.catch_up()
        assert {lease.id for lease in self.ways.client.leases} == {lease.id for lease in self.live}
        found = [self.house.message(mail) for mail in mails]
        wholes = [whole(message, mail.labels) for message, mail in zip(found, mails, strict=True)]
        self.http([*wholes, *(mail.labels for mail in mails)], key)
        for message, labels in zip(found, wholes, strict=True):
            self.policy(message, labels)
            self.maps(message, labels)

    def http(self, messages: list[Scope], key: str) -> None:
        """All labels can be named there, so that the answer is just that of the leases."""
        batch = self.ways.post([(named(message), key) for message in messages])
        assert len(batch["answers"]) == len(messages)
        for message, in_batch in zip(messages, batch["answers"], strict=True):
            said = self.ways.get(named(message), key)
            assert said.pop("generation") == batch["generation"] == self.ways.gate.gate.generation
            assert said == in_batch
            due = answer(self.live, message, key)
            lease = due.lease
            share, pool = (1.0, "") if lease is None else terms(lease)
            left = (lease.until - self.now).total_seconds() if lease else None
            assert (said["answer"], said["share"], said["pool"]) == ("held" if due.held else "send", share, pool)
            assert (said["lease"] and said["lease"]["id"], said["ttl"]) == (lease and lease.id, left)
            ours = self.ways.ask_client(named(message), key)
            assert (ours.held, ours.share, ours.pool, ours.ttl) == (due.held, share, pool, left)
            assert (ours.lease and ours.lease.id) == (lease and lease.id)

    def policy(self, message: Message, labels: Scope) -> None:
        """It sees the whole envelope, and draws for throttles."""
        size = {"size": message.size, "sasl_username": message.user}
        said = self.ways.policy(sender=message.sender, recipient=message.recipient, **size)
        key = _key(message.sender, message.recipient, str(message.size))
        due = answer(self.live, message.policy.scope, key)
        if said == "DUNNO":
            assert not due.held or self.holes(message.policy)
            return
        assert due.held
        assert said == refusal(due.lease)
        for filled in (*self.filled(message.policy), labels):
            other = answer(self.live, filled, key)
            assert other.held or stricter(other.lease, due.lease)

    def maps(self, message: Message, labels: Scope) -> None:
        """Each sees one address, and passes throttles."""
        sees = {"recipients": (message.recipient, message.recipients), "senders": (message.sender, message.senders)}
        for table, (address, told) in sees.items():
            said = self.ways.memcache(table, address) if address else ""
            assert self.ways.socketmap(table, address or "@") == said
            if not address or (table == "recipients" and not told.scope.provider):
                assert said == ""
            else:
                self.destination(
                    said, told, labels, destination(message.home) if table == "senders" and message.home else ""
                )

    def destination(self, said: str, told: Told, labels: Scope, home: str) -> None:
        due = answer(self.live, told.scope)
        if due.lease is None or due.lease.deed in (Deed.ALLOW, Deed.THROTTLE):
            assert said == home
        elif due.lease.deed is Deed.PAUSE and not said.startswith("retry:"):
            assert said == home
            assert self.holes(told)
        elif due.lease.deed is Deed.PAUSE:
            assert said == waiting(due.lease)
            # An address may tell more than the mail's own labels do.
            truth = [labels] if told.scope.covers(labels) else []
            assert all(self.paused(filled) for filled in (*self.filled(told), *truth))
        else:
            self.moved(said, told, due.lease.pool, home)

    def moved(self, said: str, told: Told, pool: str, home: str) -> None:
        """Into the pool, to where nothing surely holds it."""
        there = {
            destination(transport): Told(replace(told.scope, ip=self.house.fleet.ip_of(transport)), told.knows | {"ip"})
            for transport in self.house.settings.get("pools", {}).get(pool, ())
        }
        if not there:
            assert said == home
        elif said.startswith("retry:"):
            assert all(self.paused(told.scope) for told in there.values())
        else:
            assert said in there
            assert not self.paused(there[said].scope) or self.holes(there[said])

    def paused(self, message: Scope) -> bool:
        lease = answer(self.live, message).lease
        return lease is not None and lease.deed is Deed.PAUSE

    def holes(self, told: Told) -> list[Lease]:
        """Leases of persons that may let the message pass, for all that can be told."""
        return [lease for lease in self.beyond(told) if lease.by_person and lease.deed is not Deed.PAUSE]

    def filled(self, told: Told) -> Iterator[Scope]:
        """Ways to fill in what can't be told: if a lease can decide otherwise at all, it does in one of these."""
        yield told.scope
        for lease in self.beyond(told):
            yield both(told.scope, lease.scope)

    def beyond(self, told: Told) -> Iterator[Lease]:
        """Leases that name what can't be told, and cover the message if that is as they say."""
        for lease in self.live:
            names = named(lease.scope)
            rest = [name for name in names if name in told.knows]
            if len(rest) < len(names) and all(getattr(told.scope, name) == names[name] for name in rest):
                yield lease


def whole(message: Message, labels: Scope) -> Scope:
    """What is true of the message: what its envelope tells, and of what that can't tell what its sender knows."""
    hidden = {name: value for name, value in named(labels).items() if name not in message.policy.knows}
    return owned({**hidden, **named(message.policy.scope)})


def terms(lease: Lease) -> tuple[float, str]:
    """The share and the pool that the sender is told."""
    share = {Deed.PAUSE: 0.0, Deed.THROTTLE: lease.share}.get(lease.deed, 1.0)
    return share, lease.pool if lease.deed is Deed.REROUTE else ""


def stricter(lease: Lease | None, than: Lease | None) -> bool:
    """Whether both are automation's throttles, and that one lets less pass: then each draws for itself."""
    return False


@pytest.mark.scale(order=2)
def test_all_ways_of_asking_agree_with_the_leases():
    run_state_machine_as_test(
        Agreement,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
