"""Slack over HTTP: what is worth a second try, and what an answer means for the one who must mend it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urljoin

from pydantic import SecretStr

from monitor.http import Answer, Http, HttpError
from monitor.places import loopback
from monitor.ports import PluginError

log = logging.getLogger(__name__)

_TRIES = 3  # inside one call; the pipeline has the long waits

_NEW_TOKEN = "make a new bot token in the app's settings and put it into token_file"  # noqa: S105  # words, no secret
_NEW_HOOK = "make a new incoming webhook and put its URL into webhook_url_file"
_ADMIN = "ask an administrator of the workspace to let the app post there"
_REMEDIES = {
    "account_inactive": _NEW_TOKEN,
    "action_prohibited": _ADMIN,
    "channel_is_archived": "unarchive the channel, or make a webhook for another one",
    "channel_not_found": "write the channel's ID into channel, and invite the app to it",
    "invalid_auth": _NEW_TOKEN,
    "invalid_token": _NEW_HOOK,
    "is_archived": "unarchive the channel, or write another one into channel",
    "missing_scope": "give the app the scope chat:write and install it again",
    "no_active_hooks": _NEW_HOOK,
    "no_service": _NEW_HOOK,
    "no_service_id": _NEW_HOOK,
    "no_team": _NEW_HOOK,
    "not_authed": _NEW_TOKEN,
    "not_in_channel": "invite the app to the channel",
    "restricted_action": _ADMIN,
    "token_expired": _NEW_TOKEN,
    "token_revoked": _NEW_TOKEN,
}
_PASSING = {
    "fatal_error",
    "internal_error",
    "rate_limited",
    "ratelimited",
    "request_timeout",
    "rollup_error",
    "service_unavailable",
}
# Slack dislikes the shape of a message, and will take the bare words of it.
_SHAPE = {
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_payload",
    "invalid_metadata_format",
    "msg_blocks_too_long",
}


class RefusedError(PluginError):
    """Slack answered no; ``code`` is its word for it, empty where the answer was not Slack's."""

    def __init__(self, message: str, *, retry: bool, code: str) -> None:
        super().__init__(message, retry=retry)
        self.code = code


@dataclass(frozen=True, slots=True)
class Slack:
    """How it is asked: ``outgoing`` are networks besides public addresses, ``timeout`` is for one request."""

    outgoing: tuple[str, ...]
    timeout: timedelta

    def call(self, token: SecretStr, base_url: str, method: str, body: Mapping[str, Any]) -> str:
        """Call a method of the Web API that posts or changes a message; the message as ``channel:ts``.

        Raises:
            PluginError: it was not done; a ``RefusedError`` where Slack said so.
        """
        answer = self._post(urljoin(base_url, method), body, {"Authorization": f"Bearer {token.get_secret_value()}"})
        said = _said(answer.body)
        if said.get("ok") is not True or answer.status != 200:
            refused = _refusal(answer.status, _code(said))
            if refused.code in _SHAPE and body["blocks"]:
                return self.call(token, base_url, method, _bare(body, refused.code))
            raise refused
        if not all(isinstance(said.get(key), str) for key in ("channel", "ts")):
            raise PluginError("Slack took the message and did not say where it stands", retry=False)
        return f"{said['channel']}:{said['ts']}"

    def send(self, url: SecretStr, body: Mapping[str, Any]) -> None:
        """Post by an incoming webhook.

        Raises:
            PluginError: it was not posted.
        """
        answer = self._post(url.get_secret_value(), body, {})
        if answer.status == 200:
            return
        refused = _refusal(answer.status, _code({"error": answer.body.decode("utf-8", "replace").strip()}))
        if not (refused.code in _SHAPE and body["blocks"]):
            raise refused
        self.send(url, _bare(body, refused.code))

    def _post(self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        # After a lost answer it is posted again: told twice is better than not at all.
        http = Http((*self.outgoing, *loopback(url)), timeout=self.timeout)
        try:
            return http.request(
                "POST",
                url,
                headers={"Content-Type": "application/json; charset=utf-8", **headers},
                body=json.dumps(body).encode(),
                tries=_TRIES,
                idempotent=True,
            )
        except HttpError as error:
            raise PluginError(f"Slack {error.what}", retry=error.retry) from error


def _bare(body: Mapping[str, Any], code: str) -> dict[str, Any]:
    """The message without what Slack disliked: plain words that arrive are better than blocks that don't."""
    log.warning("slack refused the blocks, sending plain text", extra={"code": code})
    return {**{name: value for name, value in body.items() if name != "metadata"}, "blocks": []}


def _said(content: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _code(said: Mapping[str, Any]) -> str:
    """Slack's word for what is wrong; empty where it is no word, so that nothing strange reaches a log."""
    code = said.get("error")
    return code if isinstance(code, str) and re.fullmatch(r"[a-z0-9_]{1,60}", code) else ""


def _refusal(status: int, code: str) -> RefusedError:
    remedy = f": {_REMEDIES[code]}" if code in _REMEDIES else ""
    # A 200 without Slack's word is somebody else's: a proxy's page, or half an answer.
    passing = code in _PASSING or status in (408, 429) or status >= 500 or (status == 200 and not code)
    return RefusedError(f"Slack answered {code or f'with status {status}'}{remedy}", retry=passing, code=code)
