"""Marking in a terminal, or through a pipe: an event, its clip, a key."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamtwl import history
from streamtwl.control import client
from streamtwl.errors import AudioError, ControlError, SoundsError, UsageError
from streamtwl.file_names import one_line
from streamtwl.marks import marking
from streamtwl.marks.playing import Player, picture
from streamtwl.marks.store import Mark
from streamtwl.messages import Event
from streamtwl.sounds import recording
from streamtwl.sounds.store import Store

KEYS = "r right, w wrong, i it was ..., s skip, p play again, u undo, q quit"


def review(journal: Path, events: Sequence[Event], mute: bool) -> None:
    """Take the user's word on each event, until there are no more or the user quits."""
    if not events:
        print("no event is left to be marked")
        return
    player = Player(mute)
    marked: list[int] = []  # indices of events, in the order of their marks
    at, problem = 0, ""
    print(KEYS)
    try:
        while at < len(events):
            _show(journal, events[at], f"{at + 1} of {len(events)}", player)
            if player.problem != problem:
                problem = player.problem
                _say(problem)
            answer = _answer(journal, events[at], player)
            if answer == "q":
                break
            if answer == "u":
                if marked:
                    at = marked.pop()
                    print(f"taken back: {marking.unmark(events[at].id).label}")
                    reload_listeners()
                continue
            if answer == "m":
                marked.append(at)
            at += 1
    finally:
        player.stop()
    print(f"{len(marked)} marked")


def show(marks: Sequence[Mark]) -> None:
    """Print the marks, and what they correct."""
    if not marks:
        print("nothing is marked yet: `streamtwl review`")
        return
    for mark in marks:
        was = f", it was {mark.was}" if mark.was else ""
        at = history.local(mark.began_at).isoformat(" ", "seconds")
        print(one_line(f"{mark.event}  {at}  {mark.source}  {mark.label}: {mark.verdict}{was}"))
    from streamtwl.commands.teach import teacher_of_default
    from streamtwl.marks import corrections

    learnt = corrections.learn(teacher_of_default(), marks, Store())
    for each in learnt.corrections if learnt else ():
        print(
            one_line(
                f"{each.label}: not believed where it sounds like the {each.wrong} marked wrong "
                f"({each.reach:.0%} of their hops); {each.right} marked right are left alone"
            )
        )


def reload_listeners() -> None:
    """Have running listeners take in what was marked."""
    try:
        _, problems = client.reload()
    except (ControlError, UsageError) as error:
        problems = [str(error)]
    for problem in problems:
        _say(f"a running streamtwl did not take it in: {problem}")


def _show(journal: Path, event: Event, which: str, player: Player) -> None:
    print(f"\n{one_line(f'{which}  {history.event_line(event)}')}", flush=True)
    clip = marking.moment(journal, event.id).clip
    if clip is None:
        print("   no clip of it")
        return
    try:
        samples = recording.decode(clip.read_bytes(), str(clip))
    except (AudioError, OSError) as error:
        print(one_line(f"   its clip cannot be read: {error}"))
        return
    print("\n".join(picture(samples)), flush=True)
    player.play(clip)


def _answer(journal: Path, event: Event, player: Player) -> str:
    """Return q, u, s, or m where the event was marked."""
    while True:
        key, name = _key()
        if key in ("q", "u", "s"):
            return key
        if key == "p":
            if clip := marking.moment(journal, event.id).clip:
                player.play(clip)
            continue
        if key not in ("r", "w", "i"):
            print(KEYS)
            continue
        if key == "i" and not (name := name or _name()):
            continue
        try:
            mark = marking.mark(journal, event, "right" if key == "r" else "wrong", name)
        except (UsageError, SoundsError, AudioError) as error:
            _say(str(error))
            continue
        print(one_line(f"   {marking.said(mark)}"), flush=True)
        reload_listeners()
        return "m"


def _key() -> tuple[str, str]:
    """Return the next key, in lower case, and the rest of its line on a pipe; q at the end."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return (line.strip()[:1].lower(), line.strip()[1:].strip()) if line else ("q", "")
    with _keys():
        return sys.stdin.read(1).lower() or "q", ""


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Have keys come without Enter; Ctrl-C stays what it is."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _name() -> str:
    try:
        return input("   it was: ").strip()
    except EOFError:
        return ""


def _say(line: str) -> None:
    if line:
        print(f"streamtwl: {one_line(line)}", file=sys.stderr, flush=True)
