"""What is tested is what was said: the tree, or the wheel as a user installs it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("monitor", "collectors", "detectors", "alerts", "dashboards", "mailvane_client")
CHECKOUT = Path(os.environ.get("MAILVANE_CHECKOUT", Path(__file__).parent.parent)).resolve()
INSTALLED = "MAILVANE_INSTALLED" in os.environ


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_under_test_is_the_one_meant(package):
    module = importlib.import_module(package)
    place = Path(module.__file__).resolve()
    assert place.is_relative_to(CHECKOUT) != INSTALLED


def test_nothing_of_the_checkout_is_on_the_path_of_an_installation():
    ours = [place for place in map(Path, sys.path) if place.resolve() == CHECKOUT]
    assert not (INSTALLED and ours)


def test_types_are_shipped():
    assert (Path(importlib.import_module("monitor").__file__).parent / "py.typed").is_file()


def test_the_page_is_shipped_whole():
    page = Path(importlib.import_module("dashboards").__file__).parent / "page"
    in_the_checkout = CHECKOUT / "dashboards" / "page"
    files = {str(file.relative_to(in_the_checkout)) for file in in_the_checkout.rglob("*") if file.is_file()}
    assert files <= {str(file.relative_to(page)) for file in page.rglob("*") if file.is_file()}


def test_the_command_is_installed_and_tells_its_version():
    command = Path(sys.executable).with_name("mailvane")
    told = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert importlib.metadata.version("mailvane") in told


def test_the_client_stands_alone(tmp_path):
    """A sender takes the one file with it, to a place where nothing else of ours is."""
    client = Path(importlib.import_module("mailvane_client").__file__)
    (tmp_path / client.name).write_bytes(client.read_bytes())
    alone = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import mailvane_client",
    ]
    subprocess.run(alone, check=True, timeout=60)
