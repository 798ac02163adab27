"""An experiment's file: what it takes, and what is refused in one line."""

import pytest

from streamtwl.errors import ConfigError
from streamtwl.paper import plan as plans
from tests.conftest import REPOSITORY

DATA = '[[data]]\nfolder = "sounds"\n'
LLM = DATA + "[[llm]]\n"


def loaded(tmp_path, text: str) -> plans.Plan:
    (tmp_path / "experiment.toml").write_text(text)
    return plans.load(tmp_path / "experiment.toml")


def test_paths_count_from_the_file_and_ids_of_the_hub_stay(tmp_path):
    (tmp_path / "traces").mkdir()
    plan = loaded(
        tmp_path,
        f'{DATA}names = "names.csv"\n[[gpt2]]\ntrunk = "traces"\n[[gpt2]]\ntrunk = "tiny"\n'
        '[[gpt2]]\ntrunk = "openai-community/gpt2"\n[[checkpoint]]\nfile = "a/{fold}.onnx"\n',
    )
    assert plan.data[0].folder == str(tmp_path / "sounds")
    assert plan.data[0].names == str(tmp_path / "names.csv")
    assert [each.trunk for each in plan.gpt2] == [
        str(tmp_path / "traces"),
        "tiny",
        "openai-community/gpt2",
    ]
    assert plan.checkpoint[0].file == str(tmp_path / "a/{fold}.onnx")
    assert plan.samples == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "data"),
        ("data = 3", "data: Expected `array`"),
        (DATA + "folds = -1", "data.*folds"),
        (DATA + "fold = 1", "data: unknown key fold: it takes folder"),
        (DATA + "train = [1]", "`train` without `test`"),
        (DATA + "train = [1, 2]\ntest = [2]", "fold 2 is in `train` and in `test`"),
        (DATA + DATA, "data: sounds is there twice"),
        ('reasoners = ["guess"]\n' + DATA, "reasoners: .*'guess'.*names-vote, .*counts"),
        ('backbones = ["yamnet:x"]\n' + DATA, "backbones: it takes a backbone and seconds"),
        ("samples = []\n" + DATA, "samples: .*length >= 1"),
        ("samples = [0]\n" + DATA, "samples: .*>= 1"),
        ("seeds = [1, 1]\n" + DATA, "seeds: 1 is there twice"),
        ("seed = 1\n" + DATA, "unknown key seed: it takes data"),
        (DATA + "test = [2, 2]", "sounds: test: 2 is there twice"),
        (DATA + '[[gpt2]]\nweights = "cold"', "weights: .*'cold'.*frozen, trained, random"),
        (DATA + '[[gpt2]]\nembedding = "x"', "embedding: .*'x'.*new, own"),
        (LLM + 'preset = "nope"', "no preset is called 'nope': there is .*qwen3-14b"),
        (LLM + 'preset = "base"\nendpoint = "abc"', "base.*endpoint takes the address"),
        (LLM + 'preset = "base"\nendpoint = "http://x:abc/"', "base"),
        (LLM + 'preset = "gpt-oss-20b"\neffort = "huge"', "effort is 'huge'.*low"),
        (LLM + 'preset = "base"\nsamples = []', "llm.samples: .*length >= 1"),
        ("data = ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text, said, tmp_path):
    with pytest.raises(ConfigError, match=said) as refused:
        loaded(tmp_path, text)
    assert "experiment.toml" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "$" not in str(refused.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        plans.load(tmp_path / "none.toml")


def test_quick_has_every_step_and_little_of_it():
    plan = plans.load(REPOSITORY / "benchmarks" / "paper.toml")
    few = plans.quick(plan)
    assert few.samples == [1, 4, 16]
    assert (few.seeds, few.traces) == ([0], [1])
    assert [each.folds for each in few.data] == [1, 1]
    assert (few.reasoners, len(few.gpt2), few.llm) == (plan.reasoners, len(plan.gpt2), plan.llm)
    assert max(each.epochs for each in few.gpt2) <= plans.QUICK_EPOCHS


def test_the_example_of_the_help_is_one(cli, tmp_path):
    shown = cli("paper", "--help").stdout
    example = shown[shown.index("backbones = ") : shown.index("streamtwl paper experiment.toml")]
    plan = loaded(tmp_path, "\n".join(line.strip() for line in example.splitlines()))
    assert (len(plan.data), len(plan.gpt2), len(plan.llm)) == (1, 1, 1)
    assert "mean" in plan.reasoners


def test_the_example_of_the_page_is_one(tmp_path):
    page = (REPOSITORY / "docs" / "paper.md").read_text()
    plan = loaded(tmp_path, page.partition("```toml\n")[2].partition("```")[0])
    assert plan.gpt2[0].trunk == "openai-community/gpt2"
