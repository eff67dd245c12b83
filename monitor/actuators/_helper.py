"""Asking a helper that may do what we may not: a command such as ``sudo -n …``, or a socket that systemd serves.

What is asked for are words and items, one a line; the answer is lines, the last of which is ``done``.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic

from monitor.ports import PluginError

SOCKET = "unix:"  # before the path of one
MOST = 5_000  # items a call
SECONDS = 75.0  # longer than a helper's own bound
LONGEST = 1 << 20  # of a line; what is longer is cut
DONE = b"done"


def lines(command: Sequence[str], items: Iterable[str] = ()) -> Generator[bytes]:
    """What the helper answers, line by line; a line over 1 MiB comes as its first part.

    ``command`` is the helper with the words for it; in place of the helper may stand ``unix:`` and a socket's path.

    Raises:
        PluginError: it can't be asked, is too slow, or did not do it all; raised after the lines that came.
    """
    end, last = monotonic() + SECONDS, b""
    try:
        with _asked(command, items) as answers:
            for line in _split(answers, end):
                if last:
                    yield last
                last = line
    except TimeoutError as error:
        raise PluginError(f"{_name(command)} did not answer in time", retry=True) from error
    except OSError as error:
        raise PluginError(f"{_name(command)} can't be asked: {error.strerror}", retry=True) from error
    if last != DONE:
        why = last.decode("utf-8", "replace")[:200] or "no answer"
        raise PluginError(f"{_name(command)}: {why}", retry=True)


def done(command: Sequence[str], items: Sequence[str]) -> set[str]:
    """Ask for any number of items; those that the helper says it did.

    Raises:
        PluginError: as ``lines`` does; earlier calls for some of the items may have done their part.
    """
    found: set[str] = set()
    for start in range(0, len(items), MOST):
        found.update(line.decode("ascii", "replace") for line in lines(command, items[start : start + MOST]))
    return found


@contextmanager
def _asked(command: Sequence[str], items: Iterable[str]) -> Iterator[socket.socket]:
    question = "".join(f"{item}\n" for item in items).encode()
    if command[0].startswith(SOCKET):
        with socket.socket(socket.AF_UNIX) as there:
            there.settimeout(SECONDS)
            there.connect(command[0].removeprefix(SOCKET))
            there.sendall(" ".join(command[1:]).encode() + b"\n" + question)
            there.shutdown(socket.SHUT_WR)
            yield there
        return
    ours, theirs = socket.socketpair()
    # A file rather than a pipe: a helper that ends without reading must not keep us from hearing why.
    with ours, theirs, tempfile.TemporaryFile() as given:
        given.write(question)
        given.seek(0)
        process = subprocess.Popen(  # noqa: S603  # the operator's own words
            command, stdin=given, stdout=theirs.fileno(), stderr=theirs.fileno()
        )
        theirs.close()
        try:
            yield ours
        finally:
            ours.close()
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nobody listens any more, so it ends soon; what runs as root can't be killed by us, and has its own bound."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(2)
        return
    with suppress(PermissionError):
        process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(2)


def _split(answers: socket.socket, end: float) -> Iterator[bytes]:
    rest, cut = b"", False
    while True:
        answers.settimeout(max(0.001, end - monotonic()))
        chunk = answers.recv(1 << 16)
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if not cut:
                yield line
            cut = False
        if len(rest) > LONGEST:
            if not cut:
                yield rest
            rest, cut = b"", True
    if rest and not cut:
        yield rest


def _name(command: Sequence[str]) -> str:
    """The helper, in a message: of ``sudo -n /sbin/x list`` it is the x."""
    return next((word for word in command if "/" in word), command[0]).rpartition("/")[2]
