"""The server: NiceGUI behind the gate, on this computer alone, until Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import socket
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from nicegui import ui

from hil.errors import OpenFailed
from hil.foreign import said
from hil.monitor import compare_page, frame, run_page
from hil.monitor.gate import ROLE, Gate, Keys, Role
from hil.monitor.overview import Overview
from hil.monitor.watching import Watching
from hil.run.index import Index

HOST = "127.0.0.1"
PATIENCE_S = 60.0  # for a page on a machine that is busy training


def listening(port: int) -> socket.socket:
    """Return a socket that listens at `port` of this computer, at a free one for 0.

    Raises:
        OpenFailed: the port is taken, or not for this account.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, port))
        made.listen(128)  # a browser that comes before the server is up waits, and is not refused
    except OSError as error:
        made.close()
        raise OpenFailed(
            f"cannot listen: {error.strerror}", where=f"hil monitor --port {port}", allowed="a port that nobody uses",
            outputs="untouched; nothing was opened", todo="leave --port out, and a free one is taken",
        ) from error  # fmt: skip
    return made


def serve(index: Index, port: int, read_only: bool, say: Callable[[Sequence[str]], None]) -> None:
    """Serve the pages until Ctrl-C.

    Args:
        index: of what is shown.
        port: to listen at; 0: a free one.
        read_only: nobody may change anything.
        say: is told the lines with the addresses, once the server listens.

    Raises:
        OpenFailed: the port is taken.
    """
    with listening(port) as place:
        port = place.getsockname()[1]
        keys = Keys(change="") if read_only else Keys()
        gate = Gate(_application(Watching(index)), keys, port)
        for name in ("nicegui", "uvicorn.error"):
            logging.getLogger(name).addFilter(brief)
        settings = uvicorn.Config(gate, log_level="warning", access_log=False, proxy_headers=False, server_header=False,
                                  date_header=False, timeout_graceful_shutdown=1)  # fmt: skip
        address = f"http://{HOST}:{port}/?key="
        lines = [f"monitor    {address}{keys.change}"] * bool(keys.change)
        lines += [f"read-only  {address}{keys.look}   (may look, and change nothing)", "           Ctrl-C ends it"]
        say(lines)
        with contextlib.suppress(KeyboardInterrupt), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # NiceGUI looks at every object there is, torch's old ones too
            uvicorn.Server(settings).run(sockets=[place])


def brief(record: logging.LogRecord) -> bool:
    """Cut a traceback down to the error that it ends with; leave out that a browser went away before its answer."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return True
    record.msg, record.args, record.exc_info = f"hil monitor: {type(error).__name__}: {said(error)}", (), None
    return str(error) != "No response returned."


def _application(watching: Watching) -> Any:
    """The pages, as an ASGI application."""
    frame.prepare()

    @ui.page("/", response_timeout=PATIENCE_S)
    async def overview(request: Request) -> None:
        await Overview(watching, _role(request)).build()

    @ui.page("/view/{name}", response_timeout=PATIENCE_S)
    async def run(request: Request, name: str) -> None:
        await run_page.build(watching, _role(request), name)

    @ui.page("/report/{name}", response_timeout=PATIENCE_S)
    async def report(request: Request, name: str) -> None:
        await run_page.build_report(watching, _role(request), name)

    @ui.page("/compare", response_timeout=PATIENCE_S)
    async def compare(request: Request, runs: str = "") -> None:
        await compare_page.build(watching, _role(request), runs)

    application = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    ui.run_with(
        application, title="hil monitor", dark=None, tailwind=False, language="en-US", show_welcome_message=False,
        binding_refresh_interval=None,
    )  # fmt: skip
    return application


def _role(request: Request) -> Role:
    role: Role = request.scope[ROLE]
    return role
