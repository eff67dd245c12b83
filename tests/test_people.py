"""Accounts with passwords of ours: which passwords, who is let in, who waits, and what is written down of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from argon2 import PasswordHasher
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from monitor.access import passwords
from monitor.access import people as accounts
from monitor.access.lockout import FREE, FREE_ADDRESS, Lockout
from monitor.access.passwords import Crowded, Turns, checked, drawn
from monitor.access.sessions import begin
from monitor.access.signing_in import Locked, SigningIn, Wrong
from monitor.caller import Role
from monitor.cli import cli
from monitor.errors import UserError
from monitor.ledger import access_log, people, sessions
from monitor.ledger.db import open_ledger
from monitor.settings import Access, Oidc
from monitor.telemetry import Telemetry

NOW = datetime(2026, 11, 24, 9, 42, tzinfo=UTC)
GOOD = "four words are better"
HERE, ELSEWHERE = "192.0.2.1", "198.51.100.7"


class House:
    """A ledger with Anna in it, and the door before it; ``now`` is the time."""

    def __init__(self, folder: Path, settings: Access) -> None:
        self.now = NOW
        self.ledger: Engine = open_ledger(folder / "ledger.sqlite")
        self.telemetry = Telemetry("1")
        self.notes: list[tuple[str, ...]] = []
        self.door = SigningIn(
            self.ledger, settings, lambda: self.now, self.telemetry.sign_ins, lambda *note: self.notes.append(note)
        )
        self.add("anna", Role.OPERATOR)

    def add(self, name: str, role: Role = Role.VIEWER, **more: Any) -> None:
        with self.ledger.begin() as conn:
            accounts.add(conn, name, role, GOOD, now=self.now, by="test", **more)

    def enter(self, name: str = "anna", password: str = GOOD, address: str = HERE) -> sessions.Session:
        return self.door.by_password(name, password, address)[1]

    def refused(self, name: str = "anna", password: str = "a wrong one", address: str = HERE) -> int:
        """The seconds to wait; 0: a wrong password, and no more."""
        try:
            self.enter(name, password, address)
        except Wrong:
            return 0
        except Locked as error:
            return error.seconds
        raise AssertionError("it was let in")

    def noted(self, count: int = 50) -> list[access_log.Entry]:
        with self.ledger.connect() as conn:
            return access_log.newest(conn, count)

    def going(self) -> list[str]:
        with self.ledger.connect() as conn:
            return [one.person for one in sessions.known(conn, self.now).values()]

    def counted(self, way: str, result: str) -> float:
        return float(
            self.telemetry.registry.get_sample_value("mailvane_sign_ins_total", {"way": way, "result": result}) or 0
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, Access())
    yield made
    made.ledger.dispose()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[House]:
    """People come from an identity provider, which is not asked here."""
    oidc = Oidc(issuer="https://id.example", client_id="c", url="https://m.example", everybody=Role.VIEWER)
    made = House(tmp_path, Access(local=False, oidc=oidc))
    yield made
    made.ledger.dispose()


# ── Passwords


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("anna", "too short"),
        ("anna", "password1234"),
        ("anna", "P@ssword2026!"),
        ("anna", "123456789012"),
        ("anna", "abcdefghijklm"),
        ("anna", "aaaaaaaaaaaaaaaa"),
        ("anna", "abcabcabcabcabc"),
        ("anna", "qwertyuiop12"),
        ("anna", "Mailvane2026"),
        ("anna.nowak", "annanowak2026!"),
        ("anna.nowak", "nowak-anna-2026"),
        ("deliveries@example.com", "deliveries-2026"),
        ("anna", "x" * 201),
    ],
)
def test_a_password_that_is_easily_guessed_is_not_taken(name: str, password: str):
    with pytest.raises(UserError, match=r"password") as refused:
        checked(name, password)
    assert password not in str(refused.value)


@pytest.mark.parametrize("password", [GOOD, "Tr0ub4dor&3xy", "zażółć gęślą jaźń", "correct password horse battery"])
def test_a_password_that_is_hard_to_guess_is_taken(password: str):
    assert checked("anna", password)


def test_the_same_password_typed_on_another_keyboard_is_the_same():
    assert checked("anna", "zaz\u0307o\u0301łc\u0301 ge\u0328s\u0301la\u0328") == checked("anna", "zażółć gęślą")


@given(st.text(max_size=300))
def test_whatever_is_typed_is_taken_or_refused_in_words(text: str):
    try:
        taken = checked("anna", text)
    except UserError as error:
        told = str(error)
    else:
        assert passwords.SHORTEST <= len(taken) <= passwords.LONGEST
        return
    assert len(text) < 4 or text not in told


def test_drawn_passwords_are_good_and_differ():
    many = {drawn() for _ in range(50)}
    assert len(many) == 50
    assert all(checked("break-glass", one) == one for one in many)


def test_passwords_are_kept_as_argon2id_with_the_library_s_own_parameters(house: House):
    with house.ledger.connect() as conn:
        found = people.one(conn, "anna")
    usual = PasswordHasher()
    assert found
    assert found[1].startswith(f"$argon2id$v=19$m={usual.memory_cost},t={usual.time_cost},p={usual.parallelism}$")
    assert GOOD not in (Path(house.ledger.url.database or "")).read_bytes().decode("latin-1")


def test_a_hash_of_other_parameters_is_made_anew_at_the_next_sign_in(house: House):
    weak = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(GOOD)
    with house.ledger.begin() as conn:
        people.change(conn, "anna", password=weak)
    assert house.enter().person == "anna"
    with house.ledger.connect() as conn:
        found = people.one(conn, "anna")
    assert found
    assert not passwords.stale(found[1])
    assert house.enter().person == "anna"


# ── Names


@pytest.mark.parametrize(
    "name",
    ["", " ", "automation", "Machine", "key:abc", "a b", "an\nna", "-anna", "a/b", "x" * 101, "<b>", "anna\u202e"],
    ids=ascii,
)
def test_nobody_is_called_what_would_read_as_something_else(house: House, name: str):
    with pytest.raises(UserError, match=r"a name has|nobody can be called"):
        house.add(name)


def test_a_name_is_the_same_in_whatever_case_and_there_is_one_of_it(house: House):
    with pytest.raises(UserError, match="somebody called anna"):
        house.add("ANNA")
    assert house.enter(" Anna ").person == "anna"


# ── Signing in


def test_who_knows_the_password_is_signed_in_with_its_role(house: House):
    session = house.enter()
    assert (session.person, session.role, session.way) == ("anna", Role.OPERATOR, "local")
    assert session.expires_at == NOW + timedelta(days=7)
    entry = house.noted(1)[0]
    assert (entry.who, entry.did, entry.on, entry.result) == ("person:anna", "sign-in", "local", "done")
    assert entry.details == {"address": HERE, "session": session.id, "role": "operator"}
    assert house.counted("password", "done") == 1


@pytest.mark.parametrize(
    ("name", "password"),
    [("anna", "four words are worse"), ("anna", ""), ("anna", GOOD + " "), ("anna", GOOD * 100), ("nobody", GOOD), ("", "")],
    ids=["another", "none", "longer", "much longer", "nobody", "nothing"],
)  # fmt: skip
def test_who_does_not_know_it_is_not(house: House, name: str, password: str):
    assert house.refused(name, password) == 0
    assert house.going() == []


def test_neither_a_password_nor_what_was_typed_for_a_name_is_written_down(house: House):
    house.refused("anna", "my-wrong-password")
    house.refused("my-password-as-a-name", "x")
    told = json.dumps([[entry.who, entry.on, entry.result, dict(entry.details)] for entry in house.noted()])
    assert "refused: another password" in told
    assert "refused: nobody's name" in told
    assert "my-" not in told


def test_a_refusal_takes_as_long_for_a_name_that_there_is_not(house: House):
    def seconds(name: str) -> float:
        began = time.perf_counter()
        house.refused(name, "x", f"192.0.2.{len(name)}")
        return time.perf_counter() - began

    seconds("nobody")  # the first of all is as long, too, but loads the library
    known, unknown = [], []
    for turn in range(5):
        known.append(seconds("anna"))
        unknown.append(seconds(f"nob{'o' * turn}dy"))
        house.now += timedelta(hours=3)
    assert 0.5 < median(unknown) / median(known) < 2


def test_who_is_disabled_does_not_come_in_and_is_told_no_more_than_others(house: House):
    with house.ledger.begin() as conn:
        accounts.disable(conn, "anna", now=NOW, by="test")
    assert house.refused("anna", GOOD) == 0
    assert house.noted(1)[0].result == "refused: disabled"
    with house.ledger.begin() as conn:
        accounts.disable(conn, "anna", now=NOW, by="test", disabled=False)
    assert house.enter().person == "anna"


@pytest.mark.parametrize(
    ("change", "more", "did"),
    [
        (accounts.change_role, (Role.ADMIN,), "role changed"),
        (accounts.change_password, ("another four words",), "password changed"),
        (accounts.sign_out, (), "person signed out"),
        (accounts.disable, (), "person disabled"),
        (accounts.remove, (), "person removed"),
    ],
    ids=["role", "password", "signed out", "disabled", "removed"],
)
def test_what_ends_a_right_ends_the_sessions_that_have_it(house: House, change: Any, more: Any, did: str):
    with house.ledger.begin() as conn:
        for person in ("anna", "anna", "zoe"):
            begin(conn, person, Role.VIEWER, way="local", now=NOW)
        change(conn, "Anna", *more, now=NOW, by="cli:root")
    assert house.going() == ["zoe"]
    entry = house.noted(1)[0]
    assert (entry.who, entry.did, entry.on, entry.result) == ("cli:root", did, "anna", "done")


def test_with_a_new_session_the_one_of_the_same_browser_ends(house: House):
    first = house.enter()
    text, second = house.door.by_password("anna", GOOD, HERE, first.id)
    assert house.going() == ["anna"]
    assert len({first.id, second.id}) == len({first.csrf, second.csrf}) == 2
    assert len(text) >= 43


# ── The break-glass account


def test_a_break_glass_account_works_although_people_come_from_elsewhere(
    elsewhere: House, caplog: pytest.LogCaptureFixture
):
    elsewhere.add("break-glass", Role.ADMIN, break_glass=True)
    assert elsewhere.refused("anna", GOOD) == 0
    assert elsewhere.noted(1)[0].result == "refused: local = false"
    with caplog.at_level("WARNING"):
        session = elsewhere.enter("break-glass")
    assert (session.role, session.way, session.expires_at) == (Role.ADMIN, "break-glass", NOW + timedelta(hours=1))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "break-glass account used")
    ]
    assert elsewhere.noted(1)[0].on == "break-glass"
    assert elsewhere.telemetry.registry.get_sample_value("mailvane_break_glass_sign_ins_total") == 1


# ── Who guesses waits


def test_after_five_wrong_passwords_each_further_one_must_wait_twice_as_long():
    now = NOW
    lockout = Lockout(lambda: now)
    assert [lockout.failed("anna", HERE) for _ in range(FREE - 1)] == [0] * (FREE - 1)
    waits = []
    for _ in range(8):
        waits.append(lockout.failed("anna", HERE))
        now += timedelta(seconds=waits[-1])
        assert lockout.wait("anna", HERE) == 0
    assert [seconds // 60 for seconds in waits] == [1, 2, 4, 8, 16, 32, 60, 60]
    lockout.right("anna", HERE)
    assert lockout.failed("anna", HERE) == 0


def test_who_must_wait_must_so_with_the_right_password_too(house: House):
    for _ in range(FREE):
        house.door._lockout.failed("anna", HERE)
    assert house.refused(password=GOOD) == 60
    house.now += timedelta(seconds=60)
    assert house.enter().person == "anna"
    assert house.refused() == 0  # what was counted is forgotten with the right password
    assert house.counted("password", "locked") == 1


def test_a_name_that_there_is_not_is_locked_as_one_that_there_is(house: House):
    assert [house.refused("nobody") for _ in range(FREE + 1)] == [0] * FREE + [60]


def test_whoever_guesses_elsewhere_keeps_nobody_out(house: House):
    for turn in range(40):
        for _ in range(FREE + 1):
            house.door._lockout.failed("anna", f"198.51.100.{turn}")
    assert house.refused(address="198.51.100.3") > 0
    assert house.enter(address=HERE).person == "anna"


def test_who_tries_many_names_from_an_address_waits_too(house: House):
    for turn in range(FREE_ADDRESS):
        house.door._lockout.failed(f"name{turn}", ELSEWHERE)
    assert house.refused("anna", GOOD, ELSEWHERE) == 60
    assert house.enter(address=HERE).person == "anna"


def test_all_addresses_of_a_network_of_ipv6_are_one_and_a_mapped_one_is_itself():
    lockout = Lockout(lambda: NOW)
    for turn in range(FREE):
        lockout.failed("anna", f"2001:db8:1:2::{turn}")
    assert lockout.wait("anna", "2001:db8:1:2:ffff::1") == 60
    assert lockout.wait("anna", "2001:db8:1:3::1") == 0
    for _ in range(FREE):
        lockout.failed("anna", "::ffff:192.0.2.1")
    assert lockout.wait("anna", "192.0.2.1") == 60


def test_a_clock_that_is_set_back_locks_nobody_for_longer():
    now = NOW
    lockout = Lockout(lambda: now)
    for _ in range(FREE + 6):
        lockout.failed("anna", HERE)
    assert lockout.wait("anna", HERE) == 3600
    now -= timedelta(days=365)
    assert lockout.wait("anna", HERE) == 0


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([HERE, ELSEWHERE]), st.integers(0, 4000)), max_size=60)
)
def test_a_wait_is_never_longer_than_an_hour_and_only_follows_failures_from_there(tries: list[tuple[str, str, int]]):
    now = NOW
    lockout = Lockout(lambda: now)
    failed = {HERE: 0, ELSEWHERE: 0}
    for name, address, seconds in tries:
        now += timedelta(seconds=seconds)
        lockout.failed(name, address)
        failed[address] += 1
        for place, count in failed.items():
            assert 0 <= lockout.wait(name, place) <= 3600
            assert lockout.wait(name, place) == 0 or count >= FREE


def test_what_is_remembered_of_strangers_is_bounded():
    lockout = Lockout(lambda: NOW)
    for turn in range(12_000):
        lockout.failed("anna", f"10.{turn >> 16}.{turn >> 8 & 255}.{turn & 255}")
    assert len(lockout._tries) == 10_000


# ── Not too many at once


def test_only_so_many_passwords_are_tried_at_once_and_the_rest_wait_or_come_again():
    turns, inside, most = Turns(at_once=2, waiting=2), 0, 0
    lock, begun, release = threading.Lock(), threading.Semaphore(0), threading.Event()

    def one(place: str) -> bool:
        nonlocal inside, most
        try:
            with turns.of(place):
                with lock:
                    inside += 1
                    most = max(most, inside)
                begun.release()
                assert release.wait(10)
                with lock:
                    inside -= 1
        except Crowded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        first = [pool.submit(one, f"192.0.2.{turn}") for turn in range(2)]
        assert begun.acquire(timeout=5)
        assert begun.acquire(timeout=5)
        waiting = [pool.submit(one, "198.51.100.1") for _ in range(2)]
        while turns._places.total() < 4:
            time.sleep(0.001)
        assert one("203.0.113.1") is False
        release.set()
        assert all(done.result() for done in first + waiting)
    assert most == 2
    assert not turns._places


def test_one_address_can_t_take_all_turns():
    turns = Turns(at_once=8)
    with turns.of(HERE), turns.of(HERE), turns.of(HERE), turns.of(HERE):
        with pytest.raises(Crowded), turns.of(HERE):
            pass
        with turns.of(ELSEWHERE):
            pass


def test_many_sign_ins_at_once_all_end_and_none_is_counted_as_wrong(house: House):
    def one(turn: int) -> str:
        try:
            return house.enter(address=f"192.0.2.{turn}").person
        except Crowded:
            return "later"

    with ThreadPoolExecutor(12) as pool:
        ends = list(pool.map(one, range(12)))
    assert set(ends) <= {"anna", "later"}
    assert ends.count("anna") >= 2
    assert house.counted("password", "wrong") == 0


# ── The command


@pytest.fixture
def command(tmp_path: Path) -> Any:
    config = tmp_path / "mailvane.toml"
    config.write_text(f'[service]\ndata = "{tmp_path / "data"}"\n')

    def run(*words: str, typed: str = "") -> Result:
        return CliRunner().invoke(cli, ["--config", str(config), "people", *words], input=typed)

    return run


def test_an_account_is_made_listed_changed_and_taken_away_before_the_service_ever_ran(command: Any):
    assert "nobody may sign in yet" in command("list").output
    assert command("add", "Anna", "--role", "operator", typed=GOOD + "\n").exit_code == 0
    assert "anna: operator, local, not signed in yet" in command("list").output
    assert command("role", "anna", "admin").exit_code == 0
    assert command("password", "anna", typed="another four words\n").exit_code == 0
    assert command("disable", "anna").exit_code == 0
    told = json.loads(command("list", "--json").output)[0]
    assert (told["name"], told["role"], told["way"], told["sessions"]) == ("anna", "admin", "local", 0)
    assert told["disabled"]
    assert command("enable", "anna").exit_code == 0
    assert "anna is not signed in" in command("sessions", "anna").output
    assert "0 sessions ended" in command("sign-out", "anna").output
    assert command("remove", "anna").exit_code == 0
    assert "there is nobody called 'anna'" in command("remove", "anna").output


def test_a_drawn_password_is_shown_once_by_itself_and_is_the_right_one(command: Any, tmp_path: Path):
    shown = command("break-glass").stdout.strip()
    assert command("add", "anna", "--draw").stdout.strip() != shown
    ledger = open_ledger(tmp_path / "data/ledger.sqlite")
    door = SigningIn(ledger, Access(), lambda: datetime.now(UTC), Telemetry("1").sign_ins, lambda *_: None)
    assert door.by_password("break-glass", shown, HERE)[1].role is Role.ADMIN
    ledger.dispose()
    assert "break-glass: admin, break-glass, last signed in" in command("list").output
    assert "break-glass as admin by break-glass" in command("sessions").output


def test_a_weak_password_is_refused_in_one_line_that_does_not_hold_it(command: Any):
    done = command("add", "anna", typed="hunter2hunter2hunter2\n")
    done = command("add", "bob", typed="password1234\n")
    assert done.exit_code == 1
    assert "too easily guessed" in done.output
    assert "password1234" not in done.output
    assert "Traceback" not in done.output
