"""Draw the live view of a real run of the demo as an SVG picture.

    .venv/bin/python tools/live_view_svg.py docs/live-view.svg

It listens to the demo in real time, to its end, and draws what the live view showed at `--at`.
"""

import argparse
import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from streamtwl.messages import decode
from streamtwl.sinks.live_view import LiveView
from streamtwl.stages import SAMPLE_RATE

COLUMNS = 98
ARGUMENTS = ["listen", "--demo", "--labels", "everyday", "--json", "--no-journal"]
ARGUMENTS += ["--bind", "tcp://127.0.0.1:*"]
WEB_FONT = re.compile(r"@font-face\s*{.*?}\s*", re.DOTALL)  # rich's picture fetches one from a CDN


def main() -> None:
    """Run the demo, then write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("picture", type=Path, help="the .svg file to write")
    parser.add_argument("--at", type=float, default=11.6, help="seconds into the demo")
    options = parser.parse_args()
    listening = subprocess.run(
        [sys.executable, "-m", "streamtwl", *ARGUMENTS], stdout=subprocess.PIPE, check=True
    )
    view = LiveView("tcp://127.0.0.1:5577")
    for line in listening.stdout.splitlines():
        message = decode(line)
        if message.position > options.at * SAMPLE_RATE:
            break
        view.take(message)
    options.picture.write_text(draw(view))


def draw(view: LiveView) -> str:
    """Return the view as an SVG that needs no font from elsewhere."""
    view.show()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(view._live.renderable)
    picture = console.export_svg(title="streamtwl listen --demo", theme=SVG_EXPORT_THEME)
    return WEB_FONT.sub("", picture)


if __name__ == "__main__":
    main()
