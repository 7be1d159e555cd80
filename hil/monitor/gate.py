"""Who may open the page: an ASGI application before another one. It lets nothing through without a key and a host of its own.

    http://127.0.0.1:PORT/?key=KEY   ->  Set-Cookie: hil-PORT=sha256(KEY); HttpOnly; SameSite=Strict; Path=/   ->  /

Every request, the web socket's too, needs the cookie, a Host of this server (else another site could have its own name point
to this machine: DNS rebinding), and, where a browser says an Origin, the same one. There are two keys: of one who may
change, and of one who may look.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any, Literal
from urllib.parse import parse_qs

Role = Literal["change", "look"]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

ROLE = "hil.role"  # in the scope of a request that was let through
NO_KEY = "403: this page needs the link with its key, which hil monitor has printed in its terminal."
NO_HOST = "403: this name or origin is not that of the page; open the link that hil monitor has printed in its terminal."
POLICY = (  # Vue compiles templates ('unsafe-eval') and NiceGUI writes its start into the page ('unsafe-inline')
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; frame-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
FORWARDED = b"x-forwarded-"  # headers of a proxy, and there is none


@dataclass(frozen=True)
class Keys:
    """The two keys, random.

    Args:
        change: of who may change; "" where nobody may.
        look: of who may look.
    """

    change: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    look: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def role(self, key: str) -> Role | None:
        """Return what the holder of `key` may do, None for a wrong key."""
        return self._matching(key, lambda own: own)

    def role_of_cookie(self, cookie: str) -> Role | None:
        """Return what the holder of this cookie may do, None for a wrong one."""
        return self._matching(cookie, cookie_of)

    def _matching(self, given: str, made: Callable[[str], str]) -> Role | None:
        found: Role | None = None
        pairs: tuple[tuple[Role, str], ...] = (("look", self.look), ("change", self.change))
        for role, key in pairs:
            if key and hmac.compare_digest(given.encode(), made(key).encode()):
                found = role
        return found


def cookie_of(key: str) -> str:
    """Return the value of the cookie that stands for `key`."""
    return hashlib.sha256(key.encode()).hexdigest()


class Gate:
    """The application `app`, for whoever has a key.

    Args:
        app: that is guarded.
        keys: that open it.
        port: that the server listens at.
    """

    def __init__(self, app: Application, keys: Keys, port: int) -> None:
        self.app, self._keys, self._cookie = app, keys, f"hil-{port}"
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = [(name.lower(), value) for name, value in scope.get("headers", ())]
        if not self._local(headers):
            await _refused(scope, send, NO_HOST)
            return
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("key", [])
        if given and scope["type"] == "http" and scope["path"] == "/":
            role = self._keys.role(given[0])
            await (_refused(scope, send, NO_KEY) if role is None else self._admitted(send, given[0]))
            return
        role = self._keys.role_of_cookie(self._cookie_in(headers))
        if role is None:
            await _refused(scope, send, NO_KEY)
            return
        kept = [(name, value) for name, value in scope["headers"] if not name.lower().startswith(FORWARDED)]
        await self.app({**scope, "headers": kept, ROLE: role}, receive, _dressed(send))

    def _local(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return False
        return all(origin == f"http://{hosts[0]}" for origin in origins)

    def _cookie_in(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        for name, value in headers:
            if name == b"cookie":
                try:
                    found = SimpleCookie(value.decode("latin-1")).get(self._cookie)
                except CookieError:
                    continue
                if found is not None:
                    return found.value
        return ""

    async def _admitted(self, send: Send, key: str) -> None:
        """Set the cookie by a page that goes on by itself: after a redirect from another site a strict cookie is not sent."""
        cookie = f"{self._cookie}={cookie_of(key)}; HttpOnly; SameSite=Strict; Path=/"
        text = '<!doctype html><html lang="en"><title>hil monitor</title><meta http-equiv="refresh" content="0;url=/">'
        await _answer(send, 200, f'{text}<p><a href="/">Open the monitor</a></p></html>', b"text/html", cookie)


async def _refused(scope: Scope, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before it was accepted: the answer is 403
    else:
        await _answer(send, 403, why + "\n", b"text/plain")


async def _answer(send: Send, status: int, text: str, kind: bytes, cookie: str = "") -> None:
    headers = [(b"content-type", kind + b"; charset=utf-8"), (b"cache-control", b"no-store"), *HEADERS]
    headers += [(b"set-cookie", cookie.encode())] * bool(cookie)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def _dressed(send: Send) -> Send:
    """Return `send`, with the headers of every answer."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = {name for name, _ in HEADERS}
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in ours]
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return sent
