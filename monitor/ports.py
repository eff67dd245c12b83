"""Everything pluggable on one page. A plugin is a frozen, validated configuration with one verb (ADR 6).

``kind = "slack"`` in a section ``[alert.NAME]`` means the one subclass of ``Notifier`` in ``alerts/slack.py``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from monitor.hiding import hidden
from monitor.model import LABELS, Action, Answer, Batch, Incident, Lease, Rejected, Scope

if TYPE_CHECKING:  # the gate imports this page and must stay light
    import numpy as np
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: object) -> object:
    """A timedelta from a text such as 90s, 15m, 24h or 7d; what is no text passes through.

    Raises:
        ValueError: a text of another shape.
    """
    if not isinstance(text, str):
        return text
    if not (found := re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])\s*", text)):
        raise ValueError(f"{text!r} is no duration: write a number and s, m, h or d, such as 90s or 15m")
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])


Duration = Annotated[timedelta, BeforeValidator(duration)]


class PluginError(Exception):
    """The world failed. The plugin knows whether it is worth a ``retry``; the pipeline does the retrying."""

    def __init__(self, message: str, *, retry: bool) -> None:
        super().__init__(hidden(message))
        self.retry = retry


class Plugin(BaseModel):
    """The base of all: settings from one table of ``mailvane.toml``, unknown ones refused.

    ``secrets`` names the fields that are never written in the file itself: each comes from the file that
    ``<field>_file`` names, or from the environment (``MAILVANE_<SECTION>_<NAME>_<FIELD>``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    secrets: ClassVar[tuple[str, ...]] = ()
    _outgoing: tuple[str, ...] = PrivateAttr(default=())

    @property
    def outgoing(self) -> tuple[str, ...]:
        """Networks to which it may connect besides public addresses: what ``monitor.http`` is told to allow."""
        return self._outgoing

    def reaching(self, networks: tuple[str, ...]) -> Self:
        """Itself, told once by who loads it what ``[outgoing] allow`` says."""
        self._outgoing = networks
        return self


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a source stands: the last committed ``cursor``, and what it ``remembers`` between reads."""

    cursor: Mapping[str, Any] = field(default_factory=dict)
    remembers: Mapping[str, Any] = field(default_factory=dict)


class Source(Plugin, ABC):
    """Where facts come from: a collector that we ask, or a receiver that is told."""

    def again(self, items: Sequence[Rejected], now: datetime) -> Batch:  # noqa: ARG002  # for those that can
        """What this source set aside as ``raw``, read once more, with the settings of today.

        What is still no good is in the batch's ``rejected`` with its ``raw``; cursor and watermark mean nothing.

        Raises:
            PluginError: this kind of source reads nothing twice.
        """
        raise PluginError("a source of this kind can't read again what it set aside", retry=False)


class Receiver(Source):
    """Is told by a peer over HTTP; gets its route from the API."""

    @abstractmethod
    def decode(self, body: bytes) -> Batch:
        """What a request's body says, pure; what can't be read is in the batch's ``rejected``, by line."""


class Collector(Source):
    """Reads one source, ``every`` so often."""

    # Whether what follows a yield waits until the batch is in the facts, for a source that would forget it then.
    settles: ClassVar[bool] = False
    # Whether it holds what its peer believes delivered: then it is read once more after ``close``.
    holds: ClassVar[bool] = False
    # Whether it reports about messages of others, by clues that only the core can follow.
    reports: ClassVar[bool] = False

    every: Duration = Field(timedelta(seconds=1), description="how often it is read")

    @abstractmethod
    def collect(self, memory: Memory, now: datetime) -> Iterator[Batch]:
        """Batches since ``memory.cursor``, oldest first; ends when there is nothing more for now.

        What follows a ``yield`` runs after that batch is on disk, or in the facts if the source ``settles``:
        acknowledge, move, commit offsets there. It does not run where the batch could not be taken: hand it over again.

        Raises:
            PluginError: the source can't be read.
        """

    def unreadable(self) -> str:
        """Why nothing could be read just now, as far as a look tells that reads nothing; empty if all seems well."""
        return ""

    def waiting(self) -> float | None:
        """Messages that wait at the source, without asking it; NaN while unknown, None where nothing counts them."""
        return None

    def close(self) -> None:
        """Let go what is kept open between reads; a read that is under way ends soon."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a detector says of n series, as arrays of length n.

    ``lower`` and ``upper`` bound the true rate (95 %); NaN where ``total`` is 0. ``alert``/``pause``: bad at that
    grade; ``calm``: surely within the limit; ``thin``: too little to say anything.
    """

    lower: Floats
    upper: Floats
    expected: Floats
    alert: Flags
    pause: Flags
    calm: Flags
    thin: Flags


class Detector(Plugin, ABC):
    """One method, pure and vectorised over series: a fold over buckets."""

    @abstractmethod
    def step(self, state: Any, bad: Ints, total: Ints) -> tuple[Any, Scores]:
        """Scores of each series for the newest bucket or window, and the state to hand to the next call.

        ``bad`` and ``total`` have shape (n,), the same series in the same order at each call; ``state`` is None at
        the first. Looks only back.
        """


class Notifier(Plugin, ABC):
    """Tells people."""

    @abstractmethod
    def notify(self, incident: Incident, actions: Sequence[Action], handle: str) -> str:
        """Tell the incident's present state; ``handle`` is what the last call answered, empty at the first.

        Returns the handle with which the message can be updated in place.

        Raises:
            PluginError: it was not told.
        """


class Actuator(Plugin, ABC):
    """Tells one dispatch tier which leases are in force."""

    @abstractmethod
    def sync(self, leases: Sequence[Lease], current: Current, now: datetime) -> None:
        """Make it so: the whole set, level-triggered, safe to repeat.

        ``current`` answers for single messages as the gate does, for a tier that must be told which ones to hold.

        Raises:
            PluginError: the tier does not answer or refuses; what could be done was done.
        """

    @abstractmethod
    def expresses(self, scope: Scope) -> Scope | None:
        """The scope itself if the tier can pause exactly it, a narrower one if only that, None if not at all."""

    def ways(self) -> Mapping[str, frozenset[str]]:
        """The labels that the tier can tell, for each way on which it learns of a message; for people to read."""
        return {}


ALL = frozenset(LABELS)


class Current(Protocol):
    """What the gate knows just now: an actuator that listens asks it for each message."""

    def check(self, message: Scope, key: str = "", knows: frozenset[str] = ALL) -> Answer:
        """What the sender of a message with these labels is told; the same ``key`` gets the same answer.

        ``knows`` are the labels that the asker can ever tell of a message. A person's lease that names another one may
        let pass what it can't tell apart, so then it is let pass: in doubt we do not pause.
        """

    def provider(self, domain: str) -> str:
        """The mailbox provider of a recipient domain, as learnt from the relays that took its mail; "" unknown."""

    def refused(self, server: str, reason: str) -> None:
        """Count a request or connection that was turned away; both come from a small fixed set of words."""


class Listener(Actuator):
    """A tier that asks us rather than being told; the gate serves it, so it must stay light."""

    @abstractmethod
    async def serve(self, current: Current) -> None:
        """Answer until cancelled.

        Raises:
            PluginError: an address can't be listened on.
        """
