"""What clues say and facts know, weighed: whose message a report is about, and what it counts as.

A genuine mark of ours decides, then a message that is known, then the rest. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from monitor.facts.placing import Known
from monitor.keyring import UNKNOWN, Pseudonym
from monitor.model import LABELS, OWNED, UNVERIFIED, Clues, Kind
from monitor.naming import domain_of
from monitor.witnesses import NOTHING, Testimony, Witness

NO_CLUE, UNKNOWN_MESSAGE, ANOTHER_RECIPIENT = "no clue", "unknown message", "another recipient"
AMBIGUOUS, NOT_VOUCHED, FULL = "ambiguous", "not vouched for", "too many wait"
REASONS = (NO_CLUE, UNKNOWN_MESSAGE, ANOTHER_RECIPIENT, AMBIGUOUS, NOT_VOUCHED, FULL)
_EARLY, _SLACK = (span // timedelta(microseconds=1) for span in (timedelta(minutes=10), timedelta(hours=1)))
_BOUNCES = frozenset({Kind.BOUNCED, Kind.EXPIRED, Kind.RETURNED})
# By these one message differs from another; a domain is the author's for one clue and the envelope's for the next.
_TELLING = tuple(LABELS.index(name) for name in ("stream", "tenant", *OWNED))
_TENANT, _DOMAIN, _IP = (LABELS.index(name) for name in ("tenant", "domain", "ip"))


@dataclass(frozen=True, slots=True)
class Found:
    """What the facts know of a report's message.

    ``exact`` was found ``by`` queue_id or message_id; ``person`` is the one message to that recipient that it can be.
    ``several``: more than one can. ``elsewhere``: the message is known, at other recipients. ``ended``: the message as
    the log tells that all its recipients who were left were given up.
    """

    exact: Known | None = None
    by: str = ""
    person: Known | None = None
    several: bool = False
    elsewhere: bool = False
    ended: Known | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A report with what was found: its row as ``columns``, by which clue, or else the reason why by none.

    ``settled``: nothing that the facts may still learn would change it. ``disagree``: clues name different mail.
    """

    columns: Mapping[str, Any] = field(repr=False)
    by: str
    reason: str = ""
    settled: bool = True
    disagree: bool = False


def weigh(testimony: Testimony, found: Found, *, trusted: bool = False, labelled: bool = False) -> Placed:
    """What a report counts as.

    ``trusted``: its source takes mail from our own servers alone. ``labelled``: labels by whatever clue are believed.
    """
    columns = testimony.report.columns
    kind = Kind(columns["kind"])
    bounce = kind in _BOUNCES
    witnesses = _heard(testimony, found)
    strong = [one for one in witnesses if one.vouches and not (bounce and one.labels_only)]
    weak = [one for one in witnesses if one not in strong]
    believed = strong or (weak if trusted or labelled or bounce or kind in (*UNVERIFIED, Kind.COMPLAINT) else [])
    labels = _merged(believed)
    if believed and not strong:
        labels = _filled(labels, testimony)
    stays = strong or (weak and (trusted or labelled)) or (bounce and trusted)
    counts = _told(kind, found) if stays else _lowered(kind, doubtful=bool(weak) or testimony.report.clues.astray)
    by = believed[0].by if believed else ""
    named, recipient = _key(believed, testimony.message_id, bounce=bounce), testimony.recipient
    if strong and kind is Kind.EXPIRED and found.ended:
        named, recipient = Pseudonym(found.ended.message.hex()), ""  # told already, once for all
    elif bounce and found.exact and by == found.by == "message_id" and _for_anybody(found.exact):
        recipient = ""  # it counts once, or whoever knows one message could make up any number of recipients
    return Placed(
        columns={
            **columns,
            **{name: label or columns.get(name, "") for name, label in zip(LABELS, labels, strict=True)},
            "kind": counts.value,
            "sent_at": next((one.sent for one in _by_clock(believed) if one.sent), 0) or testimony.sent,
            "message_id": named,
            "recipient": recipient,
            "found_by": by,
        },
        by=by,
        reason="" if by else _reason(testimony, found, weak=bool(weak)),
        settled=_settled(testimony, found, kind, strong=bool(strong)),
        disagree=_disagree(witnesses),
    )


def _heard(testimony: Testimony, found: Found) -> list[Witness]:
    """All witnesses, whom we trust most first."""
    told = testimony.witnesses
    marks = [one for one in told if one.vouches and one.by != "return_path" and not one.labels_only]
    facts = []
    if known := found.exact:
        facts.append(Witness(found.by, known.labels, known.sent, Pseudonym(known.message.hex()), vouches=True))
    rest = [one for one in told if one not in marks]
    rest.sort(key=lambda one: (not one.vouches, one.labels_only))
    if known := found.person:
        # A mark tells to whom and when, so the message that went there then is that one; a bare report proves nothing.
        vouched = bool(testimony.marked)
        rest.append(Witness("recipient", known.labels, known.sent, Pseudonym(known.message.hex()), vouches=vouched))
    return [*marks, *facts, *rest]


def _for_anybody(known: Known) -> bool:
    return known.recipient == UNKNOWN and not known.others


def agree(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether labels may be those of one message, as far as both know them."""
    return all(not one[place] or not other[place] or one[place] == other[place] for place in _TELLING)


def _merged(witnesses: Iterable[Witness]) -> tuple[str, ...]:
    """The labels of the first, with gaps filled by those who agree with it."""
    labels = NOTHING
    for one in witnesses:
        if agree(labels, one.labels):
            labels = tuple(mine or more for mine, more in zip(labels, one.labels, strict=True))
    return tuple(
        "" if name in OWNED and not labels[_TENANT] else label for name, label in zip(LABELS, labels, strict=True)
    )


def _filled(labels: tuple[str, ...], testimony: Testimony) -> tuple[str, ...]:
    """With what a stranger says of address and domain, where nobody better does."""
    clues: Clues = testimony.report.clues
    mine = list(labels)
    mine[_DOMAIN] = mine[_DOMAIN] or domain_of(clues.return_path) or domain_of(clues.sender)
    mine[_IP] = mine[_IP] or clues.ip
    return tuple(mine)


def _told(kind: Kind, found: Found) -> Kind:
    """A bounce that the log tells too is that outcome; any other came after the message had been accepted."""
    if kind not in _BOUNCES or found.ended:
        return kind
    known = found.exact or found.person
    return kind if known and known.kinds and Kind.SENT not in known.kinds else Kind.RETURNED


def _lowered(kind: Kind, *, doubtful: bool) -> Kind:
    if kind in _BOUNCES:
        return Kind.UNVERIFIED_BOUNCE
    # Whoever complains is known, and the message is not: labels that anybody could write into it must hurt nobody, nor
    # must mail of others of which somebody sends us the reports.
    return Kind.UNVERIFIED_COMPLAINT if kind is Kind.COMPLAINT and doubtful else kind


def _by_clock(witnesses: Sequence[Witness]) -> list[Witness]:
    """Who knows best when it was sent: the facts, as they count the mail with which reports are compared."""
    return sorted(witnesses, key=lambda one: not isinstance(one.message_id, Pseudonym))


def _key(witnesses: Sequence[Witness], own: str, *, bounce: bool) -> str:
    """What the outcome counts under, the same at each telling; ``own`` is what the report calls the message.

    A bounce is told by the log too, so it goes by what the facts call the message that the best witness names. Nobody
    but reporters tells of a complaint: it goes by our mark, which is there at each telling.
    """
    labels = witnesses[0].labels if witnesses else NOTHING
    named = [one.message_id for one in witnesses if one.message_id and agree(labels, one.labels)]
    known = next((name for name in named if isinstance(name, Pseudonym)), "")
    marked = next((name for name in named if not isinstance(name, Pseudonym)), "")
    return (known or marked or own) if bounce else (marked or own or known)


def _settled(testimony: Testimony, found: Found, kind: Kind, *, strong: bool) -> bool:
    if kind in UNVERIFIED:
        return True  # it will count for nothing, whatever is found
    if found.exact:
        # The log tells in a line of its own that all recipients who were left were given up: then this is told already.
        return kind is not Kind.EXPIRED or found.by != "queue_id" or found.ended is not None
    if strong:
        return kind not in _BOUNCES or not testimony.queue or found.person is not None
    if testimony.queue or testimony.message_id:
        return False
    return not testimony.recipient or found.person is not None or found.several


def _reason(testimony: Testimony, found: Found, *, weak: bool) -> str:
    if weak:
        return NOT_VOUCHED
    if found.several:
        return AMBIGUOUS
    if found.elsewhere:
        return ANOTHER_RECIPIENT
    asked = testimony.queue or testimony.message_id or testimony.recipient
    return UNKNOWN_MESSAGE if asked else NO_CLUE


def _disagree(witnesses: Sequence[Witness]) -> bool:
    return any(not agree(one.labels, other.labels) for at, one in enumerate(witnesses) for other in witnesses[:at])


def choose(candidates: Sequence[Known], testimony: Testimony) -> tuple[Known | None, bool]:
    """Which of the messages to a recipient the report is about, if only one can be; and whether several can.

    Where a time of sending is told, only what was sent about then can be. A mark's may be earlier: it was made before
    the message was handed over.
    """
    sent, at = testimony.sent, testimony.report.at
    labels = _merged(one for one in testimony.witnesses if one.vouches) if testimony.marked else NOTHING
    possible = [
        one
        for one in candidates
        if one.sent <= at + _EARLY
        and (not sent or sent - _EARLY <= one.sent <= sent + _SLACK)
        and agree(labels, one.labels)
    ]
    for place, told in ((_IP, testimony.report.clues.ip), (_DOMAIN, domain_of(testimony.report.clues.return_path))):
        narrowed = [one for one in possible if told and one.labels[place] == told]
        possible = narrowed or possible
    return (possible[0], False) if len(possible) == 1 else (None, len(possible) > 1)


def match(known: Sequence[Known], who: bytes) -> tuple[Known | None, bool]:
    """What is known of a message at a recipient (zeros: at any), and whether only others had it.

    Where the facts name no recipient at all they may mean everybody.
    """
    found = next((one for one in known if one.recipient == who and not one.others), None)
    if (
        found is None
        and known
        and (who == UNKNOWN or all(one.recipient == UNKNOWN and not one.others for one in known))
    ):
        found = known[0]
    return found, bool(known) and found is None
