"""The message that a report is about, out of the headers that came back with it."""

from __future__ import annotations

from collectors._addresses import address
from collectors._dsn import Report, report
from collectors._instants import instant
from collectors._mail import Headers, Mail
from monitor.model import Clues

# As ``collectors._postfix`` names messages whose queue id may come again: by the week of arrival, with its turn.
_WEEK = 7 * 86_400 * 1_000_000
_TURN = (3 * 86_400 + 3 * 3600 + 37 * 60 + 11) * 1_000_000


def clues(mail: Mail) -> Clues:
    """What the mail tells of the message that it is about; ``recipient`` is left to whoever knows which one."""
    original = mail.original or Headers()
    return Clues(
        token=original.get("x-mailvane"),
        feedback_id=original.get("feedback-id"),
        unsubscribe=original.get("list-unsubscribe"),
        return_path=_came_to(mail) or address(original.get("return-path")),
        message_id=original.get("message-id").strip("<> "),
        queue_id=_queue_id(report(mail)),
        sender=address(original.get("from")),
        sent=instant(original.get("date")),
    )


def _came_to(mail: Mail) -> str:
    """The address to which the report came: the envelope's, if whoever delivered it has noted that."""
    for name in ("x-original-to", "envelope-to", "x-envelope-to", "delivered-to", "to"):
        if one := address(mail.headers.get(name)):
            return one
    return ""


def _queue_id(found: Report) -> str:
    """The message as the log of a Postfix names it, host/queue id; "" where the report names none."""
    if not found.queue_id or not found.reporter:
        return ""
    name = f"{found.reporter}/{found.queue_id}"
    return name if "z" in found.queue_id else f"{name}@{(found.arrived - _TURN) // _WEEK}"
