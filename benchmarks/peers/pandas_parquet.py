"""Events into Parquet with pandas, as one would write it in an afternoon: the peer of ``ingest``. Durable it is not.

``python pandas_parquet.py EVENTS.ndjson FOLDER [LINES A BATCH]`` prints one line of JSON: ``seconds`` from the bytes in
memory to the files, and what became of the lines. Each batch is read, checked, pseudonymised and written with its
counts by minute and by hour; an event that is told again is found within its batch only. Runs in an environment of its
own and imports nothing of Mailvane.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

KEY = b"a key of thirty-two bytes, or so"
KINDS = ["sent", "deferred", "bounced", "expired", "complaint", "held"]
LABELS = ["ip", "domain", "provider", "stream", "tenant", "segment", "campaign", "variant", "region"]
TEXTS = ["message_id", "recipient", "dsn", "relay", "reply"]
MINUTE = ["minute", "ip", "domain", "provider", "stream"]
HOUR = ["hour", "ip", "domain", "provider", "stream", "tenant", "segment", "campaign"]


def main() -> None:
    events, folder, lines = (
        Path(sys.argv[1]).read_bytes(),
        Path(sys.argv[2]),
        int((sys.argv[3:] and sys.argv[3]) or 100_000),
    )
    folder.mkdir(parents=True, exist_ok=True)
    told = {"lines": 0, "rejected": 0, "duplicates": 0, "stored": 0}
    began = time.perf_counter()
    for number, batch in enumerate(batches(events, lines)):
        store(batch, folder, number, told)
    print(json.dumps({"seconds": time.perf_counter() - began, **told}))


def batches(events: bytes, lines: int) -> Iterator[list[str]]:
    every = events.decode().removesuffix("\n").split("\n")
    for first in range(0, len(every), lines):
        yield every[first : first + lines]


def store(batch: list[str], folder: Path, number: int, told: dict[str, int]) -> None:
    read = read_lines(batch)
    frame = checked(read)
    distinct = frame.drop_duplicates(["message_id", "recipient", "kind", "attempt"])
    told["lines"] += len(batch)
    told["rejected"] += len(batch) - len(frame)
    told["duplicates"] += len(frame) - len(distinct)
    told["stored"] += len(distinct)
    hidden = distinct.assign(
        recipient=[pseudonym(text) for text in distinct["recipient"]],
        message_id=[pseudonym(text) for text in distinct["message_id"]],
    )
    hidden.to_parquet(folder / f"events-{number:05}.parquet", index=False)
    for name, keys, time_of in (("minute", MINUTE, "at"), ("hour", HOUR, "sent_at")):
        counts = rolled_up(hidden, name, keys, time_of)
        counts.to_parquet(folder / f"{name}-{number:05}.parquet", index=False)


def read_lines(batch: list[str]) -> list[dict[str, Any]]:
    """The objects; ``pandas.read_json`` would refuse all of a batch for one line that is none."""
    found = []
    for line in batch:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def checked(read: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame.from_records(read)
    for column in (*LABELS, *TEXTS):
        frame[column] = frame[column].fillna("") if column in frame else ""
    zoned = frame["at"].str.endswith("Z")
    frame["at"] = pd.to_datetime(frame["at"], utc=True, errors="coerce", format="ISO8601")
    frame["sent_at"] = pd.to_datetime(frame["sent_at"], utc=True, errors="coerce", format="ISO8601").fillna(frame["at"])
    frame["code"] = frame["code"].fillna(0).astype("uint16") if "code" in frame else 0
    good = (
        zoned
        & frame["at"].notna()
        & frame["kind"].isin(KINDS)
        & frame["attempt"].between(0, 65_535)
        & frame["message_id"].ne("")
        & (frame["tenant"].ne("") | frame["campaign"].eq(""))
    )
    frame = frame[good].copy()
    for column in ("kind", *LABELS):
        frame[column] = frame[column].astype("category")
    return frame


def pseudonym(text: str) -> bytes:
    return hmac.digest(KEY, text.strip("<> ").lower().encode(), hashlib.sha256)[:16]


def rolled_up(frame: pd.DataFrame, name: str, keys: list[str], time_of: str) -> pd.DataFrame:
    counts = pd.get_dummies(frame["kind"]).astype("uint32")
    counts["first"] = (frame["attempt"] == 1).astype("uint32")
    counts["first_deferred"] = ((frame["attempt"] == 1) & (frame["kind"] == "deferred")).astype("uint32")
    labelled = frame[keys[1:]].assign(**{name: frame[time_of].dt.floor("min" if name == "minute" else "h")})
    return labelled.join(counts).groupby(keys, observed=True, sort=False).sum().reset_index()


if __name__ == "__main__":
    main()
