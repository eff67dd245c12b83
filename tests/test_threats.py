"""The threat model is kept by tests that exist: each row names one, or says what is left."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "threat-model.md"
NAMED = re.compile(r"`((?:tests|benchmarks)/\w+\.py)(?:::(\w+))?`")


def rows() -> list[str]:
    return [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| [STRIDE] \|", line)]


def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


@pytest.mark.skipif(not PAGE.exists(), reason="the documents are not beside the tests")
def test_each_threat_has_a_test_that_there_is_or_says_what_is_left():
    assert len(rows()) > 40
    for row in rows():
        named = NAMED.findall(row)
        assert named or "*Left:*" in row, row
        for file, test in named:
            assert (ROOT / file).exists(), file
            assert not test or test in names_in(ROOT / file), f"{file}::{test}"


@pytest.mark.skipif(not PAGE.exists(), reason="the documents are not beside the tests")
def test_each_part_of_the_road_was_looked_at_by_every_letter():
    text = PAGE.read_text("utf-8")
    for part in (
        "Raw input",
        "Mailboxes of reports",
        "Spool, facts, ledger, keyring, quarantine",
        "Judge, decide, gate, tiers",
        "Page and API",
    ):
        section = text.split(f"## {part}\n")[1].split("\n## ")[0]
        assert set(re.findall(r"^\| ([STRIDE]) \|", section, re.MULTILINE)) == set("STRIDE"), part
