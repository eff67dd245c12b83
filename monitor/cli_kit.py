"""What all commands share: how words become values, the ledger that they write to, how errors are told."""

from __future__ import annotations

import getpass
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from monitor.ports import duration


class Span(click.ParamType[timedelta]):
    """A duration such as 90s, 15m or 24h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The text as a timedelta."""
        try:
            span = duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not isinstance(span, timedelta):
            self.fail(f"{value!r} is no duration", param, ctx)
        return span


class Share(click.ParamType[float]):
    """A part of the whole: 25% or 0.25."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The text as a number from 0 to 1."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{value!r} is no share: write it like 25% or 0.25", param, ctx)


class Moment(click.ParamType[datetime]):
    """An ISO 8601 time with an offset; without one it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The text as an aware time."""
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: write it like 2026-11-24T10:00:00Z", param, ctx)
        return at if at.tzinfo else at.replace(tzinfo=UTC)


def configured(config: Path | None, read: Callable[[Path | None], Any] | None = None) -> Any:
    """The configuration, all of it or what ``read`` reads; its mistakes end the command."""
    from monitor.config import ConfigError, find, load

    try:
        return (read or load)(find(config))
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


@contextmanager
def ledger(config: Path | None) -> Iterator[Any]:
    """The ledger of the configured service; works while it runs and when it is down."""
    from sqlalchemy.exc import OperationalError

    from monitor.ledger.db import open_ledger

    found = configured(config)
    if not found.ledger.exists():
        raise click.ClickException(
            f"there is no ledger at {found.ledger}: has the service ever run with this configuration?"
        )
    with worded():
        engine = open_ledger(found.ledger)
    try:
        yield engine
    except OperationalError as error:
        raise click.ClickException(f"{found.ledger} can't be written: {error.orig}. Nothing was changed") from error
    finally:
        engine.dispose()


@contextmanager
def worded() -> Iterator[None]:
    """What the world or the user did wrong, in one line; our own mistakes keep their traceback."""
    from monitor.errors import UserError

    try:
        yield
    except (UserError, OSError, ValueError) as error:
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            raise
        raise click.ClickException(str(error)) from error


@contextmanager
def any_ledger(config: Path | None) -> Iterator[Any]:
    """The ledger, made where there is none: keys and people may come before the service's first start."""
    from monitor.ledger.db import open_ledger

    found = configured(config)
    if not found.ledger.exists():
        with worded():
            found.ledger.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            open_ledger(found.ledger).dispose()
    with ledger(config) as engine:
        yield engine


def now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


def login() -> str:
    """Who sits at this machine."""
    return os.environ.get("SUDO_USER") or getpass.getuser()
