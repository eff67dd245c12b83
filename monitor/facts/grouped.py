"""How a question to a grain is put: grouped by labels, cut to a part of the mail and a time. Makes SQL, asks nothing.

Columns are named with their table throughout, since what is shown of them bears the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from monitor.facts.grains import COUNTERS, GRAINS
from monitor.model import LABELS, OWNED, Scope, named

if TYPE_CHECKING:
    from monitor.ports import Ints

ANY = Scope()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Part:
    """The rows that a question is about: of ``grain``, within ``limits``, of the series within ``named``.

    ``values`` are what those texts name.
    """

    grain: str
    limits: tuple[str, ...]
    named: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def narrowed(self, limit: str, **values: Any) -> Part:
        """Only those rows of it for which ``limit`` is true too."""
        return replace(self, limits=(*self.limits, limit), values={**self.values, **values})

    def at(self, providers: Sequence[str]) -> Part:
        """Only the mail of these mailbox providers."""
        mine = f"{GRAINS[self.grain].series}.provider IN {{providers:Array(String)}}"
        return replace(self, named=(*self.named, mine), values={**self.values, "providers": list(providers)})


def part(grain: str, time: str, since: datetime, until: datetime, where: Scope = ANY) -> Part:
    """The rows whose ``time`` is in [since, until), within the scope ``where``."""
    limits = [
        f"{grain}.{time} >= toDateTime({{since:Int64}}, 'UTC')",
        f"{grain}.{time} < toDateTime({{until:Int64}}, 'UTC')",
    ]
    mine = tuple(f"{GRAINS[grain].series}.{label} = {{{label}:String}}" for label in named(where))
    return Part(grain, tuple(limits), mine, {"since": seconds(since), "until": seconds(until), **named(where)})


def select(
    rows: Part,
    names: Sequence[str],
    sums: Mapping[str, str],
    *,
    step: str = "",
    having: str = "",
    order: str = "",
    most: int = 0,
    labelled: bool = True,
    beside: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """One row a group: ``id`` (a hash of the labels), the labels ``names``, ``step`` if there is one, then ``sums``.

    ``step`` makes a number of a row's time. Without names all is one group. ``labelled=False`` leaves out the labels,
    ``most`` all rows but the first; ``beside`` is said of the groups, such as how many there are.
    """
    groups = [*(["id"] if names else []), *(["step"] if step else [])]
    source, made, limits = rows.grain, sums, _limits(rows, names)
    if names and not step:
        # Summed by series before they are named: a third of the time that naming each row takes (26.9, November 2026).
        inner = ", ".join((f"{rows.grain}.series AS series", *(f"{sum_} AS {name}" for name, sum_ in sums.items())))
        source = f"(SELECT {inner} FROM {rows.grain} WHERE {' AND '.join(limits)} GROUP BY series) AS counted"  # noqa: S608  # all names are ours
        made, limits = {name: f"toInt64(sum(counted.{name}))" for name in sums}, ()
    shown = [
        f"{identity(names)} AS id",
        *(f"any(named.{name}) AS {name}" for name in names if labelled),
        *([f"{step} AS step"] if step else []),
        *(f"{expression} AS {name}" for name, expression in {**made, **beside}.items()),
    ]
    return (
        f"SELECT {', '.join(shown)} FROM {source}{_naming(rows, names)}"  # noqa: S608  # all names are ours
        + (f" WHERE {' AND '.join(limits)}" if limits else "")
        + (f" GROUP BY {', '.join(groups)}" if groups else "")
        + f" HAVING count() > 0{f' AND {having}' if having else ''}"
        + (f" ORDER BY {order}" if order else "")
        + (f" LIMIT {most}" if most else "")
    )


def _limits(rows: Part, names: Sequence[str]) -> tuple[str, ...]:
    """What a row of the grain must fulfil; by series too where that finds rows, or where nothing is named."""
    grain = GRAINS[rows.grain]
    if not rows.named or (names and not grain.by_series):
        return rows.limits
    return (*rows.limits, f"{grain.name}.series GLOBAL IN (SELECT series FROM {_series(rows)})")  # noqa: S608  # as above


def _naming(rows: Part, names: Sequence[str]) -> str:
    """What puts beside each row what its series is.

    Grouping asks for a number, made once for a series and not for a row: by several texts it is up to six times slower
    (26.9, November 2026). GLOBAL is for a cluster, and means nothing on one node.
    """
    if not names:
        return ""
    table = GRAINS[rows.grain].series
    id_of = f"cityHash64({', '.join(f'{table}.{name}' for name in names)})"
    shown = ", ".join(("series", f"{id_of} AS id", *(f"{table}.{name} AS {name}" for name in names)))
    return f" GLOBAL SEMI LEFT JOIN (SELECT {shown} FROM {_series(rows)}) AS named USING (series)"  # noqa: S608  # as above


def _series(rows: Part) -> str:
    """The series that the question is about, to SELECT from."""
    grain = GRAINS[rows.grain]
    first = "toDate(toDateTime({since:Int64}, 'UTC'))"
    limits = (f"day >= {f'toStartOfMonth({first})' if grain.monthly else first}", *rows.named)
    return f"{grain.series} WHERE {' AND '.join(limits)}"


def identity(names: Sequence[str]) -> str:
    """The number that stands for a group; the same at each asking."""
    return "named.id" if names else "toUInt64(0)"


def counters(grain: str) -> dict[str, str]:
    """The sums of all counters, by name."""
    return {counter: summed(grain, (counter,)) for counter in COUNTERS}


def summed(grain: str, names: Sequence[str], condition: str = "") -> str:
    """The sum of some counters together, of the rows for which ``condition`` is true."""
    sums = (f"sumIf({grain}.{name}, {condition})" if condition else f"sum({grain}.{name})" for name in names)
    return f"toInt64({' + '.join(sums) or '0'})"


def stepped(grain: str, time: str) -> str:
    """POSIX seconds at which the step of a row begins; asks for the values ``since`` and ``step``."""
    passed = f"intDiv(toInt64(toUnixTimestamp({grain}.{time})) - {{since:Int64}}, {{step:Int64}})"
    return f"{{since:Int64}} + {passed} * {{step:Int64}}"


def owned(by: Sequence[str]) -> tuple[str, ...]:
    """The labels of a grouping in their order; a name that sellers choose comes with the tenant who chose it.

    Raises:
        ValueError: a label that there is not.
    """
    if unknown := set(by) - set(LABELS):
        raise ValueError(f"unknown labels: {', '.join(sorted(unknown))}")
    wanted = {*by, "tenant"} if set(by) & set(OWNED) else set(by)
    return tuple(label for label in LABELS if label in wanted)


def within(held: Sequence[str], names: Sequence[str], where: Scope) -> bool:
    """Whether a grain that holds these labels can answer."""
    return set(names) | set(named(where)) <= set(held)


def scopes(table: pa.Table, names: Sequence[str]) -> tuple[Scope, ...]:
    """The scope of each row."""
    if not names:
        return tuple([ANY] * len(table))
    columns = [table[label].to_pylist() if label in names else repeat("") for label in LABELS]
    return tuple(map(Scope, *columns))


def ints(table: pa.Table, name: str) -> Ints:
    """A column as numbers."""
    values: Ints = table[name].to_numpy().astype(np.int64)
    return values


def seconds(at: datetime) -> int:
    """POSIX seconds, cut."""
    return (at - _EPOCH) // timedelta(seconds=1)
