"""Log lines over the network become outcomes: every one that came, whatever their frames; bounded, whoever sends."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors import _listener
from collectors._lines import LIMIT
from collectors._listener import CUT, NO_TLS, NOT_ALLOWED, TOO_MANY, UNFRAMED
from collectors._postfix import TOO_LONG
from collectors._syslog import Stream, logged
from collectors.syslog import Syslog
from monitor.model import Batch
from monitor.ports import Memory, PluginError
from tests.waiting import free_port, until

NOW = datetime(2025, 3, 8, 12, tzinfo=UTC)
STAMP = "2025-03-08T11:59:58.123456+00:00"


def logline(number: int, host: str = "mail1", stamp: str = STAMP) -> bytes:
    """What Postfix tells of the numbered message, as a file has it."""
    return (
        f"{stamp} {host} postfix/smtp[7]: 4Zq{number:07d}z1bD: to=<kim{number}@there.example>, "
        "relay=mx.there.example[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)"
    ).encode()


def forwarded(number: int, **more: str) -> bytes:
    """As rsyslog forwards it without being told how."""
    return b"<22>" + logline(number, **more)


def counted(message: bytes) -> bytes:
    return b"%d %s" % (len(message), message)


class Source:
    """A collector as the pipeline drives it: what was yielded is on disk when it is asked for the next."""

    def __init__(self, **more) -> None:
        self.port = free_port()
        self.collector = Syslog(listen=f"127.0.0.1:{self.port}", **more)
        self.memory = Memory()
        self.batches: list[Batch] = []
        self.read()

    def read(self, now: datetime = NOW) -> None:
        for batch in self.collector.collect(self.memory, now):
            self.memory = Memory(batch.cursor, self.memory.remembers)
            self.batches.append(batch)

    def rows(self) -> int:
        self.read()
        return sum(map(len, self.batches))

    def recipients(self) -> list[str]:
        return [to for batch in self.batches for to in batch.columns.get("recipient", ())]

    def whys(self) -> list[str]:
        self.read()
        return [item.why for batch in self.batches for item in batch.rejected]

    def until_rows(self, count: int) -> None:
        until(lambda: self.rows() >= count, f"{count} rows of {self.rows()}", 20)
        assert self.rows() == count

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


@contextmanager
def listening(**more) -> Iterator[Source]:
    source = Source(**more)
    try:
        yield source
    finally:
        source.collector.close()


def test_lines_with_line_ends_become_outcomes():
    with listening() as source, source.connect() as sender:
        sender.sendall(b"".join(forwarded(number) + b"\n" for number in range(500)))
        source.until_rows(500)
        assert source.recipients() == [f"kim{number}@there.example" for number in range(500)]


def test_what_can_not_be_read_is_told_with_the_address_of_who_sent_it():
    with listening() as source, source.connect() as near, socket.socket() as far:
        far.bind(("127.0.0.2", 0))
        far.connect(("127.0.0.1", source.port))
        near.sendall(forwarded(1) + b"\n")
        far.sendall(b"no log line\n" + forwarded(2) + b"\n")
        source.until_rows(2)
        told = [(item.where, item.why) for batch in source.batches for item in batch.rejected]
        assert told == [("127.0.0.2", "no log line")]


def test_counted_messages_become_outcomes_and_a_break_within_one_forges_no_line():
    with listening() as source, source.connect() as sender:
        forged = b"<22>" + STAMP.encode() + b" mail1 other[1]: harmless\n" + logline(99)
        sender.sendall(b"".join(counted(message) for message in (forwarded(1), forged, forwarded(2))))
        source.until_rows(2)
        assert source.recipients() == ["kim1@there.example", "kim2@there.example"]


@pytest.mark.parametrize("frame", [counted, lambda message: message + b"\n"], ids=["counted", "by line"])
@settings(deadline=None, max_examples=60)
@given(cuts=st.lists(st.integers(0, 2000), max_size=40))
def test_the_lines_are_the_same_however_the_bytes_are_cut(frame, cuts):
    content = b"".join(frame(forwarded(number)) for number in range(10))
    stream = Stream("192.0.2.9")
    places = sorted({0, len(content), *(cut for cut in cuts if cut < len(content))})
    lines = b"".join(stream.push(content[start:end]) for start, end in pairwise(places))
    assert lines == b"".join(logline(number) + b"\n" for number in range(10))
    assert not stream.pending


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (b"<22>Mar  8 11:59:58 mail1 postfix/qmgr[9]: x", b"Mar  8 11:59:58 mail1 postfix/qmgr[9]: x"),
        (b"<22>Mar  8 11:59:58 postfix/qmgr[9]: x", b"Mar  8 11:59:58 192.0.2.9 postfix/qmgr[9]: x"),
        (b"<22>1 2025-03-08T11:59:58Z m1 postfix/qmgr 9 - - x", b"2025-03-08T11:59:58Z m1 postfix/qmgr[9]: x"),
        (b"<22>1 2025-03-08T11:59:58Z m1 postfix/qmgr 9 - -  x", b"2025-03-08T11:59:58Z m1 postfix/qmgr[9]: x"),
        (
            b'<22>1 2025-03-08T11:59:58Z - postfix/qmgr - ID [a@1 b="\\"]"][c d="e"] \xef\xbb\xbfx',
            b"2025-03-08T11:59:58Z 192.0.2.9 postfix/qmgr[-]: x",
        ),
        (b"Mar  8 11:59:58 mail1 postfix/qmgr[9]: x", b"Mar  8 11:59:58 mail1 postfix/qmgr[9]: x"),
    ],
    ids=["3164", "3164 without host", "5424", "5424 by rsyslog", "5424 with data", "without priority"],
)
def test_each_form_is_the_line_that_a_file_would_have(sent, line):
    assert logged(sent + b"\n", b"192.0.2.9") == line + b"\n"


def test_a_message_of_the_new_form_becomes_an_outcome():
    message = b"<22>1 " + logline(1).replace(b"postfix/smtp[7]:", b"postfix/smtp 7 - -")
    with listening() as source, source.connect() as sender:
        sender.sendall(counted(message))
        source.until_rows(1)


def test_half_a_line_waits_for_its_other_half():
    with listening() as source, source.connect() as slow, source.connect() as quick:
        message = forwarded(1) + b"\n"
        slow.sendall(message[:60])
        quick.sendall(forwarded(2) + b"\n")
        source.until_rows(1)
        for byte in message[60:]:
            slow.sendall(bytes([byte]))
        source.until_rows(2)


def test_a_line_that_never_ended_is_told():
    with listening() as source:
        with source.connect() as sender:
            sender.sendall(forwarded(1) + b"\n" + forwarded(2)[:50])
        until(lambda: CUT in source.whys(), "the cut line to be told", 10)
        assert source.rows() == 1


@pytest.mark.parametrize("way", ["by line", "counted"])
def test_a_line_of_50_mb_is_dropped_and_counted_and_the_next_is_read(way):
    size = 50 << 20
    with listening() as source, source.connect() as sender:
        sender.sendall(counted(forwarded(1)) if way == "counted" else forwarded(1) + b"\n")
        sender.sendall(b"%d <22>" % size if way == "counted" else b"<22>")
        sent = 4
        while sent < size:  # in pieces, since what the test holds is counted too
            sent += sender.send(b"x" * min(1 << 20, size - sent))
            source.read()
        sender.sendall(counted(forwarded(2)) if way == "counted" else b"\n" + forwarded(2) + b"\n")
        source.until_rows(2)
        assert source.whys() == [TOO_LONG]


def test_a_count_that_is_none_ends_the_connection_and_is_told():
    with listening() as source, source.connect() as sender:
        sender.sendall(counted(forwarded(1)) + b"nonsense, and so on")
        until(lambda: sender.recv(1) == b"", "the connection to end")
        assert source.rows() == 1
        assert source.whys() == [UNFRAMED]


def test_senders_wait_while_nobody_reads_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(_listener, "HELD", 256 << 10)
    block = b"".join(forwarded(number) + b"\n" for number in range(2000))
    with listening() as source, source.connect() as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        sender.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):  # the kernel's buffers and ours are full
            while sent < 64 << 20:
                sent += sender.send(block[sent % len(block) :])
        assert sent < 64 << 20
        sender.settimeout(20)
        sender.setblocking(False)
        rest = memoryview(block)[sent % len(block) :] if sent % len(block) else memoryview(b"")
        while rest:
            source.read()
            try:
                rest = rest[sender.send(rest) :]
            except BlockingIOError:
                time.sleep(0.001)  # until the other side has read
        whole = -(-sent // len(block)) * 2000
        source.until_rows(whole)


def test_a_batch_that_could_not_be_taken_is_handed_over_again():
    with listening() as source, source.connect() as sender:
        sender.sendall(forwarded(1) + b"\n")
        held = until(lambda: _first(source), "the first batch")
        sender.sendall(forwarded(2) + b"\n")
        source.until_rows(2)
        assert source.batches[1] is held or held in source.batches


def _first(source: Source) -> Batch | None:
    """A batch with rows, whose taker fails: the generator is thrown away."""
    collect = source.collector.collect(source.memory, NOW)
    batch = next((batch for batch in collect if len(batch)), None)
    collect.close()
    return batch


def test_what_was_received_is_read_after_the_end():
    with listening() as source, source.connect() as sender:
        sender.sendall(b"".join(forwarded(number) + b"\n" for number in range(3000)))
        until(lambda: source.collector._listener._held, "the first bytes", 10)
        source.collector.close()
        sender.settimeout(1)
        before = len(source.batches)
        source.read()
        assert source.rows() > 0
        assert len(source.batches) == before + 1
        source.read()
        assert len(source.batches) == before + 1


def test_no_more_connections_than_configured():
    with listening(connections=2) as source, source.connect() as one, source.connect() as two:
        one.sendall(forwarded(1) + b"\n")
        two.sendall(forwarded(2) + b"\n")
        source.until_rows(2)
        with source.connect() as third:
            assert third.recv(1) == b""
        assert source.whys() == [TOO_MANY]
        one.sendall(forwarded(3) + b"\n")
        source.until_rows(3)


def test_only_whom_it_is_allowed_may_send():
    with listening(allow=("192.0.2.0/24",)) as source:
        with source.connect() as stranger:
            assert stranger.recv(1) == b""
        until(lambda: NOT_ALLOWED in source.whys(), "the refusal to be told", 10)
        assert source.rows() == 0


def test_a_datagram_is_a_message():
    with listening(udp=True) as source, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(20):
            sender.sendto(forwarded(number), ("127.0.0.1", source.port))
        source.until_rows(20)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    ca.issue_cert("mail1.example").private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    return folder


def secured(source: Source, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(source.connect(), server_hostname="127.0.0.1")


def test_lines_come_over_tls(authority):
    context = ssl.create_default_context(cafile=authority / "ca.pem")
    with listening(cert_file=authority / "server.pem") as source, secured(source, context) as sender:
        sender.sendall(b"".join(counted(forwarded(number)) for number in range(3000)))
        source.until_rows(3000)


def test_without_a_certificate_nobody_sends_where_one_is_asked_for(authority):
    context = ssl.create_default_context(cafile=authority / "ca.pem")
    with listening(cert_file=authority / "server.pem", ca_file=authority / "ca.pem") as source:
        with secured(source, context) as stranger, suppress(ssl.SSLError, ConnectionError):
            assert stranger.recv(1) == b""
        until(lambda: any(why.startswith(NO_TLS) for why in source.whys()), "the refusal to be told", 10)
        context.load_cert_chain(authority / "client.pem")
        with secured(source, context) as sender:
            sender.sendall(forwarded(1) + b"\n")
            source.until_rows(1)


def test_who_speaks_in_the_clear_to_tls_is_told_of(authority):
    with listening(cert_file=authority / "server.pem") as source, source.connect() as sender:
        sender.sendall(forwarded(1) + b"\n")
        until(lambda: any(why.startswith(NO_TLS) for why in source.whys()), "the refusal to be told", 10)


def test_a_taken_port_is_told_and_tried_again():
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        collector = Syslog(listen=f"127.0.0.1:{port}")
        with pytest.raises(PluginError, match=f"127.0.0.1:{port} can't be listened on") as told:
            list(collector.collect(Memory(), NOW))
        assert told.value.retry
    list(collector.collect(Memory(), NOW))
    socket.create_connection(("127.0.0.1", port)).close()
    collector.close()


def test_a_connected_and_quiet_sender_keeps_the_watermark_alive_and_an_absent_one_does_not():
    with listening() as source:
        with source.connect() as sender:
            sender.sendall(forwarded(1) + b"\n")
            source.until_rows(1)
            later = NOW + timedelta(minutes=5)
            mark = until(lambda: _mark(source, later), "a batch that only tells the time", 10)
            assert mark == later - source.collector.lag
        until(lambda: not source.collector._listener.connected, "the end of the connection", 10)
        source.batches.clear()
        mark = until(lambda: _mark(source, later + timedelta(minutes=1)), "the next one", 10)
        assert mark < NOW


def _mark(source: Source, now: datetime) -> datetime | None:
    before = len(source.batches)
    source.read(now)
    return source.batches[-1].watermark if len(source.batches) > before else None


def test_hosts_are_told_apart_and_stamps_without_zone_are_read_in_theirs():
    with listening(timezone="Europe/Prague") as source, source.connect() as sender:
        # The same queue id on two machines is two messages.
        for host in ("mail1", "mail2"):
            sender.sendall(forwarded(1, host=host, stamp="Mar  8 12:59:58") + b"\n")
        source.until_rows(2)
        columns = [dict(batch.columns) for batch in source.batches if len(batch)]
        assert len({name for one in columns for name in one["message_id"]}) == 2
        assert {at for one in columns for at in one["at"]} == {
            int(datetime(2025, 3, 8, 11, 59, 58, tzinfo=UTC).timestamp() * 1e6)
        }


def test_settings_that_make_no_sense_are_told():
    with pytest.raises(ValidationError, match="no address"):
        Syslog(listen="6514")
    with pytest.raises(ValidationError, match="no network"):
        Syslog(listen="127.0.0.1:6514", allow=["mail1.example"])
    with pytest.raises(ValidationError, match="TLS without cert_file"):
        Syslog(listen="127.0.0.1:6514", ca_file="ca.pem")


@pytest.mark.skipif(not shutil.which("logger"), reason="no logger here")
@pytest.mark.parametrize("form", ["--rfc3164", "--rfc5424"])
@pytest.mark.parametrize("frame", [["--octet-count"], []], ids=["counted", "by line"])
def test_what_logger_sends_is_read(form, frame):
    text = logline(1).decode().partition(": ")[2]
    with listening() as source:
        words = ["logger", "--tcp", "--server", "127.0.0.1", "--port", str(source.port), form, *frame]
        subprocess.run([*words, "--tag", "postfix/smtp", "--id=7", text], check=True, timeout=20, env=os.environ)
        # Its stamp is of now, whatever that is.
        until(lambda: _row_of(source), "the row", 20)


def _row_of(source: Source) -> bool:
    source.read(datetime.now(UTC))
    return sum(map(len, source.batches)) == 1


def test_a_line_may_be_as_long_as_one_in_a_file():
    stream = Stream("192.0.2.9")
    message = b"<22>" + b"x" * (LIMIT - 4)
    assert stream.push(counted(message)) == message[4:] + b"\n"
    assert stream.push(counted(message + b"x") + counted(b"<22>y")) == b"y\n"
    assert stream.dropped() == 1
