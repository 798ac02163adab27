"""The sounds that the user taught, in the user's data folder.

    sounds/sounds.json                 the index: names, when, which recordings
    sounds/sounds.backup.json          the same once more
    sounds/recordings/SHA.flac         16 kHz mono, named by the start of their SHA-256
    sounds/background/KEY.npz          embeddings of the user's own background: no sound

A change writes recordings first and then replaces the index, so a reader sees all of it or nothing.
One process at a time changes them, the others wait for it.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import filelock
import msgspec
import numpy as np
from msgspec import Meta

from streamtwl import folders
from streamtwl.errors import UNDECODABLE, AudioError, SoundsError, UsageError
from streamtwl.label_filter import no_such
from streamtwl.sounds import arrays, embedding, recording
from streamtwl.stages import SAMPLE_RATE

VERSION = 1  # of the index
BACKUP = "sounds.backup.json"
PARTIAL = ".partial-"  # begins the name of a file that is being written
LOCK_S = 60.0
MAX_SOUNDS = 200
MAX_RECORDINGS = 200  # of one sound
MAX_NAME = 60
MAX_BACKGROUND = 8000  # windows: an hour at the usual hop
INDEX_BYTES = 8_000_000
USUAL_RATE = 1.0  # false alarms a day

FileName = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\.flac\Z")]


class Example(msgspec.Struct, frozen=True):
    """One recording of a sound."""

    file: FileName
    seconds: Annotated[float, Meta(ge=0, le=600)]
    origin: Annotated[str, Meta(max_length=300)] = ""  # the name of the file that it was, or how


class Sound(msgspec.Struct):
    """A sound that was taught."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    taught_at: str  # ISO 8601, of the newest recording
    examples: Annotated[list[Example], Meta(min_length=1, max_length=MAX_RECORDINGS)]
    false_alarms_a_day: Annotated[float, Meta(gt=0, le=100_000)] = USUAL_RATE


class _Version(msgspec.Struct):
    """What an index of any version says."""

    version: int = 1


class Index(_Version):
    """All of them."""

    sounds: Annotated[list[Sound], Meta(max_length=MAX_SOUNDS)] = []


class Store:
    """Reads and changes a folder of taught sounds; raises SoundsError where that fails."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folders.data() / "sounds" if folder is None else folder

    def sounds(self) -> list[Sound]:
        """Return the sounds that are taught, in the order of their teaching."""
        return self._index().sounds

    def find(self, name: str) -> Sound:
        """Return a sound by its name, in any case; raises SoundsError where there is none."""
        sounds = self.sounds()
        for sound in sounds:
            if sound.name.casefold() == name.casefold():
                return sound
        there = [sound.name for sound in sounds]
        problem = no_such(name, there) if there else f"no sound '{name}': none is taught yet"
        raise SoundsError(problem)

    def samples(self, example: Example) -> np.ndarray:
        """Return float32[n] at 16 kHz."""
        flac = self.flac(example)
        try:
            return recording.decode(flac, "it")
        except AudioError as error:
            raise self._unreadable(example, str(error)) from None

    def flac(self, example: Example) -> bytes:
        """Return the FLAC file of a recording."""
        try:
            return (self._recordings / example.file).read_bytes()
        except OSError as error:
            raise self._unreadable(example, str(error.strerror)) from None

    def _unreadable(self, example: Example, why: str) -> SoundsError:
        names = [sound.name for sound in self.sounds() if example in sound.examples]
        return SoundsError(
            f"{self._recordings / example.file}, a recording of {', '.join(names) or 'no sound'}, "
            f"cannot be read ({why}): put it back, or `streamtwl sounds remove` that sound and "
            "teach it again"
        )

    def add(
        self,
        name: str,
        recordings: list[tuple[str, np.ndarray]],
        false_alarms_a_day: float | None = None,
    ) -> Sound:
        """Add recordings, (origin, float32[n]), to a sound, which is new or not; return it."""
        check_name(name)
        with self._changing() as index:
            sound = next((s for s in index.sounds if s.name.casefold() == name.casefold()), None)
            if sound is None:
                if len(index.sounds) >= MAX_SOUNDS:
                    raise SoundsError(f"{MAX_SOUNDS} sounds are taught, that is all it takes")
                sound = Sound(name, "", [])
                index.sounds.append(sound)
            known = {example.file for example in sound.examples}
            for origin, samples in recordings:
                example = self._keep(origin, samples)
                if example.file not in known:
                    sound.examples.append(example)
                    known.add(example.file)
            if len(sound.examples) > MAX_RECORDINGS:
                raise SoundsError(
                    f"{name}: {len(sound.examples)} recordings, and it takes {MAX_RECORDINGS}: for "
                    "so many there is `streamtwl train`"
                )
            if not sound.examples:
                raise SoundsError(f"{name}: it takes a recording to teach it")
            sound.taught_at = datetime.now(UTC).isoformat(timespec="seconds")
            if false_alarms_a_day is not None:
                sound.false_alarms_a_day = false_alarms_a_day
        return sound

    def remove(self, name: str) -> Sound:
        """Remove a sound and its recordings; return what it was."""
        removed = self.find(name)
        with self._changing() as index:
            index.sounds[:] = [s for s in index.sounds if s.name != removed.name]
        return removed

    def remove_recording(self, name: str, file: str) -> None:
        """Remove one recording of a sound, and the sound with its last one."""
        sound = self.find(name)
        with self._changing() as index:
            for each in index.sounds:
                if each.name == sound.name:
                    each.examples[:] = [one for one in each.examples if one.file != file]
            index.sounds[:] = [each for each in index.sounds if each.examples]

    def rename(self, name: str, new: str) -> None:
        """Give a sound another name."""
        check_name(new)
        old = self.find(name).name
        with self._changing() as index:
            for sound in index.sounds:
                if sound.name.casefold() == new.casefold() != old.casefold():
                    raise SoundsError(f"'{sound.name}' is taught already: remove it first")
            for sound in index.sounds:
                sound.name = new if sound.name == old else sound.name

    # --- the user's own background ---

    def background(self, key: str) -> dict[str, np.ndarray]:
        """Return float32[n, D] by window, embeddings of the user's background; none: no rows.

        `key` names the windows and the weights that made them.
        """
        file = self._background(key)
        try:
            return arrays.load(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SoundsError(
                f"{file} cannot be read ({error}): `streamtwl sounds remove --background`, and "
                "record it anew"
            ) from None

    def add_background(self, key: str, embeddings: Mapping[str, np.ndarray]) -> int:
        """Add such embeddings; the newest MAX_BACKGROUND are kept. Return how many there are."""
        with self._changing():
            before = self.background(key)
            joined = {
                name: np.concatenate((before[name], rows) if name in before else (rows,))
                for name, rows in embeddings.items()
            }
            kept: dict[str, Any] = {
                name: rows[-MAX_BACKGROUND:].astype(np.float16) for name, rows in joined.items()
            }
            with self._writing(self._background(key)) as file:
                np.savez(file, **kept)
        return min(map(len, kept.values()))

    def remove_background(self) -> bool:
        """Forget the background; return whether there was any."""
        files = [*(self.folder / "background").glob("*.npz")]
        if files:
            with self._changing():
                for file in files:
                    file.unlink(missing_ok=True)
        return bool(files)

    def _background(self, key: str) -> Path:
        return self.folder / "background" / f"{key}.npz"

    # --- files ---

    @property
    def _recordings(self) -> Path:
        return self.folder / "recordings"

    def _index(self) -> Index:
        file = self.folder / "sounds.json"
        backup = f"put {BACKUP} in its place, or " if (self.folder / BACKUP).exists() else ""
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            if backup or any(self._recordings.glob("*.flac")):
                raise SoundsError(
                    f"{file} is not there, but recordings are: {backup}move the folder "
                    f"{self.folder} away and teach your sounds again"
                ) from None
            return Index()
        except OSError as error:
            raise SoundsError(f"{file} cannot be read: {error.strerror}") from None
        try:
            return read_index(text[:INDEX_BYTES], str(file))
        except ValueError as error:
            raise SoundsError(f"{file} is damaged ({error}): {backup}mend it") from None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Index]:
        """Give the index, alone, and write it where nothing was raised.

        Recordings of no sound, of this change or of one that was killed, are deleted.
        """
        try:
            self._recordings.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            with self._lock():
                index = self._index()
                try:
                    yield index
                    written = msgspec.json.format(msgspec.json.encode(index), indent=1)
                    with self._writing(self.folder / "sounds.json") as file:
                        file.write(written)
                    with contextlib.suppress(OSError), self._writing(self.folder / BACKUP) as file:
                        file.write(written)
                finally:
                    self._sweep()
        except OSError as error:
            raise SoundsError(
                f"cannot write to {self.folder} ({error.strerror or error}): make room, or choose "
                "another folder with STREAMTWL_DATA=FOLDER"
            ) from None

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        lock = filelock.FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=LOCK_S)
        except filelock.Timeout:
            raise SoundsError(f"another streamtwl is changing {self.folder}: try again") from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _writing(self, place: Path) -> Iterator:
        """Give a file that is whole in its place at the end, or not there."""
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=PARTIAL, delete=False) as file:
            scratch = Path(file.name)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                scratch.replace(place)
            finally:
                scratch.unlink(missing_ok=True)

    def _keep(self, origin: str, samples: np.ndarray) -> Example:
        flac = recording.encode(samples)
        pcm = recording.decode(flac, origin)  # what is kept, so that its name is the same again
        name = f"{sha256(pcm.tobytes()).hexdigest()[:16]}.flac"
        with self._writing(self._recordings / name) as file:
            file.write(flac)
        return Example(name, round(len(samples) / SAMPLE_RATE, 2), origin[:300])

    def _sweep(self) -> None:
        """Delete recordings of no sound, and what was never finished; under the lock."""
        # of a first change that failed there is no index
        sounds = self._index().sounds if (self.folder / "sounds.json").exists() else []
        named = {example.file for sound in sounds for example in sound.examples}
        of_none = [file for file in self._recordings.glob("*.flac") if file.name not in named]
        for file in (*of_none, *self.folder.rglob(f"{PARTIAL}*")):
            file.unlink(missing_ok=True)
        for file in of_none:
            embedding.forget(file.stem)


def read_index(text: bytes, called: str) -> Index:
    """Return an index; raises SoundsError for one of another version, ValueError for none."""
    try:
        version = msgspec.json.decode(text, type=_Version).version
        if version != VERSION:
            raise SoundsError(f"{called} is of another version of streamtwl ({version})")
        return msgspec.json.decode(text, type=Index)
    except UNDECODABLE as error:
        raise ValueError(str(error)) from None


def check_name(name: str) -> None:
    """Raise UsageError for what cannot be the name of a sound."""
    if not 1 <= len(name) <= MAX_NAME or name != name.strip():
        raise UsageError(
            f"{name!r}: a sound's name has 1 to {MAX_NAME} letters, and no space at its ends"
        )
    if not name.isprintable():
        hidden = next(letter for letter in name if not letter.isprintable())
        raise UsageError(f"{name!r}: {hidden!r} in it cannot be shown: leave it out")
    if re.search(r"[*?\[\]]", name):
        raise UsageError(f"{name!r}: *, ? and brackets are for patterns of names: leave them out")
