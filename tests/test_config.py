import fnmatch
import re
import tomllib

import msgspec
import pytest

from streamtwl import config
from streamtwl.config import LabelEventSettings, Settings
from streamtwl.errors import ConfigError, UsageError
from streamtwl.ontology import categories, check_names


@pytest.fixture
def pipeline(tmp_path):
    """Write a pipeline file: pipeline("hop_s = 1") returns its path."""

    def write(toml: str | bytes):
        path = tmp_path / "mine.toml"
        path.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
        return path

    return write


def test_an_empty_file_is_all_defaults(pipeline):
    assert config.load(pipeline("")) == Settings()


def shipped() -> dict:
    """With the keys that it only mentions."""
    text = config.find(config.DEFAULT_PIPELINE).read_text()
    return tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))


def test_the_shipped_pipeline_is_the_defaults_but_for_its_windows_and_audiosets_words():
    settings, defaults = config.load(config.find(config.DEFAULT_PIPELINE)), Settings()
    tuned = {
        f"reasoner.{key}": getattr(defaults.reasoner, key)
        for key in ("file", "on", "off", "weights", "scale", "shift")
    }
    changes = {"windows": defaults.windows, "fallback": "", **tuned}
    changes["events.audioset"] = {}
    assert config.override(settings, changes) == defaults
    mentioned = {key: shipped()["events"][key] for key in ("on", "off")}
    assert mentioned == {"on": settings.reasoner.on, "off": settings.reasoner.off}


def test_the_shipped_pipeline_shows_every_key():
    def keys(table: dict) -> dict:
        return {
            key: set(value) if isinstance(value, dict) else None for key, value in table.items()
        }

    every = keys(msgspec.to_builtins(Settings()))
    assert keys(shipped()) == every | {"backbone": every["backbone"] - {"model"}}  # deprecated


def test_the_shipped_pipeline_excludes_and_rules_sounds_that_exist():
    events = shipped()["events"]["audioset"]
    check_names(events["label"], "[events.audioset.label]")
    for pattern in events["exclude"]:
        assert fnmatch.filter(categories(), pattern), pattern


def test_values_of_a_file_are_taken(pipeline):
    settings = config.load(
        pipeline(
            'labels = "Dog, Siren"\nhop_s = 0.08\n[trace]\nsamples = 4\nseed = -3\n'
            '[events]\non = 0.7\ninclude = ["D*"]\n'
            '[events.label."Smoke detector, smoke alarm"]\non = 0.2\noff = 0.1\n'
            '[publish]\nencoding = "json"\n'
        )
    )
    assert (settings.labels, settings.hop_s) == ("Dog, Siren", 0.08)
    assert (settings.trace.samples, settings.trace.seed, settings.trace.traces) == (4, -3, 1)
    assert settings.events.include == ["D*"]
    assert settings.events.rule("Dog") == LabelEventSettings(on=0.7)
    alarm = settings.events.rule("Smoke detector, smoke alarm")
    assert alarm == LabelEventSettings(on=0.2, off=0.1)
    assert settings.publish.encoding == "json"


def test_rules_go_by_patterns_and_later_ones_count_more(pipeline):
    toml = '[events]\non = 0.5\n[events.label]\n"*alarm" = { on = 0.3, off = 0.1 }\n'
    events = config.load(pipeline(toml + '"SMOKE alarm" = { on = 0.2 }')).events
    assert events.rule("Smoke alarm") == LabelEventSettings(on=0.2, off=0.1)
    assert events.rule("Car alarm") == LabelEventSettings(on=0.3, off=0.1)
    assert events.rule("Alarm clock") == LabelEventSettings(on=0.5)


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        # unknown keys: where, and what there is
        ("hop = 0.48", ["'hop'", "hop_s", "labels"]),
        ("[traces]", ["'traces'", "trace", "events"]),
        ("[trace]\nsample = 3", ["'sample'", "[trace]", "samples", "horizon_s"]),
        ('[reasoner]\nkind = "evidence"', ["unknown key 'kind'", "[reasoner]", "file", "floor"]),
        ("[events.label.Dog]\nonn = 0.1", ["'onn'", "Dog", "min_duration_s"]),
        # types
        ('hop_s = "0.48"', ["hop_s", "float", "str"]),
        ("labels = 3", ["labels", "str", "int"]),
        ("trace = 3", ["trace", "int"]),
        ("[trace]\nsamples = 2.5", ["trace.samples", "int", "float"]),
        ("[trace]\nseed = true", ["trace.seed", "int", "bool"]),
        ('[events]\ninclude = "Dog"', ["events.include", "array", "str"]),
        ("[events]\nexclude = [3]", ["events.exclude", "str", "int"]),
        ("[events.label]\nDog = 0.4", ["events.label", "Dog"]),
        ("[events.audioset.label]\nDog = 0.4", ["events.audioset.label", "Dog"]),
        ("[events.audioset.label.Dog]\non = 0.1", ["Dog", "off", "on"]),
        ('[events.label.Dog]\non = "x"', ["Dog", "on", "float", "str"]),
        ("[publish]\nbind = 5577", ["publish.bind", "str", "int"]),
        # values
        ("hop_s = 0", ["hop_s", "0.01"]),
        ("hop_s = 60.01", ["hop_s", "60"]),
        ("hop_s = 0.125", ["hop_s", "0.125", "0.01"]),
        ("hop_s = nan", ["hop_s"]),
        ("[backbone]\nthreads = 0", ["backbone.threads", "1"]),
        ("[trace]\nsamples = 0", ["trace.samples", "1"]),
        ("[trace]\nsamples = 4097", ["trace.samples", "4096"]),
        ("[trace]\ntraces = 257", ["trace.traces", "256"]),
        ("[trace]\ntemperature = 0", ["trace.temperature", "0"]),
        ("[trace]\nhorizon_s = 0", ["trace.horizon_s", "0"]),
        ("[trace]\nhorizon_s = inf", ["trace.horizon_s"]),
        ("[trace]\nseed = 99999999999999999999", ["trace.seed"]),
        ("[reasoner]\nhalf_life_s = -1", ["reasoner.half_life_s", "0"]),
        ("[reasoner]\nfloor = 1.5", ["reasoner.floor", "1"]),
        ("[events]\non = nan", ["events.on"]),
        ("[events]\non = 2", ["events.on", "1"]),
        ("[events]\non = 0.1\noff = 0.2", ["events", "off", "on"]),
        ("[events]\non = 0.1", ["events", "off (0.2)", "on (0.1)"]),
        ("[events]\ncooldown_s = -1", ["events.cooldown_s", "0"]),
        ("[events]\ncooldown_s = inf", ["events.cooldown_s"]),
        ("[events.label.Dog]\non = 0.1", ["Dog", "off", "on"]),
        ('[publish]\nencoding = "xml"', ["publish.encoding", "xml", "msgpack", "json"]),
        # no TOML
        ("hop_s = ", ["TOML"]),
        ("<pipeline/>", ["TOML"]),
        (b'labels = "\xff"', ["TOML"]),
    ],
)
def test_a_wrong_file_names_itself_the_key_and_what_it_takes(toml, named, pipeline):
    path = pipeline(toml)
    with pytest.raises(ConfigError) as raised:
        config.load(path)
    problem = str(raised.value)
    for each in [str(path), *named]:
        assert each in problem
    assert "\n" not in problem
    assert raised.value.exit_code == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml.*[Nn]o such file"):
        config.load(config.find(str(tmp_path / "nowhere.toml")))


def test_a_folder_is_no_pipeline(tmp_path):
    with pytest.raises(ConfigError, match="directory"):
        config.load(tmp_path)


def test_an_unknown_name_is_refused_with_those_that_are_shipped():
    with pytest.raises(ConfigError, match=r"'yamnot'.*default"):
        config.find("yamnot")


# --- options of the command line ---


def test_override_changes_what_it_names_and_nothing_else():
    changed = config.override(Settings(), {"hop_s": 0.08, "trace.seed": 7, "publish.bind": "x"})
    assert (changed.hop_s, changed.trace.seed, changed.publish.bind) == (0.08, 7, "x")
    back = {"hop_s": 0.48, "trace.seed": 0, "publish.bind": "tcp://127.0.0.1:5577"}
    assert config.override(changed, back) == Settings()


def test_override_keeps_the_rules_for_single_labels(pipeline):
    settings = config.load(pipeline("[events.label.Dog]\non = 0.9"))
    assert config.override(settings, {"hop_s": 0.08}).events == settings.events


def test_override_leaves_the_settings_it_was_given():
    settings = Settings()
    config.override(settings, {"trace.seed": 7})
    assert settings == Settings()


@pytest.mark.parametrize(
    ("key", "value"),
    [("hop_s", 0.125), ("hop_s", 61), ("trace.samples", 0), ("trace.samples", 5000)],
)
def test_override_checks_again(key, value):
    with pytest.raises(UsageError, match=key):
        config.override(Settings(), {key: value})


def test_what_is_nested_too_deep_is_no_traceback(pipeline):
    with pytest.raises(ConfigError, match="is not TOML"):
        config.load(pipeline("x = " + 5000 * "["))


def test_a_wrong_entry_of_a_table_names_the_table(pipeline):
    with pytest.raises(ConfigError, match=r"reasoner\.weights: in one of its entries: Expected"):
        config.load(pipeline('[reasoner.weights]\n"mn04:2" = "a"'))
