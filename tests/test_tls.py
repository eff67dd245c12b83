"""The service's certificate: a pair that can't be used is a mistake of the configuration; commands know it again."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from monitor import manifest
from monitor.config import ConfigError, load_gate, parse
from monitor.errors import UserError
from monitor.handover import Backup, there
from tests.servers.mailvane import program
from tests.servers.shipyard import Core, Yard
from tests.waiting import free_port


@pytest.fixture(scope="module")
def yard(tmp_path_factory) -> Iterator[Yard]:
    made = Yard(tmp_path_factory.mktemp("yard"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def core(yard) -> Core:
    """A running one, whose certificate names another host than the one by which it is asked."""
    yard.authority.issue_cert("mailvane.example").private_key_and_cert_chain_pem.write_to_path(yard.certificate)
    core = yard.core(started=False)
    core.trusts.check_hostname = False
    core.start()
    return core.ready()


def command(core: Core, *words: str | Path) -> subprocess.CompletedProcess[str]:
    whole = [*program(), "--config", str(core.config), *map(str, words)]
    return subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)


# what a configuration may name


def pair(folder: Path, name: str = "one") -> tuple[Path, Path]:
    """A certificate and its key, each in a file."""
    made = trustme.CA().issue_cert("mailvane.example")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    made.cert_chain_pems[0].write_to_path(certificate)
    made.private_key_pem.write_to_path(key)
    return certificate, key


def mistakes(**service: Path) -> list[str]:
    tables = {"service": {name: str(path) for name, path in service.items()}}
    try:
        parse(tables, "test", {})
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_a_pair_that_fits_is_no_mistake(tmp_path):
    certificate, key = pair(tmp_path)
    assert mistakes(tls_cert=certificate, tls_key=key) == []


def locked(key: Path) -> Path:
    """The same key behind a password."""
    made = key.with_suffix(".locked")
    words = ["openssl", "pkcs8", "-topk8", "-in", key, "-out", made, "-passout", "pass:x"]
    subprocess.run(words, check=True, capture_output=True)
    return made


def test_a_pair_that_cannot_be_used_is_told_with_its_path_and_remedy(tmp_path):
    certificate, key = pair(tmp_path)
    _, other = pair(tmp_path, "other")
    nowhere = tmp_path / "none.pem"
    for service, why in (
        ({"tls_cert": nowhere}, "none.pem can't be used: No such file or directory"),
        ({"tls_cert": certificate, "tls_key": nowhere}, "No such file or directory"),
        ({"tls_cert": tmp_path}, "Is a directory"),
        ({"tls_cert": certificate, "tls_key": other}, "the key is another certificate's"),
        ({"tls_cert": certificate}, "no certificate and key that fit"),
        ({"tls_cert": key, "tls_key": key}, "no certificate and key that fit"),
        ({"tls_cert": certificate, "tls_key": locked(key)}, "the key has a password"),
    ):
        (told,) = mistakes(**service)
        assert told.startswith("service.tls_cert: ")
        assert why in told
        assert "→ name a certificate and its key" in told


def test_the_gate_which_shows_no_certificate_comes_up_without_it(tmp_path):
    config = tmp_path / "mailvane.toml"
    config.write_text('[service]\ntls_cert = "none.pem"\n')
    assert load_gate(config).service.tls_cert == Path("none.pem")


def test_check_tells_a_certificate_that_is_not_there(tmp_path):
    config = tmp_path / "mailvane.toml"
    config.write_text(f'[service]\ntls_cert = "{tmp_path / "none.pem"}"\n')
    done = command(Core(["check"], config), "check")
    assert done.returncode == 2
    assert "service.tls_cert: " in done.stderr


# work that a command has done by the service


def test_a_backup_and_an_export_are_made_by_a_service_that_speaks_tls(core, tmp_path):
    done = command(core, "backup", tmp_path / "backups")
    assert done.returncode == 0, done.stderr
    assert len(manifest.whole(tmp_path / "backups")) == 1
    done = command(core, "export", tmp_path / "export")
    assert done.returncode == 0, done.stderr


@contextmanager
def stranger(certificate: Path | None) -> Iterator[tuple[int, bytearray]]:
    """Something on a port that speaks TLS with that certificate, or none; and all that it was told in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate:
        context.load_cert_chain(certificate)
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                raw, _ = listener.accept()
                if not certificate:
                    raw.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                with raw, context.wrap_socket(raw, server_side=True) if certificate else raw as peer:
                    while part := peer.recv(4096):
                        heard.extend(part)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], heard
        thread.join()


def test_who_shows_another_certificate_of_the_same_authority_is_not_told_the_token(yard, tmp_path):
    other = tmp_path / "other.pem"
    yard.authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(other)
    with stranger(other) as (port, heard), pytest.raises(UserError, match="shows another certificate"):
        there(Backup("x"), tmp_path, ("127.0.0.1", port), "secret", yard.certificate)
    assert heard == b""


def test_who_speaks_no_tls_is_not_told_the_token(yard, tmp_path):
    with stranger(None) as (port, heard), pytest.raises(UserError, match="does not speak TLS"):
        there(Backup("x"), tmp_path, ("127.0.0.1", port), "secret", yard.certificate)
    assert b"secret" not in heard
    assert list(tmp_path.iterdir()) == []


def test_nobody_listening_is_no_error(yard, tmp_path):
    assert there(Backup("x"), tmp_path, ("127.0.0.1", free_port()), "secret", yard.certificate) is None


def test_a_renewed_certificate_that_the_service_has_not_read_is_told(core, yard, tmp_path):
    shown = yard.certificate.read_bytes()
    try:
        yard.authority.issue_cert("mailvane.example").private_key_and_cert_chain_pem.write_to_path(yard.certificate)
        done = command(core, "backup", tmp_path / "backups")
    finally:
        yard.certificate.write_bytes(shown)
    assert done.returncode == 1
    assert "let the service read it (systemctl reload mailvane)" in done.stderr
