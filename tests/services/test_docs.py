"""docs/reach.md and packaging/: what they show can be used."""

import re
from pathlib import Path

import pytest
import yaml

from streamtwl.services.alerts import rules

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reach.md").read_text()


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
