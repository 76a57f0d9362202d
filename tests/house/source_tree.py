"""Which files the rules of the house hold for, and how they are read."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("hvlm", "pipelines", "infra", "jobs")


@functools.cache
def product_files() -> tuple[Path, ...]:
    """Every Python file of the four packages, relative to the root."""
    return tuple(sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")))


@functools.cache
def files_of_tests() -> tuple[Path, ...]:
    """Every Python file under tests, relative to the root."""
    return tuple(sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")))


@functools.cache
def source(path: Path) -> str:
    """The text of a file, given relative to the root."""
    return (ROOT / path).read_text(encoding="utf-8")


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file, given relative to the root."""
    return ast.parse(source(path), filename=str(path))
