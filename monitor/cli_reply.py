"""``mailvane reply``: what a server's reply means."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

_LABELS = {
    "class": "class",
    "permanence": "lasts",
    "fault": "whose fault",
    "identity": "held against",
    "rule": "rule cited",
    "provider": "provider",
    "action": "what to do",
    "remedy": "more",
    "decided_by": "decided by",
}
_LASTS = {"hard": "hard: this message is lost", "soft": "soft: it may pass by itself"}


@click.command()
@click.argument("text")
@click.option("--code", type=click.IntRange(200, 599), help="The three digits, if they are not in the text.")
@click.option("--status", default="", metavar="D.D.D", help="The enhanced code, if it is not in the text.")
@click.option("--provider", default="", help="Who answered, such as gmail: its own words then come first.")
@click.option(
    "--phase",
    type=click.Choice(["connect", "helo", "mail", "rcpt", "data"]),
    help="The command that was answered.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def reply(text: str, code: int | None, status: str, provider: str, phase: str | None, *, as_json: bool) -> None:
    """Say what a server's reply means, what decided it, and what to do.

    TEXT is the reply as it stands in a log or a bounce: mailvane reply "550 5.1.1 No such user". It goes nowhere.
    """
    from collectors._reply import classify
    from collectors._reply_table import VERSION

    meaning = classify(text, code=code or 0, dsn=status, provider=provider.lower(), phase=phase or "")
    told = {"class": meaning.name} | {name: str(value) for name, value in asdict(meaning).items()}
    told = {name: told[name] for name in _LABELS}
    if as_json:
        click.echo(json.dumps(told | {"suppresses": meaning.suppresses, "table": VERSION}, ensure_ascii=False))
        return
    told["permanence"] = _LASTS[told["permanence"]]
    told["decided_by"] = told["decided_by"] or "nothing: the reply says nothing that is known"
    told["identity"] = "" if told["identity"] == "none" else told["identity"].replace("_", " ")
    for name, label in _LABELS.items():
        if told[name]:
            click.echo(f"{label + ':':<14}{told[name]}")
    if meaning.suppresses:
        click.echo("The address is no good: mail to it stops where suppression is on.")
