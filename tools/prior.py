"""Measure a backbone's prior: the mean logit of each of its categories on generic audio.

    tools/prior.py mn04 games='CORPUS/train/*-data/*' kitchen='kitchen20/audio/[1235]-*' ...

Each GROUP=GLOB counts alike, however much there is of it: at most --minutes of it, drawn by the
hash of the files' names. Windows are cut as in the live path, of the lengths given. Prints and
writes streamtwl/models/priors/BACKBONE.json, which says what it was made from.
"""

import argparse
import hashlib
import json
from glob import glob
from pathlib import Path

import numpy as np
from rich.progress import track

from streamtwl import config
from streamtwl.backbones.bank import Bank
from streamtwl.features.window import Windower
from streamtwl.models import priors
from streamtwl.pipeline import hearing
from streamtwl.reasoners.fusion import logit
from streamtwl.stages import SAMPLE_RATE, Block, End
from streamtwl.training.posteriors import read

FILE_S = 30.0  # of one file, at most


def main() -> None:
    """Score, average, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("backbone", help="one of `streamtwl models list`")
    parser.add_argument("groups", nargs="+", metavar="GROUP=GLOB", help="recordings")
    parser.add_argument("--lengths", default="0.96,2,3,5", help="of windows, seconds (%(default)s)")
    parser.add_argument("--minutes", type=float, default=20, help="of a group (%(default)s)")
    options = parser.parse_args()
    windows = [f"{options.backbone}:{length}" for length in options.lengths.split(",")]
    settings = config.override(config.Settings(), {"windows": windows})
    backbones, kinds = hearing(settings)
    windower = Windower(settings.hop_s, backbones, kinds)
    bank = Bank(backbones, kinds)
    groups, minutes = {}, {}
    for each in options.groups:
        name, _, pattern = each.partition("=")
        files = sorted(glob(pattern), key=_name_hash)
        if not files:
            parser.error(f"{each}: no file fits")
        found, seconds = [], 0.0
        for file in track(files, name, transient=True):
            if seconds > 60 * options.minutes:
                break
            samples = read(Path(file))[: round(FILE_S * SAMPLE_RATE)]
            seconds += len(samples) / SAMPLE_RATE
            for cut in windower.push([Block(0, 0, samples, None, 0.0, last=True)]):
                if not isinstance(cut, End):
                    found += [score.posterior for p in bank.score(cut) for score in p.scores]
        groups[name] = logit(np.array(found)).mean(axis=0)
        minutes[name] = round(seconds / 60, 1)
        print(f"{name}: {minutes[name]} minutes")
    mean = np.mean(list(groups.values()), axis=0)
    card = {
        "backbone": options.backbone,
        "sha256": backbones[0].sha256,
        "windows_s": [kind.length_s for kind in kinds],
        "minutes": minutes,
        "mean_logits": {
            name: round(float(each), 2)
            for name, each in zip(backbones[0].categories, mean, strict=True)
        },
    }
    file = priors.FOLDER / f"{options.backbone}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(file)


def _name_hash(file: str) -> bytes:
    return hashlib.sha256(Path(file).name.encode()).digest()


if __name__ == "__main__":
    main()
