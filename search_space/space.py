"""Search spaces: an architecture's YAML with lists of choices in its fields and `one_of` in its stages."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from search_space.architecture import Architecture, HeadSpec, StageSpec, StemSpec, build
from search_space.blocks import Block, expand_stage
from search_space.errors import InputError, SpaceError, shown
from search_space.files import read_format
from search_space.layers import Shape

FORMAT = "baseline-nas/space/1"

_FREE = ("activation", "dropout", "drop_path")
"""Fields outside the stages on which no cost depends."""

_MOST_STAGES = 200

Actions = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing to choose: its path in the file (`stages[2].kernel_size`) and the choices."""

    name: str
    choices: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Fields:
    """Fields of a mapping: what is fixed, and which decision each open one follows."""

    fixed: Mapping[str, Any]
    open: Mapping[str, int]

    def resolve(self, decisions: Sequence[Decision], actions: Sequence[int] | Mapping[int, int]) -> dict[str, Any]:
        return {**self.fixed, **{name: decisions[i].choices[actions[i]] for name, i in self.open.items()}}


@dataclass(frozen=True, slots=True)
class _Stage:
    """Alternatives for one stage; `selector` is the decision among them, None if there is just one."""

    selector: int | None
    alternatives: tuple[_Fields, ...]
    decisions: tuple[int, ...]

    def chosen(self, actions: Sequence[int] | Mapping[int, int]) -> _Fields:
        return self.alternatives[0 if self.selector is None else actions[self.selector]]

    def active(self, actions: Sequence[int]) -> set[int]:
        own = set(self.chosen(actions).open.values())
        return own if self.selector is None else own | {self.selector}


class SearchSpace:
    """All architectures that one space file describes.

    An architecture is named by its actions: one index into `choices` per decision. Decisions of `one_of` alternatives
    that weren't chosen have no effect; alternatives share the decisions that they have in common.

    Attributes:
        name: of the space.
        decisions: what there is to choose, in the order of the file.
        outside: indices of the decisions outside the stages, which always have an effect.

    Raises:
        SpaceError: no choices, an empty or repeated choice, or a choice that no network can have.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        values = dict(values)
        self.name: str = values.get("name", "unnamed")
        if not isinstance(self.name, str):
            raise SpaceError(f"name: must be a text, not {shown(self.name)}")
        found: dict[tuple[str, str], Decision] = {}
        self._parts = {name: self._fields(found, name, values.pop(name)) for name in ("stem", "head") if name in values}
        stages = values.pop("stages", None)
        if not isinstance(stages, list) or not 0 < len(stages) <= _MOST_STAGES:
            raise SpaceError(f"stages: must be a list of 1 to {_MOST_STAGES} stages")
        self._top = self._fields(found, "", values)
        self.outside = tuple(range(len(found)))
        self._stages = tuple(self._stage(found, f"stages[{i}]", stage) for i, stage in enumerate(stages))
        self.decisions = tuple(found.values())
        if not self.decisions:
            raise SpaceError("the space has no choice: give at least one field a list, or a stage `one_of`")
        self._specs: dict[tuple[int, Actions], StageSpec] = {}
        self._check_choices()

    def _decide(self, found: dict[tuple[str, str], Decision], name: str, choices: Sequence[Any]) -> int:
        if not choices:
            raise SpaceError(f"{name}: the list of choices is empty")
        if any(choice == other for i, choice in enumerate(choices) for other in choices[:i]):
            raise SpaceError(f"{name}: a choice is repeated in {list(choices)}")
        key = (name, repr(choices))
        found.setdefault(key, Decision(name, tuple(choices)))
        return list(found).index(key)

    def _fields(self, found: dict[tuple[str, str], Decision], where: str, values: object) -> _Fields:
        if not isinstance(values, Mapping):
            raise SpaceError(f"{where}: must be a mapping of fields, not {shown(values)}")
        fixed, open_ = {}, {}
        for field, value in values.items():
            name = f"{where}.{field}" if where else field
            if not isinstance(value, list):
                fixed[field] = value
            elif len(value) == 1:
                fixed[field] = value[0]
            else:
                open_[field] = self._decide(found, name, value)
        return _Fields(fixed, open_)

    def _stage(self, found: dict[tuple[str, str], Decision], where: str, values: object) -> _Stage:
        selector, options = None, [values]
        if isinstance(values, Mapping) and "one_of" in values:
            if len(values) > 1 or not isinstance(values["one_of"], list):
                raise SpaceError(f"{where}.one_of: must be a list of whole stages and the stage's only field")
            options = values["one_of"]
            if any(option in options[:i] for i, option in enumerate(options)):
                raise SpaceError(f"{where}.one_of: a choice is repeated")
            ops = [option.get("op") if isinstance(option, Mapping) else option for option in options]
            names = tuple(f"{i}: {op}" for i, op in enumerate(ops))
            selector = self._decide(found, f"{where}.one_of", names)
        alternatives = tuple(self._fields(found, where, option) for option in options)
        used = {i for option in alternatives for i in option.open.values()}
        used |= set() if selector is None else {selector}
        return _Stage(selector, alternatives, tuple(sorted(used)))

    def _check_choices(self) -> None:
        """Every choice must be valid, and the largest strides together must leave a pixel of the smallest images."""
        try:
            options = [[stage for _, stage in self.stage_options(i)] for i in range(self.num_stages)]
            for i, decision in enumerate(self.decisions):
                for action in range(len(decision.choices)):
                    self.decode([action if j == i else 0 for j in range(len(self.decisions))])
            for frame in self._frames():
                frame.with_(stages=tuple(max(stages, key=attrgetter("stride")) for stages in options))
        except InputError as error:
            raise SpaceError(str(error)) from None

    def with_(self, **fields: Any) -> SearchSpace:
        """The space with some of its top-level fields changed, such as `resolution` or `num_classes`."""
        return SearchSpace({**self._values, **fields}) if fields else self

    def to_dict(self) -> dict[str, Any]:
        """The content of the YAML file, without its `format` line."""
        return dict(self._values)

    @property
    def num_stages(self) -> int:
        """Stages that every architecture of the space has, those of no layers included."""
        return len(self._stages)

    @property
    def size(self) -> int:
        """How many action sequences differ in effect (some of them may still be the same network)."""

        def ways(decisions: Iterable[int]) -> int:
            return math.prod(len(self.decisions[i].choices) for i in decisions)

        stages = (sum(ways(option.open.values()) for option in stage.alternatives) for stage in self._stages)
        return ways(self.outside) * math.prod(stages)

    def active(self, actions: Sequence[int]) -> tuple[bool, ...]:
        """For each decision, whether it has an effect under these actions."""
        used = set(self.outside).union(*(stage.active(actions) for stage in self._stages))
        return tuple(i in used for i in range(len(self.decisions)))

    def cost_range(self, cost: Callable[[Architecture], float]) -> tuple[float, float]:
        """The least and the greatest cost of the space's architectures.

        Exact for a cost that is a sum over stem, stages and head, such as FLOPs and params: of all beginnings that
        hand the same shape on, the cheapest stays the cheapest and the dearest the dearest.
        """
        ends: list[float] = []
        for frame in self._frames():
            reached: list[tuple[float, tuple[StageSpec, ...]]] = [(0.0, ())]
            for index in range(self.num_stages):
                following: dict[Shape, list[tuple[float, tuple[StageSpec, ...]]]] = {}
                for _, beginning in reached:
                    for _, stage in self.stage_options(index):
                        network = frame.with_(stages=(*beginning, stage))
                        found = (cost(network), network.stages)
                        following.setdefault(network.parts()[-2].out_shape, []).append(found)
                reached = [pick(same, key=itemgetter(0)) for same in following.values() for pick in (min, max)]
            ends += [value for value, _ in reached]
        return min(ends), max(ends)

    def _frames(self) -> Iterator[Architecture]:
        """An architecture for every choice outside the stages that a cost may depend on."""
        costly = [i for i in self.outside if self.decisions[i].name not in _FREE]
        for choice in product(*(range(len(self.decisions[i].choices)) for i in costly)):
            chosen = dict(zip(costly, choice, strict=True))
            yield self.decode([chosen.get(i, 0) for i in range(len(self.decisions))])

    def sample_actions(self, rng: np.random.Generator) -> Actions:
        """Uniform actions."""
        return tuple(int(rng.integers(len(decision.choices))) for decision in self.decisions)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """The architecture of uniform actions."""
        return self.decode(self.sample_actions(rng))

    def decode(self, actions: Sequence[int]) -> Architecture:
        """The architecture that the actions choose.

        Args:
            actions: one index into `choices` per decision.

        Raises:
            SpaceError: too few or too many actions, or one that is no index or out of range.
        """
        if len(actions) != len(self.decisions):
            raise SpaceError(
                f"actions: {len(actions)} given, the space {self.name} has {len(self.decisions)} decisions"
            )
        try:
            actions = [operator.index(action) for action in actions]
        except TypeError:
            raise SpaceError(f"actions: must be whole numbers, not {shown(actions)}") from None
        for decision, action in zip(self.decisions, actions, strict=True):
            if not 0 <= action < len(decision.choices):
                raise SpaceError(f"{decision.name}: action {action} is not one of its {len(decision.choices)} choices")
        values = self._top.resolve(self.decisions, actions)
        for name, kind in (("stem", StemSpec), ("head", HeadSpec)):
            if name in self._parts:
                values[name] = build(kind, self._parts[name].resolve(self.decisions, actions), name)
        values["stages"] = tuple(self._spec(i, actions) for i in range(len(self._stages)))
        return build(Architecture, values)

    def _spec(self, index: int, actions: Sequence[int] | Mapping[int, int]) -> StageSpec:
        stage = self._stages[index]
        key = (index, tuple(actions[i] for i in stage.decisions))
        if key not in self._specs:
            values = stage.chosen(actions).resolve(self.decisions, actions)
            self._specs[key] = build(StageSpec, values, f"stages[{index}]")
        return self._specs[key]

    def one_changed(self, actions: Actions) -> list[Actions]:
        """All that differ from the actions in one decision that has an effect."""
        return [
            (*actions[:i], choice, *actions[i + 1 :])
            for i, active in enumerate(self.active(actions))
            for choice in range(len(self.decisions[i].choices))
            if active and choice != actions[i]
        ]

    def neighbours(self, architecture: Architecture) -> list[Architecture]:
        """All different architectures of the space that one changed decision leads to.

        Raises:
            SpaceError: the architecture is outside the space.
        """
        others = map(self.decode, self.one_changed(self.encode(architecture)))
        found = {other.key(): other for other in others}
        found.pop(architecture.key(), None)
        return list(found.values())

    def contains(self, architecture: Architecture) -> bool:
        """Whether some actions lead to the same network."""
        try:
            self.encode(architecture)
        except SpaceError:
            return False
        return True

    def encode(self, architecture: Architecture) -> Actions:
        """The first actions that lead to the same network (equal `key()`); decisions without effect are 0.

        Raises:
            SpaceError: the architecture is outside the space; the message names where it leaves it.
        """
        actions = [0] * len(self.decisions)
        for i in self.outside:
            decision = self.decisions[i]
            wanted = attrgetter(decision.name)(architecture)
            if wanted not in decision.choices:
                raise SpaceError(f"{decision.name}: {wanted!r} is not one of {list(decision.choices)}")
            actions[i] = decision.choices.index(wanted)
        parts = architecture.parts()[1:-1]
        blocks = tuple(block for part in parts for block in part.blocks)
        match = _StageMatch(self, architecture.activation, blocks, set())
        if not match.run(0, 0, architecture.stem.out_chs, actions):
            raise SpaceError(f"stages[{match.furthest}]: no choice of the space {self.name} gives these layers")
        if self.decode(actions).key() != architecture.key():
            raise SpaceError(f"the architecture differs from the space {self.name} outside its stages")
        return tuple(actions)

    def stage_options(self, index: int) -> Iterator[tuple[dict[int, int], StageSpec]]:
        """Every way to choose one stage: the actions it takes and the stage."""
        stage = self._stages[index]
        for alternative, fields in enumerate(stage.alternatives):
            open_ = list(fields.open.values())
            selected = {} if stage.selector is None else {stage.selector: alternative}
            for choice in product(*(range(len(self.decisions[i].choices)) for i in open_)):
                actions = dict.fromkeys(stage.decisions, 0) | selected | dict(zip(open_, choice, strict=True))
                yield actions, self._spec(index, actions)


@dataclass
class _StageMatch:
    """A depth-first search for the stages that expand to exactly these blocks."""

    space: SearchSpace
    activation: str
    blocks: tuple[Block, ...]
    dead: set[tuple[int, int, int]]  # from where the rest was tried in vain
    reached: int = -1  # blocks that were matched at most, and the stage that came next
    furthest: int = 0

    def run(self, index: int, start: int, in_chs: int, actions: list[int]) -> bool:
        """Set the actions of the stages from `index` on, whose blocks begin at `start`; False if there are none."""
        if index == self.space.num_stages:
            return start == len(self.blocks)
        if (index, start, in_chs) in self.dead:
            return False
        if start > self.reached:
            self.reached, self.furthest = start, index
        for chosen, stage in self.space.stage_options(index):
            expanded = expand_stage(stage, in_chs, self.activation)
            end = start + len(expanded)
            out_chs = stage.out_chs if stage.layers else in_chs
            if self.blocks[start:end] == expanded and self.run(index + 1, end, out_chs, actions):
                for i, action in chosen.items():
                    actions[i] = action
                return True
        self.dead.add((index, start, in_chs))
        return False


def read_space(path: Path) -> SearchSpace:
    """The space of a YAML file.

    Raises:
        InputError: the file can't be read or isn't a valid space; the message names the file and the field.
    """
    values = read_format(path, FORMAT)
    try:
        return SearchSpace(values)
    except InputError as error:
        raise SpaceError(f"{path}: {error}") from None
