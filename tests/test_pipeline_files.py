"""Pipeline files: what they are changes of, their windows, and which runs where weights lack."""

import os
import re
import shutil

import pytest

from streamtwl import available, config
from streamtwl.errors import ConfigError, StreamtwlError, UsageError
from streamtwl.models import registry
from streamtwl.pipeline import build
from streamtwl.reasoners.evidence import Evidence
from streamtwl.reasoners.reader import Reader
from tests.conftest import mn04_file


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a pipeline file into the current folder; write("labels = 'Dog'") returns its path."""
    monkeypatch.chdir(tmp_path)

    def write(toml: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(toml)
        return f"./{name}"

    return write


@pytest.fixture
def load(write):
    return lambda toml: config.load(config.find(write(toml)))


def refusal(call) -> str:
    """Return the one line with which a call is refused."""
    with pytest.raises(ConfigError) as raised:
        call()
    assert str(raised.value).isprintable()
    return str(raised.value)


# --- base ---


def test_a_file_is_its_base_but_for_what_it_says(load):
    default, mine = config.load(config.find("default")), load('base = "default"\nhop_s = 0.2')
    assert mine.hop_s == 0.2
    assert config.override(mine, {"hop_s": default.hop_s}) == default


def test_tables_are_merged_key_by_key(load):
    default = config.load(config.find("default"))
    mine = load(
        'base = "default"\n[reasoner]\nfloor = 0.3\n[events.audioset.label]\n"Dog" = { on = 0.7 }\n'
        '"Gunshot*" = { on = 0.6 }'
    )
    assert mine.reasoner.floor == 0.3
    assert mine.reasoner.weights == default.reasoner.weights
    assert mine.events.audioset.exclude == default.events.audioset.exclude
    rules = default.events.audioset.label
    assert mine.events.audioset.label == rules | {
        "Dog": {"on": 0.7},
        "Gunshot*": {"on": 0.6, "off": rules["Gunshot*"]["off"]},
    }


def test_lists_are_replaced_and_an_empty_table_empties_its_bases(load):
    mine = load(
        'base = "default"\nwindows = ["yamnet:0.96"]\n[reasoner]\nweights = {}\n'
        '[events.audioset]\nexclude = ["Hum"]\n[events.audioset.label]'
    )
    assert mine.windows == ["yamnet:0.96"]
    assert mine.reasoner.weights == {}
    assert mine.events.audioset.exclude == ["Hum"]
    assert mine.events.audioset.label == {}


def test_a_base_may_be_a_file_with_a_base_of_its_own(write):
    write('base = "light"\nhop_s = 0.2', "first.toml")
    write('base = "./first.toml"\nlabels = "Dog"', "second.toml")
    mine = config.load(config.find(write('base = "second.toml"\nhop_s = 0.1')))
    light = config.load(config.find("light"))
    assert (mine.windows, mine.labels, mine.hop_s) == (light.windows, "Dog", 0.1)
    assert (mine.reasoner, mine.events) == (light.reasoner, light.events)


@pytest.mark.parametrize(
    ("base", "named"),
    [
        ('"nowhere"', ["'nowhere'", "default", "light"]),
        ('"nowhere.toml"', ["nowhere.toml", "No such file"]),
        ('"./"', ["directory"]),
        ("3", ["mine.toml", "base is 3"]),
        ("0", ["mine.toml", "base is 0"]),
        ("true", ["mine.toml", "base is True"]),
        ('["default"]', ["mine.toml", "base is ['default']"]),
        ('"a\\u0000.toml"', ["mine.toml", "base"]),
        ('"a\\nb"', ["mine.toml", "base"]),
        ('"loop.toml"', ["loop.toml", "symbolic links"]),
    ],
)
def test_a_base_that_is_none_is_refused(base, named, write, tmp_path):
    os.symlink("loop.toml", tmp_path / "loop.toml")
    problem = refusal(lambda: config.load(config.find(write(f"base = {base}"))))
    assert all(each in problem for each in named), problem


@pytest.mark.parametrize(
    "files",
    [
        {"a": "a.toml"},
        {"a": "./sub/../a.toml"},
        {"a": "link.toml"},
        {"a": "b.toml", "b": "a.toml"},
        {"a": "b.toml", "b": "c.toml", "c": "link.toml"},
        {"a": "b.toml", "b": "c.toml", "c": "b.toml"},
    ],
    ids=str,
)
def test_a_file_that_is_a_change_of_itself_is_refused(files, write, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.toml").symlink_to("a.toml")
    for name, base in files.items():
        write(f'base = "{base}"', f"{name}.toml")
    problem = refusal(lambda: config.load(config.find("a.toml")))
    assert "base is" in problem
    assert "based on" in problem


def test_a_value_in_place_of_a_bases_table_is_refused(load):
    assert "events" in refusal(lambda: load('base = "default"\nevents = 3'))
    assert "hop_s" in refusal(lambda: load('base = "default"\n[hop_s]\nx = 1'))


# --- windows ---


@pytest.mark.parametrize(
    ("windows", "named"),
    [
        ("[]", "windows"),
        ('"yamnet:0.96"', "windows"),
        ("[3]", "windows"),
        ('["yamnet:"]', "as mn04:3"),
        ('[":3"]', "as mn04:3"),
        ('["mn04:grow"]', "as mn04:3"),
        ('["mn04:-3"]', "as mn04:3"),
        ('["mn04:1e3"]', "as mn04:3"),
        ('["mn04:3 "]', "as mn04:3"),
        ('["mn04:3\\n"]', "as mn04:3"),
        ('["mn04:\u0663"]', "as mn04:3"),
        ('["mn04:2", "yamnet:0.96", "mn04:2"]', "mn04:2"),
        (str([f"mn04:{i}" for i in range(1, 18)]), "16"),
    ],
)
def test_windows_that_are_none_are_refused(windows, named, load):
    assert named in refusal(lambda: load(f"windows = {windows}"))


@pytest.mark.parametrize(
    ("windows", "named"),
    [
        (["yamnet:2"], "yamnet:2: yamnet scores windows of 0.96 s"),
        (["yamnet:0.9"], "yamnet:0.9: yamnet scores windows of 0.96 s"),
        (["yamnet", "yamnet:0.96"], "yamnet and yamnet:0.96 are the same"),
        (["yamnet:0.96", "yamnet:0.960"], "yamnet:0.96 and yamnet:0.960 are the same"),
    ],
)
def test_a_window_that_its_backbone_does_not_score_is_refused(windows, named, load, yamnet):
    settings = load(f"windows = {windows}")
    assert named in refusal(lambda: build(settings, ["a"]))


def test_a_window_of_no_backbone_is_refused_with_those_there_are(load):
    settings = load('windows = ["nobody:1"]')
    with pytest.raises(UsageError, match=r"'nobody'.*yamnet, mn04"):
        build(settings, ["a"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory, yamnet):
    """A cache with YAMNet and mn04."""
    cache = tmp_path_factory.mktemp("cache")
    for file in (registry.path(registry.find("yamnet")).parent).glob("yamnet.*"):
        shutil.copy(file, cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMTWL_CACHE", str(cache))
        registry.pull(registry.find("mn04"), source=str(mn04_file()))
    return cache


@pytest.fixture
def both(weights, monkeypatch):
    """The cache with both is that of the test."""
    monkeypatch.setenv("STREAMTWL_CACHE", str(weights))
    monkeypatch.delenv("STREAMTWL_MODELS", raising=False)


@pytest.mark.parametrize(
    ("windows", "named"),
    [
        (["mn04:0.3"], "mn04:0.3: mn04 scores windows of 0.32 to 10 s"),
        (["mn04:11"], "mn04:11: mn04 scores windows of 0.32 to 10 s"),
        (["mn04:" + "9" * 400], "mn04 scores windows of 0.32 to 10 s"),
        (["mn04:2", "mn04:2.0"], "mn04:2 and mn04:2.0 are the same"),
        (["mn04:2", "mn04:2.001"], "mn04:2 and mn04:2.001 are the same"),  # 10 ms a frame
        (["mn04:0.32"], "hop_s is 0.48 s, but mn04:0.32"),
    ],
)
def test_a_length_that_mn04_does_not_score_is_refused(windows, named, load, both):
    settings = load(f"windows = {windows}")
    assert named in refusal(lambda: build(settings, ["a"]))


def test_windows_of_both_backbones_are_built_in_their_order(load, both):
    built = build(load('windows = ["mn04:2", "yamnet", "mn04:0.32", "mn04:10"]'), ["a"])
    lengths = [(kind.name, kind.backbone, kind.length_s) for kind in built.bank.kinds]
    assert lengths == [("mn04:2", 0, 2), ("yamnet", 1, 0.96), ("mn04:0.32", 0, 0.32),
                       ("mn04:10", 0, 10)]  # fmt: skip
    assert [backbone.name for backbone in built.bank.backbones] == ["mn04", "yamnet"]


def test_a_reasoner_of_yamnet_reads_yamnet_only_within_the_default_pipeline(both):
    named = {"reasoner.file": "esc10-gpt2"}
    pipeline = build(available.settings("default", named), ["a"])
    assert [each.name for each in pipeline.bank.backbones] == ["yamnet"]
    assert pipeline.settings.windows == ["yamnet:0.96"]
    assert pipeline.reasoner.name == "esc10-gpt2"


@pytest.mark.parametrize("named", ["default", "evidence", "yamnet", "light", "gpt2"])
def test_every_pipeline_that_ships_is_built(named, both):
    said: list[str] = []
    pipeline = build(available.settings(named, {}, said.append), ["a"])
    assert said == []
    assert isinstance(pipeline.reasoner, Reader if named in ("default", "gpt2") else Evidence)
    assert len(pipeline.bank.backbones) == (1 if named == "yamnet" else 2)


# --- without weights ---


@pytest.fixture
def only_yamnet(tmp_path, monkeypatch, yamnet):
    """A cache with YAMNet, and mn04 nowhere."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for file in registry.path(registry.find("yamnet")).parent.glob("yamnet.*"):
        shutil.copy(file, cache)
    monkeypatch.setenv("STREAMTWL_CACHE", str(cache))
    monkeypatch.delenv("STREAMTWL_MODELS", raising=False)
    return cache


def test_without_mn04_the_default_is_its_fallback_and_a_line_says_so_once(only_yamnet):
    said: list[str] = []
    settings = available.settings("default", {"hop_s": 0.2, "labels": None}, said.append)
    assert settings == config.override(config.load(config.find("yamnet")), {"hop_s": 0.2})
    [line] = said
    assert re.search(r"without mn04, .*`streamtwl models pull mn04`", line)
    assert build(settings, ["a"]).settings.windows == ["yamnet:0.96"]


def test_a_damaged_mn04_is_none(only_yamnet):
    (only_yamnet / "mn04.onnx").write_bytes(b"damaged")
    (only_yamnet / "mn04.json").write_text("{}")
    said: list[str] = []
    assert available.settings("default", {}, said.append).windows == ["yamnet:0.96"]
    assert len(said) == 1


@pytest.mark.parametrize("place", ["cache", "STREAMTWL_MODELS", "the file"])
def test_where_mn04_can_be_built_nothing_is_said(place, only_yamnet, tmp_path, monkeypatch):
    folder = only_yamnet if place == "cache" else tmp_path / "models"
    folder.mkdir(exist_ok=True)
    file = folder / "mn04_as_mAP_432.pt"
    shutil.copy(mn04_file(), file)
    if place != "cache":
        monkeypatch.setenv("STREAMTWL_MODELS", str(file if place == "the file" else folder))
    said: list[str] = []
    assert available.settings("default", {}, said.append).windows == ["yamnet:0.96", "mn04:3"]
    assert said == []


def test_a_fallback_that_is_none_is_refused(write, only_yamnet):
    path = write('windows = ["mn04:3"]\nfallback = "nowhere"')
    assert "'nowhere'" in refusal(lambda: available.settings(path, {}))


def test_the_command_line_says_once_that_it_falls_back(cli, only_yamnet, wav, noise):
    ran = cli("label", wav("a.wav", noise), "--offline")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("models pull mn04") == 1


def test_what_has_no_fallback_says_what_to_get(cli, only_yamnet, wav, noise, write):
    path = write('windows = ["mn04:3"]')
    ran = cli("label", wav("a.wav", noise), "--offline", "--pipeline", path)
    assert ran.returncode == 1
    assert "mn04" in ran.stderr
    assert "Traceback" not in ran.stderr


# --- deprecated names ---


def test_the_old_name_of_gpt2_is_known():
    assert config.find("yamnet-gpt2") == config.find("gpt2")


def test_the_old_key_of_the_backbone_is_its_window(load, yamnet):
    settings = load('[backbone]\nmodel = "yamnet"')
    assert settings.windows == ["yamnet"]
    assert config.backbones(settings) == ["yamnet"]
    [kind] = build(settings, ["a"]).bank.kinds
    assert (kind.name, kind.length_s) == ("yamnet", 0.96)


def test_the_old_key_takes_the_place_of_a_bases_windows(load):
    mine = load('base = "gpt2"\n[backbone]\nmodel = "mn04"')
    assert mine.windows == ["mn04"]


@pytest.mark.parametrize(
    ("toml", "file"),
    [
        ('base = "default"', "reader"),
        ('base = "default"\n[backbone]\nthreads = 2', "reader"),
        ('base = "default"\nwindows = ["mn04:2"]', ""),
        ('base = "gpt2"\n[backbone]\nmodel = "mn04"', ""),
        ('base = "default"\nwindows = ["mn04:2"]\n[reasoner]\nfile = "reader"', "reader"),
        ('base = "llm"\nwindows = ["mn04:2"]\n[reasoner]\nfloor = 0.2\nfile = "llm"', "llm"),
    ],
)
def test_other_windows_are_not_read_by_the_bases_reasoner(toml, file, load):
    assert load(toml).reasoner.file == file


@pytest.mark.parametrize(
    ("toml", "gate"),
    [
        ("", 0.2),
        ('windows = ["yamnet:0.96", "mn04:2"]', 0.0),
        ('windows = ["yamnet:0.96", "mn04:2"]\ngate = 0.3', 0.3),
    ],
)
def test_a_gate_is_that_of_its_windows(toml, gate, write, load):
    base = write('base = "default"\ngate = 0.2', "gated.toml")
    assert load(f'base = "{base}"\n{toml}').gate == gate


def test_a_reasoner_that_reads_other_windows_reads_them_at_every_hop(load):
    settings = load('base = "default"\ngate = 0.2')
    assert config.with_windows(settings, ["yamnet:0.96"]).gate == 0
    assert config.with_windows(settings, settings.windows).gate == settings.gate


def test_an_old_key_of_no_backbone_is_refused(load):
    settings = load('[backbone]\nmodel = "nobody"')
    with pytest.raises(StreamtwlError, match="'nobody'"):
        build(settings, ["a"])
