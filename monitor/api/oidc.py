"""``/v1/oidc``: a browser goes to the identity provider, and comes back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from monitor.access.passwords import Crowded
from monitor.access.sessions import Sessions
from monitor.access.signing_in import Locked, Refused, SigningIn
from monitor.api.access import caller_of
from monitor.api.basics import refusal
from monitor.http import Http
from monitor.ledger.sessions import Session
from monitor.service import Core

if TYPE_CHECKING:
    from monitor.access.oidc import Provider

COOKIE = "mailvane_signing_in"
_SECONDS = 600  # of the way there and back
PutCookie = Callable[[Request, Response, str, Session], None]
PATIENCE = timedelta(seconds=5)  # with the provider
_HERE = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,500}")
# A redirect would be one from the provider's page still, with which browsers send no cookie of ours.
_GO_ON = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="0;url={there}">
<title>Signed in · Mailvane</title>
<link rel="stylesheet" href="/static/tokens.css">
<link rel="stylesheet" href="/static/mailvane.css">
<main class="pad"><p>Signed in. <a href="{there}">Go on</a></p></main>
</html>
"""


def here(text: str) -> str:
    """The path, if it is one of our own, else that of the page: nobody is led elsewhere by a link to us."""
    return text if _HERE.fullmatch(text) else "/"


def router(core: Core, door: SigningIn, put_cookie: PutCookie) -> APIRouter:
    """The two routes; they lead browsers, and are no part of the API."""
    api = APIRouter(tags=["people"], include_in_schema=False)
    settings = core.settings.access.oidc
    if settings is None:

        @api.get("/v1/oidc/login")
        @api.get("/v1/oidc/callback")
        def nobody() -> Response:
            return refusal("people come from no identity provider", "see [access.oidc] in docs/people.md", 404)

        return api

    # Who has no provider does not load what it takes.
    from monitor.access.oidc import Provider  # noqa: PLC0415

    http = Http(core.settings.outgoing.allow, timeout=PATIENCE)
    road = _Road(core.sessions, door, Provider(settings, http, core.clock), put_cookie)

    @api.get("/v1/oidc/login")
    def go(request: Request, wanted: Annotated[str, Query(alias="next")] = "/") -> Response:
        return road.go(request, here(wanted))

    @api.get("/v1/oidc/callback")
    def come(request: Request) -> Response:
        return road.come(request)

    return api


@dataclass(frozen=True, slots=True)
class _Road:
    sessions: Sessions
    door: SigningIn
    provider: Provider
    put_cookie: PutCookie

    def go(self, request: Request, there: str) -> Response:
        """To the provider, and back to the page ``there``."""

        def gone(_address: str) -> Response:
            url, sealed = self.provider.begin(there, caller_of(request).session)
            answer = RedirectResponse(url, 303)
            name, secure = _cookie(request)
            # Lax: the way back begins at the provider's page.
            answer.set_cookie(name, sealed, max_age=_SECONDS, secure=secure, httponly=True, samesite="lax")
            return answer

        return self._tried(request, there, gone)

    def come(self, request: Request) -> Response:
        """Back from the provider."""
        name, secure = _cookie(request)
        cookie = request.cookies.get(name, "")
        there, session = self.provider.begun(cookie)

        def came(address: str) -> Response:
            who = self.provider.end(dict(request.query_params), cookie)
            text, begun = self.door.by_provider(who, address, session)
            self.sessions.anew()
            answer = HTMLResponse(_GO_ON.format(there=escape(here(there), quote=True)))
            self.put_cookie(request, answer, text, begun)
            return answer

        answer = self._tried(request, there or "/", came)
        answer.delete_cookie(name, secure=secure, httponly=True, samesite="lax")
        return answer

    def _tried(self, request: Request, there: str, what: Callable[[str], Response]) -> Response:
        address = request.client.host if request.client else ""
        try:
            with self.door.abroad(address):
                return what(address)
        except Refused as error:
            self.door.refused(error, address)
            return _back(str(error.why), there)
        except Locked as error:
            return _back("locked", there, seconds=error.seconds)
        except Crowded:
            return _back("busy", there)


def _back(why: str, there: str, **more: object) -> Response:
    return RedirectResponse("/login?" + urlencode({"why": why, **more, "next": there}), 303)


def _cookie(request: Request) -> tuple[str, bool]:
    """What the cookie of the way is called, and whether it goes by HTTPS alone."""
    secure = request.url.scheme == "https"
    return ("__Host-" if secure else "") + COOKIE, secure
