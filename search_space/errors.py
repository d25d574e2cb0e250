"""The errors that a user's own input can cause; the command turns each into one line and exit code 2."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user wrote can't be used; the message names the field or the file."""


class ArchitectureError(InputError):
    """An architecture that no network can have."""


class SpaceError(InputError):
    """A search space without choices, or an architecture or actions outside it."""


class DataError(InputError):
    """Image data that is missing, empty or unreadable."""
