"""What a checklist names as proof is there."""

import re

import pytest

from tests.house.source_tree import ROOT, files_of_tests, product_files, source

CHECKLISTS = sorted((ROOT / "docs").glob("CHECKLIST_*.md"))


@pytest.mark.parametrize("file", CHECKLISTS, ids=lambda file: file.name)
def test_every_named_file_and_test_exists(file):
    text = file.read_text(encoding="utf-8")
    files = {f"/{path.as_posix()}" for path in (*files_of_tests(), *product_files())}
    lost = {name for name in re.findall(r"[\w/]+\.py", text) if not any(path.endswith(f"/{name}") for path in files)}
    tests = {name for path in files_of_tests() for name in re.findall(r"def (test_\w+)", source(path))}
    lost |= set(re.findall(r"::(test_\w+)", text)) - tests
    assert sorted(lost) == []
    assert len(re.findall(r"^\|", text, re.MULTILINE)) > 10
