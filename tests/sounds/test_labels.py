"""Taught sounds among the names of --labels."""

import numpy as np
import pytest

from streamtwl import pipeline
from streamtwl.config import Settings
from streamtwl.errors import UsageError
from streamtwl.pipeline import build, with_taught_labels
from streamtwl.sounds.store import Sound, Store


@pytest.fixture
def taught(monkeypatch):
    monkeypatch.setattr(
        pipeline, "sounds_of_user", lambda: [Sound(name, "", []) for name in ("Kettle", "pump")]
    )


@pytest.mark.parametrize(
    ("labels", "others", "named", "include"),
    [
        ("all", "all", [], []),
        ("everyday", "everyday", [], []),
        ("Dog, Siren", "Dog, Siren", [], []),
        ("Dog, kettle , Siren", "Dog, Siren", ["Kettle"], []),
        ("PUMP,kettle", "all", ["pump", "Kettle"], ["pump", "Kettle"]),
        (
            "kettle, Fire engine, fire truck (siren)",
            "Fire engine, fire truck (siren)",
            ["Kettle"],
            [],
        ),
    ],
)
def test_those_that_are_taught_are_taken_out_of_the_list(taught, labels, others, named, include):
    settings, only = with_taught_labels(Settings(labels=labels))
    assert (settings.labels, only, settings.events.include) == (others, named, include)


def test_where_sounds_are_off_none_is_a_label(taught):
    settings = Settings(labels="kettle")
    settings.sounds.enabled = False
    assert with_taught_labels(settings) == (settings, [])


@pytest.fixture
def data(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMTWL_DATA", str(tmp_path))
    noise = np.random.default_rng(1).standard_normal((2, 8_000)).astype(np.float32)
    for name, samples in zip(("kettle", "pump"), 0.1 * noise, strict=True):
        Store().add(name, [(f"{name}.wav", samples)])


def test_they_alone_or_with_others_are_what_is_named(data, yamnet):
    built = build(Settings(labels="kettle"), ["a"])
    assert built.reasoner.labels[-1] == "kettle"
    assert "pump" not in built.reasoner.labels
    assert [*built.events._rules] == [len(built.reasoner.labels) - 1]
    built = build(Settings(labels="Dog, kettle"), ["a"])
    assert built.reasoner.labels == ["Dog", "kettle"]
    built = build(Settings(labels="Dog"), ["a"])
    assert built.reasoner.labels == ["Dog", "kettle", "pump"]
    with pytest.raises(UsageError, match="kettel"):
        build(Settings(labels="kettel"), ["a"])
