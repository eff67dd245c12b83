"""Postfix's policy delegation: one message's attributes in, an action out (SMTPD_POLICY_README)."""

from __future__ import annotations

from monitor.actuators._envelope import Envelope
from monitor.actuators._talk import RequestError
from monitor.actuators._words import refusal
from monitor.ports import Current

LONGEST = 16 << 10  # bytes of a request: some thirty attributes, of which Postfix gives most to certificates
_PASSES = b"action=DUNNO\n\n"


class Policy:
    """Holds new mail by a temporary refusal. In trouble it says nothing, which Postfix is told to take for DUNNO."""

    name = "policy"
    sorry = b""

    def __init__(self, envelope: Envelope, current: Current) -> None:
        self._envelope, self._current = envelope, current

    def cut(self, data: bytes, start: int) -> int:
        """A request ends with an empty line."""
        end = data.find(b"\n\n", start)
        if (end if end >= 0 else len(data)) - start > LONGEST:
            raise RequestError("too long")
        return end + 2 if end >= 0 else 0

    def answer(self, request: bytes) -> bytes:
        """The action for one message."""
        told = _attributes(request)
        sender, recipient = told.get("sender", ""), told.get("recipient", "")
        message = self._envelope.message(sender, told.get("sasl_username", ""), recipient)
        said = self._current.check(message.scope, _key(sender, recipient, told.get("size", "")), message.knows)
        return b"action=" + refusal(said.lease).encode("ascii") + b"\n\n" if said.held and said.lease else _PASSES


def _attributes(request: bytes) -> dict[str, str]:
    lines = request.decode("utf-8", "replace").removesuffix("\n\n").split("\n")
    if not all("=" in line for line in lines):
        raise RequestError("malformed")
    told = dict(line.split("=", 1) for line in lines)
    if told.get("request") != "smtpd_access_policy":
        raise RequestError("malformed")
    return told


def _key(sender: str, recipient: str, size: str) -> str:
    # What stays the same when a sender tries again: of a throttle each message is to get the same answer each time.
    return "\0".join((sender, recipient, size if size != "0" else "")).lower()
