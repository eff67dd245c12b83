"""The marketplace of the demo: who mails whom, how much, and at which true rates. Pure: a seed in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from monitor.model import Scope

if TYPE_CHECKING:
    from monitor.ports import Floats, Ints

PROVIDERS = ("gmail", "yahoo", "outlook", "apple", "gmx", "wp")
_SHARES = np.array((0.38, 0.17, 0.19, 0.10, 0.09, 0.07))
# Providers that tell of each complaint; at the others there is nothing to count complaints against.
REPORTING = ("yahoo", "outlook")
IPS = tuple(f"198.51.100.{last}" for last in range(11, 19))
SEGMENTS = (
    "lapsed-365d",
    "lapsed-180d",
    "buyers-30d",
    "buyers-90d",
    "newsletter",
    "wishlist",
    "abandoned-cart",
    "price-drop",
    "back-in-stock",
    "new-customers",
    "birthday",
    "vip",
)
SELLERS = tuple(f"s{number:02}" for number in range(1, 41))
CAMPAIGNS = ("autumn-offers", "week-in-review", "last-chance")
TRANSACTIONAL, MARKETING = "transactional", "marketing"
DAY = timedelta(minutes=10)

_TOTAL = 185.0  # messages a second: a (seller, segment) then decides the 200 of the bounce rule within five minutes
_RECEIPTS = 0.15
_SEGMENT = 1.5  # messages a second that a seller wants of a segment before it opens another

_ARRAYS = ("volume", "bounce", "deferral", "complaint", "phase")


@dataclass(frozen=True, slots=True, eq=False)
class Marketplace:
    """Series of mail and their true rates while nothing is wrong.

    ``series`` are scopes of tenant, segment, stream and domain (receipts have no segment); the arrays have shape
    (series, providers). ``volume`` is in messages a second, mean over the day; ``bounce`` and ``deferral`` are
    probabilities of a message, ``complaint`` of a delivered one, 0 where the provider doesn't report.
    ``phase`` (series,) shifts each one's day, in radians. The arrays can't be written to.
    """

    seed: int
    series: tuple[Scope, ...]
    volume: Floats
    bounce: Floats
    deferral: Floats
    complaint: Floats
    phase: Floats

    @classmethod
    def from_seed(cls, seed: int) -> Marketplace:
        """The same seed gives the same marketplace; sellers are in order of size, s01 the largest.

        Raises:
            ValueError: a negative seed.
        """
        if seed < 0:
            raise ValueError(f"seed {seed} is negative: give 0 or more")
        rng = np.random.default_rng([seed, 1])
        series, volume = _series(rng)
        seller = np.array([SELLERS.index(scope.tenant) for scope in series])
        mix = rng.dirichlet(60 * _SHARES, len(series))
        here = np.array([provider in REPORTING for provider in PROVIDERS])
        rates = {
            "volume": volume[:, None] * mix,
            # 0.4 to 1.6 % by seller: far below the 5 % at which somebody would be told.
            "bounce": _around(rng, 0.008, 2.0)[seller][:, None] * rng.uniform(0.9, 1.1, len(PROVIDERS)),
            "deferral": _around(rng, 0.03, 1.5)[seller][:, None] * rng.uniform(0.8, 1.2, len(PROVIDERS)),
            # Rare: the third complaint of the first thousand deliveries would trip the 0.1 % limit. With 0.03 % one
            # demo of two hours in two would accuse a healthy seller, with 0.01 % one in a hundred.
            "complaint": _around(rng, 0.0001, 1.5)[seller][:, None] * here,
            "phase": rng.uniform(-0.8, 0.8, len(series)),
        }
        for array in rates.values():
            array.flags.writeable = False
        return cls(seed, series, **rates)

    def mailing(self, tenant: str, segment: str) -> Marketplace:
        """The same marketplace with that seller mailing that segment; itself where it does already.

        A segment that is new to the seller gets the ways of the seller's largest one, at a usual volume.
        """
        if len(self.rows(tenant, segment)):
            return self
        mine = self.rows(tenant)
        like = int(mine[np.argmax(self.volume[mine].sum(axis=1))])
        usual = self.volume[like] * _SEGMENT / self.volume[like].sum()
        arrays = {name: np.concatenate((getattr(self, name), getattr(self, name)[[like]])) for name in _ARRAYS}
        arrays["volume"][-1] = usual
        for array in arrays.values():
            array.flags.writeable = False
        return Marketplace(self.seed, (*self.series, replace(self.series[like], segment=segment)), **arrays)

    def busy(self, elapsed: timedelta) -> Floats:
        """Messages a second that are expected ``elapsed`` after the start, (series, providers)."""
        wave: Floats = self.volume * (1 + 0.2 * np.sin(_turn(elapsed) + self.phase))[:, None]
        return wave

    def strain(self, elapsed: timedelta) -> float:
        """The factor on bounces and deferrals at that time of the day, around 1."""
        return 1 + 0.2 * float(np.cos(_turn(elapsed)))

    def rows(self, tenant: str, segment: str | None = None) -> Ints:
        """Where in ``series`` the seller's marketing stands, all of it or one segment's."""
        return np.array(
            [
                row
                for row, scope in enumerate(self.series)
                if scope.tenant == tenant and scope.stream == MARKETING and segment in (None, scope.segment)
            ],
            dtype=np.int64,
        )


def _series(rng: np.random.Generator) -> tuple[tuple[Scope, ...], Floats]:
    """The scopes, and each one's messages a second."""
    # Offset and exponent: the largest seller has some 8 % of the mail, so that no one of them is the marketplace.
    size = (np.arange(len(SELLERS)) + 3.0) ** -0.7 * np.exp(rng.normal(0, 0.03, len(SELLERS)))
    size = np.sort(size)[::-1] * _TOTAL / size.sum()
    scopes: list[Scope] = []
    volume: list[float] = []
    for seller, total in zip(SELLERS, size.tolist(), strict=True):
        scopes.append(Scope(tenant=seller, stream=TRANSACTIONAL, domain=f"{seller}.example"))
        volume.append(total * _RECEIPTS)
        mailing = total - volume[-1]
        count = int(np.clip(round(mailing / _SEGMENT), 1, len(SEGMENTS)))
        for segment in sorted(rng.choice(len(SEGMENTS), count, replace=False).tolist()):
            name = SEGMENTS[segment]
            scopes.append(Scope(tenant=seller, segment=name, stream=MARKETING, domain=f"news.{seller}.example"))
        volume.extend((mailing * rng.dirichlet(np.full(count, 20.0))).tolist())
    return tuple(scopes), np.array(volume)


def _around(rng: np.random.Generator, middle: float, times: float) -> Floats:
    """A rate for each seller between ``middle`` / ``times`` and ``middle`` x ``times``."""
    rate: Floats = middle * times ** rng.uniform(-1, 1, len(SELLERS))
    return rate


def _turn(elapsed: timedelta) -> float:
    return 2 * float(np.pi) * (elapsed / DAY)
