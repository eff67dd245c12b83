"""What is mailed in one tick and what becomes of it, as arrays. Pure: world, incidents, time and a generator in.

Mail is kept in *groups*: an (n, 5) integer array with the columns of ``Group``, beside (n,) counts. All mail of a
group bears the same labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monitor.model import Scope
from monitor.simulator.incidents import IncidentKind, Planned
from monitor.simulator.world import CAMPAIGNS, IPS, MARKETING, PROVIDERS, Marketplace

if TYPE_CHECKING:
    from monitor.ports import Flags, Floats, Ints

BOUGHT_CAMPAIGN = "new-contacts"
_COMPLAINT_BOUGHT = 0.01
_LEAST = 8.0  # messages a second of a bought list: 200 of them are decided within half a minute
_MOST = 0.10  # of all mail in the segment of a bought list, so that the guard on held share never stands in the way
_REFUSED, _PUT_OFF = 0.7, 0.3


class Group(NamedTuple):
    """Indices into the world's series, providers and IPs, of the campaign, and of the bought list (-1: no such)."""

    row: int
    provider: int
    ip: int
    campaign: int
    bought: int


def draw(
    world: Marketplace,
    planned: Sequence[Planned],
    elapsed: timedelta,
    lasts: timedelta,
    turn: int,
    rng: np.random.Generator,
) -> tuple[Ints, Ints]:
    """Groups and counts of the mail that is due in the ``lasts`` before ``elapsed``; ``turn`` numbers the ticks.

    Each series mails by one IP a tick, and to half of the providers, in rotation: the rates are the same in the
    end, and few groups are large rather than many small.
    """
    rows: list[Ints] = [np.arange(len(world.series))]
    rate, bought = [world.busy(elapsed)], [np.full(len(world.series), -1)]
    for index, one in enumerate(planned):
        if one.kind is IncidentKind.BOUGHT_LIST and one.running(elapsed):
            like, more = extra(world, one)
            rows.append(np.array([like]))
            # Like the rest of that series in time and providers, so that its share of all mail stays.
            rate.append(more * world.busy(elapsed)[[like]] / world.volume[like].sum())
            bought.append(np.array([index]))
    row, mails = np.concatenate(rows), np.concatenate(rate)
    due = (row[:, None] + np.arange(len(PROVIDERS)) + turn) % 2 == 0
    counts = rng.poisson(mails * due * 2 * lasts.total_seconds())
    at, provider = np.nonzero(counts)
    minute = int(elapsed.total_seconds() // 60)
    columns = (
        row[at],
        provider,
        (row[at] + turn // 2) % len(IPS),
        (row[at] + minute) % len(CAMPAIGNS),
        np.concatenate(bought)[at],
    )
    return np.stack(columns, axis=1), counts[at, provider]


def outcomes(
    world: Marketplace,
    planned: Sequence[Planned],
    elapsed: timedelta,
    groups: Ints,
    counts: Ints,
    rng: np.random.Generator,
) -> tuple[Ints, Flags]:
    """(n, 3) messages of each group that are sent, deferred and bounced, and whether its IP is refused there."""
    row, provider = groups[:, 0], groups[:, 1]
    strain = world.strain(elapsed)
    bounced, deferred = world.bounce[row, provider] * strain, world.deferral[row, provider] * strain
    for index in np.unique(groups[groups[:, 4] >= 0, 4]).tolist():
        bounced[groups[:, 4] == index] = planned[index].bounced
    refused = refusing(planned, elapsed, groups)
    bounced[refused], deferred[refused] = _REFUSED, _PUT_OFF
    return rng.multinomial(counts, np.stack((1 - bounced - deferred, deferred, bounced), axis=1)), refused


def complaint_rate(world: Marketplace, groups: Ints) -> Floats:
    """The part of each group's delivered messages that recipients will complain of, 0 where nobody reports."""
    rate = world.complaint[groups[:, 0], groups[:, 1]]
    return np.where((groups[:, 4] >= 0) & (rate > 0), _COMPLAINT_BOUGHT, rate)


def refusing(planned: Sequence[Planned], elapsed: timedelta, groups: Ints) -> Flags:
    """Whether the provider of each group refuses its IP at that time."""
    refused = np.zeros(len(groups), dtype=np.bool_)
    for one in planned:
        if one.kind is IncidentKind.IP_REFUSED and one.running(elapsed):
            provider, ip = PROVIDERS.index(one.scope.provider), IPS.index(one.scope.ip)
            refused |= (groups[:, 1] == provider) & (groups[:, 2] == ip)
    return refused


def extra(world: Marketplace, one: Planned) -> tuple[int, float]:
    """The series whose ways a bought list takes, and its messages a second on top of the segment's usual ones.

    A segment that the seller never mailed takes the ways of its largest one.
    """
    mine = world.rows(one.scope.tenant, one.scope.segment)
    usual = float(world.volume[mine].sum())
    candidates = mine if len(mine) else world.rows(one.scope.tenant)
    row = int(candidates[np.argmax(world.volume[candidates].sum(axis=1))])
    ceiling = (_MOST * float(world.volume.sum()) - usual) / (1 - _MOST)
    return row, min(max((one.times - 1) * usual, _LEAST), ceiling)


def labels_of(world: Marketplace, planned: Sequence[Planned], group: Group) -> Scope:
    """The scope that all mail of the group is in, as an event and a question to the brake name it."""
    scope = replace(world.series[group.row], provider=PROVIDERS[group.provider], ip=IPS[group.ip])
    if group.bought >= 0:
        return replace(scope, segment=planned[group.bought].scope.segment, campaign=BOUGHT_CAMPAIGN)
    return replace(scope, campaign=CAMPAIGNS[group.campaign]) if scope.stream == MARKETING else scope
