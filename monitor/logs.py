"""Structured logs on stderr: one event a line, facts as fields; JSON, or plain words on a terminal."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from monitor.hiding import hidden
from monitor.scrub import scrub

_LONGEST = 500  # characters of a line of a traceback
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class Scrubbed(logging.Formatter):
    """Tracebacks without addresses: what a library says of a fault may quote what it was given."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the library's name
        """The traceback, each line scrubbed and cut."""
        return "\n".join(scrub(line, _LONGEST) for line in super().formatException(ei).splitlines())


class Json(Scrubbed):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its extra fields beside the text."""
        told = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **facts(record),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return hidden(json.dumps(told, default=str, ensure_ascii=False))


class Plain(Scrubbed):
    """The same for eyes."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, text, then the fields."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = " ".join(f"{name}={value}" for name, value in facts(record).items())
        text = f"{at} {record.levelname.lower():7} {record.getMessage()}" + (f"  {fields}" if fields else "")
        return hidden(text + ("\n" + self.formatException(record.exc_info) if record.exc_info else ""))


def facts(record: logging.LogRecord) -> dict[str, object]:
    """What the caller gave as ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _USUAL}


def set_up(level: int = logging.INFO) -> None:
    """Send all logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Plain() if sys.stderr.isatty() else Json())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for chatty in ("clickhouse_connect", "uvicorn.access", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # A source that still reads when its next turn comes is no news.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
