"""The pages: what they show runs, what they link to is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)")


def test_a_newcomer_reads_the_readme_to_its_end():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for path, anchor in LINK.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            assert anchor in _anchors(target), f"{path}#{anchor}"


def test_the_places_that_contributing_names_are_there():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| where (.*?)\? \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) > 10
    for question, answer in rows:
        named = re.findall(r"`([^`]*)`", answer)
        paths = [ROOT / each for each in named if "/" in each and "NAME" not in each]
        assert [path for path in paths if not path.exists()] == [], question
        texts = [path.read_text() for path in paths if path.is_file()]
        for name in filter(str.isidentifier, named):
            assert any(re.search(rf"\b{name}\b", text) for text in texts) or not texts, name


def test_the_live_view_is_a_picture_that_fetches_nothing():
    picture = (ROOT / "docs" / "live-view.svg").read_text()
    assert "Church" in picture
    assert "url(http" not in picture
    assert "@font-face" not in picture


def test_the_stages_of_the_page_on_extending_run(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "extending.md").read_text()
    python = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    entry_points, pipeline = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert all(len([line for line in code.splitlines() if line]) <= 15 for code in python)
    (tmp_path / "house.py").write_text("\n".join(python))
    metadata = tmp_path / "house-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        re.sub(r'\[project\.entry-points\."(.*)"\]', r"[\1]", entry_points).replace('"', "")
    )
    (tmp_path / "house.toml").write_text(pipeline)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    options = "--pipeline house.toml --duration 5 --quiet --no-journal --bind tcp://127.0.0.1:*"
    ended = subprocess.run(
        [sys.executable, "-m", "streamtwl", "listen", "tone:440", *options.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 0, ended.stderr
    onset, offset = (tmp_path / "events.txt").read_text().splitlines()
    assert onset.startswith("onset loud ")
    assert offset.startswith("offset loud ")


@pytest.mark.parametrize("fails", [False, True])
def test_continuous_integration_builds_the_pages_and_ends_with_what_pytest_said(tmp_path, fails):
    said = "==== 3 passed, 1 skipped in 2.50s ===="
    (tmp_path / "make").write_text(
        f"#!/bin/sh\necho '{said}'\necho \"made $*\"\nexit {int(fails)}\n"
    )
    (tmp_path / "make").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run([ROOT / ".ci" / "run"], env=env, capture_output=True, text=True)
    assert ended.returncode == int(fails), ended.stderr
    assert "made test test-all docs\n" in ended.stdout
    assert ended.stdout.splitlines()[-2:] == ["--", said]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
