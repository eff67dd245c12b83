#!/usr/bin/python3 -I
"""The root half of holding queued mail: lists Postfix's queue, and holds and releases messages by their id.

    mailvane-postsuper list|hold|release [CONFIG_DIRECTORY]
    mailvane-postsuper served

It is installed on its own, owned by root, and imports nothing but Python's own library (3.9 or newer). Queue ids come
on standard input, one a line. ``served`` takes the words from the first line of standard input, for a socket of
systemd's. The answer is the list of ``postqueue -j``, or the ids that were held or released, one a line; the last line
is ``done``, or ``failed: `` and why. All else is refused. docs/release.md tells how to let the service call it.
"""

import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

ALLOWED = "/etc/mailvane-postsuper.conf"  # one directory a line: other instances of Postfix that may be named
PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/bin")
IDS = 5_000  # a call; 0.3 s on a small machine
SECONDS = 60  # for postqueue and for postsuper
LISTED = 1 << 30  # bytes of a listing: about four million messages
FLAGS = {"hold": "-h", "release": "-H"}
ID = re.compile(r"[0-9A-Za-z]{5,30}")
DONE = re.compile(rb"^postsuper: ([0-9A-Za-z]{5,30}): (?:placed on hold|released from hold)$", re.MULTILINE)


def main() -> None:
    """Do what the words ask, or end with the reason why not."""
    signal.alarm(2 * SECONDS)  # whoever asked may never end its question
    words = sys.argv[1:]
    if os.geteuid() != 0:
        fail("runs as root only")
    if not roots_alone(Path(__file__).stat()):
        fail("its own file must belong to root, and nobody else may write it")
    if words == ["served"]:
        words = sys.stdin.buffer.readline(4096).decode("utf-8", "replace").split()
    if not 1 <= len(words) <= 2 or words[0] not in ("list", *FLAGS):
        fail("usage: list, hold or release, and perhaps a directory of Postfix's configuration")
    instance = ("-c", allowed(words[1])) if len(words) == 2 else ()
    if words[0] == "list":
        show((program("postqueue"), *instance, "-j"))
    else:
        change((program("postsuper"), *instance, FLAGS[words[0]], "-"), ids())
    answer(b"done\n")


def allowed(directory: str) -> str:
    """The directory, if root wrote it down as one that may be named."""
    try:
        with open(ALLOWED, encoding="utf-8", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW)) as file:
            if not roots_alone(os.fstat(file.fileno())):
                fail(f"{ALLOWED} must be a file of root's that nobody else may write")
            known = [line.strip() for line in file]
    except OSError as error:
        fail(f"{ALLOWED} can't be read: {error.strerror}")
    if not directory.startswith("/") or directory not in known:
        fail(f"that directory does not stand in {ALLOWED}")
    return directory


def roots_alone(found: os.stat_result) -> bool:
    """Whether a file is root's, and nobody else may write it."""
    return stat.S_ISREG(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022


def ids() -> bytes:
    """The ids from standard input; a single wrong one, and none is taken."""
    most = IDS * 31
    given = sys.stdin.buffer.read(most + 1)
    lines = given.decode("ascii", "replace").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    if len(given) > most or len(lines) > IDS:
        fail(f"more than {IDS} ids")
    if not all(ID.fullmatch(line) for line in lines):
        fail("something there is no queue id")
    return "".join(f"{line}\n" for line in lines).encode()


def show(command: "tuple[str, ...]") -> None:
    """Hand the output of a command on, as long as it is not too long and does not take too long."""
    with start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        length = 0
        try:
            while process.stdout and length <= LISTED and (chunk := os.read(process.stdout.fileno(), 1 << 16)):
                length += len(chunk)
                answer(chunk)
        finally:
            timer.cancel()
            if length > LISTED:
                process.kill()
    if process.returncode:
        fail(f"{Path(command[0]).name} ended with {process.returncode}")


def change(command: "tuple[str, ...]", chosen: bytes) -> None:
    """Hold or release, and tell which ids were."""
    with start(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            said = process.communicate(chosen, SECONDS)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            fail(f"postsuper took longer than {SECONDS} s")
    answer(b"".join(found + b"\n" for found in DONE.findall(said)))
    if process.returncode:
        fail(said.decode("utf-8", "replace").strip().rpartition("\n")[2][:200])


def start(
    command: "tuple[str, ...]", stdin: int, stdout: int, stderr: int = subprocess.DEVNULL
) -> "subprocess.Popen[bytes]":
    """Never a shell, and nothing of the caller's environment: a variable could name another configuration."""
    clean = {"PATH": ":".join(PLACES), "LC_ALL": "C"}
    return subprocess.Popen(  # noqa: S603  # the program is Postfix's, and each word is ours or was looked at
        command, stdin=stdin, stdout=stdout, stderr=stderr, env=clean, cwd="/"
    )


def program(name: str) -> str:
    """Where a program of Postfix's stands."""
    found = [f"{place}/{name}" for place in PLACES if os.access(f"{place}/{name}", os.X_OK)]
    return found[0] if found else fail(f"{name} is not installed")


def answer(content: bytes) -> None:
    """Write all of it."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def fail(why: str) -> NoReturn:
    """End with the reason."""
    answer(f"failed: {why}\n".encode())
    sys.exit(1)


if __name__ == "__main__":
    main()
