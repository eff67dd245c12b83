"""The whole road on real mail: Postfix refused by a receiver, its log tailed, people told, the segment held, let go."""

from __future__ import annotations

from pathlib import Path

from tests.servers.mailvane import Mailvane, mailvane
from tests.servers.postfix import postfix
from tests.servers.sink import sink
from tests.servers.slack import SlackServer
from tests.waiting import until

# VERP as many senders write it: bounces+TENANT.SEGMENT.STREAM@…
PATTERN = r"^bounces\\+(?P<tenant>[^.]+)\\.(?P<segment>[^.]+)\\.(?P<stream>[^@]+)@"
MESSAGES = 260  # a segment; 200 decided are what the rule asks for
LEASE_S = 8

TABLES = """
[automation]
mode = "enforce"
[guards]
held_share = 0.5
[rule.bounce-seller]
lease = "{lease}s"
calm_for = "2s"
[collector.mail]
kind = "sendlog"
path = "{log}"
sender_pattern = "{pattern}"
every = "0.1s"
[collector.mail.addresses]
"smtp-ip1" = "198.51.100.1"
[alert.ops]
kind = "slack"
channel = "{channel}"
token_file = "{token}"
base_url = "{slack}"
"""


def mails(segment: str, domain: str, count: int = MESSAGES) -> list[tuple[str, str]]:
    sender = f"bounces+s07.{segment}.marketing@shop.example"
    return [(sender, f"user{number}@{domain}") for number in range(count)]


def held(service: Mailvane, segment: str, stream: str = "marketing") -> bool:
    return service.answer(tenant="s07", segment=segment, stream=stream) == "held"


def test_a_refused_segment_is_held_told_and_let_go(tmp_path: Path):
    with sink("gone.example") as receiver, postfix(receiver.port) as mta, SlackServer() as slack:
        (tmp_path / "token").write_text(slack.token + "\n")
        tables = TABLES.format(
            lease=LEASE_S,
            log=mta.log,
            pattern=PATTERN,
            channel=slack.channel,
            token=tmp_path / "token",
            slack=slack.base_url,
        )
        with mailvane(tmp_path, tables) as service:
            mta.send(mails("buyers", "one.example") + mails("news", "two.example"))
            until(lambda: service.get("/v1/facts")["events"]["sent"] == 2 * MESSAGES, "the healthy mail to be counted")
            assert not service.get("/v1/incidents", state="all")["incidents"]

            mta.send(mails("lapsed", "gone.example"))
            incident = until(lambda: only(service), "the incident to open with its pause")
            assert incident["scope"] == {"tenant": "s07", "segment": "lapsed"}
            assert incident["rule"] == "bounce-seller"
            until(lambda: held(service, "lapsed"), "the gate to hold the segment", 5)
            assert not held(service, "lapsed", stream="transactional")
            assert not held(service, "lapsed", stream="")
            assert not held(service, "buyers")
            assert not held(service, "news")
            assert incident["evidence"]["denominator"] >= 200

            posted = until(lambda: list(slack.messages.values()), "Slack to be told")
            assert len(posted) == 1
            assert "lapsed" in str(posted[0])

            until(lambda: not held(service, "lapsed"), "the lease to end by itself", LEASE_S + 30)
            assert not service.get("/v1/leases")["leases"]
            until(lambda: service.get("/v1/facts")["events"]["bounced"] == MESSAGES, "all refusals to be counted")
            assert len(slack.messages) == 1, "one accident is one message"
            # The same evidence never pauses twice, however often it is looked at again.
            assert [action["deed"] for action in only(service)["actions"]] == ["pause"]
        assert len([one for one in receiver.taken if not one.endswith("@shop.example")]) == 2 * MESSAGES


def only(service: Mailvane) -> dict | None:
    """The one incident there may be, once something was done about it."""
    found = service.get("/v1/incidents", state="all")["incidents"]
    assert len(found) <= 1, found
    return found[0] if found and found[0]["actions"] else None
