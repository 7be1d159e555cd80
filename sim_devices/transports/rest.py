"""The REST of a Moku: a simulated one at http://127.0.0.1:PORT/api, for an unmodified package moku.

GET, POST /api/GROUP/OPERATION     parameters as JSON   ->  {"success": true, "data": ..., "code": null, "messages": null}
Moku-Client-Key                    of the owner, in both directions
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hil.errors import ConfigError
from hil.files import loads
from sim_devices.instruments.moku_go import MokuError, MokuGo

KEY = "Moku-Client-Key"


class RestServer:
    """Serves a Moku on loopback. address: of it, "127.0.0.1:PORT"."""

    def __init__(self, box: MokuGo, port: int = 0) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(box))
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Take clients, in threads of its own."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Take no more clients."""
        self._server.shutdown()
        self._server.server_close()


def _handler(box: MokuGo) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None: ...

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts, key = self.path.removeprefix("/api/").split("/"), self.headers.get(KEY, "")
            platform = parts[:2] == ["moku", "platform"]
            group, operation = ("moku", "/".join(parts[1:])) if platform else ("/".join(parts[:-1]), parts[-1])
            said: dict[str, object] = {"success": True, "data": None, "code": None, "messages": None}
            try:
                given = loads(body.decode(), "request", ConfigError) if body.strip() else {}
                said["data"], key = box.request(key, group, operation, given or {})
            except MokuError as error:
                said |= {"success": False, "code": error.code, "messages": [str(error)]}
            except KeyError:
                self.send_error(404)
                return
            reply = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.send_header(KEY, key)
            self.end_headers()
            self.wfile.write(reply)

    return Handler
