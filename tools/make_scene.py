"""Make scenes whose timeline is known: clips of ESC-10 at random moments over a background.

A scene is planned once and made at each SNR: scenes of one number differ only in SNR.

    python tools/corpus.sh CORPUS
    python tools/make_scene.py --corpus CORPUS --fold 1 --out SCENES
    python tools/make_scene.py --corpus CORPUS --background --out SCENES

writes SCENES/fold1-00-snr20.flac and its timeline .csv, and background.flac: an hour of the
corpus's noises, voices and games at many levels, in which no label sounds. A clip is cut where it
is silent (below -70 dBFS) for over 0.5 s; each part is an event of its own. A third of the events
overlap another. The background is 10 to 30 s of one package after the other, all at one level.

SNR: the RMS of an event over its own length against the RMS of the background over the whole scene.
Events lie up to 3 dB from the SNR that their scene is named for; the timeline has each one's own.
The same seed, clips and corpus give the same bytes.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import soundfile
from rich.progress import track

from streamtwl.errors import StreamtwlError, UsageError
from streamtwl.stages import SAMPLE_RATE
from streamtwl.training import datasets, scenes

DATA = Path(__file__).parents[2] / "shared" / "data" / "esc10"


def write(stem: str, scene: np.ndarray, timeline: list[dict]) -> None:
    """Write STEM.flac and STEM.csv."""
    soundfile.write(f"{stem}.flac", scene, SAMPLE_RATE, subtype="PCM_16")
    with open(f"{stem}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, scenes.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(timeline)


def main() -> None:
    """Write the scenes, or the hour of background."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="made by tools/corpus.sh; its test side is used")
    add("--out", type=Path, required=True, help="folder to write into")
    add("--data", type=Path, default=DATA, help="ESC-10 (default ../shared/data/esc10)")
    add("--fold", type=int, default=1, help="fold whose clips sound (default 1)")
    add("--scenes", type=int, default=20, help="how many, each at every SNR (default 20)")
    add("--minutes", type=float, help="of each scene (default 2, with --background 60)")
    add("--snr", type=float, nargs="+", default=[20, 10, 5], metavar="DB", help="(20 10 5)")
    add("--seed", type=int, default=1, help="another seed, other scenes (default 1)")
    add("--background", "--nothing", action="store_true", help="make an hour of background instead")
    options = parser.parse_args()
    packages = scenes.read_pieces(options.corpus)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.background:
        rng = np.random.default_rng([options.seed, 0])
        write(
            f"{options.out}/background",
            scenes.make_background_scene(rng, packages, 60 * (options.minutes or 60)),
            [],
        )
        return
    clips = [clip for clip in datasets.load(options.data) if clip.fold == options.fold]
    if not clips:
        raise UsageError(f"{options.data} has no fold {options.fold}")
    parts = scenes.read_parts(clips)
    for number in track(range(options.scenes), "Scenes"):
        rng = np.random.default_rng([options.seed, options.fold, number])
        plan = scenes.plan_scene(rng, parts, packages, 60 * (options.minutes or 2))
        for snr_db in options.snr:
            stem = f"{options.out}/fold{options.fold}-{number:02}-snr{snr_db:g}"
            write(stem, *scenes.make_scene(plan, snr_db))


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"make_scene.py: {error}")
