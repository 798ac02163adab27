"""Data sets of an experiment: their layouts, their folds, no recording on both sides."""

from pathlib import Path

import pytest

from streamtwl.errors import UsageError
from streamtwl.paper import data_sets
from streamtwl.paper.plan import Data


@pytest.fixture
def esc(tmp_path):
    """Write ESC-50's layout: esc([(file, fold, category, src_file), ...]) returns its folder."""

    def write(rows):
        (tmp_path / "esc" / "audio").mkdir(parents=True)
        (tmp_path / "esc" / "meta").mkdir()
        lines = ["filename,fold,category,src_file"]
        for name, fold, label, source in rows:
            (tmp_path / "esc" / "audio" / name).touch()
            lines.append(f"{name},{fold},{label},{source}")
        (tmp_path / "esc" / "meta" / "esc.csv").write_text("\n".join(lines) + "\n")
        return str(tmp_path / "esc")

    return write


ROWS = [
    ("a1.wav", 1, "a", "r1"),
    ("a2.wav", 2, "a", "r1"),  # of the recording that fold 1 has
    ("a3.wav", 2, "a", "r2"),
    ("a4.wav", 3, "a", "r3"),
    ("b1.wav", 1, "b", "r4"),
    ("b2.wav", 2, "b", "r5"),
    ("b3.wav", 3, "b", "r6"),
    ("b4.wav", 3, "b", "r6"),
]


def test_each_published_fold_is_tested_without_recordings_of_the_others(esc):
    data = data_sets.load(Data(folder=esc(ROWS)))
    assert [split.name for split in data.splits] == ["1", "2", "3"]
    assert [split.left_out for split in data.splits] == [1, 1, 0]
    tested = [[clip.path.name for clip in split.test] for split in data.splits]
    assert tested == [["b1.wav"], ["a3.wav", "b2.wav"], ["a4.wav", "b3.wav", "b4.wav"]]
    for split in data.splits:
        assert not {c.source for c in split.training} & {c.source for c in split.test}
        assert not {c.fold for c in split.training} & {c.fold for c in split.test}
    assert data.labels == ["a", "b"]
    assert data.truth(data.tested)[:3].tolist() == [[False, True], [True, False], [False, True]]


def test_folds_to_train_and_test_on_make_one_split(esc):
    folder = esc(ROWS)
    data = data_sets.load(Data(folder=folder, train=[1], test=[2, 3]))
    [split] = data.splits
    assert (split.name, split.left_out, len(split.training), len(split.test)) == ("2+3", 1, 2, 5)
    [first] = data_sets.load(Data(folder=folder, folds=1)).splits
    assert first.name == "1"
    few = data_sets.load(Data(folder=folder, clips=1))
    assert [clip.path.name for clip in few.clips if clip.fold == 3] == ["a4.wav", "b3.wav"]


def test_folds_that_cannot_be_are_said(esc):
    folder = esc([*ROWS, ("c.wav", 3, "c", "r9")])
    with pytest.raises(UsageError, match="no fold 9: it has 1, 2, 3"):
        data_sets.load(Data(folder=folder, train=[1], test=[9]))
    with pytest.raises(UsageError, match="c is in the test folds 3, but not in those to train on"):
        data_sets.load(Data(folder=folder))


@pytest.fixture
def fsd50k(tmp_path):
    """FSD50K's layout, a few empty files."""
    truth = tmp_path / "FSD50K.ground_truth"
    truth.mkdir()
    (truth / "dev.csv").write_text(
        'fname,labels,mids,split\n1,"Bark,Dog",/m/1,train\n2,Rain,/m/2,val\n'
    )
    (truth / "eval.csv").write_text('fname,labels,mids\n3,"Rain,Dog,Rain",/m/2\n4,Dog,/m/1\n')
    for part, names in (("dev", "12"), ("eval", "34")):
        (tmp_path / f"FSD50K.{part}_audio").mkdir()
        for name in names:
            (tmp_path / f"FSD50K.{part}_audio" / f"{name}.wav").touch()
    return tmp_path


def test_fsd50k_is_trained_on_dev_and_tested_on_eval(fsd50k):
    data = data_sets.load(Data(folder=str(fsd50k)))
    assert data.several
    assert data.labels == ["Bark", "Dog", "Rain"]
    [split] = data.splits
    assert [clip.path.name for clip in split.training] == ["1.wav", "2.wav"]
    assert data.truth(split.test).tolist() == [[False, True, True], [False, True, False]]
    assert split.test[0].labels == ("Rain", "Dog")


def test_fsd50k_without_a_sound_or_a_column_is_said(fsd50k):
    (fsd50k / "FSD50K.eval_audio" / "3.wav").unlink()
    with pytest.raises(UsageError, match=r"eval\.csv names 3, which .*eval_audio has not"):
        data_sets.load(Data(folder=str(fsd50k)))
    (fsd50k / "FSD50K.ground_truth" / "dev.csv").write_text("file,labels\n1,Dog\n")
    with pytest.raises(UsageError, match=r"dev\.csv takes the columns fname and labels"):
        data_sets.load(Data(folder=str(fsd50k)))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("filename,fold,category,src_file\na.wav,1,dög,x\n".encode("latin-1"), "CSV in UTF-8"),
        (b"filename,fold,category,src_file\na1.wav,1\n", "in every row"),
        (b"filename,fold,category,src_file\n,1,a,x\n", "in every row"),
    ],
)
def test_a_table_that_is_none_is_said(table, said, esc):
    folder = Path(esc(ROWS))
    (folder / "meta" / "esc.csv").write_bytes(table)
    with pytest.raises(UsageError, match=said):
        data_sets.load(Data(folder=str(folder)))


def test_a_table_of_a_spreadsheet_is_read(esc):
    folder = Path(esc(ROWS))
    table = folder / "meta" / "esc.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert data_sets.load(Data(folder=str(folder))).labels


@pytest.mark.parametrize("labels", ["d\xf6g".encode("latin-1"), b'","'])
def test_fsd50k_with_a_table_that_is_none_is_said(labels, fsd50k):
    (fsd50k / "FSD50K.ground_truth" / "dev.csv").write_bytes(b"fname,labels\n1," + labels + b"\n")
    with pytest.raises(UsageError, match=r"dev\.csv"):
        data_sets.load(Data(folder=str(fsd50k)))


def test_fsd50k_with_nothing_to_tell_apart_is_said(fsd50k):
    (fsd50k / "FSD50K.ground_truth" / "eval.csv").write_text("fname,labels\n3,Dog\n4,Dog\n")
    with pytest.raises(UsageError, match="all test clips have the same labels"):
        data_sets.load(Data(folder=str(fsd50k)))


def test_few_clips_of_fsd50k_leave_every_label_in_training(tmp_path):
    """Labels that are never the first of a clip are limited, and kept, as well."""
    (tmp_path / "ground_truth").mkdir()
    dev = [(n, "Dog,Bark" if n == 3 else "Dog") for n in range(4)]
    for part, rows in (("dev", dev), ("eval", [(8, "Dog"), (9, "Bark,Dog")])):
        (tmp_path / f"{part}_audio").mkdir()
        for name, _ in rows:
            (tmp_path / f"{part}_audio" / f"{name}.wav").touch()
        lines = "".join(f'{name},"{labels}"\n' for name, labels in rows)
        (tmp_path / "ground_truth" / f"{part}.csv").write_text("fname,labels\n" + lines)
    [split] = data_sets.load(Data(folder=str(tmp_path), clips=2)).splits
    assert [clip.path.stem for clip in split.training] == ["0", "1", "3"]
