"""``mailvane explain``: what a letter is that came to an address for bounces, and why it counts or does not."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collectors._arf import Complaint
    from collectors._mail import Mail
    from collectors._refusal import Failure

_LARGEST = 64 << 20  # bytes of one letter
_PIECE = 1 << 20
_NOTHING = {
    "reply": "an automatic reply, such as a vacation notice",
    "challenge": "a challenge: somebody's filter asks for a confirmation",
    "receipt": "a receipt",
    "delay": "a notice of delay that names no recipient",
    "feedback": "a feedback report that names nothing to go by",
}
_COUNTS = {
    "complaint": "a complaint",
    "unsubscribed": "a wish to be left in peace, no complaint",
    "not_spam": "the opposite of a complaint",
}


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each letter.")
def explain(files: tuple[Path, ...], *, as_json: bool) -> None:
    """Say whether a letter is a bounce, a complaint or neither, and what decided it.

    FILE is a letter (.eml, a file of a Maildir) or an mbox; - is standard input. Nothing is asked of anybody, kept or
    logged, so whether a complaint's sender is who it says stays open. Addresses are shown: the letter holds them.
    """
    failed = False
    for path in files:
        name = "standard input" if str(path) == "-" else str(path)
        try:
            number = 0
            for number, letter in enumerate(_letters(path), 1):
                _tell({"file": name, "letter": number, **explained(letter)}, as_json=as_json)
            if not number:
                _tell({"file": name, "letter": 0, "is": "nothing", "why": "it is empty"}, as_json=as_json)
        except OSError as error:
            failed = True
            click.echo(f"Error: {name} can't be read: {error.strerror}", err=True)
    if failed:
        sys.exit(1)


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    click.echo(json.dumps(told) if as_json else "\n".join(_lines(told)))


def explained(letter: bytes) -> dict[str, Any]:
    """What a letter is: ``is`` bounce, delay, complaint, report or nothing, with what goes with it."""
    from collectors import _arf, _bounce, _mail

    mail = _mail.read(letter)
    if complaint := _arf.complained(mail):
        return _complaint(complaint)
    if outcomes := _bounce.outcomes(mail):
        bounced = any(one.action == "failed" for one in outcomes)
        clues = _bounce.clues(mail)
        return {
            "is": "bounce" if bounced else "delay",
            "why": "mail was refused or given up" if bounced else "mail is late and still tried, which counts nothing",
            "message_id": clues.message_id,
            "recipients": [_recipient(one) for one in outcomes],
        }
    return {"is": "nothing", "why": _why(mail)}


def _complaint(complaint: Complaint) -> dict[str, Any]:
    from collectors._arf import kind_of

    kind = kind_of(complaint)
    return {
        "is": "complaint" if kind == "complaint" else "report",
        "why": _COUNTS.get(str(kind), "a report that is no word of a recipient, and counts nothing"),
        "type": complaint.type,
        "reporter": complaint.reporter,
        "sender": "by the recipient's own hand"
        if complaint.in_person
        else "a claim: only a good signature makes it count",
        "message_id": complaint.clues.message_id,
        "recipients": [{"recipient": one} for one in complaint.recipients],
    }


def _recipient(one: Failure) -> dict[str, Any]:
    meaning = one.meaning
    return {
        "recipient": one.recipient,
        "mailed_to": one.original,
        "outcome": str(one.kind),
        "class": meaning.name,
        "permanence": str(meaning.permanence),
        "suppresses": meaning.suppresses,
        "status": one.status,
        "code": one.code,
        "reply": one.reply,
        "refused_by": one.remote,
        "provider": one.provider,
        "decided_by": meaning.decided_by,
    }


def _why(mail: Mail) -> str:
    from collectors._automatic import automatic

    if not len(mail.headers) and not any(part.text.strip() for part in mail.parts):
        return "it is empty"
    kind = str(automatic(mail, "\n".join(part.own for part in mail.parts)))
    if kind in _NOTHING:
        return _NOTHING[kind]
    if mail.report:
        return f"a report ({mail.report}) that tells of no recipient"
    return "mail like any other: nothing in it tells of a delivery that failed"


def _lines(told: dict[str, Any]) -> Iterator[str]:
    letter = f", letter {told['letter']}" if told["letter"] else ""
    yield f"{told['file']}{letter}: {told['is']} ({told['why']})"
    for name, label in (("type", "type"), ("reporter", "reporter"), ("sender", "sender"), ("message_id", "message")):
        if told.get(name):
            yield f"  {label}: {_shown(told[name])}"
    for one in told.get("recipients", ()):
        yield f"  {_shown(one['recipient'] or one.get('mailed_to') or 'a recipient without a name')}"
        if "class" not in one:
            continue
        if one["mailed_to"] and one["mailed_to"] != one["recipient"]:
            yield f"    mailed to: {_shown(one['mailed_to'])}"
        codes = ", ".join(str(each) for each in (one["code"] or "", one["status"]) if each)
        stop = "; the address is no good" if one["suppresses"] else ""
        yield f"    {one['outcome']}, {one['permanence']}: {one['class']}{stop}"
        for label, text in (
            ("codes", codes),
            ("said", one["reply"]),
            ("by", one["refused_by"] or one["provider"]),
            ("decided by", one["decided_by"]),
        ):
            if text:
                yield f"    {label}: {_shown(text)}"


def _letters(path: Path) -> Iterator[bytes]:
    """The letters of a file: one, or those of an mbox."""
    from collectors._mbox import Splitter

    splitter = Splitter(_LARGEST)
    with click.open_file(str(path), "rb") as file:
        while piece := file.read(_PIECE):
            for letter, _ in splitter.push(piece):
                yield letter
        last = [letter for letter, _ in splitter.finish()]
    yield from last
    if splitter.dropped:
        raise OSError(errno.EFBIG, f"{splitter.dropped} of its letters are over {_LARGEST >> 20} MiB")


def _shown(text: str) -> str:
    """A stranger's text in one line, without what would command a terminal."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))[:500]
