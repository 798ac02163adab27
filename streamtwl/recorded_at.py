"""When a recording began, by the wall clock: from its name, or from its date.

Read anywhere in a name are, among others:

    20260514_203000.WAV                     AudioMoth; UTC, unless another zone is given
    5B1C3F40.WAV                            AudioMoth, older firmware: Unix seconds, hexadecimal
    SITE_20260514_203000.wav, $203000       Song Meter
    260514-203000.WAV                       Zoom
    2026-05-14T20-30-00.250+02:00.flac      ISO 8601, with or without its separators
"""

import re
import stat
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from streamtwl.errors import UsageError

AUDIOMOTH = re.compile(r"(?:[0-9A-F]{16}_)?\d{8}_\d{6}T?\.WAV")  # a device id before it
UNIX_SECONDS = re.compile(r"([0-9A-F]{8})\.wav", re.IGNORECASE)
UNIX_RANGE = range(0x54A48E00, 0x80000000)  # 2015 to 2038, which 20260514.wav is outside of
DATE_TIME = re.compile(
    r"""(?<!\d) (?:
        ((?:19|20)\d\d) ([-_.]?) (\d\d) \2 (\d\d) \D{0,4} (\d\d) ([-_.:]?) (\d\d) \6 (\d\d)
        | (\d\d) (\d\d) (\d\d) [-_\ T] (\d\d) (\d\d) (\d\d)
    )
    (?: [.,] (\d{1,6}) (?![a-y\d]) | (\d{3}) )? (?!\d)       # .250, but not .3gp
    (?: [_\ ]? (Z|UTC|GMT) (?![a-z]) | (\+\d\d (?: :?\d\d)? | -\d\d:?(?:00|15|30|45)) (?!\d) )?
    """,
    re.VERBOSE | re.IGNORECASE,
)


class WallClock:
    """Finds when recordings began.

    `source` is name, or mtime: the date at which the recorder closed the file, which is the end of
    the recording. `zone` is the time zone of dates, and of names without one: an IANA name, UTC, or
    an offset such as +01:00; by default the computer's. Raises UsageError for anything else.
    """

    def __init__(self, source: str, zone: str | None = None) -> None:
        self.source = source
        self._zone = None if zone is None else _zone(zone)

    def start(self, file: Path, duration_s: float) -> datetime | None:
        """Return when a file's first sample was recorded, at a fixed offset; None: it is unknown.

        The offset is that of its first moment, even if daylight saving time begins or ends in it.
        """
        if self.source == "name":
            began = self._by_name(file.name)
        else:
            began = self._by_date(file, duration_s)
        if began is None:
            return None
        began = began if began.tzinfo else self._in_zone(began)
        offset = began.utcoffset()
        assert offset is not None
        return began.astimezone(timezone(offset))

    def _in_zone(self, began: datetime) -> datetime:
        if self._zone is not None:
            return began.replace(tzinfo=self._zone)
        # Not astimezone(): of the hour that spring leaves out each version of Python makes another
        whole = began.replace(microsecond=0)
        in_utc = datetime.fromtimestamp(whole.timestamp(), UTC).replace(tzinfo=None)
        return began.replace(tzinfo=timezone(whole - in_utc))

    def _by_name(self, name: str) -> datetime | None:
        seconds = UNIX_SECONDS.fullmatch(name)
        if seconds and int(seconds[1], 16) in UNIX_RANGE:
            return datetime.fromtimestamp(int(seconds[1], 16), self._zone or UTC)
        for found in DATE_TIME.finditer(name):
            *parts, fraction, milliseconds, utc, offset = found.groups()
            if parts[0]:
                year, _, month, day, hour, _, minute, second = parts[:8]
            else:
                year, month, day, hour, minute, second = parts[8:]
                year = f"20{year}"
            zone = "Z" if utc else offset or ""
            digits = (fraction or milliseconds or "").ljust(6, "0")
            try:
                began = datetime.fromisoformat(
                    f"{year}-{month}-{day}T{hour}:{minute}:{second}.{digits}{zone}"
                )
            except ValueError:  # month 13, say
                continue
            if not zone and self._zone is None and AUDIOMOTH.fullmatch(name):
                return began.replace(tzinfo=UTC)
            return began
        return None

    def _by_date(self, file: Path, duration_s: float) -> datetime | None:
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):
                return None  # a pipe
            ended = datetime.fromtimestamp(status.st_mtime, UTC)
            return (ended - timedelta(seconds=duration_s)).astimezone(self._zone)
        except (OSError, OverflowError, ValueError):  # gone, or a date beyond the year 9999
            return None


def _zone(name: str) -> tzinfo:
    try:
        zone = datetime.fromisoformat(f"2000-01-01T00:00{name}").tzinfo
        if zone is not None:
            return zone
    except ValueError:
        pass
    try:
        return UTC if name.upper() == "UTC" else ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise UsageError(
            f"--zone {name}: it takes an IANA name as Europe/Berlin, UTC, or an offset as +01:00"
        ) from None
