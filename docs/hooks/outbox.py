"""An application's own queue: mail that is held waits here, on disk, and is asked about again. None is lost.

    def send(mail, recipient):
        with smtplib.SMTP("127.0.0.1") as server:
            server.send_message(mail, to_addrs=[recipient])

    with mailvane_client.Client("http://127.0.0.1:8026") as brake:
        outbox = Outbox("outbox.sqlite", brake, send)
        outbox.put(mail, "a@example.net", tenant="s07", segment="lapsed", stream="marketing", provider="gmail")
        while True:
            outbox.turn(time.time())
            time.sleep(1)

A message may be forgotten by whoever wrote it as soon as ``put`` returns. It leaves the disk when the mail server has
taken it: a crash in between sends it twice, and never not at all.
"""

from __future__ import annotations

import json
import random
import smtplib
import sqlite3
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path

from mailvane_client import Client

ASK_AGAIN = 60  # seconds at most: a person may end a pause long before its time
BACK_OFF = (60, 300, 900, 3600)  # seconds after the first, second, … temporary refusal
TABLE = """
CREATE TABLE IF NOT EXISTS mail (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL, labels TEXT NOT NULL, recipient TEXT NOT NULL, content BLOB NOT NULL,
  due REAL NOT NULL DEFAULT 0, was_held INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0, refused TEXT
)
"""


class Outbox:
    """Mail on its way out, one recipient a row, for one thread. ``send`` hands one to the mail server, or raises.

    ``burst`` is how many of those that were held may go in one turn: a pause's end is no reason to flood a provider.
    """

    def __init__(
        self, path: str | Path, brake: Client, send: Callable[[EmailMessage, str], object], burst: int = 10
    ) -> None:
        self._brake, self._send, self._burst = brake, send, burst
        self._store = sqlite3.connect(path)
        self._store.execute(TABLE)

    def close(self) -> None:
        """What waits stays on disk."""
        self._store.close()

    def put(self, mail: EmailMessage, recipient: str, **labels: str) -> None:
        """Take a message over; it is on disk when this returns."""
        if "Message-ID" not in mail:
            mail["Message-ID"] = make_msgid()
        key = f"{mail['Message-ID']} {recipient}"  # the same at each try, so that a throttle answers the same
        values = (key, json.dumps(labels), recipient, mail.as_bytes(policy=policy.SMTP))
        with self._store:
            self._store.execute("INSERT INTO mail (key, labels, recipient, content) VALUES (?, ?, ?, ?)", values)

    def turn(self, now: float) -> None:
        """Try what is due at ``now`` (POSIX seconds): first what was never held, then some of what was."""
        due = "SELECT id, key, labels, was_held FROM mail WHERE due <= ? AND refused IS NULL ORDER BY was_held, id"
        released = 0
        for number, key, labels, was_held in self._store.execute(due, (now,)).fetchall():
            answer = self._brake.check(**json.loads(labels), key=key)
            if answer.held:
                # Not all at the same moment, and not only at the end: the answer may be another one before.
                wait = min(answer.ttl or ASK_AGAIN, ASK_AGAIN) * random.uniform(0.9, 1.1)  # noqa: S311 - no secret
                self._change(number, "due = ?, was_held = 1", now + wait)
            elif not was_held or released < self._burst:
                released += was_held
                self._try(number, now)

    def counts(self) -> tuple[int, int]:
        """How many wait, and how many were refused for good and need somebody's look."""
        waiting, refused = self._store.execute("SELECT count(*) - count(refused), count(refused) FROM mail").fetchone()
        return waiting, refused

    def _try(self, number: int, now: float) -> None:
        asked = self._store.execute("SELECT content, recipient, tries FROM mail WHERE id = ?", (number,))
        content, recipient, tries = asked.fetchone()
        try:
            self._send(message_from_bytes(content, policy=policy.SMTP), recipient)
        except (smtplib.SMTPException, OSError) as error:
            if _for_good(error):
                self._change(number, "refused = ?", str(error))
            else:
                wait = BACK_OFF[min(tries, len(BACK_OFF) - 1)]
                self._change(number, "due = ?, tries = tries + 1", now + wait)
        else:
            with self._store:
                self._store.execute("DELETE FROM mail WHERE id = ?", (number,))

    def _change(self, number: int, what: str, value: float | str) -> None:
        with self._store:
            self._store.execute(f"UPDATE mail SET {what} WHERE id = ?", (value, number))  # noqa: S608 - our own words


def _for_good(error: Exception) -> bool:
    """Whether the mail server said that trying again is of no use; a lost connection is no such word."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500
