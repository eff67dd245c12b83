"""Nothing outgoing goes where it may not, whoever answers, and whatever comes back is bounded."""

from __future__ import annotations

import ast
import gzip
import io
import json
import logging
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from alerts.slack import Slack
from monitor.config import load_ship, parse
from monitor.http import HEAD, Http, HttpError
from monitor.places import is_public, loopback, may, networks, place
from monitor.ports import PluginError
from tests.servers.out_http import Site, said
from tests.servers.out_world import EVIL, INSIDE, METADATA, SITE, SIX
from tests.waiting import free_port

ROOT = Path(__file__).resolve().parent.parent
HERE = ("127.0.0.0/8", "::1/128")
SECOND = timedelta(seconds=1)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as made:
        yield made


def http(*allow: str, **how) -> Http:
    return Http(allow or HERE, **{"timeout": timedelta(seconds=5), **how})


def refused(url: str, client: Http | None = None, **how) -> HttpError:
    with pytest.raises(HttpError) as caught:
        (client or http()).request("GET", url, **how)
    return caught.value


def named(*answers: list[str]):
    """A resolver that says one thing after the other, the last for ever; with how often it was asked."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        told = answers[min(len(asked), len(answers) - 1)]
        asked.append(host)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (text, port, 0, 0))
            if ":" in text
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port))
            for text in told
        ]

    return resolve, asked


# which addresses

REFUSED = {
    "loopback": "127.0.0.1",
    "all of loopback": "127.255.255.254",
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "private 10": "10.0.0.1",
    "private 172": "172.31.255.255",
    "private 192": "192.168.1.1",
    "carriers": "100.64.0.1",
    "metadata": "169.254.169.254",
    "metadata at Alibaba": "100.100.100.200",
    "metadata at Oracle": "192.0.0.192",
    "host at Azure": "168.63.129.16",
    "documentation 1": "192.0.2.1",
    "documentation 2": "198.51.100.1",
    "documentation 3": "203.0.113.1",
    "benchmarking": "198.19.255.255",
    "multicast": "224.0.0.251",
    "reserved": "250.1.2.3",
    "broadcast": "255.255.255.255",
    "6to4 relay": "192.88.99.1",
    "loopback 6": "::1",
    "unspecified 6": "::",
    "mapped": "::ffff:127.0.0.1",
    "mapped metadata": "::ffff:a9fe:a9fe",
    "compatible": "::127.0.0.1",
    "compatible private": "::10.0.0.1",
    "translated": "::ffff:0:127.0.0.1",
    "NAT64": "64:ff9b::127.0.0.1",
    "NAT64 metadata": "64:ff9b::a9fe:a9fe",
    "NAT64 of the place": "64:ff9b:1::1",
    "6to4 of loopback": "2002:7f00:1::",
    "6to4 of metadata": "2002:a9fe:a9fe::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "ISATAP of private": "2600::5efe:10.0.0.1",
    "ISATAP of loopback": "2600::200:5efe:7f00:1",
    "link-local": "fe80::1",
    "site-local": "fec0::1",
    "unique local": "fd00::1",
    "metadata at Amazon": "fd00:ec2::254",
    "multicast 6": "ff02::1",
    "documentation 6": "2001:db8::1",
    "documentation 6, new": "3fff::1",
    "benchmarking 6": "2001:2::1",
    "ORCHID": "2001:20::1",
    "discard": "100::1",
    "segments": "5f00::1",
    "not given to anybody": "4000::1",
}
PUBLIC = ["8.8.8.8", "93.184.216.34", "100.128.0.1", "172.32.0.1", "2606:2800::1", "2a00:1450::1", "64:ff9b::808:808"]
PUBLIC += ["::ffff:8.8.8.8", "2002:808:808::1", "2600::5efe:8.8.8.8"]


@pytest.mark.parametrize("address", REFUSED.values(), ids=REFUSED)
def test_an_address_that_is_not_the_public_internets_is_refused_in_a_url_and_from_a_name(address):
    assert not may(ip_address(address), ())
    host = f"[{address}]" if ":" in address else address
    assert "no public address" in str(refused(f"https://{host}:1/", Http()))
    resolve, _ = named([address])
    assert "no public address" in str(refused("https://name.example:1/", Http(resolve=resolve)))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_asked_however_it_is_carried(address):
    assert may(ip_address(address), ())


every_4 = st.ip_addresses(v=4)
every_6 = st.ip_addresses(v=6) | st.integers(0, (1 << 32) - 1).flatmap(
    lambda low: st.sampled_from([0, 0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96, 0x2600 << 112 | 0x5EFE << 32]).map(
        lambda high: IPv6Address(high | low)
    )
)


@given(every_4)
def test_whatever_carries_an_address_is_refused_if_that_one_is(address):
    low = int(address)
    carried = [0xFFFF << 32 | low, 0x64FF9B << 96 | low, 0x2002 << 112 | low << 80, 0x2600 << 112 | 0x5EFE << 32 | low]
    for one in carried:
        assert may(IPv6Address(one), ()) == may(address, ())
    assert not may(IPv6Address(low), ())
    assert not may(IPv6Address(0x20010000 << 96 | low << 64 | 0xFFFFFFFF ^ low), ())


@given(every_4)
def test_what_the_standard_library_calls_private_is_never_public(address):
    # The three that it has for global in some releases are refused all the same.
    if address.is_private or address.is_multicast or address.is_reserved or address.is_link_local:
        assert not is_public(address)


@given(every_6)
def test_of_ipv6_nothing_is_public_beyond_what_is_given_out(address):
    inside = int(address) >> 125 == 1
    carried = address.ipv4_mapped or (
        IPv4Address(int(address) & 0xFFFFFFFF) if int(address) >> 32 == 0x64FF9B << 64 else None
    )
    assert not is_public(address) or inside or (carried is not None and is_public(carried))


@given(every_4 | every_6)
def test_only_what_a_network_of_ours_holds_is_allowed_by_it(address):
    allow = networks(["10.1.0.0/16", "fd00:1::/32"])
    if may(address, allow) and not may(address, ()):
        low = IPv4Address(int(address) & 0xFFFFFFFF)
        assert any(one in net for net in allow for one in (address, low, IPv4Address(int(address) >> 80 & 0xFFFFFFFF)))


def test_all_of_ipv6_allowed_allows_no_address_of_the_other_kind():
    everything = networks(["::/0"])
    assert may(ip_address("fd00::1"), everything)
    for carrier in ("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1"):
        assert not may(ip_address(carrier), everything)


# which URLs

ODD = {
    "decimal": "http://2130706433/",
    "hex": "http://0x7f000001/",
    "hex parts": "http://0x7f.0.0.1/",
    "octal": "http://0177.0.0.1/",
    "octal last": "http://127.0.0.01/",
    "short": "http://127.1/",
    "shorter": "http://0/",
    "five parts": "http://127.0.0.0.1/",
    "number at the end": "http://example.0x1/",
    "dot after an address": "http://127.0.0.1./",
    "too large": "http://256.0.0.1/",
    "user": "https://example.com@127.0.0.1/",
    "user and password": "https://user:hush@example.com/",
    "empty user": "https://@127.0.0.1/",
    "wide digits": "http://\uff11\uff12\uff17.0.0.1/",
    "circled digits": "http://①②⑦.⓪.⓪.①/",
    "wide dots": "http://127。0。0。1/",
    "percent": "http://127%2e0%2e0%2e1/",
    "percent letters": "http://%6c%6f%63alhost/",
    "zone": "http://[fe80::1%25eth0]/",
    "bare zone": "http://[fe80::1%eth0]/",
    "half a bracket": "http://[::1/",
    "after a bracket": "http://[::1]evil.example/",
    "before a bracket": "http://evil.example[::1]/",
    "name in brackets": "http://[localhost]/",
    "future": "http://[v1.fe80::a]/",
    "backslash": "http:\\\\127.0.0.1/",
    "backslash in host": "http://example.com\\@127.0.0.1/",
    "tab": "http://127.0.0.1\t/",
    "line end": "http://example.com/\r\nHost: evil",
    "blank": "http://example.com/a b",
    "leading blank": " http://example.com/",
    "no host": "http:///path",
    "no slashes": "http:127.0.0.1",
    "no scheme": "//127.0.0.1/",
    "nothing": "",
    "port 0": "http://127.0.0.1:0/",
    "port too large": "http://127.0.0.1:65536/",
    "port in letters": "http://127.0.0.1:http/",
    "port of none": "http://127.0.0.1:/",
    "two dots": "http://example..com/",
    "dot alone": "http://./",
    "leading dot": "http://.example.com/",
    "long label": f"http://{'a' * 64}.example/",
    "long": "http://example.com/" + "a" * 8192,
    "file": "file:///etc/passwd",
    "ftp": "ftp://127.0.0.1/",
    "gopher": "gopher://127.0.0.1:25/_HELO",
    "data": "data:text/plain,hello",
    "unix": "http+unix://%2frun%2fdocker.sock/",
}


@pytest.mark.parametrize("url", ODD.values(), ids=ODD)
def test_a_url_that_two_readers_may_read_in_two_ways_is_refused_and_not_repeated(url):
    error = refused(url)
    assert not error.retry
    assert str(error).startswith("a request can't be made: ")
    for part in ("hush", "evil", "user", "passwd", "127.0.0.1"):
        assert part not in str(error).replace("192.0.2.1", "")


@given(
    st.text(max_size=40).map(lambda text: f"http://{text}/")
    | st.from_regex(r"http://[0-9a-fx.:\[\]@%]{1,20}/?", fullmatch=True)
)
def test_any_text_is_a_place_that_is_written_plainly_or_no_place(url):
    with suppress(ValueError):
        found = place(url)
        again = place(f"{found}{found.target}")
        assert (again.origin, again.target, again.ip) == (found.origin, found.target, found.ip)
        with suppress(ValueError):
            assert found.ip == ip_address(found.host)


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://Example.COM", ("https", "example.com", 443), "/"),
        ("https://example.com.:443/a?b#c", ("https", "example.com", 443), "/a?b"),
        ("http://xn--bcher-kva.example:8080/?q", ("http", "xn--bcher-kva.example", 8080), "/?q"),
        ("http://[0:0::1]:80/", ("http", "::1", 80), "/"),
    ],
)
def test_a_plain_url_is_read_once(url, origin, target):
    assert (place(url).origin, place(url).target) == (origin, target)


def test_only_what_spells_loopback_out_is_taken_for_this_machine():
    assert loopback("http://127.0.0.5:8025/x") == ("127.0.0.5",)
    assert loopback("https://[::1]/") == ("::1",)
    assert loopback("http://LOCALHOST./") == ("127.0.0.1", "::1")
    for url in ("http://localhost.example/", "http://127.1/", "http://10.0.0.1/", "http://[::ffff:127.0.0.1]/", "x"):
        assert loopback(url) == ()


# an internet of our own


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, list]:
    """What came of each trial in a network namespace, with the system's resolver and a name server that lies."""
    folder = tmp_path_factory.mktemp("world")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    names = [f"{name}.example" for name in ("site", "six", "rebind", "mixed", "inside")]
    authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(folder / "site.pem"))
    apart = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
    try:
        subprocess.run([*apart, "ip", "link", "set", "lo", "up"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs user namespaces, and unshare and ip")
    done = subprocess.run(
        [*apart, sys.executable, "-m", "tests.servers.out_world", str(folder)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_the_guard_a_name_that_changes_leads_to_the_metadata_service(world):
    assert world["control, checked"] == [f"200 {SITE}", [[SITE, "control.example", None]]]
    assert world["control, asked again"] == [f"200 {METADATA}", [[METADATA, "control.example", None]]]


def test_a_name_that_changes_is_asked_for_once_and_its_checked_address_is_connected_to(world):
    assert world["rebinding"] == [f"200 {SITE}", [[SITE, "rebind.example", "rebind.example"]]]
    assert world["questions about it"] == [1]
    what, asked = world["rebinding, again"]
    assert what.startswith(f"rebind.example is at {METADATA}, which is no public address")
    assert asked == []


@pytest.mark.parametrize(
    ("trial", "what"),
    [
        ("one of two", f"mixed.example is at {METADATA}, which is no public address"),
        ("inside", f"inside.example is at {INSIDE}, which is no public address"),
        ("mapped", "mapped.example is at ::ffff:7f00:1, which is no public address"),
        ("nat64", "nat64.example is at 64:ff9b::a9fe:a9fe, which is no public address"),
        ("6to4", "6to4.example is at 2002:a9fe:a9fe::1, which is no public address"),
        ("unknown", "nobody.example can't be resolved"),
        ("plain to outside", "site.example is asked over http"),
    ],
)
def test_of_a_name_that_leads_elsewhere_nobody_is_asked(world, trial, what):
    told, asked = world[trial]
    assert told.startswith(what)
    assert asked == []


@pytest.mark.parametrize(
    ("trial", "what"),
    [
        ("redirect not followed", "302 "),
        ("redirect to metadata", f"{METADATA} is no public address"),
        ("redirect to plain", "site.example sends us on from https to http"),
        ("redirect to a name that changes", f"rebind.example is at {METADATA}, which is no public address"),
        (
            "redirect from outside to the allowed inside",
            f"inside.example is at {INSIDE}, which is no public address, and who sends us there is outside",
        ),
    ],
)
def test_a_redirect_leads_nowhere_that_could_not_be_asked_by_itself(world, trial, what):
    told, asked = world[trial]
    assert told.startswith(what)
    assert [at for at, *_ in asked] == [SITE]


def test_what_is_allowed_or_public_is_asked(world):
    assert world["by name"] == [f"200 {SITE}", [[SITE, "site.example", "site.example"]]]
    assert world["by name, IPv6"] == [f"200 {SIX}", [[SIX, "six.example", "six.example"]]]
    assert world["inside, allowed"] == [f"200 {INSIDE}", [[INSIDE, "inside.example", None]]]
    assert world["plain to outside, told so"][0] == f"200 {SITE}"
    assert [at for at, *_ in world["redirect within the inside"][1]] == [INSIDE, INSIDE]


def test_a_public_address_with_anothers_certificate_is_told_nothing(world):
    assert EVIL not in str(world["another's certificate"])
    assert "certificate that is not trusted" in world["another's certificate"][0]
    assert world["another's certificate"][1] == []


# on loopback


def test_the_checked_address_is_connected_to_though_the_name_changes_at_once():
    resolve, asked = named(["127.0.0.2"], ["127.0.0.1"])
    with Site("127.0.0.2") as good, Site("127.0.0.1", good.port) as victim:
        answer = http("127.0.0.2/32", resolve=resolve).request("GET", good.url("/", "name.example"))
        assert answer.body == b"127.0.0.2"
        assert victim.seen == []
        assert [seen.headers["host"] for seen in good.seen] == [f"name.example:{good.port}"]
    assert asked == ["name.example"]


def test_one_address_that_may_not_be_asked_is_enough_to_ask_none(site):
    resolve, _ = named(["127.0.0.1", "169.254.169.254"])
    assert "169.254.169.254" in str(refused(site.url("/", "name.example"), http(resolve=resolve)))
    assert site.seen == []


def test_the_next_address_is_tried_where_the_first_does_not_answer(site):
    resolve, _ = named(["127.0.0.9", "127.0.0.1"])
    assert http(resolve=resolve).request("GET", site.url("/", "name.example")).body == b"127.0.0.1"


def test_an_ipv6_address_is_asked_by_its_literal():
    with Site("::1") as six:
        assert http().request("GET", six.url("/", "[::1]")).body == b"::1"
        assert six.seen[0].headers["host"] == f"[::1]:{six.port}"


def test_whoever_redirects_for_ever_is_left():
    with Site() as site:
        site.says["/a"] = said(302, Location="/a")
        assert str(refused(site.url("/a"), follow=3)) == "127.0.0.1 sends us on more than 3 times"
        assert len(site.seen) == 4


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_only_where_asked_and_never_with_a_body(site, status):
    site.says["/a"] = said(status, Location="b?c")
    assert http().request("GET", site.url("/a")).status == status
    assert http().request("POST", site.url("/a"), body=b"x", follow=3).status == status
    assert [seen.target for seen in site.seen] == ["/a", "/a"]
    assert http().request("GET", site.url("/a"), follow=1).status == 200
    assert site.seen[-1].target == "/b?c"


def test_another_origin_is_not_told_what_was_meant_for_the_first(site):
    with Site() as other:
        site.says["/a"] = said(302, Location="/b")
        site.says["/b"] = said(302, Location=other.url("/c"))
        other.says["/c"] = said(302, Location=site.url("/d"))
        secret = {"Authorization": "Bearer hush", "Cookie": "hush", "X-Api-Key": "hush", "Accept": "text/plain"}
        http().request("GET", site.url("/a"), headers=secret, follow=5)
        first, second, last = site.seen
        assert first.headers["authorization"] == second.headers["authorization"] == "Bearer hush"
        for seen in (other.seen[0], last):
            assert "hush" not in str(seen.headers)
            assert seen.headers["accept"] == "text/plain"


@pytest.mark.parametrize(
    "location",
    ["http://2130706433/", "file:///etc/passwd", "http://user@127.0.0.1/", "//127.1/", "http://[::1", "\xff"],
)
def test_a_redirect_to_an_odd_place_is_refused(site, location):
    site.says["/a"] = said(302, Location=location)
    assert "sends us where nothing can be asked" in str(refused(site.url("/a"), follow=3))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxies_of_the_environment_are_not_asked(site, monkeypatch, scheme):
    with Site() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        with suppress(HttpError):
            http(timeout=SECOND).request("GET", f"{scheme}://127.0.0.1:{site.port}/")
        assert proxy.seen == []
    assert len(site.seen) == (scheme == "http")


# certificates


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> tuple[trustme.CA, Path]:
    made, file = trustme.CA(), tmp_path_factory.mktemp("authority") / "ca.pem"
    made.cert_pem.write_to_path(str(file))
    return made, file


def shown(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def test_tls_is_with_the_name_and_not_with_the_address(authority):
    resolve, _ = named(["127.0.0.1"])
    client = http(resolve=resolve, ca_file=authority[1])
    with Site(tls=shown(authority[0], "name.example")) as site:
        assert client.request("GET", site.url("/", "name.example.")).body == b"127.0.0.1"
        assert site.seen[0].name == "name.example"
        assert site.seen[0].headers["host"] == f"name.example:{site.port}"
        assert "Hostname mismatch" in str(refused(site.url("/", "other.example"), client))
        assert "IP address mismatch" in str(refused(site.url("/"), client))
        assert "certificate that is not trusted" in str(refused(site.url("/", "name.example"), http(resolve=resolve)))
        assert len(site.seen) == 1


def test_who_does_not_speak_tls_is_told_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        got: list[bytes] = []

        def greet() -> None:
            line, _ = server.accept()
            with line, suppress(OSError):
                line.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                while more := line.recv(4096):
                    got.append(more)

        thread = threading.Thread(target=greet)
        thread.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}/key-hush"
        assert "fails in TLS" in str(refused(url, headers={"X-Key": "hush"}))
        thread.join()
        assert got
        assert b"hush" not in b"".join(got)


# bounds


def within(seconds: float, url: str, client: Http, **how) -> HttpError:
    began = time.monotonic()
    error = refused(url, client, **how)
    assert time.monotonic() - began < seconds
    return error


def drip(site: Site, beginning: bytes, piece: bytes):
    def says(line: socket.socket) -> None:
        line.sendall(beginning)
        while not site.closing.wait(0.05):
            line.sendall(piece)

    return says


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"", b""),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"z"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nz\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silent", "status", "header", "body", "chunks", "continue"],
)
def test_who_answers_a_byte_at_a_time_ends_with_the_time(site, beginning, piece):
    site.says["/"] = drip(site, beginning, piece)
    error = within(2.0, site.url(), http(timeout=0.4 * SECOND))
    assert str(error) == "127.0.0.1 did not answer within 0.4 s"
    assert error.retry


def test_a_handshake_a_byte_at_a_time_ends_with_the_time():
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = threading.Event()

        def trickle() -> None:
            line, _ = server.accept()
            with line, suppress(OSError):
                line.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB
                while not done.wait(0.05):
                    line.sendall(b"\0")

        thread = threading.Thread(target=trickle)
        thread.start()
        within(2.0, f"https://127.0.0.1:{server.getsockname()[1]}/", http(timeout=0.4 * SECOND))
        done.set()
        thread.join()


def test_a_resolver_that_does_not_answer_ends_with_the_time():
    never = threading.Event()
    client = http(timeout=0.3 * SECOND, resolve=lambda *_, **__: never.wait(5) and [])
    error = within(2.0, "https://name.example/", client)
    assert error.unsent
    assert "did not answer within 0.3 s" in str(error)
    never.set()


def test_who_does_not_read_ends_with_the_time():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        began = time.monotonic()
        with pytest.raises(HttpError, match="did not answer within"):
            http(timeout=0.4 * SECOND).request("POST", url, body=bytes(64 << 20))
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "answer",
    [
        said(200, bytes(100_001)),
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(300_000),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nz\r\n" * 150_000,
        said(200, b"", Padding="x" * (HEAD + 1)),
        said(200, b"", **{f"X-{n}": "x" * 600 for n in range(99)}, more="y" * HEAD),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    ],
    ids=["body", "body without an end", "chunks", "header", "headers", "continue"],
)
def test_more_than_may_be_read_is_not_read(site, answer):
    site.says["/"] = answer
    error = refused(site.url(), http(limit=100_000))
    assert "answers more than is read" in str(error) or "does not answer as HTTP has it" in str(error)


def test_a_hundred_thousand_headers_are_too_many(site, monkeypatch):
    monkeypatch.setattr("http.client._MAXHEADERS", 1 << 20)  # another library lifts that bound for all
    site.says["/"] = said(200, b"", **{f"X{n}": "y" for n in range(100_000)})
    assert "answers more than is read" in str(refused(site.url()))


def test_what_unpacks_to_a_thousand_times_its_size_is_not_unpacked(site):
    site.says["/"] = said(200, gzip.compress(bytes(256 << 20), 9), Content_Encoding="gzip")
    tracemalloc.start()
    error = refused(site.url(), http(limit=1 << 20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "answers more than is read" in str(error)
    assert peak < 8 << 20


@pytest.mark.parametrize("buffer", [8 << 10, 256 << 10])
def test_a_body_is_unpacked_and_may_be_as_large_as_the_limit(site, monkeypatch, buffer):
    monkeypatch.setattr(io, "DEFAULT_BUFFER_SIZE", buffer)  # as a library does
    body = random.Random(1).randbytes(100_000)
    site.says["/"] = said(200, gzip.compress(body), Content_Encoding="gzip", X_Seen="yes")
    answer = http(limit=100_000).request("GET", site.url())
    assert answer.body == body
    assert answer.headers["x-seen"] == "yes"
    assert site.seen[0].headers["accept-encoding"] == "gzip"
    site.says["/"] = said(200, body)
    assert http(limit=100_000).request("GET", site.url()).body == body
    assert http().request("HEAD", site.url()).body == b""


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        said(200, b"not packed", Content_Encoding="gzip"),
        said(200, gzip.compress(b"x"), Content_Encoding="gzip, gzip, gzip, gzip, gzip, gzip, gzip"),
    ],
    ids=["nothing", "nonsense", "ssh", "short", "chunk", "packed", "packed often"],
)
def test_an_answer_that_is_none_is_an_error_of_ours(site, answer):
    site.says["/"] = answer
    error = refused(site.url())
    assert error.retry
    assert str(error).startswith("127.0.0.1 ")


# retries


@pytest.mark.parametrize(
    ("answer", "method", "idempotent", "times"),
    [
        (said(503, Retry_After="0"), "POST", None, 3),
        (said(429, Retry_After="0"), "POST", None, 3),
        (said(503), "POST", None, 1),
        (said(503), "POST", True, 3),
        (said(500, Retry_After="0"), "POST", None, 1),
        (said(502), "GET", None, 3),
        (said(502), "GET", False, 1),
        (said(429, Retry_After="31"), "GET", None, 1),
        (said(429, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"), "GET", None, 1),
        (said(429, Retry_After="-1"), "GET", None, 1),
        (said(404), "GET", None, 1),
        (said(200), "GET", None, 1),
    ],
)
def test_it_is_asked_again_only_where_that_is_safe(site, answer, method, idempotent, times):
    site.says["/"] = answer
    got = http().request(method, site.url(), tries=3, idempotent=idempotent)
    assert f" {got.status} ".encode() in answer
    assert len(site.seen) == times


def test_without_being_told_so_nothing_is_asked_again(site):
    site.says["/"] = said(503, Retry_After="0")
    http().request("GET", site.url())
    assert len(site.seen) == 1


def test_a_passing_failure_is_outlived(site):
    site.says["/"] = [said(503, Retry_After="1"), b"", said(200, b"at last")]
    began = time.monotonic()
    assert http().request("GET", site.url(), tries=3).body == b"at last"
    assert time.monotonic() - began >= 1.5  # a second as asked, then the second pause


def test_a_lost_answer_to_what_may_count_twice_is_not_asked_again(site):
    site.says["/"] = b""
    with pytest.raises(HttpError):
        http().request("POST", site.url(), tries=3)
    assert len(site.seen) == 1


def test_where_nothing_was_sent_anything_is_tried_again():
    resolve, asked = named(["127.0.0.1"])
    with pytest.raises(HttpError, match="can't be reached: Connection refused") as caught:
        http(resolve=resolve).request("POST", f"http://name.example:{free_port()}/", tries=2)
    assert caught.value.unsent
    assert len(asked) == 2


# what is told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "evil.example"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "keep-alive"),
        ("X", "hush\r\nInjected: yes"),
        ("X", "hush\0"),
        ("X", "hüsh"),
        ("X\r\nhush", "y"),
        ("X hush", "y"),
    ],
)
def test_a_header_that_could_say_another_thing_is_refused_unrepeated(site, name, value):
    error = refused(site.url(), headers={name: value})
    assert not error.retry
    assert "sh" not in str(error)
    assert site.seen == []


SECRET = "hush-7f3a9"


def keyed(site: Site) -> str:
    return site.url(f"/services/{SECRET}?key={SECRET}#{SECRET}")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense " + SECRET.encode(),
        f"HTTP/1.1 {SECRET} OK\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\nContent-Length: {SECRET}, 1\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n".encode(),
        b"HTTP/1.1 200 OK\r\n" + SECRET.encode() + b"\r\n: odd\r\n\r\n",
        said(200, b"x", Content_Encoding="gzip, " + SECRET),
        said(302, b"", Location=f"http://{SECRET}@x/{SECRET}"),
        said(302, b"", Location=f"https://127.0.0.1:1/{SECRET}"),
        said(200, bytes(2 << 20)),
    ],
    ids=["nothing", "nonsense", "status", "length", "chunk", "header", "packed", "redirect", "closed", "large"],
)
def test_neither_error_nor_traceback_nor_log_tells_a_key(site, caplog, answer):
    caplog.set_level(logging.DEBUG)
    site.says[f"/services/{SECRET}"] = answer
    told = ""
    try:
        got = http().request("GET", keyed(site), headers={"Authorization": f"Bearer {SECRET}"}, follow=2)
        told = repr(got)
    except HttpError as error:
        told = "".join(traceback.format_exception(error)) + repr(error) + error.what
    assert SECRET in site.seen[0].target  # the control: it was told to whom it belongs
    assert SECRET not in told
    assert SECRET not in caplog.text


def test_a_repr_shows_neither_headers_nor_body(site):
    site.says["/"] = said(200, SECRET.encode(), Set_Cookie=SECRET)
    answer = http().request("GET", keyed(site).replace("/services", "/?/services"))
    assert SECRET in answer.headers["set-cookie"]
    assert repr(answer) == "Answer(status=200)"
    assert SECRET not in repr(place(keyed(site)))


# who uses it


def test_a_plugin_is_told_what_the_configuration_allows(tmp_path):
    (tmp_path / "hook").write_text("https://hooks.inside.example/x")
    alert = {"kind": "slack", "webhook_url_file": str(tmp_path / "hook")}
    tables = {"alert": {"ops": alert}, "outgoing": {"allow": ["10.1.2.3/16", "fd00::/8"]}}
    (plugin,) = parse(tables, "here", {}).alerts.values()
    assert plugin.outgoing == ("10.1.0.0/16", "fd00::/8")
    assert "10.1" not in repr(plugin)
    (plain,) = parse({"alert": {"ops": alert}}, "here", {}).alerts.values()
    assert plain.outgoing == ()


def test_a_shippers_collectors_are_told_too(tmp_path):
    config = tmp_path / "ship.toml"
    config.write_text(
        '[ship]\nto = "https://core.example:8025"\n[outgoing]\nallow = ["10.0.0.0/8"]\n'
        f'[collector.log]\nkind = "sendlog"\npath = "{tmp_path / "log"}"\n'
    )
    assert load_ship(config).collectors["log"].outgoing == ("10.0.0.0/8",)


def test_slack_inside_is_asked_only_where_that_is_allowed():
    with Site("127.0.0.2") as inside:
        inside.says["/hook"] = said(200, b"ok")
        body = {"text": "x", "blocks": []}
        slack = Slack(webhook_url="https://10.0.0.1/hook", timeout="1s")
        with pytest.raises(PluginError, match="Slack is no public address: if it is yours, add it to allow"):
            slack._slack.send(slack.webhook_url, body)
        own = Slack(webhook_url=inside.url("/hook", "127.0.0.2"), timeout="1s")
        own._slack.send(own.webhook_url, body)
        assert len(inside.seen) == 1


# Who speaks HTTP, or opens a connection, by a way of its own, and why.
OWN_WAY = {
    "monitor/http.py": "it is the client",
    "monitor/handover.py": "a command asks the service on this machine, at the address that it listens on",
    "monitor/tls.py": "the same, over TLS, by the very certificate that the service shows",
    "monitor/cli_desk.py": "a command asks that service, by the connection of handover",
    "monitor/shipping/link.py": "one address that an operator wrote, inside as a rule, with a certificate of its own",
    "monitor/simulator/": "the demo's marketplace asks the demo",
    "monitor/facts/store.py": "the client of ClickHouse, to the DSN that an operator wrote",
    "collectors/kafka.py": "a broker's own protocol, to servers that an operator wrote",
    "collectors/_imap": "the same of a mail server",
    "collectors/imap.py": "the same",
    "collectors/nats.py": "a broker's own protocol too",
    "collectors/rabbitmq.py": "the same",
    "collectors/_keys.py": "DNS, to the name servers of an operator or of the system, for keys of reporters that they name",
}
CLIENTS = (
    "urllib.request", "http.client", "urllib3", "requests", "httpx", "aiohttp", "httpcore", "pycurl", "ftplib", "smtplib",
    "slack_sdk.web", "slack_sdk.webhook", "slack_sdk.WebClient", "slack_sdk.WebhookClient", "authlib.integrations",
    "clickhouse_connect", "aio_pika", "aiokafka", "nats", "xmlrpc.client", "imaplib", "imapclient", "poplib",
    "dns.resolver", "dns.query", "dns.asyncresolver", "dns.asyncquery",
)  # fmt: skip
CALLS = {"socket.create_connection", "asyncio.open_connection", "asyncio.open_unix_connection"}


def clients(source: str) -> set[str]:
    """What a module imports of those who open connections."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            found |= {called} & CALLS
        found |= {name for name in names if any(name == one or name.startswith(one + ".") for one in CLIENTS)}
    return found


def test_nobody_else_opens_a_connection():
    using = {
        str(path.relative_to(ROOT)): names
        for package in ("alerts", "collectors", "detectors", "dashboards", "monitor")
        for path in sorted((ROOT / package).rglob("*.py"))
        if (names := clients(path.read_text("utf-8")))
    }
    assert {name: names for name, names in using.items() if not name.startswith(tuple(OWN_WAY))} == {}
    assert [name for name in OWN_WAY if not any(path.startswith(name) for path in using)] == []


def test_a_client_is_found_by_any_import():
    assert clients("import urllib.request as r") == {"urllib.request"}
    assert clients("from http import client") == {"http.client"}
    assert clients("from urllib.parse import quote\nfrom slack_sdk.models import blocks") == set()
    assert clients("def f():\n    import httpx") == {"httpx"}
    assert clients("import socket\nsocket.create_connection(x)") == {"socket.create_connection"}
