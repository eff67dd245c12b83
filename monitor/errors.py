"""What the command line tells in one line rather than with a traceback."""

from __future__ import annotations


class UserError(Exception):
    """The person at the keyboard can mend it; the message says how."""
