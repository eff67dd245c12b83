"""Rewraps the keyring of a directory from one key to another and back, without end: ``python -m … KEYRING ONE OTHER``.

ONE and OTHER are hex. A line is printed each time, so that who kills it knows that it runs.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from monitor.keyfile import rewrap
from monitor.wrapping import WrappingKey


def main(path: str, *texts: str) -> None:
    keys = [WrappingKey.parse(text) for text in texts]
    for key in itertools.cycle(keys):
        rewrap(Path(path), keys, key)
        sys.stdout.write(f"{key.name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
