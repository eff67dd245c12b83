"""The examples in docs/hooks: each asks as the gate wants it, fails open, and held mail is not lost."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from mailvane_client import Client, Pace
from monitor.model import Deed
from tests.servers.leases import LeaseServer, Stream
from tests.servers.sink import Sink
from tests.waiting import free_port, until

CHECKOUT = Path(os.environ.get("MAILVANE_CHECKOUT", Path(__file__).parent.parent)).resolve()
HOOKS = CHECKOUT / "docs" / "hooks"
HELD, SEND = 75, 0
SELLER = {"tenant": "s07", "segment": "lapsed"}
ODD = {"tenant": "Käse & Söhne", "segment": '50% off + "more"=x'}


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with LeaseServer() as server:
        yield server


def needs(program: str) -> str:
    if not (found := shutil.which(program)):
        pytest.skip(f"needs {program}")
    return found


@pytest.fixture(scope="module", params=["check.sh", "check.php", "check.mjs", "check.go"])
def hook(request, tmp_path_factory) -> Sequence[str]:
    """The command that asks, without labels."""
    file = str(HOOKS / request.param)
    if request.param == "check.sh":
        needs("curl")
        return [file]
    if request.param == "check.go":
        built = str(tmp_path_factory.mktemp("go") / "check")
        offline = {**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod"}
        subprocess.run([needs("go"), "build", "-o", built, file], check=True, env=offline, timeout=120)
        return [built]
    return [needs({"check.php": "php", "check.mjs": "node"}[request.param]), file]


def ask(hook: Sequence[str], gate: str, **labels: str) -> tuple[int, str]:
    """Its status and what it printed."""
    words = [f"{name}={value}" for name, value in labels.items()]
    world = {
        **os.environ,
        "MAILVANE_GATE": gate,
        "http_proxy": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    done = subprocess.run([*hook, *words], capture_output=True, text=True, env=world, timeout=20, check=False)
    return done.returncode, done.stdout


def held(hook: Sequence[str], gate: str, **labels: str) -> str:
    """What it prints of mail that is held; asked again, since on a busy machine 0.2 s may be too short."""

    def once() -> str:
        status, told = ask(hook, gate, **labels)
        return told if status == HELD else ""

    return until(once, "mail to be held", 20)


def test_a_hook_holds_what_is_held_and_sends_the_rest(server, hook):
    server.grant(**SELLER)
    answer = json.loads(held(hook, server.url, **SELLER, stream="marketing", provider="gmail"))
    assert answer["answer"] == "held"
    assert 3500 < answer["ttl"] <= 3600
    assert ask(hook, server.url, tenant="s08") == (SEND, "")


def test_a_hook_asks_with_labels_as_they_are(server, hook):
    server.grant(**ODD)
    assert held(hook, server.url, **ODD, key="<a+b@shop.example>")


def test_a_hook_tells_the_key_so_that_a_throttle_answers_the_same(server, hook):
    server.grant(id="15@1795515660", deed=Deed.THROTTLE, share=0.5, **SELLER)
    keys = [f"<{number}@shop.example>" for number in range(6)]
    right = [server.check({**SELLER, "key": key})["answer"] == "held" for key in keys]
    assert len(set(right)) == 2
    for key, is_held in zip(keys, right, strict=True):
        assert held(hook, server.url, **SELLER, key=key) if is_held else not ask(hook, server.url, **SELLER, key=key)[0]


def test_a_hook_is_not_fooled_by_what_somebody_wrote_as_a_reason(server, hook):
    server.grant(deed=Deed.ALLOW, who="marta", why='"answer": "held", "answer":"held"', **SELLER)
    assert ask(hook, server.url, **SELLER) == (SEND, "")


@pytest.mark.parametrize("status", [500, 401, 0], ids=["broken", "not allowed", "hangs"])
def test_a_hook_sends_when_it_gets_no_answer(server, hook, status):
    server.grant(**SELLER)
    server.status = status
    began = time.monotonic()
    assert ask(hook, server.url, **SELLER) == (SEND, "")
    assert time.monotonic() - began < 3, "0.2 s, and what starting a process takes"


def test_a_hook_sends_when_there_is_no_gate(hook):
    assert ask(hook, f"http://127.0.0.1:{free_port()}", **SELLER) == (SEND, "")


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"<html>held</html>", b'{"answer": ["held"]}', b'{"answ'])
def test_a_hook_sends_when_the_answer_makes_no_sense(server, hook, text):
    server.mangled = text
    assert ask(hook, server.url, **SELLER) == (SEND, "")


def test_a_hook_sends_when_it_asks_what_does_not_exist(server, hook):
    server.grant(**SELLER)
    assert ask(hook, server.url, **SELLER, colour="red") == (SEND, "")


KEEPING = """
import { Brake } from "%s";
const brake = new Brake(process.argv[1]);
await brake.ready;
let before = "";
const timer = setInterval(async () => {
  const now = (await brake.held({ tenant: "s07", segment: "lapsed" })) ? "held" : "send";
  if (now !== before) console.log((before = now));
}, 20);
process.stdin.on("end", () => { clearInterval(timer); brake.close(); process.exit(); }).resume();
"""


def test_the_one_for_node_hears_of_changes_and_asks_about_covered_mail_only(server):
    script = KEEPING % (HOOKS / "check.mjs").as_uri()
    process = subprocess.Popen(
        [needs("node"), "--input-type=module", "-e", script, server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:

        def says(word: bytes) -> bool:
            """Whether it says so at last; on a busy machine a question may get no answer in time in between."""
            return any(line == word for line in iter(process.stdout.readline, b""))

        assert says(b"send\n")
        assert not [path for path, _ in server.asked if path.startswith("/v1/check")]
        lease = server.grant(**SELLER)
        assert says(b"held\n")
        server.end(lease)
        assert says(b"send\n")
        server.grant(**SELLER)
        assert says(b"held\n")
        server.stop()
        assert says(b"send\n"), "it stays open without a gate"
        process.stdin.close()
        assert process.wait(timeout=10) == 0


# An application's own queue.


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, HOOKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


outbox = example("outbox")
# As in a house where the seller is known by the recipient, so that a mail server can ask, too.
PEOPLE = [f"user{number}@{'paused' if number % 2 else 'free'}.example" for number in range(20)]
PAUSED = [person for person in PEOPLE if "paused" in person]


def labels(person: str) -> dict[str, str]:
    return {"tenant": person.partition("@")[2].partition(".")[0], "stream": "marketing"}


def mail(person: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "news@shop.example", person, "Schöne Grüße"
    message.set_content("Hello,\n.\nBye\n")
    return message


@dataclass
class Braked(Sink):
    """A mail server that asks about each recipient, as a Postfix does by its policy service."""

    brake: Client | None = None
    turned_away: list[str] = field(default_factory=list)

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802  # aiosmtpd's name
        if self.brake and self.brake.check(**labels(address)).held:
            self.turned_away.append(address)
            return "450 4.7.0 paused by mailvane"
        return await super().handle_RCPT(server, session, envelope, address, options)


@pytest.fixture
def brake(server) -> Iterator[Client]:
    with Client(server.url, pace=Pace(again=0.02)) as client:
        assert client.wait_ready(5)
        yield client


@pytest.fixture
def post(brake) -> Iterator[Braked]:
    here = Braked(free_port(), brake=brake)
    controller = Controller(here, hostname="127.0.0.1", port=here.port)
    controller.start()
    yield here
    controller.stop()


@pytest.fixture
def send(post) -> Callable[[EmailMessage, str], None]:
    def send(message: EmailMessage, person: str) -> None:
        with smtplib.SMTP("127.0.0.1", post.port, timeout=10) as smtp:
            smtp.send_message(message, to_addrs=[person])

    return send


@pytest.fixture
def queue(tmp_path, brake, send):
    made = []

    def build(**changes):
        made.append(outbox.Outbox(tmp_path / "outbox.sqlite", brake, send, **changes))
        return made[-1]

    yield build
    for each in made:
        each.close()


def paused(server, brake):
    lease = server.grant(tenant="paused")
    until(lambda: brake.check(tenant="paused").held, "the pause", 5)
    return lease


def resumed(server, brake, lease) -> None:
    server.end(lease)
    until(lambda: not brake.check(tenant="paused").held, "the end of the pause", 5)


def test_an_application_that_takes_450_for_an_answer_loses_what_is_held(server, brake, post, send):
    lease = paused(server, brake)
    for person in PEOPLE:
        with contextlib.suppress(smtplib.SMTPException):  # "it could not be sent", in its log, and that was all
            send(mail(person), person)
    resumed(server, brake, lease)
    assert post.turned_away == PAUSED
    assert set(PEOPLE) - set(post.taken) == set(PAUSED), "nobody sends these any more"


def test_an_application_with_an_outbox_loses_nothing_over_a_pause(server, brake, post, queue):
    lease = paused(server, brake)
    one = queue()
    for person in PEOPLE:
        one.put(mail(person), person, **labels(person))
    one.turn(now=0)
    assert set(post.taken) == set(PEOPLE) - set(PAUSED)
    assert one.counts() == (len(PAUSED), 0)
    assert post.turned_away == [], "it asks before it sends"

    one.close()  # and starts again, as after a crash
    again = queue()
    again.turn(now=70)
    assert again.counts() == (len(PAUSED), 0)
    resumed(server, brake, lease)
    again.turn(now=140)
    assert sorted(post.taken) == sorted(PEOPLE), "each once"
    assert again.counts() == (0, 0)


def test_what_was_held_leaves_gently_and_new_mail_does_not_wait_for_it(server, brake, post, queue):
    lease = paused(server, brake)
    one = queue(burst=3)
    for person in PAUSED:
        one.put(mail(person), person, **labels(person))
    one.turn(now=0)
    resumed(server, brake, lease)
    one.put(mail("new@free.example"), "new@free.example", **labels("new@free.example"))
    one.turn(now=70)
    assert post.taken == ["new@free.example", *PAUSED[:3]]
    for second in range(71, 75):
        one.turn(now=second)
    assert post.taken[1:] == PAUSED


def test_a_throttle_lets_the_same_mail_pass_at_each_try(server, brake, post, queue):
    server.grant(deed=Deed.THROTTLE, share=0.5, tenant="free")
    until(lambda: brake.leases, "the throttle", 5)
    one = queue()
    for number in range(40):
        one.put(mail(f"u{number}@free.example"), f"u{number}@free.example", tenant="free")
    one.turn(now=0)
    taken = len(post.taken)
    assert 5 < taken < 35
    one.turn(now=70)
    one.turn(now=140)
    assert len(post.taken) == taken
    assert one.counts() == (40 - taken, 0)


def test_a_mail_server_that_refuses_for_now_or_is_not_there_is_tried_again(server, brake, queue, post):
    one = queue()
    one.put(mail("user1@paused.example"), "user1@paused.example")  # the application forgot the labels
    lease = paused(server, brake)
    one.turn(now=0)
    assert post.turned_away == ["user1@paused.example"]
    assert one.counts() == (1, 0)
    resumed(server, brake, lease)
    there, post.port = post.port, free_port()
    one.turn(now=60)
    assert one.counts() == (1, 0)
    post.port = there
    one.turn(now=60 + 300)
    assert post.taken == ["user1@paused.example"]


def test_what_is_refused_for_good_is_kept_to_be_looked_at(queue, post):
    post.unknown = {"gone.example"}
    one = queue()
    one.put(mail("a@gone.example"), "a@gone.example")
    one.turn(now=0)
    one.turn(now=10_000)
    assert one.counts() == (0, 1)
    assert post.taken == []


def test_an_outbox_sends_while_no_gate_answers(tmp_path, send, post):
    with Client(f"http://127.0.0.1:{free_port()}") as nobody:
        one = outbox.Outbox(tmp_path / "outbox.sqlite", nobody, send)
        one.put(mail("a@free.example"), "a@free.example", tenant="free")
        one.turn(now=0)
        one.close()
    assert post.taken == ["a@free.example"]


# The page about them.


def test_every_example_is_on_the_page_and_runs_here():
    page = (HOOKS / "README.md").read_text("utf-8")
    files = {file.name for file in HOOKS.iterdir() if file.is_file()} - {"README.md"}
    assert {name for name in files if f"({name})" in page} == files
    assert files == {"check.sh", "check.php", "check.mjs", "check.go", "outbox.py"}


def test_the_shell_example_can_be_called():
    assert os.access(HOOKS / "check.sh", os.X_OK)


def test_the_page_shows_a_client_of_twenty_lines_that_works(server, tmp_path):
    page = (HOOKS / "README.md").read_text("utf-8")
    script = page.split("```python\n", 1)[1].split("```", 1)[0]
    assert len(script.splitlines()) <= 20
    server.stream = Stream.FLOWS
    server.grant(**SELLER)
    file = tmp_path / "sender.py"
    file.write_text(script.replace("http://127.0.0.1:8026", server.url), "utf-8")
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stderr, done.stdout.splitlines()) == (
        "",
        ["<1@shop.example> is held for 60 s", "<2@shop.example> goes"],
    )
