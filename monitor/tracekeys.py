"""The file with the keys of ``X-Mailvane``: made, rotated, and read anew when it has changed.

A key a line, with the time when it was made: the first signs, those below it are still accepted. Senders get a copy.
"""

from __future__ import annotations

import base64
import os
from datetime import datetime
from pathlib import Path

from monitor.errors import UserError
from monitor.files import write
from monitor.hiding import hide
from monitor.tracing import LASTS, Key, Keys

_HEAD = "# mailvane trace: the first key signs, those below it are still accepted; whoever has one can vouch for mail\n"
_SIZE = 32
_LARGEST = 64 * 1024


class KeyFile:
    """The keys in a file that may be missing, and may change while we run. ``trouble`` is what is wrong with it now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble = ""
        self._seen: tuple[int, ...] = ()
        self._keys = Keys()

    def current(self) -> Keys:
        """The keys as the file has them; those of before while it can't be read, none where there is no file."""
        try:
            state = self.path.stat()
        except FileNotFoundError:
            self._seen, self._keys, self.trouble = (), Keys(), ""
            return self._keys
        except OSError as error:
            self.trouble = f"{self.path} can't be read: {error.strerror}"
            return self._keys
        seen = (state.st_ino, state.st_mtime_ns, state.st_size, state.st_mode, state.st_uid)
        if seen != self._seen:
            self._seen, self.trouble = seen, ""
            try:
                self._keys = Keys(read(self.path))
            except UserError as error:
                self.trouble = str(error)
        return self._keys


def read(path: Path) -> tuple[Key, ...]:
    """The keys in the file, the newest first.

    Raises:
        UserError: it can't be read, others may read it, or a line of it is no key.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            content = file.read(_LARGEST)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}. See mailvane trace key") from error
    if state.st_mode & 0o077:
        raise UserError(f"others may read {path}, and so could vouch for mail that is not ours: chmod 600")
    lines = enumerate(content.decode("ascii", "replace").splitlines(), 1)
    return tuple(_key(line, f"{path}, line {at}") for at, line in lines if line.strip() and not line.startswith("#"))


def make(path: Path, now: datetime) -> Key:
    """A new file with one key.

    Raises:
        UserError: there is such a file.
    """
    if path.exists():
        raise UserError(f"{path} is there already: mailvane trace key --rotate puts a new key into it")
    return _put(path, (), now)


def rotate(path: Path, now: datetime, *, forget: bool = False) -> Key:
    """A new key before those that are there; one that ended so long ago that nothing it signed counts is dropped.

    ``forget``: all before it are dropped, since somebody else may have them.

    Raises:
        UserError: there is no such file, or it is no good.
    """
    before = read(path)
    ended = (now, *(key.made for key in before))  # a key signs until the next one is made
    kept = () if forget else tuple(key for key, end in zip(before, ended, strict=False) if now - end <= LASTS)
    return _put(path, kept, now)


def _put(path: Path, older: tuple[Key, ...], now: datetime) -> Key:
    key = Key(os.urandom(_SIZE), now.replace(microsecond=0))
    lines = (f"{one.made.isoformat()} {one.text}\n" for one in (key, *older))
    try:
        write(path, "".join((_HEAD, *lines)).encode())
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error
    hide(key.text)
    return key


def _key(line: str, where: str) -> Key:
    made, _, text = line.strip().partition(" ")
    try:
        key = Key(base64.b64decode(text.strip().encode("ascii") + b"=", b"-_", validate=True), _moment(made))
    except ValueError as error:
        raise UserError(f"{where}: no key of mailvane trace") from error
    if len(key.secret) != _SIZE:
        raise UserError(f"{where}: a key has {_SIZE} bytes")
    hide(key.text)
    return key


def _moment(text: str) -> datetime:
    made = datetime.fromisoformat(text)
    if made.tzinfo is None:
        raise ValueError("a time without an offset")
    return made
