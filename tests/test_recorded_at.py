"""When a recording began, from its name or its date."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from streamtwl.errors import UsageError
from streamtwl.recorded_at import WallClock


@pytest.fixture
def in_new_york(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def began(name: str, zone: str | None = None) -> str | None:
    start = WallClock("name", zone).start(Path("folder_20200101_000000") / name, 3.0)
    return start and start.isoformat()


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("20260514_203000.WAV", "2026-05-14T20:30:00+00:00"),  # AudioMoth
        ("20260514_203000T.WAV", "2026-05-14T20:30:00+00:00"),
        ("24F319055FDF2F5B_20260514_203000.WAV", "2026-05-14T20:30:00+00:00"),
        ("5B1C3F40.WAV", "2018-06-09T20:57:36+00:00"),
        ("5b1c3f40.wav", "2018-06-09T20:57:36+00:00"),
        ("SITE_20260514_203000.wav", "2026-05-14T20:30:00-04:00"),  # Song Meter
        ("SMM01234_20261214_203000.wav", "2026-12-14T20:30:00-05:00"),
        ("SITE-2_0+1_20260514$203000_001.wav", "2026-05-14T20:30:00-04:00"),
        ("260514-203000.WAV", "2026-05-14T20:30:00-04:00"),  # Zoom
        ("260514_203000_Tr1.WAV", "2026-05-14T20:30:00-04:00"),
        ("2026-05-14T20-30-00.wav", "2026-05-14T20:30:00-04:00"),  # ISO 8601
        ("2026-05-14T203000Z.flac", "2026-05-14T20:30:00+00:00"),
        ("20260514T203000Z.flac", "2026-05-14T20:30:00+00:00"),
        ("2026-05-14T20:30:00+02:00.wav", "2026-05-14T20:30:00+02:00"),
        ("20260514T203000+0530.wav", "2026-05-14T20:30:00+05:30"),
        ("2026-05-14T20:30:00-05:00.wav", "2026-05-14T20:30:00-05:00"),
        ("20260514_203000+02.wav", "2026-05-14T20:30:00+02:00"),
        ("20260514_203000_UTC.wav", "2026-05-14T20:30:00+00:00"),
        ("2026-05-14 20.30.00.wav", "2026-05-14T20:30:00-04:00"),
        ("Recording 2026-05-14 at 20.30.00.m4a", "2026-05-14T20:30:00-04:00"),
        ("2026_05_14_20_30_00", "2026-05-14T20:30:00-04:00"),
        ("20260514203000.mp3", "2026-05-14T20:30:00-04:00"),
        ("20260514_203000.250.wav", "2026-05-14T20:30:00.250000-04:00"),
        ("2026-05-14T20:30:00,5Z.wav", "2026-05-14T20:30:00.500000+00:00"),
        ("20260514_203000123.mp4", "2026-05-14T20:30:00.123000-04:00"),
        ("20260514_203000.3gp", "2026-05-14T20:30:00-04:00"),
        ("20260514_203000-0001.wav", "2026-05-14T20:30:00-04:00"),  # a counter
        ("20261314_203000_20260514_203000.wav", "2026-05-14T20:30:00-04:00"),
        ("ZOOM0001.WAV", None),
        ("260514_0001.wav", None),  # a date only
        ("20260514.wav", None),
        ("DEADBEEF.wav", None),
        ("20260514_253000.wav", None),
        ("caf\udce9 20260514_203000.wav", "2026-05-14T20:30:00-04:00"),
    ],
)
def test_names_say_when(name, time, in_new_york):
    assert began(name) == time


@pytest.mark.parametrize(
    ("name", "zone", "time"),
    [
        ("SITE_20260514_203000.wav", "Europe/Berlin", "2026-05-14T20:30:00+02:00"),
        ("SITE_20261214_203000.wav", "Europe/Berlin", "2026-12-14T20:30:00+01:00"),
        ("SITE_20260514_203000.wav", "utc", "2026-05-14T20:30:00+00:00"),
        ("SITE_20260514_203000.wav", "+01:00", "2026-05-14T20:30:00+01:00"),
        ("20260514_203000.WAV", "Europe/Berlin", "2026-05-14T20:30:00+02:00"),
        ("5B1C3F40.WAV", "Europe/Berlin", "2018-06-09T22:57:36+02:00"),
        ("20260514T203000Z.wav", "Europe/Berlin", "2026-05-14T20:30:00+00:00"),
    ],
)
def test_a_zone_is_for_names_without_one(name, zone, time, in_new_york):
    assert began(name, zone) == time


def test_a_files_date_is_the_end_of_its_recording(tmp_path):
    file = tmp_path / "20200101_000000.wav"
    file.touch()
    ended = datetime(2026, 5, 14, 20, 30, tzinfo=UTC).timestamp()
    os.utime(file, (ended, ended))
    start = WallClock("mtime", "Europe/Berlin").start(file, 90.5)
    assert start is not None
    assert start.isoformat() == "2026-05-14T22:28:29.500000+02:00"


def test_what_has_no_date_is_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert WallClock("mtime").start(tmp_path / "pipe", 1.0) is None
    assert WallClock("mtime").start(tmp_path / "gone.wav", 1.0) is None


@pytest.mark.parametrize("zone", ["Nowhere", "", "../x", "Europe", "25", "+99:00", "a\0b"])
def test_a_wrong_zone_is_refused(zone):
    with pytest.raises(UsageError, match="--zone"):
        WallClock("name", zone)


def test_a_time_that_spring_leaves_out_is_winter_time(in_new_york):
    name = "SITE_20260308_023000.wav"
    here, named = began(name), began(name, "America/New_York")
    assert datetime.fromisoformat(here) == datetime.fromisoformat(named)
    assert datetime.fromisoformat(here) == datetime(2026, 3, 8, 7, 30, tzinfo=UTC)
