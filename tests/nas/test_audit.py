"""`nas audit`, as a user types it, and the networks that it chooses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nas.audit import _check_enough, _forecast, _journal_bytes, _summary, spread_out
from nas.evaluators import Failure, Measurement
from nas.journal import parse
from nas.recipe import Recipe
from nas.statistics import kendall_tau, share_in_order
from search_space import InputError, cost, load_architecture, load_space

AUDIT = ("--networks", "10", "--epochs", "2", "--set", "proxy.share=0.3", "-o", "audit")


def trained(name):
    """Accuracies by network, in the order of the journal."""
    found = {}
    for event in parse(Path("audit") / name)[0][1:]:
        found.setdefault(event["name"], []).append(event["accuracy"])
    return found


def test_an_audit_compares_the_proxy_with_longer_trainings(nas, small_recipe):
    code, out, err = nas("audit", small_recipe, *AUDIT)
    assert (code, err) == (0, "")
    found = json.loads(Path("audit/audit.json").read_text())
    proxy, reference = trained("proxy.jsonl"), trained("reference.jsonl")
    assert {network["name"]: network["proxy"] for network in found["networks"]} == proxy
    assert {network["name"]: [network["reference"]] for network in found["networks"]} == reference
    assert len(proxy) == 10
    seeds = [event["seed"] for name in ("proxy", "reference") for event in parse(Path(f"audit/{name}.jsonl"))[0][1:]]
    assert len(set(seeds)) == 30  # none is shared between proxy and reference
    assert "small-baseline" in proxy
    assert {event["epochs"] for event in parse(Path("audit/reference.jsonl"))[0][1:]} == {2}
    both, longer = np.array(list(proxy.values())), np.array([reference[name][0] for name in proxy])
    assert found["tau_mean"]["value"] == pytest.approx(kendall_tau(both.mean(axis=1), longer))
    assert found["tau_single"]["value"] == pytest.approx(kendall_tau(both.T, longer))
    assert found["tau_mean"]["low"] <= found["tau_mean"]["value"] <= found["tau_mean"]["high"]
    noise = 100 * np.sqrt(np.mean(np.diff(both, axis=1) ** 2) / 2)
    assert found["seed_noise"] == pytest.approx(noise)
    assert found["least_difference"] == pytest.approx(2.77 * noise)
    spread = np.sqrt(max(0, 1e4 * both.mean(axis=1).var(ddof=1) - noise**2 / 2))
    assert found["spread"] == pytest.approx(spread)
    assert found["noise_share"] == pytest.approx(noise**2 / (noise**2 + spread**2))
    assert found["right"]["value"] == pytest.approx(share_in_order(both.T, longer, np.random.default_rng(0))[0])
    flops = {network["name"]: network["flops"] for network in found["networks"]}
    factor = np.array([(flops[name] / 1e6) ** -0.07 for name in proxy])
    assert found["tau_reward"]["value"] == pytest.approx(kendall_tau(both.T * factor, longer * factor))
    forecast = found["forecast"]
    assert (forecast["children"], forecast["workers"]) == (7, 1)
    assert forecast["hours"] == pytest.approx(7 * forecast["child_seconds"] / 3600)
    seconds = [event["seconds"] for event in parse(Path("audit/proxy.jsonl"))[0][1:]]
    assert forecast["child_seconds"] == pytest.approx(np.mean(seconds))
    assert nas("search", small_recipe, "-o", "searched")[0] == 0
    assert forecast["journal_bytes"] == pytest.approx(Path("searched/journal.jsonl").stat().st_size, rel=0.15)
    assert forecast["image_bytes"] == 1438 * 8 * 8 * 3
    assert "Kendall's tau" in out
    assert "advice:" in out
    assert "forecast for 6 children and the baseline, 1 at a time" in out
    assert "1,438 images of 10 classes in digits\n" in out


def test_the_same_command_again_trains_nothing(nas, small_recipe):
    first = nas("audit", small_recipe, *AUDIT)[1]
    files = {path: path.read_bytes() for path in Path("audit").iterdir()}
    code, second, _ = nas("audit", small_recipe, *AUDIT)
    assert code == 0
    assert first[first.index("network ") :] in second
    assert {path: path.read_bytes() for path in Path("audit").iterdir()} == files


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--networks", "9"], "--networks 9: must be 10 to 30"),
        (["--networks", "31"], "--networks 31: must be 10 to 30"),
        (["--epochs", "1"], "--epochs 1"),
        (["--data", "missing"], "data.source: missing"),
        (["--set", "controller.options.lrr=3"], "lrr"),
        (["--workers", "2"], "executor.workers"),
        (["-o", "small.yaml"], "-o small.yaml: is not a folder"),
        (["-o", "."], "-o .: exists and holds no audit"),
        (["--set", "proxy.epoch=3"], "did you mean epochs?"),
        (["--set", "objective.target=5G"], "objective.target: 5G is outside what"),
        (["--ray-address", "auto"], "--ray-address: this recipe trains in one process"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(refused, small_recipe, words, part):
    assert part in refused("audit", small_recipe, *words)
    assert not Path("results").exists()


def test_a_benchmark_has_no_proxy_to_audit(refused):
    assert "an audit needs a recipe that trains" in refused("audit", "rehearse-b0")


def test_where_everything_fails_the_reference_is_not_trained(refused, small_recipe):
    err = refused("audit", small_recipe, *AUDIT, "--set", "executor.time_limit=1e-6")
    assert "10 of 10 networks failed" in err
    assert "TimeLimitExceeded" in err
    assert not Path("audit/reference.jsonl").exists()


def test_other_settings_in_the_same_folder_are_refused(refused, small_recipe):
    refused("audit", small_recipe, *AUDIT, "--set", "executor.time_limit=1e-6")
    assert "proxy.jsonl: proxy.lr changed since" in refused("audit", small_recipe, *AUDIT, "--set", "proxy.lr=0.01")


def test_other_images_are_another_audit(nas, refused, small_recipe):
    rng = np.random.default_rng(0)
    for name in ("one.npz", "two.npz"):
        np.savez(name, x_train=rng.integers(0, 255, (60, 8, 8), dtype=np.uint8), y_train=np.arange(60) % 3)
    small = (*AUDIT, "--set", "proxy.batch_size=16", "--set", "proxy.share=1")
    assert "the images have 3: --set" in nas("audit", small_recipe, *small, "--data", "one.npz")[1]
    err = refused("audit", small_recipe, *small, "--data", "two.npz")
    assert "data.source: its content changed since the run began" in err
    assert "60 images, 3 classes with other values" in err
    Path("one.npz").rename("moved.npz")
    code, _, err = nas("audit", small_recipe, *small, "--data", "moved.npz")
    assert (code, err) == (0, "")


def test_another_reference_is_refused_before_anything_is_trained(nas, refused, small_recipe):
    nas("audit", small_recipe, *AUDIT)
    before = Path("audit/proxy.jsonl").read_bytes()
    err = refused("audit", small_recipe, *AUDIT, "--networks", "11", "--epochs", "3")
    assert "reference.jsonl: proxy.epochs changed since these trainings began, from 2 to 3" in err
    assert Path("audit/proxy.jsonl").read_bytes() == before


@pytest.fixture
def trainings(small_recipe):
    """A recipe, ten networks, and three equal trainings of each, of which so many networks' second failed."""

    def make(failed):
        recipe = Recipe.load(str(small_recipe))
        chosen = spread_out(recipe.load_space(), recipe.load_baseline(), 10, seed=0)
        results = [[Measurement(0.5 + i / 100, 1, 1.0)] * 3 for i in range(10)]
        for own in results[3 : 3 + failed]:
            own[1] = Failure("out of memory")
        return recipe, chosen, results

    return make


def test_a_network_with_a_failed_training_is_left_out(trainings):
    recipe, chosen, results = trainings(failed=1)
    found = _summary(recipe, {}, chosen, results, recipe, _forecast(recipe, 1, 1.0, 0, 0))
    assert [network.name for network in found.networks] == [network.name for network in chosen if network != chosen[3]]
    assert found.failures == (f"{chosen[3].name}: out of memory",)
    assert (found.tau_single.value, found.noise_share) == (pytest.approx(1), 0)


def test_fewer_than_eight_networks_are_too_few_to_compare(trainings):
    _check_enough(*trainings(failed=2)[1:])
    with pytest.raises(InputError, match=r"3 of 10 networks failed, too many .*: out of memory"):
        _check_enough(*trainings(failed=3)[1:])


def test_the_forecast_is_of_all_children_and_workers(small_recipe):
    recipe, longer = (Recipe.load(str(small_recipe), [f"children={children}"]) for children in (41, 83))
    assert _forecast(recipe, 4, 3.0, 0, 0).hours == pytest.approx(42 * 3 / 4 / 3600)
    assert _journal_bytes(longer) == pytest.approx(2 * _journal_bytes(recipe), rel=0.1)


@pytest.mark.parametrize("name", ["mbconv", "mnasnet", "nas-bench-macro"])
def test_the_networks_are_spread_over_costs_and_structures(name):
    space, baseline = load_space(name), load_architecture("efficientnet-b0")
    chosen = spread_out(space, baseline, 15, seed=3)
    assert len({network.key() for network in chosen}) == 15
    assert all(space.contains(network) for network in chosen)
    assert spread_out(space, baseline, 15, seed=3) == chosen
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(300)]
    flops = [cost.flops(network) for network in chosen]
    assert flops == sorted(flops)
    assert flops[0] < np.quantile([cost.flops(network) for network in drawn], 0.1)
    assert flops[-1] > np.quantile([cost.flops(network) for network in drawn], 0.9)

    def least_distance(networks):
        actions = np.array([space.encode(network) for network in networks])
        distances = (actions[:, None] != actions[None]).sum(axis=2) + 100 * np.eye(len(actions))
        return distances.min(axis=1).mean()

    assert least_distance(chosen) > least_distance(drawn[:15])


def test_the_baseline_is_not_chosen_again_and_a_small_space_is_refused(refused, small_recipe):
    space = load_space("space.yaml")
    baseline = space.decode((0, 0, 0, 0, 0))
    assert baseline.key() not in {network.key() for network in spread_out(space, baseline, 29, seed=0)}
    tiny = Path("space.yaml").read_text().replace("[1, 2, 3]", "1").replace("[3, 5, 7]", "3")
    Path("space.yaml").write_text(tiny)
    err = refused("audit", small_recipe)
    assert "--networks 16" in err
    assert "draws from the space small gave 6 networks" in err
