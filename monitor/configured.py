"""What a configuration says, line by line and without its secrets; and what of it changed, for the access log."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr
from sqlalchemy import Connection

from monitor.core.rules import Rule
from monitor.ledger import access_log
from monitor.ledger.access_log import Entry
from monitor.ports import Plugin
from monitor.scrub import scrub
from monitor.settings import Settings

FIRST, CHANGED = "configuration first seen", "configuration changed"
WHO = "mailvane"

_SECTIONS = {
    "guard_limits": "guards",
    "collectors": "collector",
    "alerts": "alert",
    "actuators": "actuator",
    "webhooks": "webhook",
}
_APART = ("source", "rules", "secret_files")
_UNITS = {"d": 86400, "h": 3600, "m": 60}
_LONGEST = 500  # characters of a value
_WHO_OF_URL = re.compile(r"(?<=://)[^/@\s]+@")
_KEY_OF_URL = re.compile(r"([?&][^=&\s]*(?:key|token|secret|pass|sig|auth)[^=&\s]*=)[^&#\s]+", re.IGNORECASE)


def lines(settings: Settings) -> list[str]:
    """All that is in force, defaults too, such as ``rule.bounce-seller.pause = 0.1``; sorted.

    Of a secret it says whether there is one, and the file that it is from.
    """
    told = [
        line
        for field in fields(settings)
        if field.name not in _APART
        for line in _lines(_SECTIONS.get(field.name, field.name), getattr(settings, field.name))
    ]
    told += [line for rule in settings.rules for line in _rule(rule)]
    told += [f"{path} = {_text(file)}" for path, file in settings.secret_files.items()]
    return sorted(set(told))


def note(conn: Connection, settings: Settings, now: datetime) -> None:
    """Write into the access log what changed since the last start; nothing where nothing did."""
    known = _known(conn)
    found = lines(settings)
    if known == found:
        return
    diff = [line.rstrip("\n") for line in difflib.unified_diff(known or [], found, "before", "now", lineterm="", n=0)]
    details = {
        "diff": [line for line in diff if not line.startswith("@@")] if known is not None else [],
        "lines": found,
    }
    access_log.append(conn, Entry(now, WHO, FIRST if known is None else CHANGED, settings.source, "done", details))


def _known(conn: Connection) -> list[str] | None:
    """The lines as they were at the last entry that tells of them."""
    last = access_log.newest(conn, 1, who=WHO, did="configuration ")
    kept = last[0].details.get("lines") if last else None
    return list(kept) if isinstance(kept, list) else None


def _rule(rule: Rule) -> Iterator[str]:
    path = f"rule.{rule.name}"
    for field in fields(rule):
        if field.name != "name":
            yield from _lines(path if field.name == "detector" else f"{path}.{field.name}", getattr(rule, field.name))


def _lines(path: str, value: object) -> Iterator[str]:
    if isinstance(value, Plugin):
        yield f"{path}.kind = {_text(type(value).__module__.rpartition('.')[2])}"
    if isinstance(value, BaseModel):
        secret = getattr(value, "secrets", ())
        for name in type(value).model_fields:
            inner = getattr(value, name)
            yield from _lines(f"{path}.{name}", SecretStr(str(inner or "")) if name in secret else inner)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _lines(f"{path}.{scrub(str(name), _LONGEST)}", inner)
    else:
        yield f"{path} = {_text(_plain(value))}"


def _plain(value: object) -> Any:
    """As JSON can hold it, without what is secret."""
    if value is None or isinstance(value, bool | int | float):
        return value
    told = next((tell for kinds, tell in _TOLD if isinstance(value, kinds)), None)
    return told(value) if told else f"({type(value).__name__})"


def _span(seconds: float) -> str:
    """As it may be written in the file; exact, so that no change is rounded away."""
    whole = ((unit, size) for unit, size in _UNITS.items() if seconds and seconds % size == 0)
    unit, size = next(whole, ("s", 1))
    return f"{seconds / size:.15g}{unit}"


def _open(text: str) -> str:
    return scrub(_KEY_OF_URL.sub(r"\1…", _WHO_OF_URL.sub("…@", text)), _LONGEST)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# The first that fits: an enumeration's value may be a text, and a text is a sequence.
_TOLD: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((SecretStr, SecretBytes), lambda secret: "(set)" if secret.get_secret_value() else "(none)"),
    (timedelta, lambda length: _span(length.total_seconds())),
    (Enum, lambda one: str(one.value)),
    ((str, PurePath), lambda text: _open(str(text))),
    (re.Pattern, lambda pattern: _open(pattern.pattern)),
    (BaseModel, lambda model: {name: _plain(getattr(model, name)) for name in type(model).model_fields}),
    (Mapping, lambda table: {_open(str(name)): _plain(value) for name, value in table.items()}),
    ((set, frozenset), lambda some: sorted((_plain(one) for one in some), key=str)),
    (Collection, lambda some: [_plain(one) for one in some]),
)
