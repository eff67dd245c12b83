"""The process that answers senders: the gate, and the servers of the tiers that ask it. It must stay light."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.types import ASGIApp

from monitor import logs, serving
from monitor.access.doorkeeper import Doorkeeper, token_in
from monitor.access.keys import Keys
from monitor.access.limits import Limits
from monitor.access.uses import Uses, file
from monitor.api import gate as gate_api
from monitor.api.doors import GATE, Doors
from monitor.api.guard import Guard
from monitor.gate import Gate, utc_now
from monitor.ledger.db import open_ledger
from monitor.model import Answer, Scope
from monitor.ports import ALL, Actuator, Current, Listener, PluginError
from monitor.settings import GateSettings
from monitor.telemetry import GateMetrics

log = logging.getLogger(__name__)

EVERY = 0.2  # seconds between two looks into the ledger
AGAIN = 2  # seconds until a server of a tier that failed is started again


def serve(settings: GateSettings) -> None:
    """Run until a signal comes."""
    logs.set_up()
    listener = serving.bind(*settings.service.gate)
    ledger = open_ledger(settings.ledger, reads=True)
    gate, keys = Gate(ledger), Keys(ledger)
    uses = Uses(keys, file(settings.service.data))
    gate.refresh()
    metrics = GateMetrics(CollectorRegistry())
    try:
        app = application(gate, metrics, settings.actuators, keys.refresh, uses.keep)
        app = guarded(app, settings, keys, metrics)
        serving.server(app, gate, metrics).run(sockets=[listener])
    finally:
        uses.keep(ending=True)
        ledger.dispose()


def guarded(app: ASGIApp, settings: GateSettings, keys: Keys, metrics: GateMetrics) -> ASGIApp:
    """The application behind its doors. People have no sessions here: their page is core's."""
    keeper = Doorkeeper(settings.access, keys, None, token_in(settings.token_file), utc_now)
    return Guard(app, Doors(GATE), keeper, Limits(settings.access), metrics)


def application(
    gate: Gate, metrics: GateMetrics, actuators: Mapping[str, Actuator], *beside: Callable[[], None]
) -> ASGIApp:
    """The gate's application; while it lives the gate follows the ledger, and the tiers that ask are served.

    What else is done over and over stands ``beside``: each by itself, since a disk may keep it waiting.
    """
    errors: dict[str, str] = {}
    told = _Told(gate, metrics)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        # What was made until here lives as long as the process: no collection need look at it again. What questions
        # make goes by itself, so that only the few circles are left to be looked for.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 10, 10)
        # A thread that reads the ledger must not keep an answer waiting for the usual 5 ms.
        sys.setswitchinterval(0.0005)
        tasks = [asyncio.create_task(_again(work)) for work in (gate.refresh, *beside)]
        for name, tier in actuators.items():
            if isinstance(tier, Listener):
                tasks.append(asyncio.create_task(_keep(name, tier, told, errors)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return gate_api.build(gate, metrics, errors, lifespan)


class _Told:
    """What a tier is given: the gate, and counting."""

    def __init__(self, gate: Gate, metrics: GateMetrics) -> None:
        self._gate, self._metrics = gate, metrics
        self.provider = gate.provider

    def check(self, message: Scope, key: str = "", knows: frozenset[str] = ALL) -> Answer:
        """See ``ports.Current``."""
        began = perf_counter()
        said = self._gate.check(message, key, knows)
        self._metrics.answered(perf_counter() - began, held=int(said.held), asked=1)
        return said

    def refused(self, server: str, reason: str) -> None:
        """See ``ports.Current``."""
        self._metrics.refused.labels(server, reason).inc()


async def _again(work: Callable[[], None]) -> None:
    """Read the ledger for ever, or the like, beside the loop: one that is locked must not keep an answer waiting."""
    while True:
        await asyncio.to_thread(work)
        await asyncio.sleep(EVERY)


async def _keep(name: str, tier: Listener, current: Current, errors: dict[str, str]) -> None:
    """Serve one tier; one that fails is shown and begins again, and stops no other."""
    while True:
        try:
            await tier.serve(current)
        except PluginError as error:
            why = str(error)
        except Exception as error:
            log.exception("tier failed", extra={"actuator": name})
            why = f"{type(error).__name__}: see the log"
        else:
            why = "ended by itself"
        if errors.get(name) != why:
            log.warning("tier not served", extra={"actuator": name, "error": why})
        errors[name] = why
        asyncio.get_running_loop().call_later(AGAIN * 2, partial(errors.pop, name, None))
        await asyncio.sleep(AGAIN)
