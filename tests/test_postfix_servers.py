"""The servers that Postfix asks: what they answer, and that no peer can make them grow, stop, or hold by mistake."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.actuators import _talk
from monitor.actuators._talk import Limits
from monitor.actuators._words import refusal, waiting
from monitor.actuators.postfix import Postfix
from monitor.core.leases import granted
from monitor.model import AUTOMATION, MARKER, Answer, Deed, Lease, Scope
from monitor.ports import ALL, PluginError
from tests.builders import NOW, minutes, pause
from tests.servers.tier import Tier, netstring, request, tier
from tests.waiting import free_port, until

PATTERN = r"^b-(?P<tenant>[^-]+)-(?P<segment>[^-]+)-(?P<stream>[^-]+)-"
SETTINGS = {
    "sender_pattern": PATTERN,
    "sasl_pattern": r"^seller-(?P<tenant>\w+)$",
    "providers": {"One.example": "onet"},
    "pools": {"default": ("smtp-ip1", "smtp-ip2"), "quarantine": ("smtp-ip3:[relay.example]:25",)},
    "transports": {"smtp-ip1": "192.0.2.1", "smtp-ip2": "192.0.2.2", "smtp-ip3": "192.0.2.3"},
}
LAPSED = "b-s07-lapsed-marketing-1@shop.example"
BUYERS = "b-s07-buyers-marketing-1@shop.example"
ONE, TWO = "jo@one.example", "jo@two.example"
HELD = "450 4.7.1 paused by mailvane: tenant=s07 segment=lapsed until 11:00 UTC"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tier]:
    with tier(tmp_path_factory.mktemp("tier"), **SETTINGS) as here:
        yield here


@pytest.fixture
def mta(running: Tier) -> Iterator[Tier]:
    """The tier without a lease in force."""
    yield running
    running.gate.clock.turn(timedelta(days=1))
    running.gate.gate.refresh()


def lease(mta: Tier, deed: Deed = Deed.PAUSE, who: str = AUTOMATION, **changes: object) -> Lease:
    """A lease for an hour from now on."""
    now = mta.gate.clock.now
    scope = changes.pop("scope", None) or Scope(**{k: changes.pop(k) for k in [*changes] if k in ALL})
    number = lease.number = lease.number + 1
    action = pause(
        id=f"l{number}", at=now, until=now + minutes(60), deed=deed, who=who, scope=scope, seq=number, **changes
    )
    mta.gate.write(action)
    return granted(action)


lease.number = 0


def sender_of(mta: Tier, transport: str, segment: str = "buyers") -> str:
    """A sender whose home it is."""
    return next(
        sender
        for number in range(99)
        if mta.found("senders", sender := f"b-s07-{segment}-marketing-{number}@shop.example") == f"{transport}:"
    )


class TestPolicy:
    def test_mail_that_nothing_holds_passes(self, mta: Tier):
        assert mta.asked(sender=LAPSED, recipient=ONE) == "DUNNO"

    def test_a_segment_is_held_with_our_words(self, mta: Tier):
        lease(mta, tenant="s07", segment="lapsed")
        assert mta.asked(sender=LAPSED, recipient=ONE) == HELD
        assert mta.asked(sender=BUYERS, recipient=ONE) == "DUNNO"

    def test_a_provider_is_known_as_given_or_as_learnt(self, mta: Tier):
        lease(mta, provider="onet")
        mta.gate.gate._providers["learnt.example"] = "onet"
        assert mta.asked(sender=LAPSED, recipient=ONE).startswith("450")
        assert mta.asked(sender=LAPSED, recipient="jo@Learnt.example").startswith("450")
        assert mta.asked(sender=LAPSED, recipient=TWO) == "DUNNO"

    def test_an_ip_is_known_by_the_sender(self, mta: Tier):
        first, second = sender_of(mta, "smtp-ip1"), sender_of(mta, "smtp-ip2")
        lease(mta, ip="192.0.2.1")
        assert mta.asked(sender=first, recipient=ONE).startswith("450")
        assert mta.asked(sender=first.upper(), recipient=ONE).startswith("450")  # maps are asked in lower case
        assert mta.asked(sender=second, recipient=ONE) == "DUNNO"

    def test_a_user_tells_before_the_sender(self, mta: Tier):
        lease(mta, tenant="s11")
        assert mta.asked(sender=LAPSED, recipient=ONE, sasl_username="seller-s11").startswith("450")
        assert mta.asked(sender=LAPSED, recipient=ONE) == "DUNNO"

    def test_a_hole_lets_pass(self, mta: Tier):
        lease(mta, tenant="s07")
        lease(mta, Deed.ALLOW, "marta", tenant="s07", segment="lapsed", provider="onet")
        assert mta.asked(sender=LAPSED, recipient=ONE) == "DUNNO"
        assert mta.asked(sender=LAPSED, recipient=TWO).startswith("450")

    def test_without_a_recipient_a_hole_by_provider_may_be_meant(self, mta: Tier):
        lease(mta, tenant="s07")
        assert mta.asked(sender=LAPSED, protocol_state="DATA").startswith("450")
        lease(mta, Deed.ALLOW, "marta", tenant="s07", provider="onet")
        assert mta.asked(sender=LAPSED, protocol_state="DATA") == "DUNNO"
        assert mta.asked(sender=LAPSED, recipient=TWO).startswith("450")

    def test_a_bounce_is_held_only_by_what_its_recipient_tells(self, mta: Tier):
        lease(mta, stream="marketing")
        assert mta.asked(sender="", recipient=ONE) == "DUNNO"
        lease(mta, provider="onet")
        assert mta.asked(sender="", recipient=ONE).startswith("450")

    def test_a_message_under_a_throttle_gets_the_same_answer_each_time(self, mta: Tier):
        lease(mta, Deed.THROTTLE, tenant="s07", share=0.25)

        def passing(size: int, recipient: str = "u{}@one.example") -> set[int]:
            said = {n: mta.asked(sender=LAPSED, recipient=recipient.format(n), size=size) for n in range(100)}
            return {n for n in said if said[n] == "DUNNO"}

        assert 10 <= len(passing(700)) <= 40
        assert passing(700) == passing(700, "U{}@One.example")
        assert passing(700) != passing(701)

    def test_many_requests_at_once_are_answered_in_order(self, mta: Tier):
        lease(mta, tenant="s07", segment="lapsed")
        asked = [LAPSED if number % 3 else BUYERS for number in range(1000)]
        with mta.peer("policy") as peer:
            peer.send(b"".join(request(sender=sender, recipient=ONE) for sender in asked))
            said = [peer.until(b"\n\n") for _ in asked]
        assert said == [f"action={HELD if sender == LAPSED else 'DUNNO'}\n\n".encode() for sender in asked]

    def test_a_request_may_come_byte_by_byte(self, mta: Tier):
        with mta.peer("policy") as peer:
            peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in request(sender=LAPSED, recipient=ONE):
                peer.send(bytes([byte]))
            assert peer.until(b"\n\n") == b"action=DUNNO\n\n"

    @pytest.mark.parametrize(
        "wrong",
        [
            b"\n\n",
            b"GET / HTTP/1.1\nHost: x\n\n",
            b"sender=a@b.example\nrecipient=c@d.example\n\n",
            b"request=junk\n\n",
            b"request=smtpd_access_policy\nno equals sign\n\n",
            b"\0\xff\xfe\n\n",
        ],
    )
    def test_what_is_no_request_is_answered_by_the_end_of_the_connection(self, mta: Tier, wrong: bytes):
        before = mta.refused("policy", "malformed")
        with mta.peer("policy") as peer:
            peer.send(wrong)
            assert peer.closed
        assert mta.refused("policy", "malformed") == before + 1

    def test_a_request_without_an_end_is_cut_off(self, mta: Tier):
        before = mta.refused("policy", "too long")
        with mta.peer("policy") as peer:
            peer.send(b"request=smtpd_access_policy\n" + b"x=" + b"y" * 20_000)
            assert peer.closed
        assert mta.refused("policy", "too long") == before + 1

    def test_names_that_are_no_ascii_are_names(self, mta: Tier):
        lease(mta, tenant="žluť")
        said = mta.asked(sender="b-žluť-x-y-1@shop.example", recipient=ONE)
        assert said == "450 4.7.1 paused by mailvane: tenant=?lu? until 11:00 UTC"


@given(
    st.builds(Scope, tenant=st.text(max_size=300), provider=st.text(max_size=300), domain=st.text(max_size=300)),
    st.integers(0, 60 * 24 * 40),
)
def test_our_words_are_one_short_line_of_printable_ascii(scope: Scope, length: int):
    held = granted(pause(scope=scope, until=NOW + minutes(length)))
    for said in (refusal(held), waiting(held)):
        assert said.isascii()
        assert said.isprintable()
        assert len(said) < 200
        assert MARKER in said
        assert not set("<>") & set(said)


def test_our_words_name_no_address():
    held = granted(pause(scope=Scope(tenant="jo.doe@shop.example")))
    assert "jo.doe" not in refusal(held)


def test_our_words_tell_the_day_where_it_is_another():
    assert waiting(granted(pause(until=NOW + timedelta(days=2)))).endswith("until 2026-11-26 10:00 UTC")


class TestMaps:
    @pytest.fixture(params=["memcache", "socketmap"])
    def server(self, request: pytest.FixtureRequest) -> str:
        return request.param

    def test_a_provider_that_is_held_waits_in_the_queue(self, mta: Tier, server: str):
        assert mta.found("recipients", ONE, server) == ""
        lease(mta, provider="onet")
        assert mta.found("recipients", ONE, server).startswith("retry:4.7.0 paused by mailvane until ")
        assert mta.found("recipients", TWO, server) == ""

    def test_a_sender_goes_by_the_transport_of_its_home(self, mta: Tier, server: str):
        homes = Counter(
            mta.found("senders", f"b-s07-x-marketing-{number}@shop.example", server) for number in range(60)
        )
        assert set(homes) == {"smtp-ip1:", "smtp-ip2:"}
        assert min(homes.values()) > 10

    def test_a_segment_that_is_held_waits_and_others_go_home(self, mta: Tier, server: str):
        lease(mta, tenant="s07", segment="lapsed")
        assert mta.found("senders", LAPSED, server).startswith("retry:4.7.0 paused by mailvane")
        assert mta.found("senders", BUYERS, server) in ("smtp-ip1:", "smtp-ip2:")

    def test_what_is_no_whole_address_is_not_found(self, mta: Tier, server: str):
        lease(mta, provider="onet")
        lease(mta, domain="shop.example")
        for key in (
            "one.example",
            ".example",
            "@one.example",
            "*",
            "<>",
            '"<>"',
            "jo",
            "jo@",
            "x" * 600 + "@one.example",
        ):
            assert mta.found("recipients", key, server) == ""
            assert mta.found("senders", key, server) == ""

    def test_a_throttle_is_the_policys_to_draw(self, mta: Tier, server: str):
        lease(mta, Deed.THROTTLE, domain="shop.example", share=0.01)
        assert mta.found("senders", LAPSED, server) in ("smtp-ip1:", "smtp-ip2:")

    def test_a_reroute_leads_into_its_pool(self, mta: Tier, server: str):
        lease(mta, Deed.REROUTE, tenant="s07", segment="lapsed", pool="quarantine")
        lease(mta, Deed.REROUTE, provider="onet", pool="default")
        assert mta.found("senders", LAPSED, server) == "smtp-ip3:[relay.example]:25"
        assert mta.found("senders", BUYERS, server) in ("smtp-ip1:", "smtp-ip2:")
        assert mta.found("recipients", ONE, server) in ("smtp-ip1:", "smtp-ip2:")

    def test_a_reroute_into_a_pool_that_is_not_there_changes_nothing(self, mta: Tier, server: str):
        lease(mta, Deed.REROUTE, tenant="s07", pool="elsewhere")
        assert mta.found("senders", LAPSED, server) in ("smtp-ip1:", "smtp-ip2:")

    def test_a_reroute_goes_round_an_ip_that_is_held(self, mta: Tier, server: str):
        lease(mta, Deed.REROUTE, provider="onet", pool="default")
        lease(mta, ip="192.0.2.1")
        assert {mta.found("recipients", f"u{number}@one.example", server) for number in range(9)} == {"smtp-ip2:"}
        lease(mta, ip="192.0.2.2")
        assert mta.found("recipients", ONE, server).startswith("retry:")

    def test_a_hole_that_the_map_cannot_see_lets_pass(self, mta: Tier, server: str):
        lease(mta, tenant="s07")
        lease(mta, Deed.ALLOW, "marta", tenant="s07", provider="onet")
        assert mta.found("senders", LAPSED, server) in ("smtp-ip1:", "smtp-ip2:")
        assert mta.asked(sender=LAPSED, recipient=TWO).startswith("450")

    def test_many_keys_at_once_are_answered_in_order(self, mta: Tier, server: str):
        lease(mta, provider="onet")
        asked = [ONE if number % 3 else TWO for number in range(1000)]
        with mta.peer(server) as peer:
            if server == "memcache":
                peer.send(b"".join(f"get recipients:{key}\r\n".encode() for key in asked))
                said = [peer.until(b"END\r\n") != b"END\r\n" for _ in asked]
            else:
                peer.send(b"".join(netstring(f"recipients {key}") for key in asked))
                said = [peer.netstring() != "NOTFOUND " for _ in asked]
        assert said == [key == ONE for key in asked]


class TestMemcache:
    def test_several_keys_of_one_command_are_answered(self, mta: Tier):
        lease(mta, provider="onet")
        with mta.peer("memcache") as peer:
            peer.send(f"gets recipients:{ONE} recipients:{TWO} nothing senders:{LAPSED}\r\n".encode())
            said = peer.until(b"END\r\n").decode().split("\r\n")
        assert said[0].startswith(f"VALUE recipients:{ONE} 0 ")
        assert said[0].endswith(" 0")
        assert [line.split()[1] for line in said if line.startswith("VALUE")] == [
            f"recipients:{ONE}",
            f"senders:{LAPSED}",
        ]

    def test_what_is_not_done_here_is_refused_politely(self, mta: Tier):
        said = {
            b"set k 0 0 5\r\nhello\r\n": b"NOT_STORED\r\n",
            b"cas k 0 0 2 7\r\n\r\n\r\n": b"NOT_STORED\r\n",
            b"add k 0 0 3 noreply\r\nabc\r\nversion\r\n": b"VERSION mailvane\r\n",
            b"delete k\r\n": b"NOT_FOUND\r\n",
            b"incr k 1\r\n": b"NOT_FOUND\r\n",
            b"flush_all\r\n": b"ERROR\r\n",
            b"get\r\n": b"END\r\n",
        }
        with mta.peer("memcache") as peer:
            for asked, told in said.items():
                peer.send(asked)
                assert peer.until(b"\r\n") == told, asked
            peer.send(b"quit\r\n")
            assert peer.closed

    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            (b"\r\n", "malformed"),
            (b"GET / HTTP/1.1\r\n", "malformed"),
            (b"set k 0 0\r\n", "malformed"),
            (b"set k 0 0 -5\r\n", "malformed"),
            (b"set k 0 0 999999999\r\n", "too long"),
            (b"set k 0 0 99999999999999999999999999\r\n", "too long"),
            (b"get " + b"k" * 5000, "too long"),
        ],
    )
    def test_what_is_no_command_ends_the_connection(self, mta: Tier, wrong: bytes, reason: str):
        before = mta.refused("memcache", reason)
        with mta.peer("memcache") as peer:
            peer.send(wrong)
            assert peer.closed
        assert mta.refused("memcache", reason) == before + 1


class TestSocketmap:
    def test_a_map_that_is_not_there_is_said_so(self, mta: Tier):
        with mta.peer("socketmap") as peer:
            peer.send(netstring("aliases jo@one.example"))
            assert peer.netstring() == "PERM no such map"

    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            (b"5:hello,", "malformed"),
            (b"0:,", "malformed"),
            (b"-1:x,", "malformed"),
            (b"5 hello", "malformed"),
            (b"17:recipients a@b.cd;", "malformed"),
            (b"99999:", "malformed"),
            (b"9999:" + b"x" * 10, "too long"),
            (b"GET / HTTP/1.1\r\n", "malformed"),
            (b"\xff\xfe", "malformed"),
        ],
    )
    def test_what_is_no_netstring_ends_the_connection(self, mta: Tier, wrong: bytes, reason: str):
        before = mta.refused("socketmap", reason)
        with mta.peer("socketmap") as peer:
            peer.send(wrong)
            assert peer.closed
        assert mta.refused("socketmap", reason) == before + 1


SERVERS = {"policy": request(sender=LAPSED, recipient=ONE), "memcache": b"get recipients:jo@one.example\r\n"}
SERVERS["socketmap"] = netstring("recipients jo@one.example")
SAID = {"policy": b"action=DUNNO\n\n", "memcache": b"END\r\n", "socketmap": b"9:NOTFOUND ,"}


@pytest.mark.parametrize("server", SERVERS)
class TestBounds:
    @pytest.fixture
    def hurried(self, tmp_path: Path) -> Iterator[Tier]:
        limits = Limits(connections=20, request=0.5, idle=1.5, stuck=0.5, look=0.05)
        with tier(tmp_path, limits, **SETTINGS) as here:
            yield here

    def test_half_a_request_has_its_time_and_no_more(self, hurried: Tier, server: str):
        with hurried.peer(server) as late, hurried.peer(server) as well:
            late.send(SERVERS[server][:7])
            well.send(SERVERS[server])
            assert well.until(SAID[server]) == SAID[server]
            assert late.closed
            well.send(SERVERS[server])
            assert well.until(SAID[server]) == SAID[server]
        assert hurried.refused(server, "slow request") == 1

    def test_an_idle_connection_ends_and_does_not_count(self, hurried: Tier, server: str):
        with hurried.peer(server) as peer:
            peer.send(SERVERS[server])
            assert peer.until(SAID[server]) == SAID[server]
            assert peer.closed
        assert [hurried.refused(server, reason) for reason in ("idle", "slow request", "slow reader")] == [0, 0, 0]

    def test_connections_beyond_the_limit_are_closed_at_once(self, hurried: Tier, server: str):
        with ExitStack() as open_:
            first = open_.enter_context(hurried.peer(server))
            first.send(SERVERS[server])
            assert first.until(SAID[server]) == SAID[server]
            more = [open_.enter_context(hurried.peer(server)) for _ in range(25)]
            until(lambda: hurried.refused(server, "connections") >= 6, "the rest to be refused", 5)
            assert more[-1].closed
            first.send(SERVERS[server])
            assert first.until(SAID[server]) == SAID[server]

    def test_a_reader_that_does_not_read_is_let_go_and_harms_nobody(self, hurried: Tier, server: str):
        with hurried.peer(server) as deaf, hurried.peer(server) as well:
            deaf.socket.settimeout(0.2)
            slowest = 0.0
            with suppress(OSError):  # nobody reads any more, or the connection has ended
                for _ in range(1000):
                    deaf.send(SERVERS[server] * 500)
                    began = time.monotonic()
                    well.send(SERVERS[server])
                    assert well.until(SAID[server]) == SAID[server]
                    slowest = max(slowest, time.monotonic() - began)
            until(lambda: hurried.refused(server, "slow reader") == 1, "the deaf one to be let go", 10)
            assert slowest < 0.5


def test_thousands_of_half_open_connections_leave_others_their_answers(mta: Tier):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 12_000:
        pytest.skip("needs 12,000 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as open_:
        for number in range(5000):
            peer = open_.enter_context(mta.peer("policy"))
            if number % 2:
                peer.send(b"request=smtpd_acc")
        with mta.peer("policy") as well:
            began = time.monotonic()
            for _ in range(20):
                well.send(SERVERS["policy"])
                assert well.until(SAID["policy"]) == SAID["policy"]
            assert time.monotonic() - began < 2


class Failing:
    """A gate that is broken."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()

    def check(self, message: Scope, key: str = "", knows: frozenset[str] = ALL) -> Answer:
        raise KeyError("jo.secret@one.example")

    def provider(self, domain: str) -> str:
        return "onet"

    def refused(self, server: str, reason: str) -> None:
        self.counted[server, reason] += 1


@pytest.mark.parametrize("server", SERVERS)
def test_in_trouble_mail_flows(server: str, caplog: pytest.LogCaptureFixture):
    """The policy service disconnects, which is DUNNO where it is set up as we say; a map finds nothing."""
    current, place = Failing(), free_port()

    async def asked() -> bytes:
        mta = Postfix(**{server: f"127.0.0.1:{place}"})
        serving = asyncio.create_task(_talk.serve(mta.listening(current), current.refused))
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", place)
        writer.write(SERVERS[server])
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return said

    assert asyncio.run(asked()) == (b"" if server == "policy" else SAID[server])
    assert current.counted[server, "trouble"] == 1
    assert "jo.secret" not in caplog.text
    assert [(line.message, line.error) for line in caplog.records] == [("answer failed", "KeyError")]


def test_addresses_that_are_taken_are_named_all():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        places = [f"127.0.0.1:{here.getsockname()[1]}" for here in (one, two)]
        mta = Postfix(policy=places[0], memcache=places[1], socketmap=f"127.0.0.1:{free_port()}")
        with pytest.raises(PluginError) as wrong:
            asyncio.run(mta.serve(Failing()))
        assert all(place in str(wrong.value) for place in places)
        assert "Address already in use" in str(wrong.value)
        assert wrong.value.retry
