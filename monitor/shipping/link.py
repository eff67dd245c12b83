"""The way to the core: HTTPS with its certificate checked, and in words what goes wrong on it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from monitor.errors import UserError
from monitor.scrub import scrub

ROUTE = "/v1/batches"
CONNECT, ANSWER = 10.0, 60.0  # seconds
ANSWER_BYTES = 1 << 20
LONGEST_WAIT = 300.0  # seconds that a core may ask us to wait
_REASONS = {
    401: "refuses our key: name a file with one of the scope ingest by token_file in [ship] (mailvane keys add, there)",
    403: "does not let our key tell: it needs the scope ingest, and must be no seller's (mailvane keys add, there)",
    404: f"knows no {ROUTE}: name the core itself by `to` in [ship], and bring it to this version",
    405: f"knows no {ROUTE}: name the core itself by `to` in [ship], and bring it to this version",
}


class NotTaken(Exception):  # noqa: N818  # a state, not a fault
    """The core did not say that it has the frames. ``wait``: seconds that it asked for.

    ``refused`` are frames that it will never take: sequence → why.
    """

    def __init__(self, what: str, *, wait: float = 0.0, refused: Mapping[int, str] | None = None) -> None:
        super().__init__(what)
        self.wait = wait
        self.refused = dict(refused or {})


@dataclass(frozen=True, slots=True)
class Taken:
    """The core's answer: its version, and up to which frame it has each source of ours."""

    version: str
    now: int  # POSIX microseconds
    rejected: int
    reached: Mapping[str, int] = field(default_factory=dict)


def context(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    """TLS that checks the core's certificate against ``ca_file``, or the system's; ours is shown where it is asked for.

    Raises:
        UserError: a file can't be used.
    """
    made = ssl.create_default_context()
    here: Path | None = ca_file
    try:
        if ca_file:
            made = ssl.create_default_context(cafile=ca_file)
        if cert_file:
            here = cert_file
            made.load_cert_chain(cert_file, key_file)
    except OSError as error:
        key = "ca_file" if here == ca_file else "cert_file and key_file"
        why = error.strerror if not isinstance(error, ssl.SSLError) else "no certificate, or a key that does not fit"
        raise UserError(f"{here} can't be used: {why or error}; see {key} in [ship]") from error
    return made


class Link:
    """One kept connection to a core."""

    def __init__(self, to: str, token: str, tls: ssl.SSLContext) -> None:
        self.to = to
        self._pool = urllib3.PoolManager(
            num_pools=1, maxsize=1, ssl_context=tls, timeout=urllib3.Timeout(CONNECT, ANSWER), retries=False
        )
        self._headers = {"Content-Type": "application/vnd.mailvane.batches", "Content-Encoding": "zstd"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def post(self, body: bytes, answer: float = ANSWER) -> Taken:
        """Hand a body over, waiting ``answer`` seconds at most; returns only where the core says that it has it.

        Raises:
            NotTaken: in all other cases, with what an operator should do.
        """
        try:
            response = self._pool.request(
                "POST",
                self.to + ROUTE,
                body=body,
                headers=self._headers,
                redirect=False,
                preload_content=False,
                timeout=urllib3.Timeout(CONNECT, answer),
            )
            try:
                content = response.read(ANSWER_BYTES + 1)
            finally:
                response.drain_conn()
                response.release_conn()
        except (HTTPError, OSError) as error:
            hint = "; if it speaks TLS, write https" if self.to.startswith("http:") and _cut_off(error) else ""
            raise NotTaken(f"{self.to} {_why(error)}{hint}") from error
        return self._read(response.status, response.headers, content)

    def close(self) -> None:
        """Hang up."""
        self._pool.clear()

    def _read(self, status: int, headers: Mapping[str, str], content: bytes) -> Taken:
        said = _json(content)
        if status == 200:
            try:
                return Taken(str(said["version"]), int(said["now"]), int(said["rejected"]), dict(said["reached"]))
            except (KeyError, TypeError, ValueError) as error:
                raise NotTaken(f"{self.to} answers as no core does: name the core itself by `to` in [ship]") from error
        if 300 <= status < 400:
            raise NotTaken(f"{self.to} sends us elsewhere ({status}): name the core itself by `to` in [ship]")
        told = ": ".join(scrub(str(said[key]), 300) for key in ("error", "remedy") if said.get(key))
        what = _REASONS.get(status) or f"answers {status}" + (f" ({told})" if told else "")
        refused = {int(item["sequence"]): str(item["error"])[:300] for item in _items(said)} if status == 422 else {}
        raise NotTaken(f"{self.to} {what}", wait=_wait(headers.get("Retry-After", "")), refused=refused)


def _json(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _items(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    items = said.get("items")
    return [item for item in items if {"sequence", "error"} <= item.keys()] if isinstance(items, list) else []


def _wait(text: str) -> float:
    return min(float(text), LONGEST_WAIT) if text.isdecimal() else 0.0


def _cut_off(error: BaseException) -> bool:
    """Whether something listens, and does not answer as HTTP does."""
    return isinstance(error, urllib3.exceptions.ProtocolError)


def _why(error: BaseException) -> str:
    """What went wrong below HTTP; the cause that a person can act on stands deepest."""
    chain: list[BaseException] = []
    here: BaseException | None = error
    while here is not None and here not in chain:
        chain.append(here)
        inner = next((one for one in here.args if isinstance(one, BaseException)), None)
        here = inner or here.__cause__ or here.__context__
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            remedy = "name the authority that signed it by ca_file in [ship], or renew it"
            return f"shows a certificate that we don't trust ({one.verify_message}): {remedy}"
    for one in chain:
        if isinstance(one, ssl.SSLError):
            return (
                f"fails in TLS ({one.reason or one.strerror}): is tls_cert set in its [service], and `to` its listen?"
            )
    for one in chain:
        if isinstance(one, OSError) and one.strerror:
            return f"does not answer ({one.strerror}): is the core up, and the port open to us?"
    if any(isinstance(one, TimeoutError | urllib3.exceptions.TimeoutError) for one in chain):
        return "does not answer in time"
    return f"broke off ({type(error).__name__})"
