"""Scenes through the product: what a subscriber must have had, and a play for real."""

import subprocess
import sys

import numpy as np
import pytest
import trial

from streamtwl.errors import SinkError
from streamtwl.messages import AnyMessage, Event, Label, Status

COMMON = {"session": "s", "captured_at": None, "published_at": 0.0}


def label(seq: int, source: str = "a") -> Label:
    return Label(
        **COMMON,
        source=source,
        seq=seq,
        position=7680 * seq,
        label=None,
        confidence=0.0,
        top=[],
        reasoner="evidence",
        samples=0,
        traces=0,
        refinement=0,
        latency_ms=1.0,
    )


def event(seq: int, source: str = "a") -> Event:
    return Event(
        **COMMON,
        source=source,
        seq=seq,
        position=7680 * seq,
        id=f"{source}{seq}",
        phase="onset",
        label="Dog",
        start=0,
        end=None,
        peak=0.5,
        mean=0.5,
    )


def status(last_seq: dict[str, int], state: str = "ended", source: str = "a") -> Status:
    counts = {
        field: 0
        for field in Status.__struct_fields__
        if field in Status.__annotations__ and field not in ("state", "last_seq", "error", "replay")
    }
    return Status(
        **COMMON, **counts, source=source, seq=0, position=0, state=state, last_seq=last_seq
    )


WHOLE: list[AnyMessage] = [
    status({}, "listening"),
    *map(label, range(4)),
    event(0),
    event(1),
    status({"label/a/": 3, "event/a/": 1, "status/a/": 5, "hello/a/": 0, "patch/a/": 3}),
]


# What must have come


def test_nothing_is_missing():
    trial.refuse_gaps(WHOLE)
    trial.refuse_gaps(WHOLE[::-1])
    trial.refuse_gaps([*WHOLE, label(3), status({}, "ended", "b")])  # one came twice


@pytest.mark.parametrize(
    ("lost", "topic"),
    [(1, "label/a/"), (2, "label/a/"), (4, "label/a/"), (5, "event/a/"), (6, "event/a/")],
)
def test_a_missing_message_is_noticed_wherever_it_was(lost, topic):
    with pytest.raises(SinkError, match=f"1 messages of {topic}"):
        trial.refuse_gaps(WHOLE[:lost] + WHOLE[lost + 1 :])


def test_a_topic_of_which_nothing_came_is_noticed():
    with pytest.raises(SinkError, match="2 messages of event/a/"):
        trial.refuse_gaps([each for each in WHOLE if not isinstance(each, Event)])


def test_another_sources_message_does_not_stand_in():
    with pytest.raises(SinkError, match="1 messages of label/a/"):
        trial.refuse_gaps([*WHOLE[:2], label(1, "b"), *WHOLE[3:], status({}, source="b")])


def test_a_source_whose_end_never_came_is_noticed():
    """The status that counts messages may be lost with the rest."""
    with pytest.raises(SinkError):
        trial.refuse_gaps([WHOLE[0], label(0)])


# What is of a source


def test_a_source_has_its_labels_and_events_once_and_in_order():
    others = [label(0, "b"), label(1), event(0, "b"), label(0)]
    mixed = [*WHOLE[:3], *others, *WHOLE[3:], event(0), label(3)]
    assert trial.of_source(mixed, "a") == [*map(label, range(4)), event(0), event(1)]
    assert trial.of_source(mixed, "b") == [label(0, "b"), event(0, "b")]
    assert trial.of_source(mixed, "c") == []


# For real


def scene(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(4).standard_normal(round(16_000 * seconds))


@pytest.mark.usefixtures("yamnet")
def test_a_play_is_heard_whole_and_kept(wav, tmp_path):
    files = [wav("Scene-1.wav", scene(6)), wav("scene-2.wav", scene(2))]
    kept = tmp_path / "kept.msgpack"
    progress: list[tuple[int, int]] = []
    messages = trial.play(files, ["--labels", "everyday"], kept, lambda *at: progress.append(at))
    assert progress == [(1, 2), (2, 2)]
    positions = [
        [each.position for each in trial.of_source(messages, source) if isinstance(each, Label)]
        for source in ("scene-1", "scene-2")
    ]
    assert positions[0] == [*range(15_600, 96_000, 7680), 96_000]
    assert positions[1] == [15_600, 23_280, 30_960, 32_000]
    assert {type(each) for each in messages} <= {Label, Event, Status}
    ended = {each.source for each in messages if isinstance(each, Status) and each.state == "ended"}
    assert ended == {"scene-1", "scene-2"}
    for file in files:
        file.unlink()  # the second time they are not listened to
    assert trial.play(files, [], kept, lambda *at: progress.append(at)) == messages
    assert len(progress) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["kept.msgpack"]


def test_a_listener_that_fails_says_why_and_nothing_is_kept(tmp_path):
    kept = tmp_path / "kept.msgpack"
    with pytest.raises(SinkError, match=r"nowhere\.wav") as raised:
        trial.play([tmp_path / "nowhere.wav"], [], kept, lambda *_: None)
    assert "streamtwl listen failed" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_option_says_so(wav, tmp_path):
    file = wav("a.wav", scene(1))
    with pytest.raises(SinkError, match="Dgo"):
        trial.play([file], ["--labels", "Dgo"], tmp_path / "kept", lambda *_: None)


def test_a_listener_that_writes_much_to_standard_error_does_not_hang(monkeypatch):
    loud = "import sys; sys.stderr.write('x' * 300_000 + ' the end'); sys.exit(3)"
    monkeypatch.setattr(trial, "STREAMTWL", (sys.executable, "-c", loud))
    monkeypatch.setattr(trial, "PATIENCE_S", 600.0)
    with pytest.raises(SinkError) as raised:
        trial.record([], 1, lambda *_: None)
    assert str(raised.value)[-7:] == "the end"


def test_a_listener_that_says_nothing_for_long_is_ended(monkeypatch):
    monkeypatch.setattr(trial, "STREAMTWL", (sys.executable, "-c", "import time; time.sleep(61)"))
    monkeypatch.setattr(trial, "PATIENCE_S", 0.5)
    with pytest.raises(SinkError):
        trial.record([], 1, lambda *_: None)
    running = subprocess.run(["ps", "-ef"], capture_output=True, text=True).stdout
    assert "time.sleep(61.25)" not in running
