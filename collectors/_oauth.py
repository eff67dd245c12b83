"""Access tokens of OAuth 2.0 out of a refresh token (RFC 6749 section 6), renewed before they expire."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from monitor.files import write
from monitor.hiding import hide
from monitor.http import Http, HttpError
from monitor.places import loopback, place
from monitor.ports import PluginError

log = logging.getLogger(__name__)

_EARLY = 60.0  # seconds before its end at which a token is renewed: clocks differ, and logging in takes a while
_LIFE = 3600.0  # seconds, where the answer does not say (RFC 6749 section 5.1)
_PLAIN = re.compile(r"[\x20-\x7e]+")
_ANEW = "have the mailbox's owner sign in again, and put the new token into refresh_token_file"
# RFC 6749 section 5.2.
_REMEDIES = {
    "invalid_grant": f"the refresh token holds no more: {_ANEW}",
    "invalid_client": "client_id or client_secret is wrong: look them up where the application is registered",
    "unauthorized_client": "the application may not do that: allow it refresh tokens where it is registered",
    "unsupported_grant_type": "it knows no refresh tokens: check token_url",
    "invalid_scope": f"it does not give what is asked for any more: {_ANEW}",
    "invalid_request": "it does not understand us: check token_url",
}


class _Answer(BaseModel):
    """What RFC 6749 section 5.1 promises."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    access_token: SecretStr
    expires_in: float = _LIFE
    refresh_token: SecretStr | None = None


class Tokens:
    """The access tokens for one mailbox; for one thread.

    A provider may replace the refresh token at each use. The new one is kept in the file ``kept``, with what it came
    from: so a newly configured one counts again.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: SecretStr | None,
        refresh_token: SecretStr,
        *,
        kept: Path | None = None,
        outgoing: tuple[str, ...] = (),
    ) -> None:
        self._url, self._id, self._secret, self._given, self._kept = url, client_id, client_secret, refresh_token, kept
        self._http = Http((*outgoing, *loopback(url)))
        self._refresh: SecretStr | None = None
        self._access: SecretStr | None = None
        self._until = 0.0
        self._uses = 0

    def forget(self) -> bool:
        """The token at hand was refused, so the next is new; whether that is worth a try, since this one was old."""
        self._access = None
        return self._uses > 1

    def token(self) -> str:
        """One that holds for a while, the one at hand if it does.

        Raises:
            PluginError: none was given; it says what to do.
        """
        if self._access is None or time.monotonic() >= self._until:
            self._access = self._renewed()
            self._uses = 0
        self._uses += 1
        return self._access.get_secret_value()

    def _renewed(self) -> SecretStr:
        if self._refresh is None:
            self._refresh = self._found()
        answer = self._asked(self._refresh)
        token = answer.access_token.get_secret_value()
        if not _PLAIN.fullmatch(token):
            raise PluginError(f"{self._name} gives no token that can be sent: check token_url", retry=True)
        self._until = time.monotonic() + max(0.0, answer.expires_in - _EARLY)
        rotated = answer.refresh_token
        if rotated and rotated.get_secret_value() not in ("", self._refresh.get_secret_value()):
            self._rotate(rotated)
        return answer.access_token

    def _asked(self, refresh: SecretStr) -> _Answer:
        form = {"grant_type": "refresh_token", "client_id": self._id, "refresh_token": refresh.get_secret_value()}
        if self._secret:
            form["client_secret"] = self._secret.get_secret_value()
        head = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        try:
            answer = self._http.request(
                "POST", self._url, headers=head, body=urlencode(form).encode(), tries=2, idempotent=False
            )
        except HttpError as error:
            raise PluginError(f"no token for the mail server: {error}", retry=error.retry) from error
        if answer.status != 200:
            raise PluginError(f"{self._name} gives no token: {_why(answer.status, answer.body)}", retry=True)
        try:
            return _Answer.model_validate_json(answer.body)
        except ValidationError:
            raise PluginError(f"{self._name} answers without a token: check token_url", retry=True) from None

    @property
    def _name(self) -> str:
        return place(self._url).name

    def _found(self) -> SecretStr:
        """The refresh token that the provider gave last, or else the configured one."""
        try:
            told = json.loads(self._kept.read_bytes()) if self._kept else {}
            if told.get("from") == self._origin:
                hide(told["token"])
                return SecretStr(told["token"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            log.warning("kept refresh token not readable", extra={"file": str(self._kept)})
        return self._given

    def _rotate(self, token: SecretStr) -> None:
        self._refresh = token
        hide(token.get_secret_value())
        if self._kept is None:
            log.warning(
                "refresh token was replaced, and rotated_file names no place to keep it", extra={"by": self._name}
            )
            return
        content = json.dumps({"from": self._origin, "token": token.get_secret_value()}).encode()
        try:
            write(self._kept, content)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise PluginError(
                f"{self._kept} can't keep the new refresh token ({why}): mend that soon", retry=True
            ) from error

    @property
    def _origin(self) -> str:
        return hashlib.sha256(b"mailvane refresh token\0" + self._given.get_secret_value().encode()).hexdigest()


def safe_url(url: str) -> str:
    """The URL as it is, if what goes there can't be read on the way.

    Raises:
        ValueError: it is none, or plain HTTP to another machine.
    """
    try:
        safe = place(url).scheme == "https" or bool(loopback(url))
    except ValueError as error:
        raise ValueError(f"must be an https:// URL: {error}") from None
    if not safe:
        raise ValueError("must be an https:// URL, since what it carries is secret")
    return url


def _why(status: int, body: bytes) -> str:
    try:
        told: Any = json.loads(body)
    except ValueError:
        told = None
    code = told.get("error") if isinstance(told, Mapping) else None
    if isinstance(code, str) and code in _REMEDIES:
        return _REMEDIES[code]
    return f"it answers {status}"
