"""The settings table of each plugin's page, made from its model: ``make docs`` puts them in, a test sees that they are.

A table stands between ``<!-- settings -->`` and ``<!-- /settings -->``.
"""  # noqa: INP001  # a script beside the pages it writes

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from monitor.plugins import kinds, load
from monitor.ports import Actuator, Detector, Notifier, Plugin, Source

PAGES = Path(__file__).parent / "plugins"
PORTS: Mapping[str, type[Plugin]] = {
    "collectors": Source,
    "detectors": Detector,
    "alerts": Notifier,
    "monitor.actuators": Actuator,
}
_PLACE = re.compile(r"(<!-- settings -->\n).*?(<!-- /settings -->)", re.DOTALL)
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", timedelta: "duration"}
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def plugins() -> Iterator[tuple[str, type[Plugin]]]:
    """Every kind with its class, package after package."""
    for package, port in PORTS.items():
        if (PAGES.parent.parent / package.replace(".", "/")).is_dir():
            yield from ((kind, load(package, kind, port)) for kind in kinds(package))


def table(plugin: type[Plugin]) -> str:
    """The settings as a Markdown table, or the sentence that there are none."""
    rows = [_row(plugin, name, field) for name, field in plugin.model_fields.items()]
    if not rows:
        return "It has no settings of its own.\n"
    return "\n".join(["| key | is | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def filled(page: str, plugin: type[Plugin]) -> str:
    """The page with the table in its place.

    Raises:
        ValueError: the page has no place for it.
    """
    if not _PLACE.search(page):
        raise ValueError("the page has no <!-- settings --> … <!-- /settings -->")
    return _PLACE.sub(lambda found: found[1] + table(plugin) + found[2], page)


def _row(plugin: type[Plugin], name: str, field: FieldInfo) -> str:
    secret = name in plugin.secrets
    key = f"`{name}_file`" if secret else f"`{name}`"
    sort = "path of a file with the secret" if secret else _sort(field.annotation)
    default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
    return f"| {key} | {sort} | {default} | {(field.description or '').replace('|', '&#124;')} |"


def _sort(annotation: Any) -> str:
    """What a person writes for a value of this type."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _sort(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_sort(one) for one in inner if one is not type(None))
    if origin is Literal:
        return _choice(inner)
    return _collection(origin, inner) if isinstance(origin, type) else _single(annotation)


def _collection(origin: type, inner: Sequence[Any]) -> str:
    if inner == (str, int):
        return "address"
    return f"table of {_sort(inner[1])}" if issubclass(origin, Mapping) else f"list of {_sort(inner[0])}"


def _single(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _choice([one.value for one in annotation])
    return _WORDS.get(annotation, "text")


def _choice(values: Sequence[Any]) -> str:
    return " or ".join(f'`"{one}"`' for one in values)


def _default(value: Any) -> str:
    if value is None or (isinstance(value, Sequence | Mapping) and not value):
        return "none"
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        size, unit = next(one for one in _UNITS if seconds % one[0] == 0) if seconds % 1 == 0 and seconds else (1, "s")
        return f'`"{seconds / size:g}{unit}"`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Mapping):
        return "see below"
    if isinstance(value, list | tuple):
        return f"`{[str(one) for one in value]}`".replace("'", '"')
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{number}`" if isinstance(value, int | float) else f'`"{value}"`'


def main() -> int:
    """Put the tables into all pages; 1 when a page is missing or has no place for it."""
    wrong = 0
    for kind, plugin in plugins():
        page = PAGES / f"{kind}.md"
        try:
            page.write_text(filled(page.read_text("utf-8"), plugin), "utf-8")
        except (OSError, ValueError) as error:
            print(f"docs/plugins/{kind}.md: {error}", file=sys.stderr)  # noqa: T201
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
