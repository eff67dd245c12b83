"""What became of each message, from Postfix's log: sent, deferred, bounced, expired, or held by a pause of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import PrivateAttr

from collectors._maillog import MailLog
from collectors._postfix import Parser
from collectors._provider import learnt, provider_of
from collectors._tail import Followed, Piece, Position, follow
from monitor.model import Batch, Rejected
from monitor.ports import Memory, PluginError

__all__ = ["LOST", "Parser", "Sendlog", "learnt", "provider_of"]

LOST = "rotated away before it was read"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Sendlog(MailLog, Followed):
    """Follows one log file of one or many Postfix machines."""

    _live: tuple[Mapping[str, Any], Parser] | None = PrivateAttr(default=None)

    def collect(self, memory: Memory, now: datetime) -> Iterator[Batch]:
        """The lines since ``memory.cursor``, a batch for each chunk; at least one batch, maybe without rows."""
        parser = self._resumed(memory, now)
        cursor = memory.cursor
        try:
            for piece in follow(self.path, Position.of(cursor)):
                batch = self._batch(parser, piece)
                cursor = {**piece.position(parser.pending).dumped(), "skipping": parser.skipping, "last": parser.last}
                yield replace(batch, cursor=cursor, watermark=self._watermark(parser, piece, now))
        except OSError as error:
            raise PluginError(f"{self.path} can't be read: {error.strerror or error}", retry=True) from error
        self._live = (cursor, parser)

    def _resumed(self, memory: Memory, now: datetime) -> Parser:
        # The parser of the last call is as good as one built from what was committed, if that is where it stood.
        live, self._live = self._live, None
        if live and live[0] == memory.cursor:
            live[1].resume(now)
            return live[1]
        return self.parser(now, memory)

    def _batch(self, parser: Parser, piece: Piece) -> Batch:
        where = str(self.path)
        lost = [Rejected(LOST, where)] if piece.lost else []
        if lost:
            parser.gap()
        batch = parser.feed(piece.data, where)
        if not piece.complete:
            return replace(batch, rejected=[*lost, *batch.rejected]) if lost else batch
        rest = parser.finish(where)
        return Batch(
            {name: (*values, *rest.columns[name]) for name, values in batch.columns.items()},
            remember={**batch.remember, **rest.remember},
            rejected=[*lost, *batch.rejected, *rest.rejected],
        )

    def _watermark(self, parser: Parser, piece: Piece, now: datetime) -> datetime | None:
        if not parser.last:
            return None
        last = min(_EPOCH + timedelta(microseconds=parser.last), now)
        # A log that is read to its end and quiet says that nothing happened. A writer that has died looks the same,
        # so after some silence the log vouches for nothing more.
        quiet = piece.at_end and not parser.pending and now - last <= self.silence
        return max(last, now - self.lag) if quiet else last
