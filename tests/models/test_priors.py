"""Whose prior a backbone gets, and what is said where it is of other weights."""

import json
from pathlib import Path

import pytest

from streamtwl.errors import ModelError
from streamtwl.models import priors, registry

NAMES = ("Dog", "Wind")


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch):
    monkeypatch.setattr(priors, "_said", set())


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    """Return where a model's file would be; one prior ships, of weights a1 and for `ships`."""
    monkeypatch.setattr(priors, "FOLDER", tmp_path / "shipped")
    write(tmp_path / "shipped" / "ships.json", "a1", Dog=-2, Wind=-4)
    return tmp_path / "cache" / "net.onnx"


def write(file: Path, sha256: str, **logits: float) -> None:
    card = {"backbone": "net", "sha256": sha256, "windows_s": [1.0], "minutes": {"x": 1.0}}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(card | {"mean_logits": logits}))


def prior_of(model: Path, sha256: str, ships: str = "ships") -> list[float] | None:
    found = priors.of("net", NAMES, sha256, model, ships)
    return None if found is None else found.tolist()


def test_that_of_these_weights_is_taken_without_a_word(model, caplog):
    assert prior_of(model, "a1") == [-2, -4]
    assert caplog.messages == []


def test_that_of_other_weights_is_taken_and_said_once(model, caplog):
    for _ in range(3):
        assert prior_of(model, "b2") == [-2, -4]
    [said] = caplog.messages
    assert "\n" not in said
    for part in ("net", "a1", "b2", "streamtwl models prior net FOLDER"):
        assert part in said


def test_where_the_weights_are_not_known_nothing_is_said(model, caplog):
    assert prior_of(model, "") == [-2, -4]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("weights", "expected", "lines"),
    [("b2", [-1, -3], 0), ("a1", [-2, -4], 0), ("c3", [-1, -3], 1)],
)
def test_the_users_own_counts_more_and_that_of_these_weights_most(
    weights, expected, lines, model, caplog
):
    write(priors.beside(model), "b2", Dog=-1, Wind=-3)
    assert prior_of(model, weights) == expected
    assert len(caplog.messages) == lines


@pytest.mark.parametrize("ships", ["", "ships"])
def test_one_without_all_the_categories_is_not_taken(ships, model, caplog):
    write(priors.beside(model), "b2", Dog=-1)
    assert prior_of(model, "b2", ships) == ([-2, -4] if ships else None)
    assert len(caplog.messages) == (1 if ships else 0)


def test_without_any_there_is_none(model, caplog):
    assert prior_of(model, "b2", ships="") is None
    assert caplog.messages == []


@pytest.mark.parametrize("content", ["", "[]", '{"sha256": "b2"}', '{"mean_logits": {"Dog": "x"}}'])
def test_a_damaged_one_is_one_line_with_what_to_do(content, model):
    priors.beside(model).parent.mkdir()
    priors.beside(model).write_text(content)
    with pytest.raises(
        ModelError, match=r"net\.prior\.json is damaged .*models prior net"
    ) as raised:
        prior_of(model, "b2")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["yamnet", "mn04"])
def test_those_that_ship_are_of_the_weights_that_are_fetched(name, yamnet):
    found = registry.checksum(registry.find(name))
    if found is None:
        pytest.skip(f"{name} is not here")
    shipped = json.loads((priors.FOLDER / f"{name}.json").read_text())
    assert shipped["sha256"] == found
