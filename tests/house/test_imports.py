"""Imports run one way; the contracts stand in pyproject.toml."""

import ast
import os
import subprocess
import sys
from pathlib import Path

from tests.house.source_tree import PACKAGES, ROOT, product_files, source, tree


def test_import_contracts_hold():
    script = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kept, 0 broken" in done.stdout


def test_no_import_hides_from_the_contracts():
    """import-linter reads `import` statements; a module name in a string would go past it."""
    hidden = []
    for path in product_files():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "importlib.import_module",
                "import_module",
                "__import__",
            ):
                hidden.append(f"{path}:{node.lineno}")
    assert hidden == []


def test_init_files_are_empty():
    full = [str(path) for path in product_files() if path.name == "__init__.py" and source(path)]
    assert full == []


def test_every_package_folder_has_an_init_file():
    folders = {path.parent for path in product_files()}
    parents = {parent for folder in folders for parent in folder.parents if parent != Path(".")}
    missing = [str(folder) for folder in sorted(folders | parents) if not (ROOT / folder / "__init__.py").is_file()]
    assert missing == []


def test_all_four_packages_are_looked_at():
    assert {path.parts[0] for path in product_files()} == set(PACKAGES)
