import subprocess
import sys
from pathlib import Path

import pytest
from figures import Figure, of, read, write

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def slower(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, BENCHMARKS / "slower.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("new", "worse"),
    [
        (Figure(2.0, 1.9, 2.1, "ms"), False),  # as before
        (Figure(2.3, 2.05, 2.6, "ms"), False),  # within the noise
        (Figure(2.3, 2.2, 2.6, "ms"), True),
        (Figure(2.05, 2.15, 2.2, "ms"), False),  # within the margin
        (Figure(1.0, 0.9, 1.1, "ms"), False),  # better
        (Figure(1.0, 0.9, 1.1, "x", "better"), True),
        (Figure(3.0, 2.9, 3.1, "x", "better"), False),
    ],
)
def test_it_names_what_got_worse_beyond_the_noise(new, worse, tmp_path):
    old = Figure(2.0, 1.9, 2.1, new.unit, new.more)
    write({"window": old, "same": old}, tmp_path / "old.json")
    write({"window": new, "same": old}, tmp_path / "new.json")
    ended = slower(tmp_path / "old.json", tmp_path / "new.json")
    assert ended.returncode == worse, ended.stdout
    assert ("window: " in ended.stdout) == worse
    assert "same: " not in ended.stdout


def test_what_is_measured_no_more_is_said(tmp_path):
    write({"a": of([1.0]), "b": of([1.0])}, tmp_path / "old.json")
    write({"a": of([1.0])}, tmp_path / "new.json")
    assert "b: only in" in slower(tmp_path / "old.json", tmp_path / "new.json").stdout


@pytest.mark.parametrize("text", ["", "[]", '{"figures": {"a": 3}}', '{"figures": {"a": {}}}'])
def test_another_file_is_refused(text, tmp_path):
    (tmp_path / "odd.json").write_text(text)
    ended = slower(tmp_path / "odd.json", tmp_path / "odd.json")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "not two files of figures" in ended.stderr


def test_the_spread_of_many_repeats_is_their_quartiles():
    found = of([*range(1, 100), 1000])
    assert found.value == 50.5
    assert 20 < found.low < 30 < 70 < found.high < 80


def test_figures_are_read_as_they_were_written(tmp_path):
    figures = {"a": of([3.0, 1.0, 2.0], min, "ms"), "b": of([2.0]).over(of([4.0]))}
    write(figures, tmp_path / "figures.json")
    assert read(tmp_path / "figures.json") == figures
    assert figures["b"].value == 0.5
