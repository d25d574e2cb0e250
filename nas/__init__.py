"""Run a search: recipes, data, training, evaluators, executors, the journal and the `nas` command."""

__version__ = "0.1.0"
