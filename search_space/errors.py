"""The errors that a user's own input can cause; the command turns each into one line and exit code 2."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from reprlib import Repr

_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 2, 8, 8
_SHORT.maxstring = _SHORT.maxother = 120


class InputError(ValueError):
    """Something the user wrote can't be used; the message names the field or the file."""


class ArchitectureError(InputError):
    """An architecture that no network can have."""


class SpaceError(InputError):
    """A search space without choices, or an architecture or actions outside it."""


class DataError(InputError):
    """Image data that is missing, empty or unreadable."""


def did_you_mean(name: str, known: Sequence[str], there_are: str) -> str:
    """The known name that was probably meant; where none is near, `there_are` and all of them."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"{there_are} {', '.join(known)}"


def shown(value: object) -> str:
    """A value that a user wrote, for a message: cut short, and null where YAML has none."""
    return "null" if value is None else _SHORT.repr(value)
