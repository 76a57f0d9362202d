"""One test module per module, at the same path; no module with a name that says nothing."""

import ast
from pathlib import Path

import pytest

from tests.house.source_tree import PACKAGES, files_of_tests, product_files, tree

SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "misc", "tools", "core", "stuff"}


def mirrored(module: Path) -> Path:
    """Where the test of a module stands."""
    return Path("tests") / module.parent / f"test_{module.name}"


def modules() -> list[Path]:
    """The modules that hold code."""
    return [path for path in product_files() if path.name != "__init__.py"]


def test_every_module_has_its_test():
    have = set(files_of_tests())
    missing = [str(path) for path in modules() if mirrored(path) not in have]
    assert missing == []


def test_every_mirrored_test_has_its_module():
    have = {mirrored(path) for path in modules()}
    strays = [
        str(path)
        for path in files_of_tests()
        if path.parts[1] in PACKAGES and path.name.startswith("test_") and path not in have
    ]
    assert strays == []


@pytest.mark.parametrize("path", [path for path in files_of_tests() if path.name.startswith("test_")], ids=str)
def test_every_test_module_tests_something(path):
    names = [node.name for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
    assert any(name.startswith("test_") for name in names)


def test_names_say_what_is_inside():
    parts = {part for path in product_files() for part in path.with_suffix("").parts}
    assert parts & SAY_NOTHING == set()


def test_no_init_files_under_tests():
    assert [str(path) for path in files_of_tests() if path.name == "__init__.py"] == []
