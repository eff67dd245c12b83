"""A message laid out in Slack's blocks, within Slack's limits, whatever the names in it try.

Limits: https://docs.slack.dev/reference/block-kit (header 150 characters, section 3,000, field 2,000, 10 fields, 10
context elements, 50 blocks), and about 13,000 for all blocks of a message (seen 2025: ``msg_blocks_too_long``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from slack_sdk.models.blocks import Block, ContextBlock, HeaderBlock, MarkdownTextObject, PlainTextObject, SectionBlock

from alerts._render import Message, text
from alerts._words import Line, When, clip, size

# Mrkdwn has three escapes and none for its own marks: look-alikes keep a name from becoming bold, struck or code.
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "*": "∗", "~": "∼", "`": "ˋ"}  # noqa: RUF001  # look-alikes
_LOUD = re.compile(r"@(?=here|channel|everyone)", re.IGNORECASE)
_QUIET = "@\u2060"  # a word joiner: reads as before and calls nobody
_NO_TAGS = str.maketrans("<>", "‹›")  # noqa: RUF001  # a header knows no escapes, and needs no tags


def payload(incident: int, message: Message, page_url: str | None) -> dict[str, Any]:
    """``text`` (for phones, screen readers, and where blocks fail), ``blocks`` and ``metadata`` of a message.

    Raises:
        SlackObjectFormationError: a block is over a limit; a fault of ours.
    """
    return {
        "text": mrkdwn((text(message),), 3900),
        "blocks": [block.to_dict() for block in _blocks(message, page_url)],
        "metadata": {"event_type": "mailvane_incident", "event_payload": {"incident": incident}},
    }


def mrkdwn(line: Line, limit: int) -> str:
    """A line as mrkdwn of at most ``limit`` characters: words escaped, times as each reader's local time."""
    made: list[str] = []
    left = limit - 1  # one for the ellipsis
    for piece in _pieces(line):
        left -= size(piece)
        if left < 0:
            return "".join(made) + "…"
        made.append(piece)
    return "".join(made)


def _blocks(message: Message, page_url: str | None) -> Iterator[Block]:
    header = _LOUD.sub(_QUIET, f"{message.mark} {message.headline}".translate(_NO_TAGS))
    yield HeaderBlock(text=PlainTextObject(text=clip(header, 150), emoji=False))
    link = f"<{page_url.replace('&', '&amp;')}|Open Mailvane>" if page_url else ""
    said = " ".join(filter(None, [*(mrkdwn(line, 700) for line in message.sentences), link]))
    if said:
        yield _section(said)
    yield SectionBlock(fields=[_text(f"*{name}*\n{mrkdwn(line, 400)}") for name, line in message.fields])
    if message.deeds:
        yield _section("\n".join(mrkdwn(line, 450) for line in message.deeds))
    if message.undo:
        commands = "\n".join(f"`{_plain(command)}`" for command in message.undo)
        yield _section(f"*Undo* (mail flows again, automation keeps away for 24 h)\n{commands}")
    yield ContextBlock(elements=[_text(mrkdwn(line, 200)) for line in message.context])


def _section(words: str) -> SectionBlock:
    return SectionBlock(text=_text(words))


def _text(words: str) -> MarkdownTextObject:
    # Verbatim: else Slack makes links and mentions of what looks like one.
    return MarkdownTextObject(text=words, verbatim=True)


def _pieces(line: Line) -> Iterator[str]:
    """What may stand or fall as one: a character, an entity, a date."""
    for part in line:
        if isinstance(part, When):
            form = "{date_short_pretty}, {time}" if "," in part.text else "{time}"
            yield f"<!date^{int(part.at.timestamp())}^{form}|{part.text}>"
        else:
            yield from (_ESCAPED.get(letter, letter) for letter in _LOUD.sub(_QUIET, part))


def _plain(command: str) -> str:
    return "".join(_ESCAPED[letter] if letter in "&<>" else letter for letter in command)
