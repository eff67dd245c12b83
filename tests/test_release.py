"""What is held in a tier without expiry is let go when it has ended, whoever has died meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from monitor.actuators import _postsuper, _undo
from monitor.enforcing import Enforcer
from monitor.gate import Gate
from monitor.ledger import actions
from monitor.ledger.db import open_ledger
from monitor.model import Lease, Scope
from monitor.ports import Actuator, Current, PluginError
from monitor.release import Watch, let_go, states
from tests.builders import SELLER, pause
from tests.servers.mailqueue import Waiting, waiting
from tests.servers.mailvane import mailvane, program
from tests.servers.sink import sink
from tests.waiting import free_port, until

AT = _undo.Instant(1_800_000_000.0, 5_000.0, "this-boot")
ENDS = AT.wall + 100


def later(seconds: float, at: _undo.Instant = AT) -> _undo.Instant:
    """Both clocks have gone on."""
    return _undo.Instant(at.wall + seconds, at.up + seconds, at.boot)


@dataclass
class Undone:
    """A tier whose undoing is written down, by a command of its own."""

    folder: Path
    state: Path = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.folder / "out.held"
        (self.folder / "undo.sh").write_text(
            '#!/bin/sh\n[ -e "$0.broken" ] && { echo broken; exit 1; }\ncat | tee -a "$0.did"\necho done\n'
        )
        (self.folder / "undo.sh").chmod(0o755)

    def holds(self, *whats: str, end: float = ENDS, at: _undo.Instant = AT) -> None:
        undo = (str(self.folder / "undo.sh"),)
        _undo.write(self.state, _undo.Held(undo, at, {what: _undo.Until(end, "1@0") for what in whats}))

    def did(self) -> list[str]:
        path = self.folder / "undo.sh.did"
        return path.read_text().split() if path.exists() else []

    def breaks(self, *, broken: bool = True) -> None:
        place = self.folder / "undo.sh.broken"
        place.touch() if broken else place.unlink()

    def begun_long_ago(self) -> None:
        """Nothing can be on its way to be held any more."""
        with _undo.locked(self.state, 0):
            os.utime(self.state.with_name("out.held.lock"), (0, 0))

    @property
    def lives(self) -> bool:
        return self.state.with_name("out.held.alive").exists()


@pytest.fixture
def tier(tmp_path: Path) -> Undone:
    found = Undone(tmp_path)
    found.begun_long_ago()
    return found


# One file


def test_what_has_ended_is_let_go_once_and_forgotten(tier):
    tier.holds("a", "b")
    watch = Watch(tier.state)
    watch.look(later(99), 0)
    assert tier.did() == []
    for second in range(100, 200):
        watch.look(later(second), second)
    assert tier.did() == ["a", "b"]
    found = _undo.read(tier.state)
    assert found
    assert found.until == {}


def test_each_thing_is_let_go_at_its_own_end(tier):
    tier.holds("a")
    found = _undo.read(tier.state)
    assert found
    _undo.write(tier.state, _undo.Held(found.undo, AT, {**found.until, "b": _undo.Until(ENDS + 50, "2@0")}))
    watch = Watch(tier.state)
    watch.look(later(100), 0)
    assert tier.did() == ["a"]
    watch.look(later(150), 50)
    assert tier.did() == ["a", "b"]


def test_what_is_held_anew_is_let_go_anew(tier):
    tier.holds("a")
    watch = Watch(tier.state)
    watch.look(later(100), 0)
    tier.holds("a", end=ENDS + 50)
    watch.look(later(149), 49)
    assert tier.did() == ["a"]
    watch.look(later(150), 50)
    assert tier.did() == ["a", "a"]


def test_what_may_still_be_on_its_way_to_be_held_is_undone_again_until_it_can_not_be(tier):
    tier.holds("a")
    with _undo.locked(tier.state, 0):
        os.utime(tier.state.with_name("out.held.lock"), (ENDS - 10, ENDS - 10))
    watch = Watch(tier.state)
    for second in range(100, 400):
        watch.look(later(second), second)
    assert 3 <= len(tier.did()) <= 8
    assert _undo.read(tier.state).until == {}


def test_a_core_that_hangs_at_its_work_does_not_keep_what_has_ended(tier):
    tier.holds("a")
    watch = Watch(tier.state)
    with _undo.locked(tier.state, 0) as alone:
        assert alone
        for second in range(100, 200):
            watch.look(later(second), second)
        assert 3 <= len(tier.did()) <= 5
        assert tier.lives
    watch.look(later(230), 230)
    assert _undo.read(tier.state).until == {}


def test_who_can_not_let_go_shows_no_life_and_tries_again(tier):
    tier.holds("a")
    watch = Watch(tier.state)
    watch.look(later(0), 0)
    assert tier.lives
    _undo.end_life(tier.state)
    tier.breaks()
    for second in range(100, 110):
        watch.look(later(second), second)
    assert not tier.lives
    tier.breaks(broken=False)
    watch.look(later(150), 150)
    assert tier.did() == ["a"]
    assert tier.lives


def test_with_nothing_held_it_shows_life(tier):
    Watch(tier.state).look(AT, 0)
    assert _undo.alive(tier.state, datetime.now(UTC).timestamp())
    assert not _undo.alive(tier.state, datetime.now(UTC).timestamp() + 31)
    assert not _undo.alive(tier.state, datetime.now(UTC).timestamp() - 31)


# Clocks


@given(st.floats(-1e6, 1e6), st.floats(0, 1e5))
def test_a_clock_that_is_set_ends_a_hold_early_rather_than_late(jump, passed):
    held = _undo.Held(("x",), AT, {"a": _undo.Until(ENDS, "1@0")})
    now = _undo.Instant(AT.wall + passed + jump, AT.up + passed, AT.boot)
    assert bool(held.ended(now)) == (passed >= 100 or passed + jump >= 100)


def test_after_a_start_of_the_machine_the_wall_clock_counts():
    held = _undo.Held(("x",), AT, {"a": _undo.Until(ENDS, "1@0")})
    assert not held.ended(_undo.Instant(AT.wall + 99, 1e9, "another-boot"))
    assert held.ended(_undo.Instant(AT.wall + 100, 1.0, "another-boot"))


# Damage


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
HELD = st.builds(
    lambda until: _undo.Held(("/sbin/x", "release"), AT, until),
    st.dictionaries(WORDS, st.builds(_undo.Until, st.floats(0, 1e10), WORDS), max_size=6),
)


@settings(deadline=None, max_examples=60)
@given(held=HELD)
def test_what_is_written_is_read(tmp_path_factory, held):
    path = tmp_path_factory.mktemp("held") / "held"
    assert _undo.read(path) is None
    _undo.write(path, held)
    assert _undo.read(path) == held


@settings(deadline=None, max_examples=100)
@given(held=HELD, at=st.integers(0, 10_000), spoil=st.sampled_from(["cut", "bit", "gone"]))
def test_whatever_happens_to_one_file_the_other_tells_all(tmp_path_factory, held, at, spoil):
    path = tmp_path_factory.mktemp("held") / "held"
    _undo.write(path, held)
    content = path.read_bytes()
    _spoil(path, content, at % (len(content) - 1), spoil)
    found = _undo.read(path)
    assert (found.undo, found.at, found.until, found.lost) == (held.undo, held.at, held.until, False)
    assert found.damage


@settings(deadline=None, max_examples=100)
@given(held=HELD, at=st.integers(0, 10_000), spoil=st.sampled_from(["cut", "bit"]))
def test_of_two_damaged_files_nothing_is_read_that_was_not_written(tmp_path_factory, held, at, spoil):
    path = tmp_path_factory.mktemp("held") / "held"
    _undo.write(path, held)
    content = path.read_bytes()
    for place in (path, path.with_name("held.copy")):
        _spoil(place, content, at % (len(content) - 1), spoil)
    found = _undo.read(path)
    assert found.lost
    assert found.damage
    assert found.until.items() <= held.until.items()
    assert found.undo in (held.undo, ())


def _spoil(path: Path, content: bytes, at: int, how: str) -> None:
    match how:
        case "cut":
            path.write_bytes(content[:at])
        case "bit":
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        case _:
            path.unlink()


def test_a_damaged_file_is_told_and_worked_off_as_far_as_it_can_be_read(tier, caplog):
    tier.holds("a", "b")
    for place in (tier.state, tier.state.with_name("out.held.copy")):
        place.write_bytes(place.read_bytes().replace(b'"what":"b"', b'"what":"c"'))
    watch = Watch(tier.state)
    watch.look(later(100), 0)
    assert tier.did() == ["a"]
    assert not tier.lives
    (told,) = {record.error for record in caplog.records if hasattr(record, "error")}
    assert "out.held: 1 of 4 lines can't be read" in told


def test_a_file_without_a_command_is_told(tier, caplog):
    for place in (tier.state, tier.state.with_name("out.held.copy")):
        place.write_bytes(b"half a li")
    Watch(tier.state).look(AT, 0)
    assert not tier.lives
    assert "lines can't be read" in caplog.text or any("can't be read" in r.error for r in caplog.records)


def test_a_file_that_somebody_else_could_have_written_is_not_believed(tier, caplog):
    tier.holds("a")
    for place in (tier.state, tier.state.with_name("out.held.copy")):
        place.chmod(0o622)
    watch = Watch(tier.state)
    watch.look(later(100), 0)
    assert tier.did() == []
    assert not tier.lives
    assert "others may write it" in str([vars(record) for record in caplog.records])


# The process


@contextmanager
def releasing(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*program(), *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_it_lives_by_the_files_alone_and_lets_all_go_when_it_is_asked_to_end(tier):
    far = datetime.now(UTC).timestamp() + 3600
    tier.holds("a", end=far, at=_undo.instant(datetime.now(UTC)))
    with releasing("release", str(tier.state)) as process:
        until(lambda: tier.lives, "a sign of life", 20)
        assert tier.did() == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert tier.did() == ["a"]
    assert not tier.lives
    assert _undo.read(tier.state).until == {}


def test_killed_and_started_again_it_goes_on(tier):
    now = datetime.now(UTC)
    tier.holds("a", end=now.timestamp() + 2.5, at=_undo.instant(now))
    with releasing("release", str(tier.state)) as process:
        until(lambda: tier.lives, "a sign of life", 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert tier.did() == []
    with releasing("release", str(tier.state)):
        until(lambda: tier.did() == ["a"], "it to be let go", 20)


def test_everything_can_be_let_go_at_once_by_hand(tier):
    tier.holds("a", "b", end=AT.wall + 1e9)
    done = subprocess.run(
        [*program(), "release", "--all", str(tier.state)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert tier.did() == ["a", "b"]
    tier.holds("a", end=AT.wall + 1e9)
    tier.breaks()
    done = subprocess.run(
        [*program(), "release", "--all", str(tier.state)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert b"not all was let go" in done.stderr


def test_one_tier_that_can_not_be_reached_keeps_no_other(tmp_path):
    tiers = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        tiers.append(Undone(tmp_path / name))
        tiers[-1].holds("a")
    tiers[0].breaks()
    assert not let_go([tier.state for tier in tiers], datetime.now(UTC))
    assert tiers[1].did() == ["a"]


def test_the_files_are_those_of_the_configuration(tmp_path):
    config = tmp_path / "mailvane.toml"
    config.write_text(
        '[actuator.a]\nkind = "postfix"\nstate = "/var/lib/mailvane/a.held"\nwrong = 1\n'
        '[actuator.b]\nkind = "postfix"\n[actuator.c]\nstate = "/var/lib/mailvane/a.held"\n'
    )
    assert states(config) == (Path("/var/lib/mailvane/a.held"),)
    assert states(None) == ()


def test_systemd_understands_the_socket_of_the_helper(tmp_path):
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("systemd-analyze is not here")
    units = Path(os.environ.get("MAILVANE_CHECKOUT", Path(__file__).parent.parent)) / "deploy" / "systemd"
    service = (units / "mailvane-postsuper@.service").read_text("utf-8")
    for name in ("mailvane-postsuper@.service", "mailvane-postsuper@1.service"):
        (tmp_path / name).write_text(service.replace("/usr/local/sbin/mailvane-postsuper", _postsuper.__file__))
    shutil.copy(units / "mailvane-postsuper.socket", tmp_path)
    for name in ("mailvane-postsuper.socket", "mailvane-postsuper@1.service"):
        path = tmp_path / name
        done = subprocess.run(
            [analyze, "verify", "--man=no", path], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_it_is_light():
    script = (
        "import sys, monitor.cli, monitor.release, monitor.config; "
        "print([m for m in ('chdb','numpy','sqlalchemy','fastapi','pyarrow','pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


# The whole


def test_a_pause_that_ends_while_core_and_gate_are_dead_lets_queued_mail_go(tmp_path):
    next_port = free_port()
    with waiting(next_port) as queue:
        config = configured(tmp_path, queue)
        theirs, own = (queue.send("b-s07-lapsed@shop.example", f"{name}@there.example") for name in ("kim", "lee"))
        other = queue.send("b-s08-lapsed@shop.example", "jo@there.example")
        queue.postsuper("-h", own)
        with releasing("--config", str(config), "release"):
            with core(config) as process:
                said = command(config, "pause", "tenant=s07", "--for", "9s", "--why", "trying")
                until(lambda: theirs in queue.on_hold(), "the message to be held", 8)
                assert queue.on_hold() == {theirs, own}
                process.kill()
                process.wait()
            with sink(port=next_port) as next_hop:
                until(lambda: "jo@there.example" in next_hop.taken, "the other mail to flow")
                assert "tenant=s07" in said
                until(lambda: "kim@there.example" in next_hop.taken, "the held mail to flow")
                assert queue.on_hold() == {own}
                assert other not in queue.where()


def test_the_service_brings_its_own_where_a_tier_needs_it(tmp_path):
    state = tmp_path / "out.held"
    tables = f'[actuator.out]\nkind = "postfix"\npolicy = "127.0.0.1:{free_port()}"\nstate = "{state}"\n'
    sign = tmp_path / "out.held.alive"
    with mailvane(tmp_path, tables) as service:
        until(sign.exists, "a sign of life")
        assert "release" in {told.get("child") for told in service.told()}
        assert service.get("/readyz")["errors"] == {}
    assert not sign.exists()


def configured(folder: Path, queue: Waiting) -> Path:
    config = folder / "mailvane.toml"
    config.write_text(
        f'[service]\ndata = "{folder}/data"\nlisten = "127.0.0.1:{free_port()}"\ngate = "127.0.0.1:{free_port()}"\n'
        f'[actuator.out]\nkind = "postfix"\npolicy = "127.0.0.1:{free_port()}"\nhold_queued = true\n'
        "sender_pattern = '^b-(?P<tenant>[^-]+)-(?P<segment>[^-]+)@'\n"
        f'state = "{folder}/out.held"\nhelper = ["{queue.helper[0]}"]\nconfig_directory = "{queue.etc}"\n'
    )
    return config


@contextmanager
def core(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    with config.with_suffix(".log").open("ab") as out:
        process = subprocess.Popen(
            [*program(), "--config", str(config), "run", "--core-only"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        until(lambda: '"event": "started"' in config.with_suffix(".log").read_text(), "core to start")
        yield process
    finally:
        process.kill()
        process.wait()


def command(config: Path, *words: str) -> str:
    done = subprocess.run(
        [*program(), "--config", str(config), *words], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


# Telling the tiers


class Listening(Actuator):
    """A tier that writes down what it was told."""

    told: list[tuple[str, ...]] = Field(default_factory=list)
    asked: list[bool] = Field(default_factory=list)
    fault: str = ""
    hangs: threading.Event | None = None

    def sync(self, leases: Sequence[Lease], current: Current, now: datetime) -> None:
        if self.hangs:
            self.hangs.wait(60)
        if self.fault:
            raise PluginError(self.fault, retry=True)
        self.told.append(tuple(lease.id for lease in leases))
        self.asked.append(current.check(SELLER).held)

    def expresses(self, scope: Scope) -> Scope | None:
        return scope


@contextmanager
def enforcing(folder: Path, **tiers: Actuator):
    """An enforcer over a ledger, with the gate, and what it shows and counts."""
    engine = open_ledger(folder / "ledger.sqlite")
    gate = Gate(engine)
    shown: dict[str, str] = {}
    failed: list[str] = []
    enforcer = Enforcer(tiers, gate, lambda: datetime.now(UTC), shown.__setitem__, failed.append)
    enforcer.start()
    try:
        yield engine, gate, shown, failed
    finally:
        enforcer.stop()
        engine.dispose()


def test_a_tier_is_told_what_is_in_force_as_soon_as_it_changes(tmp_path):
    tier = Listening()
    with enforcing(tmp_path, out=tier) as (engine, gate, shown, failed):
        gate.refresh()
        until(lambda: tier.told == [()], "the first telling", 5)
        now = datetime.now(UTC)
        with engine.begin() as conn:
            actions.append(conn, pause(at=now, until=now + timedelta(hours=1), seq=0))
        gate.refresh()
        until(lambda: len(tier.told) == 2, "the second telling", 5)
        assert tier.told[1] == ("1@0",)
        assert tier.asked == [False, True]
        assert shown == {"actuator.out": ""}
        assert failed == []


def test_no_tier_is_told_that_nothing_is_in_force_before_the_ledger_was_read(tmp_path):
    blind, seeing = Listening(), Listening()
    (tmp_path / "other").mkdir()
    with (
        enforcing(tmp_path, out=blind) as (_, gate, shown, _failed),
        enforcing(tmp_path / "other", out=seeing) as other,
    ):
        other[1].refresh()
        until(lambda: seeing.told, "another tier to be told", 5)
        assert gate.read_at is None
        assert blind.told == []
        assert shown == {}


def test_a_tier_that_fails_or_hangs_is_shown_and_keeps_no_other(tmp_path):
    over = threading.Event()
    good = Listening()
    with enforcing(tmp_path, bad=Listening(fault="no"), stuck=Listening(hangs=over), good=good) as parts:
        _, gate, shown, failed = parts
        gate.refresh()
        until(lambda: shown.get("actuator.bad") == "no" and good.told, "both to be told", 5)
        assert failed == ["bad"]
        assert "actuator.stuck" not in shown
        over.set()
