"""Every YAML of a job loads into the job's configuration; misspelled and repeated keys are refused."""

import dataclasses
import importlib
import subprocess
import sys

import pytest

from hvlm.errors import UserError
from infra.config_io import build_config, dump_config, load_config, load_yaml
from tests.house.job_list import CONFIGS, config_type, files_of, job_of, jobs
from tests.house.source_tree import ROOT

FILES = sorted(CONFIGS.glob("*.yaml"))
SMOKED = ("render", "extract", "train", "evaluate")
"""Jobs that the smoke run of the demo calls."""


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_yaml_loads(file):
    job = job_of(file)
    assert job is not None, f"{file.name} begins with no job's name"
    config = load_config(config_type(job), str(file))
    assert build_config(config_type(job), dump_config(config), origin="dump") == config


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_misspelled_key_is_refused_at_every_level(file):
    """A key is added to the top and to each mapping below it that is a configuration of its own."""
    kind = config_type(job_of(file))
    values = load_yaml(str(file))
    config = load_config(kind, str(file))
    places = [(), *nested(config, values)]
    for place in places:
        with pytest.raises(UserError, match="mispelled"):
            load_config(kind, str(file), [".".join((*place, "mispelled")) + "=1"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_repeated_key_is_refused(file, tmp_path):
    first = next(iter(load_yaml(str(file))))
    twice = tmp_path / file.name
    twice.write_text(file.read_text(encoding="utf-8") + f"\n{first}: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"'{first}' a second time"):
        load_yaml(str(twice))


@pytest.mark.parametrize("job", sorted(jobs()))
def test_every_job_has_an_example(job):
    assert files_of(job) != []


@pytest.mark.parametrize("job", SMOKED)
def test_the_demo_has_its_files(job):
    assert (CONFIGS / f"{job}_smoke.yaml").is_file()
    assert (CONFIGS / f"{job}_demo.yaml").is_file()


@pytest.mark.parametrize("job", sorted(jobs()))
def test_every_job_says_how_it_is_run(job):
    assert f"python -m jobs.{job} --config" in importlib.import_module(f"jobs.{job}").__doc__


def test_a_wrong_key_ends_a_job_with_code_2_and_one_line():
    command = [sys.executable, "-m", "jobs.extract", "--config", "jobs/configs/extract_smoke.yaml", "sorce.uri=/videos"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "sorce is not a known key" in done.stderr
    assert "Traceback" not in done.stderr


def nested(config, values, place=()):
    """The paths of the mappings in `values` that fill a configuration dataclass."""
    for key, value in values.items():
        inner = getattr(config, key, None) if dataclasses.is_dataclass(config) else config.get(key)
        if isinstance(value, dict) and (dataclasses.is_dataclass(inner) or isinstance(inner, dict)):
            if dataclasses.is_dataclass(inner):
                yield (*place, key)
            yield from nested(inner, value, (*place, key))
