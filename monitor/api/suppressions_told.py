"""What requests about suppressions may say, and what OpenAPI tells of the answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from monitor.api.asked import Label, Stamp
from monitor.core.suppressing import Reason
from monitor.ports import Duration
from monitor.register import MOST

_Addresses = Annotated[list[Annotated[str, Field(max_length=2000)]], Field(max_length=MOST)]
_TEXT = {"type": "string"}
_MAYBE = {"type": ["string", "null"]}
_SCOPE = {"type": "object", "properties": {"tenant": _TEXT, "stream": _TEXT}, "additionalProperties": False}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Asked(_Body):
    """Addresses, and which mail would go to them."""

    addresses: Annotated[_Addresses, Field(min_length=1)]
    tenant: Label = ""
    stream: Label = ""


class Added(_Body):
    """Addresses that get no more mail; without tenant and stream of nobody's, without an end for good."""

    addresses: Annotated[_Addresses, Field(min_length=1)]
    tenant: Label = ""
    stream: Label = ""
    why: Annotated[str, Field(min_length=1, max_length=200)]
    until: Stamp | None = None
    span: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(days=36_500))] | None = Field(None, alias="for")
    who: Annotated[str, Field(max_length=200)] = ""


class Released(_Body):
    """Addresses or pseudonyms that get mail again; of one reason alone, where it is named."""

    addresses: _Addresses = Field(default_factory=list)
    pseudonyms: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=MOST)] = Field(
        default_factory=list
    )
    reason: Reason | None = None
    why: Annotated[str, Field(min_length=1, max_length=200)]
    who: Annotated[str, Field(max_length=200)] = ""


class Outaged(_Body):
    """When a provider refused everybody."""

    provider: Label
    since: Stamp = Field(alias="from")
    until: Stamp = Field(alias="to")
    why: Annotated[str, Field(min_length=1, max_length=200)]
    who: Annotated[str, Field(max_length=200)] = ""


CHANGE: dict[str, Any] = {
    "type": "object",
    "required": ["seq", "at", "change", "pseudonym", "reason", "scope", "since", "until", "why", "who"],
    "properties": {
        "seq": {"type": "integer"},
        "at": _TEXT,
        "change": {"type": "string", "enum": ["added", "renewed", "released", "ended"]},
        "pseudonym": {"type": "string", "description": "32 hexadecimal digits"},
        "reason": {"type": "string", "enum": [str(why) for why in Reason]},
        "scope": _SCOPE,
        "since": _TEXT,
        "until": _MAYBE,
        "why": _TEXT,
        "who": _TEXT,
    },
}
_RESULT = {
    "type": "object",
    "properties": {
        "suppressed": {"type": "boolean"},
        "reason": _MAYBE,
        "since": _MAYBE,
        "until": _MAYBE,
        "scope": {"type": ["object", "null"]},
        "pseudonym": _TEXT,
        "others": {
            "type": "array",
            "description": "Entries that keep back other mail to the same address.",
            "items": {"type": "object", "properties": {"reason": _TEXT, "scope": _SCOPE}},
        },
        "error": {"type": "string", "description": "In place of all else: this is no address."},
    },
}


def _answers(what: str, properties: dict[str, Any], status: int = 200) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "object", "required": list(properties), "properties": properties}
    return {status: {"description": what, "content": {"application/json": {"schema": schema}}}}


_CHANGES = {"type": "array", "items": CHANGE}
FEED = _answers(
    "Changes in their order.", {"changes": _CHANGES, "next": {"type": "integer"}, "more": {"type": "boolean"}}
)
CHECK = _answers(
    "A result for each address, in its place.", {"scope": _SCOPE, "results": {"type": "array", "items": _RESULT}}
)
CHANGED = {
    **_answers("What was changed.", {"changes": _CHANGES}),
    **_answers("What was changed.", {"changes": _CHANGES}, 201),
}


def body(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI tells of a route that reads its body itself."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
