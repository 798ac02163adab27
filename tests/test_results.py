"""What a batch writes, and what of it an interrupted run leaves."""

import csv
import itertools
import json
import os
from pathlib import Path

import pytest

from streamtwl.errors import SinkError, UsageError
from streamtwl.messages import Scored
from streamtwl.recordings import Found
from streamtwl.results import Labelled, Span, Writer

NAMES = ['a "b", c.wav', "new\nline.wav", "re\rturn.wav", "é.wav", "quiet.wav", "last.wav"]
FILES = [Found(Path(name), Path(name)) for name in NAMES]


def result(name: str, events: int = 2) -> Labelled:
    spans = [Span("Siren", n, n + 0.5, 0.9, 0.8) for n in range(events)]
    return Labelled(name, 3.0, "Siren", [Scored("Siren", 0.5)], spans)


RESULTS = [result(name, 0 if name == "quiet.wav" else 2) for name in NAMES]


def write(output: Path, results=RESULTS, **options) -> list[int]:
    """Write the results that are missing; return their numbers."""
    with Writer(output, None, output.suffix[1:], FILES, **options) as writer:
        for number in writer.missing:
            writer.write(number, results[number])
    return writer.missing


def blocks(output: Path) -> list[str]:
    """Return the results in a file, one text each, in order of their files."""
    if output.suffix == ".jsonl":
        return sorted(output.read_text().splitlines())
    with output.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[0] == "file"
    groups = itertools.groupby(rows, key=lambda row: row[0])
    return sorted(str(list(group)) for _, group in groups)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_wherever_it_was_cut_off_the_rest_comes_to_the_same(form, tmp_path):
    whole, cut = tmp_path / f"whole.{form}", tmp_path / f"cut.{form}"
    write(whole)
    text = whole.read_bytes()
    again = []
    for size in range(len(text) + 1):
        cut.write_bytes(text[:size])
        again.append(len(write(cut, resume=True)))
        assert blocks(cut) == blocks(whole), text[:size]
    assert again[0] == len(FILES)
    assert again[-1] == (0 if form == "jsonl" else 1)  # a CSV's last file may have had more rows
    assert again == sorted(again, reverse=True)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_failed_is_tried_again(form, tmp_path):
    output = tmp_path / f"out.{form}"
    failed = [*RESULTS[:1], Labelled(NAMES[1], error="broke off", events=RESULTS[1].events)]
    write(output, [*failed, *RESULTS[2:]])
    assert 1 in write(output, resume=True)
    write(tmp_path / f"whole.{form}")
    assert blocks(output) == blocks(tmp_path / f"whole.{form}")


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_results_of_other_files_are_kept(form, tmp_path):
    output = tmp_path / f"out.{form}"
    write(output)
    more = [Found(Path("more.wav"), Path("more.wav"))]
    with Writer(output, None, form, more, resume=True) as writer:
        writer.write(0, result("more.wav", 0))
    kept = len(FILES) - (form == "csv")
    assert len(blocks(output)) == kept + 1


def test_without_resume_it_begins_anew(tmp_path):
    output = tmp_path / "out.jsonl"
    write(output)
    assert write(output) == list(range(len(FILES)))
    assert len(blocks(output)) == len(FILES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.jsonl", "not ours\n"),
        ("other.jsonl", '{"file": "a.wav"}\n'),
        ("other.jsonl", "[1]\n[2"),
        ("notes.csv", "name,size\na,1\n"),
        ("short.csv", "file,label,start_s,end_s,peak,mean,error\na.wav,Dog\nb.wav,,,,,,\n"),
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(name, text, tmp_path):
    output = tmp_path / name
    output.write_text(text)
    with pytest.raises(UsageError, match=name):
        write(output, resume=True)
    assert output.read_text() == text
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("dated", [True, False])
def test_results_with_and_without_dates_do_not_mix(form, dated, tmp_path):
    output = tmp_path / f"out.{form}"
    results = [result(name) for name in NAMES]
    if dated:
        for each in [*results, *itertools.chain.from_iterable(each.events for each in results)]:
            each.start_time = None
    write(output, results, dated=dated)
    with pytest.raises(UsageError, match="resume"):
        write(output, resume=True, dated=not dated)


def test_what_cannot_be_read_again_cannot_be_resumed():
    with pytest.raises(UsageError, match="/dev/null"):
        Writer(Path("/dev/null"), None, "jsonl", FILES, resume=True)


@pytest.mark.parametrize("form", ["jsonl", "csv", "audacity"])
def test_a_result_file_each_is_whole_or_made_again(form, tmp_path):
    def made() -> list[int]:
        with Writer(None, tmp_path, form, FILES, resume=True) as writer:
            for number in writer.missing:
                writer.write(number, RESULTS[number])
        return writer.missing

    assert made() == list(range(len(FILES)))
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made() == []
    with Writer(None, tmp_path, form, FILES) as writer:
        writer.write(0, Labelled(NAMES[0], error="broke off"))
    assert made() == ([] if form == "audacity" else [0])  # no track is written of an error
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("form", ["jsonl", "audacity"])
def test_a_track_is_not_taken_for_another_files(form, tmp_path):
    """The list has grown before the file that the track is of."""
    old = [Found(Path("b/x.wav"), Path("x.wav"))]
    with Writer(None, tmp_path, form, old) as writer:
        writer.write(0, result("b/x.wav"))
    new = [Found(Path("a/x.wav"), Path("x.wav")), *old]
    assert Writer(None, tmp_path, form, new, resume=True).missing == [0, 1]


def test_names_that_are_too_long_for_a_suffix_are_cut(tmp_path):
    long = [Found(Path(f"{'é' * 125}{n}.wav"), Path(f"{'é' * 125}{n}.wav")) for n in range(3)]
    with Writer(None, tmp_path, "jsonl", long) as writer:
        for number, file in enumerate(long):
            writer.write(number, result(str(file.path)))
    results = [json.loads(path.read_text()) for path in tmp_path.iterdir()]
    assert {each["file"] for each in results} == {str(file.path) for file in long}


def test_ten_thousand_files_of_one_name(tmp_path):
    """It takes minutes where each name is compared with each."""
    files = [Found(Path(f"{n}/x.wav"), Path("x.wav")) for n in range(10_000)]
    for form in ("jsonl", "audacity"):
        writer = Writer(None, tmp_path, form, files, resume=True)
        assert len(writer.missing) == 10_000


@pytest.mark.parametrize("resume", [True, False])
def test_a_recording_is_not_written_over(resume, tmp_path):
    recordings = [tmp_path / "a.jsonl", tmp_path / "b.wav"]
    for path in recordings:
        path.write_bytes(b"sound")
    found = [Found(path, Path(path.name)) for path in recordings]
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    for output, folder in [("a.jsonl", None), ("link.jsonl", None), (None, ".")]:
        places = [each and tmp_path / each for each in (output, folder)]
        with pytest.raises(UsageError, match="is one of the recordings"):
            Writer(*places, "jsonl", found, resume=resume)
    assert [path.read_bytes() for path in recordings] == 2 * [b"sound"]


def test_a_track_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    one = Writer(None, tmp_path, "jsonl", [Found(Path("a.wav"), Path("a.wav"))])
    with one as writer, pytest.raises(SinkError, match="cannot write"):
        writer.write(0, result("a.wav"))
    assert os.listdir(tmp_path) == ["a.jsonl"]
