"""What a process tells whoever keeps it up: systemd, or our own supervisor. The protocol is sd_notify's.

Where nobody asked, nothing is told: all of this does nothing without the variables of the environment.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from datetime import timedelta

log = logging.getLogger(__name__)

BEAT = "WATCHDOG=1"
LIFELINE = "MAILVANE_LIFELINE"  # the descriptor whose other end only the supervisor holds
PATIENCE = 5.0  # seconds; systemd's socket may be full for a moment while a machine boots


def notify(text: str) -> None:
    """Tell ``text``, such as ``READY=1``, to ``$NOTIFY_SOCKET``; several assignments stand on a line each.

    A sign of life (``BEAT``) is dropped rather than waited for, since the next one follows: a listener that hangs must
    not stop an event loop. It never raises; what could not be told stands in the log at DEBUG.
    """
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return
    # A name that begins with @ is in the abstract namespace, where that character is a null.
    address = "\0" + place[1:] if place.startswith("@") else place
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(0 if text == BEAT else PATIENCE)
            out.sendto(text.encode(), address)
    except OSError as error:
        log.debug("not told", extra={"text": text, "error": error.strerror or type(error).__name__})


def watchdog() -> float | None:
    """How many seconds apart signs of life should be: half of what was asked for; None when nobody asked.

    A variable that was meant for another process (``$WATCHDOG_PID``), or that is no number, asks for nothing.
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    asked = os.environ.get("WATCHDOG_USEC", "")
    return int(asked) / 2e6 if asked.isdecimal() and int(asked) else None


def follow(grace: timedelta) -> None:
    """From now on, end when our supervisor is gone: in order if that takes no longer than ``grace``.

    Without a supervisor (no ``$MAILVANE_LIFELINE``) there is nothing to follow.
    """
    held = os.environ.pop(LIFELINE, "")  # not for processes that we start ourselves
    if not held.isdecimal():
        return
    lifeline = int(held)
    os.set_inheritable(lifeline, False)
    threading.Thread(target=_follow, args=(lifeline, grace.total_seconds()), name="lifeline", daemon=True).start()


def _follow(lifeline: int, grace: float) -> None:
    while os.read(lifeline, 1):
        pass  # nothing is ever written: it is the end of the file that tells
    log.warning("the supervisor is gone, ending")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os.kill(os.getpid(), signal.SIGKILL)
