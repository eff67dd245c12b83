"""What networks, servers and our own end do to a reader of a folder: each letter is still counted once."""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from monitor.ports import PluginError
from tests.letters import BOUNCE, Letter, mixed
from tests.servers.dovecot import PASSWORD, USER, Dovecot, dovecot
from tests.servers.faulty import Faulty
from tests.servers.letterbox import Counting, Service, running
from tests.servers.mailvane import Mailvane, mailvane, started
from tests.servers.oddimap import OddImap
from tests.servers.teller import settled, tell
from tests.waiting import until

FULL = os.environ.get("MAILVANE_SCALE") == "full"
LETTERS = 10_000 if FULL else 400
RENEWALS = 2000 if FULL else 60
TURNS = 9 if FULL else 2
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with dovecot() as made:
        yield made


@pytest.fixture
def line(server: Dovecot) -> Iterator[Faulty]:
    """To an empty mailbox."""
    with server.client() as client:
        for folder in ("INBOX", "Archive"):
            with suppress(client.Error):
                client.select_folder(folder)
                client.delete_messages(client.search("ALL"), silent=True)
                client.expunge()
    with Faulty(server.tls_port) as made:
        yield made


def reader(server: Dovecot, line: Faulty, **settings: object) -> Service:
    return Service(Counting(**server.settings(**{"password": PASSWORD, "port": line.port, "idle": "1s", **settings})))


def told(count: int, first: int = 0) -> list[bytes]:
    return [one.content for one in mixed(count, NOW, first=first)]


# the network


def test_resets_in_the_middle_of_letters_lose_none_and_count_none_twice(server, line):
    letters = told(200)
    server.fill(letters)
    line.cut_after = 60_000  # bytes; all letters have some 300,000
    service = reader(server, line)
    service.emptied()
    assert line.resets > 3
    assert service.letters == letters
    assert (server.count(), server.count("Archive")) == (0, 200)
    service.source.close()


def test_a_line_that_is_cut_while_it_waits_is_found_again(server, line):
    service = reader(server, line, idle="1m")
    with running(service):
        until(lambda: service.reads, "the first look")
        for turn in range(3):
            line.reset()
            server.fill(told(2, first=2 * turn))
            until(lambda turn=turn: len(service.letters) == 2 * (turn + 1), "the letters", 20)
    assert service.letters == [*told(2), *told(2, 2), *told(2, 4)]


def test_a_server_that_falls_silent_is_given_up_in_time_and_found_again(server, line):
    service = reader(server, line, timeout="1s")
    with running(service):
        until(lambda: service.reads, "the first look")
        line.silent = True
        until(lambda: service.errors, "it to be missed", 20)
        assert "does not answer in time" in service.errors[0]
        line.silent = False
        server.fill(told(3))
        until(lambda: service.letters == told(3), "the letters", 30)


def test_a_failed_server_is_tried_less_and_less_often(server, line):
    service = reader(server, line)
    line.refuses = True
    end = time.monotonic() + 1.5
    failures = 0
    while time.monotonic() < end:
        with pytest.raises(PluginError, match="IMAP at localhost"):
            service.read()
        failures += 1
    assert failures > 100
    assert line.connections <= 6
    service.source.close()


# the server


def test_kicked_sessions_and_restarts_lose_nothing(server, line):
    letters = told(LETTERS)
    server.fill(letters[: LETTERS // 2])
    service = reader(server, line, batch=20)
    chance = random.Random(5)
    with running(service):
        for turn in range(4):
            until(lambda turn=turn: len(service.letters) >= LETTERS // 10 * turn, "letters", 60)
            time.sleep(chance.random() * 0.1)  # at any moment of reading or waiting
            if turn == 2:
                server.stop()
                server.start()
            else:
                server.kick()
        server.fill(letters[LETTERS // 2 :])
        until(lambda: len(service.letters) >= LETTERS, "all letters", 120)
        until(lambda: server.count() == 0, "them to be moved")
    assert sorted(service.letters) == sorted(letters)
    assert server.count("Archive") == LETTERS


@pytest.mark.scale(order=5)
def test_a_wait_begun_anew_many_times_grows_nothing(server, line):
    service = reader(server, line, idle="0.02s" if FULL else "0.01s")
    with running(service):
        until(lambda: service.reads >= RENEWALS // 4, "the first quarter", 300)
        before = held()
        until(lambda: service.reads >= RENEWALS, "all renewals", 600)
        after = held()
    assert service.errors == []
    assert line.connections == 1
    assert after[0] <= before[0]
    assert after[1] - before[1] < (4 << 20)


def held() -> tuple[int, int]:
    """Open descriptors, and the most memory in bytes, of this process."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


# odd servers

SOME = [f"Subject: {n}\r\n\r\nletter {n}\r\n".encode() for n in range(6)]


def odd(server: OddImap, folder: Path, **settings: object) -> Service:
    told = {"host": "127.0.0.1", "port": server.port, "tls": "none", "user": "u", "password": PASSWORD}
    return Service(
        Counting(**{**told, "lock_dir": folder, "timeout": "5s", "later": "0.01s", "idle": "0.1s", **settings})
    )


def test_a_letter_without_content_is_looked_at_again_then_left_and_told(tmp_path):
    with OddImap(SOME) as server:
        whole = server.fetch
        nil = b"* 3 FETCH (UID 3 BODY[]<0> NIL)"
        server.fetch = lambda uid, words: nil if uid == 3 and "BODY" in words else whole(uid, words)
        service = odd(server, tmp_path)
        service.emptied()
        assert service.letters == [one for n, one in enumerate(SOME, 1) if n != 3]
        assert service.cursor["later"] == "3"
        until(lambda: service.emptied() or service.rejected, "it to be told")
        assert "the server does not give" in service.rejected[0].why
        assert service.rejected[0].where == "INBOX uid 3"
        assert list(server.letters) == [3]
        service.emptied()
        assert len(service.rejected) == 1
        service.source.close()


def test_a_letter_over_which_the_server_stumbles_takes_no_other_with_it(tmp_path):
    with OddImap(SOME) as server:

        def stumbles(tag: bytes, words: str) -> Sequence[bytes] | None:
            return [tag + b" NO can't convert it"] if "BODY" in words and "4" in words.split()[2].split(",") else None

        server.odd["UID FETCH"] = stumbles
        service = odd(server, tmp_path)
        until(lambda: service.emptied() or service.rejected, "it to be told")
        assert sorted(service.letters) == sorted(one for n, one in enumerate(SOME, 1) if n != 4)
        assert [one.where for one in service.rejected] == ["INBOX uid 4"]
        service.source.close()


def test_a_letter_on_which_the_connection_breaks_each_time_is_passed_by_in_the_end(tmp_path):
    with OddImap(SOME) as server:

        def breaks(_tag: bytes, words: str) -> Sequence[bytes] | None:
            return [b"HANG UP"] if "BODY" in words and "2" in words.split()[2].split(",") else None

        server.odd["UID FETCH"] = breaks
        service = odd(server, tmp_path)
        service.source._pace._longest = 0.05
        service.emptied()
        assert sorted(service.letters) == sorted(one for n, one in enumerate(SOME, 1) if n != 2)
        assert [one.where for one in service.rejected] == ["INBOX uid 2"]
        assert "hung up" in service.errors[0]
        service.source.close()


ANSWERS = {
    "garbage": lambda tag, words: [b"%PDF-1.7", b"\xff\xfe"],
    "search of words": lambda tag, words: [b"* SEARCH one two", tag + b" OK done"],
    "endless line": lambda tag, words: [b"* SEARCH" + b" 1" * 600_000, tag + b" OK done"],
    "open brackets": lambda tag, words: [b"* 1 FETCH " + b"(" * 5000, tag + b" OK done"],
    "negative literal": lambda tag, words: [b"* 1 FETCH (UID 1 BODY[] {-1}", b")", tag + b" OK done"],
    "someone else's tag": lambda tag, words: [b"ZZZZ1 OK done"],
    "bye": lambda tag, words: [b"* BYE [UNAVAILABLE] going down", b"HANG UP"],
}


@pytest.mark.parametrize("command", ["SELECT", "UID SEARCH", "UID FETCH", "IDLE"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_answers_that_make_no_sense_are_an_error_that_can_be_told(tmp_path, command, answer):
    with OddImap(SOME) as server:
        server.odd[command] = answer
        service = odd(server, tmp_path, timeout="1s")
        with suppress(PluginError):
            service.read(7)
        del server.odd[command]
        service.source._pace.went()
        service.source._care.forget()
        service.emptied()
        assert sorted(service.letters) == sorted(SOME)
        service.source.close()


def test_words_before_the_wait_begins_don_t_break_it(tmp_path):
    with OddImap(SOME[:3]) as server:
        begun = []

        def waits(tag: bytes, words: str) -> Sequence[bytes] | None:
            server._idling = tag
            if begun:
                return None
            begun.append(tag)
            server.letters[9] = SOME[5]
            return [b"* OK still here", b"* 1 EXISTS", b"+ idling", b"* 2 EXISTS"]

        server.odd["IDLE"] = waits
        service = odd(server, tmp_path, idle="10m")
        with running(service):
            until(lambda: service.letters == [*SOME[:3], SOME[5]], "what came just before", 5)
        assert service.errors == []


def test_a_server_that_refuses_to_idle_is_asked_now_and_then(tmp_path):
    with OddImap(SOME[:3]) as server:
        server.odd["IDLE"] = lambda tag, words: [tag + b" NO not now"]
        service = odd(server, tmp_path, poll="0.05s")
        with running(service):
            until(lambda: service.letters == SOME[:3], "the first letters")
            server.letters[9] = SOME[5]
            until(lambda: service.letters == [*SOME[:3], SOME[5]], "the next one", 5)
        assert service.errors == []


def test_letters_that_can_t_be_moved_are_read_once_and_it_is_told_until_they_are_moved(tmp_path):
    with OddImap(SOME) as server:
        server.odd["UID MOVE"] = lambda tag, words: [tag + b" NO [OVERQUOTA] full"]
        server.odd["LIST"] = lambda tag, words: [b'* LIST () "/" Archive', tag + b" OK done"]
        service = odd(server, tmp_path, batch=2)
        with pytest.raises(PluginError, match="has no room left for this user"):
            service.read()
        assert service.letters == SOME
        assert service.cursor["owed"] == "1:6"
        del server.odd["UID MOVE"]
        service.source._pace.went()
        service.emptied()
        assert service.letters == SOME
        assert list(server.moved.values()) == SOME
        assert service.cursor["owed"] == ""
        service.source.close()


def test_a_folder_without_uidvalidity_is_read_too(tmp_path):
    with OddImap(SOME) as server:
        server.validity = None
        service = odd(server, tmp_path, done="seen")
        service.emptied()
        service.emptied()
        assert service.letters == SOME
        service.source.close()


def test_a_server_that_breaks_off_at_the_login_has_not_refused_it(tmp_path):
    with OddImap(SOME) as server:
        service = odd(server, tmp_path)
        server.odd["LOGIN"] = lambda tag, words: [b"HANG UP"]
        with pytest.raises(PluginError, match="hung up"):
            service.read()
        server.odd["LOGIN"] = lambda tag, words: [tag + b" NO [UNAVAILABLE] the directory is down"]
        service.source._pace.went()
        with pytest.raises(PluginError, match="can't do that at present"):
            service.read()
        server.odd.clear()
        until(lambda: service.emptied() or service.letters == SOME, "it to be tried again", 5)
        service.source.close()


def test_a_password_goes_to_no_server_that_takes_none_without_tls(tmp_path):
    with OddImap(SOME) as server:
        server.capabilities = "IMAP4rev1 LOGINDISABLED STARTTLS"
        service = odd(server, tmp_path)
        with pytest.raises(PluginError, match="takes no login without TLS"):
            service.read()
        assert not any("LOGIN" in words or "AUTH" in words for words in server.asked)


def test_nothing_is_said_in_the_clear_where_starttls_is_wanted_and_not_offered(tmp_path):
    with OddImap(SOME) as server:
        service = odd(server, tmp_path, tls="starttls")
        with pytest.raises(PluginError, match="has no STARTTLS"):
            service.read()
        server.greeting = b"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] welcome"
        server.capabilities = "IMAP4rev1 STARTTLS"
        service.source._pace.went()
        with pytest.raises(PluginError):
            service.read()
        assert not any("LOGIN" in words or "SELECT" in words for words in server.asked)


def test_a_name_with_blanks_and_quotes_logs_in_where_there_is_no_sasl(tmp_path):
    with OddImap(SOME) as server:
        service = odd(server, tmp_path, user='a "b" \\c', password="x y")
        service.emptied()
        assert r'LOGIN "a \"b\" \\c" "x y"' in server.asked
        service.source.close()


# our own end


@pytest.mark.scale(order=5)
def test_kills_of_the_service_and_of_the_server_count_each_letter_once(tmp_path):
    chance = random.Random(20261126)
    letters = mixed(LETTERS, datetime.now(UTC))
    half = [one.content for one in letters[: LETTERS // 2]], [one.content for one in letters[LETTERS // 2 :]]
    reports = Counter(one.kind for one in letters if one.message_id)
    with dovecot() as box, Faulty(box.tls_port) as line, mailvane(tmp_path, table(tmp_path, box, line)) as service:
        sent(service, [one for one in letters if one.message_id])
        box.fill(half[0])
        line.cut_after = 400_000 if FULL else 100_000
        for turn in range(TURNS):
            share = LETTERS * turn // (TURNS + 1)
            until(lambda share=share: box.count("Archive") >= share or box.count() == 0, "letters", 240)
            time.sleep(chance.random() * 0.3)  # at any moment of fetching, spooling or moving
            mishap(turn, service, box)
            if turn == 1:
                box.fill(half[1])
        until(lambda: box.count("Archive") == LETTERS and box.count() == 0, "all to be moved", 240)
        totals = until(lambda: counted(service, reports.total() * 2), "all to be counted", 120)
        assert totals["rows"] == totals["keys"] == 2 * reports.total()
        assert totals["events"]["returned"] == totals["leaf"]["returned"] == reports[BOUNCE]
        assert sorted(box.letters("Archive")) == sorted(one.content for one in letters)
        assert line.resets > 0


def table(folder: Path, box: Dovecot, line: Faulty) -> str:
    (folder / "password").write_text(PASSWORD)
    return (
        f'[collector.box]\nkind = "imap"\nhost = "localhost"\nport = {line.port}\nca_file = "{box.ca_file}"\n'
        f'user = "{USER}"\npassword_file = "{folder}/password"\nlock_dir = "{folder}/locks"\nbatch = 50\n'
    )


def sent(service: Mailvane, letters: Sequence[Letter]) -> None:
    """Of each message that is reported about it is known that it was sent."""
    at = (datetime.now(UTC) - timedelta(minutes=70)).isoformat()
    body = b"\n".join(
        json.dumps(
            {"kind": "sent", "at": at, "message_id": one.message_id, "recipient": one.recipient, "tenant": "s1"}
        ).encode()
        for one in letters
    )
    assert tell(service, body).status == 202
    until(lambda: counted(service, len(letters)), "what was sent to be counted")


def mishap(turn: int, service: Mailvane, box: Dovecot) -> None:
    """One after the other: we are killed, the server is started anew, sessions are kicked."""
    if turn % 3 == 0:
        service.kill()
        service.process = started(service.config, service.port).process
    elif turn % 3 == 1:
        box.stop()
        box.start()
    else:
        box.kick()


def counted(service: Mailvane, rows: int) -> dict | None:
    totals = settled(service)
    return totals if totals and totals["rows"] >= rows else None
