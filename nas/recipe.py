"""Recipes: the strict, typed form of a search's YAML file."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

import controllers
from nas import recipe_file
from nas.benchmark_file import REHEARSAL
from nas.costs import COSTS
from nas.objective import OWN_EXPONENTS, Objective, make_objective
from nas.quantities import parse_quantity
from nas.recipe_errors import RecipeError, first_error
from search_space import Architecture, InputError, SearchSpace, library, load_architecture, load_space
from search_space.errors import shown
from search_space.files import flow
from search_space.transform import for_proxy


def _quantity(value: object) -> object:
    return parse_quantity(value) if isinstance(value, str) else value


def _known_cost(value: str) -> str:
    """A cost that is counted, measured here, or may be a benchmark's device metric, whatever the device's name."""
    if value in COSTS or value.startswith(("latency_", "throughput_")):
        return value
    raise ValueError(f"must be flops, params, latency, or a benchmark's latency_... or throughput_..., not {value!r}")


def _folder_name(value: str) -> str:
    """A name that can be a folder's on every system."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        return value
    raise ValueError(f"must be letters, digits, '.', '_' and '-', a letter or digit first, not {value!r}")


def _held_out(value: object) -> object:
    """How images are held out; one message for all that it can be."""
    if (
        value in (None, "val")
        or (type(value) is float and 0 < value < 1)
        or (type(value) is int and 2 <= value < 2**63)
    ):
        return value
    raise ValueError(f"must be val, a share between 0 and 1, or a count of at least 2, not {shown(value)}")


def _absolute(names: Collection[str], value: str) -> str:
    """Paths become absolute, so that a run can be resumed and trained from any folder; names stay."""
    if "\0" in value:
        raise ValueError("must be a path, which holds no null byte")
    path = Path(os.path.expanduser(value))  # which leaves an unknown ~user as it is
    return value if value in names or not path.exists() else str(path.absolute())


def _located(*names: str) -> AfterValidator:
    """Validates a text that is one of the names, or else a path, which becomes absolute."""
    return AfterValidator(partial(_absolute, names))


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
LEAST_FLOPS = 1e5
"""Fewer than any network has, in multiply-adds."""

_LEAST_SHARE = 0.0001  # of a CPU core or a GPU

Whole = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, lt=2**63)]
Several = Annotated[int, Field(ge=2, lt=2**63)]
Quantity = Annotated[float, BeforeValidator(_quantity), Field(gt=0, allow_inf_nan=False)]
Exponent = Annotated[float, Field(ge=-10, le=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(_Section):
    """Where the images come from (`nas.data`).

    Attributes:
        source: `digits`, an image folder tree, or a .npz file.
        holdout: how the reward's images are held out: `val` for the folder's own, a share or a count taken from the
            training images; None for `val` if there is one, else 20%.
    """

    source: Annotated[str, _located("digits")]
    holdout: Annotated[Literal["val"] | float | int | None, BeforeValidator(_held_out)] = None


class Training(_Section):
    """How a network is trained (`nas.training`).

    Attributes:
        bn_momentum: share of the running statistics kept at each step (0.99 in the papers; less for short trainings).
        schedule: `cosine`, or `mnasnet`: x 0.97 every 2.4 epochs.
    """

    epochs: Count
    batch_size: Several = 64
    optimizer: Literal["sgd", "rmsprop"] = "sgd"
    lr: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 1e-5
    schedule: Literal["cosine", "mnasnet"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    bn_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.9
    crop: bool = True
    flip: bool = True

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Training:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs: {self.warmup_epochs:g} must be less than epochs: {self.epochs}")
        return self


class Proxy(Training):
    """What a child trains instead of the deployed network: smaller images, a narrower net, part of the data.

    Attributes:
        resolution: of the training images, in pixels; None for the network's own.
        width: of the child's channels, as a share of the deployed network's.
        final_size: least size in pixels of the last feature map; strides are left out for it.
        share: of the training images.
    """

    resolution: Annotated[int, Field(ge=8, le=1024)] | None
    width: Annotated[float, Field(gt=0, le=4)] = 1.0
    final_size: Count = 4
    share: Share = 1.0

    def child(self, architecture: Architecture, num_classes: int) -> Architecture:
        """The network that is trained for a deployed one, with the classes of the images."""
        resolution = self.resolution or architecture.resolution
        return for_proxy(architecture, resolution, self.width, self.final_size, num_classes)


class Benchmark(_Section):
    """Recorded trainings to look children up in, instead of training them (`nas.evaluators.benchmark`).

    Attributes:
        source: `rehearsal`, the surrogate that is shipped, or a benchmark's .jsonl or .jsonl.gz.
        noise: standard deviation of an observed accuracy, in points; None for the benchmark's own.
    """

    source: Annotated[str, _located(REHEARSAL)] = REHEARSAL
    noise: Annotated[float, Field(ge=0, le=100)] | None = None


class ObjectiveSection(_Section):
    """The reward (`nas.objective`).

    Attributes:
        name: `mnasnet` for ACC * [COST/T]^w, `hard` for its form with w = 0 up to T and -1 above, `absolute` for
            TuNAS's ACC + w * |COST/T - 1|, `auto` for exponents adapted until what is handed over meets T.
        cost: `flops`, `params` or `latency` of the deployed network, or a device metric of the benchmark.
        target: T in multiply-adds, parameters, milliseconds or images a second: 400M, 4e8, 400000000.
        w: the exponent, up to T only if `w_above` is given; `hard` and `auto` have their own.
        w_above: the exponent above T, of `mnasnet`.
    """

    name: Literal["mnasnet", "hard", "absolute", "auto"] = "mnasnet"
    cost: Annotated[str, AfterValidator(_known_cost)] = "flops"
    target: Quantity
    w: Exponent | None = None
    w_above: Exponent | None = None

    @model_validator(mode="after")
    def _plausible(self) -> ObjectiveSection:
        least = {"flops": LEAST_FLOPS, "params": 1e3}.get(self.cost, 0)
        if self.target < least:
            unit = {"flops": "multiply-adds", "params": "parameters"}[self.cost]
            hint = f"; write {self.target:g}M?" if self.target >= 1 else ""
            raise ValueError(f"target: {self.target:g} {unit} is less than any network has{hint}")
        return self

    @model_validator(mode="after")
    def _own_exponents(self) -> ObjectiveSection:
        for field in ("w", "w_above"):
            if getattr(self, field) is not None and (
                self.name in OWN_EXPONENTS or (self.name, field) == ("absolute", "w_above")
            ):
                raise ValueError(f"{field}: the objective {self.name} takes none; leave it out, or use mnasnet")
        return self


class ControllerSection(_Section):
    """Which controller chooses, and its options (`controllers.create`)."""

    name: str = "model_based"
    options: dict[str, Any] = {}


class EarlyStopping(_Section):
    """ASHA (Li et al. 2020): rungs at `grace_epochs` times powers of `reduction` let one child in `reduction` go on."""

    grace_epochs: Count = 1
    reduction: Several = 3


class ExecutorSection(_Section):
    """Where the children train.

    Attributes:
        name: `tune` for Ray Tune, `serial` for this process, one child after the other.
        workers: children at a time; None for as many as fit when it starts. If more are asked for than fit on a Ray
            cluster, machines that join it are used.
        cpus_per_child: CPU cores of a child; also its threads.
        gpus_per_child: GPUs of a child, which trains on one at most; 0.5 puts two on one.
        time_limit: seconds after which a child is given up.
        retries: how often a child is started again after its worker died, or failed for a reason other than
            divergence or time. Where Ray ended it for want of memory beside other workers, that doesn't count.
    """

    name: Literal["tune", "serial"] = "tune"
    workers: Count | None = None
    cpus_per_child: Positive = 1.0
    gpus_per_child: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    time_limit: Positive = 3600.0
    retries: Whole = 1
    early_stopping: EarlyStopping | None = None

    @model_validator(mode="after")
    def _possible(self) -> ExecutorSection:
        if self.name == "serial" and self.early_stopping:
            raise ValueError("early_stopping: needs children side by side; use the executor tune")
        if self.name == "serial" and self.workers not in (None, 1):
            raise ValueError("workers: the serial executor trains one child at a time; use the executor tune")
        for name in ("cpus_per_child", "gpus_per_child"):
            if 0 < getattr(self, name) < _LEAST_SHARE:
                raise ValueError(f"{name}: must be at least {_LEAST_SHARE}, the smallest share that Ray knows")
        return self


class Deployment(_Section):
    """The network that will be used, whose cost counts; None takes the search space's own value."""

    resolution: Annotated[int, Field(ge=8, le=4096)] | None = None
    num_classes: Count | None = None


def _members(phis: list[float]) -> list[float]:
    if any(0 < phi < 1 for phi in phis):
        raise ValueError("must be 1 or more, or 0 for the network itself")
    return list(dict.fromkeys(phis))


class Scale(_Section):
    """How the coefficients of compound scaling are searched (`nas.grid`), and the family that follows.

    Attributes:
        retrain: leaders of the search, as its controller estimates, to retrain first (`nas.retrain`).
        step: of the grid of coefficients, which begins at 1.
        tolerance: how far alpha * beta^2 * gamma^2 may be from 2.
        leaders: candidates to train again.
        seeds: trainings of a leader, with fresh seeds.
        divisor: channels of the candidates are multiples of it; 8 would round small steps in width away.
        compare: whether to grow by width, depth and resolution alone as well, at equal FLOPs.
        phi: of the family's members.
    """

    retrain: Count = 5
    step: Annotated[float, Field(ge=0.01, le=1)] = 0.1
    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    leaders: Count = 4
    seeds: Several = 3
    divisor: Count = 1
    compare: bool = False
    phi: Annotated[list[Annotated[float, Field(ge=0, le=20)]], Field(min_length=1), AfterValidator(_members)] = [
        *map(float, range(8))
    ]


class Recipe(_Section):
    """A whole search.

    Attributes:
        children: how many trainings there are, the baseline's not counted; a leader's second one counts as well.
        space: a space of the library or a YAML file.
        baseline: the network to compare with, of the library or a YAML file.
        data: the images, and `proxy` how a child trains on them.
        benchmark: recorded trainings to look children up in, instead of both.
        scale: what follows the search, up to a family of networks; None for nothing.
    """

    format: Literal["baseline-nas/recipe/1"]
    name: Annotated[str, AfterValidator(_folder_name)]
    seed: Whole = 0
    children: Count
    space: Annotated[str, _located(*library.names("space"))]
    baseline: Annotated[str, _located(*library.names("architecture"))] = "efficientnet-b0"
    deployment: Deployment = Deployment()
    objective: ObjectiveSection
    controller: ControllerSection = ControllerSection()
    data: Data | None = None
    proxy: Proxy | None = None
    benchmark: Benchmark | None = None
    executor: ExecutorSection = ExecutorSection()
    scale: Scale | None = None

    @model_validator(mode="before")
    @classmethod
    def _looked_up_here(cls, values: Any) -> Any:
        """Look-ups take microseconds: they need no executor but this process."""
        if not recipe_file.has_benchmark(values) or not isinstance(values.get("executor", {}), Mapping):
            return values
        given = values.get("executor", {})
        if given.get("workers") not in (None, 1):
            raise ValueError("executor.workers: a benchmark is looked up in this process, one child after the other")
        return {**values, "executor": {"name": "serial", **given}}

    @model_validator(mode="after")
    def _trains_or_looks_up(self) -> Recipe:
        for section in ("data", "proxy"):
            if (getattr(self, section) is None) == (self.benchmark is None):
                raise ValueError(f"{section}: {'missing' if self.benchmark is None else 'a benchmark is not trained'}")
        if self.benchmark and self.executor.name != "serial":
            raise ValueError("executor.name: a benchmark is looked up in this process; use serial")
        if self.benchmark and self._deployment():
            raise ValueError("deployment: a benchmark's networks were measured as they are; leave it out")
        if self.benchmark and self.scale:
            raise ValueError("scale: trains grown networks on images, and a benchmark has none; search with images")
        if not self.benchmark and self.objective.cost not in COSTS:
            raise ValueError(f"objective.cost: {self.objective.cost} needs a benchmark that measured it")
        return self

    @model_validator(mode="after")
    def _controller_exists(self) -> Recipe:
        if self.controller.name not in controllers.NAMES:
            known = ", ".join(controllers.NAMES)
            raise ValueError(f"controller.name: {self.controller.name!r} is unknown; use one of {known}")
        return self

    @classmethod
    def load(cls, name_or_path: str, settings: Sequence[str] = (), source: str | None = None) -> Recipe:
        """A shipped recipe by name or a YAML file by path, with `key=value` settings laid over it.

        Args:
            name_or_path: of the recipe.
            settings: `a.b=value` each.
            source: of the images, or of the benchmark in a recipe with one; a file of another benchmark brings its own
                space, baseline, T and noise.

        Raises:
            InputError: no such recipe, or a wrong key, type, unit or range; the message names the file and the field.
        """
        file = recipe_file.read(name_or_path)
        recipe = cls.parse(recipe_file.lay_over(file, settings, source), name_or_path)
        recipe_file.check_unit(file, settings)
        return recipe

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Recipe:
        """A recipe from the mapping of its YAML.

        Raises:
            RecipeError: a wrong key, type, unit or range; the message gives its path, after `where`.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(f"{where}: {first_error(error, cls)}") from None

    def scaling(self) -> Recipe:
        """The recipe with a `scale` section: its own, or the defaults.

        Raises:
            RecipeError: a benchmark has nothing to train on.
        """
        return self if self.scale else Recipe.parse({**self.model_dump(), "scale": {}}, self.name)

    def to_yaml(self) -> str:
        """The recipe with every default written out, one section per line."""
        return "".join(f"{name}: {flow(value)}\n" for name, value in self.model_dump().items())

    def with_source_of(self, other: Recipe) -> Recipe:
        """This recipe with its images, or its benchmark's file, where the other has them."""
        moved = {}
        for name in ("data", "benchmark"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours and theirs:
                moved[name] = ours.model_copy(update={"source": theirs.source})
        return self.model_copy(update=moved)

    def differs(self, other: Recipe) -> str | None:
        """Path of the first field in which two recipes differ, None if they are equal."""
        return _first_difference(self.model_dump(), other.model_dump(), "")

    def load_space(self) -> SearchSpace:
        """The search space of the deployed network."""
        with _named("space"):
            space = load_space(self.space)
        with _named(f"{self.space}, as `deployment` asks for it"):
            return space.with_(**self._deployment())

    def load_baseline(self) -> Architecture:
        """The network to compare with, deployed as the children are: at their resolution, with their classes."""
        space = self.load_space()
        network, chosen = space.decode([0] * len(space.decisions)), {decision.name for decision in space.decisions}
        shared = {field: getattr(network, field) for field in Deployment.model_fields if field not in chosen}
        with _named("baseline"):
            baseline = load_architecture(self.baseline)
        with _named(f"baseline: {self.baseline}, deployed as {self.space}'s are"):
            return baseline.with_(**shared)

    def make_objective(self) -> Objective:
        """The reward."""
        section = self.objective
        more = section.cost.startswith("throughput")
        return make_objective(section.name, section.target, section.w, section.w_above, more)

    @property
    def target_cancels(self) -> bool:
        """Whether T doesn't change the ranking, for one exponent counts on both sides of it."""
        objective = self.make_objective()
        return self.objective.name == "mnasnet" and objective.w_above in (None, objective.w)

    def _deployment(self) -> dict[str, int]:
        return self.deployment.model_dump(exclude_none=True)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Begin the message of an error with what it is about."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{where}: {error}") from None


def _first_difference(ours: object, theirs: object, path: str) -> str | None:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            found = _first_difference(ours.get(key), theirs.get(key), f"{path}.{key}".lstrip("."))
            if found:
                return found
        return None
    return None if ours == theirs else path
