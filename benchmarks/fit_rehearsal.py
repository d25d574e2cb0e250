"""Fits the surrogate that is shipped, nas/evaluators/rehearsal.npz, to Accel-NASBench's rows.

The data are those of Accel-NASBench (Ahmad et al. 2024, arXiv 2404.08005, Apache-2.0), of which the result holds no
row: a Gaussian process is projected onto networks drawn at random from the space (subset of regressors, Rasmussen &
Williams 2006, section 8.3.1). Prints, for the accuracy and each device metric, Kendall's tau on a fifth of the networks
for a fit to the others; then fits to all and writes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from controllers.features import Features
from nas.benchmark_file import Network, format_of, read
from nas.evaluators import surrogate
from nas.evaluators.gaussian_process import GaussianProcess, MeanFunction, matern
from nas.evaluators.surrogate import Surrogate
from search_space import load_space
from search_space.space import Actions

CENTRES = 1500
SEED = 0


def projected(process: GaussianProcess, x: np.ndarray, y: np.ndarray, centres: np.ndarray) -> MeanFunction:
    """The mean function of a fitted process with other centres: weights by ridge regression on their kernels."""
    mean, noise = process.mean, process.hyperparameters.noise / process.hyperparameters.signal
    scaled = torch.from_numpy(centres) * mean.inverse_lengths
    across = matern(torch.from_numpy(x) * mean.inverse_lengths, scaled)
    system = across.T @ across + noise * matern(scaled, scaled)
    system.diagonal().add_(1e-6)  # so that single precision is enough for the weights
    weights = torch.linalg.solve(system, across.T @ torch.from_numpy(y - mean.offset))
    return MeanFunction(scaled, mean.inverse_lengths, weights, mean.offset)


def fitted(features: Features, known: Mapping[Actions, float], centres: np.ndarray) -> Surrogate:
    """The compact surrogate of some networks' numbers, and its tau on a fifth of them without these."""
    x, y = features(list(known)), np.array(list(known.values()))
    order = np.random.default_rng(SEED).permutation(len(y))
    test, train = np.split(order, [len(y) // 5])
    held_out = projected(GaussianProcess(features.kinds, x[train], y[train]), x[train], y[train], centres)
    tau = float(kendalltau(held_out(x[test]), y[test]).statistic)
    error = held_out(x[test]) - y[test]
    print(
        f"tau {tau:.4f}  R2 {1 - (error**2).mean() / y[test].var():.4f}  on {len(test)} held-out networks", flush=True
    )
    return Surrogate(features, projected(GaussianProcess(features.kinds, x, y), x, y, centres), tau)


def numbers(networks: Mapping[Actions, Network], name: str) -> dict[Actions, float]:
    """What is learned: the mean accuracy, or the logarithm of a metric where it was measured."""
    if name == "accuracy":
        return {actions: float(np.mean(network.accuracies)) for actions, network in networks.items()}
    return {actions: np.log(network.metrics[name]) for actions, network in networks.items() if name in network.metrics}


def main() -> None:
    """Fit, report and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="a .jsonl.gz in Accel-NASBench's format")
    file = parser.parse_args().file
    space = load_space(format_of(file).space)
    networks = read(file, space)
    features = Features(space)
    rng = np.random.default_rng(SEED)
    actions = np.array([space.sample_actions(rng) for _ in range(CENTRES)])
    metrics = sorted({name for network in networks.values() for name in network.metrics})
    surrogates = {}
    for name in ("accuracy", *metrics):
        print(f"{name:20s}", end="", flush=True)
        surrogates[name] = fitted(features, numbers(networks, name), features(actions))
    path = Path(surrogate.__file__).with_name("rehearsal.npz")
    surrogate.save(path, actions, surrogates)
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
