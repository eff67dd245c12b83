"""Maps by Postfix's socketmap protocol: netstrings that name a table and a key (socketmap_table(5))."""

from __future__ import annotations

import re

from monitor.actuators._routes import Routes
from monitor.actuators._talk import RequestError

LONGEST = 4096  # bytes of a request
_LENGTH = re.compile(rb"([0-9]{1,4}):|[0-9]{0,4}\Z")
_COMMA = ord(",")


class Socketmap:
    """In trouble it says that there is nothing: Postfix would defer all mail over a map that does not answer."""

    name = "socketmap"

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self.sorry = _netstring("NOTFOUND ")

    def cut(self, data: bytes, start: int) -> int:
        """A request is a netstring."""
        length = _LENGTH.match(data, start)
        if not length:
            raise RequestError("malformed")
        if not length[1]:
            return 0
        if int(length[1]) > LONGEST:
            raise RequestError("too long")
        end = length.end() + int(length[1])
        if len(data) <= end:
            return 0
        if data[end] != _COMMA:
            raise RequestError("malformed")
        return end + 1

    def answer(self, request: bytes) -> bytes:
        """What the table says of the key."""
        text = request.partition(b":")[2][:-1].decode("utf-8", "replace")
        table, blank, key = text.partition(" ")
        if not blank:
            raise RequestError("malformed")
        find = self._routes.find.get(table)
        if find is None:
            return _netstring("PERM no such map")
        found = find(key)
        return _netstring(f"OK {found}") if found else self.sorry


def _netstring(text: str) -> bytes:
    content = text.encode()
    return b"%d:%b," % (len(content), content)
