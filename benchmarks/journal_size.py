"""What the journal costs: bytes a day, commits a minute, and what reaches the disk.

Passes the messages of some minutes (labels every 0.48 s, states every second, a level a minute)
through what decides what is written (`sinks/repeats.py`), by a clock of its own, into a real
journal; the same messages one by one, as before schema 1.7, beside it. SQLite's log is moved into
the database every 30 s of that clock, as the listener does. `disk` is `write_bytes` of
/proc/self/io, pages of 4 KB that were changed: it counts where the folder is on a disk, not in
memory (--folder).

    python benchmarks/journal_size.py --minutes 60
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from figures import of, write

from streamtwl.messages import AnyMessage, Event, Label, Level, Scored, Status, encode
from streamtwl.ontology import categories
from streamtwl.sinks import journal_file
from streamtwl.sinks.journal import CHECKPOINT_S, DAY_S, MB, Entry, Journal
from streamtwl.sinks.repeats import Repeated, Repeats, entry

HOP_S, HOP = 0.48, 7680
NAMES = categories()[:60]
CASES = {  # seconds from one change of the label, with an event's onset or offset, to the next
    "nothing changes": 0.0,
    "a sound every minute": 30.0,
    "a sound every ten seconds": 5.0,
}


def main() -> None:
    """Print a table."""
    arguments = _arguments()
    minutes = 3 if arguments.quick else arguments.minutes
    results = []
    for case, change_s in CASES.items():
        for sources in (1,) if arguments.quick else (1, 4):
            for whole in (True, False):
                with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                    path = Path(folder) / "journal.sqlite"
                    figures = measure(path, minutes, sources, change_s, whole)
                results.append({"case": case, "sources": sources, "one by one": whole, **figures})
    print(f"{minutes:g} minutes of each; MB a day and source, and commits a minute\n")
    print("| | sources | written | in the journal | commits | to the disk |")
    print("| --- | --- | --- | --- | --- | --- |")
    for each in results:
        how = "one by one" if each["one by one"] else "repeats as summaries"
        size, disk = each["mb_a_day"], each["disk_mb_a_day"]
        figures = f"{size:.1f} | {each['commits_a_minute']:.1f} | {disk:.0f}"
        print(f"| {each['case']} | {each['sources']} | {how} | {figures} |")
    if arguments.json:
        figures = {
            f"{each['case']}, {each['sources']} sources, one by one {each['one by one']}": of(
                [each["mb_a_day"]], unit="MB a day"
            )
            for each in results
        }
        write(figures, arguments.json, {"minutes": minutes, "results": results})


def measure(
    path: Path, minutes: float, sources: int, change_s: float, whole: bool
) -> dict[str, float]:
    """Return MB a day and source, commits a minute, and MB a day and source to the disk."""
    began, commits, checkpoint_at, now = _written_bytes(), 0, 0.0, 0.0
    repeats = Repeats(replayed=False, clock=lambda: now)
    with contextlib.closing(Journal(path)) as journal:
        for now, messages in _messages(minutes, sources, change_s):
            entries = _entries(repeats, messages, whole)
            if entries:
                commits += 1
                if not journal.commit(entries, 60.0):
                    raise SystemExit(f"not written: {journal.problem}")
            if now >= checkpoint_at:
                checkpoint_at = now + CHECKPOINT_S
                with contextlib.closing(journal_file.connect(path, "rw")) as connection:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        disk = _written_bytes() - began
    a_day = DAY_S / (60 * minutes) / sources / MB
    return {
        "mb_a_day": path.stat().st_size * a_day,
        "commits_a_minute": commits / minutes,
        "disk_mb_a_day": disk * a_day,
    }


def _entries(repeats: Repeats, messages: list[AnyMessage], whole: bool) -> list[Entry]:
    if whole:
        return [entry(each, encode(each)) for each in messages]
    entries: list[Entry] = []
    for each in messages:
        if repeats.is_repeat(each) and isinstance(each, Repeated):
            entries += repeats.hold(each, b"")
        else:
            entries += [*repeats.before(each), entry(each, encode(each))]
    return entries + repeats.due()


def _messages(
    minutes: float, sources: int, change_s: float
) -> Iterator[tuple[float, list[AnyMessage]]]:
    """Yield the seconds, and what is published then: labels, a state or a level; they share a
    commit where they come together."""
    rng = np.random.default_rng(0)
    seq = dict.fromkeys(("hop", "state", "level", "event"), 0)
    begin, changes, state_at, level_at = time.time() - 60 * minutes, 0, 0.0, 60.0
    while (now := seq["hop"] * HOP_S) < 60 * minutes:
        position, at = HOP * seq["hop"], begin + now
        common = {"session": "0123456789abcdef", "position": position, "captured_at": at}
        common |= {"published_at": at + 0.0123456}
        names = [f"source-{i}" for i in range(sources)]
        changed = bool(change_s) and now >= (changes + 1) * change_s
        changes += changed
        label = "Dog" if changes % 2 else None
        messages: list[AnyMessage] = []
        for source in names:
            messages.append(_label(label, rng, source=source, seq=seq["hop"], **common))
            if changed:
                phase = "onset" if changes % 2 else "offset"
                messages.append(_event(phase, source=source, seq=seq["event"], **common))
        yield now, messages
        seq["hop"] += 1
        seq["event"] += changed
        if now >= state_at:
            yield (
                now,
                [_state(rng, seq["hop"], source=n, seq=seq["state"], **common) for n in names],
            )
            state_at, seq["state"] = state_at + 1.0, seq["state"] + 1
        if now >= level_at:
            yield now, [_level(rng, source=n, seq=seq["level"], **common) for n in names]
            level_at, seq["level"] = level_at + 60.0, seq["level"] + 1


def _label(label: str | None, rng: np.random.Generator, **common) -> Label:
    scores = np.sort(rng.beta(0.5, 4.0, 5))[::-1]
    named = [label or NAMES[0], *(NAMES[i] for i in rng.choice(np.arange(1, 60), 4, replace=False))]
    top = [Scored(name, round(float(score), 4)) for name, score in zip(named, scores, strict=True)]
    return Label(
        label=label, confidence=float(scores[0]), top=top, reasoner="reader", samples=0, traces=0,
        refinement=0, latency_ms=float(rng.uniform(5, 15)), **common,
    )  # fmt: skip


def _event(phase: str, **common) -> Event:
    position = common["position"]
    return Event(
        id=f"0123456789abcdef-{common['source']}-{common['seq'] // 2}", phase=phase, label="Dog",
        start=position, end=position + HOP if phase == "offset" else None, peak=0.8, mean=0.6,
        **common,
    )  # fmt: skip


def _state(rng: np.random.Generator, hops: int, **common) -> Status:
    source = common["source"]
    counts = dict.fromkeys(
        ("dropped_samples", "dropped_windows", "bad_samples", "clipped_samples", "overflows",
         "reopened", "clock_jumps", "late_hops", "queued", "dropped_messages",
         "stalled_subscribers"), 0,
    )  # fmt: skip
    return Status(
        state="listening", level_dbfs=float(rng.uniform(-60, -50)), hops=hops,
        real_time_factor=float(rng.uniform(0.01, 0.02)), capture_delay_ms=float(rng.uniform(5, 9)),
        resampling_delay_ms=21.3, memory_mb=180.1, level_dba=float(rng.uniform(30, 40)),
        last_seq={f"{kind}/{source}/": hops for kind in ("label", "event", "status", "patch")},
        replay="tcp://127.0.0.1:5578", **counts, **common,
    )  # fmt: skip


def _level(rng: np.random.Generator, **common) -> Level:
    leq, l10, l90, highest = (float(each) for each in rng.uniform(30, 50, 4))
    return Level(
        seconds=60.0, leq_dba=leq, l10_dba=l10, l90_dba=l90, max_dba=highest, leq_dbfs=-50.0,
        calibrated=True, **common,
    )  # fmt: skip


def _written_bytes() -> int:
    """Return what this process has had written to disks."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of sound (default: 60)")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: /tmp)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--quick", action="store_true", help="try every step: three minutes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
