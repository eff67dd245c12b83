"""People from an identity provider: OpenID Connect Core 1.0 by authorization code, with PKCE, state and nonce.

``idp`` beside it asks the provider, ``tokens`` says whether a token is to be trusted; here is the way there and back.
What belongs to one way stands sealed in a cookie of the browser that goes it, so that no stranger can fill us with ways
that nobody goes, and nobody can go another's.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken

from monitor.access import tokens
from monitor.access.idp import Idp, Metadata, word
from monitor.access.signing_in import Refused, Vouched, Why
from monitor.http import Http
from monitor.settings import Oidc

CALLBACK = "/v1/oidc/callback"
LASTS = timedelta(minutes=10)  # of the way there and back
_GONE = 10_000  # ways that were gone, and may not be again


class Provider:
    """One identity provider; safe to use from many threads."""

    def __init__(self, settings: Oidc, http: Http, clock: Callable[[], datetime]) -> None:
        self._settings, self._clock = settings, clock
        self._idp = Idp(settings.issuer, http, clock)
        self._seal = Fernet(Fernet.generate_key())  # a restart forgets who is under way
        self._going = threading.Lock()
        self._gone: dict[bytes, None] = {}

    @property
    def callback(self) -> str:
        """Where the provider sends people back to; it must know this URL."""
        return self._settings.url + CALLBACK

    def begin(self, there: str, session: str = "") -> tuple[str, str]:
        """Where to send the browser, and the cookie that it brings back.

        ``there``: the page that it wants; ``session``: its own so far, of which nothing is known when it comes back.

        Raises:
            Refused: the provider does not say where.
        """
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # noqa: PLC0415  # only on this way
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # noqa: PLC0415  # as above

        way = {"state": secrets.token_urlsafe(32), "nonce": secrets.token_urlsafe(32)}
        way |= {"verifier": secrets.token_urlsafe(48), "there": there, "session": session}
        url: str = prepare_grant_uri(
            self._idp.described().authorize,
            self._settings.client_id,
            "code",
            redirect_uri=self.callback,
            scope=list(self._settings.scopes),
            state=way["state"],
            nonce=way["nonce"],
            code_challenge=create_s256_code_challenge(way["verifier"]),
            code_challenge_method="S256",
        )
        sealed = self._seal.encrypt_at_time(json.dumps(way).encode(), int(self._clock().timestamp()))
        return url, sealed.decode("ascii")

    def begun(self, cookie: str) -> tuple[str, str]:
        """The page and the session of the browser with this cookie; empty where that is not known."""
        way = self._way(cookie) or {}
        return way.get("there", ""), way.get("session", "")

    def end(self, query: Mapping[str, str], cookie: str) -> Vouched:
        """Who came back.

        Raises:
            Refused: and why.
        """
        way = self._way(cookie)
        if not way or not secrets.compare_digest(way["state"].encode(), query.get("state", "").encode()):
            raise Refused(Why.EXPIRED)
        if not self._goes(way["state"]):
            raise Refused(Why.EXPIRED, "that way was gone before")
        told = self._idp.described()
        issuer = query.get("iss")
        if issuer != self._settings.issuer and (issuer or told.says_iss):
            raise Refused(Why.INVALID, "the answer is another provider's (RFC 9207)")
        if "error" in query:
            raise Refused(Why.DENIED, f"the provider says {word(query['error'])}")
        answer = self._exchanged(told, query.get("code", ""), way["verifier"])
        claims = self._claims(told, answer, way["nonce"])
        return tokens.vouched(claims, self._settings)

    def _way(self, cookie: str) -> dict[str, str] | None:
        try:
            opened = self._seal.decrypt_at_time(
                cookie.encode(), int(LASTS.total_seconds()), int(self._clock().timestamp())
            )
        except InvalidToken:
            return None
        way: dict[str, str] = json.loads(opened)
        return way

    def _goes(self, state: str) -> bool:
        mark = sha256(state.encode()).digest()
        with self._going:
            if mark in self._gone:
                return False
            self._gone[mark] = None
            while len(self._gone) > _GONE:
                del self._gone[next(iter(self._gone))]
        return True

    def _exchanged(self, told: Metadata, code: str, verifier: str) -> Mapping[str, Any]:
        """What the code is worth (RFC 6749 section 4.1.3)."""
        from authlib.oauth2.auth import ClientAuth  # noqa: PLC0415  # as above

        secret = self._settings.client_secret.get_secret_value()
        method = "none" if not secret else "client_secret_post" if told.post else "client_secret_basic"
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        asked = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.callback}
        body = urlencode({**asked, "code_verifier": verifier})
        auth = ClientAuth(self._settings.client_id, secret, method)
        url, headers, body = auth.prepare("POST", told.token, headers, body)
        return self._idp.told(url, headers, body.encode(), otherwise=Why.INVALID)

    def _claims(self, told: Metadata, answer: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """What the id_token says, and what is told beside it, of the same person."""
        text, access = answer.get("id_token"), answer.get("access_token")
        if not isinstance(text, str):
            raise Refused(Why.INVALID, "the provider gave no id_token: is openid among access.oidc.scopes?")
        access = access if isinstance(access, str) else ""
        expected = tokens.Expected(self._settings.issuer, self._settings.client_id, nonce, access)
        now = self._clock()
        try:
            claims = tokens.trusted(text, self._idp.keys(told.keys), expected, now)
        except tokens.UnknownKey:
            claims = tokens.trusted(text, self._idp.keys(told.keys, anew=True), expected, now)
        if told.userinfo and access and not tokens.enough(claims, self._settings):
            more = self._idp.told(told.userinfo, {"Authorization": f"Bearer {access}"}, otherwise=Why.INVALID)
            if more.get("sub") != claims["sub"]:  # OpenID Connect Core section 5.3.2
                raise Refused(Why.INVALID, "userinfo is of somebody else")
            claims = {**more, **claims}
        return claims
