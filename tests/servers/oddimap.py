"""An IMAP server with the oddities of real ones, as far as a reader of one folder meets them.

with OddImap([b"letter", …]) as server:
    server.odd["UID FETCH"] = lambda tag, words: [b"* 1 FETCH (UID 1 BODY[] NIL)", tag + b" OK done"]
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from collectors._uids import unpacked

Answer = Callable[[bytes, str], Sequence[bytes] | None]


class OddImap:
    """One mailbox with one folder; ``odd`` answers commands in place of it, by how they begin, None to leave it."""

    capabilities = "IMAP4rev1 IDLE MOVE UIDPLUS"
    greeting = b"* OK ready"

    def __init__(self, letters: Sequence[bytes], first: int = 1) -> None:
        self.letters = dict(enumerate(letters, first))
        self.moved: dict[int, bytes] = {}
        self.odd: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.validity: bytes | None = b"7"
        self._idling = b""
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        mailbox = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self._say([mailbox.greeting])
                for line in self.rfile:
                    tag, _, rest = line.strip().partition(b" ")
                    words = rest.decode("latin-1")
                    mailbox.asked.append(words)
                    try:
                        self._say(mailbox.answer(tag, words))
                    except OSError:
                        return
                    if words == "LOGOUT":
                        return

            def _say(self, lines: Sequence[bytes]) -> None:
                if b"HANG UP" in lines:
                    raise OSError
                self.wfile.write(b"".join(line + b"\r\n" for line in lines))

        return Handler

    def answer(self, tag: bytes, words: str) -> Sequence[bytes]:
        """The lines for a command."""
        for begin, odd in self.odd.items():
            if words.upper().startswith(begin) and (lines := odd(tag, words)) is not None:
                return lines
        done = tag + b" OK done"
        return next((lines for lines in self._usual(tag, words, done) if lines), [done])

    def _usual(self, tag: bytes, words: str, done: bytes) -> Iterator[Sequence[bytes]]:
        chosen = self._chosen(words.split()[3 if "SEARCH" in words else 2]) if words.startswith("UID ") else []
        if words.startswith("CAPABILITY"):
            yield [f"* CAPABILITY {self.capabilities}".encode(), done]
        if words.startswith("SELECT"):
            validity = [b"* OK [UIDVALIDITY " + self.validity + b"] valid"] if self.validity else []
            yield [f"* {len(self.letters)} EXISTS".encode(), *validity, tag + b" OK [READ-WRITE] done"]
        if "LARGER" in words:
            chosen = [uid for uid in chosen if len(self.letters[uid]) > int(words.rsplit(maxsplit=1)[-1])]
        if words.startswith("UID SEARCH"):
            yield [b"* SEARCH " + " ".join(map(str, chosen)).encode(), done]
        if words.startswith("UID FETCH"):
            yield [*(self.fetch(uid, words) for uid in chosen), done]
        if words.startswith("UID MOVE"):
            self.moved |= {uid: self.letters.pop(uid) for uid in chosen}
        if words.startswith("IDLE"):
            self._idling = tag
            yield [b"+ idling"]
        if tag == b"DONE":
            yield [self._idling + b" OK done"]
        if words == "LOGOUT":
            yield [b"* BYE", done]

    def fetch(self, uid: int, words: str) -> bytes:
        """The answer for one letter."""
        number = list(self.letters).index(uid) + 1
        letter = self.letters[uid]
        if "RFC822.SIZE" in words:
            return f"* {number} FETCH (UID {uid} RFC822.SIZE {len(letter)})".encode()
        head = f'* {number} FETCH (UID {uid} INTERNALDATE "24-Nov-2026 10:00:00 +0000" BODY[]<0> {{{len(letter)}}}'
        return head.encode() + b"\r\n" + letter + b")"

    def _chosen(self, text: str) -> list[int]:
        if text.endswith(":*"):
            low = int(text[:-2])
            return [uid for uid in self.letters if uid >= low] or list(self.letters)[-1:]
        return [uid for uid in self.letters if uid in unpacked(text)]
