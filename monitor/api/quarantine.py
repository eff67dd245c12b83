"""``/v1/quarantine``: what could not be read, for who looks after it. What users know: docs/quarantine.md."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from monitor.api.access import caller_of
from monitor.api.asked import Stamp
from monitor.api.basics import refusal
from monitor.api.events_told import refused
from monitor.quarantine import Gone, Trouble, joined
from monitor.service import Core, bounds
from monitor.triage import Desk, described, page, shown

_ABSENT: dict[int | str, dict[str, Any]] = {404: refused("There is no such item, or no more.")}
_AMISS: dict[int | str, dict[str, Any]] = {
    **_ABSENT,
    409: refused("The item was changed on disk, or can't be read again now; the remedy says what to do."),
}
_RAW: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The item with its first hundred things, scrubbed; or its bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_NAME = Query(max_length=200)


def router(core: Core) -> APIRouter:
    """The routes; each read, retry and drop is in the access log."""
    api = APIRouter(tags=["quarantine"])
    desk = Desk(core.stores, core.settings.collectors, core.attributor)

    @api.get("/v1/quarantine")
    def items(
        source: Annotated[str, _NAME] = "",
        since: Stamp | None = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
        after: Annotated[str, _NAME] = "",
    ) -> Any:
        """Items without what they hold, the newest first; `after`: what the page before told as `next`."""
        kept = core.stores.quarantine
        found, following = page(kept, source=source, since=since, limit=limit, after=after)
        stand = kept.stand()
        return {
            "items": [described(item) for item in found],
            "next": following or None,
            "total": {"items": stand.items, "things": stand.things, "bytes": stand.bytes},
        }

    @api.get("/v1/quarantine/{item}", responses={**_RAW, **_AMISS})
    def read(request: Request, item: str, *, raw: bool = False) -> Any:
        """An item with what it holds, scrubbed; `raw`: its bytes as they came, with all that is in them."""
        try:
            found, things = desk.read(item, caller_of(request).name, core.clock(), raw=raw)
        except Trouble as trouble:
            return _told(trouble)
        if not raw:
            return shown(found, things)
        headers = {"Content-Disposition": f'attachment; filename="{item}"', "Cache-Control": "no-store"}
        return Response(joined(things), media_type="application/octet-stream", headers=headers)

    @api.post("/v1/quarantine/{item}/retry", responses=_AMISS)
    def retry(request: Request, item: str) -> Any:
        """Read it again, with the settings of today: how many facts were `taken`, and what is `left` of it.

        What is good counts once, and leaves the item; an item of which nothing is left is gone.
        """
        now = core.clock()
        try:
            done = desk.retry(item, caller_of(request).name, now, bounds(core.settings, now))
        except Trouble as trouble:
            return _told(trouble)
        return {"id": done.id, "taken": done.taken, "left": done.left, "why": done.why}

    @api.delete("/v1/quarantine/{item}", responses=_ABSENT)
    def drop(request: Request, item: str) -> Any:
        """Remove it for good."""
        try:
            desk.drop(item, caller_of(request).name, core.clock())
        except Trouble as trouble:
            return _told(trouble)
        return {"dropped": item}

    return api


def _told(trouble: Trouble) -> Response:
    return refusal(trouble.what, trouble.remedy, 404 if isinstance(trouble, Gone) else 409)
