"""``/v1/access``: who read or changed what, and with which result; for admins."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from monitor.api import words
from monitor.api.asked import Stamp
from monitor.api.basics import MOST
from monitor.ledger import access_log
from monitor.ledger.access_log import Entry
from monitor.service import Core

_Text = Annotated[str, Query(max_length=200)]


def router(core: Core) -> APIRouter:
    """The route."""
    api = APIRouter(tags=["access"])

    @api.get("/v1/access")
    def entries(
        who: _Text = "",
        did: _Text = "",
        result: _Text = "",
        since: Annotated[Stamp | None, Query()] = None,
        until: Annotated[Stamp | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[int, Query(ge=0, le=MOST)] = 0,
    ) -> Any:
        """Entries of the access log, the newest first; `before` a `seq` for the next page.

        `who` is exact, such as `person:marta`; `did` is how what was done begins, such as `POST /v1/actions` or `key`.
        """
        with core.stores.ledger.connect().execution_options(reads=True) as conn:
            found = access_log.newest(conn, limit, before, who=who, did=did, result=result, since=since, until=until)
        return {"entries": [_entry(one) for one in found]}

    return api


def _entry(one: Entry) -> dict[str, Any]:
    return {
        "seq": one.seq,
        "at": words.stamp(one.at),
        "who": one.who,
        "did": one.did,
        "on": one.on,
        "result": one.result,
        "details": dict(one.details),
    }
