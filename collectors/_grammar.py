"""The lines of a Postfix log as one regular expression, which reads a whole chunk at once."""

from __future__ import annotations

import re
from collections.abc import Iterable

from collectors._stamps import STAMP
from monitor.model import MARKER

# A tag is "program[pid]:"; a relay of Solaris adds its message id. Two lines that syslog daemons write have none.
_PID = r"(?:\[[^\]\n]*+\])?+:(?: \[ID \d++ [\w.]++\])?+"
_TAG = rf"(?:[^\s\[:]++{_PID}|last message repeated|message repeated|-- MARK --)"
_QUEUE_ID = r"[0-9A-Za-z]{5,}+"
_PLAIN = rf"{STAMP} \S++ {_TAG}"
# Addresses stand in their quoted form, so a quoted local part may hold what looks like the rest of a line.
_ADDRESS = r"<[^>\"\n]*+(?:\"(?:[^\"\\\n]|\\.)*+\"[^>\"\n]*+)*+>"
_CODE = r"(?:delivery temporarily suspended: )?+(?:host \S++ (?:said|refused to talk to me): )?+([245]\d\d)[ -]"
_OUTCOME = (
    rf"to=({_ADDRESS}|[^<,\n]++), (?:orig_to=[^\n]*?, (?=relay=))?+relay=([^,\n]++), (?:conn_use=\d++, )?+"
    r"delay=(-?\d{1,9}(?:\.\d{1,6})?+), [^\n]*?dsn=(\d\.\d{1,3}\.\d{1,3}), status=([A-Za-z-]++)"
    rf"(?: \((?:(?={_CODE})|)([^\n]*+))?+"
)
_TAKEN_UP = r"from=<([^\n]*?)>, size=\d++, nrcpt=\d++ \(queue active\)"
# What smtpd refuses for now in our words: they stand where it puts the text of whoever refused, behind the first thing
# in angle brackets. A recipient's address stands within these, without the quotes that its local part may need. So only
# a line whose addresses hold no such bracket is believed: all brackets are then smtpd's own, and none can be forged.
_NAME = r"<([^<>\n]*+)>"
_REFUSED = (
    r"reject: (?:MAIL|RCPT|DATA|BDAT|END-OF-MESSAGE) from \S++ 4\d\d 4\.\d{1,3}\.\d{1,3} <[^<>\n]*+>: "
    rf"[A-Z](?:[a-z]++ [a-z]++|[a-z-]++) rejected: {re.escape(MARKER)}"
)

PLAIN = re.compile(_PLAIN, re.ASCII)
STAMPED = re.compile(rf"({STAMP}) (\S++) ", re.ASCII)
ABOUT_A_RECIPIENT = re.compile(rf"{_PLAIN} {_QUEUE_ID}: to=", re.ASCII)
EXPIRED = re.compile(r"from=<[^\n]*>, status=(?:force-)?expired")
USER = re.compile(r"client=[^\n]*?, sasl_username=([^,\n]++)")
HEADER = re.compile(r"[a-z-]+: header ([^:\s]+):([^\n]*) from [^\s;]+; from=<")
# Code, dsn, reply, sender, recipient, SASL user. Of a message with many recipients, later stages name none.
HELD = re.compile(
    rf"(?={_REFUSED})[^<]* (\d+) ([\d.]+) <[^>]*>: [^:]*: ([^<>]*); from={_NAME}(?: to={_NAME})? proto=\S+"
    rf"(?: helo=<[^<>]*>)?(?:,? sasl_username=(?:{_NAME}|([^<>,\s]+)))?",
    re.ASCII,
)


def grammar(*, users: bool, headers: Iterable[str]) -> re.Pattern[str]:
    """Finds the lines that matter in a text of whole lines; ``users``/``headers``: these matter too.

    Each match goes on where the last one ended, and its groups are: stamp, host, program, queue id; recipient, relay,
    delay, dsn, status, code, reply of an outcome; the sender of a message that the queue manager takes up; another
    line about a message ("removed" and what ``EXPIRED``, ``HELD``, ``USER``, ``HEADER`` match); a line of another
    shape, with or without its end. Without a queue id and without such a line, the text is at its end.
    """
    names = "|".join(re.escape(name) for name in headers)
    told = [r"client=[^\n]*?sasl_username="] if users else []
    told += [rf"[a-z-]++: header (?i:{names}):"] if names else []
    starts = "|".join(["to=", "from=<", "removed", _REFUSED, *told])
    others = "|".join(["removed", r"from=<[^\n]*>, status=(?:force-)?expired", _REFUSED, *told])
    # The lines that do not matter are passed over within the expression: a match for each would be half of the time.
    return re.compile(
        rf"(?:{_PLAIN}(?! {_QUEUE_ID}: (?:{starts}))[^\n]*+\n)*+"
        rf"(?:({STAMP}) (\S++) ([^\s\[:]++){_PID} ({_QUEUE_ID}): (?:{_OUTCOME}|{_TAKEN_UP}|((?:{others})[^\n]*+))\n"
        r"|([^\n]++\n?+|\n)|\Z)",
        re.ASCII,
    )
