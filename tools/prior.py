"""Measure the prior of a backbone that ships: the mean logit of each category on generic audio.

    tools/prior.py mn04 games='CORPUS/train/*-data/*' kitchen='kitchen20/audio/[1235]-*' ...

Each GROUP=GLOB counts alike, however much there is of it: at most --minutes of it, drawn by the
hash of the files' names. Windows are cut as in the live path. Prints and writes
streamtwl/models/priors/BACKBONE.json, which says what it was made from. For backbones of your own
there is `streamtwl models prior`.
"""

import argparse
from glob import glob
from pathlib import Path

import msgspec

from streamtwl.measure_prior import measure
from streamtwl.models import priors


def main() -> None:
    """Score, average, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("backbone", help="one of `streamtwl models list`")
    parser.add_argument("groups", nargs="+", metavar="GROUP=GLOB", help="recordings")
    parser.add_argument("--minutes", type=float, default=20, help="of a group (%(default)s)")
    options = parser.parse_args()
    groups = {}
    for each in options.groups:
        name, _, pattern = each.partition("=")
        groups[name] = [Path(file) for file in glob(pattern)]
        if not groups[name]:
            parser.error(f"{each}: no file fits")
    prior = measure(options.backbone, groups, options.minutes, print)
    file = priors.FOLDER / f"{options.backbone}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(prior), indent=1) + b"\n")
    print(prior.minutes, file)


if __name__ == "__main__":
    main()
