"""``mailvane demo``: the whole product on a simulated marketplace, enforcing, with short leases."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from monitor import core_process, serving
from monitor.config import parse
from monitor.service import token
from monitor.settings import Settings
from monitor.simulator.dispatcher import run as dispatch
from monitor.simulator.incidents import describe, script
from monitor.simulator.world import Marketplace

# Leases of 90 s and a quick return to calm, so that pause, recovery and resume are seen within minutes; all limits
# and volumes are the product's own.
_RULE = {"lease": "90s", "calm_for": "30s"}
_TABLES = {
    "access": {"anonymous": ["read", "metrics", "check"]},  # the page is there at once, on this machine
    "automation": {"mode": "enforce"},
    "guards": {"actions_per_hour": 60},
    "rule": dict.fromkeys(("bounce-seller", "bounce-ip", "complaint-seller"), _RULE),
}


def run(*, port: int, seed: int, incidents: Sequence[str], data: Path | None) -> None:
    """Serve until a signal comes.

    Raises:
        ValueError: an incident that this marketplace can't have; the message names the part.
        OSError: the port is taken.
    """
    world = Marketplace.from_seed(seed)
    planned = script(world, seed, incidents)
    for one in planned:
        if one.scope.segment:
            # So that its mail is seen to go on when the pause has ended, although the list is used up.
            world = world.mailing(one.scope.tenant, one.scope.segment)
    # The server raises the signal again when it has ended; as an exception the temporary directory is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as opened:
        listener = serving.bind("127.0.0.1", port)
        opened.callback(listener.close)
        where = data or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mailvane-demo-")))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = _settings(where, listener.getsockname()[1])
        stop = threading.Event()
        marketplace = threading.Thread(
            target=dispatch,
            args=(url, world, planned),
            kwargs={"stop": stop, "token": token(settings.token_file).get_secret_value()},
            name="marketplace",
        )
        _introduce(url, where, describe(planned))
        marketplace.start()
        try:
            core_process.serve(settings, demo=True, bound=listener, closing=stop.set)
        finally:
            stop.set()
            marketplace.join()


def _settings(data: Path, port: int) -> Settings:
    tables = {"service": {"data": str(data), "listen": f"127.0.0.1:{port}", "cycle": "2s"}, **_TABLES}
    return parse(tables, "the demo's own configuration", {})


def _introduce(url: str, data: Path, script_told: Sequence[str]) -> None:
    click.secho(f"\n  Mailvane demo: open {url}\n", bold=True)
    for sentence in script_told:
        click.echo(f"  {sentence}")
    click.echo(
        "\n  Watch the page: bounces rise, an incident opens, the seller's segment is paused and its mail waits,\n"
        "  the pause ends by itself, the mail goes on. Other sellers are not touched.\n"
        f"  Ask as a dispatcher would:  curl '{url}/v1/leases'\n"
        f"  Data is in {data}. Stop with Ctrl-C.\n"
    )
