"""What is wrong with a recipe, in one line."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from search_space.errors import InputError, did_you_mean, shown


class RecipeError(InputError):
    """A recipe with a wrong key, type, unit or range."""


def first_error(error: ValidationError, model: type[BaseModel]) -> str:
    """The first of pydantic's errors about a model as `path: message`, and how many more there are."""
    details = error.errors(include_url=False)
    # A file of another kind has only wrong keys; of a recipe, they say most.
    first = min(details, key=lambda detail: (detail["loc"] != ("format",), detail["type"] != "extra_forbidden"))
    path = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if first["type"] == "extra_forbidden":
        message = f"unknown key{_nearest(first['loc'], model)}"
    elif first["type"] == "missing":
        message = "missing"
        if path == "format":
            message += f"; begin with the line format: {get_args(model.model_fields['format'].annotation)[0]}"
    elif first["type"] == "model_type":
        message = f"must be a section with {', '.join(_fields(first['loc'], model))}, not {shown(first['input'])}"
    elif first["type"] not in ("value_error", "too_short") and not isinstance(first["input"], (dict, BaseModel)):
        message = f"{message}, not {shown(first['input'])}"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    separator = "." if isinstance(first["input"], dict) and first["type"] == "value_error" else ": "  # a section's own
    return f"{path}{separator}{message}{more}" if path else f"{message}{more}"


def _nearest(loc: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """A hint at the key that was probably meant, and the ones there are."""
    fields = _fields(loc[:-1], model)
    return f"; {did_you_mean(str(loc[-1]), fields, 'known are')}" if fields else ""


def _fields(loc: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Names of the fields of the section at `loc`; none where it is no section."""
    section: Any = model
    for part in loc:
        section = section.model_fields[part].annotation if part in getattr(section, "model_fields", {}) else None
        section = next(iter(get_args(section)), section)  # X | None
    return list(getattr(section, "model_fields", {}))
