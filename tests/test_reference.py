"""The pages of docs/reference/ that list keys and errors are held against the code, so that neither moves alone."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS, PAGES, blocks, rows, sections, title
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from drivers.frame.device import Area, FrameSettings
from drivers.keithley_2400 import Keithley2400
from drivers.keysight_33600 import Keysight33600
from drivers.keysight_e36300 import KeysightE36312A
from drivers.keysight_infiniivision import InfiniiVision
from drivers.keysight_n7776c import KeysightN7776C
from drivers.parameter import Parameter
from drivers.pymeasure import Adapter
from drivers.spiking.device import SpikingBoard
from drivers.vector.device import VectorSettings
from drivers.waveform.device import WaveformSettings
from hil import errors
from hil.build import virtual_waveform
from hil.build.shapes import direct, frame, spiking, vector, waveform
from hil.build.virtual import BenchTable, FeedTable
from hil.cli import exit_code
from hil.config import bench, data, device, experiment, search, task, training
from hil.data.array_file import NpyFile, NpzFile
from hil.data.csv_file import CsvFile
from hil.data.image_folder import ImageFolder
from hil.data.made.channel import ChannelEqualisation
from hil.data.made.mackey_glass import MackeyGlass
from hil.data.made.narma10 import Narma10
from hil.data.made.parity import Parity
from hil.data.made.vowels import Vowels
from hil.devices.recovery import Patience
from hil.units import SUFFIXES, SYMBOLS
from sim_devices.bench.board import VirtualBoard
from sim_devices.lif_array import Neuron

GIVEN = {
    "scpi",
    "link",
    "expect",
    "provenance",
    "care",
    "auxiliaries",
    "address",
    "called",
    "beat",
    "clock",
    "session",
    "control_port",
}  # not written in a file
BENCH: Mapping[str, Any] = {
    "Top of the file": bench.BenchFile, "[instruments.NAME]": bench.InstrumentTable, "[twin]": bench.TwinTable,
    "[start]": bench.StartTable, "[safe]": bench.SafeTable,
    "[recovery]": Patience, "[log]": bench.LogTable, "[guardian]": bench.GuardianTable,
    "[panel]": bench.PanelTable, "[calibration]": bench.CalibrationTable, "[node] of waveform": waveform.Roles,
    "[waveform]": WaveformSettings, "[virtual] of waveform": virtual_waveform.VirtualTable,
    "[virtual.cable]": virtual_waveform.Cables,
    "Keysight33600, a driver": Keysight33600, "InfiniiVision, a driver": InfiniiVision, "[node] of spiking": spiking.Roles,
    "SpikingBoard, a driver": SpikingBoard, "[virtual] of spiking": VirtualBoard, "[virtual.neuron]": Neuron,
    "[virtual] of mesh and camera": direct.DirectTable, "[node] of vector": vector.Roles, "[vector]": VectorSettings,
    "[node] of frame": frame.Roles, "[frame]": FrameSettings, "[show] and [look]": Area, "[optics]": frame.OpticsTable,
    "[optics] mirror, laser, lamp": frame.KnobTable, "[virtual] of frame": BenchTable,
    "[virtual] of vector": vector.VirtualTable, "[virtual.NAME] feeds": FeedTable, "KeysightE36312A, a driver": KeysightE36312A,
    "KeysightN7776C, a driver": KeysightN7776C, "Keithley2400, a driver": Keithley2400,
    "Adapter, a driver": Adapter, "holds.NAME of Adapter": Parameter,
}  # fmt: skip
EXPERIMENT: Mapping[str, Any] = {
    "Top of the file": experiment.Experiment, "[data]": data.Data,
    "[augment]": training.AugmentTable, "[schedule]": training.ScheduleTable, "[network]": experiment.NetworkTable,
    "[network.feedback]": experiment.FeedbackTable, "[device]": device.DeviceTable,
    "[device.guardian]": device.HostTable, "[encode]": device.EncodeTable,
    "[decode]": device.DecodeTable, "[task]": task.TaskTable,
    "[learner]": experiment.LearnerTable, "[optimizer]": training.OptimizerTable,
    "[data.split]": data.SplitTable, "[data] of a table": CsvFile, "[data] of a .npz file": NpzFile,
    "[data] of a .npy file": NpyFile, "[data] of a folder of images": ImageFolder, "[data] of mackey_glass": MackeyGlass,
    "[data] of narma10": Narma10, "[data] of channel_equalisation": ChannelEqualisation, "[data] of parity": Parity,
    "[data] of vowels": Vowels, "[train]": training.TrainTable, "[sentinel]": experiment.SentinelTable,
    "[log]": experiment.LogsTable, "[alarm]": experiment.AlarmTable,
}  # fmt: skip
FILES = (
    experiment.Experiment, bench.BenchFile, waveform.WaveformBench,
    vector.VectorBench, frame.FrameBench, spiking.SpikingBench, direct.DirectBench, search.SearchFile,
)  # fmt: skip
CASES = [("bench_file.md", head, made) for head, made in BENCH.items()]
CASES += [("experiment_file.md", head, made) for head, made in EXPERIMENT.items()]


def keys(made: Any) -> Iterator[tuple[str, str]]:
    """Name and default of every key, the default as the pages write it; tables within a table only where they are listed."""
    if issubclass(made, BaseModel):
        for name, field in ((field.alias or name, field) for name, field in made.model_fields.items()):
            if field.is_required():
                yield name, "required"
            else:
                default = field.default if field.default is not PydanticUndefined else field.default_factory()  # type: ignore[misc,call-arg]
                yield name, written(default)
        return
    for name, parameter in inspect.signature(made).parameters.items():
        factory = dataclasses.is_dataclass(parameter.default) or "FACTORY" in type(parameter.default).__name__
        if name not in GIVEN and not factory:
            yield name, "required" if parameter.default is parameter.empty else written(parameter.default)


def written(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool | str):
        return f"`{json.dumps(value)}`"
    if isinstance(value, int | float):
        return f"`{value!r}`"
    if isinstance(value, list | tuple):
        return f"`{json.dumps(list(value))}`"
    return "its defaults"


@pytest.mark.parametrize(("page", "head", "made"), CASES, ids=[f"{page} {head}" for page, head, _ in CASES])
def test_every_key_is_listed_with_its_default(page: str, head: str, made: Any) -> None:
    table = {
        cells[0].strip("`"): cells
        for cells in rows(re.split(r"^# ", sections(DOCS / "reference" / page, 2)[head], flags=re.M)[0])
    }
    known = dict(keys(made))
    tables = {"network", "device", "learner"} if made is experiment.Experiment else {"boxes"}
    hidden = {name for name in known if name in tables or (made is experiment.Experiment and f"[{name}]" in EXPERIMENT)}
    assert set(table) == set(known) - hidden
    for name, (_, kind, default, meaning) in table.items():
        assert default == known[name], name
        assert kind
        assert meaning
        unit = next((SUFFIXES[name[at + 1 :]] for at in range(len(name)) if name[at] == "_" and name[at + 1 :] in SUFFIXES), "")
        told = re.search(r"quantity, (.+)", kind)
        if unit and told:
            assert told[1].replace("/s", " / second") in (SYMBOLS.get(unit, unit), unit.replace("volt", "V")), name
        assert not unit or told or "second" in kind, f"{name}: its unit"


@pytest.mark.parametrize(("page", "listed"), [("bench_file.md", BENCH), ("experiment_file.md", EXPERIMENT)])
def test_no_table_is_listed_that_is_none(page: str, listed: Mapping[str, Any]) -> None:
    assert set(sections(DOCS / "reference" / page, 2)) == set(listed)


def test_every_table_of_an_experiment_and_of_a_bench_is_listed() -> None:
    for model, listed in ((experiment.Experiment, EXPERIMENT), (bench.BenchFile, BENCH)):
        for name, field in model.model_fields.items():
            kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
            if any(inspect.isclass(kind) and issubclass(kind, BaseModel) for kind in kinds if inspect.isclass(kind)):
                assert any(head.startswith((f"[{name}]", f"[{name}.")) for head in listed), name


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_blocks_of_toml_have_tables_and_keys_that_exist(page: Path) -> None:
    """A page shows parts of files, so a part is held against what any of our files may have there."""
    for block in blocks(page):
        if block.language == "toml":
            table = tomllib.loads(block.text)
            own = ":" in str(table.get("shape", ""))  # [node] and [virtual] are those of the page's own shape
            for key, value in table.items():
                assert any(key in model.model_fields for model in FILES), f"{title(page)}: {key}"
                wrong = [] if own and key in ("node", "virtual") else list(strange(value, key))
                assert not wrong, f"{title(page)}: {wrong}"


def strange(value: object, key: str) -> Iterator[str]:
    """Keys of a table that no file of ours has there. A table whose keys are settings of a class may have any."""
    kinds = [kind for model in FILES if key in model.model_fields for kind in tables_of(model.model_fields[key].annotation)]
    strict = [
        kind
        for kind in kinds
        if kind.model_config.get("extra") != "allow" and kind not in (waveform.VirtualTable, vector.VirtualTable, BenchTable)
    ]
    if isinstance(value, Mapping) and kinds and kinds == strict:
        yield from (f"[{key}] {name}" for name in value if not any(name in allowed(kind) for kind in kinds))


def allowed(kind: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in kind.model_fields.items()}


def tables_of(annotation: Any) -> Iterator[type[BaseModel]]:
    for kind in [annotation, *getattr(annotation, "__args__", ())]:
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            yield kind


def test_the_check_of_tables_finds_the_form_of_the_first_edition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pages.ROOT", tmp_path)
    for text in ("[awg]\ntimeout_s = 5.0", "[guardian]\nsilence = 3", "[train]\nepoch = 3", "[safe.awg]\nslew_v_per_s = 2.0"):
        (tmp_path / "page.md").write_text(f"```toml\n{text}\n```\n", encoding="utf-8")
        with pytest.raises(AssertionError):
            test_blocks_of_toml_have_tables_and_keys_that_exist(tmp_path / "page.md")


def test_every_error_is_listed_with_its_parent_and_exit_code() -> None:
    page = DOCS / "reference" / "errors.md"
    listed = {
        cells[0].strip("`"): cells for cells in rows(page.read_text(encoding="utf-8")) if re.fullmatch(r"`\w+`", cells[0])
    }
    tree = {name: cls for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, errors.HilError)}
    assert set(listed) == set(tree)
    for name, (_, parent, code, meaning) in listed.items():
        base = tree[name].__base__
        assert parent.strip("`") == ("" if name == "HilError" else base.__name__), name  # type: ignore[union-attr]
        assert int(code) == exit_code(tree[name]("x")), name
        assert meaning


def test_the_glossary_is_in_order_and_explains_each_word_once() -> None:
    words = [cells[0] for cells in rows((DOCS / "reference" / "glossary.md").read_text(encoding="utf-8"))]
    assert words == sorted(words, key=str.casefold)
    assert len(set(words)) == len(words)
    told = "node device twin shot pass rung sample specimen certificate shape port guardian sentinel"
    assert set(told.split()) <= set(words)
