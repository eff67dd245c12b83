"""``/v1/suppressions``: who should get no more mail: the feed of changes, questions by address, and a person's hand.

What users know: docs/suppression.md. Addresses become pseudonyms at once; none is answered, logged or kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from monitor import webhooks
from monitor.api import sellers, suppressions_told, words
from monitor.api.access import caller_of, note_on
from monitor.api.asked import OWN_ONLY, Unclear, answer
from monitor.api.basics import MOST, bounded, refusal
from monitor.api.hand import who
from monitor.api.refusals import REFUSED, first
from monitor.api.seen import seen
from monitor.api.suppressions_told import Added, Asked, Outaged, Released
from monitor.caller import Caller
from monitor.errors import UserError
from monitor.ledger.outages import Outage
from monitor.ledger.suppressions import AUTOMATION, Entry
from monitor.register import Standing, pseudonym, shown, unlike
from monitor.service import Core

BODY_LIMIT = 1 << 20
_MOST_CHANGES = 10_000

M = TypeVar("M", bound=BaseModel)


def router(core: Core) -> APIRouter:
    """The routes; who changed what is in the access log."""
    api = APIRouter(tags=["suppressions"], responses=REFUSED)

    @api.get("/v1/suppressions", responses=suppressions_told.FEED)
    def feed(
        request: Request,
        since: Annotated[int, Query(ge=0, le=MOST)] = 0,
        limit: Annotated[int, Query(ge=1, le=_MOST_CHANGES)] = 1000,
    ) -> Response:
        """What changed after number `since`, in its order; ask again with `next`. The same page is the same each time.

        Folded from 0, by pseudonym, reason and scope, it tells who is suppressed now.
        """
        mine = seen(core, request)
        found = mine.suppression_changes(since, limit + 1)
        page = found[:limit]
        return answer(
            {
                "changes": [described(one, own=bool(mine.tenant)) for one in page],
                "next": page[-1].seq if page else since,
                "more": len(found) > limit,
            }
        )

    @api.post("/v1/suppressions/check", openapi_extra=suppressions_told.body(Asked), responses=suppressions_told.CHECK)
    async def check(request: Request) -> Response:
        """Whether mail should go to these addresses, place by place. An unknown stream may be receipts: name it."""
        return await _with_body(request, Asked, lambda asked: _checked(core, request, asked))

    @api.post("/v1/suppressions", openapi_extra=suppressions_told.body(Added), responses=suppressions_told.CHANGED)
    async def add(request: Request) -> Response:
        """Suppress addresses by hand, for all mail or for a tenant's or stream's."""
        return await _with_body(request, Added, lambda wish: _added(core, request, wish))

    @api.post(
        "/v1/suppressions/release", openapi_extra=suppressions_told.body(Released), responses=suppressions_told.CHANGED
    )
    async def release(request: Request) -> Response:
        """Let addresses have mail again, whatever kept it back; what was told so far counts no more."""
        return await _with_body(request, Released, lambda wish: _released(core, request, wish))

    @api.get("/v1/suppressions/outages")
    def outages(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50, before: Annotated[int, Query(ge=0, le=MOST)] = 0
    ) -> Response:
        """When providers refused everybody, the newest first; nobody is suppressed for what they said then."""
        return answer({"outages": [_outage(one) for one in core.lists.register.outages(limit, before)]})

    @api.post("/v1/suppressions/outages", openapi_extra=suppressions_told.body(Outaged))
    async def declare(request: Request) -> Response:
        """Say that a provider had an outage: whoever is suppressed for what it said then is released."""
        return await _with_body(request, Outaged, lambda wish: _declared(core, request, wish))

    @api.delete("/v1/suppressions/outages/{outage}")
    def dismiss(request: Request, outage: int) -> Response:
        """Say that it was no outage: what the provider said then counts after all, within a minute."""
        by = _name(caller_of(request))
        found = core.lists.register.dismiss(min(max(outage, 0), MOST), who=by, now=core.clock())
        if found is None:
            return refusal("there is no such outage", "GET /v1/suppressions/outages lists them", 404)
        return answer({"outage": _outage(found)})

    @api.delete("/v1/suppressions/{person}")
    def forget(request: Request, person: str) -> Response:
        """Remove every row about a recipient, by pseudonym, in the feed too. To let mail pass, release instead."""
        with _told():
            known = pseudonym(person)
        note_on(request, shown([known]))
        return answer({"removed": core.lists.register.forget(known)})

    return api


def described(one: Entry, *, own: bool = False) -> dict[str, Any]:
    """A change; a seller (``own``) is not told which person did it, nor what that one wrote."""
    by_person = own and one.who != AUTOMATION
    return webhooks.described(one) | ({"why": sellers.DECIDED, "who": sellers.PERSON} if by_person else {})


async def _with_body(request: Request, model: type[M], work: Callable[[M], Response]) -> Response:
    """Do it with what the body says, off the loop."""
    body = await bounded(request, BODY_LIMIT)
    if body is None:
        return refusal(f"the body is over {BODY_LIMIT} bytes", "send fewer addresses a request", 413)
    try:
        wish = model.model_validate_json(body)
    except ValidationError as error:
        return refusal(first(error.errors(include_url=False)), "see /openapi.json for what may be said")
    return await run_in_threadpool(work, wish)


def _checked(core: Core, request: Request, asked: Asked) -> Response:
    mine = seen(core, request)
    if mine.tenant and asked.tenant not in ("", mine.tenant):
        raise Unclear(*OWN_ONLY, 403)
    tenant = mine.tenant or asked.tenant
    found = mine.standings(asked.addresses, tenant, asked.stream, core.clock())
    return answer(
        {
            "scope": {name: value for name, value in (("tenant", tenant), ("stream", asked.stream)) if value},
            "results": [standing(one) for one in found],
        }
    )


def standing(one: Standing) -> dict[str, Any]:
    """What is known of one address, as the API and the command tell it."""
    if one.error:
        return {"error": one.error}
    entry = one.entry
    return {
        "suppressed": entry is not None,
        "reason": str(entry.reason) if entry else None,
        "since": words.stamp(entry.since) if entry else None,
        "until": words.stamp(entry.until) if entry else None,
        "scope": webhooks.scope(entry) if entry else None,
        "pseudonym": one.pseudonym.hex(),
        "others": [{"reason": str(other.reason), "scope": webhooks.scope(other)} for other in one.others],
    }


def _added(core: Core, request: Request, wish: Added) -> Response:
    register, now = core.lists.register, core.clock()
    people = register.people(_clean(wish.addresses))
    note_on(request, shown(people))
    until = wish.until or (now + wish.span if wish.span else None)
    with _told():
        done = register.add(
            people,
            tenant=wish.tenant,
            stream=wish.stream,
            who=_name(caller_of(request), wish.who),
            why=wish.why,
            until=until,
            now=now,
        )
    return _changes(done, 201)


def _released(core: Core, request: Request, wish: Released) -> Response:
    register = core.lists.register
    with _told():
        people = [*register.people(_clean(wish.addresses)), *map(pseudonym, wish.pseudonyms)]
        if not people:
            raise Unclear("neither addresses nor pseudonyms", 'send {"addresses": […], "why": …}')
        note_on(request, shown(people))
        by = _name(caller_of(request), wish.who)
        done = register.release(people, who=by, why=wish.why, now=core.clock(), reason=wish.reason)
    return _changes(done)


def _declared(core: Core, request: Request, wish: Outaged) -> Response:
    note_on(request, f"provider {wish.provider}")
    by = _name(caller_of(request), wish.who)
    with _told():
        made, moved = core.lists.register.declare(
            wish.provider, wish.since, wish.until, who=by, why=wish.why, now=core.clock()
        )
    return answer({"outage": _outage(made), "released": sum(moved.changes.values())})


def _changes(done: Iterable[Entry], status: int = 200) -> Response:
    told = answer({"changes": [described(one) for one in done]})
    told.status_code = status
    return told


def _clean(addresses: Iterable[str]) -> list[str]:
    """The addresses, if all of them are some.

    Raises:
        Unclear: one is none; said by its place, and not repeated.
    """
    found = list(addresses)
    for place, address in enumerate(found):
        if error := unlike(address):
            raise Unclear(f"addresses.{place}: {error}", "nothing was changed: mend it, and send all again")
    return found


class _told:  # noqa: N801  # reads as a word where it is used
    """What a user did wrong, as a refusal."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        if isinstance(error, UserError):
            raise Unclear(str(error)) from error


def _name(caller: Caller, named: str = "") -> str:
    """Who did it; never automation, which decides by other rules."""
    by = who(caller, named)
    return by if by != AUTOMATION else caller.name


def _outage(one: Outage) -> dict[str, Any]:
    def at(moment: datetime | None) -> str | None:
        return words.stamp(moment)

    return {
        "id": one.id,
        "provider": one.provider,
        "since": at(one.since),
        "until": at(one.until),
        "why": one.why,
        "who": one.who,
        "found_at": at(one.found_at),
        "dismissed_by": one.dismissed_by or None,
        "dismissed_at": at(one.dismissed_at),
    }
