"""DKIM signatures: what one says of itself, and whether it holds for a letter (RFC 6376, 8301; sums by dkimpy)."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dkim
from dkim.util import InvalidTagValueList, parse_tag_value

from collectors._keys import RECORD
from collectors._strict import Strict

LENGTH = 8_192  # bytes of one signature
_BITS = range(1_024, 8_193)  # of an RSA key: RFC 8301 section 3.2, and what there is any sense in
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# dkimpy takes the signature's own value out of it by an expression that is slow on long blanks.
_BLANKS = re.compile(rb"\s{81}")
_OWN = re.compile(rb"[;\s]b\s{0,80}=")
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.){0,20}[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(rb"[0-9]{1,12}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]{20,}={0,2}\s{0,80}")
_CANONICAL = frozenset(f"{one}{two}".encode() for one in ("simple", "relaxed") for two in ("", "/simple", "/relaxed"))
# dkimpy writes of what strangers wrote: its words go nowhere, whatever is configured of logs.
_SILENT = logging.Logger("dkim", logging.CRITICAL + 1)  # noqa: LOG001 - outside of the tree on purpose


class Refused(Exception):  # noqa: N818 - an answer
    """The signature is no evidence; says why, to go after "the signature of such a domain"."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One DKIM-Signature. ``signed`` are the headers that it covers, ``key`` the name where its key stands."""

    tags: dict[bytes, bytes]
    header: tuple[bytes, bytes]
    domain: str
    selector: str
    signed: tuple[str, ...]

    @property
    def key(self) -> str:
        """The DNS name of the key."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def at(self) -> datetime | None:
        """When it was made, if it says so."""
        return _time(self.tags.get(b"t"))

    @property
    def until(self) -> datetime | None:
        """Until when it is good, if it says so."""
        return _time(self.tags.get(b"x"))

    def check(self) -> None:
        """All that can be told without its key.

        Raises:
            Refused: it is not made as it must be, or leaves a part of the letter open.
        """
        tags = self.tags
        if tags.get(b"v") != b"1" or tags.get(b"q", b"dns/txt") != b"dns/txt":
            raise Refused("is of another version")
        if tags.get(b"a") != b"rsa-sha256":
            raise Refused("is not by rsa-sha256")  # RFC 8301 forbids rsa-sha1; Ed25519 alone is nobody's yet
        if b"l" in tags:
            raise Refused("covers a part of the body only (l=)")
        if tags.get(b"c", b"simple") not in _CANONICAL:
            raise Refused("is of no known canonical form")
        for name in (b"t", b"x"):
            if name in tags and not _NUMBER.fullmatch(tags[name]):
                raise Refused("has a time that is none")
        if self.until is not None and self.at is not None and self.until < self.at:
            raise Refused("has run out before it was made")
        if not _BASE64.fullmatch(tags.get(b"b", b"")) or not _BASE64.fullmatch(tags.get(b"bh", b"")):
            raise Refused("is cut")
        self._check_identity()

    def _check_identity(self) -> None:
        """The agent (i=) must be of the signing domain, or below it."""
        agent = self.tags.get(b"i", b"@" + self.domain.encode()).decode("ascii", "replace").lower()
        host = agent.rpartition("@")[2]
        if "@" not in agent or not (host == self.domain or host.endswith("." + self.domain)):
            raise Refused("is for an agent of another domain")


def signatures(letter: Strict, most: int) -> tuple[Signature, ...]:
    """The signatures of a letter that can be read at all, from the top, ``most`` at most."""
    found = [field for field in letter.fields if field[0].lower() == b"dkim-signature"][:most]
    return tuple(one for field in found if (one := _signature(field)))


def _signature(field: tuple[bytes, bytes]) -> Signature | None:
    value = field[1]
    if len(value) > LENGTH or not value.isascii() or _BLANKS.search(value) or len(_OWN.findall(b";" + value)) != 1:
        return None
    try:
        tags = parse_tag_value(value)
    except InvalidTagValueList:
        return None
    domain, selector = _name(tags.get(b"d", b"")), _name(tags.get(b"s", b""))
    signed = tuple(name.strip().lower().decode() for name in tags.get(b"h", b"").split(b":"))
    if not domain or not selector or not all(signed):
        return None
    return Signature(tags, field, domain, selector, signed)


def covered(letter: Strict, one: Signature) -> bytes:
    """What a signature covers of a letter, and the headers by which its body is read.

    Under a relaxed signature blanks may be changed at will, and with those in an empty line what a part's headers are:
    so that all such letters read the same, blanks are as they were summed.
    """
    names = {*one.signed, "content-type", "content-transfer-encoding"}
    kept = [name + b":" + value for name, value in letter.fields if name.decode().lower() in names]
    return b"".join(kept) + b"\r\n" + _summed(letter, one)


def _summed(letter: Strict, one: Signature) -> bytes:
    return _eased(letter.body) if one.tags.get(b"c", b"").endswith(b"/relaxed") else letter.body


def holds(letter: Strict, one: Signature, records: Sequence[bytes]) -> None:
    """Whether the signature is by the key in the records, and of this letter.

    Raises:
        Refused: it is not, or the key may not be used so.
    """
    record = _key(one, records)
    sums = dkim.DKIM(logger=_SILENT, minkey=_BITS.start)
    sums.headers = [list(field) for field in letter.fields]
    sums.body = _summed(letter, one)
    try:
        sums.pk, sums.keysize, sums.ktag, sums.seqtlsrpt = dkim.evaluate_pk(one.key, record)
    except Exception as error:  # whatever dkimpy makes of bytes that are no key
        raise Refused("has a key that can't be read") from error
    if sums.keysize not in _BITS:
        raise Refused(f"has a key of {sums.keysize} bits")
    try:
        good = sums.verify_sig_process(dict(one.tags), [name.encode() for name in one.signed], one.header, None)
    except dkim.ValidationError as error:
        raise Refused("does not fit the body") from error
    except Exception as error:  # whatever dkimpy makes of a stranger's bytes
        raise Refused("can't be read") from error
    if not good:
        raise Refused("does not fit the headers")


def _key(one: Signature, records: Sequence[bytes]) -> bytes:
    """The one record that is a key, and may be used for this signature (RFC 6376 section 3.6.1)."""
    keys = [(record, tags) for record in records if (tags := _tags(record)) and b"p" in tags]
    if not keys:
        raise Refused("has no key in DNS")
    if len(keys) > 1:
        raise Refused("has several keys in DNS")
    record, tags = keys[0]
    if not tags[b"p"]:
        raise Refused("has a key that was revoked")
    if tags.get(b"v", b"DKIM1") != b"DKIM1" or tags.get(b"k", b"rsa") != b"rsa":
        raise Refused("has a key of another kind")
    if b"sha256" not in _list(tags.get(b"h", b"sha256")) or not {b"*", b"email"} & set(_list(tags.get(b"s", b"*"))):
        raise Refused("has a key that is not for this")
    flags = _list(tags.get(b"t", b""))
    if b"y" in flags:
        raise Refused("has a key that is being tested only")
    agent = one.tags.get(b"i", b"").decode("ascii", "replace").lower().rpartition("@")[2]
    if b"s" in flags and agent not in ("", one.domain):
        raise Refused("is for an agent of another domain")
    return record


def _tags(record: bytes) -> dict[bytes, bytes]:
    if len(record) > RECORD or not record.isascii():
        return {}
    try:
        return dict(parse_tag_value(record))
    except InvalidTagValueList:
        return {}


def _list(value: bytes) -> list[bytes]:
    return [one.strip().lower() for one in value.split(b":")]


def _eased(body: bytes) -> bytes:
    """The body with the blanks taken out that its relaxed form has not: dkimpy takes quadratic time for long ones."""
    return re.sub(rb"[\t ]+", b" ", b"\r\n".join(line.rstrip(b"\t ") for line in body.split(b"\r\n")))


def _name(value: bytes) -> str:
    """A DNS name in lower case; "" where it is none in ASCII."""
    text = value.decode("ascii", "replace").lower()
    return text if len(text) < 254 and _NAME.fullmatch(text) else ""


def _time(value: bytes | None) -> datetime | None:
    if value is None or not _NUMBER.fullmatch(value):
        return None
    try:
        return _EPOCH + timedelta(seconds=int(value))
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)
