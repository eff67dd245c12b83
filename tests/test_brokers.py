"""Kafka, RabbitMQ and NATS as sources: real brokers, and for Kafka a peer that speaks its protocol."""

from __future__ import annotations

import gzip
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from collectors._broker import Broker
from collectors.kafka import Kafka
from collectors.nats import Nats
from collectors.rabbitmq import RabbitMQ
from monitor.config import ConfigError, parse
from monitor.model import Batch
from monitor.ports import Memory, PluginError
from tests.servers.brokers import NOW, Case, body, kafka_case, nats_case, numbers, rabbit_case
from tests.servers.natsserver import NatsServer, nats_server
from tests.servers.rabbit import Rabbit, rabbit
from tests.servers.tansu import Tansu, tansu
from tests.waiting import free_port, until

ROOT = Path(__file__).resolve().parent.parent
POISON = b"\x00\x01 this is no event\nnor is this\n"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"kind": "nats", "stream": "s", "servers": ["nats://jo:pw@host:4222"]}, "a URL with credentials"),
        ({"kind": "nats", "stream": "s", "servers": ["http://host"]}, "is no such URL"),
        ({"kind": "nats", "stream": "a.b"}, "is no name"),
        ({"kind": "rabbitmq", "queue": "q", "url": "amqp://jo:pw@host/"}, "a URL with credentials"),
        ({"kind": "rabbitmq", "queue": "q", "url": "amqp://host:port/"}, "no URL"),
        ({"kind": "kafka", "topics": ["t"], "servers": ["jo:pw@host:9092"]}, "write host:port"),
        ({"kind": "kafka", "topics": ["t"], "key_file": "k"}, "key_file without cert_file"),
    ],
)
def test_a_mistake_in_the_section_is_told_without_what_is_secret(table, told):
    with pytest.raises(ConfigError, match=told) as raised:
        parse({"collector": {"mq": table}}, "test", {})
    assert "pw" not in str(raised.value)


def test_a_password_comes_from_the_environment_and_needs_a_user():
    table = {"collector": {"mq": {"kind": "nats", "stream": "s"}}}
    with pytest.raises(ConfigError, match="password without user"):
        parse(table, "test", {"MAILVANE_COLLECTOR_MQ_PASSWORD": "pw"})


@pytest.fixture(scope="module")
def nats_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate of the servers and one of ours."""
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    ours, theirs = authority.issue_cert("mailvane.example"), authority.issue_cert("localhost", "127.0.0.1")
    for name, blob in {
        "ca": authority.cert_pem,
        "cert": theirs.cert_chain_pems[0],
        "key": theirs.private_key_pem,
        "own-cert": ours.cert_chain_pems[0],
        "own-key": ours.private_key_pem,
    }.items():
        blob.write_to_path(folder / f"{name}.pem")
    return folder


@pytest.fixture(scope="module")
def rabbit_node(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Rabbit]:
    with rabbit(tmp_path_factory.mktemp("rabbit"), certificates) as node:
        yield node


@pytest.fixture(scope="module")
def tansu_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tansu]:
    with tansu(tmp_path_factory.mktemp("tansu")) as node:
        yield node


# The peer that speaks Kafka takes five seconds to let a consumer into its group, so it sees the tests that differ.
QUICK = pytest.mark.parametrize("case", ["nats", "rabbitmq"], indirect=True)


@pytest.fixture(params=["nats", "rabbitmq", "kafka"])
def case(request: pytest.FixtureRequest) -> Case:
    makers: dict[str, tuple[str, Callable[[Any], Case]]] = {
        "nats": ("nats_node", nats_case),
        "rabbitmq": ("rabbit_node", rabbit_case),
        "kafka": ("tansu_node", kafka_case),
    }
    node, made = makers[request.param]
    return made(request.getfixturevalue(node))


@pytest.fixture
def opened_ones() -> Iterator[list[Broker]]:
    """Closed at the end, whatever happens."""
    ones: list[Broker] = []
    yield ones
    for one in ones:
        one.close()


@pytest.fixture
def collector(case: Case, opened_ones: list[Broker]) -> Broker:
    opened_ones.append(case.make())
    return opened_ones[0]


def read(collector: Broker, now: datetime = NOW, last: int = 0) -> list[Batch]:
    """One turn, each batch settled."""
    return list(collector.collect(Memory({"last": last} if last else {}), now))


def first(collector: Broker) -> Batch:
    """The next batch that brings something, not settled."""

    def found() -> Batch | None:
        return next((batch for batch in collector.collect(Memory(), NOW) if len(batch) or batch.rejected), None)

    return until(found, "a batch")


def all_of(collectors: Sequence[Broker], wanted: int) -> list[list[Batch]]:
    """Batches of each, turn by turn, until there are so many events."""
    found: list[list[Batch]] = [[] for _ in collectors]

    def turn() -> bool:
        for one, batches in zip(collectors, found, strict=True):
            batches.extend(read(one))
        return sum(len(numbers(batches)) for batches in found) >= wanted

    until(turn, f"{wanted} events", 60)
    return found


def test_what_is_published_arrives_and_is_forgotten_by_the_broker(case, collector):
    case.publish([body(range(start, start + 10)) for start in range(0, 500, 10)])
    case.publish([gzip.compress(body([500, 501]))], "gzip")
    (found,) = all_of([collector], 502)
    assert sorted(numbers(found)) == list(range(502))
    until(lambda: case.unsettled() == 0, "the broker to forget")


@QUICK
def test_a_batch_that_was_not_settled_is_handed_over_again(case, collector):
    case.publish([body(range(10))])
    assert numbers([first(collector)]) == list(range(10))
    assert numbers([first(collector)]) == list(range(10))
    assert numbers(read(collector)) == list(range(10))
    until(lambda: case.unsettled() == 0, "the broker to forget")


@QUICK
def test_what_one_leaves_unsettled_another_gets(case, collector, opened_ones):
    case.publish([body(range(10))])
    assert numbers([first(collector)]) == list(range(10))
    collector.close()
    opened_ones.append(case.make())
    (found,) = all_of([opened_ones[-1]], 10)
    assert numbers(found) == list(range(10))


def test_two_consumers_share_the_work(case, collector, opened_ones):
    opened_ones.append(case.make())
    for one in opened_ones:  # both are there before anything comes
        read(one)
    until(lambda: [read(one) for one in opened_ones] and all(told(one) for one in opened_ones), "both to have a part")
    case.publish([body([number]) for number in range(600)])
    ours, theirs = all_of(opened_ones, 600)
    assert sorted(numbers(ours) + numbers(theirs)) == list(range(600))
    assert numbers(ours)
    assert numbers(theirs)


def told(collector: Broker) -> bool:
    """Whether it knows its part of the work."""
    return not math.isnan(collector.waiting() or 0.0)


def test_poison_does_not_block(case, collector):
    case.publish([body([0]), POISON, body([1]), b"\x1f\x8bno gzip", body([2])])
    assert sorted(numbers([first(collector)])) == [0, 1, 2]
    found = [first(collector)]  # the same, since it was not settled
    turn = collector.collect(Memory(), NOW)
    assert list(turn)
    assert sorted(numbers(found)) == [0, 1, 2]
    assert len([item for batch in found for item in batch.rejected]) == 2
    until(lambda: case.unsettled() == 0, "the broker to forget")


@QUICK
def test_a_rejected_line_names_the_place_in_the_broker(case, collector):
    case.publish([body([0]) + b"\nno event"])
    (rejected,) = first(collector).rejected
    assert ("message 1" if case.settings["kind"] == "nats" else "delivery 1") in rejected.where
    assert rejected.where.endswith("line 2")


def test_lag_counts_what_is_not_settled(case, collector):
    until(lambda: read(collector) or collector.waiting() == 0, "no lag")
    case.publish([body([number]) for number in range(30)])
    turn = collector.collect(Memory(), NOW)
    until(lambda: collector.waiting() == 30, "the lag to be told", 20)
    assert len(until(lambda: next(turn, Batch({})), "the messages"))
    assert numbers(read(collector))
    until(lambda: read(collector) or collector.waiting() == 0, "no lag")


@QUICK
def test_an_empty_broker_vouches_for_the_time_before_now_while_senders_live(case, collector):
    delay, silence = timedelta(seconds=10), timedelta(minutes=15)
    case.publish([body([1])])
    (found,) = all_of([collector], 1)
    last = found[0].cursor["last"]
    assert last == int(NOW.timestamp() * 1_000_000)
    (beat,) = until(lambda: read(collector, NOW + silence, last), "a sign of life")
    assert (len(beat), beat.watermark) == (0, NOW + silence - delay)
    assert read(collector, NOW + silence + timedelta(seconds=1), last) == []
    assert read(collector, NOW) == []  # nothing was ever heard


def test_a_broker_with_more_to_tell_vouches_up_to_what_was_read(case, collector):
    before = datetime.now(UTC)
    case.publish([body([1], before)])
    watermark = first(collector).watermark
    assert watermark is not None
    assert timedelta() <= watermark + collector.delay - before.replace(microsecond=0) < timedelta(minutes=1)


@QUICK
def test_the_end_is_quick_while_it_waits(case, collector):
    read(collector)
    began = time.monotonic()
    turns = threading.Thread(target=lambda: [read(collector) for _ in range(100)])
    turns.start()
    collector.close()
    turns.join()
    assert time.monotonic() - began < 5
    assert read(collector) == []


@pytest.mark.parametrize(
    "made",
    [
        lambda port: Nats(servers=(f"nats://127.0.0.1:{port}",), stream="s", user="jo", password=SecretStr("hunter2")),
        lambda port: RabbitMQ(url=f"amqp://127.0.0.1:{port}/", queue="q", user="jo", password=SecretStr("hunter2")),
        lambda port: Kafka(servers=(f"127.0.0.1:{port}",), topics=("t",), user="jo", password=SecretStr("hunter2")),
    ],
    ids=["nats", "rabbitmq", "kafka"],
)
def test_a_broker_that_is_not_there_is_told_without_the_password(made, opened_ones):
    port = free_port()
    opened_ones.append(made(port))
    with pytest.raises(PluginError, match=f"127.0.0.1:{port}.*start it, or mend") as raised:
        read(opened_ones[0])
    assert raised.value.retry
    assert "hunter2" not in f"{raised.value!r} {raised.value.__cause__!r}"
    assert math.isnan(opened_ones[0].waiting())


def test_a_place_that_is_missing_is_named(case, opened_ones):
    place = {"nats": {"stream": "no"}, "rabbitmq": {"queue": "no"}, "kafka": {"topics": ("no",)}}[case.settings["kind"]]
    opened_ones.append(case.make(**place))
    with pytest.raises(PluginError, match=r"has no (stream|queue|topic) no: (create|declare) it, or mend"):
        read(opened_ones[0])


@QUICK
def test_a_wrong_password_is_told_apart_from_a_broker_that_is_down(case, opened_ones, tmp_path):
    with nats_server(
        tmp_path, 'authorization { user: "jo", password: "right" }', user="jo", password="right"
    ) as server:
        server.make_stream("s")
        wrong = SecretStr("hunter2")
        kinds = {
            "nats": lambda: Nats(servers=(server.url,), stream="s", user="jo", password=wrong),
            "rabbitmq": lambda: case.make(user="jo", password=wrong),
        }
        opened_ones.append(kinds[case.settings["kind"]]())
        with pytest.raises(PluginError, match="refuses user 'jo': check user and password") as raised:
            read(opened_ones[0])
    assert "hunter2" not in f"{raised.value!r} {raised.value.__cause__!r}"


def test_nats_over_tls_with_both_certificates(certificates, tmp_path, opened_ones):
    files = {"cert_file": certificates / "own-cert.pem", "key_file": certificates / "own-key.pem"}
    tls = "tls {{ cert_file: '{0}/cert.pem', key_file: '{0}/key.pem', ca_file: '{0}/ca.pem', verify: true }}"
    ours = Nats(stream="s", ca_file=certificates / "ca.pem", **files)
    with nats_server(tmp_path, tls.format(certificates), tls=ours.context()) as server:
        server.make_stream("s")
        server.publish("s", [body([1])])
        url = server.url.replace("nats:", "tls:")
        opened_ones.extend([ours.model_copy(update={"servers": (url,)}), Nats(servers=(url,), stream="s")])
        assert numbers(read(opened_ones[0])) == [1]
        with pytest.raises(PluginError, match=r"TLS.*CERTIFICATE_VERIFY_FAILED"):
            read(opened_ones[1])


def test_rabbitmq_over_tls(certificates, rabbit_node, opened_ones):
    case, url = rabbit_case(rabbit_node), f"amqps://localhost:{rabbit_node.tls_port}/"
    case.publish([body([1])])
    opened_ones.extend([case.make(url=url, ca_file=certificates / "ca.pem"), case.make(url=url)])
    assert numbers(all_of(opened_ones[:1], 1)[0]) == [1]
    with pytest.raises(PluginError, match=r"TLS.*CERTIFICATE_VERIFY_FAILED"):
        read(opened_ones[1])


def test_a_certificate_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(PluginError, match=r"missing\.pem can't be used: No such file"):
        Nats(stream="s", ca_file=tmp_path / "missing.pem").context()


def test_the_permissions_that_the_page_names_are_enough(tmp_path, opened_ones):
    may = re.findall(r"`((?:\$JS|_INBOX)[.][^`]+)`", (ROOT / "docs/plugins/nats.md").read_text("utf-8"))
    publish, subscribe = json.dumps(may[:-1]), json.dumps(may[-1:])
    users = f"""authorization {{ users: [
        {{ user: admin, password: all }},
        {{ user: jo, password: some, permissions: {{ publish: {publish}, subscribe: {subscribe} }} }},
        {{ user: nobody, password: none, permissions: {{ publish: ["other"], subscribe: {subscribe} }} }}
    ] }}"""
    with nats_server(tmp_path, users, user="admin", password="all") as server:
        server.make_stream("mail")
        server.publish("mail", [body([1])])
        for user, password in (("jo", "some"), ("nobody", "none")):
            login = {"user": user, "password": SecretStr(password)}
            opened_ones.append(Nats(servers=(server.url,), stream="mail", **login))
        assert numbers(read(opened_ones[0])) == [1]
        assert server.pending("mail") == 0
        with pytest.raises(PluginError, match=r"(?i)permissions violation"):
            read(opened_ones[1])


def test_a_consumer_that_somebody_else_needs_otherwise_is_left_alone(nats_node, opened_ones):
    case = nats_case(nats_node)
    nats_node.make_consumer(case.settings["stream"], "theirs", ack_policy="none")
    opened_ones.append(case.make(consumer="theirs"))
    with pytest.raises(PluginError, match=r"consumer theirs of mail.* explicit"):
        read(opened_ones[0])


def test_work_that_takes_longer_than_the_broker_waits_stays_ours(nats_node, opened_ones):
    case = nats_case(nats_node)
    opened_ones.extend([case.make(ack_wait="3s"), case.make()])
    case.publish([body([1])])
    turn = opened_ones[0].collect(Memory(), NOW)
    assert numbers([next(turn)]) == [1]
    enough = time.monotonic() + 4.5  # what is to be shown is that nothing happens meanwhile
    while time.monotonic() < enough:
        assert read(opened_ones[1]) == []
    assert numbers(turn) == []
    until(lambda: case.unsettled() == 0, "the broker to forget")


def test_a_quorum_queue_is_read_as_a_classic_one(rabbit_node, opened_ones):
    case = rabbit_case(rabbit_node, quorum=True)
    case.publish([body(range(10))])
    opened_ones.append(case.make())
    (found,) = all_of(opened_ones, 10)
    assert numbers(found) == list(range(10))
    until(lambda: case.unsettled() == 0, "the broker to forget")
