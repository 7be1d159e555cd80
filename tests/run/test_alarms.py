"""Alarms: run without a shell, told everything, rate-limited, and neither blocking nor ending anything."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from hil.errors import ConfigError
from hil.run.alarms import Alarms, AlarmSettings, argv_of

SAYS = """
import json, os, sys
with open(sys.argv[1], "a") as file:
    file.write(json.dumps({"stdin": json.load(sys.stdin), **{k: v for k, v in os.environ.items() if k[:4] == "HIL_"}}) + "\\n")
"""


class Notes(list[dict[str, object]]):
    def __call__(self, kind: str, **facts: object) -> None:
        self.append({"kind": kind, **facts})


def settings(*argv: object, every_s: float = 60.0, timeout_s: float = 10.0, stalled_s: float = 600.0) -> AlarmSettings:
    on = ("fault", "recovered", "end", "stalled")
    return AlarmSettings(tuple(str(a) for a in argv), on, timeout_s=timeout_s, every_s=every_s, stalled_s=stalled_s)


def test_a_command_is_told_everything(tmp_path: Path) -> None:
    notes = Notes()
    with Alarms(settings(sys.executable, "-c", SAYS, tmp_path / "x; touch y"), "runs/x", notes) as alarms:
        alarms.tell("fault", "the scope's cable; $(rm -rf /)")
        alarms.tell("unsafe", "nobody asked for this kind")
    (line,) = (tmp_path / "x; touch y").read_text(encoding="utf-8").splitlines()
    told = json.loads(line)
    assert told["HIL_EVENT"] == told["stdin"]["event"] == "fault"
    assert told["HIL_RUN"] == told["stdin"]["run"] == "runs/x"
    assert told["HIL_MESSAGE"] == told["stdin"]["message"] == "the scope's cable; $(rm -rf /)"
    assert notes == []


def test_one_kind_is_not_told_too_often(tmp_path: Path) -> None:
    now = [0.0]
    made = settings(sys.executable, "-c", SAYS, tmp_path / "x", every_s=30.0)
    with Alarms(made, "r", Notes(), clock=lambda: now[0]) as alarms:
        for second in range(65):
            now[0] = float(second)
            alarms.tell("recovered", str(second))
        alarms.tell("end", "another kind is told at once")
    told = [json.loads(line)["stdin"] for line in (tmp_path / "x").read_text(encoding="utf-8").splitlines()]
    assert [(t["message"], t["left_out"]) for t in told[:3]] == [("0", 0), ("30", 29), ("60", 29)]
    assert told[3]["event"] == "end"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((sys.executable, "-c", "import sys; print('no bell', file=sys.stderr); sys.exit(3)"), "exit status 3: no bell"),
        (("/nonexistent/bell",), "No such file"),
        ((sys.executable, "-c", "import time; time.sleep(60)"), "longer than 0.3 s"),
        # a grandchild that outlives the command and holds its output
        (("sh", "-c", "sleep 30 & exit 1"), "exit status 1"),
    ],
)
def test_a_failing_alarm_is_noted_and_nothing_else(argv: tuple[str, ...], said: str) -> None:
    notes = Notes()
    begin = time.monotonic()
    with Alarms(settings(*argv, timeout_s=0.3 if "longer" in said else 10.0), "r", notes) as alarms:
        alarms.tell("fault", "x")
        assert time.monotonic() - begin < 5.0
    assert time.monotonic() - begin < 25.0
    (note,) = notes
    assert note["kind"] == "alarm"
    assert said in str(note["message"])


def test_stalled_is_told_once_until_it_goes_on(tmp_path: Path) -> None:
    notes, step = Notes(), [0]
    with Alarms(settings(stalled_s=0.1), "r", notes) as alarms:
        alarms.watch(lambda: step[0])
        time.sleep(0.5)
        step[0] = 1
        time.sleep(0.5)
    assert [note["kind"] for note in notes] == ["stalled", "stalled"]


def test_commands() -> None:
    assert argv_of(None, "") == ()
    assert argv_of("sh -c 'a b'", "") == ("sh", "-c", "a b")
    assert argv_of(["sh", "a b"], "") == ("sh", "a b")
    for wrong in ("sh 'a", "", [], "no-such-program-here x", ["sh", "a\0b"]):
        with pytest.raises(ConfigError, match=r"\[alarm\]|no such program|not a command"):
            argv_of(wrong, "e.toml: [alarm] command")
    assert os.environ.get("HIL_EVENT") is None
