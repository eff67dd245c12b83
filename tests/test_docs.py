"""The documents keep up with the code: what is pluggable has its page, what is linked exists, no place is named."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import trustme

from docs import _settings as settings
from monitor.cli import cli
from monitor.config import ConfigError, parse
from monitor.ports import Plugin

ROOT = Path(__file__).resolve().parent.parent
# Public names of what packages are fetched from: a lock file or a recipe that names one works only where it is reached.
REGISTRIES = re.compile(
    r"\b(?:pypi|npmjs|rubygems|conda|debian|docker|ghcr|quay)[.](?:org|com|io)\b|\bpythonhosted[.]org\b", re.IGNORECASE
)
# Folders in which somebody's checkout stands; the place of this one is added.
PLACES = re.compile(r"(?<![\w.~-])/(?:work|root|tmp|home/\w+|Users/\w+)/")
# What is in the repository, for those who have it without git.
FOLDERS = ("alerts", "benchmarks", "collectors", "dashboards", "deploy", "detectors", "docs", "monitor", "tests")
OURS = ("*.*", "Makefile", *(f"{folder}/**/*" for folder in FOLDERS))
LINK = re.compile(r"!?\[[^\]\n]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
FENCE = re.compile(r"^ {0,3}```(\w*)\n(.*?)^ {0,3}```", re.DOTALL | re.MULTILINE)


def committed() -> list[Path]:
    """Every file that is, or is about to be, in the repository."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git here, or not a clone
        return [
            path for folder in OURS for path in ROOT.glob(folder) if path.is_file() and "__pycache__" not in path.parts
        ]
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    """Committed files that are text, with their contents."""
    for path in committed():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            yield path, content.decode("utf-8", "replace")


def pages() -> list[Path]:
    return [path for path in committed() if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def plugins() -> dict[str, type[Plugin]]:
    return dict(settings.plugins())


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings answer to, as repository hosts make them."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_lines(page: Path) -> list[str]:
    """The commands in a page's shell blocks, without comments; a continued line is one."""
    blocks = (body for language, body in FENCE.findall(page.read_text("utf-8")) if language == "sh")
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [bare for line in lines if (bare := line.split(" #")[0].strip()) and not bare.startswith("#")]


@pytest.mark.parametrize("kind", sorted(plugins()))
def test_every_plugin_has_its_page_with_its_settings(kind):
    page = (ROOT / "docs" / "plugins" / f"{kind}.md").read_text("utf-8")
    assert page == settings.filled(page, plugins()[kind]), "call `make docs`"


def test_every_page_of_a_plugin_is_about_one_that_exists():
    described = {page.stem for page in (ROOT / "docs" / "plugins").glob("*.md")} - {"README"}
    assert described <= set(plugins())


def decisions() -> list[Path]:
    return sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))


@pytest.mark.parametrize("decision", decisions(), ids=lambda path: path.stem)
def test_a_decision_tells_context_decision_and_consequences_on_one_page(decision):
    lines = decision.read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("## ")] == ["## Context", "## Decision", "## Consequences"]
    assert len(lines) <= 60


def test_decisions_are_numbered_without_a_gap_and_listed():
    listed = (ROOT / "docs" / "adr" / "README.md").read_text("utf-8")
    assert [int(path.name[:4]) for path in decisions()] == list(range(1, len(decisions()) + 1))
    assert [path.name for path in decisions() if f"({path.name})" not in listed] == []


def test_every_dependency_is_justified():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = project["dependency-groups"].values()
    wanted = [*project["project"]["dependencies"], *(entry for group in groups for entry in group)]
    names = {re.split(r"[\s<>=!~;\[]", entry)[0] for entry in wanted if isinstance(entry, str)}
    page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    justified = set(re.findall(r"^\| `?([\w.-]+)`? \|", page, re.MULTILINE)) - {"package"}
    assert justified == names


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_relative_links_lead_somewhere(page):
    dead = []
    for target in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (fragment and there.suffix == ".md" and fragment not in anchors(there)):
            dead.append(target)
    assert dead == []


def test_no_file_names_a_place_on_a_machine_or_a_package_registry():
    here = re.compile(re.escape(f"{ROOT}/"))
    found = [
        f"{name_of(path)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for path, text in texts()
        for pattern in (PLACES, REGISTRIES, here)
        for match in pattern.finditer(text)
    ]
    assert found == []


def test_every_target_of_make_that_a_page_names_exists():
    targets = set(re.findall(r"^([a-z.-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    called = {
        (name_of(page), word)
        for page in pages()
        for line in shell_lines(page)
        if line.startswith("make ")
        for word in line.split()[1:2]
        if "=" not in word
    }
    assert {(page, target) for page, target in called if target not in targets} == set()


def wrong_in(words: list[str]) -> str:
    """What the command line has against these words; values are not looked at."""
    here: click.Command = cli
    try:
        while isinstance(here, click.Group):
            _, words, _ = here.make_parser(click.Context(here)).parse_args(words)
            if not words or words[0] not in here.commands:
                return f"no command {' '.join(words[:1])}"
            here, words = here.commands[words[0]], words[1:]
        given, _, _ = here.make_parser(click.Context(here)).parse_args(words)
    except click.UsageError as error:
        return error.format_message()
    missing = [one.name for one in here.params if one.required and given.get(one.name or "") in (None, ())]
    return f"without {missing[0]}" if missing else ""


def test_every_command_of_mailvane_that_a_page_names_exists():
    called = [
        (name_of(page), shlex.split(line)) for page in pages() for line in shell_lines(page) if "mailvane " in line
    ]
    wrong = [
        f"{page}: {shlex.join(words)}: {said}"
        for page, words in called
        if Path(words[0]).name == "mailvane" and (said := wrong_in(words[1:]))
    ]
    assert wrong == []


def test_an_invented_command_is_wrong():
    assert wrong_in(["pause", "tenant=s07", "--why", "x"]) == ""
    assert wrong_in(["stop", "tenant=s07"]) == "no command stop"
    assert "--until" in wrong_in(["pause", "tenant=s07", "--why", "x", "--until", "9"])
    assert wrong_in(["pause", "tenant=s07"]) == "without why"


def configurations() -> list[tuple[str, str]]:
    """Every configuration that a page shows, with the page's name."""
    return [
        (name_of(page), body)
        for page in pages()
        for language, body in FENCE.findall(page.read_text("utf-8"))
        if language == "toml"
    ]


@pytest.mark.parametrize(("page", "body"), configurations())
def test_a_configuration_that_a_page_shows_is_valid(page, body, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + 32 * "A" if "[webhook." in body else "xoxb-1\n")
    here = re.sub(r'(_file = )"[^"]+"', rf'\1"{secret}"', body)
    made = trustme.CA().issue_cert("mailvane.example").private_key_and_cert_chain_pem
    made.write_to_path(tmp_path / "both.pem")
    here = re.sub(r'(tls_(cert|key) = )"[^"]+"', rf'\1"{tmp_path / "both.pem"}"', here)
    try:
        problems = parse(tomllib.loads(here), page, {}) and ()
    except ConfigError as error:
        problems = error.problems
    assert [str(problem) for problem in problems] == []
