"""Files in and out: numbers are numbers, words are words, and a mistake is one line that says where."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_space.errors import InputError
from search_space.files import flow, parse_yaml, read_yaml, write_file

NUMBERS = [("1e-5", 1e-5), ("350e6", 350e6), ("4E8", 4e8), ("-1.5e-3", -1.5e-3), (".5", 0.5), ("2.", 2.0), ("7", 7)]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_numbers(text, number):
    value = parse_yaml(f"a: {text}", "f")["a"]
    assert value == number
    assert type(value) is type(number)


@pytest.mark.parametrize(
    "word", ["no", "No", "yes", "on", "off", "y", "2024-01-01", "1e", "e5", "400M", "010", "12:30", "1_000"]
)
def test_words_stay_words(word):
    assert parse_yaml(f"a: {word}", "f") == {"a": word}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("null", None), ("~", None)])
def test_true_false_and_null(text, value):
    assert parse_yaml(text, "f") is value


@given(SCALARS | st.lists(SCALARS) | st.dictionaries(st.text(), SCALARS))
def test_flow_is_read_back_to_the_same_value(value):
    read = parse_yaml(f"a: {flow(value)}\nb: 1\n", "f")
    assert read == {"a": value, "b": 1}
    assert type(read["a"]) is type(value)


def test_a_mapping_takes_over_the_fields_of_another():
    text = "- &stage {op: conv, layers: 1}\n- {<<: *stage, layers: 2}\n- {<<: *stage}"
    assert parse_yaml(text, "f") == [{"op": "conv", "layers": count} for count in (1, 2, 1)]


@pytest.mark.parametrize("text", ["1e5", "1e-5", "no", "1.5", "null", "true", "tRue"])
def test_a_text_that_looks_like_something_else_stays_a_text(text):
    assert parse_yaml(flow(text), "f") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3: not valid YAML: 'a' is given twice"),
        ("a: {x: 1, x: 2}", "f.yaml:1: not valid YAML: 'x' is given twice"),
        ("a: {<<: 1}", "f.yaml:1: not valid YAML: "),
        ("a: [1, 2", "f.yaml:1: "),
        ("a: 1\n b: 2", "f.yaml:2: "),
        ("? [a]\n: 1", "f.yaml:1: not valid YAML: ['a'] can't name a value"),
        ("{{name}}: 1", "f.yaml:1: "),
        ("a: !!python/object/apply:os.getcwd []", "f.yaml:1: "),
        ("a: !!int x", "f.yaml: not valid YAML: "),
        ("a: !!float ''", "f.yaml: not valid YAML: "),
        ("a: !!bool x", "f.yaml: not valid YAML: "),
        ("a: !!timestamp x", "f.yaml: not valid YAML: "),
        ("a: \x00", "f.yaml: not valid YAML: "),
        ("[" * 5000, "f.yaml: not valid YAML: "),
    ],
)
def test_invalid_yaml_is_one_line_that_names_file_and_line(text, message):
    with pytest.raises(InputError) as error:
        parse_yaml(text, "f.yaml")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "must hold `name: value` lines"),
        (b"", "must hold `name: value` lines"),
        (b"1: a\n", "must hold `name: value` lines"),
        (b"a: \xff\xfe\n", "can't be read: not a text file"),
    ],
)
def test_a_file_without_a_mapping(tmp_path, content, message):
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_yaml(path)
    assert str(error.value) == f"{path}: {message}"


def test_no_such_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: can't be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="can't be read: Is a directory"):
        read_yaml(tmp_path)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    write_file(tmp_path / "file", "mine")
    for path in (tmp_path / "file" / "below.yaml", tmp_path / f"{'long' * 100}.yaml"):
        with pytest.raises(InputError, match=re.escape(f"{path}: can't be written: ")):
            write_file(path, "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "mine")]
