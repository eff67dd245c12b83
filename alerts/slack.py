"""Slack: one message an incident, changed in place as the incident goes on.

With a bot token the message is posted by ``chat.postMessage`` and changed by ``chat.update``. An incoming webhook
cannot change what it posted, so there a further message comes only for something new: a deed, or the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, model_validator

from alerts import _slack_client as client
from alerts._render import render
from alerts._slack_layout import payload
from monitor.model import Action, Incident
from monitor.places import loopback, place
from monitor.ports import Duration, Notifier

_WAYS = "give either a token (token_file) with a channel, or an incoming webhook (webhook_url_file)"
# The message can't be changed any more; another one may still be posted.
_GONE = {"cant_update_message", "channel_not_found", "edit_window_closed", "is_archived", "message_not_found"}


def _safe_url(url: str) -> str:
    try:
        safe = place(url).scheme == "https" or bool(loopback(url))
    except ValueError as error:
        raise ValueError(f"must be an https:// URL: {error}") from None
    if not safe:
        raise ValueError("must be an https:// URL, since what it carries is secret")
    return url


def _api_url(url: str) -> str:
    if not url.endswith("/api/"):
        raise ValueError("must end in /api/, such as https://slack.com/api/")
    return _safe_url(url)


def _token(token: SecretStr) -> SecretStr:
    text = token.get_secret_value().strip()
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("must be one word, such as xoxb-…")
    return SecretStr(text)


def _hook_url(url: SecretStr) -> SecretStr:
    return SecretStr(_safe_url(url.get_secret_value().strip()))


class Slack(Notifier):
    """``[alert.NAME]`` with ``kind = "slack"``."""

    model_config = ConfigDict(hide_input_in_errors=True)
    secrets: ClassVar[tuple[str, ...]] = ("token", "webhook_url")

    token: Annotated[SecretStr, AfterValidator(_token)] | None = Field(
        default=None, description="Bot token of a Slack app with the scope `chat:write`."
    )
    channel: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="ID (`C…`) or name of the channel; together with `token`."
    )
    webhook_url: Annotated[SecretStr, AfterValidator(_hook_url)] | None = Field(
        default=None, description="URL of an incoming webhook, in place of `token` and `channel`."
    )
    base_url: Annotated[str, AfterValidator(_api_url)] = Field(
        default="https://slack.com/api/", description="Where the Web API stands; ends in `/api/`."
    )
    timeout: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(minutes=1))] = Field(
        default=timedelta(seconds=10), description="How long one request may take."
    )
    page_url: Annotated[str, Field(pattern=r"^https?://[^\s<>|]{1,500}$")] | None = Field(
        default=None, description="Address of Mailvane's page, for the link in the message."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.token and self.webhook_url:
            raise ValueError(f"has both ways to Slack: {_WAYS}")
        if not self.token and not self.webhook_url:
            raise ValueError(f"has no way to Slack: {_WAYS}")
        if self.token and not self.channel:
            raise ValueError(f"has a token and no channel: {_WAYS}")
        if self.webhook_url and self.channel:
            raise ValueError(f"has a channel, and a webhook posts to its own: {_WAYS}")
        return self

    def notify(self, incident: Incident, actions: Sequence[Action], handle: str) -> str:
        """Post the incident's message, or change it; the handle is ``channel:ts``, or what a webhook told last.

        After a time-out Slack may have taken the message all the same, and the next call posts another: told twice is
        better than not at all.

        Raises:
            PluginError: it was not told. Its words hold neither token nor URL.
        """
        body = payload(incident.id, render(incident, actions), self.page_url)
        if self.token:
            return self._post_or_change(self.token, body, handle)
        told = _told(incident, actions)
        if not _is_news(told, handle):
            return handle
        if self.webhook_url:
            self._slack.send(self.webhook_url, {**body, "unfurl_links": False})
        return told

    def _post_or_change(self, token: SecretStr, body: dict[str, object], handle: str) -> str:
        channel, _, ts = handle.partition(":")
        body = {**body, "parse": "none"}  # chat.update's own default makes links and mentions
        if channel and re.fullmatch(r"\d+\.\d+", ts):
            try:
                return self._slack.call(token, self.base_url, "chat.update", {**body, "channel": channel, "ts": ts})
            except client.RefusedError as refused:
                if refused.code not in _GONE:
                    raise
        body = {**body, "channel": self.channel, "unfurl_links": False, "unfurl_media": False}
        return self._slack.call(token, self.base_url, "chat.postMessage", body)

    @property
    def _slack(self) -> client.Slack:
        return client.Slack(self.outgoing, self.timeout)


def _told(incident: Incident, actions: Sequence[Action]) -> str:
    newest = max((action.seq for action in actions), default=0)
    return f"webhook:{newest}:{'resolved' if incident.resolved_at else 'open'}"


def _is_news(told: str, handle: str) -> bool:
    """Whether ``told`` says more than the handle of what was told last: a newer deed, or that the incident ended."""
    before = re.fullmatch(r"webhook:(\d+):(open|resolved)", handle)
    if not before:
        return True
    _, newest, state = told.split(":")
    return int(newest) > int(before[1]) or state != before[2]
