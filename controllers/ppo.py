"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347, section 3) of the LSTM policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from controllers.base import Options, option
from controllers.policy import Batch, PolicyController, PolicyOptions

_MAX_LOG_RATIO = 20.0
"""Keeps exp() finite where a recorded log-prob comes from a quite different policy."""


@dataclass(frozen=True, slots=True)
class PPOOptions(PolicyOptions):
    """Options of `PPO`.

    Attributes:
        clip_coef: The probability ratio earns nothing beyond 1 +- this.
        update_epochs: Gradient steps per batch.
    """

    clip_coef: float = option(0.2, low=1e-9, high=1e3)
    update_epochs: int = option(2, low=1)


class PPO(PolicyController[PPOOptions]):
    """Several clipped steps per batch.

    The ratio is taken to the log-prob recorded with the suggestion, so outcomes of older policies stay valid. It is
    that of the whole sequence for each of its decisions, whose advantages differ (GSPO-token, arXiv 2507.18071,
    without its exponent of 1 / length).
    """

    options_type: ClassVar[type[Options]] = PPOOptions

    def _update(self, batch: Batch) -> dict[str, float]:
        clip, figures = self.options.clip_coef, {}
        for _ in range(self.options.update_epochs):
            now = self.policy.evaluate(batch.actions)
            log_ratio = (now.log_prob.detach().sum(1) - batch.old_log_prob).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
            ratio = log_ratio.exp()
            # Each decision's ratio has the sequence's value, and its gradient through its own log-prob alone.
            each = ratio[:, None] * (now.log_prob - now.log_prob.detach()).exp()
            surrogate = torch.min(each * batch.advantage, each.clamp(1 - clip, 1 + clip) * batch.advantage)
            figures = self._descend(-surrogate.sum(1).mean(), batch, now) | {
                "approx_kl": float((ratio - 1 - log_ratio).mean()),
                "clipfrac": float(((ratio - 1).abs() > clip).float().mean()),
            }
        return figures
