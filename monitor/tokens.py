"""What opens doors or tells people apart without being an address: passwords and tokens, mostly in URLs."""

from __future__ import annotations

import re
from binascii import unhexlify
from itertools import pairwise

from monitor.codings import from_base64, undressed

HIDDEN = "…"
_BARE, _PART, _VALUE = 32, 16, 12  # letters and figures from which on a random text, path part, value is a token
_RANDOM, _RANDOM_LETTERS = 0.22, 0.3  # share of neighbours of different kinds: figures beside letters; capitals
_CAPITAL = re.compile("(?<!A)Aa")
_ALNUM = re.compile(r"[A-Za-z0-9]{16,}")
_FIGURES = re.compile("[0-9]+")

_WORD = re.compile(r"[^\s<>\"]+")
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)|(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,20}(?=[/?])", re.IGNORECASE)
_TRAIL = ".,;:!)]}'\u2019\u201d>"
_LOGIN = re.compile(r"[^/?#]*@|[^/?#@:]*:(?!\d{1,5}(?:[/?#]|\Z))[^\s?#]*@", re.DOTALL)
_PARAMETERS = re.compile(r"(&amp;|[&;])")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Values of these say who somebody is, or let somebody in.
_PRIVATE = _set(
    """access_token account acct addr address api_key apikey auth authorization birthday contact cust customer
    customer_id e em email email_address emailaddress first_name firstname fname from fullname hash hmac jwt key
    last_name lastname lname login mail mailto member member_id mobile msisdn name nonce otp pass passwd password
    person phone pin pwd rcpt recipient recipients refresh_token secret sender session sessionid sid sig sign
    signature subscriber subscriber_id tel ticket to token u uid user user_id userid username usr who"""
)
_IP = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}|[0-9a-f.]*(?::[0-9a-f.]*){2,8}(?:/\d+)?", re.IGNORECASE)
_PAIR = re.compile(
    r"""(?P<name>\b(?:pass(?:word|wd|phrase)?|pwd|secret|(?:[a-z]{1,20}[-_ ])?token|(?:x-)?api[-_ ]?key|access[-_ ]?key
        |client[-_]secret|set-cookie|cookie|authorization)["']?\s{0,3}(?P<sign>[:=])\s{0,3}["']?
        (?:(?:bearer|basic)\s{1,3})?|\bbearer\s{1,3}|\bbasic\s{1,3}|\bAUTH\s(?:PLAIN|LOGIN)\s{1,3})
    (?P<value>[^\s"'<>,;&]{4,})""",
    re.IGNORECASE | re.VERBOSE,
)
# People by other schemes: UUCP's, X.400's and Exchange's, and return paths whose own domain is missing.
_BANG = re.compile(r"(?:(?<=\w\.[a-z]{2}!)|(?<=\w\.[a-z]{3}!)|(?<=\.example!))[a-z][\w.+-]*(?![\w!])", re.IGNORECASE)
_DIRECTORY = re.compile(r"(?i:(?<=/cn=)|(?<=/[gs]=))[^/;>,\"\s]+(?: [A-Z][^/;>,\"\s]*)*")
_BOUNCED = re.compile(
    r"(?:bounces?[+-]|returns?[+-]|srs[01][=+-]|(?:ms)?prvs1?=)[^\s<>()\[\],;:\"@]{0,300}=[^\s<>()\[\],;:\"@]+(?!\S*@)",
    re.IGNORECASE,
)
# What makers of keys put before them so that they are known where they leak, and ours.
_MARKED = re.compile(
    r"""(?:sk|pk|rk)_(?:live|test)_\w{8}|gh[opsur]_\w{16}|github_pat_\w{16}|glpat-[\w-]{16}|xox[abeoprs]-[\w-]{8}
    |A[KS]IA[0-9A-Z]{16}|AIza[\w-]{30}|SG\.[\w-]{10,}\.[\w-]{10}|whsec_[\w+/-]{16}|eyJ[\w-]{8,}\.|mv_\w{2,40}_[\w-]{16}
    |npm_\w{30}|hf_\w{30}""",
    re.VERBOSE,
)
_RUN = re.compile(r"[A-Za-z0-9+/_-](?:[A-Za-z0-9+/_.-]{10,}[A-Za-z0-9+/_-])={0,2}")
_CODE = re.compile(r"[A-Za-z0-9+/_-]{12,}")
_KEY = re.compile(f"[0-9a-f]{{{_BARE},}}|[0-9A-F]{{{_BARE},}}")
_HEX = re.compile(r"[0-9a-fA-F]{12,}")
_APART = re.compile("[/_-]")
_INSIDE = re.compile(
    rb"[!-~\x80-\xbf]@(?:[A-Za-z0-9-]{2,63}\.(?:[A-Za-z]{2}|[\xc3-\xf4])|[\xc3-\xf4][\x80-\xbf][\x80-\xff]+\.[A-Za-z\xc3-\xf4])"
)


def without_tokens(text: str) -> str:
    """``text`` with an ellipsis in the place of each token, password, and address in base64 or hexadecimal figures."""
    if "/" in text or "?" in text:
        text = _WORD.sub(_word, text)
    lower = text.lower()
    if _hinted(lower):
        text = _PAIR.sub(_pair, text)
    if "=" in lower:
        if "/cn=" in lower or "/g=" in lower or "/s=" in lower:
            text = _DIRECTORY.sub(HIDDEN, text)
        if "bounce" in lower or "srs" in lower or "prvs" in lower or "return" in lower:
            text = _BOUNCED.sub(HIDDEN, text)
    if "!" in text:
        text = _BANG.sub(HIDDEN, text)
    return _RUN.sub(_run, text)


def _hinted(text: str) -> bool:
    """Whether a word stands there that passwords and tokens follow; one by one, which is quicker than a pattern."""
    return (
        "pass" in text or "token" in text or "secret" in text or "key" in text or "pwd" in text
        or "auth" in text or "cookie" in text or "bearer" in text or "basic" in text
    )  # fmt: skip


def _word(found: re.Match[str]) -> str:
    word = found[0]
    url = _URL.search(word) if "/" in word or "?" in word else None
    return word[: url.start()] + _url(url[0], word[url.end() :]) if url else word


def _url(start: str, rest: str) -> str:
    end = len(rest.rstrip(_TRAIL))
    rest, after = rest[:end], rest[end:]
    if start.endswith("://") and (login := _LOGIN.match(rest)):
        start, rest = start + HIDDEN + "@", rest[login.end() :]
    rest, hash_, fragment = rest.partition("#")
    path, mark, query = rest.partition("?")
    path = "/".join(map(_part, path.split("/")))
    return start + path + mark + _query(query) + hash_ + _query(fragment) + after


def _part(part: str) -> str:
    """A part of a path; after "~" a person's place begins."""
    plain = undressed(part).text
    return HIDDEN if (plain.startswith("~") and len(plain) > 1) or _telling(plain, _PART) else part


def _query(query: str) -> str:
    return "".join(map(_parameter, _PARAMETERS.split(query))) if query else query


def _parameter(parameter: str) -> str:
    name, sign, value = parameter.partition("=")
    if not sign:
        return HIDDEN if _telling(undressed(name).text, _VALUE) else parameter
    if _telling(undressed(name).text, _VALUE):
        return HIDDEN
    plain = undressed(value).text
    private = name.lower().rpartition("[")[2].rstrip("]") in _PRIVATE and not (plain.isdigit() and len(plain) < 4)
    return f"{name}={HIDDEN}" if value and (private or _telling(plain, _VALUE)) else parameter


def _telling(plain: str, least: int) -> bool:
    """Whether a part of a URL names somebody or is a token of ``least`` letters and figures or more."""
    if "@" in plain or "\uff20" in plain:
        return True
    if len(plain) < least or _IP.fullmatch(plain):
        return False
    return _mixed(plain) or any(_random(label, least) for label in plain.split(".")) or _addressed(plain)


def _random(text: str, least: int) -> bool:
    """Whether letters and figures change as they do in no word."""
    kinds = "".join(_kind(letter) for letter in text if letter.isalnum())
    if len(kinds) < least or len(set(kinds)) < 2:
        return False
    # A capital at the beginning of a word is no change: NotAuthorizedError.
    changes = sum(one != other for one, other in pairwise(kinds)) - len(_CAPITAL.findall(kinds))
    return changes >= (_RANDOM if "0" in kinds else _RANDOM_LETTERS) * len(kinds)


def _mixed(text: str) -> bool:
    """Whether figures stand between letters in a text without a hyphen: no word, and in a URL a token."""
    return any(len(_FIGURES.split(run)) > 2 for run in _ALNUM.findall(text))


def _kind(letter: str) -> str:
    return "0" if letter.isdigit() else "A" if letter.isupper() else "a"


def _pair(found: re.Match[str]) -> str:
    value = found["value"]
    # "password: required" and "basic authentication" are words; what is after "=" is a value.
    tells = found["sign"] == "=" or (len(value) > 5 and not value.rstrip(".!").replace("-", "").isalpha())
    return found["name"] + HIDDEN if tells and value != HIDDEN else found[0]


def _run(found: re.Match[str]) -> str:
    text = found[0]
    if text.islower() and not _HEX.search(text):  # a name of a server, mostly
        return text
    if len(text) >= _BARE and any(map(_secret, text.split("."))):
        return HIDDEN
    return HIDDEN if _MARKED.match(text) or _addressed(text) else text


def _secret(text: str) -> bool:
    """A long random text that is no id of a message: those have parts, or figures and small letters alone."""
    if len(text) < _BARE:
        return False
    bare = text.rstrip("=")
    if _KEY.search(bare):
        return len(_FIGURES.split(bare)) > 3
    whole = bare.isalnum() or len({_kind(letter) for letter in bare if letter.isalnum()}) == 3
    return whole and _random(bare, _BARE)


def _addressed(text: str, depth: int = 2) -> bool:
    """Whether base64 or hexadecimal figures say an address, wherever in the text they begin."""
    for run in _HEX.findall(text):
        if any(_INSIDE.search(unhexlify(run[place : place + (len(run) - place) // 2 * 2])) for place in (0, 1)):
            return True
    for run in _CODE.findall(text):
        if run.islower() or run.isdigit():
            continue
        for piece in {run, *_APART.split(run)}:
            for place in range(4 if len(piece) > 11 else 0):
                raw = from_base64(piece[place:]) or b""
                if _INSIDE.search(raw) or (depth and raw.isascii() and _addressed(raw.decode(), depth - 1)):
                    return True
    return False
