"""From a batch to rows: nothing personal in them, one key for one outcome, nonsense set aside with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.facts.names import NameLimit
from monitor.facts.prepare import prepare
from monitor.facts.rows import ROWS, Frame, decode, encode, encode_lines, progress_of
from monitor.keyring import UNKNOWN, Keyring
from monitor.ledger.journal import Progress
from monitor.model import LABELS, Batch, Kind

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyring]:
    ring = Keyring.open(tmp_path_factory.mktemp("keys") / "keyring")
    yield ring
    ring.close()


def micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def batch(*rows: dict[str, Any]) -> Batch:
    """Rows that are sent at noon unless they say otherwise; those without an id or message id get an id."""
    whole = [
        {"kind": "sent", "at": micros(NOON), **({} if {"id", "message_id"} & set(row) else {"id": str(place)}), **row}
        for place, row in enumerate(rows)
    ]
    names = {name for row in whole for name in row}
    blank = {name: 0 if isinstance(value, int) else "" for row in whole for name, value in row.items()}
    return Batch({name: [row.get(name, blank[name]) for row in whole] for name in names})


def rows(keyring: Keyring, *told: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    table, rejected = prepare(batch(*told), "test", keyring, NOON, bounds=None, **more)
    assert rejected == []
    return table.to_pylist()


def test_what_a_source_does_not_know_takes_its_default(keyring: Keyring) -> None:
    [row] = rows(keyring, {})
    assert row == {
        "at": NOON, "sent_at": NOON, "seen_at": NOON, "kind": "sent", "attempt": 0, "count": 1,
        **dict.fromkeys(LABELS, ""), "recipient": UNKNOWN, "message": UNKNOWN, "key": int(keyring.id_keys("test", ["0"])[0]),
        "code": 0, "dsn": "", "relay": "", "reply": "", "source": "test",
        "reply_class": "", "consent": "", "consent_ref": "", "found_by": "",
    }  # fmt: skip


def test_an_empty_batch_has_no_rows(keyring: Keyring) -> None:
    for empty in (Batch({}), Batch({"kind": []})):
        table, rejected = prepare(empty, "test", keyring, NOON, bounds=None)
        assert (len(table), rejected) == (0, [])
        assert table.schema.equals(ROWS)


def test_people_and_messages_become_pseudonyms(keyring: Keyring) -> None:
    [row] = rows(keyring, {"recipient": "<Jo@Example.com>", "message_id": "<1@shop.example>"})
    assert row["recipient"] == keyring.pseudonym("jo@example.com")
    assert row["message"] == keyring.message("1@shop.example")


def test_free_text_is_scrubbed_of_addresses(keyring: Keyring) -> None:
    [row] = rows(
        keyring, {"reply": "550 <jo@example.com> unknown", "relay": "jo@mx.example", "dsn": "5.1.1 jo@example.com"}
    )
    assert (row["reply"], row["relay"], row["dsn"]) == (
        "550 <…@example.com> unknown",
        "…@mx.example",
        "5.1.1 …@example.com",
    )


def test_an_import_saw_each_row_when_it_happened(keyring: Keyring) -> None:
    table, _ = prepare(batch({"at": micros(NOON - DAY)}, {}), "test", keyring, None, bounds=None)
    assert table["seen_at"].to_pylist() == [NOON - DAY, NOON]


@pytest.mark.parametrize(
    ("sent_at", "kept"),
    [
        (NOON - DAY, NOON - DAY),
        (NOON + DAY, NOON),
        (NOON - 61 * DAY, NOON - 60 * DAY),
        (NOON - 60 * DAY, NOON - 60 * DAY),
    ],
)
def test_the_time_of_sending_lies_in_the_sixty_days_before(keyring: Keyring, sent_at: datetime, kept: datetime) -> None:
    assert rows(keyring, {"sent_at": micros(sent_at)})[0]["sent_at"] == kept


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"kind": "opened"}, "unknown kind"),
        ({"kind": ""}, "unknown kind"),
        ({"at": 0}, "no time, or one that no mail has"),
        ({"at": -5}, "no time, or one that no mail has"),
        ({"at": 2**62}, "no time, or one that no mail has"),
        ({"at": micros(NOON - 31 * DAY)}, "older than events are kept"),
        ({"at": micros(NOON + timedelta(minutes=11))}, "the time is ahead of our clock"),
        ({"segment": "s"}, "segment without tenant"),
        ({"campaign": "c"}, "campaign without tenant"),
        ({"variant": "v"}, "variant without tenant"),
        ({"count": 0}, "the count is no positive number"),
        ({"count": -1}, "the count is no positive number"),
        ({"count": 2**32}, "the count is no positive number"),
        ({"id": "", "recipient": "jo@example.com"}, "neither message_id nor id"),
    ],
)
def test_nonsense_is_set_aside_with_its_reason_and_the_rest_goes_on(
    keyring: Keyring, row: dict[str, Any], why: str
) -> None:
    good = {"tenant": "t", "segment": "s", "count": 1}
    bounds = (NOON - 30 * DAY, NOON + timedelta(minutes=10))
    table, rejected = prepare(batch(good, {"count": 1, **row}, good), "test", keyring, NOON, bounds=bounds)
    assert [(item.why, item.where) for item in rejected] == [(why, "row 1")]
    assert table["segment"].to_pylist() == ["s", "s"]
    assert "jo@" not in rejected[0].sample


def test_samples_of_what_was_set_aside_are_scrubbed_and_few(keyring: Keyring) -> None:
    told = [{"kind": "opened", "tenant": "jo@example.com"}] * 150
    _, rejected = prepare(batch(*told), "test", keyring, NOON, bounds=None)
    assert len(rejected) == 150
    assert rejected[0].sample.endswith("…@example.com")
    assert sum(bool(item.sample) for item in rejected) == 100


@pytest.mark.parametrize("columns", [{"kind": ["sent"], "at": [1, 2]}, {"colour": ["red"]}])
def test_a_collectors_mistake_is_an_error(keyring: Keyring, columns: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"lengths|colour"):
        prepare(Batch(columns), "test", keyring, NOON, bounds=None)


def test_numbers_may_come_as_arrays_and_out_of_range_ones_are_drawn_in(keyring: Keyring) -> None:
    columns = {
        "kind": ["sent", "sent"], "at": np.array([micros(NOON)] * 2), "id": ["1", "2"],
        "attempt": np.array([-1, 70_000]), "code": [99_999, 250],
    }  # fmt: skip
    table, _ = prepare(Batch(columns), "test", keyring, NOON, bounds=None)
    assert (table["attempt"].to_pylist(), table["code"].to_pylist()) == ([0, 65_535], [65_535, 250])


def test_text_that_is_no_unicode_or_too_long_is_taken_all_the_same(keyring: Keyring) -> None:
    [row] = rows(
        keyring,
        {"tenant": "\ud800t", "recipient": "\udc80@x", "message_id": "\udfff", "reply": "a\0b", "domain": "d" * 999},
    )
    assert row["tenant"] == "?t"
    assert row["reply"] == "a b"
    assert row["domain"] == "d" * 200


# keys


def key(keyring: Keyring, source: str = "test", **row: Any) -> int:
    table, _ = prepare(batch(row), source, keyring, NOON, bounds=None)
    return int(table["key"][0].as_py())


def test_one_outcome_has_one_key_whichever_road_tells_it(keyring: Keyring) -> None:
    told = {"message_id": "<1@s.example>", "recipient": "jo@example.com"}
    assert key(keyring, "log", **told, attempt=1, tries=7) == key(
        keyring, "webhook", **told, id="evt_1", at=micros(NOON) + 5
    )
    assert key(keyring, **told) != key(keyring, **told, kind="bounced")
    assert key(keyring, **told) != key(keyring, **{**told, "recipient": "mo@example.com"})


def test_each_deferral_of_a_message_counts_by_its_try(keyring: Keyring) -> None:
    told = {"message_id": "<1@s.example>", "kind": "deferred"}
    assert key(keyring, **told, tries=1) == key(keyring, **told, tries=1, attempt=9)
    assert key(keyring, **told, tries=1) != key(keyring, **told, tries=2)


def test_an_id_decides_where_there_is_no_message_id(keyring: Keyring) -> None:
    assert key(keyring, id="7", recipient="a@b.example") == key(keyring, id="7", kind="bounced")
    assert key(keyring, id="7") != key(keyring, "other", id="7")
    table, _ = prepare(
        batch({"id": "1", "message_id": "m"}, {"id": "2"}, {"message_id": "m"}), "test", keyring, NOON, bounds=None
    )
    first, second, third = table["key"].to_pylist()
    assert first == third
    assert second == int(keyring.id_keys("test", ["2"])[0])


# names that sellers choose


def test_names_past_the_limit_become_other_for_that_tenant_and_day(keyring: Keyring) -> None:
    limit = NameLimit(most=2)
    told = [{"tenant": "t", "segment": f"s{place}"} for place in (0, 1, 2, 0, 3)]
    told += [
        {"tenant": "u", "segment": "s9"},
        {"tenant": "t", "segment": "s8", "at": micros(NOON - DAY)},
        {"tenant": "t"},
    ]
    found = [row["segment"] for row in rows(keyring, *told, names=limit)]
    assert found == ["s0", "s1", "other", "s0", "other", "s9", "s8", ""]
    assert limit.folded == 2
    assert (
        rows(keyring, {"tenant": "t", "segment": "s1"}, {"tenant": "t", "segment": "s5"}, names=limit)[1]["segment"]
        == "other"
    )
    assert rows(keyring, {"tenant": "t", "campaign": "s5"}, names=limit)[0]["campaign"] == "s5"


def test_a_million_names_do_not_stay_in_memory(keyring: Keyring) -> None:
    limit = NameLimit(most=10)
    told = Batch(
        {
            "kind": ["sent"] * 50_000, "at": [micros(NOON)] * 50_000, "id": [str(place) for place in range(50_000)],
            "tenant": [f"t{place % 25_000}" for place in range(50_000)], "segment": [f"s{place}" for place in range(50_000)],
        }
    )  # fmt: skip
    prepare(told, "test", keyring, NOON, bounds=None, names=limit)
    assert len(limit._seen) <= 20_000


# frames


@settings(max_examples=30, deadline=None)
@given(
    kinds=st.lists(st.sampled_from([*Kind]), max_size=20),
    watermark=st.none() | st.just(NOON),
    remember=st.dictionaries(st.text(max_size=5), st.none() | st.integers(), max_size=3),
)
def test_a_frame_holds_what_it_was_given(
    keyring: Keyring, kinds: list[Kind], watermark: datetime | None, remember: dict[str, Any]
) -> None:
    table, _ = prepare(
        batch(*({"kind": kind.value, "tenant": "t"} for kind in kinds)), "test", keyring, NOON, bounds=None
    )
    progress = Progress("log", "node", NOON, {"offset": 7}, watermark, remember)
    found = decode(encode(table, progress))
    assert found.rows.to_pylist() == table.to_pylist()
    assert found.count == len(table)
    assert found.progress == progress == progress_of(encode(table, progress))
    assert decode(encode(table.slice(1), None)).progress is None
    sealed = decode(encode_lines(b"sealed", len(kinds), 70, progress))
    assert sealed == Frame(len(kinds), progress, sealed=b"sealed", size=70)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x05\0\0\0{}",
        b"\x02\0\0\0[]",
        b'\x07\0\0\0{"v":1}',
        b"\xff\xff\xff\x7f{}",
        b"rubbish that is no frame",
        b'\x16\0\0\0{"v":2,"progress":null}',
    ],
)
def test_what_is_no_frame_is_said_to_be_none(payload: bytes) -> None:
    with pytest.raises(ValueError):
        decode(payload)
    assert progress_of(payload) is None


def test_a_frame_of_other_columns_or_another_release_is_refused(keyring: Keyring) -> None:
    table, _ = prepare(batch({}), "test", keyring, NOON, bounds=None)
    good = encode(table, None)
    with pytest.raises(ValueError, match="version 9"):
        decode(good.replace(b'"v":1', b'"v":9'))
    sink = pa.BufferOutputStream()
    sink.write(b'\x17\0\0\0{"v":1,"progress":null}')
    with pa.ipc.new_stream(sink, table.drop_columns("key").schema) as stream:
        stream.write_table(table.drop_columns("key"))
    with pytest.raises(ValueError, match="other columns"):
        decode(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("nothing", ["<>", " ", "<\t>"])
@pytest.mark.parametrize("told", [list, pa.array])
def test_a_message_id_of_brackets_alone_names_no_message(keyring: Keyring, nothing: str, told: Any) -> None:
    one: dict[str, list[Any]] = {"kind": ["sent"] * 2, "at": [micros(NOON)] * 2, "message_id": told([nothing] * 2)}
    table, rejected = prepare(Batch({**one, "id": told(["1", "2"])}), "test", keyring, NOON, bounds=None)
    assert not rejected
    assert len(set(table["key"].to_pylist())) == 2
    table, rejected = prepare(Batch(one), "test", keyring, NOON, bounds=None)
    assert (len(table), {item.why for item in rejected}) == (0, {"neither message_id nor id"})
