"""The library: every file loads, and a wrong name gets a hint."""

from __future__ import annotations

import re

import pytest

from search_space import InputError, load_architecture, load_space
from search_space.library import names

LOADERS = {"architecture": load_architecture, "space": load_space}


def test_what_the_library_holds():
    assert names("architecture") == ("efficientnet-b0", "mnasnet-a1", "mobilenet-v1", "mobilenet-v2", "resnet-50")
    assert names("space") == ("accel-nasbench", "mbconv", "mnasnet", "nas-bench-macro")


@pytest.mark.parametrize("kind", LOADERS)
def test_every_file_is_named_as_its_content(kind):
    for name in names(kind):
        assert LOADERS[kind](name).name == name


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [
        ("architecture", "efficientnet-bo", "did you mean efficientnet-b0?"),
        ("architecture", "zzz", "the library has efficientnet-b0, "),
        ("architecture", "mbconv", "no such architecture or file"),
        ("space", "mnasnett", "did you mean mnasnet?"),
        ("space", "efficientnet-b0", "no such space or file"),
        ("space", "nowhere/own.yaml", "can't be read: No such file"),
    ],
)
def test_an_unknown_name(kind, name, hint):
    with pytest.raises(InputError, match=f"^{re.escape(name)}: .*{re.escape(hint)}"):
        LOADERS[kind](name)


def test_a_path_is_read(tmp_path):
    network = load_architecture("mobilenet-v2")
    network.save(tmp_path / "own")
    load_architecture("resnet-50").save(tmp_path / "own.yaml")
    assert load_architecture(tmp_path / "own") == network


@pytest.mark.parametrize("kind", LOADERS)
def test_a_file_of_the_other_kind_is_refused(kind, tmp_path):
    other = "space" if kind == "architecture" else "architecture"
    path = tmp_path / "f.yaml"
    path.write_text(f"format: baseline-nas/{other}/1\n")
    wanted = rf"f\.yaml: format: must be baseline-nas/{kind}/1, not 'baseline-nas/{other}/1'"
    with pytest.raises(InputError, match=wanted):
        LOADERS[kind](path)
