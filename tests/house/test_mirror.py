"""One test module per module, at the same path; no module with a name that says nothing."""

import ast
from pathlib import Path

import pytest

from tests.house.source_tree import PACKAGES, files_of_tests, product_files, source, tree

SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "misc", "tools", "core", "stuff"}

TESTED_ELSEWHERE: dict[str, str] = {}
"""module -> the test file that covers it, where its own test module would have to start the same machinery twice."""


def mirrored(module: Path) -> Path:
    """Where the test of a module stands."""
    return Path("tests") / module.parent / f"test_{module.name}"


def modules() -> list[Path]:
    """The modules that hold code."""
    return [path for path in product_files() if path.name != "__init__.py"]


def test_every_module_has_its_test():
    have = set(files_of_tests())
    missing = [str(path) for path in modules() if mirrored(path) not in have and str(path) not in TESTED_ELSEWHERE]
    assert missing == []


def test_what_is_tested_elsewhere_really_is():
    for module, test in TESTED_ELSEWHERE.items():
        assert Path(module).name != "", module
        assert Path(module) in product_files(), f"{module} is gone; take it off the list"
        assert module.removesuffix(".py").replace("/", ".") in source(Path(test)), f"{test} does not name {module}"


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
