"""How fast a 1 MB block comes in: our link, stock PyVISA-py, and a bare socket, side by side.

    python benchmarks/link.py [--quick]

A server process answers over a raw SOCKET with float32 blocks of random numbers (0x0A is about one byte in 256, as in real
data). Every round reads by each way in turn, so that a busy machine slows all of them alike; a figure is the median over
rounds, a ratio the median of the rounds' ratios. The last line is one JSON object:

    read_1mb_vs_stock    throughput of VisaLink.read_block over stock query_binary_values into a numpy array, its faster way
    read_1mb_vs_raw      throughput of VisaLink.read_block over recv_into on a bare socket, buffer allocated per block as well
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import socket
import statistics
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.connection import Connection

import numpy as np
import pyvisa
from pyvisa.resources import MessageBasedResource

from drivers.links.visa_link import VisaLink

SIZE_BYTES = 1 << 20
FAST_REPEATS = 40
SMALL_REPEATS = 300


def serve(report: Connection) -> None:
    """A question a line; a thread a client."""
    payload = np.random.default_rng(0).standard_normal(SIZE_BYTES // 4).astype("<f4").tobytes()
    digits = str(len(payload)).encode()
    reply = b"#%d%s%s\n" % (len(digits), digits, payload)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        report.send(listener.getsockname()[1])
        while True:
            client, _ = listener.accept()
            threading.Thread(target=answer, args=(client, reply), daemon=True).start()


def answer(client: socket.socket, reply: bytes) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client:
        while question := client.recv(4096):
            client.sendall(reply if question == b"CURVE?\n" else b"Hil,Benchmark,1,1\n")


def seconds_each(read: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        read()
    return (time.perf_counter() - start) / repeats


def raw_reader(sock: socket.socket) -> Callable[[], None]:
    size = 2 + len(str(SIZE_BYTES)) + SIZE_BYTES + 1

    def read() -> None:
        sock.sendall(b"CURVE?\n")
        view = memoryview(bytearray(size))
        got = 0
        while got < size:
            got += sock.recv_into(view[got:])

    return read


def link_reader(link: VisaLink) -> Callable[[], None]:
    def read() -> None:
        link.write(b"CURVE?")
        assert len(link.read_block(4, SIZE_BYTES)) == SIZE_BYTES

    return read


def stock_reader(resource: MessageBasedResource, container: type) -> Callable[[], None]:
    def read() -> None:
        values = resource.query_binary_values("CURVE?", datatype="f", container=container)
        assert len(values) == SIZE_BYTES // 4

    return read


def link_query(link: VisaLink) -> Callable[[], None]:
    def read() -> None:
        link.write(b"*IDN?")
        link.read_text()

    return read


def raw_query(sock: socket.socket) -> Callable[[], None]:
    def read() -> None:
        sock.sendall(b"*IDN?\n")
        sock.recv(4096)

    return read


def measure(port: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per block or question, by way, a value per round."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    resource = f"TCPIP::127.0.0.1::{port}::SOCKET"
    link = VisaLink(resource, timeout_s=20.0, backend="@py")
    stock = pyvisa.ResourceManager("@py").open_resource(resource, read_termination="\n", write_termination="\n", timeout=20_000)
    assert isinstance(stock, MessageBasedResource)
    ways: dict[str, tuple[Callable[[], None], int]] = {
        "raw": (raw_reader(sock), FAST_REPEATS),
        "link": (link_reader(link), FAST_REPEATS),
        "stock, numpy": (stock_reader(stock, np.ndarray), 1),
        "stock, list": (stock_reader(stock, list), 1),
        "raw question": (raw_query(sock), SMALL_REPEATS),
        "link question": (link_query(link), SMALL_REPEATS),
        "stock question": (lambda: stock.query("*IDN?") and None, SMALL_REPEATS),
    }
    for read, _ in ways.values():
        read()  # warm-up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (read, repeats) in ways.items():
            seconds[name].append(seconds_each(read, repeats))
    for each in (sock, link, stock):
        each.close()
    return seconds


def ratio(seconds: dict[str, list[float]], slower: str, faster: str) -> float:
    return statistics.median(a / b for a, b in zip(seconds[slower], seconds[faster], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="7 rounds instead of 41")
    rounds = 7 if parser.parse_args().quick else 41
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        seconds = measure(ours.recv(), rounds)
    finally:
        server.terminate()
        server.join()
    print(f"1 MB float32 block over raw SOCKET, medians of {rounds} rounds; {os.cpu_count()} cores, {platform.platform()}")
    for name in ("raw", "link", "stock, numpy", "stock, list"):
        print(f"  {name:14s} {SIZE_BYTES / 1e6 / statistics.median(seconds[name]):8.1f} MB/s")
    for name in ("raw question", "link question", "stock question"):
        print(f"  {name:14s} {1e6 * statistics.median(seconds[name]):8.1f} us")
    figures = {
        "read_1mb_vs_stock": round(ratio(seconds, "stock, numpy", "link"), 2),
        "read_1mb_vs_stock_list": round(ratio(seconds, "stock, list", "link"), 2),
        "read_1mb_vs_raw": round(ratio(seconds, "raw", "link"), 3),
        "question_vs_raw": round(ratio(seconds, "raw question", "link question"), 3),
        "rounds": rounds,
        "versions": {name: version(name) for name in ("pyvisa", "pyvisa-py", "numpy")} | {"python": platform.python_version()},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
