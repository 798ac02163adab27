"""Recording from the microphone: a countdown, a level meter, and takes cut to what sounds."""

import contextlib
import select
import sys
from collections.abc import Callable, Iterator

import numpy as np

from streamtwl.audio.intake import Intake
from streamtwl.audio.microphone import Microphone
from streamtwl.errors import AudioError
from streamtwl.sounds import recording
from streamtwl.stages import SAMPLE_RATE

Say = Callable[[str], None]

COUNT_S = 3  # before a take
TRIES = 3  # of a take in which nothing sounds
PIECE_S = 60.0  # of background, scored at once
BAR = 40  # characters, of 60 dB
QUIETEST_DBFS = -60.0


def record(count: int, seconds: float, device: str, say: Say) -> list[tuple[str, np.ndarray]]:
    """Return (how, float32[n]) of each take, cut to what sounds in it.

    Raises AudioError without a microphone, or where nothing sounds. After Ctrl-C nothing is kept.
    """
    taken: list[tuple[str, np.ndarray]] = []
    try:
        with _microphone(device) as blocks:
            tries = 0
            while len(taken) < count:
                number = len(taken) + 1
                for left in range(COUNT_S, 0, -1):
                    _collect(blocks, 1.0, f"{number} of {count} in {left} ...")
                samples = recording.trim(_collect(blocks, seconds, f"{number} of {count}: now"))
                if len(samples) >= recording.SHORTEST_S * SAMPLE_RATE:
                    say(f"{number} of {count}: {len(samples) / SAMPLE_RATE:.1f} s")
                    taken.append(("microphone", samples))
                    tries = 0
                elif (tries := tries + 1) == TRIES:
                    raise AudioError(
                        f"nothing sounded {TRIES} times: is the microphone muted? `streamtwl "
                        "devices` lists those that there are, --device chooses one"
                    )
                else:
                    say(f"{number} of {count}: nothing sounded, once more")
    except KeyboardInterrupt:
        say("stopped: nothing was kept")
        raise
    return taken


def until_enter(device: str, say: Say) -> list[tuple[str, np.ndarray]]:
    """Return (how, float32[n]) of one take, which ends with Enter, Ctrl-C or after LONGEST_S.

    It is cut to what sounds in it. Raises AudioError without a microphone, or where nothing does.
    """
    pieces: list[np.ndarray] = []
    length = 0
    try:
        with _microphone(device) as blocks:
            say("recording: Enter ends it")
            for piece in blocks:
                pieces.append(piece)
                length += len(piece)
                _show("recording, Enter ends it", piece)
                if _entered() or length >= recording.LONGEST_S * SAMPLE_RATE:
                    break
    except KeyboardInterrupt:
        if not pieces:
            raise
    _show("")
    samples = np.concatenate(pieces)[: round(recording.LONGEST_S * SAMPLE_RATE)]
    samples = recording.trim(samples)
    if len(samples) < recording.SHORTEST_S * SAMPLE_RATE:
        raise AudioError(
            "nothing sounded: is the microphone muted? `streamtwl devices` lists those that there "
            "are, --device chooses one"
        )
    say(f"{len(samples) / SAMPLE_RATE:.1f} s")
    return [("microphone", samples)]


def _entered() -> bool:
    """Whether a line, or the end, has come on standard input."""
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and sys.stdin.readline() is not None


def minutes(count: float, device: str, say: Say) -> Iterator[np.ndarray]:
    """Yield so many minutes of the microphone, float32[n] a minute; Ctrl-C ends it earlier."""
    left_s = 60 * count
    try:
        with _microphone(device) as blocks:
            while left_s > 0:
                piece_s = min(PIECE_S, left_s)
                samples = _collect(blocks, piece_s, f"background, {left_s / 60:.1f} min left")
                left_s -= piece_s
                yield samples
    except KeyboardInterrupt:
        say(f"stopped with {left_s / 60:.1f} minutes left: whole minutes before that are kept")


@contextlib.contextmanager
def _microphone(device: str) -> Iterator[Iterator[np.ndarray]]:
    """Give a microphone's samples, float32[n] at 16 kHz, as they come."""
    with contextlib.closing(Intake([Microphone("microphone", device)])) as intake:
        intake.start()
        yield _blocks(intake)


def _blocks(intake: Intake) -> Iterator[np.ndarray]:
    [stream] = intake.streams
    for blocks in intake.ticks():
        if stream.error is not None:
            raise stream.error
        for block in blocks:
            yield block.samples
    raise AudioError("the microphone has gone")


def _collect(blocks: Iterator[np.ndarray], seconds: float, what: str) -> np.ndarray:
    """Return the next so many seconds, with a level meter meanwhile."""
    pieces: list[np.ndarray] = []
    length = 0
    while length < seconds * SAMPLE_RATE:
        piece = next(blocks)
        pieces.append(piece)
        length += len(piece)
        _show(what, piece)
    _show("")
    return np.concatenate(pieces)


def _show(what: str, samples: np.ndarray | None = None) -> None:
    """Draw a line on a terminal, with the level of the samples as a bar."""
    if not sys.stderr.isatty():
        return
    bar = ""
    if samples is not None and len(samples):
        dbfs = 10 * np.log10(np.mean(np.square(samples)) + 1e-12)
        filled = int(np.clip(1 - dbfs / QUIETEST_DBFS, 0, 1) * BAR)
        bar = f"|{'#' * filled}{' ' * (BAR - filled)}| {dbfs:4.0f} dBFS"
    print(f"\r\x1b[K{what}  {bar}" if what else "\r\x1b[K", end="", file=sys.stderr, flush=True)
