"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347, section 3) of the LSTM policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from controllers.base import Options, option
from controllers.policy import PolicyController, PolicyOptions

_MAX_LOG_RATIO = 20.0
"""Keeps exp() finite where a recorded log-prob comes from a quite different policy."""


@dataclass(frozen=True, slots=True)
class PPOOptions(PolicyOptions):
    """Options of `PPO`.

    Attributes:
        clip_coef: The probability ratio earns nothing beyond 1 +- this.
        update_epochs: Gradient steps per batch.
    """

    clip_coef: float = option(0.2, low=1e-9)
    update_epochs: int = option(2, low=1)


class PPO(PolicyController[PPOOptions]):
    """Several clipped steps per batch.

    The ratio is taken to the log-prob recorded with the suggestion, so outcomes of older policies stay valid.
    """

    options_type: ClassVar[type[Options]] = PPOOptions

    def _update(self, actions: Tensor, old_log_prob: Tensor, advantage: Tensor) -> dict[str, float]:
        clip, figures = self.options.clip_coef, {}
        for _ in range(self.options.update_epochs):
            log_prob, entropy = self.policy.evaluate(actions)
            log_ratio = (log_prob - old_log_prob).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
            ratio = log_ratio.exp()
            surrogate = torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
            figures = self._descend(-surrogate.mean(), entropy) | {
                "approx_kl": float((ratio - 1 - log_ratio).mean().detach()),
                "clipfrac": float(((ratio - 1).abs() > clip).float().mean()),
            }
        return figures
