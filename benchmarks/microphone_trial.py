"""Three scenes of the live trial in real time, through a virtual microphone.

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/python benchmarks/microphone_trial.py --trial TRIAL

Each scene is played into the microphone that tools/virtual_mic.sh makes while `streamtwl listen`
runs it through the HMM filter of the scene's fold. It is played at 48 kHz, the microphone's rate:
what PulseAudio resamples loses its highs. Where in the stream the scene began is found from the
levels of the windows alone.

Which score a scene gets depends on how the windows happen to fall on its sounds. So the same is
done with files that begin with silence of other lengths: as much as the microphone recorded, which
should give its score, and 24 lengths that are spread over a hop, whose scores' spread is the noise.
Takes 8 minutes.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import soundfile
import soxr
import timeline
import trial
from quick import QUICK, add_option
from timeline import Scene
from trial_judging import LATENCY_MS, read_truth
from trial_methods import DATA, scene_name, slug
from trial_sounds import Sounds

from streamtwl.errors import StreamtwlError
from streamtwl.messages import AnyMessage, Event, Label, Patch, Status
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import fitting

VIRTUAL_MIC = Path(__file__).parents[1] / "tools" / "virtual_mic.sh"
SETTLING_S = 3.0  # recorded before the scene, and after it
STEP = SAMPLE_RATE // 100  # to which its beginning is found at first
SCENES = 1 if QUICK else 3
PHASES = 2 if QUICK else 24
HOP = round(0.48 * SAMPLE_RATE)
MIC = "mic"
MIC_RATE = 48_000


def main() -> None:
    """Play, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--trial", type=Path, required=True, help="what live_trial.py wrote")
    add("--data", type=Path, default=DATA, help="the data (../shared/data)")
    add("--fold", type=int, default=4, help="whose scenes (4)")
    add("--snr", type=float, default=10, help="dB (10)")
    add("--reasoner", help="reasoner to use (the trial's HMM filter of the fold)")
    add_option(parser)
    options = parser.parse_args()
    filter_of_fold = options.trial / f"fold{options.fold}" / f"{slug(fitting.FILTER)}.onnx"
    reasoner = options.reasoner or str(filter_of_fold)
    folder = options.trial / "microphone"
    os.environ.update(start_microphone(folder))
    try:
        scenes = [
            measure(
                options.trial / "scenes" / scene_name(options.fold, number, options.snr),
                Sounds(options.data, "esc10").labels,
                reasoner,
                folder,
            )
            for number in range(SCENES)
        ]
    finally:
        subprocess.run([VIRTUAL_MIC, "stop"], check=True)
    (options.trial / "microphone.json").write_text(json.dumps(scenes, indent=2) + "\n")
    print(table(scenes))
    print(f"\nLoad of the machine in the last 15 minutes: {os.getloadavg()[2]:.1f}")


def table(scenes: Sequence[dict]) -> str:
    """Return the figures, a row a scene, as Markdown."""
    rows = [
        "| scene | in-force F1, microphone | file, windows falling alike | file, 24 phases: mean "
        "(sd) | same label | false starts, both | latency | dropped samples, windows |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in scenes:
        mean, sd = np.mean(each["phases"]), np.std(each["phases"], ddof=1)
        rows.append(
            f"| {each['scene']} | {each['microphone']:.3f} | {each['file']:.3f} | "
            f"{mean:.3f} ({sd:.3f}) | {100 * each['same_label']:.1f} % | "
            f"{each['starts'][0]}, {each['starts'][1]} | {each['latency_ms']:.1f} ms | "
            f"{each['dropped'][0]}, {each['dropped'][1]} |"
        )
    return "\n".join(rows)


def start_microphone(folder: Path) -> dict[str, str]:
    """Start the virtual microphone; return the variables that lead to it."""
    said = subprocess.run(
        [VIRTUAL_MIC, "start", folder.absolute()], check=True, capture_output=True, text=True
    ).stdout
    assignments = said.replace("export ", "").split()
    return dict(each.split("=", 1) for each in assignments)


def measure(stem: Path, labels: list[str], reasoner: str, folder: Path) -> dict:
    """Return the figures of one scene, through the microphone and as a file."""
    truth, duration_s = read_truth(stem)
    sound = soundfile.read(stem.with_suffix(".flac"), dtype="float32")[0]

    def received(messages: Sequence[AnyMessage], source: str, began: int) -> Scene:
        own = shifted(trial.of_source(messages, source), began, duration_s)
        return timeline.read_messages(stem.name, duration_s, truth, labels, own)

    messages = listen(sound, reasoner, folder)
    trial.refuse_gaps(messages)
    began = beginning([m for m in messages if isinstance(m, Patch)], sound)
    live = received(messages, MIC, began)

    first = round(SETTLING_S * SAMPLE_RATE)
    leads = {MIC: began}
    leads |= {f"phase{n:02}": first + n * HOP // PHASES for n in range(PHASES)}
    of_files = play_delayed(sound, leads, reasoner, folder)
    filed = {name: received(of_files, name, lead) for name, lead in leads.items()}
    same_phase = filed.pop(MIC)
    last = [m for m in messages if isinstance(m, Status)][-1]
    return {
        "scene": stem.name,
        "microphone": in_force(live),
        "file": in_force(same_phase),
        "phases": [in_force(each) for each in filed.values()],
        "same_label": same_label(live, same_phase),
        "starts": [timeline.false_starts(live), timeline.false_starts(same_phase)],
        "latency_ms": float(np.median([m.latency_ms for m in messages if isinstance(m, Label)])),
        "dropped": [last.dropped_samples, last.dropped_windows],
        "began_s": began / SAMPLE_RATE,
    }


def listen(sound: np.ndarray, reasoner: str, folder: Path) -> list[AnyMessage]:
    """Return the messages published while float32[n] at 16 kHz is played into the microphone."""
    played = folder / "played.wav"
    soundfile.write(played, soxr.resample(sound, SAMPLE_RATE, MIC_RATE, "VHQ"), MIC_RATE)
    players: list[subprocess.Popen] = []

    def begin(message: AnyMessage) -> None:
        if not players and message.position >= SETTLING_S * SAMPLE_RATE:
            players.append(subprocess.Popen(["paplay", played]))

    seconds = len(sound) / SAMPLE_RATE + 2 * SETTLING_S + 1
    options = ["--device", "default", "--name", MIC, "--duration", str(seconds)]
    messages = trial.record([*options, "--reasoner", reasoner], 1, lambda *_: None, begin)
    for player in players:
        player.wait()
    return messages


def play_delayed(
    sound: np.ndarray, leads: dict[str, int], reasoner: str, folder: Path
) -> list[AnyMessage]:
    """Return what is published for files in which a sound begins after `leads` samples."""
    files = [folder / f"{name}.flac" for name in leads]
    for file, lead in zip(files, leads.values(), strict=True):
        silence = np.zeros(lead, np.float32)
        soundfile.write(file, np.concatenate((silence, sound, silence)), SAMPLE_RATE)
    sources = [argument for file in files for argument in ("--file", str(file))]
    messages = trial.record(
        [*sources, "--fast", "--reasoner", reasoner], len(files), lambda *_: None
    )
    return trial.at_latency(messages, LATENCY_MS)


def beginning(patches: Sequence[Patch], sound: np.ndarray) -> int:
    """Return the position at which a sound of float32[n] began, from the levels that were sent."""
    hop = patches[1].position - patches[0].position
    energy = np.append(0.0, np.cumsum(np.square(sound, dtype=np.float64)))
    ends = np.array([patch.position for patch in patches[1:]])
    levels = np.array([patch.level_dbfs for patch in patches[1:]])

    def error(began: int) -> float:
        inside = (ends - hop >= began) & (ends <= began + len(sound))
        at = ends[inside] - began
        power = (energy[at] - energy[at - hop]) / hop
        return float(np.median(np.abs(10 * np.log10(power + 1e-12) - levels[inside])))

    first = round(SETTLING_S * SAMPLE_RATE)
    near = min(range(first, first + 5 * SAMPLE_RATE, STEP), key=error)
    return min(range(near - STEP, near + STEP + 1), key=error)


def shifted(
    messages: Sequence[Label | Event], began: int, duration_s: float
) -> list[Label | Event]:
    """Return the messages on a scene that began at a position, in the scene's own positions."""
    kept: list[Label | Event] = []
    for message in messages:
        position = message.position - began
        if not 0 < position <= duration_s * SAMPLE_RATE:
            continue
        changes = {"position": position}
        if isinstance(message, Event):
            changes["start"] = max(0, message.start - began)
            if message.end is not None:
                changes["end"] = max(0, message.end - began)
        kept.append(msgspec.structs.replace(message, **changes))
    return kept


def in_force(scene: Scene) -> float:
    """Return the F1 of what is in force."""
    return float(timeline.f1(timeline.agreement(scene)))


def same_label(a: Scene, b: Scene) -> float:
    """Return the share of 0.1 s steps at which the label in force is the same."""
    steps = np.arange(1.0, a.duration_s, 0.1)
    named = [
        [scene.named[i] for i in np.searchsorted(scene.times_s, steps, "right") - 1]
        for scene in (a, b)
    ]
    return float(np.mean([one == other for one, other in zip(*named, strict=True)]))


if __name__ == "__main__":
    try:
        main()
    except StreamtwlError as error:
        sys.exit(f"microphone_trial.py: {error}")
