"""The names of a data set's labels, by a table or as AudioSet has them."""

import pytest

from streamtwl.bench.label_names import names_of
from streamtwl.errors import UsageError
from streamtwl.ontology import categories

INDEX = {name: i for i, name in enumerate(categories())}
DOG, BARK = INDEX["Dog"], INDEX["Bark"]


def test_names_by_a_table(tmp_path):
    table = tmp_path / "names.csv"
    table.write_text("category,audioset\nhound,Dog|Bark\n")
    assert names_of(["hound"], table) == {"hound": [DOG, BARK]}


@pytest.mark.parametrize("label", ["Bark", "bark"])
def test_names_that_audioset_has_too(label):
    assert BARK in names_of([label], None)[label]


def test_a_label_of_two_words_as_a_folder_is_called():
    assert INDEX["Church bell"] in names_of(["church_bell"], None)["church_bell"]


@pytest.mark.parametrize("text", [None, "a,b\n1,2\n", "category,audioset\ndog,Dogg\n"])
def test_a_table_that_is_none_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "names.csv").write_text(text)
    with pytest.raises(UsageError, match=r"names\.csv"):
        names_of(["dog"], tmp_path / "names.csv")


@pytest.mark.parametrize("rows", ["Dog\n", "Siren,siren\nDog\n", "Dog,\n"])
def test_a_row_without_its_category_is_refused_with_its_line(tmp_path, rows):
    (tmp_path / "names.csv").write_text(f"audioset,category\n{rows}")
    line = 1 + rows.count("\n")
    with pytest.raises(UsageError, match=rf"names\.csv.*line {line}.*category") as raised:
        names_of(["dog"], tmp_path / "names.csv")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("row", ["kettle42", "kettle42,", "kettle42,|"])
def test_a_row_without_names_gives_none(tmp_path, row):
    (tmp_path / "names.csv").write_text(f"category,audioset\n{row}\ndog,Dog,more\n")
    assert names_of(["dog"], tmp_path / "names.csv") == {"dog": [DOG]}
    with pytest.raises(UsageError, match="'kettle42' is not a name of AudioSet"):
        names_of(["kettle42"], tmp_path / "names.csv")


def test_a_label_without_a_name_is_refused():
    with pytest.raises(UsageError, match=r"'kettle42' is not a name of AudioSet.*--names"):
        names_of(["kettle42"], None)
