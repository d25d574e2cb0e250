"""The best of a search space under a score that costs microseconds: iterated local search."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from search_space import SearchSpace
from search_space.space import Actions

_SAMPLE, _STARTS, _FINALISTS = 4096, 32, 4

_KICKS, _KICKED, _PATIENCE = 128, 0.25, 2
"""Copies of the best peak from which is climbed again, the share of their decisions that is drawn anew, and how many
times that may find nothing better: below a hard limit on cost, many a peak isn't the highest."""

_LEAST_GAIN = 1e-12

Score = Callable[[np.ndarray], np.ndarray]
Move = tuple[tuple[int, int], ...]
"""Decisions and the choices that they take."""


def optimum(space: SearchSpace, score: Score) -> tuple[Actions, float]:
    """Actions that no two changed decisions improve, and their score: the best of many climbs from a fixed seed.

    Iterated local search (Lourenço, Martin & Stützle, Handbook of Metaheuristics, 2003).

    Args:
        space: to search.
        score: of each row of actions (n, decisions), (n,); higher is better.
    """
    rng = np.random.default_rng(0)
    sample = np.array([space.sample_actions(rng) for _ in range(_SAMPLE)])
    sizes = [len(decision.choices) for decision in space.decisions]
    singles: list[Move] = [((i, choice),) for i, size in enumerate(sizes) for choice in range(size)]
    pairs: list[Move] = [(*a, *b) for a, b in combinations(singles, 2) if a[0][0] != b[0][0]]
    starts = sample[np.argsort(-score(sample), kind="stable")[:_STARTS]]
    best, value, patience = starts[0], -np.inf, _PATIENCE
    while patience:
        peaks, values = _climb(starts, singles, score)
        finalists = np.unique(peaks[np.argsort(-values, kind="stable")[:_FINALISTS]], axis=0)
        peaks, values = _climb(finalists, singles + pairs, score)
        if values.max() > value + _LEAST_GAIN:
            best, value, patience = peaks[values.argmax()], float(values.max()), _PATIENCE
        else:
            patience -= 1
        kicked = rng.random((_KICKS, len(sizes))) < _KICKED
        starts = np.where(kicked, rng.integers(sizes, size=kicked.shape), best)
    return tuple(best.tolist()), value


def _climb(rows: np.ndarray, moves: list[Move], score: Score) -> tuple[np.ndarray, np.ndarray]:
    """Take the best move from each row until none improves any; the rows and their scores."""
    rows, values = rows.copy(), score(rows)
    climbing = np.arange(len(rows))
    while len(climbing):
        moved = np.repeat(rows[climbing, None], len(moves), axis=1)
        for j, move in enumerate(moves):
            for decision, choice in move:
                moved[:, j, decision] = choice
        # Many moves lead to one network, for a choice may be taken already.
        distinct, places = np.unique(moved.reshape(-1, rows.shape[1]), axis=0, return_inverse=True)
        scores = score(distinct)[places].reshape(len(climbing), -1)
        best = scores.argmax(1)
        gained = scores.max(1) > values[climbing] + _LEAST_GAIN
        rows[climbing[gained]] = moved[gained, best[gained]]
        values[climbing[gained]] = scores.max(1)[gained]
        climbing = climbing[gained]
    return rows, values
