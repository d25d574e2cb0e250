"""Recipes: strict, and a mistake is one line that names the file and the field."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas import recipe_file
from nas.benchmark_file import ACCEL, MACRO
from nas.objective import AbsoluteObjective, AutoObjective, Objective
from nas.recipe import Recipe
from nas.recipe_errors import RecipeError
from search_space import InputError, load_architecture
from search_space.files import parse_yaml

SETTABLE = {
    "children": st.integers(1, 10**6),
    "seed": st.integers(0, 2**63 - 1),
    "objective.w": st.floats(-10, 0),
    "objective.target": st.floats(1e6, 1e12),
    "proxy.lr": st.floats(1e-9, 1e3),
    "proxy.weight_decay": st.floats(0, 0.9),
    "proxy.crop": st.booleans(),
    "data.holdout": st.none() | st.just("val") | st.floats(0.01, 0.9) | st.integers(2, 10**6),
    "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,6}", fullmatch=True),
}


def digits(*settings: str) -> Recipe:
    return Recipe.load("digits", settings)


@pytest.mark.parametrize("name", recipe_file.names())
def test_shipped_recipes_load_and_name_what_exists(name):
    recipe = Recipe.load(name)
    space, baseline = recipe.load_space(), recipe.load_baseline()
    assert recipe.name == name
    assert baseline.num_classes == space.decode([0] * len(space.decisions)).num_classes
    assert recipe.make_objective()(0.5, recipe.objective.target) == 0.5


def test_what_the_demonstration_says():
    recipe = digits()
    assert recipe.objective.target == 4e8  # 400M
    assert recipe.load_baseline() == load_architecture("efficientnet-b0").with_(num_classes=10)


MISTAKES = [
    ("childern=3", "childern: unknown key; did you mean children?"),
    ("zzz=3", "zzz: unknown key; known are format, name, "),
    ("proxy.epocs=3", "proxy.epocs: unknown key; did you mean epochs?"),
    ("objective.targt=3", "objective.targt: unknown key; did you mean target?"),
    ("executor.early_stopping={grace=1}", "executor.early_stopping.grace=1: unknown key"),
    ("format=baseline-nas/recipe/2", "format: "),
    ("name=a/b", "name: "),
    ("children=0", "children: "),
    ("children=3.0", "children: "),
    ("children=true", "children: "),
    ("children=many", "children: "),
    ("children=", "children: "),
    ("seed=-1", "seed: "),
    ("seed=9223372036854775808", "seed: "),
    ("children=1" + "0" * 400, "children: "),
    ("space=3", "space: "),
    ("objective=3", "objective: "),
    ("objective=auto", "objective: must be a section with name, cost, target, w, w_above, not 'auto'"),
    ("scale=true", "scale: must be a section with retrain, step, "),
    ("objective={}", "objective.target: missing"),
    ("objective.target=400", "objective.target: 400 multiply-adds is less than any network has; write 400M?"),
    ("objective={cost: params, target: 5}", "objective.target: 5 parameters is less"),
    ("objective.target=400 M flops", "objective.target: must be a number such as 400M, 1.8G or 4e8, not '400 M flops'"),
    ("objective.target=-400M", "objective.target: "),
    ("objective.target=.inf", "objective.target: "),
    ("objective.target=nan", "objective.target: "),
    ("objective.target=true", "objective.target: "),
    ("objective.cost=flop", "objective.cost: "),
    ("objective.w=0.07", "objective.w: "),
    ("objective.w=.nan", "objective.w: "),
    ("objective.w_above=1", "objective.w_above: "),
    ("objective.name=soft", "objective.name: "),
    ("objective={name: hard, target: 1M, w: -0.07}", "objective.w: the objective hard takes none"),
    ("objective={name: auto, target: 1M, w_above: -1}", "objective.w_above: the objective auto takes none"),
    ("objective={name: absolute, target: 1M, w_above: -1}", "objective.w_above: the objective absolute takes none"),
    ("objective={cost: throughput_a100, target: 9000}", "objective.cost: throughput_a100 needs a benchmark"),
    ("benchmark={}", "data: a benchmark is not trained"),
    ("benchmark={noise: -1}", "benchmark.noise: "),
    ("controller.name=pppo", "controller.name: 'pppo' is unknown; use one of "),
    ("controller.options=3", "controller.options: "),
    ("data.source=[a]", "data.source: "),
    ("data.holdout=1.5", "data.holdout: must be val, a share between 0 and 1, or a count of at least 2, not 1.5"),
    ("data.holdout=1", "data.holdout: "),
    (f"data.holdout={10**400}", "data.holdout: "),
    ("data.holdout=true", "data.holdout: "),
    ("proxy.interpolation=bicubic", "proxy.interpolation: unknown key"),
    ("proxy.epochs=0", "proxy.epochs: "),
    ("proxy.resolution=4", "proxy.resolution: "),
    ("proxy.resolution=16.0", "proxy.resolution: "),
    ("proxy.lr=0", "proxy.lr: "),
    ("proxy.lr=.inf", "proxy.lr: "),
    ("proxy.lr=true", "proxy.lr: "),
    ("proxy.lr='0.1'", "proxy.lr: "),
    ("proxy.flip=no", "proxy.flip: "),
    ("proxy.flip=0", "proxy.flip: "),
    ("proxy.momentum=1", "proxy.momentum: "),
    ("proxy.batch_size=1", "proxy.batch_size: "),
    ("proxy.optimizer=adam", "proxy.optimizer: "),
    ("proxy.share=0", "proxy.share: "),
    ("proxy.share=1.01", "proxy.share: "),
    ("proxy.warmup_epochs=999", "proxy.warmup_epochs: 999 must be less than epochs: "),
    ("executor.name=ray", "executor.name: "),
    ("executor.gpus_per_child=.inf", "executor.gpus_per_child: "),
    ("executor.gpus_per_child=0.00001", "executor.gpus_per_child: must be at least 0.0001"),
    ("executor.cpus_per_child=0.00001", "executor.cpus_per_child: must be at least 0.0001"),
    ("executor.retries=-1", "executor.retries: "),
    ("executor={name: serial, workers: 2}", "executor.workers: the serial executor"),
    ("executor={name: serial, early_stopping: {}}", "executor.early_stopping: "),
    ("executor.early_stopping={reduction: 1}", "executor.early_stopping.reduction: "),
    ("deployment.resolution=5000", "deployment.resolution: "),
]


@pytest.mark.parametrize(("setting", "message"), MISTAKES, ids=[setting for setting, _ in MISTAKES])
def test_a_mistake_is_one_line_with_file_and_field(setting, message):
    with pytest.raises(RecipeError) as error:
        digits(setting)
    assert str(error.value).startswith(f"digits: {message}")
    assert "\n" not in str(error.value)


LOOK_UP = {
    "format": "baseline-nas/recipe/1",
    "name": "rehearsal",
    "children": 3,
    "space": "accel-nasbench",
    "objective": {"target": "400M"},
    "benchmark": {"source": "rehearsal"},
}


def test_a_benchmark_is_looked_up_in_this_process():
    assert Recipe.parse(LOOK_UP, "r").executor.name == "serial"
    with pytest.raises(RecipeError, match=r"executor\.name: a benchmark is looked up in this process; use serial"):
        Recipe.parse(LOOK_UP | {"executor": {"name": "tune"}}, "r")


def test_a_source_is_laid_over_what_the_recipe_has(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in LOOK_UP.items()))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(dict.fromkeys(ACCEL.fields)))
    moved = Recipe.load(str(path), source=str(rows))
    assert moved.benchmark.source == str(rows)
    assert Recipe.load(str(path)).with_source_of(moved) == moved
    for name in ("photos", "写真 \U0001f4f7: #1", "bytes \udcff"):
        assert Recipe.load("digits", source=name).data.source == name


def test_another_controller_drops_the_options_of_the_files(tmp_path):
    path = tmp_path / "r.yaml"
    values = LOOK_UP | {"controller": {"name": "ppo", "options": {"lr": 0.01}}}
    path.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()))
    assert Recipe.load(str(path), ["controller.name=ppo"]).controller.options == {"lr": 0.01}
    assert Recipe.load(str(path), ["controller.name=random"]).controller.options == {}
    own = Recipe.load(str(path), ["controller.name=reinforce", "controller.options.lr=0.1"])
    assert own.controller.options == {"lr": 0.1}


def test_the_file_of_another_benchmark_brings_what_belongs_to_it(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(dict.fromkeys(MACRO.fields)))
    recipe = Recipe.load("rehearse-b0", source=str(rows))
    assert (recipe.space, recipe.objective.target, recipe.benchmark.noise) == ("nas-bench-macro", 40e6, None)
    assert recipe.load_space().contains(recipe.load_baseline())
    recipe = Recipe.load("rehearse-b0", ["objective.cost=params", "objective.target=2M"], str(rows))
    assert (recipe.objective.cost, recipe.objective.target) == ("params", 2e6)
    settings = ["objective.target=30M", "benchmark.noise=1.0"]
    recipe = Recipe.load("rehearse-b0", settings, str(rows))
    assert (recipe.space, recipe.objective.target, recipe.benchmark.noise) == ("nas-bench-macro", 30e6, 1.0)


@pytest.mark.parametrize(
    ("values", "form", "exponents"),
    [
        ({}, Objective, (-0.07, None)),
        ({"w": 0, "w_above": -0.5}, Objective, (0, -0.5)),
        ({"name": "hard"}, Objective, (0, -1)),
        ({"name": "absolute"}, AbsoluteObjective, (-0.07, None)),
        ({"name": "auto"}, AutoObjective, (0, -1)),
    ],
)
def test_objectives_by_name(values, form, exponents):
    recipe = Recipe.parse(LOOK_UP | {"objective": {"target": "400M", **values}}, "r")
    objective = recipe.make_objective()
    assert type(objective) is form
    assert (objective.target, objective.w, objective.w_above) == (4e8, *exponents)
    assert Recipe.parse(recipe.model_dump(), "r") == recipe


@pytest.mark.parametrize(
    ("values", "cancels"),
    [({}, True), ({"w_above": -0.07}, True), ({"w_above": -1}, False), ({"name": "hard"}, False)],
)
def test_t_cancels_with_one_exponent_whether_written_or_not(values, cancels):
    assert Recipe.parse(LOOK_UP | {"objective": {"target": "400M", **values}}, "r").target_cancels is cancels


def test_an_error_shows_the_value_once():
    for setting in ("objective.target=400 M flops", "children=many"):
        with pytest.raises(RecipeError) as error:
            digits(setting)
        assert str(error.value).count(repr(setting.split("=")[1])) == 1


@pytest.mark.parametrize("field", ["format", "name", "children", "space", "objective", "data", "proxy"])
def test_a_missing_field_is_named(field):
    values = digits().model_dump()
    del values[field]
    hint = "; begin with the line format: baseline-nas/recipe/1" * (field == "format")
    with pytest.raises(RecipeError, match=f"^here: {field}: missing{hint}$"):
        Recipe.parse(values, "here")


def test_several_mistakes_say_how_many_more():
    with pytest.raises(RecipeError, match=r"childern: unknown key.*\(and 1 more\)$"):
        digits("childern=3", "seed=-1")


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("children=5", "children", 5),
        ("objective.target=300M", "objective.target", 3e8),
        ("objective.target=3e8", "objective.target", 3e8),
        ("objective.target=300000000", "objective.target", 3e8),
        ("proxy.lr=1e-3", "proxy.lr", 1e-3),
        ("proxy.lr=1", "proxy.lr", 1),
        ("proxy.flip=true", "proxy.flip", True),
        ("deployment={resolution: 160}", "deployment.resolution", 160),
        ("executor.early_stopping.reduction=4", "executor.early_stopping.reduction", 4),
        ("controller.options.clip_coef=0.3", "controller.options", {"clip_coef": 0.3}),
        ("executor.workers=null", "executor.workers", None),
        ("executor.workers=", "executor.workers", None),
        ("data.holdout=val", "data.holdout", "val"),
        ("name=a=b", None, None),
    ],
)
def test_settings(setting, path, value):
    if path is None:
        with pytest.raises(RecipeError, match=f"name: .*{setting.split('=', 1)[1]}"):
            digits(setting)
        return
    found = digits(setting)
    for step in path.split("."):
        found = getattr(found, step)
    assert found == value


def test_a_setting_goes_into_a_section_that_a_written_out_recipe_leaves_empty(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(digits("children=3").to_yaml())
    assert Recipe.load(str(path), ["scale.step=0.2"]).scale.step == 0.2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("children", "--set children: must be key=value"),
        ("=3", "--set =3: must be key=value"),
        ("children.x=3", "--set children.x=3: children holds no fields"),
        ("proxy.lr=[1", "--set proxy.lr=[1:1: not valid YAML"),
    ],
)
def test_settings_that_are_none(setting, message):
    with pytest.raises(InputError) as error:
        digits(setting)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_the_last_setting_wins():
    assert digits("children=3", "children=4").children == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "digit: no such recipe or file; did you mean digits?"),
        ("zzz", "zzz: no such recipe or file; shipped are "),
        ("none/own.yaml", "none/own.yaml: can't be read: No such file"),
    ],
)
def test_no_such_recipe(name, message):
    with pytest.raises(InputError) as error:
        Recipe.load(name)
    assert str(error.value).startswith(message)


def test_errors_of_a_file_name_the_file(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(digits().to_yaml().replace(f"children: {digits().children}", "children: 0"))
    with pytest.raises(RecipeError, match=r"own\.yaml: children: "):
        Recipe.load(str(path))
    path.write_text(digits().to_yaml() + "seed: 1\n")
    with pytest.raises(InputError, match=r"own\.yaml:\d+: .*'seed' is given twice"):
        Recipe.load(str(path))


@given(st.fixed_dictionaries({}, optional=SETTABLE))
def test_a_recipe_survives_its_yaml(settings):
    values = digits().model_dump()
    for path, value in settings.items():
        *sections, last = path.split(".")
        target = values
        for section in sections:
            target = target[section]
        target[last] = value
    recipe = Recipe.parse(values, "values")
    read = Recipe.parse(parse_yaml(recipe.to_yaml(), "yaml"), "yaml")
    assert read == recipe
    assert recipe.differs(read) is None


@pytest.mark.parametrize("name", recipe_file.names())
@pytest.mark.parametrize("objective", ["hard", "absolute", "auto"])
def test_every_shipped_recipe_takes_every_objective(name, objective):
    settings = [f"objective.name={objective}", "objective.target=300M"]
    section = Recipe.load(name, settings, source="digits" if name != "rehearse-b0" else None).objective
    assert (section.name, section.w, section.target) == (objective, None, 300e6)


def test_the_files_exponents_go_with_its_objective_and_stay_otherwise(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(digits("objective.w=-0.5", "objective.w_above=-0.9").to_yaml())

    def exponents(*settings):
        section = Recipe.load(str(path), settings).objective
        return section.w, section.w_above

    assert exponents() == exponents("objective.name=mnasnet") == exponents("objective.name='mnasnet'") == (-0.5, -0.9)
    assert exponents("objective.name=absolute") == (None, None)
    assert exponents("objective.w=-0.2", "objective.name=absolute") == (-0.2, None)
    with pytest.raises(RecipeError, match=r"objective\.w: the objective auto takes none"):
        exponents("objective.name=auto", "objective.w=-0.2")


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("seed=1", "seed"),
        ("objective.w=-0.5", "objective.w"),
        ("controller.options.clip_coef=0.3", "controller.options.clip_coef"),
        ("executor.early_stopping={}", "executor.early_stopping"),
        ("deployment.resolution=160", "deployment.resolution"),
        ("data.holdout=0.123", "data.holdout"),
    ],
)
def test_differs_names_the_field(setting, field):
    assert digits().differs(digits(setting)) == field
    assert digits(setting).differs(digits()) == field
    assert digits(setting).differs(digits(setting)) is None


def test_paths_become_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("images")
    (tmp_path / "mbconv").mkdir()
    recipe = digits("data.source=images")
    assert recipe.data.source == str(tmp_path / "images")
    assert recipe.space == "mbconv"
    assert digits("data.source=mbconv").data.source == str(tmp_path / "mbconv")
