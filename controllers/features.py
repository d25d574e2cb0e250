"""Numbers that describe an architecture to a regression model, and its exact costs: thousands a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from search_space import Architecture, SearchSpace
from search_space.cost import Cost, flops, params, per_part
from search_space.layers import Shape
from search_space.space import Actions

COST_COLUMNS: dict[Callable[[Architecture], float], int] = {flops: 0, params: 1}
"""The column of `Features.costs` that holds what each of these functions counts."""

_FIELDS = ("layers", "kernel_size", "exp_ratio", "out_chs", "se_ratio")
_OF_ALL = ("layers of all", "kernel_size of all", "exp_ratio of all", "se_ratio of all")
_SAMPLE = 512
_FLOOR = 1e-3
"""Share of the space's mean total that is added to a cost under the logarithm: a stage may cost nothing."""


class _Piece(NamedTuple):
    """What the stem (with all choices outside the stages), one stage, or the head adds to a row.

    Attributes:
        number: among the pieces of its place.
        state: what the next piece depends on besides its own choices: those outside the stages, and its input's shape.
    """

    number: int
    state: int


class Features:
    """Actions of one space as rows of numbers for regression, of mean 0 and variance 1 over the space.

    The columns: every decision's choice one-hot (zeros where the decision has no effect), the value of numeric choices
    outside the stages; per stage its layers, kernel, expansion, channels and SE; of the whole network its layers, their
    mean kernel, expansion and SE, and whether early or late stages have them; the logarithms of the FLOPs and params of
    stem, stages, head and the whole. A stage without layers has zeros, whatever its other choices. Columns that are
    constant in the space are left out.

    A piece of the network depends on its own choices and its input's shape alone, so pieces are computed once and put
    together: about 5 microseconds an architecture.

    Args:
        space: that the actions belong to.
        one_hot: whether numeric choices have one-hot columns, which thousands of rows can tell apart; hundreds are
            told more by columns of the whole network instead, which sum up what all its layers have.

    Attributes:
        space: that the actions belong to.
        kinds: (num_features,) what each column tells of its piece, as a number: which choice of a field, a field's
            value, FLOPs or params. Columns of a kind are alike at every stage, and can share a length scale.
    """

    def __init__(self, space: SearchSpace, one_hot: bool = True) -> None:
        self.space, self._one_hot = space, one_hot
        self._ranges = _ranges(space)
        self._pieces: dict[tuple[int, int, Actions], _Piece] = {}
        self._states: dict[tuple[Actions, Shape], int] = {}
        self._tables = [_Table() for _ in self._ranges]
        rng = np.random.default_rng(0)
        numbers = self._numbers([space.sample_actions(rng) for _ in range(_SAMPLE)])
        self._floor = _FLOOR * self._costs(numbers).sum(1).mean(0)
        raw = self._raw(numbers)
        scale = raw.std(0)
        self._varying = scale > 1e-9
        self._mean, self._scale = raw.mean(0)[self._varying], scale[self._varying]
        self.kinds: np.ndarray = np.unique(np.array(self._kinds())[self._varying], return_inverse=True)[1]

    def __call__(self, actions: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        """Rows of numbers, (n, num_features) float64.

        Args:
            actions: n rows, each one index into `choices` per decision of the space.

        Raises:
            SpaceError: a row isn't one of the space's.
        """
        return self._scaled(self._numbers(actions))

    def costs(self, actions: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        """Exact FLOPs (multiply-adds) and params of each network, (n, 2) int64, as `search_space.cost` counts them.

        Raises:
            SpaceError: a row isn't one of the space's.
        """
        total: np.ndarray = self._costs(self._numbers(actions)).sum(1)
        return total

    def with_costs(self, actions: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n, num_features) and costs (n, 2) of n networks, by one search for their pieces.

        Raises:
            SpaceError: a row isn't one of the space's.
        """
        numbers = self._numbers(actions)
        return self._scaled(numbers), self._costs(numbers).sum(1)

    def _numbers(self, actions: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        """The pieces of each network, (n, places)."""
        rows = actions.tolist() if isinstance(actions, np.ndarray) else actions
        found = [self._find(tuple(row)) for row in rows]
        return np.array(found, dtype=np.intp).reshape(len(found), len(self._ranges))

    def _find(self, actions: Actions) -> list[int]:
        state, numbers, pieces = 0, [], self._pieces
        for place, (begin, end) in enumerate(self._ranges):
            piece = pieces.get((place, state, actions[begin:end]))
            if piece is None:
                self._add(actions)
                return self._find(actions)
            number, state = piece
            numbers.append(number)
        return numbers

    def _add(self, actions: Actions) -> None:
        """Compute the pieces of one network that are new."""
        architecture = self.space.decode(actions)
        outside = actions[slice(*self._ranges[0])]
        state = 0
        for place, (part, cost) in enumerate(per_part(architecture)):
            key = (place, state, actions[slice(*self._ranges[place])])
            state = self._states.setdefault((outside, part.out_shape), len(self._states) + 1)
            if key not in self._pieces:
                row = np.array(self._row(architecture, actions, place)) * bool(part.blocks)
                self._pieces[key] = _Piece(self._tables[place].add(row, cost), state)

    def _kinds(self) -> list[str]:
        """The kind of every column, the constant ones included."""
        kinds: list[str] = []
        for place, (begin, end) in enumerate(self._ranges):
            for decision in self.space.decisions[begin:end] if place < len(self._ranges) - 1 else ():
                width = len(decision.choices) * self._has_one_hot(decision.choices)
                kinds += [f"choice of {decision.name.split('.')[-1]}"] * width
                kinds += ["number"] if place == 0 else []
            kinds += _FIELDS if 0 < place <= self.space.num_stages else ()
        if not self._one_hot:
            kinds += [*_OF_ALL, *(f"moment of {name}" for name in _OF_ALL)]
        return [*kinds, *["FLOPs", "params"] * len(self._ranges), "FLOPs of all", "params of all"]

    def _has_one_hot(self, choices: Sequence[Any]) -> bool:
        return self._one_hot or not all(isinstance(choice, (int, float)) for choice in choices)

    def _row(self, architecture: Architecture, actions: Actions, place: int) -> list[float]:
        """What describes one piece besides its costs."""
        active = self.space.active(actions)
        row: list[float] = []
        for i in range(len(actions))[slice(*self._ranges[place])]:
            choices, action = self.space.decisions[i].choices, actions[i]
            if self._has_one_hot(choices):
                row += [float(active[i] and action == j) for j in range(len(choices))]
            if place == 0:
                row.append(_number(choices[action]))
        if 0 < place <= self.space.num_stages:
            row += [_number(getattr(architecture.stages[place - 1], field)) for field in _FIELDS]
        return row

    def _costs(self, numbers: np.ndarray) -> np.ndarray:
        """FLOPs and params of each piece, (n, places, 2)."""
        return np.stack([table.arrays()[1][column] for table, column in zip(self._tables, numbers.T, strict=True)], 1)

    def _scaled(self, numbers: np.ndarray) -> np.ndarray:
        """Rows of numbers (n, num_features) from the pieces of n networks (n, places)."""
        scaled: np.ndarray = (self._raw(numbers)[:, self._varying] - self._mean) / self._scale
        return scaled

    def _raw(self, numbers: np.ndarray) -> np.ndarray:
        """The same before scaling, the constant columns included."""
        rows = [table.arrays()[0][column] for table, column in zip(self._tables, numbers.T, strict=True)]
        whole = [] if self._one_hot else [_whole(np.stack([row[:, -len(_FIELDS) :] for row in rows[1:-1]], 1))]
        costs = self._costs(numbers)
        logs = np.log(np.concatenate([costs, costs.sum(1, keepdims=True)], 1) + self._floor)
        return np.concatenate([*rows, *whole, logs.reshape(len(numbers), logs.shape[1] * 2)], 1)


def _whole(stages: np.ndarray) -> np.ndarray:
    """Columns of the whole network (n, 8) from the stages' fields (n, stages, fields).

    Its layers, the means of their fields, and how layers and fields are spread: their moments about the middle stage.
    """
    layers, kernel, expansion, _, se = np.moveaxis(stages, 2, 0)
    log_expansion = np.log(np.where(expansion > 0, expansion, 1.0))
    weighed = layers[..., None] * np.stack([np.ones_like(layers), kernel, log_expansion, se], 2)
    sums, moments = weighed.sum(1), np.linspace(-1, 1, layers.shape[1]) @ weighed
    return np.concatenate([sums[:, :1], sums[:, 1:] / sums[:, :1].clip(1), moments], 1)


class _Table:
    """The rows of one place's pieces, in arrays that grow."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._costs: list[tuple[int, int]] = []
        self._arrays = np.empty((0, 0)), np.empty((0, 2), dtype=np.int64)

    def add(self, row: np.ndarray, cost: Cost) -> int:
        """Append a piece; its number."""
        self._rows.append(row)
        self._costs.append((cost.flops, cost.params))
        return len(self._rows) - 1

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (pieces, columns) and FLOPs and params (pieces, 2)."""
        if len(self._arrays[0]) < len(self._rows):
            self._arrays = np.array(self._rows), np.array(self._costs, dtype=np.int64)
        return self._arrays


def _ranges(space: SearchSpace) -> list[tuple[int, int | None]]:
    """Where the decisions of each place begin and end: outside the stages, per stage, and none for the head.

    The last end is open, so that a row that is too long isn't taken for a known one.
    """
    lengths = (len(next(space.stage_options(i))[0]) for i in range(space.num_stages))
    ends = list(accumulate(lengths, initial=len(space.outside)))
    return [(0, ends[0]), *pairwise(ends), (ends[-1], None)]


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
