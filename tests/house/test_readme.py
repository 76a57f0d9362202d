"""The README describes the tree that is there."""

import re
import tomllib

import pytest

from tests.house.job_list import jobs
from tests.house.source_tree import PACKAGES, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_SHOWN = {".git", ".venv", "runs", "build", "dist", "__pycache__", "CLAUDE.md", "AGENTS.md"}


def tree_of_readme() -> set[str]:
    """Paths in the fenced block under "## The tree"; two spaces of indentation are one level, the rest is a remark."""
    block = re.search(r"^## The tree\n.*?```\w*\n(.*?)```", README, re.DOTALL | re.MULTILINE)
    assert block is not None
    paths: set[str] = set()
    stack: list[str] = []
    for line in block[1].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        stack[depth:] = [name.rstrip("/")]
        paths.add("/".join(stack))
    return paths


def real_tree() -> set[str]:
    """What the README has to show: files and folders at the top, folders that hold code, files of jobs and infra."""
    shown = {path.name for path in ROOT.iterdir() if path.name not in NOT_SHOWN and not path.name.endswith("_cache")}
    for package in (*PACKAGES, "tests"):
        for folder in (ROOT / package).rglob("*"):
            if folder.is_dir() and any(folder.glob("*")) and "__pycache__" not in folder.parts:
                shown.add(folder.relative_to(ROOT).as_posix())
    shown -= {path for path in shown if path.startswith("tests/") and path.count("/") > 1}
    return {
        path for path in shown if not path.startswith(".") or path in (".ci", ".pre-commit-config.yaml", ".gitignore")
    }


def test_the_tree_is_the_real_tree():
    said, real = tree_of_readme(), real_tree()
    assert sorted(said - real) == [], "in the README only"
    assert sorted(real - said) == [], "missing in the README"


@pytest.mark.parametrize("job", sorted(jobs()))
def test_every_job_stands_in_the_table(job):
    assert re.search(rf"^\| `jobs\.{job}` \|", README, re.MULTILINE)


def test_every_named_job_exists():
    named = set(re.findall(r"jobs\.([a-z_]+)", README))
    assert named - {path.stem for path in (ROOT / "jobs").glob("*.py")} == set()


def test_every_named_config_exists():
    named = set(re.findall(r"jobs/configs/[\w/]+\.(?:yaml|json)", README))
    assert sorted(path for path in named if not (ROOT / path).is_file()) == []


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/LOG.md"])
def test_local_links_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


def test_the_licence_is_the_one_that_the_project_states():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert "[Apache-2.0](LICENSE)" in README
