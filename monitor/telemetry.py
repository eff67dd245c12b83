"""Every Prometheus metric by name, label and help. Labels come from the configuration, never from mail."""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from monitor.model import AUTOMATION, Deed, Lease

PREFIX = "mailvane"
VERSION = version("mailvane")
GRANTING = (Deed.PAUSE, Deed.THROTTLE, Deed.REROUTE, Deed.ALLOW)


class GateMetrics:
    """The metrics of the decide path; the gate has them alone, core beside its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        checks = Counter(f"{PREFIX}_checks", "Messages that a sender asked about.", ["answer"], registry=registry)
        self._send, self._held = checks.labels("send"), checks.labels("held")
        self._duration = Histogram(
            f"{PREFIX}_check_duration_seconds",
            "Time to answer a sender's request, of one message or a batch.",
            buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
            registry=registry,
        )
        self.leases = Gauge(f"{PREFIX}_leases", "Leases in force.", ["deed", "key"], registry=registry)
        self.ledger_read = Gauge(
            f"{PREFIX}_gate_ledger_read_timestamp_seconds", "When the ledger was last read.", registry=registry
        )
        self.subscribers = Gauge(f"{PREFIX}_lease_subscribers", "Streams of leases that are open.", registry=registry)
        self.refused = Counter(
            f"{PREFIX}_gate_refused",
            "Requests and connections that the decide path turned away, by server and reason.",
            ["server", "reason"],
            registry=registry,
        )

    def answered(self, seconds: float, *, held: int, asked: int) -> None:
        """A request was answered: so many messages asked about, so many of them held."""
        self._duration.observe(seconds)
        if held:
            self._held.inc(held)
        if asked > held:
            self._send.inc(asked - held)

    def measure(self, leases: Iterable[Lease], read_at: datetime | None) -> None:
        """Gauges are read when they are asked for."""
        held = Counted((str(lease.deed), "person" if lease.by_person else AUTOMATION) for lease in leases)
        for deed in GRANTING:
            for key in (AUTOMATION, "person"):
                self.leases.labels(str(deed), key).set(held[str(deed), key])
        self.ledger_read.set(read_at.timestamp() if read_at else float("nan"))


class ShipMetrics:
    """The metrics of what other machines ship; ``node`` is the name of such a machine in its configuration."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, told: str) -> Gauge:
            return Gauge(f"{PREFIX}_ship_{name}", told, ["node"], registry=registry)

        self.frames = gauge("waiting_frames", "Frames that wait in the spool of a shipper.")
        self.bytes = gauge("spool_bytes", "Bytes in the spool of a shipper.")
        self.oldest = gauge("oldest_seconds", "Age of the oldest frame that a shipper had when it was last heard.")
        self.full = gauge("spool_full", "1: a shipper reads nothing more until its spool has room.")
        self.dead_letters = gauge("dead_letters", "Frames that were refused for themselves and lie at a shipper.")
        self.heard = gauge("heard_timestamp_seconds", "When a shipper was last heard.")
        self.ahead = gauge("clock_ahead_seconds", "How far a shipper's clock is ahead of ours.")
        self.repeated = Counter(
            f"{PREFIX}_ship_repeated_frames",
            "Frames that a shipper sent again though they were on disk.",
            ["node"],
            registry=registry,
        )
        self.refused = Counter(
            f"{PREFIX}_ship_refused",
            "Requests of shippers that were not taken, by reason.",
            ["reason"],
            registry=registry,
        )

    def forget(self, node: str) -> None:
        """A machine that is no more."""
        gauges = (self.frames, self.bytes, self.oldest, self.full, self.dead_letters, self.heard, self.ahead)
        for metric in (*gauges, self.repeated):
            metric.remove(node)


class QuarantineMetrics:
    """The metrics of what could not be read; an item holds one thing, or some that were wrong in the same way."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, told: str) -> Gauge:
            return Gauge(f"{PREFIX}_quarantine_{name}", told, registry=registry)

        self.items = gauge("items", "Items in the quarantine.")
        self.things = gauge("things", "Lines, messages and frames in all items of the quarantine.")
        self.bytes = gauge("bytes", "Bytes of the quarantine on disk.")
        self.oldest = gauge("oldest_seconds", "Age of the oldest item in the quarantine; NaN where there is none.")
        self.dropped = Counter(
            f"{PREFIX}_quarantine_dropped",
            "Lines, messages and frames that are not kept, or not any more, by reason.",
            ["reason"],
            registry=registry,
        )


class AttributionMetrics:
    """The metrics of how reports are led back to the mail that they are about."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, told: str, *by: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", told, ["source", *by], registry=registry)

        self.reports = counter("reports", "Bounces, complaints and the like that a source reported.")
        self.clues = counter("report_clues", "Reports with that clue to their message.", "clue")
        self.attributed = counter("attributed", "Reports that were attributed, by the clue.", "by")
        self.unattributed = counter("unattributed", "Reports that were not attributed, by reason.", "reason")
        self.unverified = counter("reports_unverified", "Reports that count for nothing: nothing vouches for them.")
        self.refused = counter("marks_refused", "Marks of X-Mailvane that vouch for nothing, by reason.", "reason")
        self.disagree = counter("clues_disagree", "Reports whose clues name different mail.")
        self.waiting = Gauge(
            f"{PREFIX}_reports_waiting", "Reports that wait for their message to be known.", registry=registry
        )


class SuppressionMetrics:
    """The metrics of who should get no more mail, and of whoever is told; ``webhook`` is a configured name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.entries = Gauge(f"{PREFIX}_suppressions", "Suppressions in force.", ["reason"], registry=registry)
        self.changes = Counter(
            f"{PREFIX}_suppression_changes", "Changes of suppressions.", ["change", "reason"], registry=registry
        )
        self.waiting = Gauge(
            f"{PREFIX}_suppression_waiting_bounces", "Bounces that are not judged yet.", registry=registry
        )
        self.outages = Counter(
            f"{PREFIX}_provider_outages", "Times that an outage of a provider was found, or grew.", registry=registry
        )
        self.pushes = Counter(
            f"{PREFIX}_webhook_pushes",
            "Tries to tell a webhook, by how they ended.",
            ["webhook", "result"],
            registry=registry,
        )
        self.behind = Gauge(
            f"{PREFIX}_webhook_waiting_changes",
            "Changes that a webhook is not told yet.",
            ["webhook"],
            registry=registry,
        )


class SignInMetrics:
    """The metrics of people at the door."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tries = Counter(
            f"{PREFIX}_sign_ins", "Tries to sign in, by way and result.", ["way", "result"], registry=registry
        )
        self.break_glass = Counter(
            f"{PREFIX}_break_glass_sign_ins", "Times that a break-glass account was used.", registry=registry
        )


class Telemetry:
    """The metrics of one service, in a registry of its own so that each test has one."""

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry()
        self.build = Info(f"{PREFIX}_build", "Version that runs.", registry=registry)
        self.build.info({"version": version})
        self.observations = Counter(
            f"{PREFIX}_observations", "Facts taken over from a source, on disk.", ["source"], registry=registry
        )
        self.rejected = Counter(
            f"{PREFIX}_rejected", "Items that could not be read, by reason.", ["source", "reason"], registry=registry
        )
        self.letters = Counter(
            f"{PREFIX}_letters",
            "What was met in a mailbox of reports: outcomes by kind, and mail that tells none by what it is.",
            ["source", "what"],
            registry=registry,
        )
        self.refused = Counter(
            f"{PREFIX}_events_refused",
            "Requests with events that were not taken, by reason.",
            ["reason"],
            registry=registry,
        )
        self.applied = Counter(f"{PREFIX}_applied", "Facts counted in the store.", registry=registry)
        self.duplicates = Counter(
            f"{PREFIX}_duplicates", "Facts that were told again and did not count.", registry=registry
        )
        self.dead_letters = Counter(
            f"{PREFIX}_dead_letters", "Frames set aside since the store refused them.", registry=registry
        )
        self.names_folded = Counter(
            f"{PREFIX}_names_folded", "Facts whose name became other: too many in a tenant's day.", registry=registry
        )
        self.watermark = Gauge(
            f"{PREFIX}_source_watermark_timestamp_seconds",
            "Nothing older is still to come from the source.",
            ["source", "node"],
            registry=registry,
        )
        self.lag = Gauge(
            f"{PREFIX}_source_lag_messages",
            "Messages that wait at a broker, or on their way from it to the facts.",
            ["source"],
            registry=registry,
        )
        self.plugin_errors = Counter(
            f"{PREFIX}_plugin_errors", "Failures of a plugin.", ["section", "name"], registry=registry
        )
        self.spool_bytes = Gauge(f"{PREFIX}_spool_bytes", "Bytes in the spool.", registry=registry)
        self.spool_waiting = Gauge(
            f"{PREFIX}_spool_waiting_frames", "Frames that are on disk and not yet counted.", registry=registry
        )
        self.cycle = Histogram(
            f"{PREFIX}_cycle_duration_seconds", "Time of one round of judging and deciding.", registry=registry
        )
        self.incidents = Gauge(f"{PREFIX}_incidents_open", "Open incidents.", ["rule", "grade"], registry=registry)
        self.actions = Counter(
            f"{PREFIX}_actions", "Entries of the brake's audit log.", ["deed", "key"], registry=registry
        )
        self.held_share = Gauge(
            f"{PREFIX}_held_share_ratio", "Part of all expected mail that is held.", registry=registry
        )
        self.notices_owed = Gauge(f"{PREFIX}_notices_owed", "Tellings that are owed.", registry=registry)
        self.backed_up = Gauge(
            f"{PREFIX}_backup_timestamp_seconds", "When the last backup since the start was done.", registry=registry
        )
        self.sign_ins = SignInMetrics(registry)
        self.suppression = SuppressionMetrics(registry)
        self.gate = GateMetrics(registry)
        self.ship = ShipMetrics(registry)
        self.quarantine = QuarantineMetrics(registry)
        self.attribution = AttributionMetrics(registry)
        self._reached: dict[Counter, float] = {}

    def reach(self, counter: Counter, total: float) -> None:
        """Bring a counter to a total that is counted elsewhere since the start."""
        counter.inc(total - self._reached.get(counter, 0.0))
        self._reached[counter] = total
