"""docs/reach.md and packaging/: what they show can be used."""

import re
from pathlib import Path

import pytest
import yaml

from streamtwl import config
from streamtwl.services.alerts import rules

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reach.md").read_text()
DAY_AND_NIGHT = (ROOT / "docs" / "day-and-night.md").read_text()


@pytest.fixture
def shown(tmp_path, monkeypatch) -> rules.Rules:
    monkeypatch.setenv("NTFY", "ntfy://topic")
    monkeypatch.setenv("HOOK_SECRET", "s")
    path = tmp_path / "rules.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])
    return rules.load(path)


def test_the_rules_of_the_page_are_rules(shown):
    assert len(shown.rules) == 4
    assert {"phone", "hook", "script", "bus"} == set(shown.actions)


def test_the_page_names_every_key_of_a_rule_and_every_action():
    table = re.findall(r"^\| (`\w+`.*?) \|", PAGE, re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(table)))
    assert {*rules.Rule.__struct_fields__} - {"name", "actions"} <= named
    assert {*rules.Action.__struct_fields__} - {"secret", "timeout_s"} <= named


def test_the_files_for_home_assistant_and_compose_are_yaml():
    yaml.add_constructor("!input", lambda loader, node: node.value, yaml.SafeLoader)
    blueprint = yaml.safe_load((ROOT / "packaging/home-assistant/sound.yaml").read_text())
    text = str({key: blueprint[key] for key in ("triggers", "actions")})
    assert all(name in text for name in blueprint["blueprint"]["input"])
    [shown] = re.findall(r"```yaml\n(automation:.*?)```", PAGE, re.DOTALL)
    [automation] = yaml.safe_load(shown)["automation"]
    assert {"triggers", "conditions", "actions"} <= automation.keys()
    compose = yaml.safe_load((ROOT / "packaging/compose.home.yaml").read_text())
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            place = volume.partition(":")[0]
            assert place in compose["volumes"] or place.startswith("/etc") or (
                ROOT / "packaging" / place
            ).exists(), volume  # fmt: skip
    base = yaml.safe_load((ROOT / "packaging/compose.yaml").read_text())
    assert base["volumes"].keys() <= compose["volumes"].keys()


def test_a_shard_in_a_container_is_asked_where_it_publishes():
    compose = yaml.safe_load((ROOT / "packaging/compose.fleet.yaml").read_text())
    for name in ("shard-1", "shard-2"):
        shard = compose["services"][name]
        number = shard["environment"]["SHARD"]
        listens, asks = (
            command.replace("$$SHARD", number)
            for command in (shard["entrypoint"][-1], shard["healthcheck"]["test"][-1])
        )
        [bind] = re.findall(r"--bind (\S+)", listens)
        assert bind == f"tcp://127.0.0.1:557{number}"
        assert f"--connect {bind} " in asks
        assert f"--metrics 127.0.0.1:976{number} " in listens
    image = (ROOT / "packaging/Dockerfile").read_text()
    [state] = re.findall(r"grep -q '(.*)'", image)
    assert state in asks


def test_a_microphone_that_is_plugged_in_anew_is_there_in_the_container():
    service = yaml.safe_load((ROOT / "packaging/compose.yaml").read_text())["services"]["streamtwl"]
    assert "devices" not in service  # they would be copies
    assert "/dev/snd:/dev/snd" in service["volumes"]
    assert service["device_cgroup_rules"] == ["c 116:* rwm"]
    assert "-v /dev/snd:/dev/snd --device-cgroup-rule 'c 116:* rwm'" in DAY_AND_NIGHT


def test_no_value_of_an_environment_file_has_a_comment_behind_it():
    shown = re.findall(r"^ +((?:STREAMTWL_\w+|NTFY)=(?!/).*)$", DAY_AND_NIGHT, re.MULTILINE)
    values = [line for line in shown if " streamtwl " not in line]
    assert len(values) >= 4
    assert [line for line in values if "#" in line] == []


def test_the_settings_of_the_page_on_the_web_are_settings(tmp_path):
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/web.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        path = tmp_path / "mine.toml"
        path.write_text(block)
        assert config.load(path).services.web.address


def test_each_shard_has_its_own_place_for_metrics():
    unit = (ROOT / "packaging/streamtwl-shard@.service").read_text()
    page = (ROOT / "docs/scale.md").read_text()
    assert "$STREAMTWL_SHARD_ARGS" in unit
    line = 'Environment="STREAMTWL_SHARD_ARGS=--metrics 127.0.0.1:976%i"'
    assert line in unit
    assert line in page
