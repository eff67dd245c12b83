"""A real Dovecot in a directory of its own: own mailboxes, own log, loopback only; skips by name where it can't be.

with dovecot() as server:
    server.fill([letter, …])         # into INBOX
    server.count("Archive")          # letters there
    server.kick()                    # ends all sessions, as an operator would
    server.stop(); server.start()    # on the same ports, with what it kept
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import imapclient
import pytest
import trustme

from tests.servers.mailvane import alive
from tests.waiting import answers, free_port, until

USER, PASSWORD = "reports@shop.example", "a secret word"
TLS_NAME = "localhost"
_BINARY = "/usr/sbin/dovecot"
_OWNER = "mail"  # a user of every Debian, who owns the mailboxes
_CONFIG = """\
base_dir = {root}/run
state_dir = {root}/run
instance_name = mailvane{port}
log_path = {root}/dovecot.log
protocols = imap{lmtp}
listen = 127.0.0.1
ssl = yes
ssl_cert = <{root}/cert.pem
ssl_key = <{root}/key.pem
disable_plaintext_auth = no
auth_mechanisms = {mechanisms}
mail_location = maildir:{root}/mail/%u
mail_max_userip_connections = 200
mailbox_idle_check_interval = 1s
mail_max_lock_timeout = 5s
first_valid_uid = 1
mail_uid = {owner}
mail_gid = {owner}
auth_failure_delay = 0
namespace inbox {{
  inbox = yes
  separator = /
}}
{oauth}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {root}/passwd
}}
userdb {{
  driver = static
  args = uid={owner} gid={owner} home={root}/mail/%u
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {tls_port}
    ssl = yes
  }}
}}
{more}
"""
_OAUTH = """\
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {root}/oauth2.conf
}}
"""
_INTROSPECTION = """\
introspection_url = {url}
introspection_mode = post
username_attribute = username
active_attribute = active
active_value = true
"""
_LMTP = """\
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@shop.example
}}
"""


class Dovecot:
    """One instance. ``port`` speaks STARTTLS, ``tls_port`` TLS, ``lmtp_port`` takes mail where that was asked for."""

    def __init__(self, root: Path, *, introspection: str = "", lmtp: bool = False, more: str = "") -> None:
        self.root = root
        self.port, self.tls_port = free_port(), free_port()
        self.lmtp_port = free_port() if lmtp else 0
        self._write(introspection, more)

    @property
    def ca_file(self) -> Path:
        """The authority of its certificate."""
        return self.root / "ca.pem"

    @property
    def log(self) -> Path:
        return self.root / "dovecot.log"

    def settings(self, **more: object) -> dict[str, object]:
        """What a section must say to read from it."""
        return {
            "host": TLS_NAME,
            "port": self.tls_port,
            "ca_file": self.ca_file,
            "user": USER,
            "lock_dir": self.root / "locks",
            **more,
        }

    def start(self) -> None:
        with (self.root / "start.out").open("ab") as out:  # a daemon that inherits a pipe would keep it open for ever
            subprocess.run(
                self._doveadm("dovecot"), stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=30
            )
        until(lambda: answers(self.port), "Dovecot to answer")

    def stop(self) -> None:
        """All of it at once, with every session, as a machine that is shut down does."""
        master = int((self.root / "run" / "master.pid").read_text())
        all_of_it = [master, *_below(master)]
        _signal(all_of_it, signal.SIGTERM)
        with suppress(AssertionError):  # some don't listen; none holds a lock any more
            until(lambda: not any(map(alive, all_of_it[1:])), "its sessions to end", 1)
        _signal(all_of_it, signal.SIGKILL)
        until(lambda: not any(map(alive, all_of_it)) and not answers(self.port), "Dovecot to be gone")
        for left in ("master.pid", "instances.lock"):  # for the second the next one would wait ten seconds
            (self.root / "run" / left).unlink(missing_ok=True)

    def kick(self) -> None:
        """End the sessions of the user, as an operator would."""
        self._run("kick", USER, check=False)

    def renumber(self, folder: str = "INBOX") -> None:
        """Give a folder another UIDVALIDITY, as after its index was lost; nobody may have it open."""
        with self.client() as client:
            before = client.folder_status(folder, ["UIDVALIDITY"])[b"UIDVALIDITY"]
        until(lambda: time.time() >= before + 1, "a second to be over, since that is what Dovecot numbers by", 5)
        where = self.root / "mail" / USER / ("" if folder == "INBOX" else f".{folder}")
        for name in ("dovecot-uidlist", "dovecot.index", "dovecot.index.log", "dovecot.index.cache"):
            (where / name).unlink(missing_ok=True)

    @contextmanager
    def client(self) -> Iterator[imapclient.IMAPClient]:
        """A connection of the mailbox's owner."""
        context = ssl.create_default_context(cafile=self.ca_file)
        with imapclient.IMAPClient(TLS_NAME, self.tls_port, ssl_context=context, timeout=30) as client:
            client.login(USER, PASSWORD)
            yield client

    def fill(self, letters: Sequence[bytes], folder: str = "INBOX") -> None:
        """Put letters into a folder, which is made where there is none."""
        with self.client() as client:
            if not client.folder_exists(folder):
                client.create_folder(folder)
            for start in range(0, len(letters), 500):
                client.multiappend(folder, list(letters[start : start + 500]))

    def letters(self, folder: str = "INBOX") -> list[bytes]:
        """What is in a folder; nothing where there is none."""
        with self.client() as client:
            if not client.folder_exists(folder):
                return []
            client.select_folder(folder, readonly=True)
            found = client.fetch(client.search("ALL"), ["BODY.PEEK[]"])
            return [found[uid][b"BODY[]"] for uid in sorted(found)]

    def count(self, folder: str = "INBOX") -> int:
        """How many letters are in a folder."""
        with self.client() as client:
            if not client.folder_exists(folder):
                return 0
            return int(client.folder_status(folder, ["MESSAGES"])[b"MESSAGES"])

    def flags(self, folder: str = "INBOX") -> list[set[bytes]]:
        """The flags of each letter."""
        with self.client() as client:
            client.select_folder(folder, readonly=True)
            return [set(flags) for _, flags in sorted(client.get_flags(client.search("ALL")).items())]

    def _run(self, *words: str, check: bool = True) -> None:
        subprocess.run(
            self._doveadm("doveadm", *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=check,
            timeout=30,
        )

    def _doveadm(self, program: str, *words: str) -> list[str]:
        path = _BINARY if program == "dovecot" else "/usr/bin/doveadm"
        return [path, "-c", str(self.root / "dovecot.conf"), *words]

    def _write(self, introspection: str, more: str) -> None:
        root = self.root
        root.chmod(0o755)
        for name in ("run", "mail"):
            (root / name).mkdir()
        shutil.chown(root / "mail", _OWNER, _OWNER)
        authority = trustme.CA()
        shown = authority.issue_cert(TLS_NAME, "127.0.0.1")
        authority.cert_pem.write_to_path(root / "ca.pem")
        shown.private_key_pem.write_to_path(root / "key.pem")
        for number, blob in enumerate(shown.cert_chain_pems):
            blob.write_to_path(root / "cert.pem", append=number > 0)
        (root / "passwd").write_text(f"{USER}:{{PLAIN}}{PASSWORD}::::::\n")
        (root / "passwd").chmod(0o644)
        if introspection:
            (root / "oauth2.conf").write_text(_INTROSPECTION.format(url=introspection))
        (root / "dovecot.conf").write_text(
            _CONFIG.format(
                root=root,
                owner=_OWNER,
                port=self.port,
                tls_port=self.tls_port,
                lmtp=" lmtp" if self.lmtp_port else "",
                mechanisms="plain login xoauth2 oauthbearer" if introspection else "plain login",
                oauth=_OAUTH.format(root=root) if introspection else "",
                more=more + (_LMTP.format(port=self.lmtp_port) if self.lmtp_port else ""),
            )
        )


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _below(pid: int) -> Iterator[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield child
        yield from _below(child)


@contextmanager
def dovecot(*, introspection: str = "", lmtp: bool = False, more: str = "") -> Iterator[Dovecot]:
    """A server that runs. ``introspection``: where tokens are looked up, for XOAUTH2; ``more``: configuration."""
    if os.geteuid() != 0 or not Path(_BINARY).exists():
        pytest.skip("real Dovecot: needs root and the Debian package dovecot-imapd")
    if lmtp and not Path("/usr/lib/dovecot/lmtp").exists():
        pytest.skip("real Dovecot with LMTP: needs the Debian package dovecot-lmtpd")
    with tempfile.TemporaryDirectory(prefix="mailvane-dovecot-", ignore_cleanup_errors=True) as folder:
        server = Dovecot(Path(folder), introspection=introspection, lmtp=lmtp, more=more)
        server.start()
        try:
            yield server
        finally:
            server.stop()
