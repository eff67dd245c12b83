"""Reads letters from files, each in a process of its own with little memory: ``python -m tests.servers.hardening FILE...``

Prints a line of JSON for each: seconds of processor time, bytes by which memory grew, and what escaped, if anything did.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from collectors import _arf, _bounce, _mail
from collectors._letters import Raw
from collectors.maildir import Maildir
from tests.servers.memory import forget_peak, peak

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
NOBODY = "127.0.0.1:9"  # no name server is there: a letter must be read all the same
CPU = 60  # seconds, after which the kernel ends it


def box(**more: Any) -> Maildir:
    """A source of mail that asks nobody about keys."""
    return Maildir(path=Path("nowhere"), resolvers=(NOBODY,), **more)


def survived(reader: Maildir, raw: bytes) -> float:
    """Seconds of processor time that it took to read a letter by every door; raises what escapes."""
    began = time.process_time()
    mail = _mail.read(raw)
    _arf.complained(mail)
    _bounce.bounced(mail)
    _bounce.clues(mail)
    took = time.process_time() - began
    began = time.process_time()
    told = reader.read([Raw(raw, "a letter")], NOW)
    caught = [item.why for item in told.batch.rejected if "can't be read" in item.why]
    if caught:
        raise AssertionError(caught[0])
    return max(took, time.process_time() - began)


def apart(read: Callable[[bytes], float], raw: bytes, room: int, seconds: int = CPU) -> dict[str, Any]:
    """What becomes of a letter that is read in a fork, with ``room`` bytes and ``seconds`` of processor time."""
    out, told = os.pipe()
    child = os.fork()
    if not child:
        with os.fdopen(told, "w") as pipe:
            pipe.write(json.dumps(_measured(read, raw, room, seconds)))
        os._exit(0)
    os.close(told)
    with os.fdopen(out) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(answer) if answer else {"escaped": f"killed: {status}", "seconds": seconds, "grown": 0}


def _measured(read: Callable[[bytes], float], raw: bytes, room: int, seconds: int) -> dict[str, Any]:
    me = os.getpid()
    held = int(Path(f"/proc/{me}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + room,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    forget_peak(me)
    before = peak(me)
    try:
        took, escaped = read(raw), ""
    except BaseException as error:  # noqa: BLE001  # whatever it is
        took, escaped = 0.0, f"{type(error).__name__}: {error}"[:300]
    return {"seconds": took, "grown": peak(me) - before, "escaped": escaped}


def main(room: int, paths: list[str]) -> None:
    """Each file in its turn, with ``room`` bytes of memory and twice the letter's size."""
    read = partial(survived, box())
    read(b"Subject: warm\n\nup")
    for path in paths:
        raw = Path(path).read_bytes()
        print(json.dumps(apart(read, raw, room + 2 * len(raw))), flush=True)  # noqa: T201  # it is what it is for


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
