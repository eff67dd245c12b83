"""Slack over HTTP: what is worth a second try, and what an answer means for the one who must mend it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import URLError

from slack_sdk import WebClient, WebhookClient
from slack_sdk.errors import SlackApiError, SlackRequestError
from slack_sdk.http_retry import HttpRequest, HttpResponse, RetryState
from slack_sdk.http_retry.builtin_handlers import (
    ConnectionErrorRetryHandler,
    RateLimitErrorRetryHandler,
    ServerErrorRetryHandler,
)
from slack_sdk.http_retry.builtin_interval_calculators import FixedValueRetryIntervalCalculator
from slack_sdk.http_retry.handler import RetryHandler

from monitor.ports import PluginError

log = logging.getLogger(__name__)

_TRIES = 2  # further ones, inside one call
_PATIENCE = 30  # seconds of Retry-After that are waited out here; for longer ones the pipeline comes again
# The SDK writes whole URLs and answers to its log, and a webhook's URL is its password. This logger stands outside the
# tree, so that nothing turns it on.
_SILENT = logging.Logger("slack_sdk", level=logging.CRITICAL + 1)  # noqa: LOG001  # see above

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


def call(token: str, base_url: str, seconds: int, method: str, body: Mapping[str, Any]) -> str:
    """Call a method of the Web API that posts or changes a message; the message as ``channel:ts``.

    Raises:
        PluginError: it was not done; a ``RefusedError`` where Slack said so.
    """
    client = WebClient(token, base_url, seconds, logger=_SILENT, retry_handlers=_handlers())
    try:
        answer = client.api_call(method, json=dict(body)).data
    except SlackApiError as error:
        refused = _refusal(error.response.status_code, _code(error.response.data))
        if refused.code in _SHAPE and body["blocks"]:
            return call(token, base_url, seconds, method, _bare(body, refused.code))
        raise refused from error
    except (SlackRequestError, OSError, HTTPException, ValueError, AttributeError) as error:
        raise _unreachable(error, seconds) from error  # AttributeError: the SDK's, over JSON that is no object
    if not isinstance(answer, dict) or not {"channel", "ts"} <= answer.keys():
        raise PluginError("Slack took the message and did not say where it stands", retry=False)
    return f"{answer['channel']}:{answer['ts']}"


def send(url: str, seconds: int, body: Mapping[str, Any]) -> None:
    """Post by an incoming webhook.

    Raises:
        PluginError: it was not posted.
    """
    client = WebhookClient(url, seconds, logger=_SILENT, retry_handlers=_handlers())
    try:
        answer = client.send_dict(dict(body))
    except (SlackRequestError, OSError, HTTPException, ValueError) as error:
        raise _unreachable(error, seconds) from error
    if answer.status_code == 200:
        return
    refused = _refusal(answer.status_code, _code({"error": answer.body.strip()}))
    if not (refused.code in _SHAPE and body["blocks"]):
        raise refused
    send(url, seconds, _bare(body, refused.code))


class _RateLimit(RateLimitErrorRetryHandler):
    """Waits as long as Slack asks, unless that is too long for the caller."""

    def _can_retry(
        self,
        *,
        state: RetryState,
        request: HttpRequest,
        response: HttpResponse | None = None,
        error: Exception | None = None,
    ) -> bool:
        limited = super()._can_retry(state=state, request=request, response=response, error=error)
        return limited and response is not None and _is_bearable(response)


class _ServerError(ServerErrorRetryHandler):
    """Every 5xx: what stands before Slack answers 502 and 504, which the SDK leaves alone."""

    def _can_retry(
        self,
        *,
        state: RetryState,
        request: HttpRequest,
        response: HttpResponse | None = None,
        error: Exception | None = None,
    ) -> bool:
        known = super()._can_retry(state=state, request=request, response=response, error=error)
        return known or (response is not None and response.status_code >= 500)


def _handlers() -> list[RetryHandler]:
    wait = FixedValueRetryIntervalCalculator(0.3)  # seconds; the pipeline has the long ones
    return [_RateLimit(_TRIES), _ServerError(_TRIES, wait), ConnectionErrorRetryHandler(_TRIES, wait)]


def _is_bearable(response: HttpResponse) -> bool:
    asked = next((value for header, value in response.headers.items() if header.lower() == "retry-after"), "1")
    asked = asked if isinstance(asked, str) else asked[0]
    return bool(re.fullmatch(r"[0-9]{1,9}", asked)) and int(asked) <= _PATIENCE


def _bare(body: Mapping[str, Any], code: str) -> dict[str, Any]:
    """The message without what Slack disliked: plain words that arrive are better than blocks that don't."""
    log.warning("slack refused the blocks, sending plain text", extra={"code": code})
    return {**{name: value for name, value in body.items() if name != "metadata"}, "blocks": []}


def _code(answer: object) -> str:
    """Slack's word for what is wrong; empty where it is no word, so that nothing strange reaches a log."""
    code = answer.get("error") if isinstance(answer, dict) else None
    return code if isinstance(code, str) and re.fullmatch(r"[a-z0-9_]{1,60}", code) else ""


def _refusal(status: int, code: str) -> RefusedError:
    remedy = f": {_REMEDIES[code]}" if code in _REMEDIES else ""
    # A 200 without Slack's word is somebody else's: a proxy's page, or half an answer.
    passing = code in _PASSING or status in (408, 429) or status >= 500 or (status == 200 and not code)
    return RefusedError(f"Slack answered {code or f'with status {status}'}{remedy}", retry=passing, code=code)


def _unreachable(error: Exception, seconds: int) -> PluginError:
    # Never the error's own text: urllib's may quote the URL.
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return PluginError(f"Slack did not answer within {seconds} s", retry=True)
    if isinstance(cause, OSError) and cause.strerror:
        return PluginError(f"Slack can't be reached: {cause.strerror}", retry=True)
    return PluginError(f"Slack did not answer as Slack does ({type(cause).__name__})", retry=True)
