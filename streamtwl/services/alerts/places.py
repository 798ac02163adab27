"""Where keys are in a file of rules, for errors."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from streamtwl.errors import ConfigError

T = TypeVar("T")
# strings and comments: of those over several lines only the lines are kept
_TEXT = re.compile(
    r"""\"{3}(?:\\.|[^\\])*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*""", re.DOTALL
)


class Places:
    """The lines of a file of rules."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = _TEXT.sub(_without_inner_lines, text).split("\n")

    def convert(self, table: Any, type_: type[T], section: str, nth: int = 0) -> T:
        """Return the table as that type; raises ConfigError."""
        try:
            return msgspec.convert(table, type_)
        except msgspec.ValidationError as error:
            found = re.fullmatch(r"(.*?)(?: - at `\$\.?([^`]*)`)?", str(error), re.DOTALL)
            assert found is not None
            why, key = found[1], re.sub(r"\W.*", "", found[2] or "")
            if unknown := re.search("unknown field `(.*)`", why, re.DOTALL):
                key, takes = unknown[1], ", ".join(getattr(type_, "__struct_fields__", ()))
                why = f"there is no such key; it takes {takes}"
            elif absent := re.search("required field `(.*)`", why):
                key, why = absent[1], "it is missing"
            elif not key and (own := re.match(r"(\w+): (.*)", why)):
                key, why = own[1], own[2]
            raise self.error(key, why, section, nth) from None

    def error(self, key: str, why: str, section: str, nth: int = 0) -> ConfigError:
        """Return the error on a key of the nth section of that name."""
        where = next(self._where(key, section, nth), None)
        line = f", line {where}" if where else ""
        named = ": ".join(filter(None, (f"[{section}]" if section else "", key)))
        text = f"rules {self._path}{line}: {named}: {why}"
        return ConfigError(
            "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
        )

    def _where(self, key: str, section: str, nth: int) -> Iterator[int]:
        """Yield the number of the key's line, or else of its section's."""
        named, begun = "", None
        count = -1
        for number, line in enumerate(self._lines, 1):
            if header := re.match(r"\s*\[+\s*(.*?)\s*\]+\s*(#.*)?$", line):
                named = header[1].replace('"', "").replace("'", "")
                count += named == section
                if named == section and count == nth:
                    begun = number
            elif (
                named == section
                and (not section or count == nth)
                and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line)
            ):
                yield number
            if not section and re.match(rf"\s*\[+\s*{re.escape(key)}\b", line):
                yield number
        if begun:
            yield begun
        for number, line in enumerate(self._lines, 1):
            if section and re.match(rf"\s*{section.partition('.')[0]}\s*[.=]", line):
                yield number  # of a section that is a value: rule = [{...}]


def _without_inner_lines(text: re.Match[str]) -> str:
    return '""' + "\n" * text[0].count("\n") if "\n" in text[0] else text[0]
