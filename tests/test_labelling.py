import csv
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from streamtwl.audio import demo
from streamtwl.commands import label_batch
from streamtwl.config import Settings, override
from streamtwl.errors import SinkError, UsageError
from streamtwl.labelling import Strength, label_files
from streamtwl.pipeline import build
from streamtwl.results import Labelled, Writer, form_of
from streamtwl.stages import Decision

pytestmark = pytest.mark.usefixtures("yamnet")  # so that its file is there


@pytest.fixture(scope="module")
def siren() -> np.ndarray:
    [sound] = [sound for sound in demo.TIMELINE if sound.label == "Siren"]
    return demo.scene()[int(sound.start_s * 16_000) : int(sound.end_s * 16_000)]


def decision(specific: float, *earlier: float) -> Decision:
    by_now = np.array([[[0.0], [each]] for each in earlier]) if earlier else None
    return Decision(None, 0.0, np.zeros(1), np.array([specific]), earlier=by_now)


def test_strength_is_the_mean_over_all_hops_as_last_revised():
    strength = Strength(1)
    assert strength.mean() == [0]
    strength.add(decision(0.5, 9, 9), first=True)  # there was no hop before
    assert strength.mean() == [0.5]
    strength.add(decision(0.1, 0.3, 9), first=False)
    assert strength.mean() == pytest.approx([(0.3 + 0.1) / 2])
    strength.add(decision(0.2, 0.4, 0.6), first=False)
    strength.add(decision(0.0, 0.7, 0.8), first=False)  # the first one can change no more
    assert strength.mean() == pytest.approx([(0.6 + 0.8 + 0.7 + 0.0) / 4])
    strength.add(decision(0.9, 0.0, 0.0), first=True)  # after a gap
    assert strength.mean() == pytest.approx([(0.6 + 0.8 + 0.7 + 0.0 + 0.9) / 5])


def test_strength_without_revisions_is_the_mean():
    strength = Strength(1)
    for each in (0.2, 0.4, 0.9):
        strength.add(decision(each), first=False)
    assert strength.mean() == pytest.approx([0.5])


def label(files, output=None, folder=None, form=None, settings=None) -> int:
    return label_batch.run(files, output, folder, form, settings or Settings())


@pytest.fixture
def mixed(wav, tmp_path, siren):
    """Good, missing and broken files."""
    (tmp_path / "text.wav").write_text("no sound at all")
    (tmp_path / "empty.wav").touch()
    return [
        wav("siren.wav", siren),
        tmp_path / "missing.wav",
        wav("stereo.flac", np.stack([siren, siren], axis=1), 44_100),
        tmp_path / "text.wav",
        tmp_path / "empty.wav",
        wav("short.wav", siren[:1000]),
    ]


def check(results: list[dict], mixed) -> None:
    """Good files have what was heard in them, the others why not."""
    assert sorted(result["file"] for result in results) == sorted(map(str, mixed))
    of = {result["file"]: result for result in results}
    good = [str(mixed[i]) for i in (0, 2, 5)]
    for file, result in of.items():
        assert (result["error"] is None) == (file in good)
        assert len(result["top"]) == (5 if file in good else 0)
    found = of[str(mixed[0])]
    assert found["label"] == "Siren"
    assert found["duration_s"] == pytest.approx(2.4, abs=0.001)
    assert "Siren" in [event["label"] for event in found["events"]]
    for event in found["events"]:
        assert 0 <= event["start_s"] < event["end_s"] <= found["duration_s"]
        assert 0 < event["mean"] <= event["peak"] <= 1
    scores = [each["score"] for each in found["top"]]
    assert scores == sorted(scores, reverse=True)
    assert of[str(mixed[5])]["duration_s"] == pytest.approx(1000 / 16_000, abs=0.001)
    assert "missing.wav" in of[str(mixed[1])]["error"]


def test_every_file_gets_one_json_line(mixed, capsys):
    assert label(mixed) == 1
    lines = capsys.readouterr().out.splitlines()
    check([json.loads(line) for line in lines], mixed)


@pytest.mark.parametrize("name", ["Bird", "Knock", "Music"])
def test_a_sound_in_the_first_half_second_is_an_event(name, wav, capsys):
    [sound] = [sound for sound in demo.TIMELINE if sound.label == name]
    samples = demo.scene()[int(sound.start_s * 16_000) : int(sound.end_s * 16_000)]
    loudest = int(np.convolve(samples**2, np.ones(6400), "valid").argmax())
    brief = samples[loudest : loudest + 6400]
    files = [
        wav("then_silence.wav", np.append(brief, np.zeros(40_000))),
        wav("alone.wav", brief[:4800]),
    ]
    settings = override(Settings(), {
        "labels": "everyday", "reasoner.prior": 0.0,
    })  # fmt: skip
    assert label(files, settings=settings) == 0
    results = {}
    for line in capsys.readouterr().out.splitlines():
        result = json.loads(line)
        results[result["file"]] = [e for e in result["events"] if e["label"] == name]
    [then_silence], [alone] = (results[str(file)] for file in files)
    assert then_silence["start_s"] == 0 < then_silence["end_s"] < 2.9
    assert (alone["start_s"], alone["end_s"]) == (0, 0.3)


def test_good_files_alone_exit_with_zero(mixed, capsys):
    assert label([mixed[0], mixed[2]]) == 0


def test_jsonl_to_a_file(mixed, tmp_path, capsys):
    output = tmp_path / "results.jsonl"
    assert label(mixed, output) == 1
    check([json.loads(line) for line in output.read_text().splitlines()], mixed)
    assert capsys.readouterr().out == ""


def test_csv_has_a_row_an_event_and_one_for_each_other_file(mixed, tmp_path):
    output = tmp_path / "results.csv"
    assert label(mixed, output) == 1
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == set(map(str, mixed))
    assert {row["file"] for row in rows if row["error"]} == {str(mixed[i]) for i in (1, 3, 4)}
    events = [row for row in rows if row["label"]]
    assert "Siren" in [row["label"] for row in events]
    for row in events:
        assert float(row["start_s"]) <= float(row["end_s"])
        assert 0 < float(row["mean"]) <= float(row["peak"]) <= 1


def test_csv_quotes_names_with_commas(wav, tmp_path):
    result = Labelled('odd, "name".wav', error="no such file: a,b")
    with Writer(tmp_path / "out.csv", None, "csv", []) as writer:
        writer.write(0, result)
    with (tmp_path / "out.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["file"], row["error"]) == ('odd, "name".wav', "no such file: a,b")


def test_audacity_tracks_are_start_end_label(mixed, tmp_path):
    folder = tmp_path / "made" / "tracks"
    assert label(mixed, folder=folder) == 1
    assert {path.name for path in folder.iterdir()} == {"siren.txt", "stereo.txt", "short.txt"}
    rows = [line.split("\t") for line in (folder / "siren.txt").read_text().splitlines()]
    assert "Siren" in [row[2] for row in rows]
    for start, end, _ in rows:
        assert 0 <= float(start) <= float(end) <= 2.4


@pytest.mark.parametrize(("form", "suffix"), [("jsonl", ".jsonl"), ("csv", ".csv")])
def test_a_folder_may_hold_other_forms(form, suffix, mixed, tmp_path):
    folder = tmp_path / "results"
    label(mixed, folder=folder, form=form)
    assert {path.name for path in folder.iterdir()} == {path.stem + suffix for path in mixed}
    text = (folder / f"missing{suffix}").read_text()
    result = json.loads(text) if form == "jsonl" else next(csv.DictReader(text.splitlines()))
    assert "missing.wav" in result["error"]


def test_files_of_the_same_name_do_not_overwrite_each_other(wav, siren, tmp_path):
    names = ["a/x.wav", "b/x.wav", "c/x.flac", "c/x-2.wav", "d/x-2.wav"]
    files = [wav(name, siren[: 1000 * (i + 1)]) for i, name in enumerate(names)]
    folder = tmp_path / "tracks"
    assert label(files, folder=folder, form="jsonl") == 0
    results = [json.loads(path.read_text()) for path in folder.iterdir()]
    assert sorted(result["file"] for result in results) == sorted(map(str, files))


def test_results_do_not_depend_on_what_else_is_labelled(wav, siren, capsys):
    files = [wav(f"{i}.wav", np.roll(siren, 3000 * i)[: 20_000 + 3000 * i]) for i in range(11)]
    label(files)
    together = {r["file"]: r for r in map(json.loads, capsys.readouterr().out.splitlines())}
    for file in files:
        label([file])
        alone = json.loads(capsys.readouterr().out)
        assert alone["label"] == together[str(file)]["label"]
        for one, other in zip(alone["top"], together[str(file)]["top"], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=2e-4)


def test_a_file_of_an_impossible_rate_does_not_stop_the_others(wav, siren, capsys):
    assert label([wav("odd.wav", siren, 3000), wav("good.wav", siren)]) == 1
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {result["label"] for result in results} == {None, "Siren"}


def test_labels_may_be_chosen(wav, siren, capsys):
    settings = Settings(labels="Dog, Rain")
    label([wav("siren.wav", siren)], settings=settings)
    result = json.loads(capsys.readouterr().out)
    assert {each["label"] for each in result["top"]} == {"Dog", "Rain"}
    assert result["label"] is None


def test_memory_does_not_grow_with_the_number_of_files(wav, noise):
    file = wav("noise.wav", noise)
    pipeline = build(Settings(), [f"{i}" for i in range(120)])
    results = label_files([file] * 120, pipeline)
    tracemalloc.start()
    try:
        held = []
        for count, _ in enumerate(results, start=1):
            if count in (40, 110):
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert (held[1] - held[0]) / 70 < 10_000  # bytes a file


def test_a_full_disk_is_a_sink_error(wav, siren, tmp_path):
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    with pytest.raises(SinkError, match=r"full\.jsonl"):
        label([wav("siren.wav", siren)], tmp_path / "full.jsonl")


@pytest.mark.parametrize("target", ["-o", "-d"])
def test_a_place_that_cannot_be_written_is_a_sink_error(target, wav, siren, tmp_path):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "results.csv"
    with pytest.raises(SinkError, match="file/results"):
        label([wav("a.wav", siren)], **{"output" if target == "-o" else "folder": place})


def test_the_form_is_that_of_the_name(tmp_path):
    assert form_of(None, None) == "jsonl"
    assert form_of(None, tmp_path) == "audacity"
    assert form_of(tmp_path / "a.csv", None) == "csv"
    assert form_of(tmp_path / "a.jsonl", None) == "jsonl"
    for name in ("a.txt", "a", "a.json"):
        with pytest.raises(UsageError, match=name):
            form_of(tmp_path / name, None)


def test_contradicting_options_are_refused(tmp_path):
    with pytest.raises(UsageError, match="-d"):
        label([tmp_path / "a.wav"], tmp_path / "a.csv", tmp_path)
    with pytest.raises(UsageError, match="-d"):
        label([tmp_path / "a.wav"], form="audacity")


def test_a_pipe_that_was_cut_off_by_a_stop_has_no_result(wav, siren):
    reading, writing = os.pipe()
    os.write(writing, wav("siren.wav", siren).read_bytes()[:40_000])
    asked = iter([0] * 3)

    def stop_requested() -> int:
        return next(asked, 2)  # after three waits

    def watch(_open: list) -> bool:
        return not stop_requested()

    pipeline = build(Settings(), ["pipe"])
    results = label_files(
        [Path(f"/dev/fd/{reading}")], pipeline, watch=watch, stop_requested=stop_requested
    )
    assert list(results) == []
    os.close(writing)
    os.close(reading)
