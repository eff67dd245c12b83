"""What the replies say with which mail is held. Applications and people read them, and our own log reader."""

from __future__ import annotations

from monitor.model import MARKER, Lease
from monitor.scrub import scrub

_LONGEST = 120  # characters of a scope: Postfix cuts a reply's line, and names come from strangers


def refusal(lease: Lease) -> str:
    """The reply of a server that does not take a message now: printable ASCII, with no address in it."""
    return f"450 4.7.1 {MARKER}: {_plain(str(lease.scope))} {_until(lease)}"


def waiting(lease: Lease) -> str:
    """The destination that keeps a message in Postfix's queue: its ``retry`` service, and what that says."""
    return f"retry:4.7.0 {MARKER} {_until(lease)}"


def _until(lease: Lease) -> str:
    # The day too where it need not be today's; a clock would know, but all must give the same answer.
    day = "" if lease.until.date() == lease.since.date() else f"{lease.until:%Y-%m-%d} "
    return f"until {day}{lease.until:%H:%M} UTC"


def _plain(text: str) -> str:
    # Angle brackets too: in a log they are Postfix's own, by which our reader knows its lines.
    shown = scrub(text, _LONGEST)
    return "".join(letter if " " <= letter <= "~" and letter not in "<>" else "?" for letter in shown)
