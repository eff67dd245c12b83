"""What `make bench` says of a bar, and with which status it ends."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as runner
from benchmarks._bar import bar
from benchmarks.peers import machine


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
