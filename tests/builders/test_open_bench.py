"""Benches as files: who is opened, and what is left behind."""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from small import until

from hil.build.bench import open_bench
from hil.build.shapes.waveform import OnPlant, WaveformBench, description
from hil.config.bench import BenchFile, bench_of
from hil.errors import ConfigError, LinkTimeout
from sim_devices.bench.description import VirtualBench, assemble
from sim_devices.bench.served import ServedBench, spawn

BENCHES = Path(__file__).parents[2] / "benches"


def tables(name: str) -> dict[str, Any]:
    return tomllib.loads((BENCHES / name).read_text(encoding="utf-8"))


def described(table: dict[str, Any]) -> VirtualBench:
    bench = bench_of(table, Path("test"))
    assert isinstance(bench, WaveformBench)
    return description(bench)


@pytest.fixture(scope="module")
def served() -> Iterator[ServedBench]:
    with spawn(described(tables("mzm_awg_scope.toml"))) as bench:
        yield bench


def on_a_table(bench: ServedBench) -> BenchFile:
    """The same boxes, found by their addresses as real ones are."""
    real = tables("mzm_awg_scope.toml")
    del real["virtual"]
    for name in ("awg", "scope"):
        real["instruments"][name]["resource"] = bench.resources[name]
    return bench_of(real, Path("test"))


def test_leaving_switches_off_whatever_happened_and_though_nobody_closed_the_device(served: ServedBench) -> None:
    with suppress(KeyboardInterrupt), open_bench(on_a_table(served)):
        assert served.control.outputs()["awg"]["1"]["on"]  # type: ignore[index]
        raise KeyboardInterrupt
    assert not served.control.outputs()["awg"]["1"]["on"]  # type: ignore[index]


def test_faults_of_the_bench_file_are_scheduled_from_the_start(tmp_path: Path) -> None:
    bench = tables("mzm_awg_scope.toml")
    bench["virtual"] |= {
        "linger_s": 2.0,
        "log_path": str(tmp_path / "x.log"),
        "faults": [{"box": "scope", "kind": "flip", "rate": 0.001}],
    }
    found = described(bench)
    assert (found.linger_s, found.log_path) == (2.0, str(tmp_path / "x.log"))
    assert [(f["box"], f["kind"], f["rate"]) for f in assemble(found).faults.faults()] == [("scope", "flip", 0.001)]
    bench["virtual"]["faults"][0]["kind"] = "unplug"
    with pytest.raises(ConfigError, match="does not apply to a scope"):
        assemble(described(bench))


@pytest.mark.parametrize("table", [{"every": "2 V"}, {"every": "2 min"}, {"every": "-1 s"}, {"every": 1e9}])
def test_a_schedule_of_the_panels_that_makes_no_sense_is_refused_before_anything_is_opened(table: dict[str, Any]) -> None:
    for name in ("mzm_awg_scope.toml", "spiking_board.toml"):
        bench = bench_of({**tables(name), "panel": table}, Path("test"))
        with pytest.raises(ConfigError, match=r"\[panel\]"), open_bench(bench):
            raise AssertionError("it must not be opened")


@pytest.mark.parametrize("table", [{"policy": "maybe"}, {"lock": "perhaps"}, {"evry": "2 s"}])
def test_a_panel_table_is_checked_as_it_is_read(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="panel"):
        bench_of({**tables("mzm_awg_scope.toml"), "panel": table}, Path("test"))


def test_a_real_address_beside_virtual_tables_is_refused() -> None:
    both = tables("mzm_awg_scope.toml")
    both["instruments"]["awg"]["resource"] = "TCPIP::127.0.0.1::hislip0::INSTR"
    with pytest.raises(ConfigError, match="both a real and a virtual"), open_bench(bench_of(both, Path("test"))):
        pass
    board = tables("spiking_board.toml")
    board["instruments"]["board"]["resource"] = "/dev/ttyACM0"
    with pytest.raises(ConfigError, match="both a real and a virtual"), open_bench(bench_of(board, Path("test"))):
        pass


@pytest.mark.parametrize(("silence_s", "timeout_s"), [(13.0, 6.5), (16.0, 8.0), (60.0, 10.0)])
def test_a_virtual_bench_that_does_not_answer_is_not_waited_for_until_that_looks_like_a_hang(
    silence_s: float, timeout_s: float
) -> None:
    bench = {**tables("mzm_awg_scope.toml"), "guardian": {"silence_s": silence_s}}
    with open_bench(bench_of(bench, Path("test"))) as opened:
        assert isinstance(opened.device, OnPlant)
        assert opened.device.control.timeout_s == timeout_s
        assert opened.device.snapshot()
        if silence_s < 16:
            opened.device.control.timeout_s = 0.2
            os.kill(opened.device._served.pid, signal.SIGSTOP)
            status = Path(f"/proc/{opened.device._served.pid}/status")
            until(lambda: "State:\tT" in status.read_text(encoding="utf-8"))
            with pytest.raises(LinkTimeout, match=r"silence for 0\.2 s"):
                opened.device.snapshot()
            os.kill(opened.device._served.pid, signal.SIGCONT)
