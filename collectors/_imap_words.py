"""What went wrong with a mail server, in words that tell what to do; none holds a password or an address."""

from __future__ import annotations

import re
import socket
import ssl
from imaplib import IMAP4

from imapclient.exceptions import LoginError

from monitor.scrub import scrub

# What the library raises of a server or a network that fails.
FAILURES = (IMAP4.error, OSError)
_LONGEST = 200
_SERVERS = re.compile(r"\[([A-Z-]{2,30})(?: [^\]]{0,200})?\]")
# RFC 5530 section 3, as far as there is something better to say than the server's own words.
_CODES = {
    "AUTHENTICATIONFAILED": "refuses the login: check user and password",
    "AUTHORIZATIONFAILED": "lets this user not in under that name: check user",
    "EXPIRED": "says that the password has expired: set a new one",
    "PRIVACYREQUIRED": 'takes no login without TLS: set tls = "tls" or "starttls"',
    "UNAVAILABLE": "can't do that at present: wait, or ask whoever runs it",
    "INUSE": "says that the folder is in use: wait, or close what else reads it",
    "LIMIT": "says that a limit is reached: close other connections of this user, or ask whoever runs it",
    "OVERQUOTA": "has no room left for this user: make room, or ask for more",
    "NOPERM": "does not permit it: grant this user the rights on the folder",
}


def told(error: BaseException) -> str:
    """What happened and what to do, to be written behind the name of the server."""
    match error:
        case LoginError():
            return _by_code(str(error)) or f"refuses the login: check user and password ({_short(error)})"
        case IMAP4.readonly():
            return "lets us only look at the folder: grant this user the right to change it"
        case IMAP4.abort():
            return _aborted(error)
        case IMAP4.error():
            return _by_code(str(error)) or f"refuses: {_short(error)}"
        case OSError():
            return _unreached(error)
        case _:
            return f"failed ({type(error).__name__})"


def _aborted(error: BaseException) -> str:
    text = str(error)
    if "EOF" in text or "socket error" in text:
        return "hung up: it is tried again"
    return _by_code(text) or f"broke off: {_short(error)}"


def _unreached(error: OSError) -> str:
    match error:
        case TimeoutError():
            return "does not answer in time: check host and port, or allow it more by timeout"
        case ssl.SSLCertVerificationError():
            return f"shows a certificate that is not trusted ({error.verify_message}): name its authority by ca_file"
        case ssl.SSLError():
            return f"fails in TLS ({error.reason or type(error).__name__}): check port and tls"
        case socket.gaierror():
            return f"can't be resolved ({error.strerror}): check host"
        case ConnectionRefusedError():
            return "refuses the connection: start it, or check host and port"
        case _:
            return f"can't be reached ({error.strerror or type(error).__name__}): it is tried again"


def _by_code(text: str) -> str:
    found = _SERVERS.search(text)
    return _CODES.get(found[1], "") if found else ""


def _short(error: BaseException) -> str:
    return scrub(str(error), _LONGEST)
