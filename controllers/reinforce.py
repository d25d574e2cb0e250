"""REINFORCE (Williams 1992) of the LSTM policy, as in the first NAS controllers (Zoph & Le 2017, arXiv 1611.01578)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from controllers.base import Options, option
from controllers.policy import Batch, PolicyController, PolicyOptions


@dataclass(frozen=True, slots=True)
class ReinforceOptions(PolicyOptions):
    """Options of `Reinforce`: those of `PolicyOptions`, with defaults for a single step per batch, which is small."""

    batch_size: int = option(5, low=2)
    ent_coef: float = option(0.3, low=0.0, high=1e3)
    imitation_coef: float = option(0.6, low=0.0, high=1e3)


class Reinforce(PolicyController[ReinforceOptions]):
    """One plain policy-gradient step per batch; outcomes of older policies count as if they were fresh."""

    options_type: ClassVar[type[Options]] = ReinforceOptions

    def _update(self, batch: Batch) -> dict[str, float]:
        now = self.policy.evaluate(batch.actions)
        figures = self._descend(-(now.log_prob * batch.advantage).sum(1).mean(), batch, now)
        return figures | {"approx_kl": float((batch.old_log_prob - now.log_prob.sum(1)).mean().detach())}
