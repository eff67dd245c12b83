"""Maps by the text protocol of memcached, of which Postfix's client uses but ``get``. Nothing is ever stored."""

from __future__ import annotations

from monitor.actuators._routes import Routes
from monitor.actuators._talk import RequestError

LONGEST = 4096  # bytes of a command's line
LARGEST = 64 << 10  # bytes of a value that somebody wants stored
_END = b"END\r\n"
# Commands with a value on lines of their own; its size is the fifth word.
_STORING = frozenset((b"set", b"add", b"replace", b"append", b"prepend", b"cas"))
_SAID = {
    b"delete": b"NOT_FOUND\r\n",
    b"touch": b"NOT_FOUND\r\n",
    b"incr": b"NOT_FOUND\r\n",
    b"decr": b"NOT_FOUND\r\n",
    b"stats": _END,
    b"version": b"VERSION mailvane\r\n",
    b"verbosity": b"OK\r\n",
    b"flush_all": b"ERROR\r\n",
}


class Memcache:
    """A key is ``recipients:ADDRESS`` or ``senders:ADDRESS``. In trouble it says that there is nothing."""

    name = "memcache"
    sorry = _END

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def cut(self, data: bytes, start: int) -> int:
        """A command ends with its line; one that stores, with its value."""
        end = data.find(b"\n", start, start + LONGEST + 1)
        if end < 0:
            if len(data) - start > LONGEST:
                raise RequestError("too long")
            return 0
        words = data[start:end].split()
        if words and words[0] in _STORING:
            end += _size(words) + 2
        return end + 1 if len(data) > end else 0

    def answer(self, request: bytes) -> bytes | None:
        """What is known of the keys, or the polite reply to what is not done here."""
        verb, *rest = request.partition(b"\n")[0].split() or [b""]
        if verb in (b"get", b"gets"):
            return b"".join(self._value(key, b" 0" if verb == b"gets" else b"") for key in rest) + _END
        if verb == b"quit":
            return None
        if verb not in _STORING and verb not in _SAID:
            raise RequestError("malformed")
        return b"" if rest and rest[-1] == b"noreply" else _SAID.get(verb, b"NOT_STORED\r\n")

    def _value(self, key: bytes, version: bytes) -> bytes:
        table, _, address = key.decode("utf-8", "replace").partition(":")
        find = self._routes.find.get(table)
        found = find(address).encode() if find else b""
        return b"VALUE %b 0 %d%b\r\n%b\r\n" % (key, len(found), version, found) if found else b""


def _size(words: list[bytes]) -> int:
    if len(words) < 5 or not words[4].isdigit():
        raise RequestError("malformed")
    if len(words[4]) > 9 or int(words[4]) > LARGEST:
        raise RequestError("too long")
    return int(words[4])
