"""What an identity provider says of itself and of a code, asked over a guarded road and kept for a while."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from joserfc.jwk import KeySet

from monitor.access import tokens
from monitor.access.signing_in import Refused, Why
from monitor.http import Http, HttpError
from monitor.settings import web

log = logging.getLogger(__name__)

_KEPT = timedelta(hours=1)  # what a provider says of itself
_AGAIN = timedelta(seconds=10)  # until a provider that did not answer is asked anew
_KEYS_AGAIN = timedelta(seconds=30)  # until its keys are, for one that is not among them


@dataclass(frozen=True, slots=True)
class Metadata:
    """What of a provider's description is needed (OpenID Connect Discovery 1.0 section 3)."""

    authorize: str
    token: str
    keys: str
    userinfo: str
    post: bool  # the secret goes into the body
    says_iss: bool  # RFC 9207


def metadata(told: Mapping[str, Any], issuer: str) -> Metadata:
    """The description, if it is of that issuer.

    Raises:
        ValueError: it is another's, or a part is missing or no URL that we would go to.
    """
    if told.get("issuer") != issuer:
        raise ValueError("the description is of another issuer than access.oidc.issuer says, to the letter")
    found = {}
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
        found[name] = str(told.get(name) or "")
        if found[name] or name != "userinfo_endpoint":
            web(found[name].partition("?")[0])
    methods = told.get("token_endpoint_auth_methods_supported")
    if not isinstance(methods, list):
        methods = ["client_secret_basic"]  # as Discovery has it
    return Metadata(
        found["authorization_endpoint"],
        found["token_endpoint"],
        found["jwks_uri"],
        found["userinfo_endpoint"],
        post="client_secret_basic" not in methods and "client_secret_post" in methods,
        says_iss=told.get("authorization_response_iss_parameter_supported") is True,
    )


class Idp:
    """One provider; safe to use from many threads."""

    def __init__(self, issuer: str, http: Http, clock: Callable[[], datetime]) -> None:
        self._issuer, self._http, self._clock = issuer, http, clock
        self._lock = threading.Lock()
        self._described: tuple[datetime, Metadata | None] | None = None
        self._keys: tuple[datetime, KeySet] | None = None

    def described(self) -> Metadata:
        """What it says of itself.

        Raises:
            Refused: it does not answer, or not as it should.
        """
        with self._lock:
            now = self._clock()
            if self._described is None or not _young(self._described[0], now, _KEPT if self._described[1] else _AGAIN):
                self._described = now, self._describe()
            if self._described[1] is None:
                raise Refused(Why.UNREACHABLE)
            return self._described[1]

    def keys(self, url: str, *, anew: bool = False) -> KeySet:
        """The keys that it publishes there; ``anew``: one that it uses was not among them.

        Raises:
            Refused: it does not answer, or not as it should.
        """
        with self._lock:
            now, kept = self._clock(), _KEYS_AGAIN if anew else _KEPT
            if self._keys is None or not _young(self._keys[0], now, kept):
                self._keys = now, tokens.key_set(self.told(url))
            return self._keys[1]

    def told(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        otherwise: Why = Why.UNREACHABLE,
    ) -> Mapping[str, Any]:
        """The JSON object that is there, by POST where there is a body; ``otherwise``: what another status means.

        Raises:
            Refused: it does not answer, or not as it should.
        """
        headers = {"Accept": "application/json", **(headers or {})}
        try:
            answer = self._http.request("GET" if body is None else "POST", url, headers=headers, body=body)
        except HttpError as error:
            raise Refused(Why.UNREACHABLE, str(error)[:200]) from error
        try:
            told = json.loads(answer.body)
        except (ValueError, RecursionError):
            told = None
        fine = answer.status == HTTPStatus.OK
        if not isinstance(told, dict) or not fine:
            what = word(told.get("error", "no word")) if isinstance(told, dict) else "no JSON object"
            raise Refused(Why.UNREACHABLE if fine else otherwise, f"it answered {answer.status} with {what}")
        return told

    def _describe(self) -> Metadata | None:
        url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            return metadata(self.told(url), self._issuer)
        except (Refused, ValueError) as error:
            log.warning("identity provider does not answer", extra={"url": url, "why": str(error)})
            return None


def _young(since: datetime, now: datetime, kept: timedelta) -> bool:
    return timedelta() <= now - since < kept


def word(text: object) -> str:
    """An error's code as it may stand in a log; it came from a stranger."""
    shown = str(text)[:40]
    return shown if re.fullmatch(r"[A-Za-z0-9_. -]+", shown) else "something else"
