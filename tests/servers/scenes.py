"""What the canned API tells: scenes of a small marketplace at a moment, in the shapes of ``/v1``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

PROVIDERS = {"Gmail": 0.011, "Microsoft": 0.009, "Yahoo": 0.008, "Seznam": 0.012, "WP": 0.013, "Onet": 0.012}
IPS = [f"198.51.100.{last}" for last in range(20, 28)]
SELLERS = [
    ("s07", "lapsed"),
    ("s07", "buyers"),
    *((f"s{n:02}", "active") for n in (1, 2, 3, 11, 12, 19, 23, 28, 31, 36)),
]
GROUPS: Mapping[tuple[str, ...], list[dict[str, str]]] = {
    (): [{}],
    ("tenant", "segment"): [{"tenant": tenant, "segment": segment} for tenant, segment in SELLERS],
    ("ip", "provider"): [{"ip": ip, "provider": provider} for ip in IPS for provider in PROVIDERS],
}
AUTOMATION = "automation"
PAUSE = "12@1795492945"  # the lease bears the id of the action that set it
Json = dict[str, Any]
Labels = Mapping[str, str]


def iso(at: datetime | None) -> str | None:
    """As the API writes times."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


class Scene:
    """A marketplace where nothing is wrong. ``start`` is when it was set up; its story is told from there."""

    mode = "enforce"
    demo = False
    began = minutes(24)  # how long before the start the first mail was seen
    held_share: float | None = 0.0
    names: ClassVar[Labels] = {}  # what is said in place of some names

    def __init__(self, start: datetime) -> None:
        self.start = start

    def scope(self, **labels: str) -> dict[str, str]:
        return {label: self.names.get(value, value) for label, value in labels.items()}

    def ago(self, count: float) -> datetime:
        return self.start - minutes(count)

    def complete(self, now: datetime) -> datetime | None:
        """The watermark of all."""
        return now - timedelta(seconds=3)

    def source(self, name: str, now: datetime, **changes: Any) -> Json:
        told = iso(self.complete(now))
        fresh = {
            "node": "mx-out-1",
            "kind": "sendlog",
            "state": "fresh",
            "watermark": told,
            "seen_at": told,
            "error": "",
        }
        return {"name": name, **fresh, **changes}

    def sources(self, now: datetime) -> list[Json]:
        return [self.source("postfix", now), self.source("http", now, kind="events")]

    def status(self, now: datetime) -> Json:
        rows = self.volume(now)["points"][-5:]
        outcomes = ("sent", "deferred", "bounced", "complaint", "held")
        return {
            "version": "0.1.0",
            "mode": self.mode,
            "now": iso(now),
            "demo": self.demo,
            "generation": 41,
            "held_share": self.held_share,
            "complete_to": iso(self.complete(now)),
            "sources": self.sources(now),
            "counts": {name: sum(row[place] for row in rows) for place, name in enumerate(outcomes, 1)},
        }

    def incidents(self, now: datetime) -> list[Json]:
        return []

    def leases(self, now: datetime) -> list[Json]:
        return []

    def actions(self, now: datetime) -> list[Json]:
        return []

    def classes(self) -> list[Json]:
        """Refusals by what they mean."""
        return []

    def unknown(self) -> Json:
        """Replies that nobody knows."""
        return {"count": 0, "clusters": []}

    def rate_of(self, labels: Labels, age: float) -> float:
        """The part of a series that bounced so many minutes before the start."""
        return PROVIDERS.get(labels.get("provider", ""), 0.011)

    def mail_of(self, labels: Labels, age: float) -> int:
        """Messages in a whole minute."""
        return 95 if "ip" in labels else 210 if labels else 4600

    def held_of(self, age: float) -> int:
        return 0

    def until(self, now: datetime) -> datetime:
        """To when there is mail."""
        return now

    def points(self, labels: Labels, now: datetime) -> list[list[int]]:
        now = self.until(now)
        newest = int(now.timestamp()) // 60 * 60
        first = max(int((self.start - self.began).timestamp()) // 60 * 60, newest - 29 * 60)
        phase = sum(map(ord, "".join(labels.values())))
        rows = []
        for at in range(first, newest + 1, 60):
            age = (self.start.timestamp() - at) / 60
            wave = 1 + 0.18 * math.sin(at / 170 + 1.7 * phase)
            total = int(self.mail_of(labels, age) * wave * min(1.0, (now.timestamp() - at) / 60))
            rows.append([at, round(total * self.rate_of(labels, age) * (0.7 + 0.3 * wave)), total])
        return [row for row in rows if row[2]]

    def series(self, now: datetime, by: Sequence[str], rate: str) -> Json:
        told = [{"scope": self.scope(**labels), "points": self.points(labels, now)} for labels in GROUPS[tuple(by)]]
        frame = {"step": 60, "since": iso(now - minutes(30)), "until": iso(now), "complete_to": iso(self.complete(now))}
        return {"by": list(by), "rate": rate, **frame, "series": [one for one in told if one["points"]]}

    def volume(self, now: datetime) -> Json:
        told = []
        for at, bad, total in self.points({}, now):
            held = self.held_of((self.start.timestamp() - at) / 60)
            told.append([at, total - bad - held, total // 45, bad, total // 2600, held])
        return {"step": 60, "points": told}


class Start(Scene):
    """The first minute of the demo."""

    demo = True
    began = timedelta(seconds=50)


class Empty(Scene):
    """No source is connected."""

    held_share = None

    def complete(self, now: datetime) -> datetime | None:
        return None

    def sources(self, now: datetime) -> list[Json]:
        return []

    def points(self, labels: Labels, now: datetime) -> list[list[int]]:
        return []


class Stale(Scene):
    """One source is silent since nine minutes, and the other has never told anything."""

    def complete(self, now: datetime) -> datetime | None:
        return self.ago(9)

    def until(self, now: datetime) -> datetime:
        return self.ago(9)

    def sources(self, now: datetime) -> list[Json]:
        return [
            self.source("postfix", now, state="stale", error="the log has not grown"),
            self.source("http", now, state="no data", watermark=None, seen_at=None),
        ]


class Fire(Scene):
    """A bought list: seller s07's segment lapsed bounces 31 % and is paused; one IP is refused; four refusals."""

    demo = True
    held_share = 0.048
    paused = 2.0  # minutes ago
    opened = 6.0

    def rate_of(self, labels: Labels, age: float) -> float:
        burns = age < self.opened
        if labels.get("segment") == "lapsed":
            return 0.31 if burns else 0.012
        if (labels.get("ip"), labels.get("provider")) == ("198.51.100.23", "Yahoo"):
            return 0.064 if burns else 0.011
        return 0.026 if not labels and self.paused < age < self.opened else super().rate_of(labels, age)

    def mail_of(self, labels: Labels, age: float) -> int:
        return 0 if labels.get("segment") == "lapsed" and age < self.paused else super().mail_of(labels, age)

    def held_of(self, age: float) -> int:
        return 240 if age < self.paused else 0

    def person(self) -> str:
        return self.names.get("Marta Zielińska", "Marta Zielińska")

    def lease(self, name: str, deed: str, scope: Json, since: float, until: float, **more: Any) -> Json:
        """``since`` and ``until`` in minutes from the start."""
        times = {"since": iso(self.ago(-since)), "until": iso(self.ago(-until)), "ttl": round(60 * until, 3)}
        by = {"who": self.person(), "why": "", "share": 0.0, "pool": "", "incident": 0}
        return {"id": name, "deed": deed, "scope": scope, **times, **by, **more}

    def leases(self, now: datetime) -> list[Json]:
        found = "bounces 31 % (310 of 1,002) against 10 % tolerated"
        slowly = self.names.get("new IP, slowly", "new IP, slowly")
        lapsed, onet = self.scope(tenant="s07", segment="lapsed"), self.scope(ip="198.51.100.26", provider="Onet")
        told = [
            self.lease(
                PAUSE, "pause", {**lapsed, "stream": "marketing"}, -2, 7, who=AUTOMATION, why=found, incident=12
            ),
            self.lease("p-7f3a", "throttle", onet, -32, 78, why=slowly, share=0.25),
            self.lease("p-7f40", "allow", self.scope(tenant="s31"), -122, 1320, why="largest this week: call me first"),
        ]
        return [one for one in told if datetime.fromisoformat(one["until"]) > now]

    def incident(self, number: int, rule: str, scope: Json, opened: float, **evidence: Any) -> Json:
        """``opened`` in minutes before the start."""
        seen: Json = {
            "since": iso(self.ago(opened + 1)),
            "until": iso(self.ago(opened - 4)),
            "reason": "",
            "shares": [],
        }
        times = {"opened_at": iso(self.ago(opened)), "updated_at": iso(self.start), "resolved_at": None}
        said = {"id": number, "rule": rule, "scope": scope, "grade": "alert", "state": "open", **times}
        done = [action for action in self.actions(self.start) if action["incident"] == number]
        return {**said, "evidence": {"state": "bad", **seen, **evidence}, "actions": done[::-1]}

    def incidents(self, now: datetime) -> list[Json]:
        much = {"numerator": 310, "denominator": 1002, "rate": 0.309, "expected": 0.1, "lower": 0.281, "upper": 0.339}
        some = {"numerator": 36, "denominator": 561, "rate": 0.0642, "expected": 0.05, "lower": 0.0467, "upper": 0.0876}
        shares = [[self.scope(tenant="s07")["tenant"], 0.93]]
        lapsed, yahoo = self.scope(tenant="s07", segment="lapsed"), self.scope(ip="198.51.100.23", provider="Yahoo")
        over = self.incident(9, "bounce-seller", self.scope(tenant="s11", segment="active"), 44, **some)
        return [
            self.incident(14, "bounce-ip", yahoo, 2, **some),
            {**self.incident(12, "bounce-seller", lapsed, 4, **much, shares=shares), "grade": "pause"},
            {**over, "state": "resolved", "resolved_at": iso(self.ago(25))},
        ]

    def action(self, seq: int, ago: float, deed: str, scope: Json, why: str, incident: int, **more: Any) -> Json:
        at = self.ago(ago)
        names = {"seq": seq, "id": f"{incident}@{int(at.timestamp())}", "at": iso(at), "who": AUTOMATION}
        rest: Json = {"until": None, "share": 0.0, "pool": "", "lease": "", "evidence": {}}
        return {**names, "deed": deed, "scope": scope, "why": why, "incident": incident, **rest, **more}

    def actions(self, now: datetime) -> list[Json]:
        lapsed, onet = self.scope(tenant="s07", segment="lapsed"), self.scope(ip="198.51.100.26", provider="Onet")
        active = self.scope(tenant="s11", segment="active")
        receipts = self.scope(stream="transactional", provider="WP")
        found, thin = (
            "bounces 31 % (310 of 1,002) against 10 % tolerated",
            "too little mail: 162 of the 200 that it takes",
        )
        by, later = {"who": self.person()}, iso(self.ago(-78))
        return [
            self.action(
                88, 2, "pause", {**lapsed, "stream": "marketing"}, found, 12, until=iso(self.ago(-7)), id=PAUSE
            ),
            self.action(87, 3, "refuse", lapsed, thin, 12),
            self.action(86, 4, "refuse", lapsed, thin, 12),
            self.action(80, 24, "resume", active, "list cleaned", 9, **by),
            self.action(79, 32, "throttle", onet, "new IP, slowly", 0, **by, share=0.25, until=later),
            self.action(78, 41, "refuse", receipts, "overlaps a protected scope: stream transactional", 8),
            self.action(
                77, 55, "pause", self.scope(tenant="s19"), "bounces 12 % (61 of 508)", 7, until=iso(self.ago(50))
            ),
            self.action(76, 70, "refuse", self.scope(ip="198.51.100.20"), "the last IP of its pool", 6),
            self.action(75, 90, "refuse", self.scope(tenant="s02"), "held share would be 24 %, limit 20 %", 5),
        ]


class Ended(Fire):
    """The same fire; its pause is over, and nothing newer is known of that mail."""

    held_share = 0.0

    def leases(self, now: datetime) -> list[Json]:
        return []

    def actions(self, now: datetime) -> list[Json]:
        first, *rest = super().actions(now)
        return [{**first, "until": iso(self.ago(0.5))}, *rest]

    def incidents(self, now: datetime) -> list[Json]:
        seen = {"since": iso(self.ago(8)), "until": iso(self.ago(3))}
        return [{**one, "evidence": {**one["evidence"], **seen}} for one in super().incidents(now)]


class DryRun(Fire):
    """The same fire, and automation may not act."""

    mode = "dry-run"
    demo = False
    held_share = 0.0
    paused = -math.inf

    def leases(self, now: datetime) -> list[Json]:
        return []

    def actions(self, now: datetime) -> list[Json]:
        first, *rest = super().actions(now)
        return [{**first, "deed": "refuse", "why": "dry run: would pause for 60 min", "until": None}, *rest]


class Refused(Scene):
    """Mail is refused, and not all of it is understood."""

    def classes(self) -> list[Json]:
        rows = (("quota", "gmail", 900), ("listed:pbl", "outlook", 80), ("quota", "orange", 20), (None, None, 1))
        names = ("class", "provider", "count")
        return [{"kind": "deferred", **dict(zip(names, row, strict=True))} for row in rows]

    def unknown(self) -> Json:
        text = "450 <img src=x onerror=alert(1)> the moon is full"
        return {"count": 7, "clusters": [{"template": text, "count": 7, "examples": [text]}]}


class Hostile(Fire):
    """The fire, with names that want to be more than text."""

    names: ClassVar[Labels] = {
        "s07": '<img src=x onerror="window.pwned=1">\'"&amp;',
        "lapsed": "evil\u202ekcats\u202c <script>window.pwned=2</script>",
        "s11": "long" * 400,
        "s12": "שלום עולם \u200f\u202b",
        "s19": "javascript:alert(1)//" + "\u0301" * 40,
        "Marta Zielińska": "<b onclick=window.pwned=3>Mallory</b>",
        "new IP, slowly": "</p><style>*{display:none}</style>$(rm -rf)",
        "Onet": "</td><svg onload=window.pwned=4>",
    }

    def leases(self, now: datetime) -> list[Json]:
        first, second, *rest = super().leases(now)
        return [first, {**second, "id": "x'; touch pwned; '"}, *rest]


SCENES: Mapping[str, Callable[[datetime], Scene]] = {
    "calm": Scene,
    "start": Start,
    "empty": Empty,
    "stale": Stale,
    "fire": Fire,
    "ended": Ended,
    "dry-run": DryRun,
    "hostile": Hostile,
    "refused": Refused,
}
