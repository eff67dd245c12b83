"""What ``mailvane ship`` does, and says when it is done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from monitor.errors import UserError
from monitor.ports import Collector, PluginError
from monitor.ship_settings import ShipSettings
from monitor.shipping import frames
from monitor.shipping.link import NotTaken
from monitor.shipping.shipper import SKEW, Shipper, ask


def run(settings: ShipSettings, clock: Callable[[], datetime]) -> None:
    """Ship until a signal comes."""
    shipper = Shipper(settings, clock)
    try:
        shipper.run()
    finally:
        shipper.close()


def once(settings: ShipSettings, clock: Callable[[], datetime]) -> str:
    """Ship all there is; what was shipped, in words.

    Raises:
        UserError: not all of it was; the message says why, and what became of the rest.
    """
    shipper = Shipper(settings, clock)
    try:
        shipper.once()
    except NotTaken as error:
        raise UserError(f"{error}. What was read waits in {settings.ship.data}, and is sent next time") from error
    except PluginError as error:
        raise UserError(f"{error}. All else was sent") from error
    finally:
        shipper.close()
    told = shipper.tally
    return f"{settings.ship.to} has it: {told.rows:,} events, {told.rejected:,} items that could not be read"


def check(settings: ShipSettings, now: datetime) -> str:
    """What would be shipped to whom, once the core has said that it would take it.

    Raises:
        UserError: it would not.
    """
    try:
        answer = ask(settings, now)
    except NotTaken as error:
        raise UserError(str(error)) from error
    at = settings.ship
    lines = [
        f"{settings.source}: valid",
        f"  node {at.node}, data in {at.data}",
        f"  collector: {', '.join(settings.collectors)}",
        f"  {at.to}: mailvane {answer.version} takes what we send",
    ]
    for name, one in settings.collectors.items():
        if isinstance(one, Collector) and (why := one.unreadable()):
            lines.append(f"  warning: collector.{name}: {why}")
    ahead = now - frames.moment(answer.now)
    if abs(ahead) > SKEW:
        way = "ahead of" if ahead > SKEW else "behind"
        lines.append(f"  warning: our clock is {abs(ahead).total_seconds():.0f} s {way} the core's: let both keep time")
    return "\n".join(lines)
