"""Lines that look like events and lie: one line is one event, and what was checked can be taken apart."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest

from collectors._decode import LINE_LIMIT, check, columns


def line(message_id: str = "<1@shop.example>", **more: Any) -> bytes:
    return json.dumps({"kind": "sent", "at": "2026-11-24T10:00:00Z", "message_id": message_id, **more}).encode()


BROKEN = line().replace(b", ", b",\n", 1)
TWO = line("<2@shop.example>") + b" " + line("<3@shop.example>")


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        (BROKEN + b"\n" + TWO, ["line 1", "line 2", "line 3"]),
        (TWO + b"\n" + BROKEN, ["line 1", "line 2", "line 3"]),
        (TWO + b"\n\n", ["line 1"]),
        (b"\n" + TWO, ["line 2"]),
        (b"\n" + TWO + b"\n" + line(), ["line 2"]),
        (line() + b"\n \n" + TWO + b"\n", ["line 3"]),
        (line() + b"\r\n" + TWO + b"\r\n\r\n", ["line 2"]),
    ],
)
def test_two_events_on_a_line_do_not_make_up_for_a_line_without_one(body: bytes, bad: list[str]) -> None:
    checked = check(body)
    assert [item.where for item in checked.rejected] == bad
    assert len(columns(checked.lines).get("at", ())) == checked.count == body.splitlines().count(line())


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\n\n", b" \n\t", b"\n \n"])
def test_blanks_around_lines_are_no_mistake(between: bytes) -> None:
    checked = check(between.join(line(f"<{number}@shop.example>") for number in range(70)))
    assert (checked.count, checked.rejected) == (70, [])
    assert columns(checked.lines)["message_id"].to_pylist()[69] == "<69@shop.example>"


@pytest.mark.parametrize("length", [LINE_LIMIT, LINE_LIMIT + 1])
@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_line_of_blanks_is_bounded_wherever_it_stands(length: int, place: int) -> None:
    padded = line()[:-1].ljust(length - 1) + b"}"
    lines = [line(f"<{number}@shop.example>") for number in range(4)]
    lines.insert(place, padded)
    checked = check(b"\n".join(lines))
    fits = length <= LINE_LIMIT
    assert checked.count == 4 + fits
    assert [item.where for item in checked.rejected] == [f"line {place + 1}"] * (not fits)


@pytest.mark.parametrize("sent_at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_any_time_of_sending_can_be_taken_apart(sent_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = check(line(sent_at=sent_at))
    assert checked.count == 1
    # However the lines are read.
    monkeypatch.setattr(pl, "read_ndjson", _refuses)
    assert len(columns(checked.lines)["sent_at"]) == 1


def _refuses(_lines: bytes, **_more: Any) -> None:
    raise pl.exceptions.ComputeError("written unusually")


@pytest.mark.parametrize("nothing", ["<>", " ", "<\t>"])
def test_a_message_id_of_brackets_alone_names_no_message(nothing: str) -> None:
    told, untold = line(nothing, id="1"), line(nothing)
    checked = check(b"\n".join([told, untold, line()]))
    assert checked.count == 2
    assert [(item.where, item.why.partition(":")[0]) for item in checked.rejected] == [("line 2", "message_id")]
