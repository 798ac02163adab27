"""A subscriber to be killed: `python restarted.py HOW ENDPOINT FOLDER LAST`.

Writes each message that it has to FOLDER/had.txt, a line each, until it has that last label. HOW:
`state` has the library remember where it was, `resume` takes that from what was written.
"""

import sys
from pathlib import Path

from streamtwl import subscribe

how, endpoint, folder, last = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
written = folder / "had.txt"
options: dict = {"state": folder / "state.json"}
if how == "resume" and written.exists():
    whole = written.read_text().rpartition("\n")[0]  # the last line may have been cut off
    written.write_text(f"{whole}\n")
    lines = [line.split() for line in whole.splitlines()]
    options = {"resume": {(session, topic): int(seq) for session, topic, seq in lines}}
elif how == "resume":
    options = {}

with written.open("a") as had, subscribe(endpoint, ["label", "event", "status"], **options) as mine:
    for message in mine:
        print(message.session, message.topic, message.seq, file=had, flush=True)
        if message.topic == "label/mic/" and message.seq == last:
            break
