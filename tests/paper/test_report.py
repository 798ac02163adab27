"""The page: whole in itself, opened in headless Chromium."""

import re
import shutil
import subprocess

import pytest

from streamtwl.errors import SinkError
from streamtwl.paper import drawing, experiment, report, runner
from streamtwl.paper.plan import Data, Gpt2, Plan
from tests.conftest import PATIENCE_S


@pytest.fixture(scope="module")
def results(plain_sounds, yamnet, tmp_path_factory):
    """A small experiment: two folds, three reasoners, and one that cannot be had."""
    plan = Plan(
        data=[Data(folder=str(plain_sounds), name="<hiss> & whistle", folds=2)],
        reasoners=["mean", "counts", "linear-root"],
        gpt2=[Gpt2(weights="random", epochs=2), Gpt2(trunk="no/such/place", name="absent")],
        samples=[1, 4],
        seeds=[0],
    )
    return experiment.run(plan, "mine.toml", tmp_path_factory.mktemp("out"), lambda *_: None)


@pytest.fixture(scope="module")
def opened(results, tmp_path_factory) -> tuple[str, str]:
    """The page's text after its script ran, and what Chromium logged."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    folder = tmp_path_factory.mktemp("page")
    report.write(results, folder / "report.html")
    options = "--headless=new --no-sandbox --disable-gpu --enable-logging=stderr"
    options += f" --virtual-time-budget=5000 --user-data-dir={folder / 'profile'} --dump-dom"
    ended = subprocess.run(
        [chromium, *options.split(), (folder / "report.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout, ended.stderr


def test_the_script_runs_and_nothing_is_an_error(opened):
    page, logged = opened
    assert "CONSOLE" not in logged, logged
    assert '<table class="matrix"><thead>' in page  # which the script has made


def test_every_figure_of_the_tables_is_there(opened, results):
    page, _ = opened
    rows = [row for row in results.figures["rows"] if row["condition"] == "whole clip"]
    assert {row["samples"] for row in rows} == {0, 1, 4}
    for row in rows:
        accuracy = row["accuracy"]
        figures = [100 * accuracy[each] for each in ("mean", "low", "high")]
        assert "{:.1f} ({:.1f} to {:.1f})".format(*figures) in page
        assert row["reasoner"] in page
    for name in ("hiss", "whistle"):
        assert f"<th>{name}</th>" in page
    assert "&lt;hiss&gt; &amp; whistle" in page
    assert "<hiss>" not in page
    assert "no such directory" in page
    assert "streamtwl paper mine.toml" in page


def test_it_links_to_nothing_and_loads_nothing(results):
    page = report.page(results)
    assert not re.search(r"https?://", page.replace("http://www.w3.org", ""))
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(each.startswith(("#", "data:")) for each in sources)


def test_clips_are_shown_with_spectrogram_posterior_trace_and_decisions(results):
    page = report.page(results)
    shown = len(runner.shown(4))  # of the first fold's test clips
    assert page.count("data:image/png;base64,") == shown > 1
    assert page.count(">drawn: ") >= shown
    assert len(re.findall(r"<title>mean: (?:hiss|whistle), ", page)) == shown * 4  # patches


def test_a_page_that_cannot_be_written_is_said(results, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match=r"--report .*: "):
        report.write(results, tmp_path / "file" / "report.html")


@pytest.mark.parametrize(("low", "high"), [(0, 9), (0.5, 9.9), (63, 97), (40, 40), (0, 1e-9)])
def test_an_axis_has_a_few_round_marks(low, high):
    marks = drawing._ticks(low, high)
    assert len(marks) <= 9
    assert all(low <= each <= high for each in marks)
    assert len(marks) >= 3 or high - low < 1
