"""Why one recipient failed, out of what a report and its prose say: reply, codes, stage, host, meaning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from collectors._addresses import host
from collectors._dsn import Told
from collectors._phrases import EXPIRED, Phrases
from collectors._prose import Said
from collectors._provider import provider_of
from collectors._reply import classify
from monitor.meaning import Meaning, Permanence, ReplyClass
from monitor.model import Kind

_DSN = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
_CODE = re.compile(r"(?<![\d.:/\[-])([45][0-5]\d)(?=[ \-:;#]|$)(?!\.)")
# A gateway's own words around the reply that it got, which it quotes: Cisco's, and Exchange's ``->``.
_WRAPPED = re.compile(r"^\s*[45]\.\d\.\d{1,3} - [A-Za-z ]{3,60}(?=[45]\d\d-')")
_WORDS = re.compile(r"[^\W\d_]{2}|[45]\d\d")
_UNROUTED = re.compile(r"unrouteable address\b", re.IGNORECASE)
_NOBODY = ("5.1.", "4.1.")  # enhanced codes of addresses
# What "user unknown" may mean, by the stage at which it is said.
_BY_STAGE = frozenset((ReplyClass.INVALID_RECIPIENT, ReplyClass.INACTIVE_MAILBOX, ReplyClass.POLICY))
_REMOTE = (
    re.compile(r"\bhost:? ([A-Za-z0-9][A-Za-z0-9.-]{2,250})\s{0,3}[\[:(]"),
    re.compile(r"while talking to ([A-Za-z0-9][A-Za-z0-9.-]{2,250})"),
    re.compile(r"\bby ([A-Za-z0-9][A-Za-z0-9-]{0,60}\.[A-Za-z0-9.-]{2,200})\. ?\["),
    re.compile(
        r"(?:^|\s)([A-Za-z0-9][A-Za-z0-9-]{0,60}\.[A-Za-z0-9.-]{2,200}) ?\[[0-9a-f.:]{3,45}\] (?:did|said|respond)"
    ),
)
# The stage of the SMTP session that was refused, as servers and gateways name it; the first that is found decides.
_PHASES = (
    ("data", Phrases("end of data | final dot | after i sent the message | message body | (state 18 | (state 17")),
    (
        "data",
        Phrases("final data | data command | to data | after data | data send | smtp data | [data] | text command"),
    ),
    (
        "rcpt",
        Phrases("rcpt | not like recipient | rejected recipient | (state 14 | (state 13 | recipient address rejected"),
    ),
    ("mail", Phrases("after mail from | to mail from | our mail from | mail_from] | sender was rejected")),
    ("helo", Phrases("helo command | (in reply to helo | (in reply to ehlo | my name was rejected | helo/ehlo")),
    ("connect", Phrases("initial connection | refused to talk | connection established | smtp greeting")),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One recipient of whom a report tells: ``bounced`` or ``expired`` (given up after deferrals).

    ``recipient`` is as the reporting server has it; ``original`` is the address that was mailed to, where a report
    tells that it was another. ``status`` is an enhanced code (RFC 3463) and ``code`` an SMTP reply code, as far as
    they are told: "" and 0 else. ``remote`` is the host that refused, ``at`` when (POSIX µs; 0 unknown). ``action`` is
    "failed", or "delayed" where the message still waits (kind ``deferred``). ``phase`` is the stage of the session
    that was refused: connect, helo, mail, rcpt or data.
    """

    recipient: str
    kind: Kind
    action: str
    status: str
    code: int
    reply: str
    meaning: Meaning
    remote: str = ""
    provider: str = ""
    at: int = 0
    original: str = ""
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """The mail that tells: when it was written (POSIX µs), by whose domain, and any text that may name the stage."""

    at: int = 0
    domain: str = ""
    stage: str = ""


def failure(recipient: str, action: str, told: Told, aside: Callable[[], Said | None], source: Source) -> Failure:
    """What came of one recipient; ``aside`` is what prose says, asked for only where the report is not enough."""
    said = aside() if not _WORDS.search(told.diagnostic) else None
    best, phase, remote = _meant(told, said, source.stage)
    if best.doubtful and said is None and (said := aside()):
        best, phase, remote = _meant(told, said, source.stage)
    kind = _kind(action, told, best, f"{best.text} {said.reply if said else ''}")
    meaning = best.meaning
    if meaning.cls is ReplyClass.INVALID_RECIPIENT:
        if _nowhere(best.text, recipient, source.domain):
            meaning = replace(meaning, cls=ReplyClass.BAD_DOMAIN)
        elif kind is Kind.EXPIRED and best.status.startswith(_NOBODY):
            meaning = replace(meaning, permanence=Permanence.HARD)  # unknown for now, each time for days
    original = told.original or (said.alias if said else "")
    return Failure(
        recipient=recipient,
        kind=kind,
        action=action,
        status=best.status,
        code=best.code,
        reply=best.text,
        meaning=meaning,
        remote=remote,
        provider=provider_of(remote) if remote else "",
        at=told.at or source.at,
        original=original if original.lower() != recipient.lower() else "",
        phase=phase,
    )


@dataclass(frozen=True, slots=True)
class _Reply:
    text: str
    code: int
    status: str
    meaning: Meaning
    doubtful: bool = False  # more words might say more


def _meant(told: Told, said: Said | None, stage: str) -> tuple[_Reply, str, str]:
    """The reply that says most, the stage, and the host that refused."""
    texts = list(_candidates(told, said)) or [("", "")]
    near = " ".join(
        text for text, _ in texts[:2]
    )  # the second is where a notice quotes the reply again, with its stage
    phase = (said.command if said else "") or phase_of(near) or phase_of(stage)
    remote = told.remote or next((host(found[1]) for one in _REMOTE if (found := one.search(near))), "")
    best: _Reply | None = None
    for text, asked in texts:
        code, own = codes(text)
        status = prefer(status_of(told.status), own)
        means = partial(classify, asked, code=code, dsn=status, provider=provider_of(remote) if remote else "")
        meaning = means(phase=phase)
        if best is None or (best.meaning.cls is ReplyClass.OTHER and meaning.cls is not ReplyClass.OTHER):
            by_stage = meaning.cls in _BY_STAGE and means(phase="rcpt").cls is ReplyClass.INVALID_RECIPIENT
            if by_stage and said and "account" in said.above:
                meaning = _of_notice(said.above) or meaning
            doubtful = meaning.cls is ReplyClass.OTHER or (by_stage and not phase and not status.startswith(_NOBODY))
            best = _Reply(text, code, status, meaning, doubtful)
        if best.meaning.cls is not ReplyClass.OTHER:
            break
    assert best is not None  # noqa: S101  # there is always one text
    if best.meaning.cls is ReplyClass.INVALID_RECIPIENT:
        best = replace(best, meaning=_surely(best, phase, told))
    return best, phase, remote


def _of_notice(above: str) -> Meaning | None:
    """What the notice around "user unknown" knows better: that the account is disabled, or full."""
    meaning = classify(above)
    return meaning if meaning.cls in {ReplyClass.INACTIVE_MAILBOX, ReplyClass.QUOTA} else None


def _surely(best: _Reply, phase: str, told: Told) -> Meaning:
    """How sure it is that nobody is there.

    Soft, in doubt: a report of x.0.0 with no stage and a reply without the address; and "mailbox unavailable" alone,
    which by RFC 5321 section 4.2.3 is also said for reasons of policy.
    """
    meaning, status = best.meaning, best.status
    if phase == "rcpt" or status.startswith(_NOBODY):
        return meaning
    vague = told.status and status.endswith(".0.0") and "@" not in best.text
    vague = vague or (not status and "mailbox unavailable" in best.text.lower())
    return replace(meaning, permanence=Permanence.SOFT) if vague else meaning


def _nowhere(text: str, recipient: str, writer: str) -> bool:
    """Whether Exim's words for an address that it can't route are of a domain: it has no other for those of others."""
    domain = recipient.rpartition("@")[2].lower()
    own = writer == domain or writer.endswith(f".{domain}") or domain.endswith(f".{writer}")
    return _UNROUTED.match(text) is not None and not own


def _candidates(told: Told, said: Said | None) -> Iterator[tuple[str, str]]:
    """Texts that may say why, the surest first; each with the words for it that are understood."""
    if _WORDS.search(told.diagnostic):
        yield told.diagnostic, told.diagnostic
    if comment := told.status.partition("(")[2].strip(" )"):
        yield comment, comment
    if said and said.means:
        yield said.reply or said.above, said.means
    elif said:
        # Some give their reason first and the names below it.
        first = codes(said.reply) == (0, "") and codes(said.above) != (0, "")
        for text in (said.above, said.reply) if first else (said.reply, said.above):
            if text:
                yield text, text


def codes(text: str) -> tuple[int, str]:
    """The SMTP code and the enhanced code of a reply, the first it holds; 0 and "" where it has none.

    Those of a gateway that quotes the reply are passed over.
    """
    start = found.end() if (found := _WRAPPED.match(text)) else 0
    code, status = _CODE.search(text, start), _DSN.search(text, start)
    return int(code[1]) if code else 0, status[0] if status else ""


def prefer(reported: str, own: str) -> str:
    """Of the status that a report gives and the one within the reply, the one that says more.

    A report's is often its writer's guess: x.0.0, or the 4.4.7 of a message whose time was over.
    """
    if not own or own[0] == "2":
        return reported
    if not reported or reported.endswith(".0.0") or reported in ("4.4.7", "5.4.7"):
        return own
    return reported if own.endswith(".0.0") else own


def status_of(text: str) -> str:
    """The enhanced code in a Status field, "" where it has none; some put comments or SMTP codes there."""
    found = _DSN.search(text)
    return found[0] if found else ""


def phase_of(text: str) -> str:
    """The stage of the session that a text names, "" where it names none."""
    lower = text.lower()
    return next((name for name, phrases in _PHASES if phrases.among(lower)), "")


def _kind(action: str, told: Told, best: _Reply, text: str) -> Kind:
    if action == "delayed":
        return Kind.DEFERRED
    temporary = status_of(told.status).startswith("4.") or best.status.startswith("4.")
    given_up = temporary or told.action == "expired" or best.meaning.cls is ReplyClass.EXPIRED
    return Kind.EXPIRED if given_up or EXPIRED.among(text.lower()) else Kind.BOUNCED
