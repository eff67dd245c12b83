"""Bounces of a corpus beside the labels that others gave them: recipients, codes, hard or soft, reasons; misses listed.

CORPUS=DIR names another corpus of the same layout; MISSES=5 lists only so many misses of each.

A reason is right by a table from our class alone to the reasons of sisimai that it covers (``COVERS``). The first of
each is what the class means when only one may be said; that figure is printed as strict, without a bar: sisimai has 34
reasons and we have 24 classes, so that one class honestly covers what are several reasons there.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from benchmarks._bar import bar
from collectors._bounce import Failure, bounced, outcomes
from collectors._mail import read
from monitor.meaning import Meaning, Permanence, ReplyClass

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED = Path(os.environ.get("MAILVANE_SHARED") or ROOT.parent / "shared")
CORPUS = Path(os.environ.get("CORPUS") or SHARED / "corpus")
LISTED = int(os.environ.get("MISSES") or 1_000)

COVERS: Mapping[ReplyClass, tuple[str, ...]] = {
    ReplyClass.INVALID_RECIPIENT: (
        "userunknown",
        "filtered",
        "hasmoved",
    ),  # filtered: "almost the same", it says itself
    ReplyClass.INACTIVE_MAILBOX: ("suspend", "filtered", "hasmoved"),
    ReplyClass.QUOTA: ("mailboxfull",),
    ReplyClass.BAD_DOMAIN: ("hostunknown", "notaccept", "networkerror"),
    ReplyClass.DNS_FAILURE: ("networkerror", "hostunknown"),
    ReplyClass.ROUTING: ("networkerror", "norelaying"),
    ReplyClass.PROTOCOL: ("syntaxerror", "notcompliantrfc", "contenterror"),
    ReplyClass.POLICY: ("rejected", "filtered", "policyviolation", "requireptr", "securityerror", "blocked"),
    ReplyClass.AUTHENTICATION: ("authfailure",),
    ReplyClass.SPAM_CONTENT: ("spamdetected", "contenterror", "virusdetected", "policyviolation"),  # forbidden files
    ReplyClass.SPAM_BLOCK: ("blocked", "filtered"),
    ReplyClass.REPUTATION_IP: ("blocked", "badreputation"),
    ReplyClass.REPUTATION_DOMAIN: ("badreputation", "rejected"),
    ReplyClass.LISTED: ("blocked", "rejected"),
    ReplyClass.RATE_LIMITED: ("speeding", "toomanyconn", "blocked", "badreputation"),
    # sisimai has no reason of its own for either.
    ReplyClass.GREYLISTED: ("blocked", "expired"),
    ReplyClass.TOO_MANY_RECIPIENTS: ("toomanyconn", "exceedlimit"),
    ReplyClass.MESSAGE_TOO_LARGE: ("mesgtoobig", "exceedlimit"),
    ReplyClass.EXPIRED: ("expired", "networkerror"),
    ReplyClass.SENDER_INVALID: ("rejected",),
    ReplyClass.TLS: ("failedstarttls",),
    ReplyClass.TRANSIENT: ("expired", "networkerror", "systemerror", "mailererror", "systemfull"),
    ReplyClass.HELD: (),
    ReplyClass.OTHER: ("undefined", "onhold", "mailererror"),
}
# Hard as sisimai has it, which is narrower than permanent: of these classes, where they are permanent.
HARD = frozenset((ReplyClass.INVALID_RECIPIENT, ReplyClass.BAD_DOMAIN))
_NOTHING = frozenset(("vacation", "delivered", "feedback"))
_OWN = 900  # sisimai's own third numbers, from here on, where nobody told a code


class Score:
    """How many of a kind are right, and which are not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.right = self.asked = 0
        self.misses: list[str] = []

    def add(self, right: bool, miss: str) -> None:  # noqa: FBT001  # the one thing that it counts
        """One more; ``miss`` tells it where it is wrong."""
        self.asked += 1
        self.right += right
        if not right:
            self.misses.append(miss)

    @property
    def share(self) -> float:
        """0 to 1; 1 of nothing."""
        return self.right / self.asked if self.asked else 1.0

    def tell(self, *, listing: bool) -> None:
        """The figure, and the misses."""
        print(f"bounces: {self.name}: {self.right} of {self.asked}")
        for miss in self.misses[: LISTED if listing else 0]:
            print(f"bounces:   {self.name} miss: {miss}")


def main() -> int:
    """The exit status: 1 when a bar is short."""
    if not (CORPUS / "truth" / "sisimai_ground_truth.csv").exists():
        print(f"bounces: skipped, no labels in {CORPUS}; name another corpus by CORPUS=DIR")
        return 0
    scores = {name: Score(name) for name in ("recipients", "reason", "reason_strict", "hard", "status", "flufl")}
    _sisimai(scores)
    _flufl(scores["flufl"])
    others = Score("others")
    _others(others)
    false = list(_false())
    for score in (*scores.values(), others):
        score.tell(listing=score.name != "reason_strict")
    for miss in false:
        print(f"bounces:   called a bounce: {miss}")
    print(f"bounces: the bar of the reason is by the table of classes; strictly {scores['reason_strict'].share:.3f}")
    holds = [
        bar("eval.reason", scores["reason"].share, "share", ">=0.93"),
        bar("eval.hard", scores["hard"].share, "share", ">=0.965"),
        bar("eval.status", scores["status"].share, "share", ">=0.97"),
        bar("eval.recipients", scores["recipients"].share, "share", ">=0.97"),
        bar("eval.flufl", scores["flufl"].share, "share", ">=0.98"),
        bar("eval.false_bounces", len(false), "mails", "==0"),
    ]
    return 0 if all(holds) else 1


def _sisimai(scores: Mapping[str, Score]) -> None:
    for row in _truth("sisimai_ground_truth.csv"):
        if not row["file"].startswith("bounce/") or not row["reason"] or set(row["reason"].split(";")) & _NOTHING:
            continue
        found = _outcomes(row["file"])
        wanted = [one for one in row["recipients"].split(";") if one]
        _addressees(scores["recipients"], row["file"], found, {one.lower() for one in wanted if not one.endswith("?")})
        by_name = {one.recipient.lower(): one for one in found}
        labels = zip(*(row[name].split(";") for name in ("reason", "hardbounce", "deliverystatus")), strict=True)
        for number, (reason, hard, status) in enumerate(labels):
            place = wanted[number].lower() if number < len(wanted) else ""
            one = by_name.get(place) or (found[number] if number < len(found) else None)
            _one(scores, row["file"], one, reason, hard, status)


def _addressees(score: Score, file: str, found: tuple[Failure, ...], wanted: set[str]) -> None:
    got = {one.recipient.lower() for one in found}
    score.add(got == wanted, f"{file}: {sorted(wanted)} are {sorted(got)}")


def _one(scores: Mapping[str, Score], file: str, one: Failure | None, reason: str, hard: str, status: str) -> None:
    if one is None:
        for name in ("reason", "reason_strict", "hard", "status"):
            scores[name].add(False, f"{file}: nothing found")
        return
    means = one.meaning
    decided = f"{means.name} {means.permanence} by {means.decided_by!r}"
    why = f"{decided}: {one.code} {one.status} {one.phase} {one.reply[:160]!r}"
    covers = COVERS[means.cls]
    scores["reason"].add(reason in covers, f"{file}: {reason} is {why}")
    scores["reason_strict"].add(reason == (covers or ("",))[0], f"{file}: {reason} is {means.cls}")
    scores["hard"].add((hard == "true") == _hard(means), f"{file}: hard {hard} ({reason}) is {why}")
    scores["status"].add(_same(one.status, status), f"{file}: {status} is {one.status or 'none'}: {one.reply[:120]!r}")


def _hard(means: Meaning) -> bool:
    return means.cls in HARD and means.permanence is Permanence.HARD


def _same(ours: str, theirs: str) -> bool:
    """Where nobody told a code sisimai makes one up, and we have none: then it is right to have none or x.0.0."""
    if theirs and int(theirs.rpartition(".")[2]) >= _OWN:
        return not ours or ours.endswith(".0.0")
    return ours == theirs


def _flufl(score: Score) -> None:
    for row in _truth("flufl_ground_truth.csv"):
        found = _outcomes(row["file"])
        for name, action in (("permanent", "failed"), ("temporary", "delayed")):
            wanted = {one.lower() for one in row[name].split(";") if one}
            told = [one for one in found if one.action == action]
            got = {one.recipient.lower() for one in told}
            known = got | {one.original.lower() for one in told if one.original}
            # It names an expanded address by both of its names, we by the last one and `original`.
            right = wanted <= known and (got <= wanted or len(got) == len(wanted))
            if wanted or got:
                score.add(right, f"{row['file']}: {name} {sorted(wanted)} are {sorted(got)}")
        if not row["permanent"] and not row["temporary"]:
            score.add(not found, f"{row['file']}: nothing is {len(found)}")


_REASONS: Mapping[str, Callable[[ReplyClass], bool]] = {
    "spam": lambda cls: (
        cls
        in {
            *(ReplyClass.SPAM_CONTENT, ReplyClass.SPAM_BLOCK, ReplyClass.LISTED, ReplyClass.REPUTATION_IP),
            *(ReplyClass.REPUTATION_DOMAIN, ReplyClass.POLICY, ReplyClass.RATE_LIMITED, ReplyClass.AUTHENTICATION),
        }
    ),
    "unknown": lambda cls: cls in {ReplyClass.INVALID_RECIPIENT, ReplyClass.INACTIVE_MAILBOX},
    "over_quota": lambda cls: cls is ReplyClass.QUOTA,
    "domain_error": lambda cls: cls in {ReplyClass.BAD_DOMAIN, ReplyClass.DNS_FAILURE, ReplyClass.ROUTING},
}


def _others(score: Score) -> None:
    """Two more collections, which say but part of the truth, and not always the same."""
    for row in _truth("other_bounce_ground_truth.csv"):
        found = _outcomes(row["file"])
        if row["is_bounce"]:
            told = found if row["is_bounce"] == "1" else [one for one in found if one.action == "failed"]
            score.add(bool(told) == (row["is_bounce"] == "1"), f"{row['file']}: bounce {row['is_bounce']}")
        if row["recipient"]:
            score.add(row["recipient"] in {one.recipient for one in found}, f"{row['file']}: not {row['recipient']}")
        if row["reason"]:
            classes = {one.meaning.cls for one in found}
            right = any(map(_REASONS[row["reason"]], classes))
            said = [(one.meaning.name, one.meaning.decided_by, one.reply[:100]) for one in found[:2]]
            score.add(right, f"{row['file']}: {row['reason']} is {said}")
        if row["dsn"] and not row["dsn"].endswith(".0.0"):
            score.add(row["dsn"] in {one.status for one in found}, f"{row['file']}: {row['dsn']}")


def _false() -> Iterator[str]:
    """Mails that are no bounces and are called so."""
    for file in not_bounces(CORPUS):
        if bounced(read((CORPUS / file).read_bytes())):
            yield file


def not_bounces(corpus: Path) -> Iterator[str]:
    """Mails of a corpus that are none, by their folder or by what a label says of them."""
    for folder in sorted(path for path in corpus.iterdir() if path.is_dir() and path.name not in ("bounce", "truth")):
        yield from (str(path.relative_to(corpus)) for path in sorted(folder.rglob("*")) if path.is_file())
    for row in _rows(corpus, "sisimai_ground_truth.csv"):
        if row["file"].startswith("bounce/") and set(row["reason"].split(";")) & _NOTHING:
            yield row["file"]
    for row in _rows(corpus, "other_bounce_ground_truth.csv"):
        if row["is_bounce"] == "0":
            yield row["file"]
    for row in _rows(corpus, "flufl_ground_truth.csv"):
        if not row["permanent"]:
            yield row["file"]
    for row in csv.DictReader((corpus / "MANIFEST.csv").open(newline="")):
        if "/non_bounces/" in row["path"] and (corpus / row["path"]).exists():
            yield row["path"]


def _truth(name: str) -> list[dict[str, str]]:
    return _rows(CORPUS, name)


def _rows(corpus: Path, name: str) -> list[dict[str, str]]:
    """The labels of files that are here; none where the table is not."""
    path = corpus / "truth" / name
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if (corpus / row["file"]).exists()]


@cache
def _outcomes(file: str) -> tuple[Failure, ...]:
    return outcomes(read((CORPUS / file).read_bytes()))


if __name__ == "__main__":
    sys.exit(main())
