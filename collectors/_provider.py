"""The mailbox provider behind a relay: by the name of the MX host, never by the recipient's domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from monitor.naming import domain_of

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

# Provider: suffixes of its MX hosts. As of 2026-11, gathered by hand from the providers' postmaster pages and from
# relays seen in logs. A provider is one here where one operator's filters answer, whatever the brand: since mid-2025
# AT&T's and Comcast's domains sit behind Yahoo's MX, as AOL's and Verizon's did before.
_TABLE: Mapping[str, str] = {
    # world-wide
    "gmail": "google.com googlemail.com",
    "outlook": "olc.protection.outlook.com hotmail.com outlook.com live.com msn.com",  # consumers
    "microsoft365": "mail.protection.outlook.com mail.eo.outlook.com mx.microsoft protection.outlook.com"
    " partner.outlook.cn office365.us",  # companies, DANE and national clouds included: other filters than consumers'
    "yahoo": "yahoodns.net yahoo.com aol.com",
    "apple": "icloud.com mac.com me.com apple.com",
    "fastmail": "messagingengine.com",
    "zoho": "zoho.com zoho.eu zoho.in zoho.com.au zoho.jp zohomail.com",
    "proton": "protonmail.ch proton.me proton.ch",
    "tuta": "tutanota.de tuta.com",
    # Germany, Austria, Switzerland
    "gmx": "gmx.net gmx.de gmx.com web.de mail.com",
    "t-online": "t-online.de",
    "freenet": "freenet.de",
    "mailbox.org": "mailbox.org",
    "ionos": "kundenserver.de ionos.com ionos.de 1and1.com 1and1.co.uk perfora.net",
    "strato": "rzone.de strato.de",
    "swisscom": "bluewin.ch swisscom.ch",
    "infomaniak": "infomaniak.ch",
    # France
    "orange": "orange.fr wanadoo.fr",
    "free": "free.fr",
    "laposte": "laposte.net",
    "sfr": "sfr.fr neuf.fr",
    "bouygues": "bbox.fr",
    "ovh": "ovh.net",
    "gandi": "gandi.net",
    # Italy, Spain, Portugal
    "libero": "libero.it virgilio.it iol.it",
    "tim": "tim.it alice.it",
    "tiscali": "tiscali.it",
    "aruba": "aruba.it",
    "sapo": "sapo.pt",
    # Poland, Czechia, Slovakia, Hungary
    "wp.pl": "wp.pl",
    "o2": "o2.pl tlen.pl",
    "onet": "onet.pl onet.eu",
    "interia": "interia.pl",
    "seznam": "seznam.cz email.cz",
    "centrum": "centrum.cz atlas.cz",
    "azet": "azet.sk",
    "freemail.hu": "freemail.hu",
    # Russia, Ukraine
    "mail.ru": "mail.ru",
    "yandex": "yandex.ru yandex.net yandex.com",
    "rambler": "rambler.ru",
    "ukr.net": "ukr.net",
    # Benelux, Nordics, Britain, Ireland
    "kpn": "kpnmail.nl kpnxchange.com kpn.com",
    "ziggo": "ziggo.nl",
    "telenet": "telenet.be telenet-ops.be",
    "proximus": "proximus.be belgacom.be skynet.be",
    "telia": "telia.com",
    "bt": "btinternet.com bt.com cpcloud.co.uk",
    "virginmedia": "virginmedia.com",
    "talktalk": "talktalk.net",
    # North and South America
    "comcast": "comcast.net",
    "att": "att.net prodigy.net",
    "cox": "cox.net",
    "charter": "charter.net rr.com twc.com spectrum.net",
    "centurylink": "centurylink.net",
    "earthlink": "earthlink.net earthlink-vadesecure.net",
    "bell": "bell.net sympatico.ca",
    "shaw": "shaw.ca",
    "telus": "telus.net",
    "videotron": "videotron.ca",
    "uol": "uol.com.br",
    "terra": "terra.com.br terra.com",
    # Asia
    "qq": "qq.com",
    "netease": "netease.com 163.com 126.com yeah.net",
    "aliyun": "aliyun.com mxhichina.com",
    "sina": "sina.com sina.com.cn",
    "naver": "naver.com",
    "kakao": "daum.net hanmail.net kakao.com",
    "yahoo-japan": "yahoo.co.jp",
    "docomo": "docomo.ne.jp",
    "au": "au.com ezweb.ne.jp",
    "softbank": "softbank.ne.jp softbank.jp",
    "rediff": "rediffmail.com rediff.com",
    # filters in front of companies' mailboxes: theirs is the answer
    "mimecast": "mimecast.com mimecast.co.za mimecast-offshore.com",
    "proofpoint": "pphosted.com ppe-hosted.com gpphosted.com",
    "barracuda": "barracudanetworks.com",
    "cisco": "iphmx.com",
    "broadcom": "messagelabs.com",
    "trendmicro": "trendmicro.com trendmicro.eu",
    "sophos": "sophos.com reflexion.net",
    "trellix": "fireeyecloud.com",
    "forcepoint": "mailcontrol.com",
    "hornetsecurity": "hornetsecurity.com antispameurope.com",
    "vade": "vadesecure.com",
    "spamexperts": "antispamcloud.com",
    "cloudflare": "mx.cloudflare.net",
    # hosters
    "amazon": "amazonaws.com",
    "rackspace": "emailsrvr.com",
    "godaddy": "secureserver.net",
    "namecheap": "registrar-servers.com privateemail.com",
    "hostinger": "hostinger.com",
}
KNOWN = frozenset(_TABLE)
_SUFFIXES = {suffix: provider for provider, suffixes in _TABLE.items() for suffix in suffixes.split()}


@lru_cache(maxsize=65_536)
def provider_of(relay: str) -> str:
    """The provider behind the relay host ``relay``: a name of the table, else the host's registrable domain.

    In lower case; empty for what is no host name below a public suffix (an IP address, "localhost", a socket).
    """
    host = relay.lower().rstrip(".")
    suffix = host
    while suffix:
        if provider := _SUFFIXES.get(suffix):
            return provider
        suffix = suffix.partition(".")[2]
    if "/" in host or ":" in host or host.rpartition(".")[2].isdigit():
        return ""
    return _public_suffixes().privatesuffix(host) or ""


def learnt(columns: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Recipient domain → provider, as the relays of these rows teach; later rows win, unknown ones are absent."""
    rows = zip(map(domain_of, columns["recipient"]), columns["provider"], strict=True)
    return {domain: provider for domain, provider in rows if domain and provider}


@cache
def _public_suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415  # 40 ms that only unknown relays cost

    # Only the registries' own suffixes: whoever rents out names below his domain runs one mail server for them.
    return PublicSuffixList(only_icann=True)
