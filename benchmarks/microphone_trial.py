"""Three scenes of the live trial in real time, through a virtual microphone.

    .venv/bin/python benchmarks/live_trial.py --corpus CORPUS --out TRIAL
    .venv/bin/python benchmarks/microphone_trial.py --trial TRIAL

Each scene is played into the microphone that tools/virtual_mic.sh makes while `streamtwl listen`
hears it with the HMM filter of the scene's fold. Where in the stream the scene began is found from
the levels of the windows alone. The same is then done with a file that begins with as much silence,
so that windows fall alike, which alone moves a scene's score by 0.015: both are to have the same
score. Takes 7 minutes.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import soundfile
from live_trial import DATA, LATENCY_MS, read_truth, right_names, scene_name, slug

from streamtwl.audio.block import SAMPLE_RATE
from streamtwl.evaluation import baselines, timeline, trial
from streamtwl.evaluation.timeline import Scene
from streamtwl.messages import AnyMessage, Event, Label, Patch

VIRTUAL_MIC = Path(__file__).parents[1] / "tools" / "virtual_mic.sh"
SETTLING_S = 3.0  # heard before the scene, and after it
STEP = SAMPLE_RATE // 100  # to which its beginning is found
MIC = "mic"


def main() -> None:
    """Play, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trial", type=Path, required=True, help="what live_trial.py wrote")
    parser.add_argument("--data", type=Path, default=DATA, help="the data (../shared/data)")
    parser.add_argument("--fold", type=int, default=4, help="whose scenes and filter (4)")
    parser.add_argument("--snr", type=float, default=10, help="dB (10)")
    asked = parser.parse_args()
    environment = start_microphone(asked.trial / "microphone")
    os.environ.update(environment)
    try:
        scenes = [measure(asked.trial, asked.data, asked.fold, n, asked.snr) for n in range(3)]
    finally:
        subprocess.run([VIRTUAL_MIC, "stop"], check=True)
    (asked.trial / "microphone.json").write_text(json.dumps(scenes, indent=2) + "\n")
    print("| scene | in-force F1, microphone | file | same label | false starts, both |")
    print("| --- | --- | --- | --- | --- |")
    for each in scenes:
        print(
            f"| {each['scene']} | {each['microphone']:.3f} | {each['file']:.3f} | "
            f"{100 * each['same_label']:.0f} % | {each['starts'][0]}, {each['starts'][1]} |"
        )


def start_microphone(folder: Path) -> dict[str, str]:
    """Start the virtual microphone; return the variables that lead to it."""
    said = subprocess.run(
        [VIRTUAL_MIC, "start", folder.absolute(), str(SAMPLE_RATE)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assignments = said.replace("export ", "").split()
    return dict(each.split("=", 1) for each in assignments)


def measure(out: Path, data: Path, fold: int, number: int, snr_db: float) -> dict:
    """Return the figures of one scene, through the microphone and as a file."""
    name = scene_name(fold, number, snr_db)
    sound = out / "scenes" / f"{name}.flac"
    truth, duration_s = read_truth(sound.with_suffix(""))
    labels = sorted(right_names(data))
    players: list[subprocess.Popen] = []

    def begin(message: AnyMessage) -> None:
        if not players and message.position >= SETTLING_S * SAMPLE_RATE:
            players.append(subprocess.Popen(["paplay", sound]))

    reasoner = out / f"fold{fold}" / f"{slug(baselines.FILTER)}.onnx"
    seconds = duration_s + 2 * SETTLING_S + 1
    options = ["--device", "default", "--name", MIC, "--duration", str(seconds)]
    messages = trial.record([*options, "--reasoner", str(reasoner)], 1, lambda *_: None, begin)
    for player in players:
        player.wait()
    began = beginning([m for m in messages if isinstance(m, Patch)], soundfile.read(sound)[0])
    live = timeline.read_messages(
        name, duration_s, truth, labels, shifted(trial.of_source(messages, MIC), began, duration_s)
    )
    delayed = out / "microphone" / f"{MIC}.flac"
    silence = np.zeros(began, np.int16)
    samples, rate = soundfile.read(sound, dtype="int16")
    soundfile.write(delayed, np.concatenate((silence, samples, silence)), rate)
    fast = ["--file", str(delayed), "--fast", "--reasoner", str(reasoner)]
    of_file = trial.at_latency(trial.record(fast, 1, lambda *_: None), LATENCY_MS)
    filed = timeline.read_messages(
        name, duration_s, truth, labels, shifted(trial.of_source(of_file, MIC), began, duration_s)
    )
    return {
        "scene": name,
        "microphone": float(timeline.f1(timeline.agreement(live))),
        "file": float(timeline.f1(timeline.agreement(filed))),
        "same_label": same_label(live, filed),
        "starts": [timeline.false_starts(live), timeline.false_starts(filed)],
        "began_s": began / SAMPLE_RATE,
    }


def beginning(patches: Sequence[Patch], sound: np.ndarray) -> int:
    """Return the position at which a sound of float64[n] began, from the levels that were sent."""
    hop = patches[1].position - patches[0].position
    energy = np.append(0.0, np.cumsum(np.square(sound)))
    ends = np.array([patch.position for patch in patches[1:]])
    levels = np.array([patch.level_dbfs for patch in patches[1:]])

    def error(began: int) -> float:
        inside = (ends - hop >= began) & (ends <= began + len(sound))
        at = ends[inside] - began
        power = (energy[at] - energy[at - hop]) / hop
        return float(np.median(np.abs(10 * np.log10(power + 1e-12) - levels[inside])))

    first = round(SETTLING_S * SAMPLE_RATE)
    return min(range(first, first + 5 * SAMPLE_RATE, STEP), key=error)


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


def same_label(a: Scene, b: Scene) -> float:
    """Return the share of 0.1 s steps at which the label in force is the same."""
    steps = np.arange(1.0, a.duration_s, 0.1)
    named = [
        [scene.named[i] for i in np.searchsorted(scene.times_s, steps, "right") - 1]
        for scene in (a, b)
    ]
    return float(np.mean([one == other for one, other in zip(*named, strict=True)]))


if __name__ == "__main__":
    main()
