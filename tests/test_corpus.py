"""Bounces that others labelled: the bars hold, where their corpus is at hand."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collectors._bounce import bounced, clues
from collectors._mail import read

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("MAILVANE_SHARED") or ROOT.parent / "shared")
CORPUS = SHARED / "corpus"
here = pytest.mark.skipif(not (CORPUS / "truth").is_dir(), reason="the shared corpus of real mail is not here")
checkout = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="no checkout: the evaluation is not installed")


@pytest.fixture(scope="module")
def bars():
    """Name → whether it holds, of ``make eval NAME=bounces``."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.eval.bounces"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    return dict(re.findall(r"^BAR eval\.(\w+) .* (ok|short)$", done.stdout, re.MULTILINE)) | {"output": done.stdout}


@here
@checkout
@pytest.mark.parametrize("name", ["recipients", "status", "flufl", "reason", "hard", "false_bounces"])
def test_a_bar_over_the_labelled_bounces_holds(bars, name):
    assert bars[name] == "ok", bars["output"]


@here
def test_every_real_mail_is_read_in_time():
    for path in sorted(path for path in CORPUS.rglob("*") if path.is_file() and path.stat().st_size < 5_000_000):
        raw = path.read_bytes()
        began = time.process_time()
        mail = read(raw)
        bounced(mail)
        clues(mail)
        assert time.process_time() - began < 2, path


@here
def test_line_ends_change_nothing():
    for path in sorted((CORPUS / "bounce").rglob("maildir/bsd/*.eml"))[::7]:
        raw = path.read_bytes()
        if b"\r" in raw:
            continue
        told = [(one.recipient, one.status, one.code) for one in bounced(read(raw))]
        for end in (b"\r\n", b"\r"):
            other = bounced(read(raw.replace(b"\n", end)))
            assert [(one.recipient, one.status, one.code) for one in other] == told, path
