"""An identity provider on 127.0.0.1 that can be made to lie: ``with Idp() as idp: …``.

It checks what a client must send (RFC 6749, RFC 7636) and then says of a person what a test wants to hear:

    idp.claims["groups"] = ["ops"]
    idp.twist = lambda header, claims: claims.update(aud="somebody-else")   # before it signs
    idp.sign = lambda header, claims: …                                    # instead of signing
    idp.failing["/token"] = 500                                            # from now on
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

CLIENT, SECRET = "mailvane", "a secret between two: 50%"
Claims = dict[str, Any]

KEYS = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}
OTHERS = RSAKey.generate_key(2048, {"kid": "rsa"})  # another's, who calls it as ours is called


@dataclass
class _Code:
    """What was asked for when a code was given."""

    redirect: str
    challenge: str
    nonce: str


@dataclass
class Idp:
    """``asked``: method and path of each request. ``about`` is what it says of itself beyond the usual."""

    port: int = 0
    alg: str = "RS256"
    claims: Claims = field(default_factory=lambda: {"sub": "u-1", "preferred_username": "Anna", "groups": ["ops"]})
    userinfo: Claims = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    twist: Callable[[Claims, Claims], object] = lambda _header, _claims: None
    sign: Callable[[Claims, Claims], str] | None = None
    answer: dict[str, str] = field(default_factory=dict)  # more that comes back with the code, or in its place
    failing: dict[str, int] = field(default_factory=dict)
    published: list[Any] = field(default_factory=lambda: [{"kty": "AKP", "kid": "new"}, *map(_public, KEYS.values())])
    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # what a client did that it must not

    def __post_init__(self) -> None:
        self._codes: dict[str, _Code] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/realm"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def authorized(self, query: dict[str, str]) -> str:
        """Where the browser is sent back to; the person is asked nothing."""
        wanted = {"response_type": "code", "client_id": CLIENT, "code_challenge_method": "S256"}
        if any(query.get(name) != value for name, value in wanted.items()) or "openid" not in query["scope"].split():
            self.refused.append(f"authorize {query}")
        code = secrets.token_urlsafe()
        self._codes[code] = _Code(query["redirect_uri"], query["code_challenge"], query["nonce"])
        back = {"code": code, "state": query["state"], **self.answer}
        return query["redirect_uri"] + "?" + urlencode({name: value for name, value in back.items() if value})

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, Any]:
        """What a code is worth."""
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if authorization != f"Basic {basic}":
            return self._refuse("invalid_client", 401)
        code = self._codes.pop(form.get("code", ""), None)
        verifier = _b64(sha256(form.get("code_verifier", "").encode()).digest())
        if code is None or form.get("redirect_uri") != code.redirect or verifier != code.challenge:
            return self._refuse("invalid_grant", 400)
        return 200, {"access_token": "an-access-token", "token_type": "Bearer", "id_token": self.signed(code.nonce)}

    def signed(self, nonce: str) -> str:
        """An id_token."""
        now = int(time.time())
        header: Claims = {"alg": self.alg, "kid": KEYS[self.alg].kid}
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce, **self.claims}
        self.twist(header, claims)
        if self.sign:
            return self.sign(header, claims)
        with warnings.catch_warnings(action="ignore"):  # EdDSA is to be called Ed25519 (RFC 9864), and still is not
            return jwt.encode(header, claims, KEYS[self.alg], algorithms=[self.alg])

    def described(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0."""
        told = {"issuer": self.issuer, "response_types_supported": ["code"], "subject_types_supported": ["public"]}
        places = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
        told |= {name: self.issuer + path for name, path in places.items()}
        return {**told, "userinfo_endpoint": self.issuer + "/userinfo", **self.about}

    def _refuse(self, error: str, status: int) -> tuple[int, Any]:
        self.refused.append(error)
        return status, {"error": error}


def _public(key: Any) -> Any:
    return key.as_dict(private=False)


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def raw_token(header: Claims, claims: Claims, signature: bytes = b"") -> str:
    """A token with whatever signature."""
    head, body = (_b64(json.dumps(part).encode()) for part in (header, claims))
    return f"{head}.{body}.{_b64(signature)}"


def _handler(idp: Idp) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"idp": idp})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    idp: Idp

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = url.path.removeprefix("/realm")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self._fails("GET", path):
            return
        if path == "/authorize":
            self._answer(302, b"", {"Location": self.idp.authorized(query)})
        elif path == "/userinfo":
            fine = self.headers["Authorization"] == "Bearer an-access-token"
            self._json(200 if fine else 401, {"sub": self.idp.claims["sub"], **self.idp.userinfo})
        else:
            told = {"/.well-known/openid-configuration": self.idp.described(), "/keys": {"keys": self.idp.published}}
            self._json(200 if path in told else 404, told.get(path, {}))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        path = urlsplit(self.path).path.removeprefix("/realm")
        if not self._fails("POST", path):
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._json(*self.idp.token(form, self.headers["Authorization"] or ""))

    def _fails(self, method: str, path: str) -> bool:
        self.idp.asked.append(f"{method} {path}")
        status = self.idp.failing.get(path) or self.idp.failing.get("*")
        if status:
            self._json(status, {"error": "temporarily_unavailable"})
        return status is not None

    def _json(self, status: int, told: Any) -> None:
        self._answer(status, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
