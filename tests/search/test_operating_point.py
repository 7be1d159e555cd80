"""hil search over settings: any key may be a dimension, a point is checked before it is trained, and a resume goes on alike."""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from acts import Kill, counted, killed, survive
from rich.console import Console
from test_search import cut, history
from torch import Tensor
from warm import blank

from drivers.waveform.device import Waveform
from hil.build.search import SearchBuilder
from hil.cli import run
from hil.commands.search import carry_on, start
from hil.config.experiment import read_experiment
from hil.config.search import base_experiment, read_search
from hil.errors import ConfigError, Disconnected, Stopped
from hil.report.search import read
from hil.run.folder import RunFolder
from hil.search.budget import Ledger
from hil.search.gest import Foreign, problem_of
from hil.search.jobs import Job, OperatingPoint, Outcome
from hil.search.operating_point import operating_space
from hil.search.plain_trainer import OneByOne
from hil.search.random_and_cma import CMA, Random
from hil.search.space import Dimension, Genome, Problem

QUIET = Console(quiet=True)
BENCH = Path(__file__).resolve().parents[2] / "benches" / "mzm_awg_scope.toml"
BASE = """
[data]
use = "narma5"
number = 5
steps = 300
window = 1
sequence = true
[data.split]
validation = 0.4
test = 0.2
[task]
washout = 40
[network]
use = "masks"
widths = [1, 8, 1]
[device]
use = "delay_loop"
nodes = 8
phase = "0.6 rad"
[encode]
gain = "0.2 V"
[learner]
use = "reservoir"
"""
FILE = """
base = "base.toml"
name = "small"
[search]
population = 4
trials = 10
elites = 1
[search.space]
device.phase = ["0.1 rad", "3 rad"]
encode.gain = { low = "0.05 V", high = "2 V", log = true }
network.levels = { choices = ["uniform", "binary"] }
seed = { low = 0, high = 3, whole = true }
[train]
epochs = 1
score = 1
held = 1
[evaluate]
workers = 1
[confirm]
seeds = 2
candidates = 2
random = 2
"""


def write(folder: Path, text: str = FILE, base: str = BASE) -> Path:
    (folder / "base.toml").write_text(base, encoding="utf-8")
    path = folder / "search.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    start(write(folder), RunFolder.create(folder / "run"), QUIET)
    return folder / "run"


def test_what_was_found_is_an_experiment_that_is_better_than_points_at_random(whole: Path, tmp_path: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text(encoding="utf-8"))
    stage = json.loads((whole / "stages.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    rows = {row["name"]: row["mean"] for row in stage["rows"]}
    assert list(rows) == ["found", "base", "random 1", "random 2"]
    assert rows["found"] > max(rows["random 1"], rows["random 2"])
    assert [claim["over"] for claim in summary["claims"]] == ["the median random point", "the settings of the base"]
    found = read_experiment(whole / "found.toml")
    assert found.device.settings()["phase"] == json.loads(summary["settings"]["device.phase"])
    assert found.network.settings()["levels"] == json.loads(summary["settings"]["network.levels"])
    assert found.seed == int(summary["settings"]["seed"])
    assert run(["train", str(whole / "found.toml"), "--run", str(tmp_path / "r")]) == 0


def test_all_trials_have_the_same_seeds_and_the_page_shows_each_setting(whole: Path) -> None:
    lines = [json.loads(line) for line in (whole / "generations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [len(line["genomes"]) for line in lines] == [4, 4, 2]  # of 10 trials
    assert len({tuple(line["seeds"]) for line in lines}) == 1
    best = [max(row["fitness"][0] for row in line["genomes"]) for line in lines]
    shown = read(RunFolder.open(whole))
    trials, *settings = shown["figures"]  # type: ignore[misc]
    assert trials.columns["best 1 - NRMSE so far (%)"][-1] == pytest.approx(100 * max(best))
    names = ["device.phase (rad)", "encode.gain (V)", "network.levels", "seed"]
    assert [next(iter(figure.columns)) for figure in settings] == names
    assert all(len(figure.columns["1 - NRMSE (%)"]) == 10 for figure in settings)
    head = shown["tables"][0]  # type: ignore[index]
    assert head[2][1][2] == "0.05 to 2 V, logarithmic"


@pytest.mark.parametrize(("evaluations", "torn", "generations", "stages"), [
    (0, 0, 0, 0), (0, 9, 0, 0), (3, 40, 0, 0), (4, 0, 0, 0), (4, 0, 1, 0), (7, 3, 1, 0), (10, 0, 3, 0), (13, 5, 3, 0),
    (14, 0, 3, 1), (20, 1, 3, 1),
])  # fmt: skip
def test_it_goes_on_from_wherever_it_was_cut(
    tmp_path: Path, whole: Path, evaluations: int, torn: int, generations: int, stages: int
) -> None:
    folder = cut(whole, tmp_path / "run", evaluations, torn, generations, stages)
    carry_on(folder, QUIET)
    assert history(folder.path) == history(whole)
    assert (folder.path / "found.toml").read_bytes() == (whole / "found.toml").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_every_write_it_ends_with_the_same_history(tmp_path: Path) -> None:
    """Before it, half way through it, and before what was written takes its name; in turns at the first and far on."""
    path = write(tmp_path, FILE.replace("trials = 10", "trials = 6").replace("random = 2", "random = 1"))
    acts, unharmed = tmp_path / "acts", tmp_path / "unharmed"
    found = counted(acts, "search", path, "--run", unharmed)
    kinds = [kind for kind in found if kind.startswith(("write", "half", "replace"))]
    kinds = [kind for kind in kinds if not re.search(r"setting-|\.pdf\.", kind)]  # one figure stands for all
    assert {"half of a write evaluations.jsonl", "write stages.jsonl", "replace .found.toml.N.part"} <= set(kinds)

    def begun(run: Path, kill_at: Kill | None) -> int:
        there = (run / "config.toml").exists()
        return killed(acts, kill_at, *(("resume", run) if there else ("search", path, "--run", run)))

    def finished(run: Path) -> bool:
        summary = run / "summary.json"
        return summary.exists() and json.loads(summary.read_text(encoding="utf-8"))["status"] == "done"

    def alike(run: Path) -> bool:
        same = history(run) == history(unharmed)
        return same and (run / "found.toml").read_bytes() == (unharmed / "found.toml").read_bytes()

    kills = [(kind, found[kind] // 3 if number % 2 else 0) for number, kind in enumerate(kinds)]
    survive(begun, finished, alike, tmp_path, kills)


def test_a_fault_ends_it_and_a_resume_goes_on(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, trained = OneByOne.train, []

    def breaks(self: OneByOne, jobs: Sequence[Job]) -> list[Outcome]:
        trained.extend(jobs)
        if len(trained) == 6:
            raise Disconnected("the wire is cut", where="bench")
        return inner(self, jobs)

    monkeypatch.setattr(OneByOne, "train", breaks)
    with pytest.raises(Stopped, match="what was finished is committed"):
        start(write(tmp_path), RunFolder.create(tmp_path / "run"), QUIET)
    assert len((tmp_path / "run" / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()) == 5
    carry_on(RunFolder.open(tmp_path / "run"), QUIET)
    assert history(tmp_path / "run") == history(whole)


def test_a_job_of_another_point_is_refused(tmp_path: Path, whole: Path) -> None:
    folder = cut(whole, tmp_path / "run", 3, 0, 0, 0)
    text = (folder.path / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    first = json.loads(text[0])
    (folder.path / "evaluations.jsonl").write_text(
        "\n".join([json.dumps({**first, "recipe": "00000000"}), *text[1:]]) + "\n", encoding="utf-8"
    )
    with pytest.raises(Exception, match="another recipe in job g0/0/0"):
        carry_on(folder, QUIET)


@pytest.mark.parametrize(("old", "new", "said"), [
    ('device.phase = ["0.1 rad", "3 rad"]', "device.phse = [0.1, 3.0]", r"device\.phse.*unknown key"),
    ('device.phase = ["0.1 rad", "3 rad"]', 'device.phase = ["0.1 rad", "3 V"]', 'two units.*"rad" and "V"'),
    ('device.phase = ["0.1 rad", "3 rad"]', 'device.phase = ["0.1 V", "3 V"]', r"device\.phase.*an end of a range"),
    ('device.phase = ["0.1 rad", "3 rad"]', "device.nodes = [4, 8]", r"device\.nodes.*whole number"),
    ('device.phase = ["0.1 rad", "3 rad"]', "device.phase = [3.0, 0.1]", "low below high"),
    ('device.phase = ["0.1 rad", "3 rad"]', "device.phase = [1.0, 2.0, 3.0]", "not a dimension"),
    ('device.phase = ["0.1 rad", "3 rad"]', "device.noise = { low = 0.0, high = 1.0, log = true }", "begins above 0"),
    ('device.phase = ["0.1 rad", "3 rad"]', "device.nodes = { low = 1.5, high = 8, whole = true }", "whole ends"),
    ('device.phase = ["0.1 rad", "3 rad"]', "device.bits = { choices = [8, 8] }", "stands there twice"),
    ('device.phase = ["0.1 rad", "3 rad"]', 'device.phase = ["a", "b"]', "not an end of a range"),
    ('device.phase = ["0.1 rad", "3 rad"]', "network.widths.7 = { choices = [4, 8] }", "no place in a list of 3"),
    ('device.phase = ["0.1 rad", "3 rad"]', "network.widths.1 = { low = 4, high = 7, whole = true }", r"network\.widths\.1"),
    ('device.phase = ["0.1 rad", "3 rad"]', 'bench.waveform.symbol_rate = ["1 MHz", "2 MHz"]', "no bench file"),
    ('device.phase = ["0.1 rad", "3 rad"]', 'device.bench = { choices = ["a.toml", "b.toml"] }', "stays on one bench"),
    ('device.phase = ["0.1 rad", "3 rad"]', "device.use.x = [1.0, 2.0]", "use is a value, not a section"),
    ("[train]", '[genome]\nfamily = "sine"\n[train]', "two searches"),
    ("[train]", '[bench]\ndevice = { use = "mach_zehnder" }\n[train]', "searched there"),
    ("workers = 1", 'workers = 1\nby = "population"', '"one", or nothing'),
    ("trials = 10", "trials = 10\nrandom_first = 3", "settings of another generator"),
    ("population = 4", 'population = 4\nstrategy = "gentic"', 'did you mean "genetic"'),
    ("population = 4", 'population = 4\nstrategy = "hil.data.dataset:Dataset"', "no suggest, ingest"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_trained(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        start(write(tmp_path, FILE.replace(old, new)), RunFolder.create(tmp_path / "run"), QUIET)
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()


def test_a_point_of_settings_that_do_not_go_together_is_named_with_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FILE.replace("network.levels = ", 'device.nonlinearity = { choices = ["mach_zehnder", "linear"] }\ndevice.gain = ')
    text = text.replace('{ choices = ["uniform", "binary"] }', "[1.01, 1.5]")
    base = BASE.replace("nodes = 8", 'nodes = 8\nnonlinearity = "mach_zehnder"\ngain = 0.5')
    assert run(["search", str(write(tmp_path, text, base)), "--run", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "[search.space] device.gain: trial" in said  # a linear loop of a gain above 1 runs away; the ends alone do not
    assert 'device.nonlinearity = "linear"' in said
    assert "a linear loop runs away" in said


def test_a_setting_stands_over_what_the_search_says_and_data_are_read_anew(tmp_path: Path) -> None:
    text = FILE.replace("network.levels = ", "data.steps = ").replace('["uniform", "binary"]', "[300, 320]")
    path = write(
        tmp_path,
        text.replace("seed = {", "train.epochs = { low = 1, high = 3, whole = true }\nlearner = {").replace(
            "{ low = 0, high = 3, whole = true }", '{ choices = [{ use = "reservoir" }, { use = "reservoir", forget = 0.9 }] }'
        ),
    )
    file = read_search(path)
    builder = SearchBuilder(file, base_experiment(file, path))
    space = builder.space(builder.data())
    names = [one.name for one in space.dimensions]
    values = {"device.phase": 1.0, "encode.gain": 0.3, "data.steps": 320, "train.epochs": 2}
    genome = Genome(tuple(values.get(one.name, one.ends[-1]) for one in space.dimensions))
    assert names == ["device.phase", "encode.gain", "data.steps", "train.epochs", "learner"]
    job = Job("j", space.recipe(genome), seed=5, epochs=7)
    assert Job.of(json.loads(json.dumps(job.table()))) == job
    asked = builder.asked(job)
    assert (asked.seed, asked.train.epochs, asked.train.threads) == (5, 2, 1)
    assert asked.learner.options.forget == 0.9
    assert asked.encode.gain == "0.3 V"
    with builder.candidate(job, builder.data()) as made:
        assert made.training.data.train.x.shape[1] == 320
    with builder.candidate(Job("k", OperatingPoint({"seed": 9}), 5, 1), builder.data()) as made:
        assert made.training.data.train.x.shape[1] == 300
    assert builder.asked(Job("k", OperatingPoint({"seed": 9}), 5, 1)).seed == 9


def test_a_network_of_a_device_a_layer_and_a_device_that_projects_have_settings_too(tmp_path: Path) -> None:
    device = '[[device]]\nuse = "mach_zehnder"\nv_pi = "3.5 V"\n' * 2
    base = f'[network]\nwidths = [64, 6, 6, 10]\n{device}[encode]\noverflow = "fold"\nperiod = 7.0\n[learner]\nuse = "adfa"\n'
    base += '[projection]\nuse = "scattering"\nmacropixels = 36\npixels = 64\n'
    text = FILE[: FILE.index("device.phase")] + 'device.1.v_pi = ["3 V", "4 V"]\nprojection.planes = { choices = [2, 3] }\n'
    path = write(tmp_path, text + FILE[FILE.index("[train]") :].replace("score = 1", "score = 40\nexamples = 40"), base)
    file = read_search(path)
    builder = SearchBuilder(file, base_experiment(file, path))
    space = builder.space(builder.data())
    asked = builder.asked(Job("j", space.recipe(Genome((3.5, 2))), 0, 1))
    assert [layer.settings()["v_pi"] for layer in asked.device.layers] == ["3.5 V", "3.5 V"]
    (outcome,) = builder.trainer().train([Job("j", space.recipe(Genome((3.9, 3))), 0, 1)])
    assert outcome.died_at is None
    assert outcome.passes > (40 + 40) * 12  # with the shots that project


def test_on_a_bench_no_shot_is_sent_beyond_the_budget_and_more_of_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mzm.toml").write_text(BENCH.read_text(encoding="utf-8"), encoding="utf-8")
    base = '[network]\nwidths = [64, 6, 10]\n[device]\nbench = "mzm.toml"\n[encode]\ngain = "1 V"\noverflow = "fold"\n'
    base += 'period = "7 V"\n[learner]\nuse = "ridge"\n[decode]\nzero = "0.18 V"\nscale = "0.18 V"\n'
    text = FILE[: FILE.index("device.phase")].replace("trials = 10", 'trials = 2\nstrategy = "random"\nbudget_passes = 300')
    text += 'encode.gain = ["0.5 V", "2 V"]\nbench.virtual.scope.adc_bits = { low = 8, high = 12, whole = true }\n'
    text += FILE[FILE.index("[train]") :].replace("score = 1", "score = 16\nexamples = 32").replace("held = 1", "held = 16")
    text = text.replace("random = 2", "random = 0\nhand_made = false").replace("candidates = 2", "candidates = 1")
    sent: list[int] = []
    submit = Waveform.submit

    def counted(self: Waveform, x: Tensor) -> Future[Tensor]:
        sent.append(x.numel())
        return submit(self, x)

    monkeypatch.setattr(Waveform, "submit", counted)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", blank)  # pages are drawn elsewhere
    summary = start(write(tmp_path, text, base), RunFolder.create(tmp_path / "short"), QUIET)
    lines = [json.loads(line) for line in (tmp_path / "short" / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()]
    one = sum(sent) // len(lines)
    assert sum(sent) == one * len(lines) <= 300 < one * (len(lines) + 1)
    assert "the budget is spent" in summary["ended_early"]
    assert "held_accuracy" not in summary
    assert (tmp_path / "short" / "found_bench.toml").exists()
    copy = tmp_path / "short" / "search.toml"
    more = copy.read_text(encoding="utf-8").replace("= 300", f"= {one * (len(lines) + 1)}")
    copy.write_text(more, encoding="utf-8")
    assert run(["resume", str(tmp_path / "short")]) == 0
    assert sum(sent) == one * (len(lines) + 1) == Ledger(tmp_path / "short").spent  # nothing twice
    assert run(["resume", str(tmp_path / "short")]) == 0  # its budget is spent again, so nothing is opened
    assert sum(sent) == one * (len(lines) + 1)
    found = read_experiment(tmp_path / "short" / "found.toml")
    assert found.bench is not None
    assert found.bench.file.name == "found_bench.toml"
    bits = int(json.loads((tmp_path / "short" / "summary.json").read_text(encoding="utf-8"))["settings"][
        "bench.virtual.scope.adc_bits"])  # fmt: skip
    assert getattr(found.bench, "virtual").boxes["scope"].settings()["adc_bits"] == bits  # noqa: B009 (of its shape)


# ---- the interface of gest-api ------------------------------------------------------------------------------------------


class ContinuousVariable:
    def __init__(self, domain: Sequence[float]) -> None:
        self.domain = domain


class DiscreteVariable:
    def __init__(self, values: set[Any]) -> None:
        self.values = values


class MinimizeObjective: ...


class MaximizeObjective: ...


class VOCS:
    """As much of gest-api's as is read of it."""

    def __init__(self, variables: dict[str, Any], objectives: dict[str, str], constants: dict[str, Any] | None = None) -> None:
        self.variables = {
            name: DiscreteVariable(one) if isinstance(one, set) else ContinuousVariable(one) for name, one in variables.items()
        }
        kinds = {"MINIMIZE": MinimizeObjective, "MAXIMIZE": MaximizeObjective}
        self.objectives = {name: kinds[one]() for name, one in objectives.items()}
        self.constraints: dict[str, Any] = {}
        self.constants = {name: types.SimpleNamespace(value=one) for name, one in (constants or {}).items()}


@pytest.fixture
def vocs(monkeypatch: pytest.MonkeyPatch) -> type:
    """gest-api's VOCS where it is installed, else ours."""
    try:
        from gest_api.vocs import VOCS as TheirVOCS

        found: type = TheirVOCS
    except ImportError:
        module = types.ModuleType("gest_api.vocs")
        module.VOCS = found = VOCS  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "gest_api", types.ModuleType("gest_api"))
        monkeypatch.setitem(sys.modules, "gest_api.vocs", module)
    return found


class Theirs:
    """A generator of somebody else: draws around the best point so far, from numpy's global generator."""

    def __init__(self, vocs: Any, width: float = 0.2, own: bool = False) -> None:
        import numpy as np

        self.ranges = {name: getattr(one, "domain", None) or sorted(one.values) for name, one in vocs.variables.items()}
        self.objective, self.width, self.best = next(iter(vocs.objectives)), width, None
        self.told: list[dict[str, Any]] = []
        self.rng = np.random.default_rng() if own else np.random
        if "wrong" in vocs.variables:
            raise ValueError("no wrong variables")

    def suggest(self, num_points: int | None) -> list[dict[str, Any]]:
        if num_points is None:
            raise ValueError("how many?")
        found = [self._drawn() for _ in range(num_points)]
        return [{**point, "_id": len(self.told) + number} for number, point in enumerate(found)]

    def _drawn(self) -> dict[str, Any]:
        share = self.rng.uniform(size=len(self.ranges))
        point: dict[str, Any] = {}
        for (name, one), u in zip(self.ranges.items(), share, strict=True):
            point[name] = one[int(u * len(one))] if isinstance(one[0], str) else one[0] + (one[1] - one[0]) * float(u)
        return point

    def ingest(self, results: list[dict[str, Any]]) -> None:
        self.told += results


def test_a_generator_of_another_package_drives_our_trials_and_a_resume_repeats_it(tmp_path: Path, vocs: type) -> None:
    text = FILE.replace("population = 4", f'population = 2\nstrategy = "{Theirs.__module__}:Theirs"\nrandom_first = 3')
    text = text.replace("trials = 10", "trials = 7").replace("[train]", "[search.generator]\nwidth = 0.3\n[train]")
    text = text.replace("random = 2", "random = 0\nhand_made = false")
    start(write(tmp_path, text), RunFolder.create(tmp_path / "run"), QUIET)
    lines = [json.loads(line) for line in (tmp_path / "run" / "generations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [len(line["genomes"]) for line in lines] == [3, 2, 2]
    for row in (row for line in lines for row in line["genomes"]):
        assert 0.05 <= row["values"]["encode.gain"] <= 2
        assert row["values"]["network.levels"] in ("uniform", "binary")
        assert row["values"]["seed"] in (0, 1, 2, 3)
    folder = cut(tmp_path / "run", tmp_path / "again", 4, 8, 1, 0)
    carry_on(folder, QUIET)
    assert history(folder.path) == history(tmp_path / "run")


def test_a_generator_that_a_resume_could_not_repeat_is_refused(vocs: type) -> None:
    problem = Problem((Dimension("x", 1e-3, 1.0, logarithmic=True), Dimension("n", 1, 3, whole=True)), {"f": "MINIMIZE"})
    alike = Foreign(lambda vocs: Theirs(vocs), problem, 0, 2, [], "here")
    points = alike.suggest()
    assert points == Foreign(lambda vocs: Theirs(vocs), problem, 0, 2, [], "here").suggest()
    assert points != Foreign(lambda vocs: Theirs(vocs), problem, 1, 2, [], "here").suggest()
    alike.ingest([{**point, "f": 1.0} for point in points])
    inner: Any = alike._inner
    assert [sorted(told) for told in inner.told] == [["_id", "f", "log10 x", "n"]] * 2  # by its own names
    assert all(-3 <= told["log10 x"] <= 0 for told in inner.told)
    alike.ingest([{"x": 0.01, "n": 2, "f": 3.0}])  # a point that it did not suggest has no number
    assert inner.told[-1] == {"log10 x": -2.0, "n": 2, "f": 3.0}
    with pytest.raises(ConfigError, match="no function of its seed"):
        Foreign(lambda vocs: Theirs(vocs, own=True), problem, 0, 2, [], "here").suggest()
    wrong = Problem((Dimension("wrong"),), {"f": "MINIMIZE"})
    with pytest.raises(ConfigError, match=r"does not take this search.*no wrong variables"):
        Foreign(lambda vocs: Theirs(vocs), wrong, 0, 2, [], "here")


def test_without_the_package_a_generator_of_another_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gest_api.vocs", None)
    with pytest.raises(ConfigError, match=r"pip install 'hil\[generators\]'"):
        Foreign(lambda vocs: Theirs(vocs), Problem((Dimension("x"),), {"f": "MINIMIZE"}), 0, 1, [], "here")


def test_our_generators_take_a_vocs(vocs: type) -> None:
    told = vocs(
        variables={"x": [-2.0, 2.0], "y": [-1.0, 3.0], "kind": {"a", "b", "c"}}, objectives={"f": "MINIMIZE"},
        constants={"power": 2},
    )  # fmt: skip
    for generator in (CMA(told, 0, 10), Random(told, 0, 10)):
        best: list[float] = []
        for _ in range(20):
            points = generator.suggest()
            assert {key for point in points for key in point} == {"x", "y", "kind", "power"}
            values = [(p["x"] - 1) ** p["power"] + p["y"] ** 2 + (p["kind"] != "b") for p in points]
            generator.ingest([{**point, "f": value} for point, value in zip(points, values, strict=True)])
            best.append(min(values))
        assert isinstance(generator, Random) or sum(best[-5:]) < 0.02 * sum(best[:5])
    assert problem_of(told).dimensions[2].choices == ("a", "b", "c")
    told.constraints = {"c": ["LESS_THAN", 1.0]}
    with pytest.raises(ValueError, match="cannot accept constraints: c"):
        Random(told)


def test_a_dimension_and_its_shares() -> None:
    space = operating_space(
        {
            "a": {"b": ["1 mV", "3 mV"]},
            "n": {"low": 1, "high": 1000, "whole": True, "log": True},
            "t": {"choices": [[1], [2, 3]]},
        },
        "here",
    )
    a, n, t = space.dimensions
    assert [one.name for one in space.dimensions] == ["a.b", "n", "t"]
    assert (a.value(0.25), n.value(0.0), n.value(0.5), n.value(1.0)) == (1.5, 1, 32, 1000)
    for one in space.dimensions:
        for share in (0.0, 0.1, 0.5, 0.99, 1.0):
            value = one.value(share)
            assert one.value(one.share(value)) == pytest.approx(value) if one is a else one.value(one.share(value)) == value
    assert space.recipe(Genome((1.5, 32, t.value(0.9)))).settings == {"a.b": "1.5 mV", "n": 32, "t": [2, 3]}
    with pytest.raises(ValueError, match="not between"):
        a.share(4.0)
    limits = operating_space({"bench": {"instruments": {"awg": {"low": ["-4 V", "-1 V"], "high": ["1 V", "4 V"]}}}}, "here")
    assert [one.name for one in limits.dimensions] == ["bench.instruments.awg.low", "bench.instruments.awg.high"]
