"""Who is let in: keys, cookies, names and origins; without a browser and without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hil.monitor.gate import ROLE, Gate, Keys, cookie_of

PORT = 4711
HERE = f"127.0.0.1:{PORT}"
KEYS = Keys("the key of one who may change", "the key of one who may look")


class Inner:
    """An application that says who came."""

    def __init__(self) -> None:
        self.came: list[Any] = []
        self.headers: dict[bytes, bytes] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.came.append(scope.get(ROLE))
        self.headers = dict(scope.get("headers", ()))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"ALLOWALL")]})
            await send({"type": "http.response.body", "body": b"inside"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept"})


def ask(
    path: str = "/", query: str = "", kind: str = "http", cookie: str = "", keys: Keys = KEYS, **headers: str
) -> tuple[list[Any], Inner]:
    """Everything that is sent as an answer, and what the application behind saw."""
    given = {"host": HERE, **({"cookie": f"other=1; hil-{PORT}={cookie}"} if cookie else {}), **headers}
    scope = {
        "type": kind, "path": path, "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items() if value],
    }  # fmt: skip
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {}

    inner = Inner()
    asyncio.run(Gate(inner, keys, PORT)(scope, receive, send))
    return sent, inner


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("path", ["/", "/view/abc", "/_nicegui/3/static/nicegui.css", "/_nicegui_ws/socket.io"])
def test_nothing_is_answered_without_a_key(kind: str, path: str) -> None:
    for cookie in ("", "wrong", KEYS.change, cookie_of("wrong")):  # the key itself is no cookie
        sent, inner = ask(path, kind=kind, cookie=cookie)
        assert not inner.came
        assert sent[0].get("status", sent[0].get("code")) in (403, 1008)


@pytest.mark.parametrize(("key", "role"), [(KEYS.change, "change"), (KEYS.look, "look")])
def test_a_key_in_the_address_becomes_a_cookie_and_the_cookie_a_role(key: str, role: str) -> None:
    sent, inner = ask("/", f"key={key.replace(' ', '+')}")
    headers = dict(sent[0]["headers"])
    assert sent[0]["status"] == 200
    assert not inner.came, "the key itself opens nothing but the door"
    cookie = headers[b"set-cookie"].decode()
    assert key not in cookie
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Strict", "Path=/"))
    for kind in ("http", "websocket"):
        assert ask("/view/x", kind=kind, cookie=cookie_of(key))[1].came == [role]


def test_a_wrong_key_is_refused_even_beside_a_good_cookie() -> None:
    sent, inner = ask("/", "key=wrong", cookie=cookie_of(KEYS.change))
    assert sent[0]["status"] == 403
    assert not inner.came


def test_where_nobody_may_change_an_empty_key_opens_nothing() -> None:
    keys = Keys("", "look")
    assert ask("/", "key=", keys=keys)[1].came == []
    assert not ask("/", cookie=cookie_of(""), keys=keys)[1].came
    assert ask("/", cookie=cookie_of("look"), keys=keys)[1].came == ["look"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": f"evil.example:{PORT}"},
        {"host": "127.0.0.1:80"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"https://{HERE}"},
        {"origin": f"http://localhost:{PORT}"},  # another origin than that of the host
        {"origin": f"http://{HERE}.evil.example"},
    ],
    ids=str,
)
def test_other_hosts_and_origins_are_refused_even_with_a_cookie(kind: str, headers: dict[str, str]) -> None:
    sent, inner = ask("/", kind=kind, cookie=cookie_of(KEYS.change), **headers)
    assert not inner.came
    assert sent[0].get("status", sent[0].get("code")) in (403, 1008)


def test_its_own_names_are_let_through() -> None:
    for host in (HERE, f"localhost:{PORT}", f"LOCALHOST:{PORT}"):
        assert ask(cookie=cookie_of(KEYS.look), host=host, origin=f"http://{host.lower()}")[1].came == ["look"]


def test_every_answer_has_our_headers_and_no_header_of_a_proxy_comes_in() -> None:
    sent, inner = ask(cookie=cookie_of(KEYS.look), x_forwarded_prefix="//evil.example")
    names = [name.lower() for name, _ in sent[0]["headers"]]
    headers = dict(sent[0]["headers"])
    assert headers[b"x-frame-options"] == b"DENY"
    assert names.count(b"x-frame-options") == 1
    assert b"frame-ancestors 'none'" in headers[b"content-security-policy"]
    assert not any(name.startswith(b"x-forwarded") for name in inner.headers)
    assert b"frame-ancestors 'none'" in dict(ask()[0][0]["headers"])[b"content-security-policy"]


def test_two_monitors_have_different_keys() -> None:
    one, other = Keys(), Keys()
    assert len({one.change, one.look, other.change, other.look}) == 4
    assert min(map(len, (one.change, one.look))) >= 40
