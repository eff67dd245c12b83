"""Whether an id_token is to be trusted, and who it speaks of (OpenID Connect Core 1.0 section 3.1.3.7). No network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry

from monitor.access.people import new_name
from monitor.access.signing_in import Refused, Vouched, Why
from monitor.caller import Role
from monitor.errors import UserError
from monitor.settings import Oidc

# Signatures by a private key only: with HS256 the provider's public key would do as the secret, and none is none.
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
LEEWAY = 60  # seconds that the provider's clock may differ
LONGEST = 32 << 10  # characters of a token
_KINDS = ("RSA", "EC", "OKP")
_SUBJECT = 255  # characters, as section 2 has it
_STRENGTH = (Role.ADMIN, Role.OPERATOR, Role.VIEWER)


class _Signatures(JWSRegistry):
    """The library's, with our algorithms alone; it may name EdDSA, as providers still do, without a warning."""

    max_header_length = 8192  # some show their certificates

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


_SIGNATURES = _Signatures(algorithms=ALGORITHMS, strict_check_header=False)  # RFC 7515 section 4: others are ignored


class UnknownKey(Refused):
    """The token names a key that the provider had not published when it was asked last."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must speak of. ``access``: the access token beside it, whose hash it may hold."""

    issuer: str
    client: str
    nonce: str = field(repr=False)
    access: str = field(default="", repr=False)


def key_set(told: Mapping[str, Any]) -> KeySet:
    """The provider's keys for signatures; those of other kinds are left out.

    Raises:
        Refused: there is none.
    """
    every = told.get("keys")
    found: list[Key] = []
    for one in every if isinstance(every, list) else ():
        if isinstance(one, dict) and one.get("kty") in _KINDS and one.get("use", "sig") == "sig":
            try:
                found.append(JWKRegistry.import_key(one))
            except (JoseError, ValueError, TypeError, KeyError):
                continue  # one that we do not understand must not hide the others
    if not found:
        raise Refused(Why.UNREACHABLE, "it published no key that we know how to use")
    return KeySet(found)


def trusted(text: str, keys: KeySet, expected: Expected, now: datetime) -> dict[str, Any]:
    """The claims of a token that the provider signed, for us, for this way, and that has not ended.

    Raises:
        UnknownKey: it names a key that is not among them.
        Refused: any other reason not to trust it.
    """
    from authlib.oidc.core import CodeIDToken  # noqa: PLC0415  # only who comes from a provider needs it

    if len(text) > LONGEST:
        raise Refused(Why.INVALID, "the token is too long")
    options = {
        "iss": {"essential": True, "value": expected.issuer},
        "aud": {"essential": True, "value": expected.client},
        "nonce": {"essential": True, "value": expected.nonce},
    }
    params = {"nonce": expected.nonce, "client_id": expected.client, "access_token": expected.access}
    try:
        token = jwt.decode(text, keys, registry=_SIGNATURES)
        claims = CodeIDToken(token.claims, token.header, options, params)
        claims.validate(now=int(now.timestamp()), leeway=LEEWAY)
    except InvalidKeyIdError as error:
        raise UnknownKey(Why.INVALID, "it is signed by a key that the provider does not publish") from error
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise Refused(Why.INVALID, f"the token: {type(error).__name__} {_claim(error)}".rstrip()) from error
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= _SUBJECT:
        raise Refused(Why.INVALID, "the token: no sub")
    return dict(claims)


def vouched(claims: Mapping[str, Any], settings: Oidc) -> Vouched:
    """The person, with the strongest role of its groups.

    Raises:
        Refused: there is no role for it, its address is not of ours, or it can't be called anything.
    """
    name = named(claims, settings)
    if settings.domains and not _of_ours(claims, settings.domains):
        raise Refused(Why.DOMAIN, "no verified address of access.oidc.domains", of=name)
    groups = _groups(_claimed(claims, settings.groups))
    mine = [role for role in _STRENGTH if groups & set(settings.roles.get(role, ()))]
    role = mine[0] if mine else settings.everybody
    if role is None:
        raise Refused(Why.ROLE, f"in no group of access.oidc.roles, by the claim {settings.groups}", of=name)
    return Vouched(f"{settings.issuer} {claims['sub']}", name, role)


def named(claims: Mapping[str, Any], settings: Oidc) -> str:
    """What the person is called.

    Raises:
        Refused: the claim is missing, or nobody can be called so.
    """
    text = claims.get(settings.name)
    try:
        return new_name(text if isinstance(text, str) else "")
    except UserError as error:
        raise Refused(Why.NAME, f"the claim {settings.name} (access.oidc.name) holds no name for us") from error


def enough(claims: Mapping[str, Any], settings: Oidc) -> bool:
    """Whether the claims hold all that ``vouched`` looks at, so that the provider need not be asked for more."""
    wanted = [settings.name, *(["email", "email_verified"] if settings.domains else [])]
    grouped = not settings.roles or _claimed(claims, settings.groups) is not None
    return grouped and all(name in claims for name in wanted)


def _of_ours(claims: Mapping[str, Any], domains: tuple[str, ...]) -> bool:
    address, verified = claims.get("email"), claims.get("email_verified")
    if not isinstance(address, str) or verified not in (True, "true"):
        return False
    return address.rpartition("@")[2].lower() in {domain.lower() for domain in domains}


def _claimed(claims: Mapping[str, Any], name: str) -> object:
    """A claim of that very name, or what a dotted path leads to."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _groups(told: object) -> set[str]:
    if isinstance(told, str):
        return {told}
    return {one for one in told if isinstance(one, str)} if isinstance(told, list) else set()


def _claim(error: Exception) -> str:
    """Which claim it was; its value is nobody's business."""
    return str(getattr(error, "claim", "") or "")
