"""``GET /v1/replies/classes`` and ``/v1/replies/unknown``: why mail is refused, and which replies nobody knows yet."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from collectors._templates import clusters
from monitor.api import words
from monitor.api.asked import Windowed, answer
from monitor.api.refusals import REFUSED
from monitor.api.seen import seen
from monitor.facts.said import Class, classes, unexplained
from monitor.model import Scope, named
from monitor.service import Core

_LATELY, _DAY = timedelta(hours=1), timedelta(days=1)


class Refused(Windowed):
    """Which refusals."""

    limit: Annotated[int, Field(ge=1, le=500)] = 100


def router(core: Core) -> APIRouter:
    """The routes that tell what replies mean."""
    api = APIRouter(tags=["look"], responses=REFUSED)

    @api.get("/v1/replies/classes")
    def why(request: Request, asked: Annotated[Refused, Query()]) -> Response:
        """Deferrals, bounces and expiries by what their replies mean and by provider, the most frequent first.

        `class` null: no reply was told.
        """
        now, mine = core.clock(), seen(core, request)
        where = mine.where(asked)
        since, until = asked.window(now, _LATELY)
        found = classes(mine.facts, since, until, where, most=asked.limit)
        return answer({**_head(core, where, since, until, now), "classes": [_class(one) for one in found]})

    @api.get("/v1/replies/unknown")
    def unknown(request: Request, asked: Annotated[Refused, Query()]) -> Response:
        """Replies that the table does not know, alike ones together, by volume: what it should learn next."""
        now, mine = core.clock(), seen(core, request)
        where = mine.where(asked)
        since, until = asked.window(now, _DAY)
        texts = unexplained(mine.facts, since, until, where)
        shown = [
            {"template": one.template, "count": one.count, "examples": list(one.examples)}
            for one in clusters(texts, asked.limit)
        ]
        return answer(
            {**_head(core, where, since, until, now), "count": sum(count for _, count in texts), "clusters": shown}
        )

    return api


def _head(core: Core, where: Scope, since: datetime, until: datetime, now: datetime) -> dict[str, Any]:
    return {
        "where": named(where),
        "since": words.stamp(since),
        "until": words.stamp(until),
        "complete_to": words.stamp(core.complete_to()),
        "kept_since": words.stamp(now - core.settings.retention.events),
    }


def _class(one: Class) -> dict[str, Any]:
    return {
        "class": one.reply_class or None,
        "kind": one.kind,
        "provider": one.provider or None,
        "count": one.count,
    }
