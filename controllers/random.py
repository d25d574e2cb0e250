"""Uniform random search: the baseline that every other controller has to beat."""

from __future__ import annotations

from controllers.base import Controller, Options, Suggestion


class RandomSearch(Controller[Options]):
    """Draws every architecture from the space's own sampler."""

    def _suggest(self) -> Suggestion:
        return Suggestion(self.space.sample_actions(self.rng), random=True)
