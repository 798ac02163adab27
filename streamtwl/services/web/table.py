"""Events as a table for spreadsheets."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from streamtwl.history import local

COLUMNS = ("began_at", "source", "label", "seconds", "open", "peak", "mean", "id")
HEADERS = {"content-disposition": 'attachment; filename="events.csv"'}
# With these a spreadsheet's formula begins: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def of(events: Iterable[dict[str, Any]]) -> str:
    """Return events, as the pages have them, as CSV; local times with their offset from UTC."""
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    rows.writeheader()
    for event in events:
        began_at = local(event["began_at"]).isoformat(" ", "milliseconds")
        rows.writerow({name: _cell(event[name]) for name in COLUMNS} | {"began_at": began_at})
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Return a cell; text that would be a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
