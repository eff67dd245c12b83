"""``mailvane explain`` says of any file what its letters are, and shows nothing that commands a terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from monitor.cli import cli
from tests import loops
from tests.bombs import FAILED, report_of
from tests.letters import BOUNCE, BROKEN, COMPLAINT, SPAM, VACATION, forms, letter, recipient

AT = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
LINE = b"From MAILER-DAEMON Tue Nov 24 09:00:00 2026\n"


def explained(*arguments: str | Path, given: bytes = b"") -> Result:
    return CliRunner().invoke(cli, ["explain", *map(str, arguments)], input=given)


def told(*arguments: str | Path, given: bytes = b"") -> list[dict]:
    done = explained("--json", *arguments, given=given)
    assert done.exit_code == 0
    return [json.loads(line) for line in done.output.splitlines()]


@pytest.mark.parametrize("form", range(forms(BOUNCE)))
def test_a_bounce_is_told_with_each_recipient_and_what_decided(form):
    (one,) = told("-", given=letter(BOUNCE, 7, AT, form=form).content)
    assert one["is"] == "bounce"
    assert [each["recipient"] for each in one["recipients"]] == [recipient(7)]
    assert all(each["class"] and each["decided_by"] for each in one["recipients"])


def test_a_complaint_is_told_with_its_reporter_and_without_a_verdict(tmp_path):
    (tmp_path / "a.eml").write_bytes(loops.complaint(1, AT))
    (one,) = told(tmp_path / "a.eml")
    assert (one["is"], one["type"], one["reporter"]) == ("complaint", "abuse", loops.REPORTER)
    assert "only a good signature" in one["sender"]


@pytest.mark.parametrize("kind", [VACATION, SPAM])
def test_what_is_neither_is_told_with_the_reason(kind):
    (one,) = told("-", given=letter(kind, 1, AT).content)
    assert one["is"] == "nothing"
    assert one["why"]


def test_an_mbox_is_told_letter_by_letter(tmp_path):
    box = tmp_path / "box"
    kinds = (BOUNCE, SPAM, COMPLAINT, BROKEN)
    box.write_bytes(
        b"".join(LINE + letter(kind, n, AT).content.replace(b"\r\n", b"\n") + b"\n" for n, kind in enumerate(kinds))
    )
    found = told(box)
    assert [one["letter"] for one in found] == [1, 2, 3, 4]
    assert [one["is"] for one in found][:3] == ["bounce", "nothing", "complaint"]


def test_people_get_lines_and_a_terminal_no_commands():
    done = explained("-", given=report_of(FAILED % b"550 5.1.1 \x1b]0;mine\x07 no such user \x9b1m"))
    assert done.exit_code == 0
    assert "jo@example.net" in done.output
    assert "invalid_recipient" in done.output
    assert all(each.isprintable() or each == "\n" for each in done.output)


@pytest.mark.parametrize("given", [b"", b"\n\n", b"\0\0", b"\xff" * 300])
def test_nothing_and_noise_are_told_as_such(given):
    done = explained("-", given=given)
    assert done.exit_code == 0
    assert "nothing (" in done.output


def test_a_file_that_is_not_there_is_an_error_and_the_others_are_told(tmp_path):
    (tmp_path / "a.eml").write_bytes(letter(BOUNCE, 1, AT).content)
    done = explained(tmp_path / "nowhere", tmp_path / "a.eml")
    assert done.exit_code == 1
    assert "nowhere can't be read: No such file or directory" in done.output
    assert "a.eml, letter 1: bounce" in done.output
