"""Trainers that a test kills or stops: each drives a host, pauses, prints "on" with its name and pid, and goes on driving.

python trainer.py JSON     {name: {"log", "silence_s", "deadline_s", "patience_s"}}
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

from hil.errors import HilError
from hil.host.charge import Limits, Recipe
from hil.host.client import hosted


def work(name: str, log: str, silence_s: float, deadline_s: float, patience_s: float) -> None:
    limits = Limits(silence_s, deadline_s, patience_s)
    with hosted(Recipe("rig:Rig", {"log": log}), limits, log=Path(f"{log}.jsonl")) as device:
        device.forward(torch.ones(1, 2))
        for _ in range(20):  # longer than silence_s, without the device
            time.sleep(silence_s / 15)
            device.beat()
        print("on", name, os.getpid(), flush=True)
        try:
            while True:
                device.forward(torch.ones(1, 2))
                time.sleep(0.02)
        except HilError as error:
            print(type(error).__name__, error.what, flush=True)


def main() -> None:
    children = []
    for name, asked in json.loads(sys.argv[1]).items():  # torch is imported once for all
        child = os.fork()
        if not child:
            try:
                work(name, **asked)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
