"""The house stands: no circle of imports, and time comes in by one door."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("monitor", "collectors", "detectors", "alerts", "dashboards")
# The composition roots; the command line and the simulator ask for their own pacing.
MAY_ASK = ("monitor/service.py", "monitor/gate.py", "monitor/cli_kit.py", "monitor/simulator/")
CLOCKS = {
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "datetime.date.today",
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "time.ctime",
}


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def clocks(source: str) -> list[int]:
    """The lines on which a module names the wall clock, by whatever name it was imported."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name) and _full_name(node, names) in CLOCKS
    ]


def _full_name(node: ast.expr, names: dict[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=value, attr=attribute):
            return f"{_full_name(value, names)}.{attribute}"
    return ""


def test_only_the_composition_roots_ask_a_clock():
    asking = [
        f"{name}:{line}"
        for path in modules()
        if not (name := str(path.relative_to(ROOT))).startswith(MAY_ASK)
        for line in clocks(path.read_text("utf-8"))
    ]
    assert asking == []


def test_a_clock_is_found_under_any_name():
    assert clocks("import datetime as d\nd.datetime.now(d.UTC)") == [2]
    assert clocks("from datetime import datetime as dt, UTC\nx = dt.now") == [2]
    assert clocks("from time import time\ntime()") == [2]
    assert clocks("import time\ntime.monotonic()\nnow.time()") == []


def test_no_circle_of_imports():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        circle = " → ".join(error.args[1])
    else:
        circle = ""
    assert circle == ""


def test_every_module_of_ours_is_in_a_package_that_is_shipped():
    strays = [str(path.parent.relative_to(ROOT)) for path in modules() if not (path.parent / "__init__.py").is_file()]
    assert strays == []


def test_importing_the_package_imports_nothing():
    assert (ROOT / "monitor" / "__init__.py").read_text("utf-8").strip() == ""
