"""The service's own certificate: to be shown with its key, or to be known again by who has its file."""

from __future__ import annotations

import http.client
import re
import ssl
from pathlib import Path

from monitor.errors import UserError

_FIRST = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def showing(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """TLS of a server that shows ``certificate``; ``key`` None: it is in the same file.

    Raises:
        UserError: they can't be used.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password, though none fits: for that of an encrypted key OpenSSL would ask at the terminal, and wait.
        made.load_cert_chain(certificate, key, password="")
    except OSError as error:
        files = " and ".join(str(file) for file in (certificate, key) if file)
        raise UserError(f"{files} can't be used: {_why(error)}") from error
    return made


def _why(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is another certificate's"
    return f"no certificate and key that fit, or the key has a password ({error.reason or 'nothing found'})"


class Known(http.client.HTTPSConnection):
    """HTTPS with whoever shows exactly the certificate in a file, whatever its names; others are told nothing.

    Not with whoever its authority vouches for: that may be anybody, since no name is checked.

    Raises:
        UserError: there is no certificate in the file, or by ``connect``: another one was shown.
    """

    def __init__(self, host: str, port: int, certificate: Path, timeout: float) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # `connect` compares the certificate itself; TLS proves that it is theirs
        super().__init__(host, port, timeout=timeout, context=context)
        self._certificate = certificate
        self._known = _first(certificate)

    def connect(self) -> None:
        """Connect, and look who is there before anything is sent."""
        super().connect()
        if self.sock.getpeercert(binary_form=True) != self._known:
            self.close()
            raise UserError(
                f"who listens on port {self.port} shows another certificate than {self._certificate}: "
                "if it was renewed, let the service read it (systemctl reload mailvane)"
            )


def _first(certificate: Path) -> bytes:
    """The first certificate of the file, which is the one that is shown; those after it vouch for it."""
    try:
        found = _FIRST.search(certificate.read_text("ascii", "replace"))
        if found:
            return ssl.PEM_cert_to_DER_cert(found[0])
    except (OSError, ValueError) as error:
        raise UserError(f"{certificate} can't be read: {getattr(error, 'strerror', None) or error}") from error
    raise UserError(f"{certificate} can't be used: there is no certificate in it")
