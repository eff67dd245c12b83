"""Who may come in, in some lines: what ``mailvane check`` says of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from monitor.caller import Right
from monitor.ledger import keys, people
from monitor.ledger.db import open_ledger
from monitor.settings import GateSettings


def summary(settings: GateSettings, now: datetime) -> Iterator[str]:
    """Keys and people as they are, and a warning where nobody could ask or look."""
    granted = {Right(one) for one in settings.access.anonymous}
    if granted:
        yield f"access: this machine may {', '.join(sorted(granted))} without a key"
    having: set[Right] = set()
    count = persons = 0
    if settings.ledger.exists():
        ledger = open_ledger(settings.ledger, reads=True)
        try:
            with ledger.connect().execution_options(reads=True) as conn:
                found = [key for key in keys.every(conn) if key.in_force(now)]
                persons = sum(1 for person in people.every(conn) if person.disabled_at is None)
        except SQLAlchemyError:
            yield "access: keys and people can't be read now; a first start of this version makes their tables"
            return
        finally:
            ledger.dispose()
        having, count = {right for key in found for right in key.rights}, len(found)
    yield f"access: keys in force: {count}; people: {persons}"
    if not {Right.CHECK, Right.ADMIN} & (having | granted):
        yield "warning: nobody may ask the gate: mailvane keys add NAME --scope check"
    if not persons and Right.READ not in granted:
        yield "warning: nobody may look at the page: mailvane people add NAME --role admin"
