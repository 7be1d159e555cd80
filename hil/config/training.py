"""The tables of an experiment that say how weights are moved: [augment], [optimizer], [schedule], [train].

What [schedule] may name: our own schedules, those of torch.optim.lr_scheduler, or a class of the user's.

use = "StepLR", step_size = 3                                       a scheduler of torch, and its settings
use = "SequentialLR", milestones = [2]
schedulers = [{use = "LinearLR"}, {use = "CosineAnnealingLR", T_max = 8}]      tables of the same form, one after the other
use = "LambdaLR", lr_lambda = "my_lab:rate"                         functions by their import path
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from hil.config.read import Section, Using
from hil.config.resolve import UNTOUCHED, Choice, choice, resolve
from hil.errors import ConfigError

OURS = {"constant": "hil.training.schedule:Constant", "cosine": "hil.training.schedule:Cosine"}
OPTIMISER_GIVEN = ("params", "lr")
GIVEN = ("optimizer", "last_epoch")
FUNCTIONS = ("lr_lambda", "scale_fn")


class AugmentTable(Section, strict=True):
    """[augment]: how training examples are changed, anew each time they are shown; see hil/data/augment.py.

    Args:
        shift: images are moved by up to so many pixels either way.
        flip: share of the images that are mirrored, left to right.
        cutout: side of a square that is set to 0, in pixels.
        noise: standard deviation of what is added to every number.
    """

    shift: Annotated[int, Field(ge=0)] = 0
    flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    cutout: Annotated[int, Field(ge=0)] = 0
    noise: Annotated[float, Field(ge=0)] = 0.0


class OptimizerTable(Using, strict=True):
    """[optimizer]: an optimiser of torch.optim.

    Args:
        use: a class of torch.optim, or "module:Class"; other keys are its settings.
        lr: learning rate.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)
    use: str = "Adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3

    def chosen(self) -> Choice:
        """Find the optimiser of torch and check its settings."""
        return choice(self.use, self.settings(), self.place, optimisers(), skip=OPTIMISER_GIVEN)


class ScheduleTable(Using, strict=True):
    """[schedule]: how the learning rate changes: "constant", "cosine", a scheduler of torch.optim, or "module:Class".

    Args:
        every: what the scheduler counts; None: steps for OneCycleLR and CyclicLR, epochs for any other.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False, strict=True)
    use: str = "constant"
    every: Literal["epoch", "step"] | None = None

    @property
    def by_step(self) -> bool:
        """True if the scheduler counts steps of the optimiser, not epochs."""
        return self.every == "step" or (self.every is None and self.use in ("OneCycleLR", "CyclicLR"))

    @property
    def scored(self) -> bool:
        """True if the scheduler takes the score on the validation split, as ReduceLROnPlateau does."""
        return takes_score(self.choice.made)

    def chosen(self) -> Choice:
        """Find the scheduler, and those that it is made of, and check their settings."""
        found = scheduler_choice(self.use, self.settings(), self.place)
        if takes_score(found.made) and self.every == "step":
            raise ConfigError(
                f"{self.use} follows the score on the validation split, which is known after an epoch", where=self.place,
                got='every = "step"', allowed='every = "epoch"', outputs=UNTOUCHED, todo="remove every",
            )  # fmt: skip
        if self.every is not None and self.use in OURS:
            raise ConfigError(
                f'"{self.use}" counts nothing', where=self.place, got=f'every = "{self.every}"',
                allowed="every, with a scheduler of torch.optim", outputs=UNTOUCHED, todo="remove every",
            )  # fmt: skip
        return found


class TrainTable(Section, strict=True):
    """[train]: how long, in which steps, and where. A run may be resumed elsewhere: change it in its config.toml.

    Args:
        epochs: passes over the training split.
        batch: examples in a step.
        patience: training ends after so many epochs without a better score on the validation split; None: with the last.
        min_delta: a score counts as better if it is so by more than this.
        clip_norm: the gradient of all weights together is scaled down to this norm, if it is larger.
        accumulate: the optimiser moves once in so many batches, by the mean of their gradients.
        class_weights: of each class in the loss; "balanced": inversely to how often it occurs in the training split.
        start_from: a run whose best weights are the first ones of this run.
        budget_passes: device passes after which training ends; None: no bound.
        budget_writes: channels written on a device, each time counted, after which training ends; None: no bound.
        checkpoint_every: steps between checkpoints, besides those of every epoch.
        checkpoint_every_s: a checkpoint after so long.
        threads: of torch on the host; None: by the size of the network.
        on: where the host computes: "cpu", "cuda", "cuda:1", "mps" or "auto"; not called device, which is the node.
        record: keep every shot of every device on a tape in the run folder, for `hil replay`.
        wire: keep what is said to every instrument in wire/ there.
    """

    model_config = ConfigDict(serialize_by_alias=True)
    epochs: Annotated[int, Field(gt=0)] = 5
    batch: Annotated[int, Field(gt=0)] = 128
    patience: Annotated[int, Field(gt=0)] | None = None
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    accumulate: Annotated[int, Field(gt=0)] = 1
    class_weights: Literal["balanced"] | list[Annotated[float, Field(gt=0)]] | None = None
    start_from: str | None = Field(default=None, alias="from")
    budget_passes: Annotated[int, Field(gt=0)] | None = None
    budget_writes: Annotated[int, Field(gt=0)] | None = None
    checkpoint_every: Annotated[int, Field(gt=0)] | None = None
    checkpoint_every_s: Annotated[float, Field(gt=0)] = 60.0
    threads: Annotated[int, Field(gt=0, le=1024)] | None = None
    record: bool = False
    wire: bool = False
    on: str = "cpu"


def optimisers() -> dict[str, str]:
    """Name of an optimiser of torch -> its path."""
    import torch  # slow to import, and a command that only reads a bench needs none of it

    return {name: f"torch.optim:{name}" for name in torch.optim.__all__ if name[0].isupper() and name != "Optimizer"}


def schedulers() -> dict[str, str]:
    """Name of a scheduler of torch -> its path."""
    from torch.optim import lr_scheduler  # slow to import, too

    return {name: f"torch.optim.lr_scheduler:{name}" for name in lr_scheduler.__all__ if name != "LRScheduler"}


def schedule_given(made: Any) -> tuple[str, ...]:
    """Name what a scheduler takes and no file gives it; the task says of ReduceLROnPlateau which way the score is better."""
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    return (*GIVEN, "mode") if made is ReduceLROnPlateau else GIVEN


def scheduler_choice(use: str, settings: Mapping[str, Any], place: str) -> Choice:
    """A schedule, its settings checked; `schedulers` among them are choices too.

    Raises:
        ConfigError: there is no such scheduler, or it does not take these settings.
    """
    made = resolve(use, place, {**OURS, **schedulers()})
    found: dict[str, Any] = {
        key: resolve(value, f"{place} {key}") if key in FUNCTIONS and isinstance(value, str) else value
        for key, value in settings.items()
    }
    if use in ("SequentialLR", "ChainedScheduler"):
        parts = found.get("schedulers")
        if not isinstance(parts, list) or not parts or not all(isinstance(part, Mapping) and "use" in part for part in parts):
            raise ConfigError(
                f"{use} is made of other schedulers", where=f"{place} schedulers", got=str(parts)[:60] if parts else "none",
                allowed='a list of tables: [{use = "LinearLR"}, {use = "ExponentialLR", gamma = 0.9}]', outputs=UNTOUCHED,
                todo="write one table a scheduler",
            )  # fmt: skip
        found["schedulers"] = [
            scheduler_choice(part["use"], {k: v for k, v in part.items() if k != "use"}, f"{place} schedulers {number}")
            for number, part in enumerate(parts, 1)
        ]
    parts = () if use in OURS else ("step",)
    return choice(use, found, place, skip=schedule_given(made), parts=parts, kind="a scheduler", made=made)


def takes_score(made: Any) -> bool:
    """True if `made` is a scheduler whose step needs an argument: the score on the validation split."""
    step = getattr(made, "step", None)
    if step is None:
        return False
    needed = [one for one in inspect.signature(step).parameters.values() if one.default is one.empty]
    return len([one for one in needed if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]) > 1  # beside self
