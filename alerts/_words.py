"""Numbers, times and names as people read them, the same on every channel."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from monitor.model import Scope, named
from monitor.scrub import scrub

_THIN = "\u202f"  # narrow no-break space: a number and its sign stay on one line
_NAME = 60  # characters of one name: enough to tell sellers apart, short enough for a phone
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # strftime's follow LANG

# What stands before a label's value, in the order of a sentence; provider, IP and stream speak for themselves.
_CALLED = {
    "provider": "",
    "ip": "",
    "domain": "domain ",
    "stream": "",
    "tenant": "seller ",
    "segment": "segment ",
    "campaign": "campaign ",
    "variant": "variant ",
    "region": "region ",
}
# Mailbox providers whose own spelling is more than a capital.
_PROVIDERS = {
    "aol": "AOL",
    "att": "AT&T",
    "bt": "BT",
    "gmx": "GMX",
    "icloud": "iCloud",
    "ionos": "IONOS",
    "kpn": "KPN",
    "laposte": "La Poste",
    "mailru": "Mail.ru",
    "microsoft365": "Microsoft 365",
    "ovh": "OVH",
    "qq": "QQ",
    "sfr": "SFR",
    "t-online": "T-Online",
    "tim": "TIM",
    "uol": "UOL",
    "yahoo-japan": "Yahoo Japan",
}


@dataclass(frozen=True, slots=True)
class When:
    """A time inside a text: ``text`` is UTC, with the day where it is not today; a channel may show local time."""

    at: datetime
    text: str


Line = tuple[str | When, ...]
Clock = Callable[[datetime], When]


def plain(line: Line) -> str:
    """A line as text, its times in UTC."""
    return "".join(part if isinstance(part, str) else part.text for part in line)


def clock(today: datetime) -> Clock:
    """How times are shown in a message written at ``today``."""
    day = today.astimezone(UTC).date()

    def show(at: datetime) -> When:
        utc = at.astimezone(UTC)
        year = "" if utc.year == day.year else f" {utc.year}"
        dated = "" if utc.date() == day else f"{utc.day} {_MONTHS[utc.month - 1]}{year}, "
        return When(utc, f"{dated}{utc:%H:%M} UTC")

    return show


def size(text: str) -> int:
    """The length of ``text`` as the strictest of channels counts it: an emoji is two (UTF-16)."""
    return len(text) + sum(letter > "\uffff" for letter in text)


def clip(text: str, limit: int) -> str:
    """``text``, or its beginning and an ellipsis, of a ``size`` of at most ``limit`` (and at least one)."""
    if size(text) <= limit:
        return text
    text = text[: max(0, limit - 1)]
    while size(text) > limit - 1 and text:
        text = text[:-1]
    return text.rstrip() + "…"


def outside(text: str, limit: int) -> str:
    """Free text that others wrote, on one line: no address, no control character, at most ``limit`` characters."""
    return clip(" ".join(scrub(text, limit * 4).split()), limit)


def name(value: str, limit: int = _NAME) -> str:
    """A name that others chose; in quotation marks where it could be read as words of ours."""
    shown = outside(value, limit)
    if re.fullmatch(r"[\w.:+/#-]+…?", shown):
        return shown
    return "“" + clip(re.sub("[“”]", '"', shown), limit - 2) + "”"


def provider(value: str, limit: int = _NAME) -> str:
    """A mailbox provider as it writes itself: "gmail" is Gmail, a domain stays as it is."""
    shown = name(value, limit)
    return _PROVIDERS.get(value) or (shown if "." in shown else shown[:1].upper() + shown[1:])


def where(scope: Scope, limit: int = 400) -> str:
    """A scope in words, such as "Gmail, 198.51.100.21, marketing"; names grow shorter until it fits ``limit``."""
    found = named(scope)
    text = "all mail"
    for most in (_NAME, 40, 24, 16, 10):
        shown = {label: provider(v, most) if label == "provider" else name(v, most) for label, v in found.items()}
        text = ", ".join(called + shown[label] for label, called in _CALLED.items() if label in shown) or text
        if size(text) <= limit:
            break
    return clip(text, limit)


def sentence(text: str) -> str:
    """``text`` with a capital where a sentence begins; a domain in that place keeps its own."""
    first = re.split(r"[\s,:]", text, maxsplit=1)[0]
    return text if "." in first else text[:1].upper() + text[1:]


def rate(share: float) -> str:
    """0.048 as "4.8 %": two significant digits; "unknown" for NaN."""
    return f"{_percent(share)}{_THIN}%" if math.isfinite(share) else "unknown"


def interval(lower: float, upper: float) -> str:
    """Two rates with an en dash between them and the sign once; empty where one is not known."""
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return ""
    return f"{_percent(lower)}–{_percent(upper)}{_THIN}%"  # noqa: RUF001  # the en dash is meant


def part(share: float) -> str:
    """A part of a whole in full percent, such as "71 %"."""
    return f"{min(max(share, 0.0), 1.0) * 100:.0f}{_THIN}%" if math.isfinite(share) else "unknown"


def lasting(span: timedelta) -> str:
    """A span in its two largest units: "90 s", "39 min", "1 h 18 min", "3 d 4 h"."""
    seconds = max(0, int(span.total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds} s"
    if not hours:
        return f"{minutes} min"
    if not days:
        return f"{hours} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    return f"{days} d" + (f" {hours % 24} h" if hours % 24 else "")


def _percent(share: float) -> str:
    percent = float(f"{share * 100:.2g}")  # rounded first: 9.96 has two digits as 10, not as 10.0
    if percent <= 0:
        return "0"
    if percent < 0.001:
        return "under 0.001"
    return f"{percent:.{max(0, 1 - math.floor(math.log10(percent)))}f}"
