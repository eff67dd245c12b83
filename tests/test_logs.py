"""What is logged of a fault names nobody, whatever a library quotes."""

from __future__ import annotations

import logging
import sys

import pytest

from monitor.logs import Json, Plain


@pytest.mark.parametrize("formatter", [Json(), Plain()])
def test_a_traceback_says_where_and_hides_addresses(formatter: logging.Formatter) -> None:
    try:
        int("jo.bloggs@example.com " + "x" * 10_000)
    except ValueError:
        record = logging.LogRecord("test", logging.ERROR, __file__, 1, "fault", None, sys.exc_info())
    told = formatter.format(record)
    assert "test_a_traceback_says_where" in told
    assert "…@example.com" in told
    assert "bloggs" not in told
    assert len(told) < 3000
