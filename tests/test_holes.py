"""In doubt we do not pause: what a way can't tell of a message never makes it hold what the two keys would let pass.

Beside ``test_agreement`` with its many houses: one house, few labels and many leases, so that pauses and holes meet.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from monitor.actuators._fleet import Fleet, destination
from monitor.core.leases import active, answer
from monitor.model import AUTOMATION, MARKER, Action, Deed, Lease, Scope, named
from tests.builders import pause, resumed
from tests.servers.ways import Ways

PATTERN = r"^bounces\+(?P<tenant>[^.]+)\.(?P<segment>[^.]+)\.(?P<stream>[^@]+)@"
PROVIDERS = {"one.example": "gmail", "two.example": "yahoo"}
IPS = {"smtp-1": "192.0.2.1", "smtp-2": "192.0.2.2", "smtp-3": "192.0.2.3"}
POOLS = {"default": ("smtp-1", "smtp-2"), "quarantine": ("smtp-3",)}
FLEET = Fleet(POOLS, IPS, "")
POLICY = {"domain", "tenant", "segment", "stream", "provider", "ip"}
SENDERS = POLICY - {"provider"}
VALUES = {
    "ip": [*IPS.values()],
    "domain": ["shop.example", "mail.example"],
    "provider": [*PROVIDERS.values()],
    "stream": ["marketing", "transactional"],
    "tenant": ["s07", "s08"],
    "segment": ["lapsed", "buyers"],
    "campaign": ["c1"],
}


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    names = draw(st.sets(st.sampled_from([*VALUES]), max_size=3))
    if "segment" in names or "campaign" in names:
        names.add("tenant")
    return Scope(**{name: draw(st.sampled_from(VALUES[name])) for name in names})


@st.composite
def messages(draw: st.DrawFn) -> tuple[str, str, Scope]:
    """Sender, recipient, and all labels that its sender knows: those of the envelope and perhaps a campaign."""
    picked = {name: draw(st.sampled_from(VALUES[name])) for name in ("tenant", "segment", "stream", "domain")}
    there = draw(st.sampled_from([*PROVIDERS, "elsewhere.example"]))
    sender = "bounces+{tenant}.{segment}.{stream}@{domain}".format(**picked)
    labels = Scope(
        **picked,
        ip=FLEET.ip_of(FLEET.home(sender, picked["stream"])),
        provider=PROVIDERS.get(there, ""),
        campaign=draw(st.sampled_from(["", "c1"])),
    )
    return sender, f"u{draw(st.integers(0, 99))}@{there}", labels


class Asking(RuleBasedStateMachine):
    """The log grows, time passes, and the same messages are asked about on every way."""

    ways: Ways

    @initialize(asked=st.lists(messages(), min_size=2, max_size=4))
    def begin(self, asked: list[tuple[str, str, Scope]]) -> None:
        self.log: list[Action] = []
        self.asked = asked
        self.ways = Ways({"sender_pattern": PATTERN, "providers": PROVIDERS, "pools": POOLS, "transports": IPS})

    def teardown(self) -> None:
        if hasattr(self, "ways"):
            self.ways.close()

    @rule(
        scope=scopes(),
        deed=st.sampled_from([Deed.PAUSE, Deed.PAUSE, Deed.THROTTLE, Deed.REROUTE, Deed.ALLOW]),
        person=st.booleans(),
        length=st.integers(1, 60),
    )
    def grant(self, scope: Scope, deed: Deed, person: bool, length: int) -> None:
        now = self.ways.gate.clock.now
        entry = pause(
            id=f"l{len(self.log)}",
            at=now,
            until=now + timedelta(minutes=length),
            deed=deed,
            scope=scope,
            who="marta" if person else AUTOMATION,
            share=0.5 if deed is Deed.THROTTLE else 0.0,
            pool="quarantine" if deed is Deed.REROUTE else "",
        )
        self.write(entry)

    @rule(place=st.integers(0, 50))
    def resume(self, place: int) -> None:
        if self.in_force:
            ended = self.in_force[place % len(self.in_force)]
            self.write(replace(resumed(ended.id, self.ways.gate.clock.now), id=f"r{len(self.log)}"))

    @rule(minutes=st.integers(1, 40))
    def turn(self, minutes: int) -> None:
        self.ways.gate.clock.turn(timedelta(minutes=minutes))
        self.ways.gate.gate.refresh()

    def write(self, entry: Action) -> None:
        self.log.append(replace(entry, seq=len(self.log) + 1))
        self.ways.gate.write(entry)

    @property
    def in_force(self) -> tuple[Lease, ...]:
        return active(self.log, self.ways.gate.clock.now)

    @invariant()
    def the_answers_agree(self) -> None:
        if not hasattr(self, "ways"):
            return
        self.ways.catch_up()
        leases = self.in_force
        batch = self.ways.post([(named(labels), to) for _, to, labels in self.asked])["answers"]
        for (sender, to, labels), in_batch in zip(self.asked, batch, strict=True):
            self.by_http(leases, labels, to, in_batch)
            self.by_policy(leases, sender, to, labels)
            for find in (self.ways.memcache, self.ways.socketmap):
                self.by_map(leases, find("senders", sender), SENDERS, labels, home=labels.ip)
                if labels.provider:
                    self.by_map(leases, find("recipients", to), {"provider"}, labels, home="")

    def by_http(self, leases: tuple[Lease, ...], labels: Scope, key: str, in_batch: dict) -> None:
        said = answer(leases, labels, key)
        alone = self.ways.get(named(labels), key)
        client = self.ways.ask_client(named(labels), key)
        assert [alone["answer"], in_batch["answer"]] == ["held" if said.held else "send"] * 2
        assert client.held == said.held
        found = [one["lease"]["id"] if one["lease"] else None for one in (alone, in_batch)]
        assert [*found, client.lease.id if client.lease else None] == [said.lease.id if said.lease else None] * 3

    def by_policy(self, leases: tuple[Lease, ...], sender: str, to: str, labels: Scope) -> None:
        action = self.ways.policy(sender=sender, recipient=to, size=1000)
        held = action.startswith(f"450 4.7.1 {MARKER}")
        assert held or action == "DUNNO"
        agrees(leases, labels.only(*POLICY), POLICY, f"{sender}\0{to}\x001000".lower(), held=held)

    def by_map(self, leases: tuple[Lease, ...], found: str, knows: set[str], labels: Scope, *, home: str) -> None:
        seen = labels.only(*knows)
        said = answer(leases, seen)
        if said.lease and said.lease.deed is Deed.REROUTE:
            assert found == destination("smtp-3") or found.startswith("retry:"), "the pool, unless its IP is paused"
            return
        transport = next((name for name, ip in IPS.items() if ip == home), "")
        held = found.startswith(f"retry:4.7.0 {MARKER}")
        assert held or found == (destination(transport) if transport else "")
        if said.lease and said.lease.deed is Deed.THROTTLE:
            assert not held, "the policy service draws, and a map does not draw again"
            return
        agrees(leases, seen, knows, "", held=held)
        if held:
            assert answer(leases, labels).held, "whatever the rest of the message is"


def agrees(leases: tuple[Lease, ...], seen: Scope, knows: set[str], key: str, *, held: bool) -> None:
    """Held as the two keys say of what is seen, but for a hole that might be meant."""
    said = answer(leases, seen, key)
    hidden = [lease for lease in leases if lease.by_person and not named(lease.scope).keys() <= knows]
    if held or not hidden:
        assert held == said.held
    elif said.held:
        assert any(lease.deed is not Deed.PAUSE and lease.scope.overlaps(seen) for lease in hidden)


def test_what_a_way_cannot_tell_never_makes_it_hold():
    run_state_machine_as_test(
        Asking,
        settings=settings(
            max_examples=30,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
