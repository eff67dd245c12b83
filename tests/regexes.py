"""Every regular expression of the product, and texts that would make a bad one slow."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import alerts
import collectors
import dashboards
import detectors
import mailvane_client
import monitor

PACKAGES = (monitor, collectors, detectors, alerts, dashboards)
CALLS = frozenset(("compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"))
ANCHORED = frozenset(("match", "fullmatch"))
_OURS = frozenset((*(package.__name__ for package in PACKAGES), mailvane_client.__name__))
_MANY = 5_000  # things of one container
_DEEP = 4  # containers in containers in which a module may keep its patterns
_LONGEST = 0.3  # seconds that one try gets
_GROWTH = 7  # times for four times as many letters: 4 where it is linear, 16 where it is quadratic
_PARSER: Any = re._parser  # type: ignore[attr-defined]  # what the engine itself sees


@dataclass(frozen=True)
class Found:
    """A pattern; where it stands. ``anchored``: it is only tried at one place of a text, by match or fullmatch."""

    where: str
    pattern: re.Pattern[Any]
    anchored: bool = False


def modules() -> Iterator[ModuleType]:
    """All of ours, loaded."""
    yield mailvane_client
    for package in PACKAGES:
        yield package
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(info.name)


def patterns() -> tuple[list[Found], list[str]]:
    """All patterns, each once; and those that are made of something only known when the product runs, as written."""
    found: dict[tuple[Any, int, bool], Found] = {}
    unknown: list[str] = []
    loaded = [(module, ast.parse(Path(str(module.__file__)).read_text("utf-8"))) for module in modules()]
    uses: dict[str, set[str]] = {}
    for module, tree in loaded:
        for name, ways in _uses(tree).items():
            uses.setdefault(_place(module, name), set()).update(ways)
    for module, tree in loaded:
        for name, pattern in held(vars(module), module.__name__):
            ways = uses.get(_place(module, re.split(r"[.\[]", name)[0]), set())
            one = Found(f"{module.__name__}:{name}", pattern, anchored=bool(ways) and ways <= ANCHORED)
            found.setdefault((pattern.pattern, pattern.flags, one.anchored), one)
        for line, way, argument, flags in _calls(tree):
            where = f"{module.__name__}:{line}"
            pattern = _evaluated(argument, flags, vars(module))
            if pattern is None:
                unknown.append(f"{module.__name__}: {ast.unparse(argument)}")
            elif way != "compile" or not any(key[:2] == (pattern.pattern, pattern.flags) for key in found):
                one = Found(where, pattern, way in ANCHORED)
                found.setdefault((pattern.pattern, pattern.flags, one.anchored), one)
    return list(found.values()), unknown


def _evaluated(argument: ast.expr, flags: ast.expr | None, names: dict[str, Any]) -> re.Pattern[Any] | None:
    """The pattern that our own source names, if what it is made of is in the module."""
    try:
        text, options = (
            eval(compile(ast.Expression(one), "ours", "eval"), names) if one else 0 for one in (argument, flags)
        )
        return re.compile(text, options)
    except (NameError, TypeError):
        return None


def _place(module: ModuleType, name: str) -> str:
    """A name of all modules; one that begins with _ is its module's own."""
    return f"{module.__name__}:{name}" if name.startswith("_") else name


def held(names: Mapping[str, Any], module: str) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Patterns in the names of a module, in its containers, and in its classes and their instances."""
    seen: set[int] = set()

    def walk(name: str, value: Any, depth: int) -> Iterator[tuple[str, re.Pattern[Any]]]:
        if isinstance(value, re.Pattern):
            yield name, value
        elif depth and id(value) not in seen:
            seen.add(id(value))
            for label, one in _inside(name, value, module):
                yield from walk(label, one, depth - 1)

    for name, value in list(names.items()):
        if not name.startswith("__"):
            yield from walk(name, value, _DEEP)


def _inside(name: str, value: Any, module: str) -> list[tuple[str, Any]]:
    """What a container, a class of the module or an instance of ours holds, with names for it."""
    if isinstance(value, Mapping):
        return [(f"{name}[{key!r}]", one) for key, one in islice(value.items(), _MANY)]
    if isinstance(value, tuple | list | set | frozenset):
        return [(f"{name}[{number}]", one) for number, one in enumerate(islice(value, _MANY))]
    if isinstance(value, type):
        return [(f"{name}.{key}", one) for key, one in vars(value).items()] if value.__module__ == module else []
    if type(value).__module__.partition(".")[0] in _OURS:
        slots = [key for kind in type(value).__mro__ for key in getattr(kind, "__slots__", ())]
        own = {**getattr(value, "__dict__", {}), **{key: getattr(value, key, None) for key in slots}}
        return [(f"{name}.{key}", one) for key, one in own.items()]
    return []


def _calls(tree: ast.AST) -> Iterator[tuple[int, str, ast.expr, ast.expr | None]]:
    """Calls of ``re``: line, function, pattern, flags."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="re"), attr=way), args=[first, *rest], keywords=keywords
            ) if way in CALLS:
                place = {"compile": 0, "sub": 3, "subn": 3, "split": 2}.get(way, 1)
                named = next((keyword.value for keyword in keywords if keyword.arg == "flags"), None)
                yield node.lineno, way, first, named or (rest[place] if len(rest) > place else None)


def _uses(tree: ast.AST) -> dict[str, set[str]]:
    """Names, and what is done with them, as far as one of a pattern's methods may be meant."""
    uses: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            uses.setdefault(node.id, set())
    calls = {id(node.value): node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            uses[node.id].add(calls.get(id(node), "handed on"))
    return uses


def attacks(pattern: re.Pattern[Any], limit: int) -> list[tuple[str, str, str]]:
    """Texts to try, as what stands first, what is repeated, and what stands last so that no match is found."""
    tree = _PARSER.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
    letters = list(dict.fromkeys(_letters(tree)))[:24] or ["a"]
    places = list(_repeats(tree, ""))
    roads = [_pumped(before, [*_samples(body), *letters]) for before, body in places[:40]]
    roads.append(_pumped("", [one + other for one in letters for other in letters[:6]]))  # words that overlap
    # A few of each place rather than all of the first.
    mixed = (one for some in zip_longest(*roads) for one in some if one is not None)
    return list(islice(dict.fromkeys(mixed), limit))


def _pumped(before: str, pumps: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for after in ("\x01", "", "\n", "!"):
        yield from ((before, pump, after) for pump in dict.fromkeys(pumps) if pump)


def _repeats(tree: Any, before: str) -> Iterator[tuple[str, Any]]:
    """Each thing that repeats without a bound worth the name, with the shortest text that leads to it."""
    for op, value in tree:
        name = str(op)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            _, most, body = value
            if most > 8:
                yield before, body
            yield from _repeats(body, before)
        elif name == "SUBPATTERN":
            yield from _repeats(value[3], before)
        elif name == "BRANCH":
            for branch in value[1]:
                yield from _repeats(branch, before)
        elif name in ("ASSERT", "ASSERT_NOT"):
            yield from _repeats(value[1], before)
        elif name == "ATOMIC_GROUP":
            yield from _repeats(value, before)
        before += next(_samples([(op, value)]), "")


def _samples(tree: Any) -> Iterator[str]:
    """A few short texts that a pattern matches, one for each of its branches."""
    texts = [""]
    for op, value in tree:
        texts = [text + more for text in texts for more in islice(_sampled(str(op), value), 6)][:24]
    yield from dict.fromkeys(texts)


def _sampled(name: str, value: Any) -> Iterator[str]:
    if name in ("LITERAL", "NOT_LITERAL", "IN", "ANY", "RANGE", "CATEGORY"):
        yield from _members(name, value)
    elif name == "BRANCH":
        for branch in value[1]:
            yield next(_samples(branch))
    elif name == "SUBPATTERN":
        yield from _samples(value[3])
    elif name == "ATOMIC_GROUP":
        yield from _samples(value)
    elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, body = value
        for text in islice(_samples(body), 3):
            yield text * max(least, min(1, most))
    else:
        yield ""


def _members(name: str, value: Any) -> Iterator[str]:
    """Some of the letters that a class stands for."""
    if name == "LITERAL":
        yield chr(value)
    elif name == "RANGE":
        yield chr(value[0])
    elif name == "CATEGORY":
        yield from {"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " \n", "CATEGORY_WORD": "a0_"}.get(str(value), "a -.")
    elif name == "ANY":
        yield "a"
    elif name == "NOT_LITERAL":
        yield next(letter for letter in "a -" if ord(letter) != value)
    elif str(value[0][0]) == "NEGATE":
        wanted = re.compile(
            "[^" + "".join(re.escape(one) for item in value[1:] for one in _members(str(item[0]), item[1])) + "]"
        )
        yield from (letter for letter in 'a0 .-@<>:,;\n"' if wanted.match(letter))
    else:
        for item in value:
            yield from _members(str(item[0]), item[1])


def _letters(tree: Any) -> Iterator[str]:
    """Letters of a pattern, those of its classes too."""
    for op, value in tree:
        name = str(op)
        if name in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
            yield from islice(_members(name, value), 6)
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            yield from _letters(value[2])
        elif name == "SUBPATTERN":
            yield from _letters(value[3])
        elif name == "BRANCH":
            for branch in value[1]:
                yield from _letters(branch)
        elif name in ("ASSERT", "ASSERT_NOT"):
            yield from _letters(value[1])
        elif name == "ATOMIC_GROUP":
            yield from _letters(value)


def seconds(found: Found, text: str, tries: int = 1) -> float:
    """Processor time to try the pattern on a text as the product does; the shortest of some tries."""
    subject: Any = text.encode("latin-1", "replace") if isinstance(found.pattern.pattern, bytes) else text
    least = float("inf")
    for _ in range(tries):
        began = time.process_time()
        try:
            with _stopped_after(_LONGEST):
                _tried(found, subject)
        except TimeoutError:
            return _LONGEST
        least = min(least, time.process_time() - began)
    return least


def _tried(found: Found, subject: Any) -> None:
    if found.anchored:
        found.pattern.match(subject)
        found.pattern.fullmatch(subject)
    else:
        for _ in found.pattern.finditer(subject):
            pass


@contextmanager
def _stopped_after(limit: float) -> Iterator[None]:
    """TimeoutError after so many seconds of processor time; the engine looks at signals while it works."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def slow(found: Found, limit: int, *, sizes: Sequence[int] = (28, 200, 1_500), enough: float = 0.002) -> str:
    """An attack under which time grows faster than the text, and how; "" where none of ``limit`` attacks does so.

    One that takes less
    than ``enough`` seconds is not looked at further: a linear one needs less for so many letters.
    """
    for before, pump, after in attacks(found.pattern, limit):

        def text(size: int, before: str = before, pump: str = pump, after: str = after) -> str:
            return before + pump * (size // len(pump)) + after

        for size in sizes:
            if (
                seconds(found, text(size)) > enough
                and (took := seconds(found, text(size), 3)) > enough
                and (size < sizes[-1] or took >= _LONGEST or seconds(found, text(4 * size), 2) > _GROWTH * took)
            ):
                return f"{took * 1e3:.1f} ms for {before!r} + {pump!r} * {size // len(pump)} + {after!r}"
    return ""
