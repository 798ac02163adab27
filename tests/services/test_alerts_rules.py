"""Alerts: files of rules that cannot be, with line and key."""

import pytest

from streamtwl.errors import ConfigError
from streamtwl.services.alerts import rules
from tests.services.alerts import rule

RULES = """\
[[rule]]
name = "first"
actions = ["a"]

[[rule]]
name = "second"
label = "Dog"
{}
actions = ["a"]

[action.a]
{}
"""


@pytest.mark.parametrize(
    ("line", "action", "said"),
    [
        ("lastings = 3", "", r"line 8: \[rule\]: lastings: there is no such key; it takes name, "),
        ("lasting_s = 'x'", "", r"line 8: \[rule\]: lasting_s: Expected `float`, got `str`"),
        ("times = 0", "", r"line 8: \[rule\]: times: Expected `int` >= 1"),
        ("hours = '25:00-26:00'", "", r"line 8: \[rule\]: hours: it takes hours as 22:00-06:00"),
        ("silence_s = 1\nlasting_s = 1", "", r"line 8: \[rule\]: silence_s: times, lasting_s"),
        ("lasting_s = ", "", r"is not TOML: Invalid value \(at line 8"),
        ("", "", r"line 11: \[action.a\]: it takes one of apprise, webhook, command, mqtt, not 0"),
        ("", "webhook = 'ftp://x'", r"line 12: \[action.a\]: webhook: it takes http"),
        ("", "webhook = 'http://'", r"line 12: \[action.a\]: webhook: http: it takes an address"),
        ("", "webhook = 'http://h:99999/'", r"line 12: \[action.a\]: webhook: .*not an address"),
        ("", 'command = ["a\\u0000b"]', r"line 12: \[action.a\]: command: .*without \\0"),
        ("", "command = ['']", r"line 12: \[action.a\]: command: it takes a program"),
        ("times = 2\nwithin_s = 0", "", r"line 9: \[rule\]: within_s: it is 0"),
        ("", "apprise = '$NOT_SET_HERE'", "line 12: .*the variable NOT_SET_HERE is not set"),
        ("", "command = ['x']\n[[rules]]", "line 13: rules: it takes "),
        ("", "command = ['x']\n[[rule]]\nname='3'\nactions=['b']", r"line 15: .*no \[action.b\]"),
        ("", "command = ['x']\n[[rule]]\nname='first'\nactions=['a']", "line 14: .*two rules"),
        ("", "command = ['x']\n[[rule]]\nname='3'", r"line 13: \[rule\]: actions: it is missing"),
        ("", "command = ['x']\n[[rule]]\nname='3'\nactions=['a', 'a']", "line 15: .*one twice"),
        ('"a\\nb" = 1', "", r"\[rule\]: a\\nb: there is no such key"),
        ('text = """\n[[rule]]\n[action.a]\n"""\ntimes = 0', "", r"line 12: \[rule\]: times: "),
        ("# it's no string: \"\"\"\ntimes = 0", "", r"line 9: \[rule\]: times: "),
    ],
)  # fmt: skip
def test_a_rule_that_does_not_parse_names_line_and_key(tmp_path, line, action, said):
    path = tmp_path / "rules.toml"
    path.write_text(RULES.format(line, action))
    with pytest.raises(ConfigError, match=said):
        rules.load(path)


def refused(tmp_path, content: bytes) -> str:
    path = tmp_path / "rules.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        rules.load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rules_in_a_line_name_that_line(tmp_path):
    one = b'# rules\nrule = [{name = "a", actions = ["x"], times = 0}]\n'
    assert "line 2: [rule]: times: " in refused(tmp_path, one)


def test_what_is_not_utf_8_names_its_line(tmp_path):
    assert "line 2: it is not UTF-8" in refused(tmp_path, b"[[rule]]\nname = '\xff'\n")


def test_a_variable_that_is_not_utf_8_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "\udcff")
    action = "webhook = 'http://h/'\nsecret = '$HOOK_SECRET'"
    said = refused(tmp_path, RULES.format("", action).encode())
    assert "line 13: [action.a]: secret: the variable HOOK_SECRET is not UTF-8" in said


def test_hours_are_of_ascii_digits():
    with pytest.raises(ValueError, match="hours: it takes hours"):
        rule(hours="0\u06f7:00-08:00")
