"""Complaints of a corpus: which of the fields that stand in them are read as they stand, and of which type they are.

CORPUS=DIR names another corpus of the same layout: ``truth/arf_fields.csv`` has the fields as present, and
``truth/sisimai_ground_truth.csv`` the types that another program's tests expect. What is missed is listed.
"""

from __future__ import annotations

import csv
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from email.utils import mktime_tz, parsedate_tz
from pathlib import Path

from benchmarks._bar import bar
from collectors._arf import Complaint, complained
from collectors._mail import read

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED = Path(os.environ.get("MAILVANE_SHARED") or ROOT.parent / "shared")
CORPUS = Path(os.environ.get("CORPUS") or SHARED / "corpus")
ZONES = {"JST": "+0900", "UTC": "+0000"}  # that the library does not know, or not at the end
Row = Mapping[str, str]


def main() -> int:
    """The exit status: 1 when a bar is short."""
    rows = [row for row in _rows("arf_fields.csv") if (CORPUS / row["file"]).is_file()]
    if not rows:
        print(f"arf: skipped, no complaints in {CORPUS}; name another corpus by CORPUS=DIR")
        return 0
    found = {row["file"]: complained(read((CORPUS / row["file"]).read_bytes())) for row in rows}
    # Where no part holds fields (JMRP), there is nothing to read as it stands; the truth has its type empty.
    fields = [one for row in rows if row["feedback_type"] for one in _fields(row, found[row["file"]])]
    types = [(row["file"], row["feedback_type"], _type(found[row["file"]])) for row in rows if row["feedback_type"]]
    types += _labelled()
    right = [one for one in fields if one[2] == one[3]]
    same = [one for one in types if one[1] == one[2]]
    for file, name, wanted, got in fields:
        if wanted != got:
            print(f"arf: {file}: {name} is {wanted!r}, read as {got!r}")
    for file, kind, got in types:
        if kind != got:
            print(f"arf: {file}: type is {kind!r}, read as {got!r}")
    print(f"arf: {len(rows)} mails, {len(fields)} fields, {len(types)} types, {_each(rows):,.0f} mails a second")
    holds = [
        bar("eval.arf_fields", len(right) / len(fields), "share", ">=0.98"),
        bar("eval.arf_types", len(same) / len(types), "share", ">=0.98"),
    ]
    return 0 if all(holds) else 1


def _rows(name: str) -> Iterator[Row]:
    path = CORPUS / "truth" / name
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _fields(row: Row, found: Complaint | None) -> Iterator[tuple[str, str, object, object]]:
    """File, field, what it is and what was read, of each field that either has."""
    got = found or Complaint()
    told: dict[str, tuple[object, object]] = {
        "feedback_type": (row["feedback_type"].lower(), got.type),
        "source_ip": (row["source_ip"], got.source_ip),
        "original_rcpt_to": (_many(row["original_rcpt_to"]), got.original_rcpt_to),
        "original_mail_from": (_bare(row["original_mail_from"]), got.original_mail_from),
        "arrival_date": (_at(row["arrival_date"]), got.arrival),
        "reported_domain": (_many(row["reported_domain"]), got.reported_domain),
        "user_agent": (row["user_agent"], got.user_agent),
        "auth_failure": (row["auth_failure"].lower(), got.auth_failure),
    }
    for name, (wanted, read_as) in told.items():
        if wanted or read_as:
            yield row["file"], name, wanted, read_as


def _labelled() -> list[tuple[str, str, str]]:
    """The types that sisimai's tests expect."""
    labels = []
    for row in _rows("sisimai_ground_truth.csv"):
        path = CORPUS / row["file"]
        if row["reason"].startswith("feedback") and row["feedbacktype"] and path.is_file():
            got = _type(complained(read(path.read_bytes())))
            labels.append((row["file"], row["feedbacktype"].partition(";")[0], got))
    return labels


def _type(found: Complaint | None) -> str:
    return found.type if found else ""


def _many(text: str) -> tuple[str, ...]:
    return tuple(_bare(one) for one in text.split(";") if one)


def _bare(text: str) -> str:
    return text.strip().removeprefix("<").removesuffix(">")


def _at(text: str) -> int:
    """POSIX microseconds by the library's own reading of dates."""
    for zone, offset in ZONES.items():
        text = re.sub(rf"(?<=\d) {zone}\Z", f" {offset}", text)
    parsed = parsedate_tz(text)
    return mktime_tz(parsed) * 1_000_000 if parsed else 0


def _each(rows: list[Row]) -> float:
    raws = [(CORPUS / row["file"]).read_bytes() for row in rows]
    began = time.process_time()
    for raw in raws:
        complained(read(raw))
    return len(raws) / (time.process_time() - began)


if __name__ == "__main__":
    sys.exit(main())
