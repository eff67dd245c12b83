"""Find a plugin by its kind: the folder is the registry (ADR 6)."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

from monitor.ports import Plugin

P = TypeVar("P", bound=Plugin)


def kinds(package: str) -> tuple[str, ...]:
    """The kinds that a folder offers, sorted; modules whose name begins with _ are helpers."""
    folder = importlib.import_module(package)
    return tuple(sorted(found.name for found in pkgutil.iter_modules(folder.__path__) if found.name[0] != "_"))


def load(package: str, kind: str, port: type[P]) -> type[P]:
    """The one class in ``package/kind.py`` that implements ``port``.

    Raises:
        LookupError: no such kind (the message names those that exist), or not exactly one such class in it.
    """
    offered = kinds(package)
    if kind not in offered:
        raise LookupError(f"{kind!r} is no kind here: choose one of {', '.join(offered)}")
    module = importlib.import_module(f"{package}.{kind}")
    found = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, port) and thing.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise LookupError(f"{package}/{kind}.py holds {len(found)} classes of {port.__name__}, not one")
    return found[0]
