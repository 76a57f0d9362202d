"""Rules about single lines of the product code."""

import ast
import re
from pathlib import Path

from tests.house.source_tree import product_files, source, tree

BROAD_EXCEPT_ALLOWED = {
    "infra/listing.py": "whatever a storage library raises is carried past fsspec's walk and raised again",
    "infra/retries.py": "whatever a storage library raises is judged; what is not tried again is raised as it is",
    "infra/storage.py": "whatever a remote storage library raises when it cannot be reached is the user's to mend",
    "jobs/entry.py": "the top of every job, for the exit code",
    "pipelines/extraction/decode_stage.py": "whatever a decoder or a storage library raises becomes a quarantine row",
    "pipelines/extraction/encode_stage.py": "whatever a model raises becomes the quarantine row of its video",
    "pipelines/extraction/sandbox.py": "whatever interrupts a request ends the child, and is raised as it is",
    "pipelines/extraction/sandbox_child.py": "whatever a decoder raises is answered to the parent as a failure",
    "pipelines/ray_tasks.py": "looks for an error of ours behind Ray's wrappers; raises all others as they are",
    "pipelines/store/snapshot.py": "whatever a remote storage library raises becomes the failure row of its video",
    "pipelines/store/sources.py": "whatever a remote storage library raises about one line becomes its failure row",
    "pipelines/store/upkeep/verify.py": "any way of not being a sample is a finding in the report",
    "pipelines/training/stream.py": "a reading thread hands its exception to the training loop, which raises it",
}
"""path -> why it may catch everything."""

QUIET = ("hvlm", "infra", "pipelines")
"""Packages that log; only jobs print."""


def test_no_assert_in_product_code():
    """`python -O` drops an assert, and its message helps nobody."""
    found = [
        f"{path}:{node.lineno}"
        for path in product_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_only_jobs_print():
    """Progress on stderr is no report."""
    found = [
        f"{path}:{node.lineno}"
        for path in product_files()
        if path.parts[0] in QUIET
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if not any(ast.unparse(word) == "file=sys.stderr" for word in node.keywords)
    ]
    assert found == []


def test_nothing_is_left_for_later():
    found = [
        str(path)
        for path in product_files()
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError", source(path))
    ]
    assert found == []


def test_broad_except_stands_only_where_it_is_listed():
    found = {path.as_posix() for path in product_files() if broad_excepts(path)}
    assert found == set(BROAD_EXCEPT_ALLOWED)


def test_temporary_files_are_those_that_the_next_process_sweeps():
    """Of a process that is killed, only names from `infra.scratch` tell that it is gone."""
    found = [path.as_posix() for path in product_files() if "import tempfile" in source(path)]
    assert found == ["infra/scratch.py"]


def test_log_calls_are_lazy():
    """logger.info("%s", x), never an f-string: the text is only made when the level is on."""
    found = [
        f"{path}:{node.lineno}"
        for path in product_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) in ("logger", "logging")
        and node.args
        and isinstance(node.args[0], ast.JoinedStr)
    ]
    assert found == []


def test_configuration_stands_in_frozen_dataclasses():
    """Every class named …Config is a Config and says frozen, slots, kw_only."""
    wanted = {"frozen=True", "slots=True", "kw_only=True"}
    found = []
    for path in product_files():
        for node in tree(path).body:
            if not isinstance(node, ast.ClassDef) or not node.name.endswith("Config") or node.name == "Config":
                continue
            said = {
                ast.unparse(word)
                for item in node.decorator_list
                if isinstance(item, ast.Call)
                for word in item.keywords
            }
            if not wanted <= said or "Config" not in [ast.unparse(base) for base in node.bases]:
                found.append(f"{path}:{node.name}")
    assert found == []


def broad_excepts(path: Path) -> list[int]:
    """Lines of `except:`, `except Exception` and `except BaseException` in a file."""
    return [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
    ]
