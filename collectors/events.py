"""Events told over HTTP (``POST /v1/events``)."""

from __future__ import annotations

from collectors._decode import decode, schema
from monitor.model import Batch
from monitor.ports import Receiver

__all__ = ["Events", "schema"]


class Events(Receiver):
    """Marketplaces' own systems tell us what became of each message."""

    def decode(self, body: bytes) -> Batch:
        """The events of a body; see ``collectors._decode``."""
        return decode(body)
