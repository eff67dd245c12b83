"""Mail signed by DKIM as a reporter would, and as a forger might: any tag, any time, any size of key."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import dkim
from dkim.canonicalization import CanonicalizationPolicy
from dkim.crypto import HASH_ALGORITHMS, RSASSA_PKCS1_v1_5_sign

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
_EXPONENT = 65_537
HEADERS = ("date", "from", "to", "subject", "from", "subject")  # as Yahoo's loop signs


@dataclass(frozen=True)
class RsaKey:
    """A pair of keys; the public one as a record in DNS."""

    one: int
    other: int

    @property
    def private(self) -> dict[str, int]:
        """As dkimpy has it (RFC 8017 section 3.2)."""
        one, other = self.one, self.other
        secret = pow(_EXPONENT, -1, (one - 1) * (other - 1))
        return {
            "modulus": one * other,
            "privateExponent": secret,
            "prime1": one,
            "prime2": other,
            "exponent1": secret % (one - 1),
            "exponent2": secret % (other - 1),
            "coefficient": pow(other, -1, one),
        }

    def record(self, tags: str = "v=DKIM1; k=rsa; ") -> bytes:
        public = _der(0x30, _integer(self.one * self.other) + _integer(_EXPONENT))
        whole = _der(0x30, _RSA + _der(0x03, b"\0" + public))
        return tags.encode() + b"p=" + base64.b64encode(whole)


def _der(tag: int, content: bytes) -> bytes:
    """A value as ASN.1 has it (X.690 section 8.1)."""
    size = len(content).to_bytes(4, "big").lstrip(b"\0")
    return bytes([tag, *([len(content)] if len(content) < 128 else [0x80 | len(size), *size])]) + content


def _integer(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


_RSA = _der(0x30, _der(0x06, b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01") + _der(0x05, b""))


@cache
def key(bits: int = 1024, seed: int = 1) -> RsaKey:
    """The same key for the same arguments; such keys keep no secret."""
    dice = random.Random(f"{bits} {seed}")
    while True:
        one, other = _prime(dice, bits // 2), _prime(dice, bits - bits // 2)
        if one != other and (one * other).bit_length() == bits and (one - 1) * (other - 1) % _EXPONENT:
            return RsaKey(one, other)


def _prime(dice: random.Random, bits: int) -> int:
    while True:
        found = dice.getrandbits(bits) | 1 | 3 << (bits - 2)
        if all(found % small for small in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31)) and all(
            _passes(found, dice.randrange(2, found - 1)) for _ in range(12)
        ):
            return found


def _passes(number: int, base: int) -> bool:
    """Miller and Rabin's test."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    power = pow(base, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False


def signed(
    mail: bytes,
    domain: str = "arf.mail.yahoo.com",
    by: RsaKey | None = None,
    *,
    headers: Sequence[str] = HEADERS,
    at: datetime | None = NOW,
    canon: str = "relaxed/relaxed",
    algorithm: str = "rsa-sha256",
    selector: str = "arf",
    tags: str = "",
    length: int | None = None,
) -> bytes:
    """The mail with a signature above it; ``tags`` are more of them, such as "x=1700000000; ".

    ``length`` is how much of the body is covered (l=).
    """
    by = by or key()
    mail = mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    fields, body = dkim.rfc822_parse(mail)
    policy = CanonicalizationPolicy.from_c_value(canon.encode())
    covered = policy.canonicalize_body(body)
    if length is not None:
        covered, tags = covered[:length], f"l={length}; {tags}"
    digest = HASH_ALGORITHMS[algorithm.encode()]
    sum_ = base64.b64encode(digest(covered).digest()).decode()
    when = "" if at is None else f"t={int(at.timestamp())}; "
    value = (
        f" v=1; a={algorithm}; c={canon}; d={domain}; s={selector};\r\n\t{when}{tags}h={':'.join(headers)};\r\n\tbh={sum_};"
        "\r\n\tb="
    ).encode()
    hashed = dkim.HashThrough(digest())
    dkim.hash_headers(
        hashed,
        policy,
        policy.canonicalize_headers([(name, told) for name, told in fields]),
        [name.encode() for name in headers],
        (b"DKIM-Signature", value + b"\r\n"),
        {},
    )
    made = RSASSA_PKCS1_v1_5_sign(hashed, by.private)
    return b"DKIM-Signature:" + value + base64.b64encode(made) + b"\r\n" + mail
