"""The control port, against a plant that is only a mapping."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from memory_box import MemoryBox

from hil.device import Restorable
from hil.errors import ConfigError, ContractError, Desync, Disconnected, LinkTimeout, OpenFailed, OutOfRange
from sim_devices.bench.control import ControlClient, ControlServer


@dataclass(frozen=True)
class Event:
    what: str


class MappingPlant:
    def __init__(self) -> None:
        self.values: dict[str, float] = {"node.phase_rad": 0.1, "node.noise": 1.0}

    def paths(self) -> tuple[str, ...]:
        return tuple(self.values)

    def get(self, path: str) -> float:
        if path not in self.values:
            raise ConfigError("no such path", where="plant", got=path, allowed=", ".join(self.values), todo="see the list")
        return self.values[path]

    def set(self, path: str, value: float) -> None:
        self.get(path)
        if math.isnan(value):
            raise OutOfRange("NaN", where="plant", got="nan")
        self.values[path] = value

    def snapshot(self) -> Mapping[str, object]:
        return dict(self.values)

    def restore(self, state: Mapping[str, object]) -> None:
        self.values = {path: float(str(value)) for path, value in state.items()}

    @property
    def log(self) -> tuple[Event, ...]:
        return (Event("on"),)


@pytest.fixture
def box() -> MemoryBox:
    return MemoryBox(level_v=0.25)


@pytest.fixture
def server(box: MemoryBox) -> Iterator[ControlServer]:
    server = ControlServer(MappingPlant(), {"awg": box})
    server.start()
    yield server
    server.close()


@pytest.fixture
def client(server: ControlServer) -> Iterator[ControlClient]:
    with ControlClient(*server.address) as client:
        yield client


@pytest.mark.parametrize("value", [0.1 + 0.2, -math.pi, 5e-324, 1e300, math.inf, 3, True])
def test_set_and_get_exactly(client: ControlClient, value: float) -> None:
    assert client.paths() == ["node.phase_rad", "node.noise"]
    client.set("node.noise", value)
    assert client.get("node.noise") == value


@pytest.mark.parametrize("value", ["1", None, [1.0]])
def test_only_numbers_are_set(client: ControlClient, value: object) -> None:
    with pytest.raises(ConfigError, match="not a number"):
        client.set("node.noise", value)  # type: ignore[arg-type]
    assert client.get("node.noise") == 1.0


def test_snapshot_holds_plant_and_boxes_and_restores_both(client: ControlClient, box: MemoryBox) -> None:
    assert isinstance(client, Restorable)
    box.held = b"\x00\n\xff"
    state = json.loads(json.dumps(client.snapshot()))
    box.held = b""
    client.set("node.phase_rad", 2.0)
    client.restore(state)
    assert client.get("node.phase_rad") == 0.1
    assert box.held == b"\x00\n\xff"


def test_plant_alone(client: ControlClient, box: MemoryBox) -> None:
    state = client.snapshot(boxes=False)
    assert state == {"plant": {"node.phase_rad": 0.1, "node.noise": 1.0}}
    box.held = b"kept"
    client.set("node.phase_rad", 2.0)
    client.restore(state)
    assert (client.get("node.phase_rad"), box.held) == (0.1, b"kept")


def test_snapshot_of_another_bench_is_refused_and_changes_nothing(client: ControlClient) -> None:
    with pytest.raises(ContractError, match="another bench"):
        client.restore({"plant": {"node.phase_rad": 9.0}, "boxes": {"scope": {}}})
    with pytest.raises(ContractError):
        client.restore({"plant": 3})
    for other in ({}, {"node.phase_rad": 9.0}):
        with pytest.raises(ContractError, match="another bench"):
            client.restore(other)
    assert client.get("node.phase_rad") == 0.1


def test_log_and_outputs(client: ControlClient) -> None:
    assert client.log() == [{"what": "on"}]
    assert client.outputs() == {"awg": {"1": {"on": True, "level_v": 0.25}}}


def test_reboot(client: ControlClient, box: MemoryBox) -> None:
    box.held = b"x"
    client.reboot("awg")
    assert box.held == b""
    with pytest.raises(ConfigError, match="no such box"):
        client.reboot("scope")


def test_stop(client: ControlClient, server: ControlServer) -> None:
    assert not server.stopped.is_set()
    client.stop()
    assert server.stopped.is_set()


def test_error_comes_back_whole_and_the_session_goes_on(client: ControlClient) -> None:
    with pytest.raises(ConfigError) as caught:
        client.get("node.fase")
    error = caught.value
    assert (error.where, error.got, error.allowed) == ("plant", "node.fase", "node.phase_rad, node.noise")
    assert error.todo == "see the list"
    with pytest.raises(OutOfRange):
        client.set("node.noise", math.nan)
    assert client.get("node.noise") == 1.0


@pytest.mark.parametrize(
    "line", [b"*IDN?\n", b"[1]\n", b'{"id":1}\n', b'{"id":1,"do":"explode"}\n', b'{"do":"get","path":3}\n']
)
def test_wrong_request_is_answered_not_dropped(server: ControlServer, line: bytes) -> None:
    with socket.create_connection(server.address, timeout=3) as raw, raw.makefile("rb") as lines:
        raw.sendall(line + b'{"id":2,"do":"get","path":"node.noise"}\n')
        assert "error" in json.loads(lines.readline())
        assert json.loads(lines.readline()) == {"id": 2, "ok": 1.0}


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OpenFailed, match="nobody answers"):
        ControlClient("127.0.0.1", port)


def test_server_gone(client: ControlClient, server: ControlServer) -> None:
    client.get("node.noise")
    server.close()
    with pytest.raises(Disconnected):
        client.get("node.noise")
    with pytest.raises(Disconnected, match="closed or lost"):
        client.get("node.noise")


def answering(*replies: bytes) -> tuple[ControlClient, socket.socket]:
    """A client of a server that answers `replies` whatever it is asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = ControlClient("127.0.0.1", listener.getsockname()[1], timeout_s=0.2)
    other, _ = listener.accept()
    listener.close()
    for reply in replies:
        other.sendall(reply)
    return client, other


@pytest.mark.parametrize("reply", [b'{"id": 0, "ok": 1}\n', b"Keysight,33622A\n", b"[]\n"])
def test_answer_to_something_else_is_never_taken(reply: bytes) -> None:
    client, other = answering(reply)
    with pytest.raises(Desync):
        client.get("node.noise")
    with pytest.raises(Disconnected):
        client.get("node.noise")
    other.close()


def test_silence_is_a_timeout_and_a_late_answer_is_lost() -> None:
    client, other = answering()
    with pytest.raises(LinkTimeout):
        client.get("node.noise")
    with pytest.raises(Disconnected):
        client.get("node.noise")
    other.close()


def test_half_an_answer_is_a_disconnect() -> None:
    client, other = answering(b'{"id": 1, "o')
    other.shutdown(socket.SHUT_WR)
    with pytest.raises(Disconnected):
        client.get("node.noise")
    other.close()


def test_many_threads_on_one_client(client: ControlClient) -> None:
    wrong: list[object] = []

    def ask(path: str, expected: float) -> None:
        wrong.extend(got for _ in range(100) if (got := client.get(path)) != expected)

    threads = [threading.Thread(target=ask, args=job) for job in [("node.noise", 1.0), ("node.phase_rad", 0.1)] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
