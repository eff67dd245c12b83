"""Addresses, names and tokens planted into texts in odd forms, and a search that finds them in any of those.

The search shares no code with the product: it undoes codings with the standard library and looks for the words of which
planted people consist. They are of syllables that no reply has.
"""

from __future__ import annotations

import base64
import csv
import email.header
import gzip
import html
import quopri
import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, unquote_plus

_SYLLABLES = ("qua", "zix", "wov", "jyk", "xub", "vez", "kwo", "fiq", "pyx", "zhu", "gwy", "bxi")
# Any of those words, as bytes too; no text that was not planted has one.
KNOWN = re.compile(f"(?:{'|'.join(_SYLLABLES)}){{3,}}", re.IGNORECASE)
_KNOWN_BYTES = re.compile(KNOWN.pattern.encode())
DOMAINS = (
    "example.com",
    "mail.example.co.uk",
    "smtp-7.example.org",
    "xn--bcher-kva.example",
    "192-0-2-7.dsl.example.net",
)


@dataclass(frozen=True, slots=True)
class Planted:
    """A text with somebody in it: ``words`` are what must not be found again, ``reply`` what was there before."""

    form: str
    text: str
    words: tuple[str, ...]
    reply: str

    def lost(self, told: str) -> list[str]:
        """Words of the reply that are not in what was told of it."""
        return [word for word in self.reply.split() if word not in told]


def word(luck: random.Random, least: int = 3) -> str:
    """A word that no reply has."""
    return "".join(luck.choice(_SYLLABLES) for _ in range(luck.randint(least, 4)))


class Person:
    """Somebody with a first and a last name and an address made of them."""

    def __init__(self, luck: random.Random) -> None:
        self.luck = luck
        self.first, self.last = word(luck), word(luck)
        self.domain = luck.choice(DOMAINS)
        self.local = luck.choice(
            [
                f"{self.first}.{self.last}",
                f"{self.first}_{self.last}",
                f"{self.first}-{self.last}{luck.randint(1, 99)}",
                f"{self.first}.{self.last}+{word(luck)}",
                f"{self.first[0]}.o'{self.last}",
                f"{{{self.first}}}!#$%&'*+/=?^`|~{self.last}",
                self.last,
                self.last.upper(),
            ]
        )
        self.plain = f"{self.first}.{self.last}"
        self.address = f"{self.local}@{self.domain}"
        self.name = f"{self.first.title()} {self.last.title()}"


def _everything(text: str, code: Callable[[str], str], luck: random.Random, share: float = 1.0) -> str:
    return "".join(code(letter) if luck.random() < share or not letter.isalnum() else letter for letter in text)


def _percent(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode())


def _entity(letter: str) -> str:
    return f"&#{ord(letter)};"


def _printable(letter: str) -> str:
    return "".join(f"={byte:02X}" for byte in letter.encode())


def _wide(text: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


def _bold(text: str) -> str:
    return "".join(chr(0x1D41A + ord(letter) - ord("a")) if "a" <= letter <= "z" else letter for letter in text)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _b64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _encoded(text: str, luck: random.Random) -> str:
    """As one or more encoded words (RFC 2047)."""
    if luck.random() < 0.5:
        return f"=?UTF-8?B?{_b64(text)}?="
    middle = luck.randrange(len(text))
    halves = (text[:middle], text[middle:])
    coded = ("".join("_" if c == " " else _printable(c) if not c.isalnum() else c for c in half) for half in halves)
    return luck.choice([" ", "\r\n "]).join(f"=?iso-8859-1?q?{half}?=" for half in coded)


Form = Callable[[Person], str]


def _at(sign: str, dot: str = ".") -> Form:
    return lambda p: p.plain.replace(".", dot) + sign + p.domain.replace(".", dot)


FORMS: dict[str, Form] = {
    "plain": lambda p: p.address,
    "angle": lambda p: f"<{p.address}>",
    "upper": lambda p: p.address.upper(),
    "quoted": lambda p: f'"{p.first} {p.last}"@{p.domain}',
    "quoted, escapes": lambda p: f'"{p.first} \\"{p.last}\\" \\\\"@{p.domain}',
    "quoted, signs": lambda p: f'"{p.first}@home, <{p.last}>; (x)"@{p.domain}',
    "quoted in part": lambda p: f'{p.first}."{p.last} x"@{p.domain}',
    "quoted in JSON": lambda p: f'{{\\"to\\": \\"\\\\\\"{p.first} {p.last}\\\\\\"@{p.domain}\\"}}',
    "quoted, coded": lambda p: quote(f'"{p.first} {p.last}"@{p.domain}', safe=""),
    "quoted, HTML": lambda p: html.escape(f'"{p.first} {p.last}"@{p.domain}'),
    "backslash": lambda p: f"{p.first}\\ {p.last}@{p.domain}",
    "UTF-8": lambda p: f"{p.first}ł{p.last}@{p.domain}",
    "IDN": lambda p: f"{p.plain}@{p.luck.choice(['bücher.example', 'пример.рф', '例え.テスト', 'παράδειγμα.δοκιμή'])}",
    "IDN, wide dot": lambda p: f"{p.plain}@例え。テスト",
    "Cyrillic": lambda p: f"пользователь.{p.first}{p.last}@пример.рф",
    "literal": lambda p: f"{p.plain}@[192.0.2.{p.luck.randint(1, 250)}]",
    "literal 6": lambda p: f"<{p.plain}@[IPv6:2001:db8::1]>",
    "one label": lambda p: f"{p.plain}@localhost",
    "VERP": lambda p: f"bounces+{p.plain}={p.domain}@esp.example",
    "VERP, minus": lambda p: f"bounce-4711-{p.plain}={p.domain}@esp.example.net",
    "VERP, coded": lambda p: f"b+{p.plain}%3D{p.domain}%40esp.example",
    "VERP, =40": lambda p: f"bounces+{p.plain}=40{p.domain}@esp.example",
    "prvs": lambda p: f"prvs={p.luck.randint(1000000000, 9999999999)}={p.plain}@{p.domain}",
    "msprvs": lambda p: f"msprvs1=17a8bCdEf={p.plain}@{p.domain}",
    "SRS0": lambda p: f"SRS0=a1B2=ZZ={p.domain}={p.plain}@forward.example",
    "SRS1": lambda p: f"SRS1=x9Y8=first.example==a1B2=ZZ={p.domain}={p.plain}@second.example",
    "percent hack": lambda p: f"{p.plain}%{p.domain}@relay.example",
    "bang": lambda p: f"{p.domain}!{p.plain}@relay.example",
    "source route": lambda p: f"<@relay.example,@other.example:{p.plain}@{p.domain}>",
    "%40": lambda p: f"{p.plain}%40{p.domain}",
    "%2540": lambda p: f"{p.plain}%2540{p.domain}",
    "%252540": lambda p: f"{p.plain}%252540{p.domain}",
    "%u0040": lambda p: f"{p.plain}%u0040{p.domain}",
    "all percent": lambda p: _everything(p.address, _percent, p.luck),
    "some percent": lambda p: _everything(p.address, _percent, p.luck, 0.3).lower(),
    "percent twice": lambda p: quote(_everything(p.address, _percent, p.luck, 0.3), safe=""),
    "wide percent": lambda p: f"{p.plain}%EF%BC%A0{p.domain}",
    "&#64;": lambda p: p.plain + p.luck.choice(["&#64;", "&#064;", "&#x40;", "&#X0040;", "&commat;"]) + p.domain,
    "&#64": lambda p: f"{p.plain}&#64{p.domain.replace('192', 'x')}",
    "&amp;#64;": lambda p: f"{p.plain}&amp;#64;{p.domain}",
    "all entities": lambda p: _everything(p.plain + "@" + p.domain, _entity, p.luck),
    "some entities": lambda p: _everything(p.plain + "@" + p.domain, _entity, p.luck, 0.3),
    "&lt;": lambda p: f"&lt;{p.plain}&#46;x&#64;{p.domain}&gt;",
    "entities in percent": lambda p: quote(f"{p.plain}&#64;{p.domain}", safe=""),
    "percent in =": lambda p: f"{p.plain}=2540{p.domain}",
    "=40": lambda p: f"{p.plain}=40{p.domain}",
    "=3D40": lambda p: f"{p.plain}=3D40{p.domain}",
    "all =": lambda p: _everything(p.plain + "@" + p.domain, _printable, p.luck, 0.3),
    "= at a line's end": lambda p: f"{p.first}.{p.last[:3]}=\r\n{p.last[3:]}@{p.domain}",
    "= at the end of a line that was joined": lambda p: f"{p.first}.{p.last[:3]}= {p.last[3:]}@{p.domain}",
    "\\u0040": lambda p: f"{p.plain}\\u0040{p.domain}",
    "\\x40": lambda p: f"{p.plain}\\x40{p.domain}",
    "\\100": lambda p: f"{p.plain}\\100{p.domain}",
    "\\u{40}": lambda p: f"{p.plain}\\u{{40}}{p.domain}",
    "\\uff20": lambda p: f"{p.plain}\\uff20{p.domain}",
    "UTF-7": lambda p: f"{p.plain}+AEA-{p.domain}",
    "wide @": lambda p: f"{p.plain}\uff20{p.domain}",
    "small @": lambda p: f"{p.plain}\ufe6b{p.domain}",
    "all wide": lambda p: _wide(p.plain + "@" + p.domain),
    "bold": lambda p: _bold(p.plain) + "@" + p.domain,
    "nothing between": lambda p: f"{p.first}\u200b.{p.last}\u200b@\u200b{p.domain}",
    "soft hyphens": lambda p: f"{p.first}\u00ad.\u00ad{p.last}@{p.domain}",
    "NUL": lambda p: f"{p.first}\x00{p.last}@{p.domain}",
    "separator": lambda p: f"{p.first}\x1f{p.last}@{p.domain}",
    "spaces": lambda p: f"{p.plain} @ {p.domain}",
    "space before": lambda p: f"{p.plain} @{p.domain}",
    "space after": lambda p: f"{p.plain}@ {p.domain}",
    "hard spaces": lambda p: f"{p.plain}\u00a0@\u00a0{p.domain}",
    "line between": lambda p: f"{p.plain}\r\n @{p.domain}",
    "spaces at dots": lambda p: f"{p.first} . {p.last} @ {p.domain.replace('.', ' . ')}",
    "(at)": _at("(at)"),
    " (at) ": _at(" (at) "),
    "[at]": _at("[at]"),
    " [ AT ] ": _at(" [ AT ] "),
    "{at}": _at("{at}"),
    "<at>": _at("<at>"),
    "[@]": _at("[@]"),
    "(at) (dot)": _at(" (at) ", " (dot) "),
    "[at] [dot]": _at("[at]", "[dot]"),
    "_at_": _at("_at_"),
    " AT ": _at(" AT "),
    " AT DOT ": _at(" AT ", " DOT "),
    "at dot": _at(" at ", " dot "),
    "coded (at)": lambda p: f"{p.plain}%28at%29{p.domain}",
    "comment after": lambda p: f"{p.plain}(comment (in it))@{p.domain}",
    "comment before the domain": lambda p: f"{p.plain}@(here){p.domain}",
    "comments within": lambda p: f"{p.first}(a).(b){p.last}@{p.domain}",
    "comment and blanks": lambda p: f"{p.plain} (x) @ {p.domain}",
    "name in a comment": lambda p: f"{p.plain}({p.name})@{p.domain}",
    "name before": lambda p: f"({p.name}){p.plain}@{p.domain}",
    "name behind": lambda p: f"{p.plain}@{p.domain} ({p.name})",
    "name": lambda p: f"{p.name} <{p.address}>",
    "name, quoted": lambda p: f'"{p.last.title()}, {p.first.title()}" <{p.address}>',
    "name, last first": lambda p: f"{p.last.title()}, {p.first.title()} <{p.address}>",
    "name, capitals": lambda p: f"{p.last.upper()} {p.first.title()} <{p.address}>",
    "name, small": lambda p: f"{p.first} {p.last} <{p.first}.{p.last}@{p.domain}>",
    "name, de": lambda p: f"{p.first.title()} van der {p.last.title()} <{p.address}>",
    "name, Outlook": lambda p: f"{p.name} [mailto:{p.address}]",
    "name, brackets": lambda p: f"{p.name} ({p.plain}@{p.domain})",
    "name, HTML": lambda p: f"{p.name} &lt;{p.plain}@{p.domain}&gt;",
    "name, encoded": lambda p: f"{_encoded(p.name, p.luck)} <{p.address}>",
    "name, twice": lambda p: f"{p.name} <{p.address}> ({p.name} has left)",
    "address twice": lambda p: f"<{p.plain}@{p.domain}>: mailbox {p.plain} is full",
    "its own domain": lambda p: f"{p.plain}@{p.first}{p.last}.example",
    "its own name": lambda p: f"mail@{p.first}.{p.last}.name",
    "encoded word": lambda p: _encoded(p.address, p.luck),
    "encoded word, cut": lambda p: f"=?utf-8?B?{_b64('Re: ' + p.address + ' has left us')[:-8]}",
    "encoded word in another": lambda p: f"=?utf-8?B?{_b64(_encoded(p.address, p.luck))}?=",
    "encoded word, coded": lambda p: _encoded(p.address.replace("@", "%40"), p.luck),
    "base64": lambda p: _b64(p.address),
    "base64 of a login": lambda p: f"AUTH PLAIN {_b64(chr(0) + p.address + chr(0) + word(p.luck))}",
    "hexadecimal": lambda p: p.address.encode().hex(),
    "URL, query": lambda p: f"https://x.example/u?id=7&e={quote(p.address, safe='')}&lang=en",
    "URL, query plain": lambda p: f"https://x.example/u?e={p.plain}@{p.domain}&lang=en",
    "URL, query +": lambda p: f"http://x.example/s?q={p.first}+{p.last}%40{p.domain}",
    "URL, no value": lambda p: f"http://x.example/u?{quote(p.address, safe='')}",
    "URL, in a URL": lambda p: "https://x.example/r?u=" + quote(f"https://y.example/?e={quote(p.address)}", safe=""),
    "URL, name": lambda p: f"https://x.example/u?name={quote(p.name)}&user={p.plain}",
    "URL, path": lambda p: f"https://x.example/u/{p.plain}@{p.domain}/stop",
    "URL, path coded": lambda p: f"https://x.example/u/{quote(p.address, safe='')}",
    "URL, home": lambda p: f"http://x.example/~{p.first}{p.last}/",
    "URL, fragment": lambda p: f"https://x.example/u#email={quote(p.address, safe='')}",
    "URL, login": lambda p: f"https://{p.plain}:{word(p.luck)}@x.example/path",
    "URL, login coded": lambda p: f"ftp://{quote(p.address, safe='')}:secret@x.example/",
    "URL, base64": lambda p: f"https://x.example/u?x={_b64url(p.address)}",
    "URL, base64 path": lambda p: f"https://x.example/open/{_b64(p.address)}/pixel.gif",
    "URL, no scheme": lambda p: f"www.x.example/u?e={quote(p.address, safe='')}",
    "tags": lambda p: f"{p.plain}<b>@</b>{p.domain}",
    "in a tag": lambda p: f'<a href="mailto:{p.plain}@{p.domain}">{p.plain}</a>',
    "xtext": lambda p: f"orcpt=rfc822;{p.first}+2E{p.last}+40{p.domain}",
    "at": lambda p: f"{p.plain} at {p.domain}",
    "a in a circle": lambda p: f"{p.plain}\u24d0{p.domain}",
    "account": lambda p: f"{p.plain}:{p.last}9@smtp.example.com",
    "bang alone": lambda p: f"relay.example.com!{p.plain}",
    "VERP alone": lambda p: f"bounce+{p.plain}={p.domain}",
    "SRS alone": lambda p: f"SRS0=a1B2=ZZ={p.domain}={p.plain}",
    "X.400": lambda p: f"/G={p.first}/S={p.last}/O=example/C=pl",
    "Exchange": lambda p: f"/o=Example/ou=First Group/cn=Recipients/cn={p.name}",
    "name, Japanese": lambda p: f"\u5c71\u7530{p.last} <{p.address}>",
    "line between, escaped": lambda p: f"{p.plain}\\r\\n @{p.domain}",
    "name in a path": lambda p: f"/v1/nowhere/{p.name} <{p.address}>",
    "mailto": lambda p: f"mailto:{quote(p.address)}?cc=x%40y.example&subject=hello",
}

# A token instead of a person, as the one word that is not to be found again.
TOKENS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "token in a value": lambda r: ((t := _token(r, 22)), f"https://x.example/u?t={t}&lang=en"),
    "token in any value": lambda r: ((t := _token(r, 27)), f"https://x.example/u?zz={t}"),
    "token in a path": lambda r: ((t := _token(r, 24)), f"https://x.example/confirm/{t}."),
    "hexadecimal token in a path": lambda r: ((t := f"{r.getrandbits(128):032x}"), f"http://x.example/c/{t}/"),
    "token in a fragment": lambda r: ((t := _token(r, 30)), f"https://x.example/#access_token={t}&type=bearer"),
    "password in a URL": lambda r: ((t := word(r)), f"amqp://mailer:{t}@broker.example:5672/vhost"),
    "JWT in a URL": lambda r: ((t := _token(r, 40)), f"https://x.example/?j=eyJhbGciOiJIUzI1NiJ9.{t}.{_token(r, 20)}"),
    "long token": lambda r: ((t := _token(r, 43)), f"session {t} expired"),
    "long hexadecimal token": lambda r: ((t := f"{r.getrandbits(256):064x}"), f"secret {t}"),
    "bearer": lambda r: ((t := _token(r, 20)), f"Authorization: Bearer {t}"),
    "password": lambda r: ((t := word(r)), f"password={t}"),
    "our own key": lambda r: ((t := _token(r, 32)), f"key mv_k7x2_{t} refused"),
    "key with a maker's mark": lambda r: ((t := _token(r, 24)), f"using sk_live_{t}"),
}


def _token(luck: random.Random, length: int) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "x7Q" + "".join(luck.choice(letters) for _ in range(length - 6)) + "9Zk"


def planted(number: int, seed: int, replies: Sequence[str]) -> Iterator[Planted]:
    """So many texts with somebody in each, every form in its turn, at places of ``replies`` where words end."""
    luck = random.Random(seed)
    names = [*FORMS, *TOKENS]
    for turn in range(number):
        name = names[turn % len(names)]
        words: tuple[str, ...]
        if name in FORMS:
            person = Person(luck)
            hidden = FORMS[name](person)
            words = tuple(found_in(hidden, (person.first, person.last)))
        else:
            token, hidden = TOKENS[name](luck)
            words = (token,)
        reply = luck.choice(replies)
        yield Planted(name, _set(hidden, reply, luck), words, reply)


def gathered(corpus: Path) -> list[str]:
    """Replies of servers, each once: of bounces and logs in ``corpus``, and of the table in ``../facts`` beside it."""
    found: dict[str, None] = {}
    table = corpus.parent / "facts" / "replies.csv"
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            found |= dict.fromkeys(row["literal_phrase"] for row in csv.DictReader(file))
    for path in sorted((corpus / "mta_logs").rglob("*")):
        if path.is_file():
            found |= dict.fromkeys(_told_in_log(_read(path)))
    for path in sorted((corpus / "bounce").rglob("*")):
        if path.is_file():
            found |= dict.fromkeys(_told_in_bounce(_read(path)))
    return [reply for reply in found if reply.strip()]


def _read(path: Path) -> str:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return raw.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _told_in_log(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if told := re.search(r"status=\S+ \((.*)\)\s*$|(?:said|refused to talk to me|: reject): (.*)", line):
            yield told[1] or told[2]


def _told_in_bounce(text: str) -> Iterator[str]:
    for told in re.finditer(r"(?im)^Diagnostic-Code:[ \t]*(.*(?:\n[ \t]+.*)*)|^[>< ]*([245]\d\d[ -].*)$", text):
        yield re.sub(r"\n[ \t]+", " ", told[1] or told[2])


def _set(hidden: str, reply: str, luck: random.Random) -> str:
    """``hidden`` in the reply, with what receivers write around an address."""
    before, after = luck.choice(
        [
            (" ", " "),
            (" ", ": "),
            (" <", "> "),
            (" (", ") "),
            (" '", "' "),
            ("\t", ", "),
            ("; ", "; "),
            (" [", "] "),
            ("\n", "\n"),
        ]
    )
    places = [found.start() for found in re.finditer(r"\s", reply)] + [0, len(reply)]
    place = luck.choice(places)
    return (reply[:place] + before + hidden + after + reply[place:].lstrip()).strip(" ")


def found_in(text: str, words: tuple[str, ...]) -> list[str]:
    """Those of the words that can be read in the text, in whatever way."""
    found: set[str] = set()
    for form in _readings(text):
        folded = form.casefold()
        found |= {word for word in words if word.casefold() in folded}
    return sorted(found)


def anybody(text: str) -> list[str]:
    """Every planted word that can be read in the text, in whatever way, whoever it was planted for."""
    found: set[str] = set()
    for part in set(re.split(r"[\n,{}]", text)):
        for form in _readings(part):
            found.update(KNOWN.findall(form))
    return sorted(found)


def anybody_in_bytes(raw: bytes) -> set[bytes]:
    """Every planted word that stands in the bytes as it is, in whatever case."""
    small, found = raw.lower(), set()
    for syllable in _SYLLABLES:  # one at a time, which is much quicker than a pattern
        place = small.find(syllable.encode())
        while place >= 0:
            if here := _KNOWN_BYTES.match(small, place):
                found.add(here[0])
            place = small.find(syllable.encode(), place + 1)
    return found


def _readings(text: str, depth: int = 3) -> set[str]:
    seen, edge = {text}, {text}
    for _ in range(depth):
        edge = {new for old in edge for new in _undone(old)} - seen
        seen |= edge
    return seen


def _undone(text: str) -> Iterator[str]:
    yield unquote(text)
    yield unquote_plus(text)
    yield html.unescape(text)
    yield quopri.decodestring(text.encode("utf-8", "replace")).decode("utf-8", "replace")
    yield re.sub(r"\\+(?:u\{?0*|x)([0-9a-fA-F]{2})\}?", lambda m: chr(int(m[1], 16)), text)
    yield re.sub(r"\\([01][0-7]{2})", lambda m: chr(int(m[1], 8)), text)
    yield unicodedata.normalize("NFKC", "".join(c for c in text if c.isprintable() and c not in "\u200b\u00ad"))
    if "=?" in text:
        yield _header(text)
    for run in re.findall(r"[A-Za-z0-9+/]{8,}", text.replace("-", "+").replace("_", "/")):
        for piece in {run, *run.split("/")}:
            yield base64.b64decode(piece[: len(piece) // 4 * 4]).decode("latin-1")
    for run in re.findall(r"[0-9a-f]{12,}", text):
        yield bytes.fromhex(run[: len(run) // 2 * 2]).decode("latin-1")


def _header(text: str) -> str:
    try:
        return str(email.header.make_header(email.header.decode_header(text)))
    except (LookupError, ValueError, email.errors.MessageError):
        return text
