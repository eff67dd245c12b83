"""Letters out of a folder of a real Dovecot: each is read once, and moved, marked or deleted when it is on disk."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors import _imap
from collectors._envelope import recipient
from collectors._imap import KEYWORD
from collectors._uids import LAST, packed, unpacked
from collectors.imap import Imap
from monitor.config import ConfigError, parse
from monitor.ports import Memory, PluginError
from tests.letters import mixed
from tests.servers.dovecot import PASSWORD, USER, Dovecot, dovecot
from tests.servers.letterbox import Counting, Service, running
from tests.waiting import until

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def shared() -> Iterator[Dovecot]:
    with dovecot() as made:
        yield made


@pytest.fixture
def server(shared: Dovecot) -> Dovecot:
    """With an empty INBOX and no other folder."""
    with shared.client() as client:
        for flags, _, name in client.list_folders():
            if name != "INBOX" and rb"\Noselect" not in flags:
                client.delete_folder(name)
        client.select_folder("INBOX")
        client.delete_messages(client.search("ALL"), silent=True)
        client.expunge()
    return shared


def letters(count: int, first: int = 0) -> list[bytes]:
    return [one.content for one in mixed(count, NOW, first=first)]


def service(server: Dovecot, **settings: object) -> Service:
    return Service(Counting(**server.settings(**{"password": PASSWORD, **settings})))


def few(number: int = 5, word: str = "hello") -> list[bytes]:
    return [f"Subject: {word}\r\n\r\nletter {n}\r\n".encode() for n in range(number)]


# what is read, and what becomes of it


def test_each_letter_is_read_once_in_order_and_then_moved(server):
    told = letters(450)
    server.fill(told)
    reader = service(server, batch=100)
    reader.emptied()
    assert reader.letters == told
    assert server.count() == 0
    assert sorted(server.letters("Archive")) == sorted(told)
    server.fill(letters(3, first=450))
    reader.emptied()
    assert reader.letters == [*told, *letters(3, first=450)]
    assert reader.places[0].startswith("INBOX uid ")
    assert reader.source.waiting() == 0
    reader.source.close()


@pytest.mark.parametrize(("done", "flag"), [("seen", rb"\Seen"), ("flag", KEYWORD.encode())])
def test_a_letter_that_is_only_marked_is_not_read_again(server, done, flag):
    server.fill(few())
    reader = service(server, done=done)
    reader.emptied()
    assert [flag in flags for flags in server.flags()] == [True] * 5
    reader.emptied()
    reader.source.close()
    again = Service(Counting(**server.settings(password=PASSWORD, done=done)), cursor=reader.cursor)
    again.emptied()
    assert reader.letters == few()
    assert again.letters == []
    again.source.close()


def test_deleting_takes_no_letter_but_those_that_were_read(server):
    server.fill([*few(), *few(1, "marked by somebody")])
    with server.client() as client:
        client.select_folder("INBOX")
        client.delete_messages(client.search("ALL")[-1:])
    reader = service(server, done="delete")
    reader.emptied()
    assert reader.letters == few()
    assert server.letters() == few(1, "marked by somebody")
    reader.source.close()


def test_a_letter_is_not_moved_before_its_batch_is_on_disk(server):
    server.fill(few(6))
    reader = service(server, batch=3)
    reader.read(2, dies=True)
    assert server.count() == 3  # the first three only
    assert len(reader.letters) == 6
    reader.source.close()


def test_what_was_on_disk_when_we_died_is_moved_and_not_read_again(server):
    server.fill(few(6))
    reader = service(server, batch=3)
    reader.read(1, dies=True)
    reader.source.close()
    assert server.count() == 6
    after = Service(Counting(**server.settings(password=PASSWORD, batch=3)), cursor=reader.cursor)
    after.emptied()
    assert [*reader.letters, *after.letters] == few(6)
    assert server.count() == 0
    after.source.close()


def test_a_batch_that_could_not_be_taken_is_handed_over_again(server):
    server.fill(few(6))
    reader = service(server, batch=3)
    cursor = reader.cursor
    reader.read(1, dies=True)
    reader.letters, reader.cursor = [], cursor
    reader.emptied()
    assert reader.letters == few(6)
    reader.source.close()


def test_a_renumbered_folder_is_read_anew_and_the_log_says_so(server, caplog):
    server.fill(few())
    reader = service(server, done="seen")
    reader.emptied()
    reader.source.close()
    server.renumber()
    again = Service(Counting(**server.settings(password=PASSWORD, done="seen")), cursor=reader.cursor)
    again.emptied()
    assert sorted(again.letters) == sorted(few())
    assert "folder was renumbered" in caplog.text
    again.source.close()


def test_letters_that_can_t_be_judged_yet_stay_and_hold_up_nobody(server):
    server.fill([*few(2), *few(2, "unsure"), *few(2, "last")])
    reader = service(server, later="10m", batch=2)
    reader.source._unsure.add(b"unsure")
    reader.emptied()
    reader.emptied()
    assert reader.letters == [*few(2), *few(2, "last")]
    assert server.letters() == few(2, "unsure")
    assert reader.source.waiting() == 2
    reader.source.close()
    # Another process offers them at once; then they are done with.
    after = Service(Counting(**server.settings(password=PASSWORD)), cursor=reader.cursor)
    after.emptied()
    assert after.letters == few(2, "unsure")
    assert server.count() == 0
    after.source.close()


def test_letters_are_offered_again_while_it_waits_for_others(server):
    server.fill(few(2, "unsure"))
    reader = service(server, later="0.3s")
    reader.source._unsure.add(b"unsure")
    with running(reader):
        until(lambda: reader.reads > 1, "a second look")
        assert reader.letters == []
        reader.source._unsure.clear()
        until(lambda: reader.letters == few(2, "unsure"), "the letters")


def test_a_letter_that_is_too_large_is_set_aside_unread(server):
    big = b"Subject: big\r\n\r\n" + b"x" * 70 + b"\r\n" + b"y" * 5000 + b"\r\n"
    server.fill([*few(1), big, *few(1, "last")])
    reader = service(server, largest=2048)
    reader.emptied()
    assert reader.letters == [*few(1), *few(1, "last")]
    assert [one.why for one in reader.rejected] == ["letter larger than `largest`: it was not read"]
    assert reader.rejected[0].where.startswith("INBOX uid ")
    assert server.count() == 0
    assert server.count("Archive") == 3
    reader.source.close()


def test_a_letter_that_is_too_large_is_not_deleted(server):
    server.fill([*few(1), b"Subject: big\r\n\r\n" + b"y" * 5000 + b"\r\n"])
    reader = service(server, largest=2048, done="delete")
    reader.emptied()
    reader.emptied()
    assert len(reader.rejected) == 1
    assert server.count() == 1
    reader.source.close()


def test_a_folder_with_more_letters_than_one_answer_holds_is_read_whole(server, monkeypatch):
    monkeypatch.setattr(_imap, "_LISTED", 7)  # else it would take 50,000 letters
    told = letters(60)
    server.fill(told)
    with server.client() as client:
        client.select_folder("INBOX")
        client.delete_messages([*range(client.search("ALL")[10], client.search("ALL")[40])], silent=True)
        client.expunge()
    reader = service(server, done="seen")
    reader.emptied()
    assert reader.letters == [*told[:10], *told[40:]]
    server.fill(few(20))
    reader.emptied()
    assert reader.letters == [*told[:10], *told[40:], *few(20)]
    reader.source.close()


def test_letters_fetched_at_once_are_bounded_by_their_bytes(server):
    megabyte = b"Subject: big\r\n\r\n" + (b"z" * 1022 + b"\r\n") * 3000
    server.fill([megabyte] * 5)
    reader = service(server)
    assert reader.read(3, dies=True) == 3
    assert [len(reader.letters)] == [5]
    reader.source.close()


@pytest.mark.parametrize("name", ["A folder", "Zurück & nach vorn", "日本語", 'with "quotes" and \\', "deep/er/still"])
def test_folders_may_have_any_name(server, name):
    server.fill(few(), name)
    reader = service(server, folder=name, done={"move": f"{name} done"})
    reader.emptied()
    assert reader.letters == few()
    assert server.count(f"{name} done") == 5
    reader.source.close()


def test_letters_that_vanish_meanwhile_are_nobodys_loss(server):
    server.fill(few(6))
    reader = service(server, batch=2)
    run = reader.source.collect(Memory(), NOW)
    reader._take(next(run))
    with server.client() as client:
        client.select_folder("INBOX")
        client.delete_messages(client.search("ALL")[2:4], silent=True)
        client.expunge()
    for batch in run:
        reader._take(batch)
        if reader.reads:
            break
    run.close()
    reader.emptied()
    assert reader.letters == [*few(2), *few(6)[4:]]
    reader.source.close()


# waiting for mail


def test_new_letters_are_read_as_they_come(server):
    reader = service(server, idle="1m")
    with running(reader):
        until(lambda: reader.reads, "the first look")
        for turn in range(5):
            server.fill(few(3, f"turn {turn}"))
            until(lambda turn=turn: len(reader.letters) == 3 * (turn + 1), "the new letters", 10)
        until(lambda: server.count() == 0, "them to be moved")
    assert reader.errors == []


def test_a_wait_is_begun_anew_before_the_server_gives_up(server):
    reader = service(server, idle="0.05s")
    with running(reader):
        until(lambda: reader.reads > 20, "renewals")
        server.fill(few())
        until(lambda: reader.letters == few(), "the letters")
    assert reader.errors == []


def test_closing_ends_a_wait_at_once_and_lets_the_connection_go(server):
    reader = service(server, idle="20m")
    thread = threading.Thread(target=reader.read)
    thread.start()
    until(lambda: reader.reads, "the first look")
    reader.source.close()
    thread.join(5)
    assert not thread.is_alive()
    assert reader.read() == 0


def test_a_server_without_idle_is_asked_now_and_then():
    with dovecot(more="imap_capability = IMAP4rev1 UIDPLUS MULTIAPPEND AUTH=PLAIN\n") as server:
        server.fill(few())
        reader = service(server, poll="0.2s")
        with running(reader):
            until(lambda: reader.letters == few(), "the first letters")
            server.fill(few(2, "more"))
            until(lambda: len(reader.letters) == 7, "the next ones")
            # Without MOVE they were copied; without UIDPLUS they would still be there, marked as deleted.
            until(lambda: server.count("Archive") == 7 and server.count() == 0, "them to be moved")


def test_without_uidplus_letters_stay_marked_as_deleted_and_nobody_elses_are_expunged():
    with dovecot(more="imap_capability = IMAP4rev1 IDLE MULTIAPPEND AUTH=PLAIN\n") as server:
        server.fill(few())
        reader = service(server)
        reader.emptied()
        reader.emptied()
        assert reader.letters == few()
        assert server.count("Archive") == 5
        assert [rb"\Deleted" in flags for flags in server.flags()] == [True] * 5
        reader.source.close()


# whom it is read for, and how


@pytest.mark.parametrize("tls", ["starttls", "none"])
def test_other_ways_in(server, tls):
    server.fill(few())
    reader = service(server, port=server.port, tls=tls)
    reader.emptied()
    assert reader.letters == few()
    reader.source.close()


def failure(server: Dovecot, **settings: object) -> str:
    reader = service(server, **settings)
    with pytest.raises(PluginError) as caught:
        reader.read(1)
    assert caught.value.retry
    told = str(caught.value)
    assert PASSWORD not in told
    assert "reports@" not in told
    assert reader.source.unreadable() == told
    reader.source.close()
    return told


def test_what_is_wrong_is_told_with_a_remedy(server, tmp_path):
    assert "refuses the login: check user and password" in failure(server, password="guess")
    assert "is not trusted" in failure(server, ca_file=None)
    assert "name its authority by ca_file" in failure(server, ca_file=None)
    assert "can't be used" in failure(server, ca_file=tmp_path / "missing.pem")
    assert "check host and port" in failure(server, port=1)
    assert "there are: INBOX" in failure(server, folder="Inbux")
    assert "fails in TLS" in failure(server, port=server.port)


def test_a_refused_login_is_tried_again_soon_once_and_then_seldom(server):
    reader = service(server, password="guess")
    for least, most in ((0, 1), (20, 60)):
        reader.source._pace._until = 0
        with pytest.raises(PluginError, match="refuses the login"):
            reader.read()
        assert least <= reader.source._pace._until - time.monotonic() <= most
    reader.source.close()


def test_another_process_waits_until_the_first_one_ends(server):
    server.fill(few())
    first, second = service(server, idle="20m"), service(server)
    with running(first):
        until(lambda: first.reads, "the first look")
        with pytest.raises(PluginError, match="another process reads INBOX"):
            second.read(1)
    second.emptied()
    assert first.letters == few()
    assert second.letters == []
    second.source.close()


def test_a_lock_that_somebody_tidied_away_is_made_anew(server):
    reader = service(server)
    reader.emptied()
    for file in (server.root / "locks").iterdir():
        file.unlink()
    reader.emptied()
    with pytest.raises(PluginError, match="another process"):
        service(server).read(1)
    reader.source.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "password_file"),
        ({"tls": "none", "host": "mail.example"}, "127.0.0.1"),
        ({"password": "x", "token_url": "https://id.example/token"}, "either a password"),
        ({"token_url": "https://id.example/token"}, "needs token_url, client_id and refresh_token_file"),
        ({"token_url": "http://id.example/token"}, "https://"),
        ({"password": "x", "done": {"move": "INBOX"}}, "another folder"),
        ({"password": "x", "done": {}}, "another folder"),
        ({"password": "x", "done": "burn"}, "delete"),
        ({"password": "x", "idle": "29m"}, "29"),
        ({"password": "x", "user": "a\r\nb"}, "user"),
    ],
    ids=["nothing", "plain", "both", "half", "http", "same", "nowhere", "burn", "idle", "lines"],
)
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        Imap(**{"host": "mail.example", "user": "reports", **wrong})


def test_a_section_is_read_with_its_secret_from_a_file(tmp_path: Path):
    (tmp_path / "password").write_text("a secret word\n")
    table = {"kind": "imap", "host": "mail.example", "user": USER, "password_file": str(tmp_path / "password")}
    found = parse({"collector": {"box": table}}, "test").collectors["box"]
    assert isinstance(found, Imap)
    assert "secret word" not in repr(found)
    with pytest.raises(ConfigError, match=r"collector\.box\.password: a secret must not stand in this file"):
        parse({"collector": {"box": {**table, "password": "a secret word"}}}, "test")


# small parts


@given(st.sets(st.integers(1, 3000) | st.integers(LAST - 50, LAST), max_size=200))
def test_uids_are_packed_and_unpacked_without_loss(uids):
    assert unpacked(packed(uids)) == uids


def test_uids_that_follow_each_other_are_one_range():
    assert packed([9, 4, 6, 5]) == "4:6,9"
    with pytest.raises(ValueError, match="names no letters"):
        unpacked("4:x")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ("Delivered-To: a@shop.example\r\nSubject: x", "a@shop.example"),
        ("Return-Path: <>\nX-Original-To: b+1@shop.example\nDelivered-To: a@shop.example\nReceived: x", "b+1@shop.example"),
        ("Received: by lmtp\r\n\tfor somebody\r\nEnvelope-To: <c@shop.example>\r\nReceived: y", "c@shop.example"),
        ("Received: x\r\nReceived: y\r\nX-Original-To: forged@shop.example", ""),
        ("Subject: x\r\n\r\nDelivered-To: body@shop.example", ""),
        ("Delivered-To: " + "a" * 390 + "\r\nSubject: x", ""),
        ("", ""),
    ],
    ids=["plain", "alias", "between", "below", "body", "long", "empty"],
)  # fmt: skip
def test_the_address_of_the_envelope_is_what_the_last_server_wrote(head, found):
    assert recipient(f"{head}\r\n\r\nbody\r\n".encode()) == found


def test_a_mixture_of_letters_has_all_kinds_and_no_report_twice():
    found = mixed(2000, NOW)
    assert len(Counter(one.kind for one in found)) == 5
    reports = [one.message_id for one in found if one.message_id]
    assert len(set(reports)) == len(reports)
    assert found == mixed(2000, NOW)
