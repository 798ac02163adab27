"""`streamtwl teach`: a sound of your own, from a few recordings, in seconds."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from streamtwl.commands.options import Level, LogLevel, Offline, start_logging
from streamtwl.errors import AudioError, ControlError, SoundsError, UsageError
from streamtwl.file_names import one_line, readable

if TYPE_CHECKING:
    import numpy as np

    from streamtwl.sounds.store import Sound, Store
    from streamtwl.sounds.teaching import Teacher

UNTIL_ENTER = "0"
AN_HOUR = 24.0  # false alarms a day

Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="What the sound is called.", show_default=False),
]
Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FILE]...",
        help="Recordings of it, of any format: one is enough to begin with, five are better. Each "
        "has little else in it; what is silent before and after is cut off.",
        show_default=False,
    ),
]
Record = Annotated[
    int | None,
    typer.Option(
        help="Record it so many times from the microphone: it counts down, then make the sound. "
        "Without a number once, until Enter or Ctrl-C; silence is cut off.",
        min=0,
        max=50,
        metavar="[N]",
        show_default=False,
    ),
]
Seconds = Annotated[float, typer.Option(help="Of --record: how long each time.", min=0.5, max=30.0)]
LastSeconds = Annotated[
    float | None,
    typer.Option(
        "--last",
        help="What a running `streamtwl listen` received in the last so many seconds, at most 30.",
        metavar="SECONDS",
        show_default=False,
    ),
]
Source = Annotated[
    str, typer.Option(help="Of --last: the source. (default: its first)", show_default=False)
]
FromEvent = Annotated[
    list[str] | None,
    typer.Option(
        help="The clip of an event (`listen --clips`), by its id: `history --ids` shows them. "
        "Repeat it for several.",
        metavar="EVENT",
        show_default=False,
    ),
]
Background = Annotated[
    bool,
    typer.Option(
        "--background",
        help="Teach no sound, but how it is where you listen: FILES, or --minutes of the "
        "microphone, with none of your sounds in it. Only embeddings are kept.",
    ),
]
Minutes = Annotated[
    float, typer.Option(help="Of --background from the microphone.", min=0.2, max=600.0)
]
Device = Annotated[
    str, typer.Option(help="The microphone: its index or part of its name. (default: the system's)")
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--false-alarms",
        help="How many false alarms a day may be expected of this sound: more finds more of it. "
        "(default: 1, or what it is)",
        min=0.01,
        max=10_000.0,
        metavar="A_DAY",
        show_default=False,
    ),
]


class Command(TyperCommand):
    """Takes --record without a number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the number that is not there, UNTIL_ENTER."""
        whole: list[str] = []
        for arg, following in zip(args, [*args[1:], ""], strict=True):
            whole.append(arg)
            if arg == "--record" and not following.isdecimal():
                whole.append(UNTIL_ENTER)
        return super().parse_args(ctx, whole)


def teach(
    name: Name = None,
    files: Files = None,
    record: Record = None,
    seconds: Seconds = 4.0,
    last: LastSeconds = None,
    source: Source = "",
    from_event: FromEvent = None,
    background: Background = False,
    minutes: Minutes = 10.0,
    device: Device = "",
    false_alarms: Rate = None,
    offline: Offline = False,
    log_level: LogLevel = Level.warning,
) -> None:
    """Teach a sound of your own, from one recording or more; seconds, and no training extra.

    From then on it is a label beside all others in `listen`, `label` and `history`; a `listen` that
    runs takes it in. The same name again adds recordings; with --false-alarms alone its threshold
    changes. The recordings are kept in your data folder: `streamtwl sounds` lists, exports and
    removes them.

        streamtwl teach "kettle" kettle1.wav kettle2.flac
        streamtwl teach "kettle" --record 3
        streamtwl teach "kettle" --last 5
        streamtwl teach --background --minutes 10
    """
    start_logging(log_level.value)
    if background:
        if any((record is not None, last, from_event, false_alarms)):
            raise UsageError("--background takes files, or the microphone: leave the others out")
        _background([*([Path(name)] if name else []), *(files or [])], minutes, device)
        return
    if name is None:
        raise UsageError('name the sound: `streamtwl teach "kettle" kettle.wav`, see --help')
    if Path(name).suffix and Path(name).is_file():
        raise UsageError(f'{name} is a file: name the sound first, as `teach "kettle" {name}`')
    if not (files or record is not None or last or from_event or false_alarms):
        raise UsageError(f"{name}: name recordings, or add --record 3, or --last 5 of a `listen`")
    _sound(name, files or [], record, seconds, last, source, from_event or [], device, false_alarms)


def _sound(
    name: str,
    files: Sequence[Path],
    record: int | None,
    seconds: float,
    last: float | None,
    source: str,
    from_event: Sequence[str],
    device: str,
    false_alarms: float | None,
) -> None:
    from streamtwl.sounds.store import Store, check_name

    check_name(name)
    store = Store()
    if not (files or record is not None or last or from_event):
        store.find(name)  # a rate alone is for one that is there
    recordings = [(readable(file.name), cut(file)) for file in found(files)]
    recordings += [(f"event {event}", _of_event(event)) for event in from_event]
    if last:
        recordings.append(_last(last, source))
    teacher = teacher_of_default()  # before anyone makes the sound: it may fail
    if record is not None:
        from streamtwl.sounds import takes

        if record:
            recordings += takes.record(record, seconds, device, _say)
        else:
            recordings += takes.until_enter(device, _say)
    began = time.monotonic()
    store.add(name, recordings, false_alarms)
    report(store, teacher, name)
    reload_listeners()
    _say(f"learnt in {time.monotonic() - began:.1f} s")


def found(files: Sequence[Path]) -> list[Path]:
    """Return the recordings among files and folders; raises AudioError where there are none."""
    from streamtwl import recordings

    there, _ = recordings.find(files)
    if files and not there:
        raise AudioError(f"no recordings in {', '.join(map(str, files))}: name other folders")
    return [each.path for each in there]


def cut(file: Path) -> "np.ndarray":
    """Return what sounds in a recording, float32[n] at 16 kHz; raises AudioError."""
    from streamtwl.sounds import recording
    from streamtwl.stages import SAMPLE_RATE

    received = recording.read(file, recording.LONGEST_S + recording.FRAME / SAMPLE_RATE)
    longest = round(recording.LONGEST_S * SAMPLE_RATE)
    if len(received) > longest:
        _say(f"{file}: learnt from its first {recording.LONGEST_S:g} s")
    samples = recording.trim(received[:longest])
    if len(samples) < recording.SHORTEST_S * SAMPLE_RATE:
        raise AudioError(
            f"{file}: nothing in it sounds for {recording.SHORTEST_S:g} s: take another recording"
        )
    return samples


def teacher_of_default() -> "Teacher":
    """Return what learns sounds by the default pipeline's windows, fetching YAMNet if need be."""
    from streamtwl import available
    from streamtwl.commands.models import pull_backbone
    from streamtwl.config import DEFAULT_PIPELINE
    from streamtwl.pipeline import hearing
    from streamtwl.sounds.teaching import Teacher

    settings = available.settings(DEFAULT_PIPELINE, {}, _without)
    pull_backbone(settings)
    return Teacher(*hearing(settings))


def _without(line: str) -> None:
    _say(
        "without mn04, whose weights are not here, sounds are told apart less well (of 20 alike "
        "ones, taught from five recordings each, 61 % of the clips are named rightly, with it "
        "76 %): `streamtwl models pull mn04`, and nothing has to be taught again"
    )


def report(store: "Store", teacher: "Teacher", name: str) -> None:
    """Score what is new, and say how well the sound is known and how often it may be wrong."""
    from streamtwl.commands.progress import bars
    from streamtwl.sounds import heads

    sound, sounds = store.find(name), store.sounds()
    with bars(["recordings"]) as advance:
        taught = teacher.taught(store, sounds, lambda *done: advance("recordings", *done))
    home = teacher.home(store)
    head = heads.fit(teacher.space, taught, home).heads[sounds.index(sound)]
    rates = sorted({sound.false_alarms_a_day, AN_HOUR})
    again, of = heads.found_again(teacher.space, taught, sound.name, rates, home)
    print(f"{sound.name}: {_count(sound)}; {describe(sound, again, of)}", flush=True)
    if head.left_out:
        _say(f"{head.left_out} windows of general sound are like it, and do not count against it")


def describe(sound: "Sound", again: "Mapping[float, int]", of: int) -> str:
    """Return in words what false alarms are expected, and what of the sound is found.

    `again` is how many `of` its recordings are recognised from the others, by false alarms a day.
    """
    rate = sound.false_alarms_a_day
    words = f"about {rate:g} false alarm{'s' * (rate != 1)} a day expected"
    if not of:
        return f"{words}; with two recordings or more it says how much of the sound is found"
    words += f"; learnt from the others, {again[rate]} of {of} recordings are recognised"
    if rate < AN_HOUR and again[AN_HOUR] > again[rate]:
        words += f", {again[AN_HOUR]} at one false alarm an hour (--false-alarms {AN_HOUR:g})"
    return words


def _count(sound: "Sound") -> str:
    count, total_s = len(sound.examples), sum(example.seconds for example in sound.examples)
    return f"{count} recording{'s' * (count > 1)}, {total_s:.1f} s"


def _of_event(event: str) -> "np.ndarray":
    """Return what sounds in an event's clip, float32[n]; raises UsageError, AudioError."""
    from streamtwl.marks import marking
    from streamtwl.sinks.journal_file import default_path

    return marking.sound(marking.clip(default_path(), event))


def _last(seconds: float, source: str) -> "tuple[str, np.ndarray]":
    from streamtwl.control import client
    from streamtwl.control.messages import MAX_LAST_S
    from streamtwl.sounds import recording
    from streamtwl.stages import SAMPLE_RATE

    if not 0 < seconds <= MAX_LAST_S:
        raise UsageError(f"--last {seconds:g}: it takes up to {MAX_LAST_S:g} seconds")
    answer = client.last(seconds, source)
    samples = recording.trim(recording.decode(answer.flac, f"the sound of '{answer.source}'"))
    if len(samples) < recording.SHORTEST_S * SAMPLE_RATE:
        raise SoundsError(f"'{answer.source}' was silent for the last {seconds:g} s: nothing kept")
    _say(f"kept {len(samples) / SAMPLE_RATE:.1f} s of '{answer.source}'")
    return f"the last {seconds:g} s of {answer.source}", samples


def _background(files: Sequence[Path], minutes: float, device: str) -> None:
    from streamtwl.sounds import recording, takes
    from streamtwl.sounds.store import Store

    store, teacher = Store(), teacher_of_default()
    kept = 0
    if files:
        for file in found(files):
            _, embeddings = teacher.embedder.embed(recording.read(file, longest_s=3600.0))
            kept = store.add_background(teacher.embedder.key, embeddings)
    else:
        for samples in takes.minutes(minutes, device, _say):
            _, embeddings = teacher.embedder.embed(samples)
            kept = store.add_background(teacher.embedder.key, embeddings)
    from streamtwl.sounds.embedding import HOP_S

    print(f"background: {kept * HOP_S / 60:.1f} minutes in all, as embeddings", flush=True)
    reload_listeners()


def reload_listeners() -> None:
    """Have running listeners take in what is taught."""
    from streamtwl.control import client

    try:
        done, problems = client.reload()
    except (ControlError, UsageError) as error:
        done, problems = 0, [str(error)]
    for problem in problems:
        _say(f"a running streamtwl did not take it in: {problem}")
    if done:
        _say(f"{done} running streamtwl listen{'s' * (done == 1)} for it now")


def _say(line: str) -> None:
    print(f"streamtwl: {one_line(line)}", file=sys.stderr, flush=True)
