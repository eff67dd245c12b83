"""Whether a report is from whom it says: its DKIM signature, against those who may report (RFC 6376, 6449)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from collectors._keys import TIMEOUT, Keys, Unreachable
from collectors._reporters import REPORTERS, WITHOUT_TO, Reporter, reporters
from collectors._signature import Refused, Signature, covered, holds, signatures
from collectors._strict import Strict, Unclear, opened

TRIED = 4  # signatures of one letter whose key is asked for
# For a name server of anybody at all, who may let us wait on purpose; and for all of them in a minute.
HURRY, PATIENCE = timedelta(seconds=1), timedelta(seconds=6)
SEEN = 25  # signatures of one letter that are looked at
OLDEST = timedelta(days=60)
SLACK = timedelta(hours=1)  # by which the reporter's clock may be ahead of ours


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a report's sender.

    ``pass``: ``domain`` signed the letter as it lies here, and may report. ``fail``: nobody who may did. ``none``: it
    bears no signature. ``temporary``: no name server told its key; look again later. ``why`` says it in a sentence.
    ``content`` is what a good signature covers of the letter, and all that may be read of it then: its signed headers,
    those by which its body is read, and the body in the form that was summed. ``sender`` is the one address in the From
    of a letter that passes. Both are empty where the state is another.
    """

    state: Literal["pass", "fail", "none", "temporary"]
    domain: str
    why: str
    content: bytes = field(default=b"", repr=False, compare=False)
    sender: str = field(default="", repr=False, compare=False)


class Verifier:
    """Tells reports of known reporters from what anybody else may write.

    ``who`` are those who may report, as ``collectors._reporters.reporters`` has them. ``resolvers`` are addresses of
    name servers with a port or without; none: the system's. ``addressed``, where given, are the addresses, or domains
    after an @, to which reports come: a report to somebody else, even a true one, was not meant for us. A signature
    older than ``oldest`` is no evidence: a report of long ago says nothing of now. May be used by many threads.

    Raises:
        ValueError: a reporter or a resolver is none.
    """

    def __init__(
        self,
        who: Sequence[str] = REPORTERS,
        resolvers: Sequence[str] = (),
        *,
        addressed: Sequence[str] = (),
        oldest: timedelta = OLDEST,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        self._reporters = reporters(who)
        self._keys, self._others = Keys(resolvers, timeout), Keys(resolvers, min(timeout, HURRY), PATIENCE)
        self._addressed = tuple(one.strip().lower() for one in addressed)
        self._oldest = oldest

    def verify(self, raw: bytes, now: datetime, came: datetime | None = None) -> Verdict:
        """Whether the bytes of a letter are a reporter's own; never raises for what is in them.

        ``came`` is when the letter reached its mailbox, as the mailbox's own server has it: a signature that ran out
        or grew old since then was good when it came.
        """
        letter = _opened(raw)
        if isinstance(letter, Verdict):
            return letter
        mine = [one for one in self._reporters if one.sends(letter.local, letter.domain)]
        if not mine:
            return Verdict("fail", "", f"{_shown(letter.domain)} is none of the reporters in the configuration")
        if self._addressed and not letter.addressed(self._addressed):
            return Verdict("fail", "", "it was sent to somebody else than `addressed` names")
        return _first(letter, mine, self._keys, _When(now, min(came or now, now), self._oldest))

    def person(self, raw: bytes, now: datetime, came: datetime | None = None) -> Verdict:
        """Whether a letter is from the very address in its From, as far as the domain of that vouches for it.

        For what somebody says of themselves, such as that they want no more mail; it makes nobody a reporter.
        """
        letter = _opened(raw)
        if isinstance(letter, Verdict):
            return letter
        who = [Reporter(letter.domain, letter.local.lower())]
        return _first(letter, who, self._others, _When(now, min(came or now, now), self._oldest), 1)


@dataclass(frozen=True, slots=True)
class _When:
    now: datetime
    came: datetime
    oldest: timedelta


def _opened(raw: bytes) -> Strict | Verdict:
    try:
        letter = opened(raw)
    except Unclear as unclear:
        return Verdict("fail", "", str(unclear))
    if not any(name.lower() == b"dkim-signature" for name, _ in letter.fields):
        return Verdict("none", "", "it bears no DKIM signature")
    return letter


def _first(letter: Strict, who: Sequence[Reporter], keys: Keys, when: _When, most: int = TRIED) -> Verdict:
    """The verdict by the first signature that is good, or else by the one that came nearest to that."""
    worse = Verdict("fail", "", f"no signature is of {_shown(letter.domain)}, or of who may sign for it")
    fit = [
        one for one in signatures(letter, SEEN) if any(reporter.signs(one.domain, letter.domain) for reporter in who)
    ]
    for one in fit[:most]:
        domain = _shown(one.domain)
        try:
            _check(letter, one, when)
            holds(letter, one, keys.at(one.key, when.now))
        except Refused as refused:
            if worse.state == "fail":
                worse = Verdict("fail", domain, f"the signature of {domain} {refused}")
        except Unreachable:
            worse = Verdict("temporary", domain, f"no name server tells the key of {domain}")
        else:
            sender = f"{letter.local}@{letter.domain}"
            return Verdict("pass", domain, f"signed by {domain}", covered(letter, one), sender)
    return worse


def _check(letter: Strict, one: Signature, when: _When) -> None:
    """All but the sums.

    Raises:
        Refused: the signature is no evidence, whether it is good or not.
    """
    one.check()
    missing = [name for name in ("from", "subject", "to") if name not in one.signed]
    if missing and not (missing == ["to"] and one.domain in WITHOUT_TO):
        raise Refused(f"does not cover {' and '.join(name.capitalize() for name in missing)}")
    at = one.at if one.at is not None else letter.date if "date" in one.signed else None
    if at is None:
        raise Refused("does not say of when it is")
    if at > when.came + SLACK:
        raise Refused("is of the future")
    if when.came - at > when.oldest:
        raise Refused(f"is older than {when.oldest.days} days")
    if one.until is not None and one.until < when.came:
        raise Refused("has run out")
    open_ = "content-type" not in one.signed and not letter.plain
    if open_ or ("content-transfer-encoding" not in one.signed and letter.coded):
        raise Refused("leaves open how the body is to be read")


def _shown(domain: str) -> str:
    """A name out of a letter, fit to be shown."""
    return re.sub(r"[^a-z0-9._-]", "?", domain[:100]) or "its From"
