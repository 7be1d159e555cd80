"""The settings of a search, put into the tables of its experiment and of its bench.

    "device.gain"                [device] gain of the experiment
    "bench.virtual.awg.bits"     [virtual.awg] bits of the bench file that [device] names

Each point is read by the checker that reads the files, then everything is made that needs no device: all that a run would
refuse before it opens anything is refused before anything is trained.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from hil import toml
from hil.build.calibration import certified
from hil.build.prepared import prepared
from hil.config.bench import bench_of
from hil.config.experiment import Experiment, without_benches
from hil.config.read import dump, put, read_toml, value_text
from hil.config.resolve import UNTOUCHED
from hil.data.dataset import Dataset
from hil.errors import ConfigError, Refused
from hil.search.operating_point import OperatingSpace

BENCH = "bench."
OWN = ("device.bench", "projection.bench")


class Tables:
    """An experiment and its bench as tables, in which settings are changed.

    Args:
        experiment: the base.
        place: file and table of the dimensions, for messages.
    """

    def __init__(self, experiment: Experiment, place: str) -> None:
        self._base, self._place, self._bench = experiment, place, experiment.bench
        self._table = toml.loads(dump(experiment))
        if experiment.device.layers:
            self._table["device"] = self._table["device"]["layers"]  # [[device]], as a file has it
        self._bench_table = None if self._bench is None else read_toml(self._bench.file)  # as it is written

    def experiment(self, settings: Mapping[str, Any]) -> Experiment:
        """Return the experiment with other settings.

        Raises:
            ConfigError: the checker of the files refuses it.
        """
        table, bench = copy.deepcopy(self._table), copy.deepcopy(self._bench_table)
        for name, value in settings.items():
            where = f"{self._place} {name}"
            if name.startswith(BENCH):
                if bench is None:
                    raise ConfigError(
                        "this experiment has no bench file", where=where, got=name, allowed="a key of the experiment",
                        outputs=UNTOUCHED, todo="name a bench in its [device], or remove this dimension",
                    )  # fmt: skip
                put(bench, name.removeprefix(BENCH).split("."), value, where)
            elif name in OWN:
                raise ConfigError(
                    "a search stays on one bench", where=where, got=name, allowed=f"keys of the bench file, {BENCH}table.key",
                    outputs=UNTOUCHED, todo="search on each bench by itself",
                )  # fmt: skip
            else:
                put(table, name.split("."), value, where)
        near = self._base.near
        made = without_benches(table, near, near).projected_on(self._base.projection_bench, self._base.projection_kept)
        return made if self._bench is None else made.on_bench(bench_of(bench or {}, self._bench.file), self._base.kept)

    def check(self, settings: Mapping[str, Any], name: str, data: Dataset | None) -> None:
        """Refuse what a run with these settings would refuse before it opens anything.

        Args:
            settings: of a point.
            name: of the point, for messages.
            data: of the base; None: that of the settings.

        Raises:
            ConfigError: names the point, and the key that made the difference.
        """
        error = self._refusal(settings, data)
        if error is None:
            return
        so_far: dict[str, Any] = {}
        for key, value in settings.items():  # the first key with which it is refused
            so_far[key] = value
            if self._refusal(so_far, data) is not None:
                break
        raise self.named(error, name, settings, key) from error

    def named(self, error: Refused, name: str, settings: Mapping[str, Any], key: str = "") -> ConfigError:
        """Return the refusal of a run with these settings as one that names the point, and the key if it is known."""
        point = ", ".join(f"{name} = {value_text(value)}" for name, value in settings.items())
        found = f" ({error.got})" if error.got else ""
        return ConfigError(
            f"{name} of the search is refused: {error.what}{found}", where=f"{self._place} {key}" if key else error.where,
            got=point, allowed=error.allowed, outputs=error.outputs or UNTOUCHED,
            todo=f"narrow {f'the range of {key}' if key else 'the ranges of [search.space]'}; of the key itself: "
            + (error.todo or "correct it"),
        )  # fmt: skip

    def _refusal(self, settings: Mapping[str, Any], data: Dataset | None) -> Refused | None:
        try:
            made = self.experiment(settings)
            prepared(made, data)
            if made.bench is not None:
                certified(made.bench, made.kept)
            for table in (made.device, *made.device.layers, made.projection):
                if table is not None and table.kind == "twin":
                    assert table.choice is not None  # a twin is a class
                    table.choice.build()
        except Refused as error:
            return error
        return None


def check_ends(tables: Tables, space: OperatingSpace, data: Dataset) -> None:
    """Refuse a dimension of which the lowest or highest value, or a choice, makes no sense at the settings of the base.

    Raises:
        ConfigError: names the dimension.
    """
    for setting in space.settings:
        name = setting.dimension.name
        for value in setting.dimension.ends:
            given = None if name.startswith("data.") or name == "data" else data
            tables.check({name: setting.written(value)}, "an end of a range" if not setting.choices else "a choice", given)
