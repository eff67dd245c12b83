"""What `make bench` says of a bar and with which status it ends; and that what benchmarks feed on is what it is called."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks import __main__ as runner
from benchmarks import _events, _peers, _stored
from benchmarks._bar import bar
from benchmarks._questions import questions
from benchmarks.peers import machine
from collectors._decode import decode


@pytest.fixture
def ends(tmp_path):
    """The exit status of a run over benchmarks with these bodies."""

    def run(*names: str, **bodies: str) -> int:
        folder = tmp_path / "benchmarks"
        folder.mkdir()
        for name, body in bodies.items():
            (folder / f"{name}.py").write_text(body)
        return runner.main(["bench", *names], tmp_path)

    return run


def test_a_bar_says_whether_it_holds(capsys):
    assert bar("sendlog.ratio", 3.25, "ratio", ">=1")
    assert not bar("check.p99", 7, "ms", "<=5")
    assert capsys.readouterr().out == "BAR sendlog.ratio 3.25 ratio >=1 ok\nBAR check.p99 7 ms <=5 short\n"


def test_a_bar_without_a_comparison_is_refused():
    with pytest.raises(ValueError, match="is no bar"):
        bar("sendlog.ratio", 1, "ratio", "1")


def test_bars_that_hold_end_well(ends, capsys):
    assert ends(one="print('BAR one.a 2 s <=3 ok')", two="print('BAR two.a 2 s <=3 ok')", _helper="1/0") == 0
    assert "2 bars, 0 short, 0 benchmarks failed" in capsys.readouterr().out


def test_one_short_bar_ends_badly_and_is_repeated_last(ends, capsys):
    assert ends(one="print('BAR one.a 4 s <=3 short')", two="print('BAR two.a 2 s <=3 ok')") == 1
    assert capsys.readouterr().out.splitlines()[-1].strip() == "BAR one.a 4 s <=3 short"


def test_a_benchmark_that_breaks_does_not_stop_the_others(ends, capsys):
    assert ends(one="raise SystemExit(3)", two="print('BAR two.a 2 s <=3 ok')") == 1
    assert "1 bars, 0 short, 1 benchmarks failed" in capsys.readouterr().out


def test_one_benchmark_is_run_by_its_name(ends):
    assert ends("two", one="raise SystemExit(3)", two="print('BAR two.a 2 s <=3 ok')") == 0


def test_an_unknown_name_tells_the_known_ones(ends, capsys):
    assert ends("oen", one="") == 2
    assert "one" in capsys.readouterr().err


def test_a_figure_is_scaled_by_the_slowness_of_the_machine():
    slow = machine.slowness(2 * machine.REFERENCE, 2 * machine.REFERENCE)
    assert machine.scaled(10, slow) == 5
    assert machine.scaled(10, slow, per_second=True) == 20


LOADS = {"dense": {}, "thin": {"thin": True}, "of many sellers": {"sellers": 40_000}}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_load_holds_what_it_is_expected_to(load):
    found, repeated, rejected = Counter(), 0, 0
    seen: set[str] = set()
    for chunk in _events.chunks(events=30_000, per_chunk=7_000, **load):
        batch = decode(chunk)
        rejected += len(batch.rejected)
        names, kinds = (batch.columns[column].to_pylist() for column in ("message_id", "kind"))
        for name, kind in zip(names, kinds, strict=True):
            repeated += name in seen
            found[kind] += name not in seen
            seen.add(name)
    expected = _events.expected(events=30_000)
    assert (dict(found), repeated, rejected) == (expected.kinds, expected.duplicates, expected.invalid)


def test_a_load_is_as_long_as_asked_for_and_the_same_again():
    chunks = list(_events.chunks(events=25_000, per_chunk=10_000, seed=3))
    assert [chunk.count(b"\n") for chunk in chunks] == [10_000, 10_000, 5_000]
    assert chunks == list(_events.chunks(events=25_000, per_chunk=10_000, seed=3))
    assert sum(map(len, chunks)) / 25_000 == pytest.approx(390, rel=0.05)


def test_two_loads_share_no_message():
    one, other = (b"".join(_events.chunks(events=5_000, seed=seed)) for seed in (1, 2))
    assert not set(re.findall(rb"<\w+@", one)) & set(re.findall(rb"<\w+@", other))


def test_traffic_is_dense_or_spread_over_a_week():
    for thin, spread in ((False, timedelta(minutes=0.2)), (True, timedelta(days=7))):
        at = decode(b"".join(_events.chunks(events=10_000, thin=thin))).columns["at"]
        most = datetime.fromtimestamp(max(at) / 1e6, UTC)
        usual = datetime.fromtimestamp(sorted(at)[200] / 1e6, UTC)  # the first are the ones that come hours late
        assert most <= _events.UNTIL
        assert spread * 0.95 < most - usual + spread / 50 < spread * 1.05


def test_a_store_filled_in_bulk_answers_alike_from_grains_and_from_raw_events(tmp_path):
    ours = (sys.executable, "-m", "benchmarks.queries", tmp_path, 30_000)
    with _peers.child(*ours) as store:
        (tmp_path / "rows").mkdir()
        store.ask(fill=str(tmp_path / "rows"))
        for name in questions(_stored.DAYS):
            assert store.ask(name=name, way="grains")["said"] == store.ask(name=name, way="raw")["said"], name


def test_the_pandas_peer_stores_what_there_is(tmp_path):
    events = tmp_path / "events.ndjson"
    events.write_bytes(b"".join(_events.chunks(events=20_000)))
    peer = [sys.executable, _peers.PEERS / "pandas_parquet.py", events, tmp_path / "out"]
    told = json.loads(subprocess.run(peer, check=True, stdout=subprocess.PIPE).stdout)
    expected = _events.expected(events=20_000)
    assert (told["stored"], told["duplicates"], told["rejected"]) == (
        expected.events,
        expected.duplicates,
        expected.invalid,
    )
    counts = pq.read_table(tmp_path / "out" / "hour-00000.parquet")
    assert {kind: pc.sum(counts[kind]).as_py() for kind in expected.kinds} == expected.kinds
