"""What the labels of a data set are called in AudioSet."""

import csv
from collections.abc import Iterable
from pathlib import Path

from streamtwl.errors import UsageError
from streamtwl.ontology import categories, everyday


def names_of(labels: Iterable[str], table: Path | None) -> dict[str, list[int]]:
    """Return the categories that each label names: from a table, or by having the same name.

    The table has the columns category and audioset, names set off by |, as esc50_audioset.csv. A
    label may be an everyday sound's name. Raises UsageError for a label that has none.
    """
    index = {name.lower(): i for i, name in enumerate(categories())}
    known = {name: [name] for name in categories()} | dict(everyday())
    listed = {name.lower(): list(names) for name, names in known.items()}
    if table is not None:
        listed |= read_table(table, set(index))
    found = {}
    for label in labels:
        names = listed.get(label.lower()) or listed.get(label.lower().replace("_", " ")) or []
        if not names:
            raise UsageError(
                f"'{label}' is not a name of AudioSet: rename its folder (see `streamtwl labels "
                "--all`), or map it to names in a table with --names"
            )
        found[label] = [index[name.lower()] for name in names]
    return found


def read_table(table: Path, known: set[str]) -> dict[str, list[str]]:
    """Return the names in a table, by label in lower case; `known` are AudioSet's.

    Raises UsageError where it is none.
    """
    listed: dict[str, list[str]] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            for row in rows:
                names = (row["audioset"] or "").split("|")
                if not row["category"]:
                    raise UsageError(f"--names {table}: line {rows.line_num} has no category")
                listed[row["category"].lower()] = [name.strip() for name in names]
    except OSError as error:
        raise UsageError(f"--names {table}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--names {table} is not a CSV table in UTF-8: {error}") from None
    except KeyError:
        raise UsageError(f"--names {table}: it needs the columns category and audioset") from None
    for label, names in listed.items():
        for name in names:
            if name and name.lower() not in known:
                raise UsageError(
                    f"--names {table}: '{name}', of {label}, is not a name of AudioSet: see "
                    "`streamtwl labels --all`"
                )
    return {label: [name for name in names if name] for label, names in listed.items()}
