"""Loading configurations: what is wrong is named, with its file and key."""

import errno
import os
from dataclasses import dataclass, field
from typing import Literal

import pytest
import yaml

from hvlm.config import Config, require
from hvlm.errors import UserError
from infra.config_io import (
    ConfigChoice,
    apply_overrides,
    build_config,
    dump_config,
    flatten_config,
    load_config,
    load_yaml,
    set_values,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig(Config):
    uri: str
    extensions: tuple[str, ...] = (".mp4",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircleConfig(Config):
    kind: Literal["circle"] = "circle"
    radius: float = 1.0

    def __post_init__(self) -> None:
        require(self.radius > 0, what="circle.radius", got=self.radius, expected="above 0", do="raise it")


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareConfig(Config):
    kind: Literal["square"] = "square"
    side: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(Config):
    source: SourceConfig
    shapes: dict[str, CircleConfig | SquareConfig] = field(default_factory=dict)
    seed: int = 0
    note: str | None = None


@pytest.fixture
def write(tmp_path):
    def _write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return _write


def test_a_file_becomes_its_dataclass(write):
    config = load_config(
        RunConfig, write("source: {uri: /v, extensions: [.mkv]}\nshapes: {a: {kind: square, side: 3}}\n")
    )
    assert config == RunConfig(source=SourceConfig(uri="/v", extensions=(".mkv",)), shapes={"a": SquareConfig(side=3)})


def test_overrides_win_and_are_read_as_yaml(write):
    path = write("source: {uri: /v}\nseed: 1\n")
    config = load_config(
        RunConfig, path, ["seed=2", "source.uri=s3://b/k=1", "note=null", "source.extensions=[.avi, .mp4]"]
    )
    assert config == RunConfig(source=SourceConfig(uri="s3://b/k=1", extensions=(".avi", ".mp4")), seed=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/my videos #2/ü", "/my videos #2/ü"),
        (" /v ", "/v"),
        ("'/v #2 '", "/v #2 "),
        ('"a\\tb"', "a\tb"),
        ("''", ""),
    ],
)
def test_a_path_in_an_override_is_taken_as_it_stands(text, expected):
    assert apply_overrides({}, [f"uri={text}"]) == {"uri": expected}


def test_an_override_makes_the_levels_it_needs(write):
    config = load_config(RunConfig, write("source: {uri: /v}\n"), ["shapes.a.kind=circle", "shapes.a.radius=2"])
    assert config.shapes == {"a": CircleConfig(radius=2.0)}


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.0e-4"])
def test_a_number_may_be_written_with_an_exponent_alone(write, text):
    path = write(f"source: {{uri: /v}}\nshapes: {{a: {{kind: circle, radius: {text}}}}}\n")
    assert load_config(RunConfig, path).shapes["a"].radius == 1e-4
    assert load_config(RunConfig, path, [f"shapes.a.radius={text}"]).shapes["a"].radius == 1e-4


def test_overrides_leave_the_given_values_alone():
    values = {"source": {"uri": "/v"}}
    assert apply_overrides(values, ["source.uri=/w"]) == {"source": {"uri": "/w"}}
    assert values == {"source": {"uri": "/v"}}


def test_values_are_set_by_dotted_keys_and_belong_to_the_copy():
    values, inner = {"a": {"b": 1, "c": 2}, "d": 3}, {"y": 1}
    changed = set_values(values, {"a.b": 5, "e.f": None, "d": inner, "d.y": 2})
    assert changed == {"a": {"b": 5, "c": 2}, "d": {"y": 2}, "e": {"f": None}}
    assert values == {"a": {"b": 1, "c": 2}, "d": 3} and inner == {"y": 1}
    with pytest.raises(UserError, match=r"override: got a\.b\.x=1; expected 'b' to hold further keys"):
        set_values(values, {"a.b.x": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: {uri: /v}\nseed: true\n", "seed=True: Input should be a valid integer"),
        ("source: {uri: /v}\nseed: '8'\n", "seed='8': Input should be a valid integer"),
        (
            "source: {uri: /v}\nshapes: {a: {kind: circle, radius: true}}\n",
            "radius=True: Input should be a valid number",
        ),
        ("source: {uri: /v}\nshapes: {a: {kind: circle, radius: .inf}}\n", "radius=.*should be a finite number"),
        ("source: {uri: ''}\n", r"source\.uri='': String should have at least 1 character"),
        ("source: {uri: /v}\nsede: 1\n", r"run\.yaml: got sede is not a known key"),
        ("source: {uri: /v, url: /w}\n", r"source\.url is not a known key"),
        ("seed: 1\n", "source is missing"),
        ("source: {}\n", r"source\.uri is missing"),
        ("source: {uri: /v}\nseed: one\n", "seed='one': Input should be a valid integer"),
        (
            "source: {uri: /v}\nshapes: {a: {kind: circle, radius: 0}}\n",
            r"got in shapes\.a\.\S*: circle\.radius: got 0\.0; expected above 0; raise it; shapes\.a\.Square",
        ),
        ("source: {uri: /v}\nseed: 1\nseed: 2\n", "line 3: got the key 'seed' a second time"),
        ("source: {uri: /v, uri: /w}\n", "line 1: got the key 'uri' a second time"),
        ("source: [\n", "expected valid YAML"),
        ("[a, b]: 1\n", "unhashable key.*expected valid YAML"),
        ("{a: 1}: 1\n", "unhashable key.*expected valid YAML"),
        ("note: 2024-13-45\n", "month must be in 1.*expected valid YAML"),
        ("- a\n- b\n", "got list; expected a mapping"),
        ("", "got NoneType; expected a mapping"),
    ],
)
def test_what_is_wrong_is_named(write, text, message):
    with pytest.raises(UserError, match=message):
        load_config(RunConfig, write(text))


def test_all_wrong_keys_are_named_at_once(write):
    with pytest.raises(UserError, match=r"(?s)sede is not a known key.*nte is not a known key|nte.*sede"):
        load_config(RunConfig, write("source: {uri: /v}\nsede: 1\nnte: x\n"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "expected key=value"),
        ("=3", "expected key=value"),
        ("seed.x=3", "expected 'seed' to hold further keys"),
        ("seed=[", "expected a YAML value"),
        ("note=2024-13-45", "expected a YAML value"),
        ("shapes={[a]: 1}", "expected a YAML value"),
        ("sede=3", "sede is not a known key"),
    ],
)
def test_a_wrong_override_is_named(write, override, message):
    with pytest.raises(UserError, match=message):
        load_config(RunConfig, write("source: {uri: /v}\nseed: 1\n"), [override])


@pytest.mark.parametrize("make_folder", [False, True])
def test_a_missing_file_is_named(tmp_path, make_folder):
    path = tmp_path / "none.yaml"
    if make_folder:
        path.mkdir()
    with pytest.raises(UserError, match=r"--config: got .*none\.yaml; expected an existing YAML file"):
        load_yaml(str(path))


def test_a_file_without_permission_is_named(write, monkeypatch):
    path = write("seed: 1\n")

    def refuse(name, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"--config: got .*run\.yaml: Permission denied; expected a file that can be"):
        load_yaml(path)


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("note: caf\u00e9\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"run\.yaml: got 'utf-8' codec can't decode .*expected valid YAML in UTF-8"):
        load_yaml(str(path))


def test_yaml_that_would_run_code_is_refused(write):
    with pytest.raises(UserError, match="expected valid YAML"):
        load_yaml(write("a: !!python/object/apply:os.getcwd []\n"))


def test_a_dump_reads_back_to_an_equal_configuration():
    config = RunConfig(source=SourceConfig(uri="/v"), shapes={"a": CircleConfig(radius=2.5), "b": SquareConfig()})
    plain = dump_config(config)
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    assert build_config(RunConfig, plain, origin="dump") == config


def test_flat_keys_are_dotted_paths():
    assert flatten_config(RunConfig(source=SourceConfig(uri="/v"))) == {
        "source.uri": "/v",
        "source.extensions": (".mp4",),
        "shapes": {},
        "seed": 0,
        "note": None,
    }


def test_a_key_chooses_the_type_and_errors_name_it():
    choice = ConfigChoice(key="kind", default="circle", types={"circle": CircleConfig, "square": SquareConfig})
    assert build_config(choice, {"kind": "square", "side": 3}, origin="x") == SquareConfig(side=3)
    assert build_config(choice, {"radius": 2.0}, origin="x") == CircleConfig(radius=2.0)
    with pytest.raises(UserError, match="radius is not a known key; expected the keys of SquareConfig"):
        build_config(choice, {"kind": "square", "radius": 1.0}, origin="x")
    for wrong in ("oval", 3, None):
        with pytest.raises(UserError, match=r"x, kind: got .*; expected one of circle, square"):
            build_config(choice, {"kind": wrong}, origin="x")
