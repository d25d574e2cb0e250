"""`nas compare`: each published network once, beside the nearest of ours, with true ratios."""

from __future__ import annotations

import math
import re

import pytest

from nas import compare
from nas.scaling import PRESETS
from search_space import cost, load_architecture
from search_space.errors import InputError
from search_space.files import read_yaml


@pytest.fixture
def folder(tmp_path):
    """A family's folder, as `nas scale -o` writes it, and a recipe that lies there too."""
    family = tmp_path / "family"
    family.mkdir()
    for name in ("mobilenet-v2", "resnet-50"):
        load_architecture(name).save(family / f"{name}.yaml")
    (family / "recipe.yaml").write_text("format: baseline-nas/recipe/1\nname: other\n")
    return family


def test_every_published_network_stands_beside_the_nearest_of_ours(folder):
    members = compare.find_members([str(folder), "efficientnet-b0"])
    rows = compare.compare(members)
    ours = {row.name: row for row in rows if row.ours}
    published = [row for row in rows if not row.ours]
    assert set(ours) == {"mobilenet-v2", "resnet-50", "efficientnet-b0"}
    shipped = [values["name"] for values in read_yaml(compare.PUBLISHED)["networks"]]
    assert sorted(row.name for row in published) == sorted(set(shipped)) == sorted(shipped)
    for row in published:
        beside = ours[row.beside]
        assert row.params_ratio == row.params / beside.params
        if row.flops is None:
            assert (row.name, row.flops_ratio) == ("GPipe", None)
            continue
        assert row.flops_ratio == row.flops / beside.flops
        assert abs(math.log(row.flops_ratio)) == min(abs(math.log(row.flops / one.flops)) for one in ours.values())
    flops = [row.flops for row in rows if row.flops]
    assert flops == sorted(flops)
    assert rows[-1].name == "GPipe"


def test_the_published_family_is_ours_to_the_unit():
    """What the shipped data says of B0 to B7 is what the cost model counts of the preset's members."""
    published = {values["name"]: values for values in read_yaml(compare.PUBLISHED)["networks"]}
    family = PRESETS["efficientnet"]().family(load_architecture("efficientnet-b0"), range(8))
    for i, member in enumerate(family):
        values = published[f"EfficientNet-B{i}"]
        assert (values["params"], values["flops"]) == (cost.params(member.architecture), member.flops)


def test_the_shipped_figures_are_those_of_the_facts(shared):
    text = (shared / "FACTS.md").read_text()
    family = re.findall(r"^\| (B\d) .*\| ([\d,]+) \| ([\d,]+) \| [\d,]+ \| [\d.]+ / ([\d.]+) \|$", text, re.M)
    wanted = {
        f"EfficientNet-{name}": (*(int(n.replace(",", "")) for n in pair), float(top)) for name, *pair, top in family
    }
    peers = re.search(r"Table 2 peers[^:]*: (.*?84\.3)\.", text, re.S).group(1)
    for peer in re.split(r";\s+", " ".join(peers.split())):
        name, params, flops, top1 = peer.split()
        flops = None if flops == "-" else round(float(flops[:-1]) * 1e9)
        wanted[name] = (round(float(params[:-1]) * 1e6), flops, float(top1))
    shipped = read_yaml(compare.PUBLISHED)["networks"]
    assert {values["name"]: (values["params"], values["flops"], values["top1"]) for values in shipped} == wanted


def test_markdown_is_a_table_of_the_same_rows(folder, nas):
    code, out, _ = nas("compare", folder, "--format", "markdown")
    lines = [line for line in out.splitlines() if line.startswith("|")]
    rows = compare.compare(compare.find_members([str(folder)]))
    assert code == 0
    assert len(lines) == 2 + len(rows)
    assert {line.count("|") for line in lines} == {len(compare.HEADINGS) + 1}
    assert [line.split("|")[1].strip(" *") for line in lines[2:]] == [row.name for row in rows]
    assert "| **resnet-50** | 25.56M | 4.089G | ours, not measured |" in out


def test_a_name_cannot_break_the_markdown():
    odd = load_architecture("mobilenet-v2").with_(name="a | b")
    lines = compare.markdown(compare.compare([odd])).splitlines()
    assert len(lines) == 2 + 1 + len(read_yaml(compare.PUBLISHED)["networks"])
    assert lines[2].startswith("| **a \\| b** |")


def test_the_text_names_ours_and_their_fewer_classes(folder, nas):
    code, out, _ = nas("compare", folder)
    assert code == 0
    assert out.count("ours, not measured") == 2
    assert "1,000, which" not in out
    load_architecture("mobilenet-v2").with_(num_classes=10, name="mine").save(folder / "mine.yaml")
    _, out, _ = nas("compare", folder)
    assert "1 of ours tell 10 classes apart" in " ".join(out.split())


def test_a_network_given_twice_counts_once(folder):
    assert len(compare.find_members([str(folder), "resnet-50", str(folder / "resnet-50.yaml")])) == 2


def test_bad_input_is_named(folder, tmp_path, nas):
    (tmp_path / "empty").mkdir()
    broken = folder / "x-broken.yaml"
    broken.write_text("format: baseline-nas/architecture/1\nname: x\nstages: 3\n")
    for words, message in (
        (["empty"], "empty: no architecture (*.yaml) in this folder"),
        ([folder], f"{broken}: stages: must be a list of stages"),
        (["efficientnet-b00"], "efficientnet-b00: no such architecture or file; did you mean efficientnet-b0?"),
        (["resnet-50", "--format", "html"], "--format html: unknown; use text or markdown"),
    ):
        code, out, err = nas("compare", *words)
        assert (code, out, err) == (2, "", f"nas: {message}\n")
    broken.write_text("format: baseline-nas/architecture/1\nname: x\nstagess: []\n")
    with pytest.raises(InputError, match=re.escape(f"{broken}: stagess: unknown field; use one of resolution")):
        compare.find_members([str(folder)])
    broken.write_text("stages: [")
    with pytest.raises(InputError, match=re.escape(f"{broken}:1: not valid YAML")):
        compare.find_members([str(folder)])
