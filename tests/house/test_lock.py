"""The lock pins everything exactly, names no address, and covers what the code imports."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.source_tree import PACKAGES, ROOT, files_of_tests, product_files, tree

PINS = {
    canonicalize_name(name): pin
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
    for name, _, pin in [line.partition("==")]
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = PROJECT["dependencies"] + [
    line for extra in ("dev", "s3", "gpu") for line in PROJECT["optional-dependencies"][extra]
]
NEEDED_UNIMPORTED = {
    "decord2": "imported as decord",
    "ftfy": "open_clip's tokenizer",
    "pandas": "Ray Data and MLflow",
    "psutil": "MLflow's system metrics",
    "s3fs": "fsspec's driver for s3://",
    "torchvision": "open_clip's models",
    "webdataset": "the reader that shards are tested with",
    "import-linter": "lint-imports",
    "mypy": "make types",
    "pre-commit": "CONTRIBUTING",
    "pytest-timeout": "the limit in pyproject.toml",
    "pytest-xdist": "make test: tests wait more than they compute",
    "ruff": "make lint",
    "scipy-stubs": "mypy",
    "types-pyyaml": "mypy",
    "types-jsonschema": "mypy",
}
"""distribution -> who needs it, where no import of ours does."""


def test_every_line_is_an_exact_pin():
    """No addresses, no indexes, no hashes, no editable installs: the lock installs from wherever pip is set to look."""
    wrong = [
        line
        for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#") and not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)
    ]
    assert wrong == []
    assert len(PINS) > 100


@pytest.mark.parametrize(
    "file", ["requirements.lock", "pyproject.toml", "Makefile", ".ci/run", ".pre-commit-config.yaml"]
)
def test_no_package_index_is_named(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(r"--(extra-)?index-url|--find-links|--trusted-host|https?://|file://|@ git", text) is None


@pytest.mark.parametrize("requirement", DECLARED)
def test_the_lock_lies_in_the_declared_ranges(requirement):
    wanted = Requirement(requirement)
    assert wanted.specifier.contains(PINS[canonicalize_name(wanted.name)])


def test_the_lock_is_what_is_installed():
    installed = {name: version(name) for name in PINS}
    assert {name: (pin, installed[name]) for name, pin in PINS.items() if pin != installed[name]} == {}


def test_every_import_is_declared():
    """Found through what is installed: import name -> distribution -> pyproject.toml."""
    declared = {canonicalize_name(Requirement(line).name) for line in DECLARED}
    providers = packages_distributions()
    known = {*sys.stdlib_module_names, *PACKAGES, "tests"}
    undeclared = {}
    for path in product_files() + files_of_tests():
        for name in top_level_imports(tree(path)) - known:
            if not {canonicalize_name(item) for item in providers.get(name, [])} & declared:
                undeclared.setdefault(name, str(path))
    assert undeclared == {}


def test_every_declaration_is_needed():
    providers = packages_distributions()
    imported = {name for path in product_files() + files_of_tests() for name in top_level_imports(tree(path))}
    used = {canonicalize_name(item) for name in imported for item in providers.get(name, [])}
    declared = {canonicalize_name(Requirement(line).name) for line in DECLARED}
    assert sorted(declared - used - set(NEEDED_UNIMPORTED)) == []


def top_level_imports(module: ast.Module) -> set[str]:
    """The first parts of all imported names."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names
