"""What a quantised YAMNet loses in scenes, where int8.py looks at clips.

    .venv/bin/python benchmarks/int8.py --corpus CORPUS --network yamnet --only WORDS --keep FOLDER
    .venv/bin/python benchmarks/int8_scenes.py FOLDER/yamnet-3.onnx --corpus CORPUS

The scenes of `untaught.py` go through the product's pipelines with the float network and with this
one, scene by scene. F1 of what is in force, at the same false starts for both, as said at once and
half a second later; what is lost is paired, its interval by bootstrap over scenes.
"""

import sys
from pathlib import Path
from typing import Any

import gate
import results_folder
import untaught
from threadpoolctl import threadpool_limits

from streamtwl.backbones.yamnet import YamNet
from streamtwl.errors import StreamtwlError
from streamtwl.models.runtime import open_session

PIPELINES = ("default", "evidence", "yamnet")


def main() -> None:
    """Play, judge, print and write the tables."""
    parser = results_folder.parser_of(__doc__, corpus=True, scenes=True)
    parser.add_argument("network", type=Path, help="YAMNet, quantised (.onnx)")
    parser.add_argument("--pipelines", nargs="+", default=PIPELINES, help="(%(default)s)")
    options = parser.parse_args()
    with threadpool_limits(1):  # as in the product
        found = {
            name: judge(name, options.data, options.corpus, options.scenes, options)
            for name in results_folder.present(untaught.SETS, options.data)
        }
    results_folder.keep(options.out, "int8_scenes", found, markdown(found))


def judge(name: str, data: Path, corpus: Path, count: int, options: Any) -> dict[str, Any]:
    """Return the figures of a set, by pipeline."""
    pairs = {
        each: (gate.Playing(each, 0.0), quantised(gate.Playing(each, 0.0), options.network))
        for each in options.pipelines
    }
    playing = [each for pair in pairs.values() for each in pair]
    minutes, groups = gate.play_all(playing, name, data, corpus, count)
    rows = {
        each: {
            "float32": gate.figures(plain, plain, minutes, groups),
            "int8": gate.figures(small, plain, minutes, groups),
        }
        for each, (plain, small) in pairs.items()
    }
    return {"scenes": len(groups), "rows": rows}


def quantised(playing: gate.Playing, network: Path) -> gate.Playing:
    """Give a pipeline another YAMNet."""
    backbones = playing.pipeline.bank.backbones
    playing.pipeline.bank.backbones = [
        YamNet(open_session(network, 1, "cpu"), each.sha256) if isinstance(each, YamNet) else each
        for each in backbones
    ]
    return playing


def markdown(found: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [
        "# YAMNet in int8, in scenes",
        "",
        "`benchmarks/int8_scenes.py`: its head says what is measured. F1 of what is in force at "
        f"{gate.MOST:g} false starts a minute, and what int8 gains (95 % intervals, paired, "
        "bootstraps over scenes); processor time a hop, median of the scenes.",
    ]
    for name, each in found.items():
        lines += [
            "",
            f"## {name}, {each['scenes']} scenes",
            "",
            "| pipeline | F1, at once: float32, int8 | gains | half a second later | gains "
            "| ms a hop | of float32 |",
            "|" + " --- |" * 7,
        ]
        for pipeline, of in each["rows"].items():
            plain, small = of["float32"], of["int8"]
            cells = [f"`{pipeline}`"]
            for lag in gate.LAGS:
                f1 = (f"{one[f'lag {lag}']['f1'][0]:.3f}" for one in (plain, small))
                more = small[f"lag {lag}"]["more"]
                cells += [", ".join(f1), "{:+.3f} ({:+.3f} to {:+.3f})".format(*more)]
            cells.append(f"{plain['ms']:.2f}, {small['ms']:.2f}")
            cells.append("{:.2f} ({:.2f} to {:.2f})".format(*small["of_always"]))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        main()
    except (StreamtwlError, OSError) as error:
        sys.exit(f"int8_scenes.py: {error}")
