"""What questions share: labels, windows and what is measured, as people and Grafana write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.responses import Response

from monitor.api import words
from monitor.core.rates import Rate
from monitor.core.rules import Rule
from monitor.facts.measures import Measure, of_kind, of_rate, of_rule
from monitor.model import LABELS, OWNED, UNVERIFIED, Kind, Scope, named
from monitor.service import Core

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)  # the facts count seconds in 32 bits
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST = 366 * 86400  # seconds of a step
MINUTE = timedelta(minutes=1)
OWN_ONLY = "a seller's key shows that seller's mail alone", "leave out tenant"


class Unclear(Exception):  # noqa: N818  # an answer, not a fault
    """A question that can't be answered as it is put: told as 422, or with another ``status``."""

    def __init__(self, what: str, remedy: str = "", status: int = 422) -> None:
        super().__init__(what)
        self.what, self.remedy, self.status = what, remedy, status


def _stamp(text: object) -> object:
    """A time from RFC 3339 or from POSIX milliseconds, as Grafana writes them."""
    return _moment(text) if isinstance(text, str) else text


def _moment(text: str) -> datetime:
    try:
        if re.fullmatch(r"\d{1,15}", text):
            at = _EPOCH + timedelta(milliseconds=int(text))
        else:
            # A plus sign that was not escaped arrives as a blank.
            at = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
    except (ValueError, OverflowError):
        raise ValueError("no time: write RFC 3339 with an offset, or POSIX milliseconds") from None
    if at.tzinfo is None:
        raise ValueError("a time without an offset: end it with Z for UTC")
    if not FIRST <= at <= LAST:  # compared before it is converted: the first day there is has none before it
        raise ValueError("not between 2000 and 2100")
    return at.astimezone(UTC)


def _span(text: object) -> object:
    if not isinstance(text, str):
        return text
    if not (found := re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h|d|w)\s*", text)):
        raise ValueError("no duration: write a number and s, m, h, d or w, such as 5m")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST:
        raise ValueError("longer than a year")
    return timedelta(seconds=seconds)


Stamp = Annotated[
    datetime,
    BeforeValidator(_stamp),
    WithJsonSchema({"type": "string", "description": "RFC 3339 with an offset, or POSIX milliseconds"}),
]
Span = Annotated[
    timedelta, BeforeValidator(_span), WithJsonSchema({"type": "string", "description": "such as 30s, 5m, 6h or 7d"})
]
Label = Annotated[str, Field(max_length=200)]


class Windowed(BaseModel):
    """A part of the mail and of time; without ends, the newest ``minutes``."""

    model_config = ConfigDict(extra="forbid")

    since: Stamp | None = Field(None, alias="from")
    until: Stamp | None = Field(None, alias="to")
    minutes: Annotated[int, Field(ge=1, le=5_000_000)] | None = None
    ip: Label = ""
    domain: Label = ""
    provider: Label = ""
    stream: Label = ""
    tenant: Label = ""
    segment: Label = ""
    campaign: Label = ""
    variant: Label = ""
    region: Label = ""

    def where(self, own: str = "") -> Scope:
        """The part of the mail; of the mail of the tenant ``own``, where one alone may be asked about.

        Raises:
            Unclear: a name that sellers choose, without its tenant; or another tenant, whether there is one or not.
        """
        if own and self.tenant not in ("", own):
            raise Unclear(*OWN_ONLY, 403)
        asked = {label: getattr(self, label) for label in LABELS}
        try:
            return Scope(**{**asked, "tenant": own or self.tenant})
        except ValueError as error:
            raise Unclear(str(error), "name the tenant too") from error

    def window(self, now: datetime, usual: timedelta) -> tuple[datetime, datetime]:
        """From when to when, to the minute; ``usual`` is how long where nothing is said.

        Raises:
            Unclear: it is empty, or out of all bounds.
        """
        if self.minutes and self.since:
            raise Unclear("both from and minutes", "leave out one")
        until = _ceiling(self.until or now, MINUTE) if self.until else _floor(now, MINUTE) + MINUTE
        length = self.minutes * MINUTE if self.minutes else usual
        since = _floor(self.since, MINUTE) if self.since else _before(until, length)
        return between(since, until)


def _counted(kind: Kind) -> Kind:
    if kind in UNVERIFIED:
        raise ValueError("nobody vouches for these, so they are not counted: look at /v1/search and /v1/replies")
    return kind


class Measured(Windowed):
    """A rate, what a rule watches, or one outcome, by labels."""

    rate: Rate | None = None
    kind: Annotated[Kind, AfterValidator(_counted)] | None = None
    rule: Label = ""
    by: Annotated[str, Field(max_length=200, description="labels, with commas between")] | None = None

    def what(self, core: Core, usual: Rate, own: str = "") -> What:
        """What is measured; for who may ask about the tenant ``own`` alone, if any.

        Raises:
            Unclear: more than one thing, or one that there is not.
        """
        if sum(map(bool, (self.rate, self.kind, self.rule))) > 1:
            raise Unclear("more than one of rate, kind and rule", "name one")
        by = names(self.by or "", own)
        if self.kind:
            return What(of_kind(self.kind), by, {"kind": str(self.kind)})
        if self.rule:
            rule = _rule(core.settings.rules, self.rule, listed=not own)
            return What(of_rule(rule), rule.by if self.by is None else by, {"rate": str(rule.rate), "rule": rule.name})
        rate = self.rate or usual
        return What(of_rate(rate), by, {"rate": str(rate)})


@dataclass(frozen=True, slots=True)
class What:
    """What is measured, by which labels, and in which words it is told."""

    measure: Measure
    by: tuple[str, ...]
    told: dict[str, str]


def names(by: str, own: str = "") -> tuple[str, ...]:
    """Labels out of a text with commas; names that sellers choose are those of the tenant ``own``, if there is one.

    Raises:
        Unclear: one that there is not, or one that means nothing without the tenant.
    """
    found = tuple(dict.fromkeys(name for part in by.split(",") if (name := part.strip())))
    if unknown := [name for name in found if name not in LABELS]:
        raise Unclear(f"unknown labels: {', '.join(unknown)[:300]}", f"name labels out of {', '.join(LABELS)}")
    if "tenant" not in found and any(name in OWNED for name in found):
        if own:
            return (*found, "tenant")
        raise Unclear("segment, campaign and variant are only named together with tenant", "add tenant")
    return found


def between(since: datetime, until: datetime) -> tuple[datetime, datetime]:
    """The two, if they make a window.

    Raises:
        Unclear: they make none.
    """
    if not FIRST <= since < until <= LAST:
        raise Unclear("the window is empty", "let from be before to")
    return since, until


def widened(since: datetime, until: datetime, step: timedelta) -> tuple[datetime, datetime]:
    """The window in whole steps, counted from 1970."""
    return _floor(since, step), _ceiling(until, step)


def head(what: What, where: Scope, since: datetime, until: datetime) -> dict[str, Any]:
    """How answers begin: the question as it was understood."""
    return {
        **what.told,
        "by": what.by,
        "where": named(where),
        "providers": what.measure.providers,
        "time": "sent_at" if what.measure.by_cohort else "at",
        "since": words.stamp(since),
        "until": words.stamp(until),
    }


def answer(told: dict[str, Any]) -> Response:
    """JSON; NaN is null. FastAPI's own way takes many times as long for many numbers."""
    return Response(msgspec.json.encode(told), media_type="application/json")


def _rule(rules: Sequence[Rule], name: str, *, listed: bool) -> Rule:
    for rule in rules:
        if rule.name == name:
            return rule
    # How an operator calls a rule may name anybody.
    there = f"there are {', '.join(rule.name for rule in rules)}"[:500] if listed else "ask by rate or kind"
    raise Unclear("no rule of that name", there)


def _before(until: datetime, length: timedelta) -> datetime:
    return until - min(length, until - FIRST)


def _floor(at: datetime, step: timedelta) -> datetime:
    return at - (at - _EPOCH) % step


def _ceiling(at: datetime, step: timedelta) -> datetime:
    return at + (_EPOCH - at) % step
