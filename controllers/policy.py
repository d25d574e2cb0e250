"""The autoregressive LSTM policy over decisions, and the common ground of the controllers that train it.

As in NASNet (Zoph et al. 2018, arXiv 1707.07012, section 3 and appendix) and MnasNet (arXiv 1807.11626, section 4.2),
a one-layer LSTM reads the previous choice and a softmax per decision gives the next; weights start uniform in +-0.1.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from controllers.base import Controller, Observation, Options, Outcome, Problem, Suggestion, option
from controllers.threads import single_threaded
from search_space import Architecture, SearchSpace
from search_space.space import Actions

_INIT_RANGE = 0.1

_SHORTLIST = 50
"""One network in so many is shortlisted for recommendation at most."""

_State = tuple[Tensor, Tensor]
"""The LSTM's hidden and cell state, each batch x hidden."""


class Evaluation(NamedTuple):
    """What the policy makes of given actions.

    Attributes:
        log_prob: Log-probability (nats) of each action given the earlier ones, 0 where inactive (batch x decisions).
        entropy: Of the active decisions, summed along each sequence (batch), nats.
        value: The return expected before each decision is taken (batch x decisions).
        active: Whether the decision has an effect (batch x decisions).
    """

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    active: Tensor


class LSTMPolicy(nn.Module):
    """p(actions) as a product over decisions of p(action | earlier actions), with a value head.

    A decision without effect (see `SearchSpace.active`) is not drawn: its action is 0, it adds nothing to log-prob and
    entropy, and the next decision reads zeros in its place. The value head is a linear read-out of the LSTM's state.
    """

    valid: Tensor
    offsets: Tensor

    def __init__(self, space: SearchSpace, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self._space = space
        sizes = torch.tensor([len(decision.choices) for decision in space.decisions])
        widest = int(sizes.max())
        self.start = nn.Parameter(torch.empty(hidden_size))
        self.embedding = nn.Parameter(torch.empty(int(sizes.sum()), hidden_size))
        # Without data at first: nn's own initialisation would draw from the global random stream.
        self.lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True, device="meta").to_empty(device="cpu")
        self.head = nn.Parameter(torch.empty(len(sizes), hidden_size, widest))
        self.bias = nn.Parameter(torch.empty(len(sizes), widest))
        self.value_head = nn.Parameter(torch.empty(len(sizes), hidden_size))
        self.value_bias = nn.Parameter(torch.empty(len(sizes)))
        self.register_buffer("valid", torch.arange(widest) < sizes[:, None], persistent=False)
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-_INIT_RANGE, _INIT_RANGE, generator=generator)

    def _step(self, decision: int, inputs: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        """Log-probabilities (batch x choices) of one decision, and the LSTM's new state."""
        hidden, state = self.lstm(inputs[:, None], state)
        logits = torch.addmm(self.bias[decision], hidden[:, 0], self.head[decision])
        logits = logits.masked_fill(~self.valid[decision], -torch.inf)
        return logits.log_softmax(-1), state

    @torch.no_grad()
    def sample(self, rng: np.random.Generator, n: int) -> tuple[list[Actions], list[float]]:
        """Draw `n` sequences of actions, one per decision, and their log-probabilities in nats."""
        inputs, state = self.start.expand(n, -1), None
        actions, totals = np.zeros((n, len(self.offsets)), dtype=int), np.zeros(n)
        for decision in range(actions.shape[1]):
            log_probs, state = self._step(decision, inputs, state)
            rows = log_probs.double().numpy()
            cumulated = np.exp(rows).cumsum(1)
            chosen = (rng.random(n)[:, None] * cumulated[:, -1:] >= cumulated).sum(1)
            on = np.array([self._space.active(row)[decision] for row in actions.tolist()])  # by the earlier actions
            actions[:, decision] = chosen * on
            totals += np.where(on, rows[np.arange(n), chosen], 0.0)
            embedded = self.embedding[int(self.offsets[decision]) + torch.from_numpy(chosen)]
            inputs = torch.from_numpy(on)[:, None] * embedded
        return [tuple(row) for row in actions.tolist()], totals.tolist()

    def evaluate(self, actions: Tensor) -> Evaluation:
        """Log-probability, entropy and value of given actions (batch x decisions)."""
        active = torch.tensor([self._space.active(row) for row in actions.tolist()])
        embedded = active[..., None] * self.embedding[self.offsets + actions]
        hidden, _ = self.lstm(torch.cat([self.start.expand(len(actions), 1, -1), embedded[:, :-1]], 1))
        logits = torch.einsum("bdh,dhc->bdc", hidden, self.head) + self.bias
        log_probs = logits.masked_fill(~self.valid, -torch.inf).log_softmax(-1)
        log_prob = active * log_probs.gather(2, actions[..., None])[..., 0]
        finite = log_probs.masked_fill(~self.valid, 0.0)
        entropy = -(active[..., None] * finite.exp() * finite * self.valid).sum((1, 2))
        value = (hidden * self.value_head).sum(-1) + self.value_bias
        return Evaluation(log_prob, entropy, value, active)


@dataclass(frozen=True, slots=True)
class PolicyOptions(Options):
    """Options of the policy-gradient controllers.

    The defaults were chosen by `nas bench` on Accel-NASBench and NAS-Bench-Macro, at 50 to 1,000 children.

    Attributes:
        lr: Adam's learning rate.
        ent_coef: Weight of the entropy bonus; 0 gives none.
        vf_coef: Weight of the value head's squared error.
        batch_size: Outcomes per update.
        max_grad_norm: Gradients with a larger norm are scaled down to it.
        hidden_size: Units of the LSTM.
        imitation_coef: Weight of imitating the best networks so far; 0 gives none.
        imitation_size: How many of the best networks are imitated.
    """

    lr: float = option(0.02, low=1e-9, high=10.0)
    ent_coef: float = option(0.1, low=0.0, high=1e3)
    vf_coef: float = option(0.5, low=0.0, high=1e3)
    batch_size: int = option(10, low=2)
    max_grad_norm: float = option(1.0, low=1e-9, high=1e3)
    hidden_size: int = option(64, low=1, high=4096)
    imitation_coef: float = option(0.3, low=0.0, high=1e3)
    imitation_size: int = option(10, low=1)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one update learns from.

    Attributes:
        actions: batch x decisions.
        old_log_prob: Of the whole sequence, under the policy that drew it (batch).
        returns: What came of each sequence (batch).
        advantage: The return less the value before the update, 0 where inactive (batch x decisions).
    """

    actions: Tensor
    old_log_prob: Tensor
    returns: Tensor
    advantage: Tensor


PolicyOptionsT = TypeVar("PolicyOptionsT", bound=PolicyOptions)


class PolicyController(Controller[PolicyOptionsT]):
    """Samples from an LSTM policy and updates it each time `batch_size` outcomes have arrived, whoever made them.

    A child's return is its reward's rank in the batch; a decision's advantage is that return less the value predicted
    before it. The loss is that of the subclass, plus the value head's squared error, less an entropy bonus, less
    `imitation_coef` times the mean log-probability of the best networks so far (priority queue training, Abolafia et
    al. 2018, arXiv 1801.03526, section 3.3), which keeps what few good children taught from being forgotten.
    """

    def __init__(self, problem: Problem, options: PolicyOptionsT, seed: int) -> None:
        super().__init__(problem, options, seed)
        self.policy = LSTMPolicy(problem.space, options.hidden_size, torch.Generator().manual_seed(seed))
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=options.lr, eps=1e-5)
        self._version = 0
        self._batch: list[tuple[tuple[int, ...], float, Observation]] = []
        self._diagnostics: dict[str, float] = {}

    @abstractmethod
    def _update(self, batch: Batch) -> dict[str, float]:
        """Train on one batch, by calls of `_descend`; return diagnostics."""

    def _suggest(self) -> Suggestion:
        with single_threaded():
            (actions,), (log_prob,) = self.policy.sample(self.rng, 1)
        return Suggestion(actions, log_prob, self._version, random=self._version == 0)

    def _learn(self, outcome: Outcome) -> None:
        self._batch.append((outcome.suggestion.actions, outcome.suggestion.log_prob, outcome.observation))
        if len(self._batch) < self.options.batch_size:
            return
        actions, log_probs, observations = zip(*self._batch, strict=True)
        self._batch = []
        diagnostics = self._train(actions, log_probs, [self.problem.reward(one) for one in observations])
        self._version += 1
        self._diagnostics = diagnostics | {"policy_version": float(self._version)}

    def _train(
        self, actions: Sequence[Actions], log_probs: Sequence[float], rewards: Sequence[float]
    ) -> dict[str, float]:
        """Update on sequences, their log-probabilities when they were drawn and their rewards; return diagnostics."""
        with single_threaded():
            sequences, returns = torch.tensor(actions), rank_returns(rewards)
            with torch.no_grad():
                before = self.policy.evaluate(sequences)
            advantage = (returns[:, None] - before.value) * before.active
            diagnostics = self._update(Batch(sequences, torch.tensor(log_probs), returns, advantage))
            return diagnostics | {"explained_variance": explained_variance(before.value, returns, before.active)}

    def leaders(self, k: int) -> list[Architecture]:
        """See `Controller.leaders`: the best 2% observed as the policy likes them, then the others by mean reward.

        The more children, the luckier the best of them, while the policy has averaged over all of their noise. What
        lies farther below the best than the standard deviation of all rewards is worse, not unluckier: under a steep
        objective few of the best 2% may meet T.
        """
        ranked = self.memory.ranked()
        if not ranked:
            return []
        networks, rewards = [actions for actions, _ in ranked], np.array([reward for _, reward in ranked])
        near = int((rewards >= rewards[0] - rewards.std()).sum())
        shortlisted = min(near, max(1, len(ranked) // _SHORTLIST))
        with single_threaded(), torch.no_grad():
            liked = self._log_prob(networks[:shortlisted]).argsort(descending=True, stable=True)
        ordered = [*(networks[i] for i in liked.tolist()), *networks[shortlisted:]]
        return [self.space.decode(actions) for actions in ordered[:k]]

    def _descend(self, loss: Tensor, batch: Batch, now: Evaluation) -> dict[str, float]:
        """One optimiser step on `loss` with the value loss, the entropy bonus and the imitation term."""
        error = (now.value - batch.returns[:, None])[now.active]
        loss = loss + self.options.vf_coef * error.square().mean() - self.options.ent_coef * now.entropy.mean()
        elite = self.memory.top(self.options.imitation_size)
        if elite and self.options.imitation_coef > 0:
            loss = loss - self.options.imitation_coef * self._log_prob(elite).mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = clip_grad_norm_(self.policy.parameters(), self.options.max_grad_norm)
        self.optimizer.step()
        return {"entropy": float(now.entropy.mean().detach()), "grad_norm": float(norm)}

    def _log_prob(self, sequences: Sequence[tuple[int, ...]]) -> Tensor:
        """Log-probability (batch, nats) of whole sequences."""
        return self.policy.evaluate(torch.tensor(sequences)).log_prob.sum(1)

    def pop_diagnostics(self) -> dict[str, float]:
        """See `Controller.pop_diagnostics`."""
        diagnostics, self._diagnostics = self._diagnostics, {}
        return diagnostics

    def state_dict(self) -> dict[str, Any]:
        """See `Controller.state_dict`."""
        return super().state_dict() | {
            "policy": {name: value.clone() for name, value in self.policy.state_dict().items()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "version": self._version,
            "batch": [(list(actions), log_prob, observation) for actions, log_prob, observation in self._batch],
            "diagnostics": dict(self._diagnostics),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Controller.load_state_dict`."""
        super().load_state_dict(state)
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._version = state["version"]
        self._batch = [(tuple(actions), log_prob, observation) for actions, log_prob, observation in state["batch"]]
        self._diagnostics = dict(state["diagnostics"])


def rank_returns(rewards: Sequence[float]) -> Tensor:
    """Returns (batch) from the ranks of a batch's rewards: mean 0, and variance 1 for a large batch without ties.

    Ranks depend on neither the scale of the rewards nor on outliers, and a failure, as minus infinity, is simply
    last (fitness shaping, Wierstra et al. 2014, JMLR 15, section 3.1). Equal rewards share their mean rank.
    """
    values = np.asarray(rewards)
    above, below = values[:, None] > values[None], values[:, None] < values[None]
    return torch.tensor((above.mean(1) - below.mean(1)) * np.sqrt(3), dtype=torch.float32)


def explained_variance(value: Tensor, returns: Tensor, active: Tensor) -> float:
    """The share of the returns' variance over the active decisions that the values predict, at most 1.

    0 is no better than a constant. Returns that do not vary leave nothing to explain: 0 too.

    Args:
        value: batch x decisions.
        returns: batch.
        active: batch x decisions.
    """
    actual = returns[:, None].expand_as(value)[active]
    spread = float(actual.var(correction=0))
    return 1.0 - float((actual - value[active]).var(correction=0)) / spread if spread > 0 else 0.0
