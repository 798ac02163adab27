"""Which pipeline runs where weights are absent."""

import pytest

from streamtwl import available
from streamtwl.errors import ConfigError, ModelError


@pytest.fixture
def here(monkeypatch):
    """The backbones whose weights are on this machine."""
    there: set[str] = set()
    monkeypatch.delenv("STREAMTWL_OFFLINE", raising=False)
    monkeypatch.setattr(available, "_is_here", there.__contains__)
    return there


@pytest.mark.parametrize("named", ["default", "evidence", "light", "gpt2"])
@pytest.mark.parametrize("yamnet", [False, True])
def test_without_mn04_the_fallback_runs_and_one_line_says_how_to_get_it(named, yamnet, here):
    here |= {"yamnet"} if yamnet else set()
    said = []
    settings = available.settings(named, {"labels": "everyday"}, said.append)
    assert settings.windows == ["yamnet:0.96"]
    assert settings.labels == "everyday"
    (line,) = said
    assert "without mn04," in line
    assert "`streamtwl models pull mn04`" in line  # YAMNet comes by itself


def test_offline_without_any_weights_only_the_error_that_follows_is_said(here, monkeypatch):
    monkeypatch.setenv("STREAMTWL_OFFLINE", "1")
    said = []
    assert available.settings("default", {}, said.append).windows == ["yamnet:0.96"]
    assert said == []


def test_yamnet_that_is_not_here_yet_is_no_reason_for_the_fallback(here):
    here.add("mn04")
    said = []
    settings = available.settings("default", {}, said.append)
    assert settings.windows == ["yamnet:0.96", "mn04:3"]
    assert said == []


def test_without_mn04_the_language_model_stays(here):
    here.add("yamnet")
    said = []
    settings = available.settings("llm", {"llm.model": "mine"}, said.append)
    assert settings.windows == ["yamnet:0.96"]
    assert (settings.reasoner.file, settings.labels) == ("llm", "everyday")
    assert (settings.llm.preset, settings.llm.model) == ("gpt-oss-20b", "mine")
    assert settings.reasoner.scale == available.settings("yamnet", {}).reasoner.scale
    assert len(said) == 1


def test_a_fallback_may_have_one_of_its_own(here):
    here.add("yamnet")
    said = []
    assert available.settings("ast", {}, said.append).windows == ["yamnet:0.96"]
    first, second = said
    assert "without ast," in first
    assert "'default'" in first
    assert "`streamtwl models export-ast " in first
    assert "`streamtwl models pull mn04`" in second


def test_ast_is_run_where_it_is_here(here):
    here |= {"ast"}
    said = []
    assert available.settings("ast", {}, said.append).windows == ["ast:10.24", "ast:0.96"]
    assert said == []


def test_fallbacks_in_a_circle_are_refused(here, tmp_path):
    for name, other in ("ab", "ba"):
        text = f'windows = ["{name}"]\nfallback = "{tmp_path}/{other}.toml"\n'
        (tmp_path / f"{name}.toml").write_text(text)
    with pytest.raises(ConfigError, match="falls back to itself"):
        available.settings(str(tmp_path / "a.toml"), {})


def test_a_pipeline_without_a_fallback_is_what_was_named(here):
    said = []
    assert available.settings("yamnet", {}, said.append).windows == ["yamnet:0.96"]
    assert said == []


def test_a_reasoner_that_was_named_is_not_replaced(here):
    with pytest.raises(ModelError, match="the reasoner reader reads mn04, whose weights are not"):
        available.settings("default", {"reasoner.file": "reader"})
