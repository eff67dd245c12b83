"""`mailvane check` tells where a pause would reach nothing, and where mail has two names."""

from __future__ import annotations

from typing import Any

from monitor import reach
from monitor.config import parse

PATTERN = r"^b-(?P<tenant>[^-]+)-(?P<segment>[^-]+)-(?P<stream>[^-]+)-"
SOURCE = {"kind": "sendlog", "path": "/var/log/mail.log", "sender_pattern": PATTERN}
TIER = {"kind": "postfix", "policy": "127.0.0.1:8027", "sender_pattern": PATTERN, "ip": "192.0.2.1"}


def warnings(tier: dict[str, Any] | None = None, **tables: Any) -> list[str]:
    sections = {"actuator": {"mta": tier} if tier else {}, **tables}
    return list(reach.warnings(parse(sections, "test", {})))


def test_all_is_well_where_every_pause_can_be_told():
    assert warnings(TIER, collector={"mail": SOURCE}) == []


def test_a_house_without_an_actuator_is_not_warned():
    assert warnings(collector={"mail": SOURCE}) == []


def test_a_rule_that_no_actuator_can_serve_is_named_with_its_labels():
    said = warnings({**TIER, "sender_pattern": r"^b-(?P<tenant>[^-]+)", "stream": "marketing"})
    assert [line.split(":")[0] for line in said] == ["rule.bounce-seller", "rule.complaint-seller"]
    assert "stream, tenant, segment" in said[0]


def test_a_rule_that_never_pauses_is_not_warned_of():
    quiet = {name: {"pauses": "never"} for name in ("bounce-seller", "bounce-ip", "complaint-seller")}
    assert warnings({"kind": "postfix", "policy": "127.0.0.1:8027"}, rule=quiet) == []


def test_a_pause_is_measured_as_it_would_be_narrowed():
    tier = {**TIER, "sender_pattern": PATTERN.replace("P<stream>", ":")}
    assert len(warnings(tier)) == 3
    assert warnings(tier, protected={"stream": []}) == []


def test_names_that_differ_from_every_collectors_are_told():
    other = {**SOURCE, "stream": "marketing"}
    assert warnings(TIER, collector={"old": other, "mail": SOURCE}) == []
    (said,) = warnings(TIER, collector={"old": other})
    assert said.startswith("actuator.mta: stream not as in collector.old")


def test_a_default_for_what_a_header_tells_is_told():
    header = {**SOURCE, "stream": "marketing", "headers": {"X-Stream": "stream"}}
    (said,) = warnings({**TIER, "stream": "marketing"}, collector={"mail": header})
    assert said.startswith("actuator.mta.stream: collector.mail reads it in a header")


def test_each_way_is_told_with_its_labels():
    tables = {"actuator": {"mta": {**TIER, "memcache": "127.0.0.1:8028"}}}
    assert list(reach.ways(parse(tables, "test", {}))) == [
        "actuator mta: policy tells ip, domain, provider, stream, tenant, segment",
        "actuator mta: senders tells ip, domain, stream, tenant, segment",
        "actuator mta: recipients tells ip, provider",
    ]
