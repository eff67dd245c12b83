"""Passwords: which are too weak, their Argon2id hashes (RFC 9106), and how many are tried at once."""

from __future__ import annotations

import re
import secrets
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from monitor.errors import UserError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST, LONGEST = 12, 200
AT_ONCE = 2  # hashes: each takes 64 MiB and a processor
WAITING = 16  # for their turn
OF_ONE = 4  # of those, from one address
PATIENCE = 5.0  # seconds that one waits for its turn
# What remains of a password without them is what must be hard to guess.
_WORST = (
    "password", "passw0rd", "p@ssword", "p@ssw0rd", "passwort", "haslo", "mailvane", "deliverability", "welcome",
    "letmein", "changeme", "iloveyou", "administrator", "admin", "root", "login", "monitor", "secret", "dragon",
    "monkey", "football", "baseball", "sunshine", "princess", "superman", "batman", "trustno1", "master", "shadow",
    "qwertyuiop", "qwerty", "azerty", "asdfghjkl", "asdf", "zxcvbnm", "1q2w3e4r", "1qaz2wsx", "q1w2e3r4", "spring",
    "summer", "autumn", "winter", "january", "december", "default", "temporary", "company",
)  # fmt: skip
_LEFT, _DIFFERENT = 7, 5  # characters that must be left, and different ones among them
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that looks like another
_GROUPS, _GROUP = 6, 5  # 148 bits: nothing that one could guess, and short enough to type from paper


class Crowded(Exception):  # noqa: N818  # an answer, not a fault
    """Too many sign in at once."""


def checked(name: str, password: str) -> str:
    """The password of ``name`` as it is hashed (NFKC, so that each keyboard writes the same).

    Raises:
        UserError: it is too weak; the message does not hold it.
    """
    text = plain(password)
    if not SHORTEST <= len(text) <= LONGEST:
        raise UserError(f"a password has {SHORTEST} to {LONGEST} characters: take four words, or let one be drawn")
    left = text.lower()
    parts = re.split(r"[^\w]+", name.lower())
    for word in sorted((name.lower(), "".join(parts), *parts, *_WORST), key=len, reverse=True):
        left = left.replace(word, "") if len(word) > 2 else left
    kept = [
        char
        for at, char in enumerate(left)
        if not char.isspace() and (at == 0 or abs(ord(char) - ord(left[at - 1])) > 1)
    ]  # neither 1234 nor aaaa
    if len(kept) < _LEFT or len(Counter(kept)) < _DIFFERENT:
        raise UserError("the password is too easily guessed: take four words, or let one be drawn")
    return text


def plain(password: str) -> str:
    """The password as it is hashed, one character longer than is allowed at most."""
    return unicodedata.normalize("NFKC", password[: LONGEST + 1])[: LONGEST + 1]


def drawn() -> str:
    """A new password of 148 random bits, in groups that a person can type from paper."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))


def hashed(text: str) -> str:
    """The hash of what ``checked`` gave."""
    return _hasher().hash(text)


def right(kept: str | None, password: str) -> bool:
    """Whether the password is that of the hash; as slow where there is none."""
    from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415  # as below

    nobodys = _nobodys()  # also where it is not needed, so that the first unknown name is not told by its time
    try:
        _hasher().verify(kept or nobodys, plain(password))
    except (VerificationError, InvalidHashError):
        return False
    return kept is not None


def stale(kept: str) -> bool:
    """Whether the hash was made with other parameters than a new one would be."""
    return _hasher().check_needs_rehash(kept)


class Turns:
    """Who may hash now. Memory and processors are few, so others wait a moment, or are told to come again."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._free = threading.BoundedSemaphore(at_once)
        self._most = at_once + waiting
        self._places: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def of(self, place: str) -> Iterator[None]:
        """A turn for somebody at ``place``, who can't take all of them.

        Raises:
            Crowded: there is none.
        """
        with self._lock:
            if self._places[place] >= OF_ONE or self._places.total() >= self._most:
                raise Crowded
            self._places[place] += 1
        try:
            if not self._free.acquire(timeout=self._patience):
                raise Crowded
            try:
                yield
            finally:
                self._free.release()
        finally:
            with self._lock:
                self._places[place] -= 1
                self._places += Counter()  # those at zero go


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher  # noqa: PLC0415  # only who signs somebody in needs it

    return PasswordHasher()


@cache
def _nobodys() -> str:
    return _hasher().hash(secrets.token_urlsafe())
