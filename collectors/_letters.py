"""Mailboxes of reports: what each letter in one tells, as rows and clues; the base of every source of mail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr, model_validator

from collectors import _arf, _automatic, _bounce, _mail
from collectors._arf import Complaint
from collectors._bounce import Failure
from collectors._dsn import RECIPIENTS, REPORTS
from collectors._mail import Mail
from collectors._provider import KNOWN, provider_of
from collectors._reporters import REPORTERS, checked
from collectors._verify import Verdict, Verifier
from monitor.model import DRESS, Batch, Clues, Kind, Rejected
from monitor.ports import Collector
from monitor.scrub import scrub

MESSAGE = "message"  # what such a thing is called in the quarantine
INCIDENTS = 1_000  # that one report may stand for (RFC 5965 section 3.2)
# How long a reporter's key may be out of reach, before its report is taken as nobody's.
PATIENCE = timedelta(hours=1)
_FIELDS = (
    *("kind", "at", "count", "recipient", "message_id", "id", "code", "dsn", "relay", "reply", "reply_class"),
    *("ip", "provider"),
)
_SAMPLE = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Raw:
    """A letter as it was fetched: ``where`` it lay, for people to find it; when it arrived (POSIX µs, 0 unknown).

    ``to`` is the address of the envelope to which it came, where the source knows it.
    """

    content: bytes = field(repr=False)
    where: str
    received: int = 0
    to: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Read:
    """What letters told: the ``batch``, and the places of letters to be offered ``later`` again, as nothing counts yet.

    Letters that tell nothing (a vacation, spam) are done with; broken ones are in ``batch.rejected`` with their bytes.
    """

    batch: Batch
    later: frozenset[int] = frozenset()


class Letterbox(Collector):
    """A source of mail; the settings that all of them share."""

    reports: ClassVar[bool] = True

    reporters: tuple[str, ...] = Field(
        default=(), description="further feedback loops to believe when they sign: domain, address, or X signed by Y"
    )
    resolvers: tuple[str, ...] = Field(
        default=(), description="name servers that are asked for signing keys, as host or host:port; none: the system's"
    )
    addressed: tuple[str, ...] = Field(
        default=(), description="addresses, or @domains, to which feedback loops report; a report to others is none"
    )
    trusted: bool = Field(
        default=False, description="believe bounces of messages that are not known, as no stranger can write here"
    )

    _verifier: Verifier = PrivateAttr()

    @model_validator(mode="after")
    def _build(self) -> Letterbox:
        who = (*REPORTERS, *checked(self.reporters))
        self._verifier = Verifier(who, self.resolvers, addressed=self.addressed)
        return self

    def read(self, letters: Sequence[Raw], now: datetime) -> Read:
        """What the letters tell, in their order; never raises for a letter."""
        told = _Told(self, now)
        for place, letter in enumerate(letters):
            try:
                told.take(place, letter)
            except Exception as error:  # noqa: BLE001  # a stranger wrote it: no letter may stop the others
                told.broken(letter, f"letter that can't be read: {type(error).__name__}")
        return told.all()

    def again(self, items: Sequence[Rejected], now: datetime) -> Batch:
        """Letters that were set aside, read once more."""
        return self.read([Raw(item.raw, item.where) for item in items], now).batch

    def believed(self, letter: Raw, told: Complaint, now: datetime) -> tuple[Verdict, Complaint]:
        """Whether a report is from whom it says, and the report as far as that is so; an opt-out, from whose it is."""
        came = _EPOCH + letter.received * _MICROSECOND if letter.received else None
        ask = self._verifier.person if told.in_person else self._verifier.verify
        verdict = ask(letter.content, now, came)
        if verdict.state != "pass":
            return verdict, told
        # What the signature does not cover anybody may have put in: only the rest is a report of the one who signed.
        mail = _mail.read(verdict.content)
        signed = _arf.complained(mail)
        if (
            signed is None
            or signed.in_person is not told.in_person
            or not (signed.covered or signed.in_person)
            or _arf.kind_of(signed) is not _arf.kind_of(told)
        ):
            return Verdict("fail", verdict.domain, "what is signed in it does not make the report"), told
        if signed.in_person and signed.clues.recipient.lower() != verdict.sender.lower():
            return Verdict("fail", verdict.domain, "written by a person who is not the one that it is about"), told
        astray = bool(self.addressed) and not signed.in_person and "to" not in mail.headers
        return verdict, replace(signed, clues=replace(signed.clues, astray=astray))


class _Told:
    """Rows in the making."""

    def __init__(self, box: Letterbox, now: datetime) -> None:
        self._box, self._now = box, now
        self._micros = (now - _EPOCH) // _MICROSECOND
        self._rows: list[tuple[Any, ...]] = []
        self._clues: list[Clues] = []
        self._places: list[str] = []
        self._rejected: list[Rejected] = []
        self._later: set[int] = set()
        self._met: Counter[str] = Counter()

    def all(self) -> Read:
        columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(_FIELDS)
        batch = Batch(
            dict(zip(_FIELDS, columns, strict=True)),
            rejected=self._rejected,
            places=self._places,
            clues=self._clues,
            met=dict(self._met),
        )
        return Read(batch, frozenset(self._later))

    def take(self, place: int, letter: Raw) -> None:
        mail = _mail.read(letter.content)
        if complaint := _arf.complained(mail):
            self._complaint(place, letter, complaint)
        elif failures := _bounce.bounced(mail):
            self._bounces(letter, mail, failures)
        else:
            self._nothing(letter, mail)

    def broken(self, letter: Raw, why: str) -> None:
        subject = scrub(letter.content[:_SAMPLE].decode("utf-8", "replace"), _SAMPLE)
        self._rejected.append(Rejected(why, letter.where, subject, letter.content, MESSAGE))
        self._met["broken"] += 1

    def _complaint(self, place: int, letter: Raw, complaint: Complaint) -> None:
        kind = _arf.kind_of(complaint)
        if kind is None:
            self._met["other report"] += 1
            return
        verdict, complaint = self._box.believed(letter, complaint, self._now)
        if verdict.state == "temporary" and self._young(letter):
            self._later.add(place)
            return
        vouched = verdict.state == "pass"
        if not vouched:
            kind = Kind.UNVERIFIED_COMPLAINT
        clues = complaint.clues
        provider = provider_of(complaint.reporter)
        self._add(
            letter,
            replace(clues, vouched=vouched),
            kind=kind,
            count=min(complaint.incidents, INCIDENTS) if vouched else 1,
            at=self._at(letter, 0),
            recipient=clues.recipient,
            message_id=clues.message_id,
            id=complaint.identity,
            # Why it is not believed is what whoever set the loop up must know.
            reply="" if vouched else scrub(verdict.why, _SAMPLE),
            reply_class=complaint.type[:40],
            ip=clues.ip if vouched else "",
            provider=provider if vouched and provider in KNOWN else "",
        )
        self._met[str(kind)] += 1

    def _bounces(self, letter: Raw, mail: Mail, failures: Sequence[Failure]) -> None:
        if len(failures) >= RECIPIENTS or any(part.cut for part in mail.parts if part.kind in REPORTS):
            self.broken(letter, f"bounce of {RECIPIENTS} recipients or more, or a report too long to be read")
            return
        clues = replace(_bounce.clues(mail), vouched=self._box.trusted)
        if letter.to:
            clues = replace(clues, return_path=letter.to)
        message = clues.message_id.strip(DRESS) or blake2b(letter.content, digest_size=16).hexdigest()
        for one in failures:
            recipient = one.original or one.recipient
            told = blake2b(f"{message}\0{recipient.lower()}\0{one.kind}".encode("utf-8", "replace"), digest_size=16)
            self._add(
                letter,
                replace(clues, recipient=recipient),
                kind=one.kind,
                at=self._at(letter, one.at),
                recipient=recipient,
                message_id=clues.message_id,
                id=told.hexdigest(),
                code=one.code,
                dsn=one.status,
                relay=one.remote,
                reply=one.reply,
                reply_class=one.meaning.stored,
                provider=one.provider,
            )
            self._met[str(one.kind)] += 1

    def _nothing(self, letter: Raw, mail: Mail) -> None:
        """A letter that is neither; a report for programs that names nobody is one that we can't read."""
        waits = any(one.action == "delayed" for one in _bounce.outcomes(mail))
        what = "delay" if waits else str(_automatic.automatic(mail, "\n".join(part.own for part in mail.parts)))
        claims = mail.report == "feedback-report" or (mail.report == "delivery-status" and _failed(mail))
        if claims and not waits:
            self.broken(letter, "report that names no recipient")
        else:
            self._met["nothing" if what == "no" else what] += 1

    def _add(self, letter: Raw, clues: Clues, **row: Any) -> None:
        self._rows.append(tuple(row.get(name, _EMPTY.get(name, "")) for name in _FIELDS))
        self._clues.append(clues)
        self._places.append(letter.where)

    def _young(self, letter: Raw) -> bool:
        return bool(letter.received) and self._micros - letter.received < PATIENCE // _MICROSECOND

    def _at(self, letter: Raw, told: int) -> int:
        """When it happened: as told, if that can be; else when the letter came."""
        came = min(letter.received or self._micros, self._micros)
        oldest = came - timedelta(days=7) // _MICROSECOND
        return told if oldest <= told <= came else came


_EMPTY = {"code": 0, "count": 1}


def _failed(mail: Mail) -> bool:
    return any("failed" in part.text.lower() for part in mail.parts if part.kind == "message/delivery-status")
