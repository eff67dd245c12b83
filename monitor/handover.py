"""Work on the stores that a command asks for: of the service that has them open, or done by the command itself.

A command says what it wants in a file of the data directory, and names that file to the running service over HTTP. So
who may not write there can't have anything done, whatever else he knows; and no path or key goes over the network.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import re
import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from monitor import backup, export
from monitor.core.suppressing import Policy
from monitor.errors import UserError
from monitor.files import write
from monitor.manifest import Job, Step
from monitor.rebuilding import rebuild
from monitor.stores import Stores
from monitor.tls import Known

ROUTE = "/v1/handover"
_FOLDER = "handover"
_TICKET = re.compile(r"[0-9a-f]{32}")
_SILENT = 900  # seconds that one step may take
_LONGEST = 1 << 20  # bytes of a line that the service answers


class Backup(msgspec.Struct, frozen=True, tag="backup"):
    """A backup into the directory ``folder``; see ``backup.make``. ``keyring_for`` 0: for ever."""

    folder: str
    keyring: bool = True
    keyring_for: timedelta = backup.KEYRING_FOR
    keep: int = 0


class Export(msgspec.Struct, frozen=True, tag="export"):
    """An export into the directory ``folder``; see ``export.make``."""

    folder: str
    tables: list[str]
    since: date | None = None
    until: date | None = None
    pseudonyms: bool = True


class Rebuild(msgspec.Struct, frozen=True, tag="rebuild"):
    """Suppressions folded anew; see ``rebuilding.rebuild``."""

    policy: Policy
    apply: bool = False


Order = Backup | Export | Rebuild


class Said(msgspec.Struct, omit_defaults=True):
    """One line of the service's answer: a step, the result in the end, or why there is none."""

    step: tuple[str, int, int] | None = None
    result: dict[str, Any] | None = None
    error: str = ""


def carry_out(order: Order, stores: Stores, data: Path, now: datetime) -> Job:
    """Do it, with stores that are open."""
    if isinstance(order, Rebuild):
        return rebuild(stores.facts, stores.ledger, order.policy, now, apply=order.apply)
    folder = Path(order.folder)
    if isinstance(order, Backup):
        return backup.make(
            stores,
            data,
            folder,
            now,
            keyring=order.keyring,
            keyring_for=order.keyring_for or None,
            keep=order.keep,
        )
    return export.make(
        stores,
        folder,
        tables=order.tables,
        since=order.since,
        until=order.until,
        pseudonyms=order.pseudonyms,
    )


def here(order: Order, open_stores: Callable[[], Stores], data: Path, now: datetime) -> Job:
    """Do it in this process, with stores that nobody else has open.

    Raises:
        DirectoryInUse: somebody has.
    """
    with closing(open_stores()) as stores:
        return (yield from carry_out(order, stores, data, now))


def there(
    order: Order, data: Path, address: tuple[str, int], token: str, certificate: Path | None = None
) -> Job | None:
    """Have it done by the service that listens on ``address``; None where nobody listens.

    ``certificate``: what it shows, where it speaks HTTPS. Who shows another one is not told the token.

    Raises:
        UserError: it refused, failed or ended meanwhile.
    """
    connection = connected(address, certificate)
    return None if connection is None else _followed(connection, order, data, token)


def connected(address: tuple[str, int], certificate: Path | None = None) -> http.client.HTTPConnection | None:
    """A connection to the service that listens on ``address``, as ``there`` has it; None where nobody listens.

    Raises:
        UserError: it can't be reached.
    """
    connection = _connection(_near(address[0]), address[1], certificate)
    try:
        connection.connect()
    except ConnectionRefusedError:
        return None
    except ssl.SSLError as error:
        raise UserError(
            f"who listens on port {address[1]} does not speak TLS with us ({error.reason}): "
            "if tls_cert is new in [service], let the service read it (systemctl reload mailvane)"
        ) from error
    except OSError as error:
        raise UserError(f"the service on port {address[1]} can't be asked: {error.strerror or error}") from error
    return connection


def taken(data: Path, ticket: str) -> Order | None:
    """What the file named by ``ticket`` asks for, once; None where there is no such file, or it says nothing."""
    if not _TICKET.fullmatch(ticket):
        return None
    path = data / _FOLDER / ticket
    try:
        raw = path.read_bytes()
        path.unlink()
        order: Order = msgspec.json.decode(raw, type=Order)
    except (OSError, msgspec.MsgspecError):
        return None
    return order


def line(said: Said) -> bytes:
    """A line of an answer."""
    return msgspec.json.encode(said) + b"\n"


def _connection(host: str, port: int, certificate: Path | None) -> http.client.HTTPConnection:
    if certificate:
        return Known(host, port, certificate, _SILENT)
    return http.client.HTTPConnection(host, port, timeout=_SILENT)


def _followed(connection: http.client.HTTPConnection, order: Order, data: Path, token: str) -> Job:
    lost = UserError(
        "the service ended, or was cut off, before the work was done: see its log; nothing half done is left"
    )
    with closing(connection), _ticket(order, data) as ticket:
        try:
            connection.request("POST", ROUTE, msgspec.json.encode({"ticket": ticket}), _headers(token))
            answer = connection.getresponse()
            if answer.status != 200:
                raise UserError(refusal(answer))
            for said in _lines(answer):
                if said.error:
                    raise UserError(said.error)
                if said.result is not None:
                    return said.result
                if said.step:
                    yield Step(*said.step)
        except (OSError, http.client.HTTPException) as error:
            raise lost from error
    raise lost


@contextmanager
def _ticket(order: Order, data: Path) -> Iterator[str]:
    name = secrets.token_hex(16)
    path = data / _FOLDER / name
    write(path, msgspec.json.encode(order))
    try:
        yield name
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()


def _lines(answer: http.client.HTTPResponse) -> Iterator[Said]:
    while text := answer.readline(_LONGEST):
        try:
            yield msgspec.json.decode(text, type=Said)
        except msgspec.MsgspecError as error:
            raise http.client.HTTPException("no line of an answer") from error


def refusal(answer: http.client.HTTPResponse) -> str:
    """Why the service refused, as it said."""
    text = answer.read(_LONGEST)
    with suppress(msgspec.MsgspecError):
        told = msgspec.json.decode(text, type=dict[str, str])
        return f"the service refused: {told.get('error', '')}. {told.get('remedy', '')}".strip()
    return f"who listens there answered {answer.status}: is it Mailvane, and of this release?"


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def _near(host: str) -> str:
    """Where a service is asked that listens on ``host``: on every address means on this machine's own too."""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "::1"
    return host


def owner_only(data: Path) -> None:
    """Refuse to touch a data directory as another user than its owner: what he then could not read, nobody repairs.

    Raises:
        UserError: it belongs to somebody else.
    """
    if data.exists() and (owner := data.stat().st_uid) != os.geteuid():
        raise UserError(f"{data} belongs to user {owner}: run this as that user, for instance with sudo -u")
