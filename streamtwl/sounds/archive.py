"""Taught sounds as one file, to take them to another machine: a ZIP of an index and FLAC files.

What comes in is not trusted: only members of the names that `export` gives are read, each bounded,
and every recording is decoded and encoded anew.
"""

import contextlib
import zipfile
import zlib
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from streamtwl.errors import AudioError, SoundsError
from streamtwl.sounds import recording
from streamtwl.sounds.store import INDEX_BYTES, Example, Index, Sound, Store, check_name, read_index
from streamtwl.stages import SAMPLE_RATE

INDEX = "sounds.json"
MAX_MEMBERS = 2000
MAX_S = 7200.0  # of sound
MAX_FLAC_BYTES = 2_000_000  # 30 s of 16 kHz in 16 bit are half of it
MAX_BYTES = 500_000_000  # in all, unpacked
COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of those who packed it anew
_DAMAGED = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error)


def export(store: Store, names: list[str], file: Path) -> list[Sound]:
    """Write sounds (all, where none is named) to a new archive; return them."""
    sounds = [store.find(name) for name in names] if names else store.sounds()
    if not sounds:
        raise SoundsError("no sound is taught yet: there is nothing to export")
    try:
        with zipfile.ZipFile(file, "x", zipfile.ZIP_STORED) as archive:
            archive.writestr(INDEX, msgspec.json.encode(Index(sounds=sounds)))
            written: set[str] = set()
            for example in (example for sound in sounds for example in sound.examples):
                if example.file not in written:
                    archive.writestr(example.file, store.flac(example))
                    written.add(example.file)
    except FileExistsError:
        raise SoundsError(f"{file} exists: choose another name") from None
    except OSError as error:
        _remove(file)
        raise SoundsError(f"{file} cannot be written: {error.strerror or error}") from None
    except (SoundsError, KeyboardInterrupt):
        _remove(file)
        raise
    return sounds


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink(missing_ok=True)


def load(store: Store, file: Path) -> list[Sound]:
    """Add the sounds of an archive to the store; return them as they are in it.

    A sound whose name is taught gets the recordings too. Raises SoundsError, and adds nothing,
    where anything in the archive is not as `export` writes it.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            sounds, samples = _read(archive, file)
    except FileNotFoundError:
        raise SoundsError(f"no such file: {file}") from None
    except OSError as error:
        raise SoundsError(f"{file} cannot be read: {error.strerror or error}") from None
    except _DAMAGED as error:
        raise SoundsError(f"{file} is no archive of `streamtwl sounds export` ({error})") from None
    return [
        store.add(
            sound.name,
            [(example.origin, samples[example.file]) for example in sound.examples],
            sound.false_alarms_a_day,
        )
        for sound in sounds
    ]


def _read(archive: zipfile.ZipFile, file: Path) -> tuple[list[Sound], dict[str, np.ndarray]]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS or sum(each.file_size for each in members) > MAX_BYTES:
        raise SoundsError(f"{file}: {len(members)} members, or more than {MAX_BYTES / 1e6:g} MB")
    if any(each.compress_type not in COMPRESSION for each in members):
        raise SoundsError(f"{file}: it is compressed as `streamtwl sounds export` never does")
    if [each.filename for each in members].count(INDEX) != 1:
        raise SoundsError(f"{file}: it has no {INDEX}: `streamtwl sounds export` makes such files")
    try:
        index = read_index(_bounded(archive, INDEX, INDEX_BYTES), str(file))
    except ValueError as error:
        raise SoundsError(f"{file}: its {INDEX} is refused ({error})") from None
    if not index.sounds:
        raise SoundsError(f"{file}: no sound is in it")
    for sound in index.sounds:
        check_name(sound.name)
    wanted = [example for sound in index.sounds for example in sound.examples]
    strange = {each.filename for each in members} - {INDEX, *(each.file for each in wanted)}
    if strange:
        raise SoundsError(f"{file}: {sorted(strange)[0]!r} is no recording of its index")
    samples: dict[str, np.ndarray] = {}
    for example in wanted:
        if example.file not in samples:
            samples[example.file] = _samples(archive, example, file)
            if sum(map(len, samples.values())) > MAX_S * SAMPLE_RATE:
                raise SoundsError(f"{file}: it has more than {MAX_S / 3600:g} hours of sound")
    return index.sounds, samples


def _samples(archive: zipfile.ZipFile, example: Example, file: Path) -> np.ndarray:
    called = f"{file}: {example.file}"
    try:
        samples = recording.decode(_bounded(archive, example.file, MAX_FLAC_BYTES), called)
    except KeyError:
        raise SoundsError(f"{called} is not there") from None
    except AudioError as error:
        raise SoundsError(str(error)) from None
    return samples


def _bounded(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Return a member; raises SoundsError for one that is longer, whatever its header says."""
    member: IO[bytes]
    with archive.open(name) as member:
        found = member.read(most + 1)
    if len(found) > most:
        raise SoundsError(f"{archive.filename}: {name} has more than {most / 1e6:g} MB")
    return found
