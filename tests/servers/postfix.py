"""A real Postfix in a directory of its own: own queue, own log, loopback only; skips by name where it can't be."""

from __future__ import annotations

import json
import os
import shutil
import smtplib
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import free_port, until

_MAIN = """\
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
sendmail_path = /usr/sbin/sendmail
newaliases_path = /usr/bin/newaliases
mailq_path = /usr/bin/mailq
setgid_group = postdrop
mail_owner = postfix
myhostname = mta1.shop.example
mydestination =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{next_port}
smtp_dns_support_level = disabled
smtp_tls_security_level = none
maillog_file = {root}/log/mail.log
maillog_file_prefixes = {root}
smtpd_peername_lookup = no
smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination
alias_maps =
alias_database =
bounce_queue_lifetime = 0
minimal_backoff_time = 2s
maximal_backoff_time = 4s
queue_run_delay = 2s
enable_long_queue_ids = yes
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp -o syslog_name=postfix/smtp-ip1
relay     unix  - - n - - smtp -o syslog_name=postfix/smtp-ip1
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True, slots=True)
class Postfix:
    """A running instance."""

    port: int
    log: Path

    def send(self, messages: Sequence[tuple[str, str]]) -> None:
        """Hand over one message for each (envelope sender, recipient)."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=30) as client:
            for sender, recipient in messages:
                message = EmailMessage()
                message["From"], message["To"], message["Subject"] = "shop@shop.example", recipient, "hello"
                message.set_content("hello")
                client.send_message(message, sender, [recipient])

    @property
    def etc(self) -> Path:
        """The directory of its configuration."""
        return self.log.parent.parent / "etc"

    def lines(self, *words: str) -> list[str]:
        """The lines of its log so far that hold all of these words."""
        return [line for line in self.log.read_text("utf-8").splitlines() if all(word in line for word in words)]

    def queue(self) -> list[dict[str, Any]]:
        """What waits in its queue."""
        return [json.loads(line) for line in self._postqueue("-j").splitlines()]

    def flush(self) -> None:
        """Try all that waits at once, as an operator may after a pause."""
        self._postqueue("-f")

    def _postqueue(self, option: str) -> str:
        command = ["/usr/sbin/postqueue", "-c", str(self.etc), option]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=30, text=True)
        return done.stdout


@contextmanager
def postfix(
    next_port: int, main: str = "", services: str = "", tables: Mapping[str, str] | None = None
) -> Iterator[Postfix]:
    """Start an instance that relays everything to 127.0.0.1:``next_port``.

    ``main`` and ``services`` are further lines of main.cf (``{etc}`` is the folder of both) and master.cf, ``tables``
    further files beside them.
    """
    if os.geteuid() != 0 or not shutil.which("postfix", path="/usr/sbin:/usr/bin"):
        pytest.skip("real Postfix: needs root and the Debian package postfix")
    # Not below pytest's own directory, which only its owner may enter: Postfix's user must reach its queue.
    with tempfile.TemporaryDirectory(prefix="mailvane-postfix-") as folder:
        root, port = Path(folder), free_port()
        for name in ("etc", "queue", "data", "log"):
            (root / name).mkdir(parents=True)
        for name, text in (tables or {}).items():
            (root / "etc" / name).write_text(text)
        (root / "etc/main.cf").write_text(
            _MAIN.format(root=root, next_port=next_port) + main.replace("{etc}", str(root / "etc"))
        )
        (root / "etc/master.cf").write_text(_MASTER.format(port=port) + services)
        yield from _running(root, port)


def _running(root: Path, port: int) -> Iterator[Postfix]:
    root.chmod(0o755)
    shutil.chown(root / "data", "postfix")
    control = ["/usr/sbin/postfix", "-c", str(root / "etc")]
    with (root / "log/start.out").open("wb") as out:  # a daemon that inherits a pipe would keep it open for ever
        subprocess.run([*control, "start"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=60)
    try:
        until(lambda: _answers(port), "Postfix to answer")
        yield Postfix(port, root / "log/mail.log")
    finally:
        subprocess.run([*control, "stop"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)


def _answers(port: int) -> bool:
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=5) as client:
            return client.noop()[0] == 250
    except OSError:
        return False
