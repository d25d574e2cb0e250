"""Actions of architectures, quickly where they are written as the space writes them."""

from __future__ import annotations

from operator import attrgetter

from search_space import Architecture, SearchSpace, StageSpec
from search_space.space import Actions


class Encoder:
    """`SearchSpace.encode` for evaluators that answer in microseconds.

    An architecture that was decoded from the space has stages that the space lists, so they are looked up; any other
    takes the space's own search. Unlike there, the actions need not be the first that lead to the network.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._stages: list[dict[StageSpec, dict[int, int]]] = []
        for i in range(space.num_stages):
            known: dict[StageSpec, dict[int, int]] = {}
            for actions, stage in space.stage_options(i):
                known.setdefault(stage, actions)
            self._stages.append(known)
        self._outside = [(i, attrgetter(space.decisions[i].name), space.decisions[i].choices) for i in space.outside]

    def __call__(self, architecture: Architecture) -> Actions:
        """Actions that lead to the same network.

        Raises:
            SpaceError: the architecture is outside the space; the message names where it leaves it.
        """
        actions = self._looked_up(architecture)
        if actions is None or self._space.decode(actions).key() != architecture.key():
            return self._space.encode(architecture)
        return actions

    def choices(self) -> set[tuple[int, int]]:
        """Every decision and action that an architecture's actions may have; of equal stages only the first's."""
        stages = {pair for known in self._stages for actions in known.values() for pair in actions.items()}
        return stages | {(i, action) for i, _, choices in self._outside for action in range(len(choices))}

    def _looked_up(self, architecture: Architecture) -> Actions | None:
        actions = [0] * len(self._space.decisions)
        if len(architecture.stages) != len(self._stages):
            return None
        for stage, known in zip(architecture.stages, self._stages, strict=True):
            if stage not in known:
                return None
            for i, action in known[stage].items():
                actions[i] = action
        for i, value_of, choices in self._outside:
            if value_of(architecture) not in choices:
                return None
            actions[i] = choices.index(value_of(architecture))
        return tuple(actions)
