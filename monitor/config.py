"""``mailvane.toml`` → settings. All mistakes are reported at once, each with its path and the remedy."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from monitor import tls
from monitor.core.rates import NOT_BY_HOUR, PARTS
from monitor.core.rules import Rule
from monitor.errors import UserError
from monitor.hiding import hide
from monitor.model import LABELS, OWNED
from monitor.plugins import load as load_plugin
from monitor.ports import Actuator, Collector, Detector, Notifier, Plugin, Source
from monitor.settings import (
    DEFAULT_RULES,
    Access,
    Attribution,
    Automation,
    Custody,
    GateSettings,
    GuardLimits,
    Outgoing,
    Protected,
    Quarantine,
    Retention,
    RuleTable,
    Section,
    Service,
    Settings,
    Suppression,
    Tracing,
    Webhook,
)
from monitor.ship_settings import NAME, Ship, ShipSettings, is_loopback

PLACES = (Path("mailvane.toml"), Path("/etc/mailvane/mailvane.toml"))

P = TypeVar("P", bound=Plugin)
M = TypeVar("M", bound=BaseModel)
S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it stands, what is wrong, what to do."""

    path: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" + (f" → {self.remedy}" if self.remedy else "")


class ConfigError(Exception):
    """Every mistake of one configuration."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = f"{len(problems)} mistake" + ("s" if len(problems) > 1 else "")
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in problems)]))


_PLAIN: Mapping[str, tuple[str, type[Section]]] = {
    "service": ("service", Service),
    "access": ("access", Access),
    "outgoing": ("outgoing", Outgoing),
    "quarantine": ("quarantine", Quarantine),
    "keyring": ("keyring", Custody),
    "tracing": ("tracing", Tracing),
    "attribution": ("attribution", Attribution),
    "automation": ("automation", Automation),
    "guards": ("guard_limits", GuardLimits),
    "protected": ("protected", Protected),
    "retention": ("retention", Retention),
    "suppression": ("suppression", Suppression),
}
_PLUGGED: Mapping[str, tuple[str, str, type[Plugin]]] = {
    "collector": ("collectors", "collectors", Source),
    "alert": ("alerts", "alerts", Notifier),
    "actuator": ("actuators", "monitor.actuators", Actuator),
}


def find(given: Path | None, env: Mapping[str, str] = os.environ) -> Path | None:
    """The configuration file: as given, from ``$MAILVANE_CONFIG``, here, or in /etc; None when there is none."""
    if given:
        return given
    if env.get("MAILVANE_CONFIG"):
        return Path(env["MAILVANE_CONFIG"])
    return next((place for place in PLACES if place.is_file()), None)


def load(path: Path | None, env: Mapping[str, str] = os.environ) -> Settings:
    """Settings from a file; the defaults where ``path`` is None.

    Raises:
        ConfigError: with every mistake in it.
    """
    return parse(*_tables(path), env)


def load_gate(path: Path | None, env: Mapping[str, str] = os.environ) -> GateSettings:
    """What of a file concerns the gate, so that it loads no plugin but its own.

    Raises:
        ConfigError: with every mistake in those sections.
    """
    tables, source = _tables(path)
    problems: list[Problem] = []
    service = _section(Service, tables, "service", env, problems)
    access = _section(Access, tables, "access", env, problems)
    problems.extend(_check_doors(service, access))
    actuators = _plugins(tables, "actuator", env, problems)
    if problems or service is None or access is None:
        raise ConfigError(source, problems)
    return GateSettings(source, service, access, actuators)


def load_ship(path: Path | None, env: Mapping[str, str] = os.environ) -> ShipSettings:
    """What of a file concerns ``mailvane ship``: where to send, and what to read.

    Raises:
        ConfigError: with every mistake in those sections, or where there is nothing to send or nowhere to send it.
    """
    tables, source = _tables(path)
    problems: list[Problem] = []
    ship = _section(Ship, tables, "ship", env, problems)
    _section(Outgoing, tables, "outgoing", env, problems)
    collectors = _plugins(tables, "collector", env, problems)
    if ship and not ship.to:
        problems.append(Problem("ship.to", "is missing", "name the core, such as https://core.example:8025"))
    if not collectors and not problems:
        problems.append(Problem("collector", "is missing", "say what is to be read by [collector.NAME]"))
    for name, one in collectors.items():
        if not isinstance(one, Collector):
            problems.append(Problem(f"collector.{name}.kind", "is told, and reads nothing", "tell the core itself"))
        elif one.reports:
            problems.append(
                Problem(
                    f"collector.{name}.kind", "reads reports, which only the core can attribute", "configure it there"
                )
            )
        elif not NAME.fullmatch(name):
            problems.append(Problem(f"collector.{name}", "is no name to ship by", "use letters, digits, ., _ and -"))
    if problems or ship is None:
        raise ConfigError(source, problems)
    return ShipSettings(source, ship, collectors)


def _tables(path: Path | None) -> tuple[Mapping[str, Any], str]:
    if path is None:
        return {}, "defaults (no configuration file)"
    try:
        return tomllib.loads(path.read_text("utf-8")), str(path)
    except OSError as error:
        problem = Problem(str(path), f"can't be read: {error.strerror}", "check the path and its permissions")
        raise ConfigError(str(path), [problem]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [Problem(str(path), f"is no TOML: {error}", "mend the line")]) from error


def parse(tables: Mapping[str, Any], source: str, env: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the tables of a file.

    Raises:
        ConfigError: with every mistake in them.
    """
    problems: list[Problem] = []
    known = [*_PLAIN, *_PLUGGED, "rule", "ship", "webhook"]
    problems.extend(Problem(name, "unknown section", _suggest(name, known)) for name in tables if name not in known)
    parts: dict[str, Any] = {
        attribute: _section(model, tables, name, env, problems) for name, (attribute, model) in _PLAIN.items()
    }
    problems.extend(_check_certificate(parts["service"]))
    problems.extend(_check_doors(parts["service"], parts["access"]))
    for section, (attribute, _, _) in _PLUGGED.items():
        parts[attribute] = _plugins(tables, section, env, problems)
    parts["webhooks"] = _webhooks(tables, env, problems)
    parts["rules"] = tuple(_rules(tables, problems))
    _section(Ship, tables, "ship", env, problems)  # another command's, whose mistakes are told too
    if problems:
        raise ConfigError(source, problems)
    return Settings(source=source, secret_files=dict(_files(tables)), **parts)


def _files(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """The files that a configuration names by keys such as ``token_file``."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _files(value, f"{path}{name}.")
        elif name.endswith("_file") and isinstance(value, str):
            yield f"{path}{name}", value


def _plugins(
    tables: Mapping[str, Any], section: str, env: Mapping[str, str], problems: list[Problem]
) -> dict[str, Any]:
    _, package, port = _PLUGGED[section]
    outgoing = _section(Outgoing, tables, "outgoing", env, [])  # its mistakes are told once, by who reads it
    allow = outgoing.allow if outgoing else ()
    return {
        name: plugin.reaching(allow)
        for name, table in _named_tables(tables, section, problems)
        if (plugin := _plugin(package, port, table, f"{section}.{name}", env, problems))
    }


def _section(
    model: type[S], tables: Mapping[str, Any], name: str, env: Mapping[str, str], problems: list[Problem]
) -> S | None:
    return _plain(model, _with_secrets(model, tables.get(name, {}), name, env, problems), name, problems)


def _with_secrets(
    model: type[Section], table: object, path: str, env: Mapping[str, str], problems: list[Problem]
) -> object:
    if not isinstance(table, Mapping):
        return table
    filled = dict(table)
    _fill_secrets(model.secrets, filled, path, env, problems)
    for name in model.parts.keys() & filled.keys():
        filled[name] = _with_secrets(model.parts[name], filled[name], f"{path}.{name}", env, problems)
    return filled


def _plain(model: type[M], table: object, path: str, problems: list[Problem]) -> M | None:
    if not isinstance(table, Mapping):
        problems.append(Problem(path, "must be a section", f"write [{path}] on a line of its own"))
        return None
    try:
        return model(**table)
    except ValidationError as error:
        problems.extend(_explain(error, path, model))
        return None


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the table in which a mistake stands; a secret stands in a file of its own."""
    for part in loc[:-1]:
        model = getattr(model, "parts", {}).get(part, model)
    secrets = getattr(model, "secrets", ())
    return [f"{name}_file" if name in secrets else name for name in model.model_fields]


def _webhooks(tables: Mapping[str, Any], env: Mapping[str, str], problems: list[Problem]) -> dict[str, Webhook]:
    found: dict[str, Webhook] = {}
    for name, table in _named_tables(tables, "webhook", problems):
        path = f"webhook.{name}"
        if not NAME.fullmatch(name):
            problems.append(Problem(path, "is no name of a webhook", "use letters, digits, ., _ and -"))
        elif webhook := _plain(Webhook, _with_secrets(Webhook, table, path, env, problems), path, problems):
            found[name] = webhook
    return found


def _check_certificate(service: Service | None) -> Iterator[Problem]:
    if service is None or service.tls_cert is None:
        return
    try:
        tls.showing(service.tls_cert, service.tls_key)
    except UserError as error:
        remedy = "name a certificate and its key, in PEM, that the service's user can read"
        yield Problem("service.tls_cert", str(error), remedy)


def _check_doors(service: Service | None, access: Access | None) -> Iterator[Problem]:
    if service is None or access is None or not access.anonymous:
        return
    for name, (host, _) in (("listen", service.listen), ("gate", service.gate)):
        if not is_loopback(host):
            remedy = "make keys (mailvane keys add), or listen on 127.0.0.1"
            yield Problem("access.anonymous", f"is for loopback only, and service.{name} is {host}", remedy)


def _named_tables(
    tables: Mapping[str, Any], section: str, problems: list[Problem]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    whole = tables.get(section, {})
    if not isinstance(whole, Mapping):
        problems.append(Problem(section, "must be a section", f"write [{section}.NAME]"))
        return
    for name, table in whole.items():
        if isinstance(table, Mapping):
            yield name, table
        else:
            problems.append(Problem(f"{section}.{name}", "must be a section", f"write [{section}.NAME] with a kind"))


def _plugin(
    package: str,
    port: type[P],
    table: Mapping[str, Any],
    path: str,
    env: Mapping[str, str],
    problems: list[Problem],
) -> P | None:
    settings = dict(table)
    kind = settings.pop("kind", None)
    if not isinstance(kind, str):
        problems.append(Problem(f"{path}.kind", "is missing", 'say which kind it is, such as kind = "…"'))
        return None
    try:
        found = load_plugin(package, kind, port)
    except LookupError as error:
        problems.append(Problem(f"{path}.kind", str(error)))
        return None
    except ModuleNotFoundError as error:
        problems.append(Problem(f"{path}.kind", f"there is no {package} yet ({error.name})", "remove the section"))
        return None
    before = len(problems)
    _fill_secrets(found.secrets, settings, path, env, problems)
    plugin = _plain(found, settings, path, problems)
    return plugin if len(problems) == before else None


_ASIDE = SecretStr("(unread)")  # stands in for a secret whose mistake is told already, so that it is told once


def _fill_secrets(
    secrets: Sequence[str], settings: dict[str, Any], path: str, env: Mapping[str, str], problems: list[Problem]
) -> None:
    for name in secrets:
        variable = "MAILVANE_" + f"{path}.{name}".replace(".", "_").replace("-", "_").upper()
        remedy = f"name a file by {name}_file, or set ${variable}"
        if name in settings:
            settings[name] = _ASIDE
            problems.append(Problem(f"{path}.{name}", "a secret must not stand in this file", remedy))
        elif f"{name}_file" in settings:
            place = Path(str(settings.pop(f"{name}_file")))
            try:
                settings[name] = _secret(place.read_text("utf-8").strip())
            except (OSError, UnicodeDecodeError) as error:
                settings[name] = _ASIDE
                why = error.strerror if isinstance(error, OSError) else "not UTF-8"
                problems.append(Problem(f"{path}.{name}_file", f"{place} can't be read: {why}", remedy))
        elif variable in env:
            settings[name] = _secret(env[variable])


def _secret(text: str) -> SecretStr:
    hide(text)
    return SecretStr(text)


def _rules(tables: Mapping[str, Any], problems: list[Problem]) -> Iterator[Rule]:
    own = dict(_named_tables(tables, "rule", problems))
    for name in [*DEFAULT_RULES, *(name for name in own if name not in DEFAULT_RULES)]:
        table = {**DEFAULT_RULES.get(name, {}), **own.get(name, {})}
        rule = _rule(name, table, problems)
        if rule:
            yield rule


def _rule(name: str, table: Mapping[str, Any], problems: list[Problem]) -> Rule | None:
    path, before = f"rule.{name}", len(problems)
    settings = _plain(RuleTable, table, path, problems)
    theirs = {key: value for key, value in table.items() if key not in RuleTable.model_fields}
    detector = _plugin("detectors", Detector, theirs, path, {}, problems)  # type: ignore[type-abstract]  # looked up by it
    problems.extend(_check_by(table.get("by", ("tenant",)), f"{path}.by"))
    if settings and PARTS[settings.rate].by_cohort and (lost := [name for name in settings.by if name in NOT_BY_HOUR]):
        problems.append(Problem(f"{path}.by", f"{settings.rate} is not kept by {lost[0]}", "leave it out"))
    if settings is None or detector is None or len(problems) > before or not settings.enabled:
        return None
    return Rule(
        name=name,
        rate=settings.rate,
        by=settings.by,
        window=settings.window,
        detector=detector,
        lease=settings.lease,
        calm_for=settings.calm_for or settings.window,
        pauses=settings.pauses,
        tenants=settings.tenants,
        providers=settings.providers,
    )


def _check_by(by: object, path: str) -> Iterator[Problem]:
    if not isinstance(by, list | tuple):
        return  # said already
    if not by:
        yield Problem(path, "is empty", f"name labels to group by, out of {', '.join(LABELS)}")
    for label in by:
        if label not in LABELS:
            yield Problem(path, f"{label!r} is no label", _suggest(str(label), list(LABELS)))
    if "tenant" not in by and (owned := [label for label in by if label in OWNED]):
        yield Problem(path, f"{owned[0]} without tenant", "add tenant: sellers choose these names")


def _explain(error: ValidationError, path: str, model: type[BaseModel]) -> Iterator[Problem]:
    for detail in error.errors(include_url=False, include_context=True):
        where = ".".join([path, *(str(part) for part in detail["loc"])])
        yield Problem(where, *_words(detail, _keys(model, detail["loc"])))


def _words(detail: ErrorDetails, fields: list[str]) -> tuple[str, str]:
    match detail["type"]:
        case "extra_forbidden":
            return "unknown key", _suggest(str(detail["loc"][-1]), fields)
        case "missing":
            return "is missing", "add it"
        case "value_error":
            return str(detail["ctx"]["error"]), ""
        case "enum" | "literal_error":
            return f"{detail['input']!r} is not possible", f"choose {detail['ctx']['expected']}"
        case _:
            return detail["msg"][0].lower() + detail["msg"][1:], f"it is {str(detail['input'])[:60]!r} now"


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"choose out of {', '.join(known)}"
