"""A whole small internet in a network namespace: public addresses, an inside, a metadata service, and names that lie.

``python -m tests.servers.out_world FOLDER`` runs there, with the system's own resolver, and prints what came of each
trial as JSON: name → [what was answered or why not, at which addresses it was asked].
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

from monitor.http import Http, HttpError
from tests.servers.out_dns import Names
from tests.servers.out_http import Site, said
from tests.waiting import until

SITE, EVIL, INSIDE, METADATA, SIX = "93.184.216.34", "93.184.216.35", "10.0.0.7", "169.254.169.254", "2606:2800::34"
NAMES = {
    "site.example": [[SITE]],
    "rebind.example": [[SITE], [METADATA]],
    "control.example": [[SITE], [METADATA]],
    "mixed.example": [[SITE, METADATA]],
    "inside.example": [[INSIDE]],
    "six.example": [[SIX]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "nat64.example": [["64:ff9b::a9fe:a9fe"]],
    "6to4.example": [["2002:a9fe:a9fe::1"]],
    "evil.example": [[EVIL]],
}


def main(folder: Path) -> dict[str, list[object]]:
    _laid(folder)
    with ExitStack() as opened:
        names = opened.enter_context(Names("127.0.0.1", 53))
        names.tells.update(NAMES)
        sites = [
            opened.enter_context(Site(host, port, _shown(folder) if port == 443 else None))
            for port in (80, 443)
            for host in (SITE, EVIL, INSIDE, METADATA, "127.0.0.1", SIX)
        ]
        for site in sites:
            site.says["/to-metadata"] = said(302, Location=f"http://{METADATA}/latest")
            site.says["/to-inside"] = said(302, Location="http://inside.example/")
            site.says["/to-plain"] = said(302, Location="http://site.example/")
            site.says["/to-rebind"] = said(302, Location="https://rebind.example/")
            site.says["/to-inside-again"] = said(302, Location="/landed")
        return _trials(Trials(folder / "ca.pem", sites), names)


class Trials:
    def __init__(self, authority: Path, sites: list[Site]) -> None:
        self._authority, self._sites = authority, sites

    def ask(self, url: str, allow: tuple[str, ...] = (), *, plain: bool = False, follow: int = 0) -> list[object]:
        http = Http(allow, plain=plain, ca_file=self._authority, timeout=timedelta(seconds=5))

        def asked() -> str:
            answer = http.request("GET", url, follow=follow)
            return f"{answer.status} {answer.body.decode()}"

        return self.told(asked)

    def told(self, work: Callable[[], str]) -> list[object]:
        for site in self._sites:
            site.seen.clear()
        try:
            what = work()
        except HttpError as error:
            what = str(error)
        return [what, [[seen.at, seen.headers["host"], seen.name] for site in self._sites for seen in site.seen]]


def _trials(trials: Trials, names: Names) -> dict[str, list[object]]:
    ask = trials.ask
    told = {
        "by name": ask("https://site.example/"),
        "by name, IPv6": ask("https://six.example/"),
        "rebinding": ask("https://rebind.example/"),
        "questions about it": [names.asked["rebind.example", "A"]],
        "rebinding, again": ask("https://rebind.example/"),
        "one of two": ask("https://mixed.example/"),
        "another's certificate": ask("https://evil.example/"),
        "plain to outside": ask("http://site.example/"),
        "plain to outside, told so": ask("http://site.example/", plain=True),
        "inside": ask("https://inside.example/"),
        "inside, allowed": ask("http://inside.example/", (f"{INSIDE}/32",)),
        "redirect not followed": ask("https://site.example/to-metadata"),
        "redirect to metadata": ask("http://site.example/to-metadata", plain=True, follow=3),
        "redirect to plain": ask("https://site.example/to-plain", plain=True, follow=3),
        "redirect to a name that changes": ask("https://site.example/to-rebind", follow=3),
        "redirect from outside to the allowed inside": ask(
            "http://site.example/to-inside", ("10.0.0.0/8",), plain=True, follow=3
        ),
        "redirect within the inside": ask("http://inside.example/to-inside-again", ("10.0.0.0/8",), follow=3),
        "mapped": ask("http://mapped.example/", plain=True),
        "nat64": ask("http://nat64.example/", plain=True),
        "6to4": ask("http://6to4.example/", plain=True),
        "unknown": ask("https://nobody.example/"),
    }
    # Who checks a name and then lets a library ask for it again is led to where he did not look.
    first = trials.told(lambda: _careless("http://control.example/"))
    return {
        **told,
        "control, checked": first,
        "control, asked again": trials.told(lambda: _careless("http://control.example/")),
    }


def _shown(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "site.pem")
    return context


def _careless(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return f"{answer.status} {answer.read().decode()}"


def _laid(folder: Path) -> None:
    """Addresses on the one interface that there is, and our name server as the system's."""
    run = [["ip", "link", "set", "lo", "up"]]
    run += [["ip", "addr", "add", f"{address}/32", "dev", "lo"] for address in (SITE, EVIL, INSIDE, METADATA)]
    run += [["ip", "addr", "add", f"{SIX}/128", "dev", "lo", "nodad"]]
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    run += [["mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf"]]
    for words in run:
        subprocess.run(words, check=True)
    until(_there, "the way to the IPv6 address, which the kernel lays when it comes to it")


def _there() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((SIX, 9))
        return True
    return False


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1])), sys.stdout)
