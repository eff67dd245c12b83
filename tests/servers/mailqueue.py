"""Mail that waits in a real Postfix's queue, and the root half of holding it, installed as an operator would."""

from __future__ import annotations

import json
import os
import shutil
import smtplib
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from monitor.actuators import _postsuper
from tests.servers.postfix import Postfix, postfix
from tests.waiting import until


@dataclass(frozen=True)
class Waiting:
    """A Postfix whose next hop may not be there, with the helper beside it."""

    mta: Postfix
    folder: Path

    @property
    def etc(self) -> str:
        return str(self.folder / "etc")

    @property
    def helper(self) -> tuple[str, ...]:
        return (str(self.folder / "sbin/mailvane-postsuper"),)

    @property
    def allowed(self) -> Path:
        """The file of directories that may be named."""
        return self.folder / "sbin/allowed"

    def send(self, sender: str, *recipients: str) -> str:
        """Queue one message; its id, once it waits."""
        with smtplib.SMTP("127.0.0.1", self.mta.port, timeout=30) as client:
            client.mail(sender)
            for recipient in recipients:
                client.rcpt(recipient)
            told = client.data("Subject: hello\n\nhello\n")[1].decode()
        queued = told.rpartition(" ")[2]
        until(lambda: f"{queued}: to=" in self.mta.log.read_text(), "a first attempt")
        return queued

    def where(self) -> dict[str, str]:
        """The queue in which each message is."""
        listed = subprocess.run(
            ["/usr/sbin/postqueue", "-c", self.etc, "-j"], capture_output=True, check=True, timeout=30
        )
        return {told["queue_id"]: told["queue_name"] for told in map(json.loads, listed.stdout.splitlines())}

    def on_hold(self) -> set[str]:
        return {queued for queued, queue in self.where().items() if queue == "hold"}

    def postsuper(self, *words: str) -> None:
        """What a person does by hand."""
        command = ["/usr/sbin/postsuper", "-c", self.etc, *words]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=30)

    def ask(self, *words: str, given: bytes = b"", **more: object) -> str:
        """What the helper answers."""
        done = subprocess.run([*self.helper, *words], input=given, capture_output=True, check=False, timeout=30, **more)
        assert (done.returncode == 0) == done.stdout.endswith(b"done\n")
        return done.stdout.decode()


@contextmanager
def waiting(next_port: int) -> Iterator[Waiting]:
    """It runs, and relays to a port where at first nobody need listen."""
    with postfix(next_port) as mta:
        here = Waiting(mta, mta.log.parent.parent)
        install(here.folder / "sbin", [here.etc])
        yield here


def install(folder: Path, directories: Sequence[str]) -> None:
    """Put the helper there; its list of directories stands beside it rather than in /etc."""
    folder.mkdir(mode=0o755)
    (folder / "allowed").write_text("".join(f"{one}\n" for one in directories))
    text = Path(_postsuper.__file__).read_text("utf-8")
    assert text.count(_postsuper.ALLOWED) == 1
    program = folder / "mailvane-postsuper"
    program.write_text(text.replace(_postsuper.ALLOWED, str(folder / "allowed")))
    program.chmod(0o755)
    for path in (folder / "allowed", program):
        os.chown(path, 0, 0)
    assert shutil.which(str(program))
