"""Sizes, counted from the syntax tree, so that no comment in the code can waive them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.source_tree import files_of_tests, product_files, source, tree

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6

TRAINING_LOOP = ("pipelines/training/loop.py", 150)
"""The one file in which a function may be longer: the training loop reads better in one piece."""

MORE_PARAMETERS: dict[str, str] = {}
"""`path:function` -> why it takes more than six parameters."""


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones too."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def num_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters without self and cls; *args and **kwargs count as one each."""
    arguments = function.args
    named = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    named = named[1:] if named[:1] in (["self"], ["cls"]) else named
    return len(named) + (arguments.vararg is not None) + (arguments.kwarg is not None)


def too_long_functions(path: Path, module: ast.Module) -> list[str]:
    """Functions of a file above the limit."""
    limit = TRAINING_LOOP[1] if path.as_posix() == TRAINING_LOOP[0] else MAX_FUNCTION_LINES
    return [f"{path}:{f.name} has {num_lines(f)} lines" for f in functions(module) if num_lines(f) > limit]


def test_files_are_short():
    files = product_files() + files_of_tests()
    assert [f"{path} has {n} lines" for path in files if (n := source(path).count("\n")) > MAX_FILE_LINES] == []


def test_functions_are_short():
    assert [line for path in product_files() + files_of_tests() for line in too_long_functions(path, tree(path))] == []


def test_functions_take_few_parameters():
    wide = {
        f"{path}:{f.name}"
        for path in product_files()
        for f in functions(tree(path))
        if num_parameters(f) > MAX_PARAMETERS
    }
    assert wide == set(MORE_PARAMETERS)


@pytest.mark.parametrize(("lines", "is_too_long"), [(60, False), (61, True)])
def test_a_long_function_is_seen_whatever_its_comments_say(lines, is_too_long):
    body = "\n".join(f"    x = {i}  # noqa" for i in range(lines - 1))
    module = ast.parse(f"def f():  # noqa: PLR0915\n{body}\n")
    assert bool(too_long_functions(Path("hvlm/x.py"), module)) == is_too_long


def test_parameters_are_counted_without_self():
    module = ast.parse("class A:\n    def f(self, a, b=1, *c, d, **e): ...\n")
    assert [num_parameters(f) for f in functions(module)] == [5]
