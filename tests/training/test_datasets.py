import itertools

import numpy as np
import pytest
import soundfile

from streamtwl.errors import UsageError
from streamtwl.training.datasets import Clip, load, refuse_leaks, split, validation_split


@pytest.fixture
def folders(tmp_path):
    """Two classes, seven files each."""
    for label in ("bell", "dog"):
        (tmp_path / label).mkdir()
        for n in range(7):
            soundfile.write(tmp_path / label / f"{n}.wav", np.zeros(160), 16_000)
    return tmp_path


def test_esc10_keeps_its_published_folds(esc10):
    clips = load(esc10)
    assert len(clips) == 400
    for fold in range(1, 6):
        training, test = split(clips, fold)
        assert len(test) == 80
        assert len({clip.label for clip in test}) == 10
        assert {clip.path.name[0] for clip in test} == {str(fold)}
        assert not {clip.source for clip in training} & {clip.source for clip in test}


def test_a_folder_per_class_gets_five_folds_with_every_class_in_each(folders):
    clips = load(folders)
    assert len(clips) == 14
    assert {clip.fold for clip in clips} == {1, 2, 3, 4, 5}
    for fold in range(1, 6):
        assert {clip.label for clip in clips if clip.fold == fold} == {"bell", "dog"}
    assert load(folders) == clips


def test_a_shared_source_recording_is_refused(folders):
    one = Clip(folders / "a.wav", "dog", "77", 1)
    other = Clip(folders / "b.wav", "dog", "77", 2)
    with pytest.raises(UsageError, match=r"share 1 source recording.*77"):
        split([one, other], 1)
    refuse_leaks([one], [])


def test_the_validation_split_shares_no_source_and_holds_every_class(esc10):
    training, _ = split(load(esc10), 4)
    fit, choose = validation_split(training, seed=0)
    assert len(fit) + len(choose) == len(training)
    assert not {clip.source for clip in fit} & {clip.source for clip in choose}
    assert len({clip.label for clip in choose}) == 10


@pytest.mark.parametrize("what", ["nothing", "one class", "too few", "absent"])
def test_what_is_no_data_set_is_refused_in_words(tmp_path, what):
    folder = tmp_path / "data"
    if what != "absent":
        folder.mkdir()
    for n in range({"one class": 9, "too few": 2}.get(what, 0)):
        for label in ("a", "b") if what == "too few" else ("a",):
            (folder / label).mkdir(exist_ok=True)
            soundfile.write(folder / label / f"{n}.wav", np.zeros(160), 16_000)
    with pytest.raises(UsageError, match=r"ESC-50|no such folder"):
        load(folder)


def test_files_that_are_not_read_are_counted_in_a_warning(folders, caplog):
    clips = load(folders)
    assert not caplog.records
    for name in ("dog/a.m4a", "dog/b.M4A", "dog/notes.txt", "cat/a.m4a", "dog/.hidden"):
        (folders / name).parent.mkdir(exist_ok=True)
        (folders / name).write_bytes(b"")
    assert load(folders) == clips
    (record,) = caplog.records
    assert "4 file(s) passed over (3 .m4a, 1 .txt), all there is of cat" in record.getMessage()


def test_where_no_file_is_read_their_kinds_are_named(tmp_path):
    for label in ("bell", "dog"):
        (tmp_path / label).mkdir()
        for n in range(7):
            (tmp_path / label / f"{n}.m4a").write_bytes(b"")
    with pytest.raises(UsageError, match=r"14 file\(s\) passed over \(14 \.m4a\).*\.flac"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("b.wav,2,bell,2", r"names 1 file\(s\) that .*audio has not: b\.wav"),
        ("a.wav,two,bell,2", "fold 'two' is no number"),
        ("a.wav", "the first two in every row"),
    ],
)
def test_a_table_that_does_not_fit_its_sounds_is_refused_in_words(tmp_path, row, said):
    for name in ("meta", "audio"):
        (tmp_path / name).mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", np.zeros(160), 16_000)
    table = f"filename,fold,category,src_file\na.wav,1,dog,1\n{row}\n"
    (tmp_path / "meta" / "own.csv").write_text(table)
    with pytest.raises(UsageError, match=said):
        load(tmp_path)


@pytest.fixture
def table(tmp_path):
    """Write ESC-50's layout without folds: of so many recordings of bell, two clips of each."""

    def write(recordings: int):
        for name in ("meta", "audio"):
            (tmp_path / name).mkdir()
        rows = ["filename,category,src_file"]
        for label, count in (("bell", recordings), ("dog", 9)):
            for source, take in itertools.product(range(count), "ab"):
                rows.append(f"{label}{source}{take}.wav,{label},{label}{source}")
                soundfile.write(
                    tmp_path / "audio" / f"{label}{source}{take}.wav", np.zeros(160), 16_000
                )
        (tmp_path / "meta" / "own.csv").write_text("\n".join(rows))
        return tmp_path

    return write


def test_a_table_without_folds_gets_them_by_recording(table):
    clips = load(table(5))
    assert len(clips) == 28
    for fold in range(1, 6):
        _, test = split(clips, fold)  # which refuses what leaks
        assert {clip.label for clip in test} == {"bell", "dog"}


def test_too_few_recordings_for_folds_are_refused(table):
    with pytest.raises(UsageError, match=r"bell is of 4 recording\(s\): it takes 5"):
        load(table(4))


def published(folder, rows: str, files: str = "ab"):
    """Return a data set in ESC-50's layout."""
    for place in ("audio", "meta"):
        (folder / place).mkdir(exist_ok=True)
    for name in files:
        soundfile.write(folder / "audio" / f"{name}.wav", np.zeros(160), 16_000)
    (folder / "meta" / "x.csv").write_text("filename,fold,category,src_file\n" + rows)
    return folder


@pytest.mark.parametrize("again", ["a.wav,2,dog,9", "./a.wav,2,dog,77", "a.wav,1,cat,1"])
def test_a_clip_that_is_there_twice_is_refused(again, tmp_path):
    folder = published(tmp_path, f"a.wav,1,dog,1\nb.wav,1,cat,2\n{again}\n")
    with pytest.raises(UsageError, match=r"a\.wav is there twice"):
        load(folder)


def test_a_linked_folder_is_no_other_class(folders):
    (folders / "dog2").symlink_to(folders / "dog")
    with pytest.raises(UsageError, match="is there twice"):
        load(folders)


def test_hidden_folders_and_tables_are_none(folders, tmp_path):
    (folders / ".hidden").mkdir()
    for n in range(6):
        soundfile.write(folders / ".hidden" / f"{n}.wav", np.zeros(160), 16_000)
    assert {clip.label for clip in load(folders)} == {"bell", "dog"}
    folder = published(tmp_path / "bell", "a.wav,1,dog,1\nb.wav,1,cat,2\n")
    (folder / "meta" / "._x.csv").write_bytes(b"\0\5\x16\7")  # as macOS leaves it
    (folder / "meta" / "a.csv").mkdir()
    (folder / "meta" / "b.csv").symlink_to("nowhere")
    assert len(load(folder)) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [(f"{'a' * 300}.wav,1,dog,1", "names 1 file"), (f"a.wav,{'9' * 5000},dog,1", "no number")],
)
def test_rows_that_cannot_be_are_said(row, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        load(published(tmp_path, f"{row}\nb.wav,1,cat,2\n"))
