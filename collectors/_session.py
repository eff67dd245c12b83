"""SMTP sessions that prose quotes: what was sent, and what was answered."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from collectors._addresses import ADDRESS, address, tidy

_REPLY = 1_500  # characters of what is said of one recipient
HEARD = re.compile(r"^\s{0,20}(?:<<<:?|<--|received >>>|response:)\s{0,9}(?=\S)", re.IGNORECASE)
SENT = re.compile(
    r"^\s{0,20}(?:>>>:?|-->|sent <<<|command:)\s{0,9}"
    r"((?:mail|rcpt|data|helo|ehlo|lhlo|bdat|auth|rset|quit|vrfy)\b.{0,400})",
    re.IGNORECASE,
)
_REPLIED = re.compile(rf"^\s{{0,20}}[45]\d\d[ -](?:\d\.\d{{1,3}}\.\d{{1,3}} )?<?({ADDRESS.pattern})>?\.\.\.\s*(.*)$")
_CLOSING = re.compile(r"^\s{0,9}[45]\d\d[ -][45]\.\d\.\d{1,3} [a-z].*$", re.IGNORECASE)
_TALKING = re.compile(r"^[\s.]{0,9}while talking to", re.IGNORECASE)


@dataclass(slots=True)
class Session:
    """Replies of an SMTP session that a prose quotes: by recipient, and in their order."""

    by_recipient: dict[str, tuple[str, str]] = field(default_factory=dict)
    replies: list[tuple[str, str]] = field(default_factory=list)  # command and reply


def session(lines: list[str]) -> Session:
    """The SMTP session that a prose quotes: ">>> RCPT To:<…>", "<<< 550 …", "550 <…>... User unknown"."""
    found = Session()
    command, about, heard = "", "", list[str]()
    for line in lines:
        if "<" not in line and ">" not in line and ":" not in line and "." not in line:
            continue
        if told := SENT.match(line):
            command, heard = told[1][:4].lower(), []
            about = address(told[1]) if command == "rcpt" else ""
        elif told := HEARD.match(line):
            if line[told.end()] in "23":
                heard = []
                continue
            heard.append(line[told.end() :].strip())
            found.replies.append((command, joined(heard)))
            if about:
                found.by_recipient[about.lower()] = command, joined(heard)
        elif replied := _REPLIED.match(line):
            found.by_recipient.setdefault(tidy(replied[1]).lower(), (command, joined(heard) or line.strip()))
            command, about, heard = "", "", []
        elif not found.replies and _CLOSING.match(line):
            found.replies.append((command, line.strip()))
        elif _TALKING.match(line):
            command, about, heard = "", "", []
    return found


def joined(lines: list[str]) -> str:
    """The lines as one, as many as say something of one recipient."""
    return " ".join(" ".join(lines[:60]).split())[:_REPLY]
