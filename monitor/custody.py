"""Who keeps the key of the keyring: from ``[keyring]`` to the wrapping key, asked of a command where it says so."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

from monitor.errors import UserError
from monitor.settings import Custody
from monitor.wrapping import WrappingKey

IN_FILE = Custody()
SECONDS = 30.0  # that a command may take: a KMS answers within one, or is down
_LONGEST = 4096  # bytes that it may print


def wrapping(custody: Custody) -> WrappingKey | None:
    """The key that wraps the keyring; None where it rests in plain.

    Raises:
        UserError: there is none, or the command that should print it did not. Nothing that it said is in the message.
    """
    return None if custody.custody == "file" else configured(custody)


def configured(custody: Custody) -> WrappingKey:
    """The wrapping key that ``[keyring]`` leads to, whether the keyring is to rest under it or not.

    Raises:
        UserError: as for ``wrapping``.
    """
    if custody.custody == "command" or (custody.custody == "file" and custody.command):
        return _parsed(printed(custody.command), f"what {custody.command[0]} prints")
    if not (text := custody.key.get_secret_value()):
        raise UserError(
            "there is no wrapping key for the keyring: name its file by key_file in [keyring], "
            "or set $MAILVANE_KEYRING_KEY"
        )
    return _parsed(text, "the wrapping key of [keyring]")


def former(file: Path | None) -> tuple[WrappingKey, ...]:
    """A wrapping key of before, out of its file, or of standard input where that is ``-``; none for None.

    Raises:
        UserError: there is no such key in it.
    """
    if file is None:
        return ()
    text = sys.stdin.read(_LONGEST) if str(file) == "-" else _read(file)
    return (_parsed(text, f"what is in {file}" if str(file) != "-" else "what stands on standard input"),)


def printed(command: Sequence[str], seconds: float = SECONDS) -> str:
    """What the command prints; without a shell, and without the secrets of ours that its environment may hold.

    Raises:
        UserError: it can't be started, fails, takes too long or prints too much.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAILVANE_")}
    try:
        process = subprocess.Popen(  # noqa: S603  # the operator's own words
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may say what it read
            env=clean,
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"{command[0]}, the command of [keyring], can't be started: {error.strerror}") from error
    with process:
        try:
            told = _output(process, monotonic() + seconds)
            if told is None:
                raise UserError(f"{command[0]}, the command of [keyring], took longer than {seconds:g} s")
            if len(told) > _LONGEST:
                raise UserError(f"{command[0]}, the command of [keyring], printed more than a key")
        finally:
            if process.returncode is None:  # nobody else has its number yet
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # also what it started
    if process.returncode:
        raise UserError(
            f"{command[0]}, the command of [keyring], ended with status {process.returncode}: "
            "call it by hand as the user that runs Mailvane, to see why"
        )
    return told.decode("ascii", "replace")


def _output(process: subprocess.Popen[bytes], end: float) -> bytes | None:
    """What it printed until it ended, or somewhat more than it may; None where it had not ended at ``end``."""
    told = b""
    if process.stdout is None:
        return told
    pipe = process.stdout.fileno()
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    while len(told) <= _LONGEST:
        if not poll.poll(max(0.0, end - monotonic()) * 1000):
            return None
        if not (chunk := os.read(pipe, _LONGEST + 1)):
            try:
                process.wait(max(0.0, end - monotonic()))
            except subprocess.TimeoutExpired:
                return None
            return told
        told += chunk
    return told


def _read(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return content.read(_LONGEST).decode("ascii", "replace")
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from error


def _parsed(text: str, what: str) -> WrappingKey:
    try:
        return WrappingKey.parse(text)
    except ValueError as error:
        raise UserError(f"{what} {error}") from None
