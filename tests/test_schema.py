"""The wire schema changes on purpose or not at all: each version's snapshot is kept."""

import itertools
import json
from pathlib import Path

import pytest

from streamtwl.messages import SCHEMA, json_schema

SNAPSHOTS = Path(__file__).parent / "schema"
VERSIONS = sorted(
    (path.stem for path in SNAPSHOTS.glob("*.json")),
    key=lambda version: [int(part) for part in version.split(".")],
)


def snapshot(version: str) -> dict:
    return json.loads((SNAPSHOTS / f"{version}.json").read_text())


def meaning(schema):
    """What a reader relies on: the schema without its words."""
    if isinstance(schema, dict):
        words = ("description", "title", "$schema")
        return {k: meaning(v) for k, v in schema.items() if k not in words or k == "kind"}
    return [meaning(each) for each in schema] if isinstance(schema, list) else schema


def test_a_field_changes_only_with_the_version():
    assert VERSIONS[-1] == SCHEMA, f"write tests/schema/{SCHEMA}.json with `streamtwl schema`"
    assert json_schema() == snapshot(SCHEMA), (
        f"the messages are not those of schema {SCHEMA}: raise SCHEMA in messages.py (minor if only"
        " kinds and fields with a default came, else major), and write the new version's snapshot:"
        " streamtwl schema > tests/schema/VERSION.json"
    )


@pytest.mark.parametrize(("older", "newer"), list(itertools.pairwise(VERSIONS)))
def test_a_minor_version_only_adds_optional_fields(older, newer):
    if older.split(".")[0] != newer.split(".")[0]:
        pytest.skip("a major version may change anything")
    before, after = snapshot(older)["$defs"], snapshot(newer)["$defs"]
    assert before.keys() <= after.keys()
    for kind, struct in before.items():
        fields, grown = struct["properties"], after[kind]["properties"]
        assert fields.keys() <= grown.keys(), kind
        assert set(after[kind]["required"]) <= set(struct["required"]), kind
        for name, field in fields.items():
            if name != "schema":
                assert reads(meaning(grown[name]), meaning(field)), f"{kind}.{name}"


def reads(newer: dict, older: dict) -> bool:
    """Whether who knows the newer field reads the older one; limits and defaults may come."""
    if "enum" in older and newer.get("type") == "string":
        return True  # it no longer says that these are all
    return all(
        newer.get(key) == value for key, value in older.items() if key not in ("default", "items")
    ) and ("items" not in older or reads(newer["items"], older["items"]))


def test_every_field_says_what_it_is():
    for kind, struct in json_schema()["$defs"].items():
        for name, field in struct["properties"].items():
            if name != "kind":
                assert field.get("description"), f"{kind}.{name}"
