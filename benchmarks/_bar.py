"""One line a measured bar: ``BAR <bench.figure> <value> <unit> <must> ok|short``."""

from __future__ import annotations

import operator

_MUSTS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}


def bar(name: str, value: float, unit: str, must: str) -> bool:
    """Print the bar, and whether it holds: ``bar("sendlog.lines_ratio", 3.2, "ratio", ">=1")``.

    Raises:
        ValueError: ``must`` is not a comparison and a number without a blank.
    """
    sign = must.rstrip("0123456789.eE+-_")
    if sign not in _MUSTS:
        raise ValueError(f"{must!r} is no bar: write a comparison and a number, such as >=1.5")
    holds = bool(_MUSTS[sign](value, float(must.removeprefix(sign))))
    print(f"BAR {name} {value:.6g} {unit} {must} {'ok' if holds else 'short'}", flush=True)
    return holds
