"""Bounces read by flufl.bounce: the peer of ``bounces``. Runs in an environment of its own and imports nothing of ours.

Each line of input is ``{"files": [...]}``, and is answered with ``{"seconds": 1.2, "found": 345}``: the time of
the processor for parsing and scanning the files, which are read before, and in how many it found a recipient.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from email import message_from_bytes
from pathlib import Path

from flufl.bounce import scan_message


def main() -> None:
    """Answer until the input ends."""
    logging.disable()  # it logs the mails on which one of its detectors fails, which would cost it time
    for line in sys.stdin:
        mails = [Path(name).read_bytes() for name in json.loads(line)["files"]]
        found = 0
        began = time.process_time()
        for mail in mails:
            found += _found(mail)
        print(json.dumps({"seconds": time.process_time() - began, "found": found}), flush=True)


def _found(mail: bytes) -> bool:
    try:
        return bool(scan_message(message_from_bytes(mail)))
    except Exception:  # noqa: BLE001  # it raises for some mails of the corpus, and a mailbox must be read to its end
        return False


if __name__ == "__main__":
    main()
