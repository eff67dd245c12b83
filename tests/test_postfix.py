"""The brake on a real Postfix: what a pause covers waits, the rest flows, and nothing is ever lost by us."""

from __future__ import annotations

import smtplib
import socket
import time
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from monitor import hand
from monitor.core.leases import answer, granted
from monitor.model import MARKER, Deed, Lease, Scope
from tests.builders import pause
from tests.servers.dispatch import DOMAINS, IPS, PATTERN, Application, House, Message, house
from tests.servers.mailvane import Mailvane, mailvane
from tests.servers.tier import tier
from tests.waiting import free_port, until

POOLS = {"default": ("smtp-ip1", "smtp-ip2"), "quarantine": ("smtp-ip3",)}
SETTINGS = {"sender_pattern": PATTERN, "pools": POOLS, "transports": IPS, "providers": DOMAINS}
MESSAGES = 200


def tables(policy: int, maps: int) -> str:
    """The actuator's section."""

    def section(name: str, rows: dict[str, object]) -> str:
        return "\n".join([f"[{name}]", *(f'"{key}" = {value!r}' for key, value in rows.items()), ""])

    plain = {"kind": "postfix", "policy": f"127.0.0.1:{policy}", "memcache": f"127.0.0.1:{maps}"}
    return (
        section("actuator.mta", plain)
        + f"sender_pattern = '''{PATTERN}'''\n"
        + section("actuator.mta.pools", {name: list(pool) for name, pool in POOLS.items()})
        + section("actuator.mta.transports", dict(IPS))
        + section("actuator.mta.providers", dict(DOMAINS))
    )


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mailvane, House]]:
    policy, maps = free_port(), free_port()
    with house(policy, maps) as here, mailvane(tmp_path_factory.mktemp("mta"), tables(policy, maps)) as service:
        until(lambda: listens(policy) and listens(maps) and ready(service), "the tier to listen", 20)
        yield service, here


@pytest.fixture
def sending(product: tuple[Mailvane, House]) -> Iterator[tuple[Mailvane, House, Application]]:
    service, here = product
    with Application(here) as application:
        yield service, here, application
    while leases := in_force(service):
        for lease in leases:
            service.command("resume", lease)
        until(lambda done=leases: not in_force(service) & done, "the gate to let go", 10)


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def ready(service: Mailvane) -> bool:
    with suppress(urllib.error.HTTPError):
        return bool(service.get("/readyz", gate=True))
    return False


def in_force(service: Mailvane, *deeds: Deed) -> set[str]:
    """The leases that the gate knows."""
    told = service.get("/v1/leases", gate=True)["leases"]
    return {lease["id"] for lease in told if not deeds or lease["deed"] in deeds}


def turn(service: Mailvane, *commands: str) -> None:
    """What a person does by command; returns when the gate knows."""
    before = in_force(service)
    for words in commands:
        service.command(*words.split(), "--why", "a test")
    until(lambda: len(in_force(service)) == len(before) + len(commands), "the gate to know", 10)


def resume(service: Mailvane) -> None:
    """End all that holds; returns when the gate knows."""
    for lease in in_force(service, Deed.PAUSE, Deed.THROTTLE):
        service.command("resume", lease)
    until(lambda: not in_force(service, Deed.PAUSE, Deed.THROTTLE), "the gate to let go", 10)


class Case(NamedTuple):
    """What a person commands; ``joined``: it takes labels of sender and recipient to tell what is held."""

    commands: tuple[str, ...]
    joined: bool = False


CASES = {
    "a segment": Case(("pause tenant=s07 segment=lapsed",)),
    "an IP": Case(("pause ip=127.0.0.2",)),
    "a provider": Case(("pause provider=onet",)),
    "all three at once": Case(("pause tenant=s07 segment=lapsed", "pause ip=127.0.0.2", "pause provider=onet")),
    "an IP but for a segment": Case(("pause ip=127.0.0.2", "allow tenant=s07 segment=news")),
    "a segment but for a provider": Case(
        ("pause tenant=s07 segment=lapsed", "allow tenant=s07 segment=lapsed provider=onet"), joined=True
    ),
    "a provider but for a segment": Case(("pause provider=wp", "allow tenant=s07 segment=news"), joined=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_held_waits_and_the_rest_flows_and_all_of_it_comes_in_the_end(sending, case: Case):
    service, here, application = sending
    turn(service, *case.commands)
    application.send(MESSAGES)
    held = application.sent.keys() - application.settled()
    refused = set(application.kept)
    resume(service)
    application.again()
    here.mta.flush()
    until(lambda: application.sent.keys() <= here.receiver.came.keys(), "all to have come", 20)

    assert application.kept == set()
    assert {len(here.receiver.came[one]) for one in application.sent} == {1}, "nothing comes twice"
    assert not here.mta.lines("status=bounced")
    assert not any(sender == "" for sender, _ in here.receiver.came)
    # By which IP a message goes shows when it comes; then the fold says whether it was to be held.
    leases = [lease(number, words) for number, words in enumerate(case.commands)]
    meant = {one for one in application.sent if answer(leases, labels(here, one)).held}
    refusing = {one for one, port in application.sent.items() if port == here.refusing}
    assert held & refusing == refused & refusing == meant & refusing
    assert refused <= refusing
    assert held - refusing == (set() if case.joined else meant - refusing)
    assert 0 < len(meant) < MESSAGES
    assert all(words.startswith(f"{MARKER}: ") for words in application.said)


def lease(number: int, words: str) -> Lease:
    deed, *scope = words.split()
    return granted(pause(seq=number, who="marta", deed=Deed(deed), scope=hand.scope_of(" ".join(scope))))


def labels(here: House, message: Message) -> Scope:
    sender, recipient = message
    _, tenant, segment, stream, _ = sender.split("-")
    return Scope(
        ip=here.receiver.came[message][0],
        domain="shop.example",
        provider=DOMAINS[recipient.partition("@")[2]],
        stream=stream,
        tenant=tenant,
        segment=segment,
    )


def test_a_throttle_lets_its_share_pass_and_the_same_mail_each_time(sending):
    service, here, _ = sending
    recipients = [f"t{next(here.numbers)}@one.example" for _ in range(4000)]
    turn(service, "throttle tenant=s07 --share 25%")
    passed = offered(here, recipients)
    assert abs(len(passed) / len(recipients) - 0.25) < 0.03
    rest = [one for one in recipients if one not in passed]
    assert offered(here, rest[:300]) == set()
    resume(service)
    assert len(offered(here, rest[:300])) == 300
    arrived = passed | set(rest[:300])
    until(lambda: arrived <= {recipient for _, recipient in here.receiver.came}, "what passed to have come", 20)


def offered(here: House, recipients: list[str]) -> set[str]:
    """Those that are taken, of messages with many recipients each."""
    taken: set[str] = set()
    with smtplib.SMTP("127.0.0.1", here.refusing, timeout=60) as client:
        client.ehlo()
        for start in range(0, len(recipients), 500):
            client.mail("b-s07-news-marketing-1@shop.example", ["size=700"])
            answers = {one: client.rcpt(one)[0] for one in recipients[start : start + 500]}
            assert set(answers.values()) <= {250, 450}
            accepted = {one for one, code in answers.items() if code == 250}
            client.data("Subject: hello\n\nhello\n") if accepted else client.rset()
            taken |= accepted
    return taken


def test_what_is_rerouted_goes_by_the_pool_and_waits_where_its_ip_is_held(sending):
    service, here, application = sending
    turn(service, "reroute tenant=s07 segment=news --pool quarantine")
    application.send(24)
    until(lambda: application.sent.keys() <= here.receiver.came.keys(), "all to have come", 20)
    for one in application.sent:
        assert (here.receiver.came[one] == ["127.0.0.3"]) == ("-news-" in one[0])
    turn(service, "pause tenant=s07 segment=news ip=127.0.0.3")  # narrower than the reroute, so it comes first
    application.send(24)
    held = application.sent.keys() - application.settled()
    assert held == {one for one in [*application.sent][24:] if "-news-" in one[0]}


def test_what_waits_already_is_held_at_its_next_try(sending):
    service, here, application = sending
    turn(service, "pause tenant=s07 segment=lapsed")
    application.send(24)
    waiting = application.sent.keys() - application.settled() - application.kept
    assert waiting
    assert {one["queue_name"] for one in here.mta.queue()} == {"deferred"}
    reasons = {to["delay_reason"] for one in here.mta.queue() for to in one["recipients"]}
    assert all(reason.startswith(f"{MARKER} until ") for reason in reasons)


@pytest.fixture
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("policy", "memcache", "socketmap")}


def timed(here: House, port: int, name: str) -> tuple[int, float]:
    """The reply to a recipient of the segment that is paused, and how many seconds it took."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo()
        began = time.monotonic()
        client.mail("b-s07-lapsed-marketing-1@shop.example")
        code, _ = client.rcpt(f"{name}@one.example")
        took = time.monotonic() - began
        if code == 250:
            client.data("Subject: hello\n\nhello\n")
    return code, took


def came(here: House, names: list[str]) -> None:
    wanted = {f"{name}@one.example" for name in names}
    until(lambda: wanted <= {recipient for _, recipient in here.receiver.came}, "mail to flow", 20)


def test_mail_flows_while_the_gate_is_dead_or_hangs_and_is_held_when_it_is_back(tmp_path: Path, ports: dict[str, int]):
    with ExitStack() as living, house(ports["policy"], ports["memcache"]) as here:
        living.enter_context(tier(tmp_path, ports=ports, **SETTINGS)).gate.write(pause(scope=Scope(tenant="s07")))
        both = (here.refusing, here.queueing)
        assert timed(here, here.refusing, "held")[0] == 450
        living.close()

        assert [timed(here, port, f"dead{port}")[0] for port in both] == [250, 250]
        came(here, [f"dead{port}" for port in both])

        with ExitStack() as hanging:
            for port in ports.values():
                hanging.enter_context(socket.create_server(("127.0.0.1", port)))
            refusing, queueing = (timed(here, port, f"hung{port}") for port in both)
            assert refusing[0] == queueing[0] == 250
            assert refusing[1] < 8  # 2 s of the policy service, and a second for each question to the maps
            assert queueing[1] < 6
            came(here, [f"hung{port}" for port in both])

        with tier(tmp_path, ports=ports, **SETTINGS):
            assert timed(here, here.refusing, "back")[0] == 450
        assert not here.mta.lines("status=bounced")


def stands_still(here: House) -> bool:
    """Whether mail is taken and goes nowhere."""
    assert timed(here, here.refusing, "stuck")[0] == 250
    until(lambda: here.mta.lines("to=<stuck@one.example>"), "a first try", 20)
    return bool(here.mta.lines("to=<stuck@one.example>", "status=deferred (address resolver failure)"))


def test_no_mail_leaves_while_a_socketmap_is_dead(ports: dict[str, int]):
    """Not as we would have it: that is why memcache is what we recommend (ADR 15)."""
    with house(ports["policy"], ports["socketmap"], "socketmap") as here:
        assert stands_still(here)


def test_no_mail_leaves_while_a_memcache_table_without_a_backup_is_dead(ports: dict[str, int]):
    """The line that must not be left out."""
    with house(ports["policy"], ports["memcache"]) as here:
        for name in ("recipients", "senders"):
            table = here.mta.etc / f"mailvane-{name}.cf"
            table.write_text(table.read_text().replace("backup = texthash:/dev/null\n", ""))
        assert stands_still(here)


def test_a_socketmap_that_lives_holds_and_lets_pass_as_memcache_does(tmp_path: Path, ports: dict[str, int]):
    with (
        tier(tmp_path, ports=ports, **SETTINGS) as servers,
        house(ports["policy"], ports["socketmap"], "socketmap") as here,
        Application(here) as application,
    ):
        servers.gate.write(pause(scope=Scope(tenant="s07", segment="lapsed")))
        application.send(24)
        held = application.sent.keys() - application.settled()
        assert held == {one for one in application.sent if "-lapsed-" in one[0]}
        assert {ip for ips in here.receiver.came.values() for ip in ips} == {"127.0.0.1", "127.0.0.2"}
