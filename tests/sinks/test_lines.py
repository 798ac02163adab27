import json
import threading

import msgspec
import pytest

from streamtwl.messages import Event, Label, Patch, Status, decode
from streamtwl.sinks import lines
from streamtwl.sinks.lines import Lines, Plain, when

COMMON = {"source": "kitchen", "session": "s", "captured_at": None, "published_at": 0.0}


def label(name: str | None, position: int = 16_000, source: str = "kitchen", seq: int = 0) -> Label:
    return Label(
        **(COMMON | {"source": source}), seq=seq, position=position, label=name, confidence=0.5,
        top=[], reasoner="evidence", samples=0, traces=0, refinement=0, latency_ms=1.0,
    )  # fmt: skip


def event(phase: str, end: int | None) -> Event:
    return Event(
        **COMMON, seq=0, position=48_000, id="s-kitchen-0", phase=phase, label="Dog", start=16_000,
        end=end, peak=0.75, mean=0.5,
    )  # fmt: skip


def status(**changed) -> Status:
    fields = msgspec.json.schema(Status)["$defs"]["Status"]["properties"]
    counts = [name for name, field in fields.items() if field.get("type") == "integer"]
    figures = dict.fromkeys(counts, 0) | {"state": "listening", "level_dbfs": -60.0}
    figures |= {"real_time_factor": 0.01, "memory_mb": 100.0, "last_seq": {}}
    figures |= {"capture_delay_ms": None, "resampling_delay_ms": 0.0}
    return Status(**(figures | COMMON | changed))


def patch() -> Patch:
    return Patch(**COMMON, seq=0, position=0, top=[], level_dbfs=-60.0)


def test_json_lines_are_the_messages(capsys):
    shown = Lines(as_json=True, lossless=False)
    messages = [label("Dog"), patch(), event("onset", None), status()]
    for message in messages:
        shown.take(message)
    shown.show()
    printed = capsys.readouterr().out.splitlines()
    assert [decode(line.encode()) for line in printed] == messages
    assert [json.loads(line)["kind"] for line in printed] == ["label", "patch", "event", "status"]


def test_what_was_shown_is_not_shown_again(capsys):
    shown = Lines(as_json=True, lossless=False)
    shown.take(label("Dog"))
    shown.show()
    capsys.readouterr()
    shown.show()
    assert capsys.readouterr().out == ""


def test_a_reader_that_is_too_slow_loses_messages_and_is_told(capsys, caplog, monkeypatch):
    monkeypatch.setattr(lines, "QUEUE", 10)
    shown = Lines(as_json=True, lossless=False)
    for seq in range(25):
        shown.take(label("Dog", seq=seq))
    with shown:
        shown.show()
    assert shown.dropped == 15
    printed = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["seq"] for line in printed] == list(range(10))
    assert "15 messages" in caplog.text


def test_lossless_waits_for_the_reader(capsys, monkeypatch):
    monkeypatch.setattr(lines, "QUEUE", 10)
    shown = Lines(as_json=True, lossless=True)
    telling = threading.Thread(
        target=lambda: [shown.take(label("Dog", seq=seq)) for seq in range(200)]
    )
    telling.start()
    printed = []
    while len(printed) < 200:
        shown.show()
        printed += [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()]
    telling.join()
    assert printed == list(range(200))
    assert shown.dropped == 0


def test_plain_lines_tell_only_what_is_new():
    plain = Plain()
    told = [plain.line(label(name)) for name in ("Dog", "Dog", None, None, "Dog")]
    assert [line is not None for line in told] == [True, False, True, False, True]
    assert "Dog (0.50)" in told[0]
    assert "kitchen" in told[0]


def test_each_source_has_its_own_news():
    plain = Plain()
    assert plain.line(label("Dog")) is not None
    assert "attic" in plain.line(label("Dog", source="attic"))


def test_events_are_told_with_their_length():
    plain = Plain()
    assert "[onset] Dog" in plain.line(event("onset", None))
    assert "[offset] Dog, 2.0 s, peak 0.75" in plain.line(event("offset", 48_000))


def test_a_status_is_told_where_it_changes():
    plain = Plain()
    assert "[listening]" in plain.line(status())
    assert plain.line(status()) is None
    assert "5 samples lost" in plain.line(status(dropped_samples=5))
    assert "unplugged" in plain.line(status(state="lost", error="unplugged"))
    assert plain.line(patch()) is None


@pytest.mark.parametrize(
    ("position", "shown"),
    [
        (0, "00:00.00"),
        (16_000, "00:01.00"),
        (60 * 16_000, "01:00.00"),
        (16_000 * 3661, "61:01.00"),
        (16_000 * 60 - 40, "01:00.00"),  # 59.9975 s
    ],
)
def test_files_show_the_time_from_their_start(position, shown):
    assert when(label("Dog", position)) == shown


def test_live_sound_shows_the_time_of_day():
    message = label("Dog")
    message.captured_at = 1.7e9 + 0.25
    assert when(message).endswith(":20.25")
