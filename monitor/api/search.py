"""``GET /v1/replies`` and ``POST /v1/search``: what receivers said; what became of a message or of mail to one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from monitor.api import words
from monitor.api.access import note_on
from monitor.api.asked import Stamp, Unclear, Windowed, answer, between
from monitor.api.basics import bounded, refusal
from monitor.api.pages import moment
from monitor.api.refusals import REFUSED, first
from monitor.api.seen import Seen, seen
from monitor.facts.grouped import seconds
from monitor.facts.raw import Event, Place, history
from monitor.facts.said import Reply, replies
from monitor.keyring import UNKNOWN
from monitor.model import Kind, named
from monitor.service import FUTURE, Core

BODY_LIMIT = 64 << 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATELY = timedelta(hours=1)
_MILLISECOND = timedelta(milliseconds=1)
_SHOWN = 12  # digits of a pseudonym: enough to tell the recipients of a message apart


class Said(Windowed):
    """Which replies."""

    kind: Kind | None = None
    code: Annotated[int, Field(ge=0, le=999)] | None = None
    dsn: Annotated[
        str, Field(pattern=r"^([245](\.\d{1,3}){0,2})?$", description="a class or a status: 5, 5.7 or 5.7.1")
    ] = ""
    reply_class: Annotated[
        str, Field(alias="class", pattern=r"^[a-z_]{0,40}(:[a-z0-9_.-]{1,60})?$", description="such as quota or listed")
    ] = ""
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    cursor: Annotated[str, Field(max_length=200)] = ""


class Sought(BaseModel):
    """Whose history: of a message, of a recipient, or of one message at one recipient."""

    model_config = ConfigDict(extra="forbid")

    message_id: Annotated[str, Field(max_length=2000)] = ""
    recipient: Annotated[str, Field(max_length=1000)] = ""
    since: Stamp | None = Field(None, alias="from")
    until: Stamp | None = Field(None, alias="to")
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str, Field(max_length=200)] = ""


_TELLS = {"requestBody": {"required": True, "content": {"application/json": {"schema": Sought.model_json_schema()}}}}


def router(core: Core) -> APIRouter:
    """The routes that read single events."""
    api = APIRouter(tags=["look"], responses=REFUSED)

    @api.get("/v1/replies")
    def said(request: Request, asked: Annotated[Said, Query()]) -> Response:
        """What receivers answered, scrubbed, with counts, the newest first; `next` is the cursor of the next page."""
        now, mine = core.clock(), seen(core, request)
        where = mine.where(asked)
        since, until = asked.window(now, _LATELY)
        since, until, after = _placed(mine, asked.cursor, since, until)
        kinds = [asked.kind] if asked.kind else [Kind.DEFERRED, Kind.BOUNCED, Kind.RETURNED]
        found = replies(
            mine.facts,
            since,
            until,
            where,
            kinds=kinds,
            code=asked.code,
            dsn=asked.dsn,
            reply_class=asked.reply_class,
            most=asked.limit + 1,
            after=after,
        )
        shown = found[: asked.limit]
        return answer(
            {
                "where": named(where),
                "kinds": kinds,
                "since": words.stamp(since),
                "until": words.stamp(until),
                "complete_to": words.stamp(core.complete_to()),
                "kept_since": words.stamp(now - core.settings.retention.events),
                "replies": [_reply(one) for one in shown],
                "next": _next(mine, since, until, shown[-1].last, shown[-1].id) if len(found) > len(shown) else None,
            }
        )

    @api.post("/v1/search", openapi_extra=_TELLS)
    async def search(request: Request) -> Response:
        """What became of `{"message_id": …}` or of all mail to `{"recipient": …}`, the newest event first.

        By POST, so that no address stands in a log of addresses asked for.
        """
        body = await bounded(request, BODY_LIMIT)
        if body is None:
            return refusal(f"the body is over {BODY_LIMIT} bytes", "ask for one message or recipient", 413)
        try:
            sought = Sought.model_validate_json(body)
        except ValidationError as error:
            return refusal(first(error.errors(include_url=False)), 'send {"message_id": …} or {"recipient": …}')
        return await run_in_threadpool(_found, core, request, sought)

    return api


def _found(core: Core, request: Request, sought: Sought) -> Response:
    now, mine = core.clock(), seen(core, request)
    message, recipient = mine.keyring.message(sought.message_id), mine.keyring.pseudonym(sought.recipient)
    if message == UNKNOWN and recipient == UNKNOWN:
        raise Unclear("neither message_id nor recipient", 'send {"message_id": …} or {"recipient": …}')
    about = {"message": message, "recipient": recipient}
    note_on(request, " ".join(f"{name} {_short(known)}" for name, known in about.items() if known != UNKNOWN))
    since = sought.since or now - core.settings.retention.events
    until = sought.until or now + FUTURE
    since, until, after = _placed(mine, sought.cursor, *between(since, until))
    found = history(
        mine.facts,
        since,
        until,
        message=b"" if message == UNKNOWN else message,
        recipient=b"" if recipient == UNKNOWN else recipient,
        most=sought.limit + 1,
        after=after,
    )
    shown = found[: sought.limit]
    return answer(
        {
            "since": words.stamp(since),
            "until": words.stamp(until),
            "events": [_event(one) for one in shown],
            "next": _next(mine, since, until, shown[-1].at, shown[-1].key) if len(found) > len(shown) else None,
        }
    )


def _placed(mine: Seen, text: str, since: datetime, until: datetime) -> tuple[datetime, datetime, Place | None]:
    """The window and where in it to go on, as the last page's cursor says."""
    if not (numbers := mine.page(text, 4)):
        return since, until, None
    since, until = between(moment(numbers[0]), moment(numbers[1]))
    return since, until, Place(*numbers[2:])


def _next(mine: Seen, since: datetime, until: datetime, at: datetime, number: int) -> str:
    return mine.cursor(seconds(since), seconds(until), (at - _EPOCH) // _MILLISECOND, number)


def _reply(one: Reply) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "code": one.code or None,
        "dsn": one.dsn or None,
        "class": one.reply_class or None,
        "text": one.text,
        "count": one.count,
        "first": words.stamp(one.first),
        "last": words.stamp(one.last),
        "providers": one.providers,
    }


def _event(one: Event) -> dict[str, Any]:
    return {
        "at": words.stamp(one.at),
        "sent_at": words.stamp(one.sent_at),
        "seen_at": words.stamp(one.seen_at),
        "kind": one.kind,
        "attempt": one.attempt or None,
        "count": one.count,
        "scope": named(one.scope),
        "message": _short(one.message),
        "recipient": _short(one.recipient),
        "code": one.code or None,
        "dsn": one.dsn or None,
        "relay": one.relay or None,
        "reply": one.reply or None,
        "class": one.reply_class or None,
        "found_by": one.found_by or None,
        "source": one.source,
    }


def _short(pseudonym: bytes) -> str | None:
    return None if pseudonym == UNKNOWN else pseudonym.hex()[:_SHOWN]
