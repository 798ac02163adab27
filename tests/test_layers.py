"""Which part of streamtwl may import which: research and training stay out of what listens."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "streamtwl"


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that `import` and `from ... import` name, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports would pass this test by"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(package: str, tree_of=ast.parse) -> set[str]:
    """Return the files outside `streamtwl/package` that import something of it."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE)
        if name.parts[0] != package and any(
            each.startswith(f"streamtwl.{package}") for each in imported(tree_of(file.read_text()))
        ):
            found.add(name.as_posix())
    return found


def at_start(source: str) -> ast.Module:
    """Return a module without what its functions and its type checks import."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return tree


def test_the_bench_is_imported_by_its_command_and_the_paper_alone():
    files = {file for file in importers("bench") if not file.startswith("paper/")}
    assert files == {"commands/bench.py"}
    assert not any(file.startswith("commands") for file in importers("bench", at_start))


def test_the_paper_is_imported_when_its_command_runs():
    assert importers("paper") == {"commands/paper.py"}
    assert importers("paper", at_start) == set()


def test_training_is_imported_by_research_and_when_train_runs():
    research = ("bench/", "paper/")
    files = {file for file in importers("training") if not file.startswith(research)}
    assert files == {"commands/train.py"}
    assert not any(file.startswith("commands") for file in importers("training", at_start))


@pytest.mark.parametrize("line", ["import streamtwl.bench", "from streamtwl import bench"])
def test_an_import_is_seen_in_every_spelling(line):
    assert list(imported(ast.parse(f"def function():\n    {line}"))) == ["streamtwl.bench"]
