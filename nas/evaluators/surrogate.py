"""Numbers of every network of a space, learned from those of some of them, and their compact file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from controllers.features import Features
from controllers.threads import single_threaded
from nas.benchmark_file import BenchmarkError
from nas.evaluators.gaussian_process import GaussianProcess, MeanFunction
from nas.quantities import plural
from search_space.space import Actions

_LEAST_ROWS, _LEAST_TAU = 50, 0.5
_DECIMALS = 6

_MOST_ROWS = 5_000
"""Fitting takes memory with the square of their number, about 1 GB for so many, and time with the third power."""


@dataclass(frozen=True)
class Surrogate:
    """A number of every network of a space, an accuracy in [0, 1] or a logarithm, learned from some.

    Attributes:
        features: of the space.
        mean: from features to the number.
        tau: Kendall's between the numbers and those predicted without them.
    """

    features: Features
    mean: MeanFunction
    tau: float

    @classmethod
    def fitted(cls, features: Features, known: Mapping[Actions, float], where: str) -> Self:
        """Fit to the numbers of some networks; of more than `_MOST_ROWS`, to that many spread evenly over them.

        Raises:
            BenchmarkError: too few, or values that can't be predicted from the networks; `where` names the file and
                the field.
        """
        from scipy.stats import kendalltau

        if len(known) < _LEAST_ROWS:
            raise BenchmarkError(
                f"{where}: {plural(len(known), 'network')}, too few to learn from; {_LEAST_ROWS} at least"
            )
        values = np.array(list(known.values()))
        if np.ptp(values) == 0:
            raise BenchmarkError(f"{where}: all {len(known)} networks have the same value")
        rows = np.linspace(0, len(known) - 1, min(len(known), _MOST_ROWS)).round().astype(int)
        values = values[rows]
        process = GaussianProcess(features.kinds, features(np.array(list(known))[rows]), values)
        tau = float(kendalltau(process.loo_means(), values).statistic)
        if not tau >= _LEAST_TAU:
            raise BenchmarkError(
                f"{where}: can't be predicted from the networks (cross-validated Kendall tau {tau:.2f}, "
                f"{_LEAST_TAU} at least); are the rows mixed up, too noisy or too few?"
            )
        return cls(features, process.mean, tau)

    def values(self, actions: Sequence[Actions] | np.ndarray) -> np.ndarray:
        """Predicted numbers (n,) of n networks, rounded: their last digits depend on how many cores fitted them."""
        with single_threaded():
            return self.mean(self.features(actions)).round(_DECIMALS)


def save(path: Path, centres: np.ndarray, surrogates: Mapping[str, Surrogate]) -> None:
    """Write surrogates whose centres are the same networks of a library's space, as plain arrays.

    Args:
        path: of the .npz file.
        centres: (n, decisions) actions.
        surrogates: by name.
    """
    means = [surrogate.mean for surrogate in surrogates.values()]
    np.savez_compressed(
        path,
        names=np.array(list(surrogates)),
        centres=centres.astype(np.uint8),
        inverse_lengths=np.stack([mean.inverse_lengths.numpy() for mean in means]).astype(np.float32),
        weights=np.stack([mean.weights.numpy() for mean in means]).astype(np.float32),
        offsets=np.array([mean.offset for mean in means]),
        taus=np.array([surrogate.tau for surrogate in surrogates.values()]),
    )


def load(path: Path, features: Features) -> dict[str, Surrogate]:
    """The surrogates that `save` wrote, for the features of their space."""
    with np.load(path, allow_pickle=False) as file:
        held = {name: file[name] for name in file.files}
    x = torch.from_numpy(features(held["centres"]))
    surrogates = {}
    for i, name in enumerate(held["names"].tolist()):
        inverse_lengths, weights = (
            torch.from_numpy(held[field][i].astype(np.float64)) for field in ("inverse_lengths", "weights")
        )
        mean = MeanFunction(x * inverse_lengths, inverse_lengths, weights, float(held["offsets"][i]))
        surrogates[name] = Surrogate(features, mean, float(held["taus"][i]))
    return surrogates
