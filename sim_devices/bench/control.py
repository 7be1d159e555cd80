"""The control port of a virtual bench: set and read what no instrument port would show.

A line of JSON each way, newline-delimited, over TCP on the loopback interface:

    {"id": 7, "do": "set", "path": "node.phase_rad", "value": 0.5}   ->   {"id": 7, "ok": null}
    {"id": 8, "do": "get", "path": "nod"}   ->   {"id": 8, "error": {"kind": "ConfigError", "what": ..., "allowed": ...}}

    do           with          answers
    paths                      all that get and set know
    get          path          a parameter of the plant, a number
    set          path value
    snapshot     boxes         the state of the plant, and of the boxes too unless "boxes" is false: restoring it makes the
                               bench go on with the same numbers
    restore      state         what a snapshot gave; what it leaves out stays as it is
    log                        outputs that went on or off, oldest first
    outputs                    for each box: its output channels, on or off, and their level in V
    extremes                   for each box and output: the lowest and the highest V that ever reached its connector
    reboot       box           power off and on
    press        box command   what `command` does, done by a hand at the front panel; its answer. Refused where it is locked
    fault        box kind ...  schedule a fault, see sim_devices/instruments/faults.py; its id
    faults                     {"faults": what is scheduled and how often it was injected, "log": every injection}
    heal         fault         take back the fault of this id, or all without it; how many
    stop                       end the bench

It is never the port of an instrument: a client that speaks SCPI cannot reach the plant by accident.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from hil.errors import ConfigError, ContractError, Desync, Disconnected, HilError, LinkTimeout, OpenFailed, Refused
from hil.snapshot import packed, unpacked
from sim_devices.instruments.faults import FaultSchedule
from sim_devices.instruments.program_message import ScpiError
from sim_devices.transports.listener import Listener

A = TypeVar("A")
FACTS = ("what", "where", "got", "allowed", "outputs", "todo")
LINE_CAP = 1 << 28  # bytes
DAMAGE = (ScpiError, LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError, RuntimeError)
"""What taking over a snapshot may end in that some other program wrote."""


class Adjustable(Protocol):
    """The side of a plant that the control port shows."""

    def paths(self) -> Sequence[str]:
        """Name all parameters that `get` and `set` know, as "node.v_pi_v"."""

    def get(self, path: str) -> float:
        """Return the value of a parameter, in SI units."""

    def set(self, path: str, value: float) -> None:
        """Set a parameter, in SI units, while the bench runs."""

    def snapshot(self) -> Mapping[str, object]:
        """Return the whole state; see hil.device.Restorable."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot."""

    @property
    def log(self) -> Sequence[Any]:
        """Dataclasses, oldest first."""

    def extremes(self) -> Mapping[str, object]:
        """Return by the name of the box itself, for each output, the lowest and highest volts that it gave."""


class Controlled(Protocol):
    """The side of a simulated instrument that the control port shows."""

    @property
    def name(self) -> str:
        """Model and serial number."""

    def reboot(self) -> None:
        """Lose power for a moment: settings and volatile memory as at power-on."""

    def snapshot(self) -> dict[str, object]:
        """Return settings, memories and status as JSON values."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Return to the state of a snapshot."""

    def outputs(self) -> dict[str, object]:
        """Return for each output channel whether it is on, and its limits in V."""


@runtime_checkable
class Touchable(Protocol):
    """A simulated instrument with a front panel."""

    def press(self, command: str) -> str:
        """Raises: ContractError: it is locked. ConfigError: the box does not do that."""


@runtime_checkable
class Reaching(Protocol):
    """A simulated instrument that keeps the extremes of its outputs itself."""

    def reached(self) -> Mapping[str, object]:
        """Return by channel the lowest and highest level while it was on, in its unit."""


@runtime_checkable
class Feeding(Protocol):
    """A simulated instrument whose outputs set parameters of the plant."""

    def tell(self) -> None:
        """Set them again, by what stands at its terminals now."""


class ControlServer:
    """Serves the control channel of a bench: turn its physics, save and restore it, inject faults, look at its outputs.

    Args:
        plant: physics and wires.
        boxes: the simulated instruments by their name on the bench.
        faults: of them.
    """

    def __init__(
        self,
        plant: Adjustable,
        boxes: Mapping[str, Controlled],
        host: str = "127.0.0.1",
        port: int = 0,
        faults: FaultSchedule | None = None,
    ) -> None:
        self._plant, self._boxes, self._faults = plant, dict(boxes), faults or FaultSchedule({})
        self._listener = Listener(self._serve, host, port, "control port")
        self.stopped = threading.Event()  # set by a client that asks the bench to end
        self._answers: dict[str, Callable[[Mapping[str, object]], object]] = {
            "paths": lambda asked: list(plant.paths()),
            "get": lambda asked: plant.get(_text(asked, "path")),
            "set": lambda asked: plant.set(_text(asked, "path"), _number(asked, "value")),
            "snapshot": lambda asked: self.snapshot(asked.get("boxes") is not False),
            "restore": lambda asked: self.restore(_mapping(asked.get("state"))),
            "log": lambda asked: [asdict(entry) for entry in plant.log],
            "outputs": lambda asked: self.outputs(),
            "extremes": lambda asked: self.extremes(),
            "reboot": lambda asked: self._box(_text(asked, "box")).reboot(),
            "press": lambda asked: self._press(_text(asked, "box"), _text(asked, "command")),
            "fault": lambda asked: self._faults.add({k: v for k, v in asked.items() if k not in ("id", "do")}),
            "faults": lambda asked: {"faults": self._faults.faults(), "log": self._faults.log()},
            "heal": lambda asked: self._faults.heal(_text(asked, "fault") if "fault" in asked else None),
            "stop": lambda asked: self.stopped.set(),
        }

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens at."""
        return self._listener.host, self._listener.port

    def start(self) -> None:
        """Take clients, in threads of its own."""
        self._listener.start()

    def close(self) -> None:
        """Drop every client. May be called twice."""
        self._listener.close()

    def snapshot(self, boxes: bool = True) -> dict[str, object]:
        """Return the state of the plant and, with `boxes`, of every instrument, as JSON values."""
        state: dict[str, object] = {"plant": packed(self._plant.snapshot())}
        if boxes:
            state["boxes"] = {name: box.snapshot() for name, box in self._boxes.items()}
        return state

    def restore(self, state: Mapping[str, object]) -> None:
        """Raises: ContractError: a snapshot of another bench; nothing was changed."""
        boxes = _mapping(state.get("boxes", dict.fromkeys(self._boxes)))
        if not state or not set(state) <= {"plant", "boxes"} or set(boxes) != set(self._boxes):
            raise ContractError(
                "a snapshot of another bench", where="control port", got=f"{sorted(state)}, boxes {sorted(boxes)}",
                allowed=f"plant, boxes {sorted(self._boxes)}",
            )  # fmt: skip
        before = self.snapshot("boxes" in state)
        try:
            self._take_over(state)
        except (HilError, *DAMAGE) as error:
            self._take_over({name: before[name] for name in state})
            raise ContractError(
                "a damaged snapshot", where="control port", got=f"{type(error).__name__}: {str(error)[:200]}",
                outputs="as before", todo="restore another snapshot",
            ) from error  # fmt: skip

    def _take_over(self, state: Mapping[str, object]) -> None:
        boxes = _mapping(state.get("boxes", {}))
        for name in boxes:
            self._boxes[name].restore(_mapping(boxes[name]))
        if "plant" in state:
            self._plant.restore(unpacked(_mapping(state["plant"])))
            for box in self._boxes.values():  # a laser may be on now that was off then: what it feeds is no state of the plant
                if isinstance(box, Feeding):
                    box.tell()

    def outputs(self) -> dict[str, object]:
        """Return by box what its outputs do now."""
        return {name: box.outputs() for name, box in self._boxes.items()}

    def extremes(self) -> dict[str, object]:
        """Return by box and channel the lowest and highest V at its connector since the start."""
        found = self._plant.extremes()
        own = {name: box.reached() if isinstance(box, Reaching) else {} for name, box in self._boxes.items()}
        return {name: found.get(box.name, own[name]) for name, box in self._boxes.items()}

    def _press(self, name: str, command: str) -> str:
        box: object = self._box(name)
        if not isinstance(box, Touchable):
            raise ConfigError("this box has no front panel", where="control port", got=f'"{name}"')
        return box.press(command)

    def _box(self, name: str) -> Controlled:
        if name not in self._boxes:
            raise ConfigError("no such box", where="control port", got=f'"{name}"', allowed=", ".join(sorted(self._boxes)))
        return self._boxes[name]

    def _serve(self, client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            while line := lines.readline(LINE_CAP):
                client.sendall(json.dumps(self._answer(line)).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, object]:
        number: object = None
        try:
            asked = _request(line)
            number = asked.get("id")
            what = self._answers.get(_text(asked, "do"))
            if what is None:
                raise ConfigError(
                    "no such request", where="control port", got=f'"{asked["do"]}"', allowed=", ".join(self._answers)
                )
            return {"id": number, "ok": what(asked)}
        except HilError as error:
            return {"id": number, "error": refusal(error)}


class ControlClient:
    """The other end: a `hil.device.Restorable` whose state is that of the whole bench.

    A request that fails half-way closes the connection; a late answer is never taken for the next one.

    Raises:
        OpenFailed: nobody listens there.
        LinkTimeout, Disconnected, Desync: by every method.
        ConfigError, ContractError, ...: what the bench refused, as it was raised there.
    """

    def __init__(self, host: str, port: int, timeout_s: float = 10.0) -> None:
        self.address = host, port
        self._where = f"control port {host}:{port}"
        try:
            self._socket = socket.create_connection((host, port), timeout_s)
        except OSError as error:
            raise OpenFailed(
                "nobody answers", where=self._where, got=str(error), todo="start the virtual bench: hil serve BENCH.toml"
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._number = 0
        self._open = True

    @property
    def timeout_s(self) -> float:
        """Longest silence while an answer is waited for, s."""
        return self._timeout_s

    @timeout_s.setter
    def timeout_s(self, seconds: float) -> None:
        self._timeout_s = seconds
        self._socket.settimeout(seconds)

    def paths(self) -> list[str]:
        """Return all paths that `get` and `set` know."""
        return [str(path) for path in self._sensible(_list, {"do": "paths"})]

    def get(self, path: str) -> float:
        """A parameter of the plant, "node.phase_rad"; "state.0" is where it has drifted to."""
        return self._sensible(_answered_number, {"do": "get", "path": path})

    def set(self, path: str, value: float) -> None:
        """Set a parameter of the plant, in SI units."""
        self._ask({"do": "set", "path": path, "value": value})

    def snapshot(self, boxes: bool = True) -> Mapping[str, object]:
        """Save plant and boxes; `boxes=False` leaves the boxes out, whose memories may be many megabytes."""
        return self._sensible(_state, {"do": "snapshot", "boxes": boxes})

    def restore(self, state: Mapping[str, object]) -> None:
        """Restore what a snapshot holds; what it leaves out stays as it is."""
        plant = {"plant": packed(_mapping(state["plant"]))} if "plant" in state else {}
        self._ask({"do": "restore", "state": {**state, **plant}})

    def log(self) -> list[dict[str, object]]:
        """Outputs that went on or off, oldest first."""
        return self._sensible(_mappings, {"do": "log"})

    def outputs(self) -> dict[str, object]:
        """Return the output channels of each box."""
        return dict(self._sensible(_mapping, {"do": "outputs"}))

    def extremes(self) -> dict[str, object]:
        """Return by box and channel {"low_v": ..., "high_v": ...}, the extremes at its connector since the bench started.

        A channel that was never on is not there.
        """
        return dict(self._sensible(_mapping, {"do": "extremes"}))

    def reboot(self, box: str) -> None:
        """Power the box off and on."""
        self._ask({"do": "reboot", "box": box})

    def press(self, box: str, command: str) -> str:
        """Press the front panel of a box as a person would: do what `command` does, and return its answer.

        Raises:
            ContractError: the panel is locked. ConfigError: the box does not do that.
        """
        return str(self._ask({"do": "press", "box": box, "command": command}))

    def fault(self, box: str, kind: str, **settings: object) -> str:
        """Schedule a fault, its settings as in `sim_devices.instruments.faults.Fault`; return its id."""
        return str(self._ask({**settings, "do": "fault", "box": box, "kind": kind}))

    def faults(self) -> dict[str, list[dict[str, object]]]:
        """Return the scheduled faults, and the log of those that were injected.

        "faults": what is scheduled, each with how many exchanges "matched" and how often it was "injected". "log": the
        injections, oldest first: time_s, box, kind, id, exchange.
        """
        return self._sensible(
            lambda found: {name: _mappings(_mapping(found).get(name)) for name in ("faults", "log")}, {"do": "faults"}
        )

    def heal(self, fault: str | None = None) -> int:
        """Take back one fault by its id, or all of them; how many. What is waiting because of them goes on."""
        return self._sensible(_count, {"do": "heal", **({} if fault is None else {"fault": fault})})

    def stop(self) -> None:
        """End the bench. It answers before it ends."""
        self._ask({"do": "stop"})

    def close(self) -> None:
        """Close the connection; the bench goes on. May be called twice."""
        self._open = False
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _sensible(self, read: Callable[[object], A], request: Mapping[str, object]) -> A:
        """Ask, and return what `read` makes of the answer."""
        answer = self._ask(request)
        try:
            return read(answer)
        except Refused as error:
            raise Desync("not the answer to this", where=self._where, got=f"{answer!r}"[:80], allowed=error.allowed) from error

    def _ask(self, request: Mapping[str, object]) -> object:
        with self._lock:
            if not self._open:
                raise Disconnected("used after it was closed or lost", where=self._where, todo="open a new ControlClient")
            self._number += 1
            line = json.dumps({"id": self._number, **request}).encode() + b"\n"
            try:
                answer = self._exchange(line)
            except BaseException:  # an interrupted exchange too leaves half an answer on the wire
                self.close()
                raise
        if "error" in answer:
            raise refused(answer["error"], self._where)
        return answer.get("ok")

    def _exchange(self, line: bytes) -> Mapping[str, object]:
        try:
            self._socket.sendall(line)
            reply = self._lines.readline(LINE_CAP)
        except TimeoutError as error:
            raise LinkTimeout("no answer", where=self._where, got=f"silence for {self._timeout_s:g} s") from error
        except OSError as error:
            raise Disconnected("the virtual bench went away", where=self._where, got=str(error)) from error
        if not reply.endswith(b"\n"):
            raise Disconnected("the virtual bench went away", where=self._where, got="end of file")
        try:
            answer = _mapping(json.loads(reply))
        except (ValueError, ContractError, RecursionError) as error:
            raise Desync("not an answer of a control port", where=self._where, got=repr(reply[:60])) from error
        if answer.get("id") != self._number:
            raise Desync("answer to another request", where=self._where, got=f"{answer.get('id')}", allowed=f"{self._number}")
        return answer


def _request(line: bytes) -> Mapping[str, object]:
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError("not JSON", where="control port", got=repr(line[:60]), allowed="a JSON object on one line") from error
    return _mapping(asked)


def _text(asked: Mapping[str, object], key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str):
        raise ConfigError(f'"{key}" is missing or not text', where="control port", got=f"{value!r}", allowed="a string")
    return value


def _number(asked: Mapping[str, object], key: str) -> float:
    value = asked.get(key)
    try:
        if isinstance(value, int | float):
            return float(value)
    except OverflowError:
        value = "a number of too many digits"
    raise ConfigError(f'"{key}" is missing or not a number', where="control port", got=f"{value!r}", allowed="a number")


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ContractError("not a JSON list", where="control port", got=str(value)[:80], allowed="a list")
    return value


def _mappings(value: object) -> list[dict[str, object]]:
    return [dict(_mapping(entry)) for entry in _list(value)]


def _answered_number(value: object) -> float:
    return _number({"answer": value}, "answer")


def _count(value: object) -> int:
    if not isinstance(value, int):
        raise ContractError("not a whole number", where="control port", got=f"{value!r}", allowed="a whole number")
    return value


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ContractError("not a JSON object", where="control port", got=str(value)[:80], allowed="an object with text keys")
    return value


def _state(value: object) -> Mapping[str, object]:
    """Return a snapshot of a bench, the plant's tensors in it."""
    state = _mapping(value)
    return {**state, "plant": unpacked(_mapping(state.get("plant")))}


def refusal(error: HilError) -> dict[str, str]:
    """An error as JSON values."""
    facts = (error.what, error.where, error.got, error.allowed, error.outputs, error.todo)
    return {"kind": type(error).__name__, **dict(zip(FACTS, facts, strict=True))}


def refused(sent: object, where: str) -> HilError:
    """The error that another process sent as a `refusal`; Desync if it is none."""
    facts = sent if isinstance(sent, Mapping) else {"kind": str(sent)}
    kind = _kinds().get(str(facts.get("kind")))
    text = {name: str(facts.get(name, "")) for name in FACTS}
    if kind is None:
        return Desync("an error of an unknown kind", where=where, got=str(facts)[:200])
    return kind(
        text["what"], where=text["where"], got=text["got"], allowed=text["allowed"], outputs=text["outputs"], todo=text["todo"]
    )


def _kinds(root: type[HilError] = HilError) -> dict[str, type[HilError]]:
    """The error tree by name."""
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _kinds(child)
    return found
