"""When a provider is to blame for what it refused, and not its recipients.

An outage is told from a bad list by three signs: far more is refused than usual there, not in one sender's mail alone,
and among the refused are people who took mail before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_WINDOWS = (1, 3, 12)  # steps that are looked at together: a burst, and a night with little mail
_FEWEST = 10  # refused recipients in a window; fewer prove nothing
_FAR = 5.0  # times the usual share
_LEAST = 0.05  # the share that is far above any list's usual churn
_MOST = 0.5
_ALIKE = 0.25
_GAP = 3  # steps between two parts of one outage
_USUAL, _WEIGHT = 0.02, 100  # what is expected of a provider of whom little is known, and how many mails that is worth
_NEARLY_ALL = 0.9
_PROVEN, _SOME_PROVEN = 0.2, 0.05
_PARTS = 3  # tenants, or campaigns, that must suffer
_DARK = 3  # refusals in a row without one delivery
_KNOWN = 100  # deliveries before it, without which nobody could be proven


def usual(refused: int, decided: int) -> float:
    """The share that a provider refuses on ordinary days."""
    return (refused + _USUAL * _WEIGHT) / (decided + _WEIGHT)


def raised(refused: Ints, decided: Ints, usually: float = 0.0) -> Flags:
    """In which steps far more is refused than usual; both count recipients of one provider, step by step.

    ``usually`` 0: what could be so at all, whatever is usual.
    """
    limit = min(max(_LEAST, _FAR * usually), _MOST)
    decided = np.maximum(decided, refused)
    share = refused / np.maximum(decided, 1)
    found = np.zeros(len(refused), np.bool_)
    for width in _WINDOWS:
        bad, all_ = _rolling(refused, width), _rolling(decided, width)
        for end in np.flatnonzero((bad >= _FEWEST) & (bad >= limit * all_)).tolist():
            window = slice(max(0, end - width + 1), end + 1)
            # A long window holds ordinary steps too: those of the outage are as bad as its worst, or nearly.
            found[window] |= share[window] >= max(limit / 2, float(share[window].max()) * _ALIKE)
    return found


def spans(flags: Flags) -> Iterator[tuple[int, int]]:
    """[first, last) of each run of flagged steps; small gaps are a part of it."""
    found = np.flatnonzero(flags)
    if not len(found):
        return
    breaks = np.flatnonzero(np.diff(found) > _GAP + 1)
    starts = found[np.concatenate([[0], breaks + 1])]
    ends = found[np.concatenate([breaks, [len(found) - 1]])]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield start, end + 1


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of a time in which a provider refused far more than usual.

    ``share`` refused, ``usually`` on other days. ``parts``: (refused, decided) of each tenant; or where one alone has
    mail there, of each of its campaigns. ``before``: how much the provider took in the days before; ``proven``: the
    share of the refused who took mail before, or None if that was not looked at.
    """

    share: float
    usually: float
    parts: Mapping[str, tuple[int, int]]
    before: int
    proven: float | None

    def outage(self) -> str:
        """Why it is the provider's fault, in words; empty: it is not."""
        limit = min(max(_LEAST, _FAR * self.usually), _MOST)
        with_mail = [(bad, max(bad, all_)) for bad, all_ in self.parts.values() if max(bad, all_) >= _DARK]
        hit = [bad for bad, all_ in with_mail if bad >= _DARK and bad >= limit * all_]
        broad = len(hit) >= _PARTS and 2 * len(hit) >= len(with_mail)
        told = f"{self.share:.0%} refused, usually {self.usually:.1%}"
        if self.before >= _KNOWN and self.proven is not None:
            if self.proven >= _PROVEN:
                return f"{told}; {self.proven:.0%} of them took mail before"
            if broad and (self.proven >= _SOME_PROVEN or self.share >= _NEARLY_ALL):
                return f"{told}, in {len(hit)} of {len(with_mail)} parts of the mail"
            return ""
        if broad:
            return f"{told}, in {len(hit)} of {len(with_mail)} parts of the mail"
        return f"{told}: nearly all of it" if self.share >= _NEARLY_ALL else ""


def doubtful(refused: Ints, taken: Ints, around: int) -> Flags:
    """In which steps nothing shows that the provider took anybody's mail.

    No delivery within ``around`` steps, or some refusals in a row without a delivery between them.
    """
    near = _rolling(np.concatenate([taken, np.zeros(around, np.int64)]), 2 * around + 1)[around:]
    dark = taken == 0
    runs = np.cumsum(~dark)  # steps without a delivery that belong together share a number
    in_a_row = np.bincount(runs[dark], weights=refused[dark], minlength=int(runs[-1]) + 1 if len(runs) else 1)
    found: Flags = (near == 0) | (dark & (in_a_row[runs] >= _DARK) if len(runs) else dark)
    return found


def _rolling(values: Ints, width: int) -> Ints:
    """The sum of each value and the ``width`` - 1 before it."""
    sums = np.cumsum(values)
    found: Ints = sums.copy()
    found[width:] -= sums[:-width]
    return found
