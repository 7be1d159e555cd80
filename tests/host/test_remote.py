"""hil host: a device for a trainer elsewhere, with keys at both ends, one trainer after the other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from hil.commands.host import recipe_of, settings_of
from hil.errors import ConfigError, Disconnected, HilError, OpenFailed
from hil.host.client import connected
from hil.host.keys import make_keys
from hil.host.server import check_listen

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ONE = torch.ones(1, 2)


def whats(log: Path) -> list[str]:
    return [line.split(" ", 2)[2] for line in log.read_text(encoding="utf-8").splitlines()]


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[tuple[str, Path]]:
    """Address of a host with keys, and the log of its rig; ended by Ctrl-C."""
    log = tmp_path_factory.mktemp("rig") / "rig.log"
    words = ["host", "rig:Rig", "--set", f"log={log}", "--keys", str(keys), "--listen", "127.0.0.1:0"]
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "hil", *words], stdout=subprocess.PIPE, text=True, cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout is not None
    found = re.search(r"at (127\.0\.0\.1:\d+)", child.stdout.readline())
    assert found is not None
    yield found[1], log
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 0
    assert whats(log)[-2:] == ["safe", "closed"]


def test_both_ends_show_their_keys(served: tuple[str, Path], keys: Path, tmp_path: Path) -> None:
    address, log = served
    with connected(address, keys) as device:
        assert torch.equal(device.forward(ONE), 2 * ONE)
        assert device.verify()
    assert whats(log)[-1] == "safe"
    strange = tmp_path / "strange"
    make_keys(strange)
    for other in (strange, None):  # another authority; plain text
        with pytest.raises(OpenFailed), connected(address, other):
            pass
    assert "on" not in whats(log)[-1]


def test_a_trainer_without_a_certificate_is_refused(served: tuple[str, Path], keys: Path) -> None:
    import grpc

    from hil.host import device_pb2 as pb
    from hil.host.keys import NAME
    from hil.host.wire import Stub

    shown = grpc.ssl_channel_credentials((keys / "ca.crt").read_bytes())
    with grpc.secure_channel(served[0], shown, (("grpc.ssl_target_name_override", NAME),)) as channel:
        with pytest.raises(grpc.RpcError) as found:
            Stub(channel)["Describe"](pb.Call(token="mine", number=1), timeout=5)
        assert found.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_connection_that_ends_makes_safe_and_can_be_taken_up_again(served: tuple[str, Path], keys: Path) -> None:
    address, log = served
    with connected(address, keys) as device:
        device.forward(ONE)
        before = len(whats(log))
        device._host.channel.close()  # as if the cable were pulled
        until(lambda: whats(log)[before:] == ["safe"])
        with pytest.raises(Disconnected):
            device.forward(ONE)
        device.reopen()
        device.reinstate()
        assert torch.equal(device.forward(ONE), 2 * ONE)


def test_plain_text_is_for_this_computer_alone() -> None:
    for listen in ("0.0.0.0:5510", "192.0.2.1:0", "lab-pc:5510", "[::]:0"):
        with pytest.raises(ConfigError, match="other computers"):
            check_listen(listen, None)
    for listen in ("127.0.0.1:0", "localhost:5510", "[::1]:0"):
        check_listen(listen, None)
    with pytest.raises(ConfigError, match="no address"):
        check_listen("5510", None)


def test_keys_are_made_once_and_for_their_owner_alone(keys: Path) -> None:
    assert sorted(file.name for file in keys.iterdir()) == ["ca.crt", "host.crt", "host.key", "trainer.crt", "trainer.key"]
    assert all(file.stat().st_mode & 0o077 == 0 for file in keys.iterdir())
    with pytest.raises(ConfigError, match="has keys"):
        make_keys(keys)


def test_what_hil_host_is_given(tmp_path: Path) -> None:
    assert settings_of(["port=3", "name=USB0", 'list=["a"]']) == {"port": 3, "name": "USB0", "list": ["a"]}
    assert recipe_of("my_lab:Rig", {"port": 3}).use == "my_lab:Rig"
    (tmp_path / "bench.toml").write_text("", encoding="utf-8")
    assert recipe_of(str(tmp_path / "bench.toml"), {}).settings == {"path": str(tmp_path / "bench.toml")}
    for refused in (lambda: recipe_of("rig", {}), lambda: settings_of(["=3"]), lambda: recipe_of("none.toml", {})):
        with pytest.raises(HilError):
            refused()
