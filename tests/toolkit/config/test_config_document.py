"""Finding, reading and substituting: a file becomes plain data with marks."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit.config import ConfigError, get_config, load, validate
from toolkit.config.reading.lookup import find_config


def read(text: str, suffix: str = ".yaml") -> dict:
    Path(f"job{suffix}").write_text(text, encoding="utf-8")
    return get_config(f"job{suffix}")


def complaint(text: str, suffix: str = ".yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, suffix)
    return str(caught.value)


# ---- lookup


@pytest.mark.parametrize("name", ["foo.yaml", "foo", "config/foo.yaml", "config/foo"])
def test_a_file_below_config_is_found_with_and_without_ending(folder: Path, name: str) -> None:
    (folder / "config").mkdir()
    (folder / "config/foo.yaml").write_text("job: extension", encoding="utf-8")
    assert find_config(name, root=folder).resolve() == (folder / "config/foo.yaml").resolve()


def test_examples_are_found_last(folder: Path) -> None:
    (folder / "config/examples").mkdir(parents=True)
    (folder / "config/examples/foo.yaml").write_text("", encoding="utf-8")
    assert find_config("foo", root=folder).name == "foo.yaml"
    (folder / "config/foo.json").write_text("", encoding="utf-8")
    assert find_config("foo", root=folder).name == "foo.json"
    (folder / "foo").write_text("", encoding="utf-8")
    assert find_config("foo", root=folder) == Path("foo")


def test_a_missing_file_says_where_it_looked_and_what_is_near(folder: Path) -> None:
    Path("quickstart.yaml").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"looked for quikstart.*did you mean 'quickstart.yaml'\?"):
        load("quikstart.yaml")


# ---- YAML as users write it


def test_numbers_dates_and_words() -> None:
    from toolkit.config.reading.text import parse_value

    text = "[1e-4, 5E-05, 1.5e+3, 1_000, 16:9, 2024-01-01, yes, True, cuda:0, ~, 0x10, 010, .5, -3]"
    expected = [1e-4, 5e-5, 1500.0, 1000, "16:9", "2024-01-01", True, True, "cuda:0", None, 16, "010", 0.5, -3]
    assert parse_value(text) == expected
    assert [type(value) for value in parse_value(text)] == [type(value) for value in expected]


def test_the_loader_of_pyyaml_is_left_alone() -> None:
    load({"job": "extension", "config": {"name": "x", "process": [{}]}})
    assert yaml.safe_load("1e-4") == "1e-4"
    assert yaml.safe_load("16:9") == 969


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbfjob: extension\nmeta: {a: 1e-4}\n",
        b"job: extension\r\nmeta:\r\n  a: 1e-4\r\n",
        "job: extension\nmeta: {a: 1e-4}\n".encode("utf-16"),
        b"---\njob: extension\nmeta:\n# a comment at column 0\n  a: 1e-4   \n",
        b"job: extension\nmeta: &m\n  a: 1e-4\nx: {<<: *m}\n",
    ],
)
def test_bom_crlf_and_other_habits(folder: Path, raw: bytes) -> None:
    Path("job.yaml").write_bytes(raw)
    data = get_config("job.yaml")
    assert data["meta"] == {"a": 1e-4}
    assert data.get("x", data["meta"]) == {"a": 1e-4}


def test_lines_are_those_of_the_keys(folder: Path) -> None:
    Path("job.yaml").write_text("job: extension\nmeta:\n  a:\n    - 1\n    - b: 2\n", encoding="utf-8")
    lines = load("job.yaml").lines
    assert lines[("meta",)] == 2
    assert lines[("meta", "a")] == 3
    assert lines[("meta", "a", 1)] == 5
    assert lines[("meta", "a", 1, "b")] == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "job.yaml:3: a: this key is already set in line 1"),
        ("a: 1\n---\nb: 2\n", "job.yaml:2: a second document begins here; one file holds one config"),
        ("a:\n\tb: 1\n", "job.yaml:2: a tab; YAML is indented with spaces"),
        (
            'a: 1\nb: "C:\\Users\\x"\n',
            "job.yaml:2: a backslash in double quotes; write a path with / in it, or in single quotes",
        ),
        (
            'a:\n  - "[trigger] waves"\\\n  - "b"\n',
            "job.yaml:2: this is not valid YAML: expected <block end>, but found '<scalar>';"
            " take away the backslash behind the closing quote",
        ),
        (
            "a: 1\nb:\n  - [trigger] in a garden\n",
            "job.yaml:3: this is not valid YAML: expected <block end>, but found '<scalar>';"
            " text that begins with [ needs quotes",
        ),
        ("a: !!python/object:os.system x\n", "job.yaml:1: a: the tag !!python/object:os.system is not allowed"),
        ("a: &a\n  b: *a\n", "job.yaml:1: a.b: contains itself"),
        ("", "job.yaml: is empty"),
        ("- 1\n", "job.yaml: is not a config: it must be a group of keys"),
        ("a: [1, 2\nb: 3\n", "job.yaml:2: this is not valid YAML: expected ',' or ']', but got ':'"),
        ("a: \x08\n", "job.yaml:1: the character U+0008 is not allowed here"),
    ],
)
def test_unreadable_files_say_why_in_one_line(folder: Path, text: str, expected: str) -> None:
    found = complaint(text)
    assert found.startswith(expected)
    assert "\n" not in found


def test_an_open_string_is_reported_where_it_begins(folder: Path) -> None:
    text = 'a: 1\nprompts:\n  - "a cat\n  - "a dog"\n  - "a house"\nb: 2\n'
    assert complaint(text) == "job.yaml:3: the string that begins here is not closed (noticed in line 4)"
    assert complaint("a: 1\nb: 'x\nc: 3\nd: 4\n").startswith("job.yaml:2: the string that begins here is not closed")


def test_text_that_is_not_utf8(folder: Path) -> None:
    Path("job.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"job.yaml:2: this is not UTF-8 text"):
        load("job.yaml")


# ---- JSON


def test_jsonc_with_comments_and_trailing_commas(folder: Path) -> None:
    text = """{
    // a comment with ${NOT_SET} and "quotes
    "job": "extension", /* two
    lines */
\t"meta": {"url": "http://x//y", "smile": "\\ud83d\\ude00", "slash": "a\\/b", "n": 1E-4,},
}"""
    data = read(text, ".jsonc")
    assert data["meta"] == {"url": "http://x//y", "smile": "\U0001f600", "slash": "a/b", "n": 1e-4}
    assert load("job.jsonc").lines[("meta",)] == 5


def test_json_errors_have_a_line_and_duplicates_are_refused(folder: Path) -> None:
    assert complaint('{\n"a": 1\n"b": 2}', ".json").startswith("job.json:3: this is not valid JSON")
    assert complaint('{"a": 1,\n"a": 2}', ".json") == "job.json:2: a: this key is already set in line 1"


# ---- ${ENV}


def test_environment_values_and_defaults(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "300")
    monkeypatch.setenv("LIST", "[512, 768]")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("ODD", "a: b # c")
    text = """\
# ${NOT_SET} in a comment is no error
a: ${STEPS}
b: "${STEPS}"
c: ${LIST}
d: [${STEPS}, x${STEPS}y]
e: ${EMPTY:-fall back}   # ${NOT_SET}
f: ${NOT_SET:-1e-4}
g: ${ODD}
"""
    assert read(text) == {
        "a": 300,
        "b": "300",
        "c": [512, 768],
        "d": [300, "x300y"],
        "e": "fall back",
        "f": 1e-4,
        "g": "a: b # c",
    }


def test_unset_variables_are_all_named_with_their_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    lines = complaint("a: 1\nb: ${NOT_SET}\nc:\n  - ${ALSO_NOT}\n").splitlines()
    assert lines == [
        "job.yaml:2: b: the environment variable NOT_SET is not set (or write ${NOT_SET:-default})",
        "job.yaml:4: c.0: the environment variable ALSO_NOT is not set (or write ${ALSO_NOT:-default})",
    ]


def test_values_from_the_environment_are_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hf_0123456789")
    Path("job.yaml").write_text("meta: {token: 'x-${TOKEN}'}\n", encoding="utf-8")
    document = load("job.yaml")
    assert document.data["meta"] == {"token": "x-hf_0123456789"}
    assert document.secrets == {("meta", "token"): "x-${TOKEN}"}
    assert document.mask("it was hf_0123456789 that failed") == "it was ${TOKEN} that failed"
    from_python = load({"meta": {"token": "${TOKEN}"}})
    assert from_python.data["meta"] == {"token": "hf_0123456789"}
    assert from_python.secrets == {("meta", "token"): "${TOKEN}"}


# ---- [name] and -n


@pytest.mark.parametrize(
    ("own", "given", "expected"),
    [
        ("  name: mine\n", None, ("mine", "out/mine", "mine")),
        ("  name: mine\n", "theirs", ("mine", "out/theirs", "theirs")),
        ('  name: "[name]"\n', "theirs", ("theirs", "out/theirs", "theirs")),
        ("", "theirs", ("theirs", "out/theirs", "theirs")),
        ("", 'with "quotes" \\', ('with "quotes" \\', 'out/with "quotes" \\', 'with "quotes" \\')),
    ],
)
def test_name_is_replaced_everywhere(folder: Path, own: str, given: str | None, expected: tuple[str, ...]) -> None:
    text = f"job: extension\nconfig:\n{own}  process:\n    - folder: out/[name]\nmeta:\n  '[name]': 1\n"
    Path("job.yaml").write_text(text, encoding="utf-8")
    data = load("job.yaml", given).data
    assert data["config"]["name"] == expected[0]
    assert data["config"]["process"][0]["folder"] == expected[1]
    assert list(data["meta"]) == [expected[2]]


def test_a_name_without_effect_is_refused(folder: Path, minimal: str) -> None:
    Path("job.yaml").write_text(minimal, encoding="utf-8")
    (problem,) = load("job.yaml", "other").problems
    assert str(problem) == (
        "job.yaml:3: config.name: --name other would change nothing, because the config nowhere says [name]; "
        "--set name=other gives the run this name"
    )
    assert not load("job.yaml", "test_lora").problems
    assert load("job.yaml", None, ["name=other"]).data["config"]["name"] == "other"


# ---- shapes


def test_python_values_are_taken_as_a_file_would_have_them() -> None:
    source: Any = OrderedDict(
        job="extension", config=OrderedDict(name="x", process=(OrderedDict(a=Path("b/c"), d=(1, 2)),))
    )
    data = load(source).data
    assert data["config"]["process"] == [{"a": str(Path("b/c")), "d": [1, 2]}]
    assert source["config"]["process"][0]["d"] == (1, 2)


def test_unusual_shapes_are_read_with_one_notice_each(
    folder: Path, minimal: str, problems: Callable[..., list[str]]
) -> None:
    usual = get_config(_write(minimal))
    process = yaml.safe_load(minimal)["config"]["process"][0]
    shapes: dict[str, dict] = {
        "read as a list of one process": {"job": "extension", "config": {"name": "test_lora", "process": process}},
        "read as config.process": {"job": "extension", "config": {"name": "test_lora"}, "process": [process]},
        "this is one process": {**process, "name": "test_lora"},
        "there is no `job:`": {"config": {"name": "test_lora", "process": [process]}},
    }
    for said, shape in shapes.items():
        document = load(_write(yaml.safe_dump(shape)))
        assert [said in str(notice) for notice in document.notices] == [True]
        config = validate(document)
        assert config.processes[0].model_dump() == validate(load(usual)).processes[0].model_dump()
        assert f"job.yaml:{_line('steps')}" in problems(Path("job.yaml").read_text().replace("100", "-1"))[0]


def test_process_without_config_group(folder: Path, minimal: str) -> None:
    process = yaml.safe_load(minimal)["config"]["process"]
    document = load(_write(yaml.safe_dump({"job": "extension", "name": "n", "process": process})))
    assert validate(document).name == "n"
    assert [str(notice) for notice in document.notices] == ["job.yaml:3: process: read as config.process"]


def test_the_pasted_process_is_named_by_option_or_file(folder: Path, minimal: str) -> None:
    process = yaml.safe_load(minimal)["config"]["process"][0]
    assert load(_write(yaml.safe_dump(process))).data["config"]["name"] == "job"
    assert load(_write(yaml.safe_dump(process)), "given").data["config"]["name"] == "given"


def _write(text: str) -> str:
    Path("job.yaml").write_text(text, encoding="utf-8")
    return "job.yaml"


def _line(word: str) -> int:
    lines = Path("job.yaml").read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if word in line)
