"""Files in and out: YAML that is safe, with YAML 1.2 numbers and booleans and no duplicate keys; one-line errors."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import yaml

from search_space.errors import InputError, shown


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without the traps of YAML 1.1.

    There `1e-5` is a string, `no` is false and a repeated key silently wins; here they are a number, a string and an
    error.
    """

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]
        first: [
            (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":int", ":timestamp"))
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<: *stage` is resolved by PyYAML, and what is written beside it wins
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                problem = f"{key!r} is given twice" if isinstance(key, Hashable) else f"{key!r} can't name a value"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that `_Loader` would read as something else, such as '1e5'."""


_FLOAT = re.compile(r"^[-+]?(?:\d+\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|nan))$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9]\d*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; `where` names it in errors.

    Raises:
        InputError: the text is not YAML.
    """
    try:
        return _Loader(text).get_single_data()
    except (LookupError, AttributeError):  # PyYAML's own, of `!!float ''` or `!!bool x`
        raise InputError(f"{where}: not valid YAML: a value isn't what its tag (!!int, !!bool, ...) says") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{where}{line}: not valid YAML: {problem}") from None


def read_yaml(path: Path) -> Mapping[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InputError: no such file, not readable, not YAML, or not a mapping of names to values.
    """
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{path}: can't be read: {reason}") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{path}: must hold `name: value` lines")
    return value


def read_format(path: Path, wanted: str) -> dict[str, Any]:
    """The fields of a YAML file in one of our formats, without its `format` line.

    Raises:
        InputError: see `read_yaml`, or another format; it says what the file is and what was wanted.
    """
    values = dict(read_yaml(path))
    if (found := values.pop("format", None)) != wanted:
        wrong = f"must be {wanted}, not {shown(found)}" if found else f"missing; begin with the line format: {wanted}"
        raise InputError(f"{path}: format: {wrong}")
    return values


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8; what was there stays where that fails.

    Raises:
        InputError: the disk is full, or the folder can't be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # what hinders writing may hinder this too
            part.unlink()
        raise InputError(f"{path}: can't be written: {error.strerror}") from None


def flow(value: Any) -> str:
    """A value as one line of YAML: `{a: 1, b: [2, 3]}`."""
    text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=float("inf"))
    return text.removesuffix("...\n").strip()
