"""`nas scale`: what it shows, what it writes, what it refuses."""

from __future__ import annotations

import pytest

from nas.family import parse_phis
from search_space import InputError, cost, load_architecture


def test_the_preset_writes_the_published_family(nas, tmp_path):
    code, out, _ = nas("scale", "efficientnet-b0", "--preset", "efficientnet", "-o", "family")
    assert code == 0
    family = [load_architecture(tmp_path / "family" / f"efficientnet-b{phi}.yaml") for phi in range(8)]
    assert [cost.params(family[phi]) for phi in (0, 4, 7)] == [5_288_548, 19_341_616, 66_347_960]
    rows = [line.split() for line in out.splitlines()[1:9]]
    assert [row[0] for row in rows] == [network.name for network in family]
    assert rows[7][5:8] == ["600", "66.35M", "37.75G"]
    assert max(map(len, out.splitlines()[:9])) <= 100


def test_the_same_family_may_be_written_again_and_no_other(nas, tmp_path):
    again = ("scale", "mobilenet-v2", "--phi", "1,2.5", "-o", "family")
    assert nas(*again)[0] == nas(*again)[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "family").iterdir()}
    assert set(before) == {"mobilenet-v2-phi1.yaml", "mobilenet-v2-phi2.5.yaml"}
    for other in (("--phi", "1"), ("--phi", "3"), ("--phi", "1,2.5", "--divisor", "4")):
        code, out, err = nas("scale", "mobilenet-v2", *other, "-o", "family")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("nas: -o family: exists and holds something else")
    assert {path.name: path.read_bytes() for path in (tmp_path / "family").iterdir()} == before


def test_a_wish_is_met_and_what_was_changed_is_said(nas):
    code, out, _ = nas("scale", "efficientnet-b0", "--flops", "500M")
    assert code == 0
    assert "--flops 500M: the nearest is" in out
    assert "not up" in out
    ratio = float(out.splitlines()[1].split()[9])
    assert abs(ratio - 1) <= 0.02


def test_a_wish_for_its_own_flops_is_met_exactly(nas):
    _, out, _ = nas("scale", "efficientnet-b0", "--flops", cost.flops(load_architecture("efficientnet-b0")))
    assert "--flops 385.8M: met exactly" in out


def test_by_default_there_are_as_many_members_as_the_coefficients_allow(nas):
    code, out, _ = nas("scale", "efficientnet-b0", "--dimension", "depth")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[1:-1]] == list("0123456")  # 2^7 is more than 100


def test_a_miss_is_said(nas):
    _, out, _ = nas("scale", "efficientnet-b0", "--flops", "1G", "--dimension", "resolution")
    assert "the nearest is 4.81% above; nothing nearer" in out


def test_budgets_say_how_far_they_are_used(nas):
    _, out, _ = nas(
        "scale", "resnet-50", "--flops", "40G", "--memory", "4GB", "--batch-size", "8", "--train-with", "sgd"
    )
    assert "memory is that of training with sgd at batch size 8" in out
    assert "% of the memory" in out


@pytest.mark.parametrize(
    ("text", "phis"), [("1..3", [1, 2, 3]), ("0", [0]), ("1,2.5", [1, 2.5]), ("2,1,2", [2, 1]), ("4..4", [4])]
)
def test_phis(text, phis):
    assert parse_phis(text) == phis


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1..x",
        "3..1",
        "1..1000000000",
        "9" * 400,
        f"{'9' * 400}..{'9' * 400}",
        "0.5",
        "-1",
        "nan",
        "inf",
        "1,,2",
        "1...3",
    ],
)
def test_phis_that_cant_be(text):
    with pytest.raises(InputError, match=r"^--phi "):
        parse_phis(text)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--phi", "0.5"), "--phi 0.5: must be 1 or more"),
        (("--phi", ""), "--phi : must be numbers such as 1..7 or 1,2.5"),
        (("--phi", "60"), "--phi 60: would grow a dimension more than 100 times"),
        (("--alpha", "0.9"), "--alpha 0.9: must be a number from 1 up"),
        (("--alpha", "3"), "alpha * beta^2 * gamma^2 is 4.801, not near 2"),
        (("--round-resolution", "0"), "--round-resolution 0: must be"),
        (("--round-resolution", "500"), "--round-resolution 500: is coarser"),
        (("--divisor", "0"), "--divisor 0: must be"),
        (("--flops", "100M"), "--flops 100M: nothing fits"),
        (("--flops", "1G", "--memory", "1M"), "32.36M bytes of memory"),
        (("--memory", "1mb"), "--memory 1M: nothing fits"),
        (("--flops", "abc"), "--flops: must be a number"),
        (("--flops", "1G", "--phi", "2"), "--phi: is found by"),
        (("--flops", "1G", "--preset", "efficientnet"), "--preset: has only its own sizes"),
        (("--preset", "effnet"), "--preset: 'effnet' is unknown"),
        (("--preset", "efficientnet", "--phi", "8"), "--phi 8: the preset has whole numbers"),
        (("--preset", "efficientnet", "--alpha", "1.2"), "--preset: has its own growth"),
        (("--dimension", "length"), "--dimension: 'length' is unknown"),
        (("--dimension", "depth", "--beta", "1.2"), "--dimension depth: grows alone"),
        (("--train-with", "magic"), "--train-with: 'magic' is unknown"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_writes_nothing(nas, tmp_path, words, part):
    code, out, err = nas("scale", "efficientnet-b0", *words, "-o", "family")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert part in err
    assert not (tmp_path / "family").exists()


def test_coefficients_far_from_two_go_on_when_told(nas):
    assert nas("scale", "efficientnet-b0", "--alpha", "3", "--any-product", "--phi", "1")[0] == 0
