"""Exchanges per second with an NI-DAQmx card, over the gRPC mode of nidaqmx, and the fake card of the tests.

    python benchmarks/lab_packages.py          needs: pip install "hil[nidaqmx]"

An exchange is a buffer of about 1,000 samples on 7 outputs and 1 input. The card takes no time for it, so what is measured is
everything else: `bare` is seven calls of nidaqmx and nothing besides, `device` the Device, `hosted` the same in a host. Client
and card of the first two share this process: the rate per s of its processor says what a machine with nothing else to do gives.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
RATE_HZ, SECONDS, ROUNDS = 1e7, 1.0, 5


def main() -> None:
    from interop.fake_nidaqmx import HIGH, LOW, FakeCard, Served

    from drivers.nidaqmx import NIDAQmx
    from hil.host.charge import Limits, Recipe
    from hil.host.client import hosted

    card = FakeCard()
    with Served(card) as server:
        settings = {
            "outputs": ["cDAQ1/ao0:6"], "inputs": ["cDAQ1/ai0"], "low_v": tuple(LOW), "high_v": tuple(HIGH),
            "max_step_v": 0.1, "rate_hz": RATE_HZ, "settle_s": 10 / RATE_HZ, "average": 10, "grpc": server.address,
        }  # fmt: skip
        device = NIDAQmx(**settings)  # type: ignore[arg-type]
        x = device.spec.inputs.within(torch.rand(26, 7, generator=torch.Generator().manual_seed(0)))
        bare = bare_exchange(device)
        found: dict[str, list[float]] = {
            "bare": [], "device": [], "device, per s of processor": [], "device, one row": [], "hosted": [],
        }  # fmt: skip
        for _ in range(ROUNDS):
            device.safe()  # `bare` holds the outputs at 0
            found["bare"].append(rate(bare))
            found["device"].append(rate(lambda: device.forward(x)))
            found["device, per s of processor"].append(rate(lambda: device.forward(x), time.process_time))
            found["device, one row"].append(rate(lambda: device.forward(x[:1])))
        device.close()
        with hosted(Recipe("drivers.nidaqmx:NIDAQmx", settings), Limits(60, 60, 10)) as there:
            for _ in range(ROUNDS):
                found["hosted"].append(rate(lambda: there.forward(x)))
    for name, rates in found.items():
        ratio = median(rates) / median(found["bare"])
        print(f"{name:28} {median(rates):6.0f} exchanges/s ({min(rates):.0f} to {max(rates):.0f}), {ratio:.2f} of bare")
    print("the card noted:", card.noted or "nothing")


def bare_exchange(device: object) -> Callable[[], None]:
    """The calls of nidaqmx that an exchange cannot do without, on the tasks of `device`."""
    drive, read = device._tasks  # type: ignore[attr-defined]
    samples, taken = np.zeros((7, 988)), np.empty((1, 988))

    def exchange() -> None:
        if device._length != 988:  # type: ignore[attr-defined]
            device._set_up(988)  # type: ignore[attr-defined]
        device._writer.write_many_sample(samples)  # type: ignore[attr-defined]
        read.start()
        drive.start()
        device._reader.read_many_sample(taken, 988)  # type: ignore[attr-defined]
        drive.wait_until_done()
        drive.stop()
        read.stop()

    return exchange


def rate(exchange: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    exchange()
    begun, count = clock(), 0
    while (spent := clock() - begun) < SECONDS:
        exchange()
        count += 1
    return count / spent


if __name__ == "__main__":
    main()
