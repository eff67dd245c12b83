"""``mailvane demo`` as a newcomer starts it: the wrong mail is noticed and stopped, the rest goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.servers.mailvane import program
from tests.waiting import until

SOON = 120  # seconds, as the demo promises


@contextmanager
def demo(folder: Path, *words: str) -> Iterator[str]:
    """The address at which it serves."""
    out = folder / "demo.log"
    with out.open("wb") as told:
        process = subprocess.Popen(
            [*program(), "demo", "--port", "0", *words], stdin=subprocess.DEVNULL, stdout=told, stderr=told
        )
    try:
        found = until(lambda: re.search(r"http://127\.0\.0\.1:\d+", out.read_text()), "the demo to say where it is")
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, out.read_text()[-2000:]
    data = re.search(r"Data is in (\S+)\. ", out.read_text())
    assert data
    assert not Path(data[1]).exists(), "a temporary directory was left behind"


def get(url: str, path: str, **query: Any) -> Any:
    try:
        with urllib.request.urlopen(f"{url}{path}?{urlencode(query)}", timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return {}


def test_a_bought_list_moved_by_flag_is_paused_and_nobody_else(tmp_path: Path):
    with demo(tmp_path, "--seed", "23", "--incident", "bought-list:tenant=s11,segment=wishlist@2s") as url:
        lease = until(lambda: get(url, "/v1/leases").get("leases"), "a pause", SOON)
        assert [one["scope"] for one in lease] == [{"stream": "marketing", "tenant": "s11", "segment": "wishlist"}]
        (incident,) = get(url, "/v1/incidents", state="all")["incidents"]
        assert incident["scope"] == {"tenant": "s11", "segment": "wishlist"}
        asked = {"stream": "marketing", "provider": "gmail", "ip": "198.51.100.11"}
        assert get(url, "/v1/check", tenant="s11", segment="wishlist", **asked)["answer"] == "held"
        assert get(url, "/v1/check", tenant="s01", segment="wishlist", **asked)["answer"] == "send"
        until(lambda: get(url, "/v1/status")["counts"]["held"], "the dispatcher to hold its mail", SOON)
