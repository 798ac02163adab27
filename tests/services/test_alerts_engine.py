"""Alerts: what rules make of messages."""

import time

import msgspec
import pytest

from streamtwl.messages import Scored, Summary
from streamtwl.services.alerts.engine import REMEMBERED, Engine
from streamtwl.services.alerts.memory import Memory
from streamtwl.unrolling import unrolled
from tests.example_messages import hello
from tests.services.alerts import NOON, RATE, Sound, fired, rule


def test_an_event_of_the_label_fires_once():
    sound, engine = Sound(), Engine([rule(label=["Dog*", "Cat"])])
    onset, bark = sound.event("onset", 1, 2), sound.event("revised", 1, 3)
    assert fired(engine, onset, bark, sound.event("offset", 1, 4), bark) == ["s-1"]
    assert fired(engine, sound.event("onset", 5, 6, "Siren", 2)) == []
    assert fired(engine, sound.event("onset", 7, 8, "cat", 3)) == ["s-3"]


def test_an_event_that_outlasts_many_others_fires_once():
    sound, engine = Sound(), Engine([rule(label="*")])
    fired(engine, sound.event("onset", 0, 1, "Loud", n=0))
    for number in range(1, 3 * REMEMBERED):
        fired(engine, sound.event("offset", number, number + 0.5, n=number))
        assert fired(engine, sound.event("revised", 0, number + 0.6, "Loud", n=0)) == []
    [track] = engine.memory.tracks.values()
    assert len(track.done) <= REMEMBERED + 2


def test_an_event_that_is_revised_to_the_label_fires():
    sound, engine = Sound(), Engine([rule(label="Doorbell")])
    assert fired(engine, sound.event("onset", 1, 2, "Dog")) == []
    assert fired(engine, sound.event("revised", 1, 3, "Doorbell")) == ["s-1"]


def test_lasting_fires_as_soon_as_it_has():
    sound, engine = Sound(), Engine([rule(label="Dog", lasting_s=3)])
    assert fired(engine, sound.event("onset", 0, 1), sound.label(3.9)) == []  # found after 1 s
    assert fired(engine, sound.label(4.1), sound.label(4.6)) == ["s-1"]
    short = (sound.event("onset", 10, 11, n=2), sound.event("offset", 10, 12, n=2))
    assert fired(engine, *short, sound.label(20)) == []


def test_so_often_within():
    sound, engine = Sound(), Engine([rule(times=3, within_s=10)])

    def bark(at: float, n: int):
        return sound.event("onset", at, at, n=n), sound.event("offset", at, at + 0.5, n=n)

    assert fired(engine, *bark(0, 1), *bark(6, 2), *bark(12, 3)) == []
    assert fired(engine, *bark(15, 4)) == ["s-4"]
    assert fired(engine, *bark(16, 5)) == []  # a new count


def test_confirmed_counts_hops_with_the_label_in_force():
    sound, engine = Sound(), Engine([rule(confirmed=2)])
    onset = sound.event("onset", 0, 1)
    assert fired(engine, onset, sound.label(1), sound.label(1.5, None)) == []
    assert fired(engine, sound.label(2)) == ["s-1"]


def test_confirmed_and_silence_count_what_a_summary_stands_for():
    sound = Sound()
    hops = Summary(1, round(2.5 * RATE), NOON + 2.5, 4, 0.5, 0.5, ["Dog"], [[0, 500]] * 4)
    labels = msgspec.structs.replace(sound.label(4.0), seq=4, summary=hops)
    states = msgspec.structs.replace(
        sound.status(124.0), seq=121, summary=Summary(1, 5 * RATE, NOON + 5, 120)
    )
    engine = Engine(
        [rule(label="Dog", confirmed=4), rule(name="quiet", label="Dog", silence_s=100.0)]
    )
    said = [
        sound.status(0),
        sound.event("onset", 1, 2),
        labels,
        sound.event("offset", 1, 4),
        states,
    ]
    found = [fired(engine, *unrolled(each)) for each in said]
    assert [each for each in found if each] == [["s-1"], ["-"]]
    assert found[2] == ["s-1"]


def test_a_late_event_is_confirmed_by_its_length():
    sound, engine = Sound(), Engine([rule(confirmed=4)])
    short = sound.event("offset", 0, 1), sound.event("offset", 0, 1.5)
    assert [each for message in short for each in engine.take(message, late=True)] == []
    assert len(engine.take(sound.event("offset", 5, 8, n=2), late=True)) == 1


def test_what_a_late_event_is_confirmed_by_follows_the_listeners_hop():
    sound, engine = Sound(), Engine([rule(confirmed=4)])
    engine.take(msgspec.structs.replace(hello(0), settings={"hop_s": 0.96}))
    assert engine.take(sound.event("offset", 0, 3), late=True) == []
    assert len(engine.take(sound.event("offset", 5, 9, n=2), late=True)) == 1


def test_events_that_are_late_keep_their_distance():
    """What comes from the journal in one go did not happen in one go."""
    sound, engine = Sound(), Engine([rule(times=2, within_s=10), rule(name="q", cooldown_s=100)])
    assert fired(engine, sound.status(1000)) == []
    late = [sound.event("onset", at, at + 1, n=at) for at in (100, 150, 300)]
    got = [(each.rule, each.event) for message in late for each in engine.take(message, late=True)]
    assert got == [("q", "s-100"), ("q", "s-300")]


def test_late_events_of_an_old_session_among_states_of_the_new_one():
    """A service that was away: the backlog comes while the next session is under way."""
    rules_ = [
        rule(times=2, within_s=10),
        rule(name="q", cooldown_s=100),
        rule(name="s", silence_s=50),
    ]
    old, new = Sound("a"), Sound("b", NOON + 5000)
    engine = Engine(rules_)
    assert fired(engine, old.status(1), new.status(1)) == []
    late = [old.event("onset", at, at + 1, n=at) for at in (100, 150, 300, 305)]
    got = []
    for number, message in enumerate(late):
        got += [(each.rule, each.event) for each in engine.take(message, late=True)]
        got += [(each.rule, each.event) for each in engine.take(new.status(2 + number))]
    assert got == [("q", "a-100"), ("q", "a-300"), ("r", "a-305")]
    # none of them lasts: the silence of the new session counts
    assert fired(engine, *map(new.status, range(6, 60))) == ["-"]


def test_a_clock_set_back_between_sessions_mutes_nothing():
    engine = Engine([rule(cooldown_s=100)])
    assert fired(engine, Sound("a").event("onset", 0, 1)) == ["a-1"]
    assert fired(engine, Sound("b", NOON - 1e8).event("onset", 0, 1)) == ["b-1"]


def test_confidence_cooldown_and_source():
    sound = Sound()
    engine = Engine([rule(confidence=0.7, cooldown_s=60, source="mi?")])
    assert fired(engine, sound.event("onset", 0, 1, peak=0.6)) == []
    assert fired(engine, sound.event("revised", 0, 2, peak=0.8)) == ["s-1"]
    assert fired(engine, sound.event("onset", 30, 31, n=2, peak=0.9)) == []
    assert fired(engine, sound.event("onset", 90, 91, n=3, peak=0.9)) == ["s-3"]
    other = sound.event("onset", 0, 1, n=4, peak=0.9, source="garden")
    assert fired(engine, other) == []


@pytest.mark.parametrize(
    ("hours", "at", "wanted"),
    [("22:00-06:00", "23:30", True), ("22:00-06:00", "05:59", True),
     ("22:00-06:00", "06:00", False), ("08:00-24:00", "23:59", True),
     (["07:00-08:00", "12:00-13:00"], "12:30", True)],
)  # fmt: skip
def test_hours_are_local(hours, at, wanted):
    hour, minute = map(int, at.split(":"))
    midnight = time.mktime((2026, 11, 28, hour, minute, 0, 0, 0, -1))
    assert rule(hours=hours).awake(midnight) == wanted


def test_the_washing_machine_has_finished():
    sound = Sound()
    engine = Engine([rule(label="Washing*", lasting_s=60, silence_after_s=120)])
    states = [sound.status(at) for at in range(0, 300)]
    assert fired(engine, *states) == []  # nothing was there before
    onset = sound.event("onset", 300, 301, "Washing machine")
    offset = sound.event("offset", 300, 400, "Washing machine")
    running = [sound.status(at) for at in range(301, 400)]
    silence = [sound.status(at) for at in range(400, 700)]
    fired_at = [
        message.position / RATE
        for message in [onset, sound.label(370, None), *running, offset, *silence]
        if engine.take(message)
    ]
    assert len(fired_at) == 1
    assert fired_at[0] == pytest.approx(520, abs=2)


def test_no_sound_from_the_pump_for_an_hour():
    sound, engine = Sound(), Engine([rule(label="Pump", silence_s=3600)])
    assert fired(engine, *map(sound.status, range(0, 3590, 10))) == []
    assert fired(engine, *map(sound.status, range(3600, 9000, 10))) == ["-"]  # once
    on, off = sound.event("onset", 9000, 9001, "Pump"), sound.event("offset", 9000, 9010, "Pump")
    assert fired(engine, on, off, *map(sound.status, range(9010, 12000, 10))) == []
    assert fired(engine, *map(sound.status, range(12000, 13000, 10))) == ["-"]


def test_a_microphone_that_is_away_is_no_silence():
    sound, engine = Sound(), Engine([rule(label="Pump", silence_s=100)])
    lost = [sound.status(at, "lost") for at in range(0, 500)]
    muted = [sound.status(at, "silent") for at in range(500, 900)]
    assert fired(engine, *lost, *muted, sound.status(901), sound.status(1500)) == []


def test_a_clock_that_leaps_moves_no_duration():
    sound, engine = Sound(), Engine([rule(times=2, within_s=10), rule(name="q", silence_s=50)])
    first = sound.event("onset", 0, 1), sound.event("offset", 0, 1.5)
    assert fired(engine, *first, sound.status(2)) == []
    sound.at += 86_400 * 365  # the wall clock leaps ahead by a year
    assert fired(engine, sound.status(3), sound.event("onset", 4, 5, n=2)) == ["s-2"]
    sound.at -= 86_400 * 700  # and back
    assert fired(engine, sound.event("offset", 4, 6, n=2), sound.status(7)) == []
    assert fired(engine, *map(sound.status, range(8, 70))) == ["-"]


def test_what_is_counted_outlives_a_restart_and_a_new_session():
    rule_ = rule(times=2, within_s=60)
    first = Engine([rule_])
    sound = Sound()
    assert fired(first, sound.event("onset", 0, 1), sound.event("offset", 0, 2)) == []
    kept = msgspec.json.decode(msgspec.json.encode(first.memory), type=Memory)
    second = Engine([rule_], kept)
    assert fired(second, sound.event("onset", 0, 1)) == []  # the same again
    later = Sound("t", NOON + 30)
    assert fired(second, later.event("onset", 0, 1)) == ["t-1"]


def test_a_text_puts_in_what_it_names_and_nothing_else():
    sound, engine = Sound(), Engine([rule(text="{label} {0.__class__} {nope} }{ 100 %")])
    [firing] = engine.take(sound.event("onset", 0, 1, "{source}"))
    assert firing.text == "{source} {0.__class__} {nope} }{ 100 %"


def test_an_old_sessions_onset_that_comes_by_replay_lasts_no_more():
    """Both were killed: the new session's state comes live, the old onset from the journal."""
    old, new = Sound("a"), Sound("b", NOON + 15)
    rules_ = [rule(silence_s=60), rule(name="long", lasting_s=600), rule(name="q")]
    engine = Engine(rules_)
    assert fired(engine, old.status(1), new.status(1)) == []
    assert fired(engine, old.event("onset", 5, 6)) == ["a-1"]
    labels = [new.label(at, "Dog") for at in range(2, 700)]
    assert fired(engine, *labels) == []
    assert fired(engine, *map(new.status, range(2, 70))) == ["-"]


def test_an_old_sessions_event_without_its_labels_is_confirmed_by_its_length():
    old, new = Sound("a"), Sound("b", NOON + 15)
    engine = Engine([rule(confirmed=4)])
    assert fired(engine, old.status(1), new.status(1), old.event("offset", 5, 8)) == ["a-1"]


def test_an_onset_before_the_first_state_of_its_session_lasts():
    old, new = Sound("a"), Sound("b", NOON + 15)
    engine = Engine([rule(lasting_s=3)])
    assert fired(engine, old.status(1), new.event("onset", 1, 2), new.status(2)) == []
    assert fired(engine, new.label(5)) == ["b-1"]


def test_lasting_counts_no_further_than_decisions_name_it():
    """The end is dated back as far as the onset was: labels name it until then."""
    sound, engine = Sound(), Engine([rule(label="Rooster", lasting_s=4)])
    onset = sound.event("onset", 0, 1.28, "Rooster")
    named = [sound.label(at, "Rooster") for at in (1.76, 2.24, 2.72, 3.2, 3.68, 4.16)]
    others = [sound.label(at, "Dog") for at in (4.64, 5.12, 5.6)]
    offset = sound.event("offset", 0, 6, "Rooster", end=round(2.88 * RATE))
    assert fired(engine, onset, *named, *others, offset) == []
    onset, offset = (
        sound.event(*of, "Rooster", 2) for of in (("onset", 10, 11), ("offset", 10, 15))
    )
    assert fired(engine, onset, offset) == ["s-2"]


def test_a_label_that_is_among_the_strongest_lasts():
    sound, engine = Sound(), Engine([rule(label="Animal", lasting_s=3)])
    top = [Scored("Dog", 0.9), Scored("Animal", 0.8)]
    labels = [msgspec.structs.replace(sound.label(at), top=top) for at in (2, 3, 4, 5)]
    assert fired(engine, sound.event("onset", 0, 1, "Animal"), *labels) == ["s-1"]


@pytest.mark.parametrize("first", ["label", "event"])
def test_what_confirms_does_not_depend_on_what_comes_first(first):
    sound, engine = Sound(), Engine([rule(confirmed=2)])
    onset, deciding = sound.event("onset", 0, 1), sound.label(1)
    messages = [deciding, onset] if first == "label" else [onset, deciding]
    refined = msgspec.structs.replace(deciding, refinement=1)
    assert fired(engine, sound.label(-1), *messages, refined) == []  # one before it, one of it
    assert fired(engine, sound.label(1.5)) == ["s-1"]


@pytest.mark.parametrize("first", ["label", "event"])
def test_the_label_of_the_last_decision_counts_whichever_comes_first(first):
    sound, engine = Sound(), Engine([rule(confirmed=2)])
    assert fired(engine, sound.event("onset", 0, 1), sound.label(1)) == []
    last = [sound.label(1.5), sound.event("offset", 0, 1.5, end=RATE)]
    assert fired(engine, *(last if first == "label" else last[::-1])) == ["s-1"]
    more = sound.event("onset", 2, 3, n=2), sound.event("offset", 2, 4, n=2), sound.label(4.5)
    assert fired(engine, sound.label(3), *more, sound.label(5)) == []
    assert not engine.memory.tracks["r\nmic"].open


def test_a_leftover_revision_makes_no_second_silence():
    sound, engine = Sound(), Engine([rule(silence_s=5)])
    bark = sound.event("onset", 8, 9), sound.event("offset", 8, 10)
    assert fired(engine, *bark, *map(sound.status, range(11, 18))) == ["-"]
    earlier = sound.event("revised", 8, 18, end=round(9.5 * RATE))
    assert fired(engine, earlier, *map(sound.status, range(19, 60))) == []


def test_silence_counts_from_the_newest_end():
    """A step of the states in which it sounded counts from its end only."""
    sound, engine = Sound(), Engine([rule(silence_s=50)])
    bark = sound.event("onset", 1, 2), sound.event("offset", 1, 50)
    assert fired(engine, sound.status(0), *bark, sound.status(55)) == []
    assert fired(engine, sound.status(99), sound.status(100)) == ["-"]


def test_silence_does_not_count_what_went_by_while_nobody_read():
    sound, engine = Sound(), Engine([rule(silence_s=50)])
    assert fired(engine, *map(sound.status, range(10))) == []
    again = Engine([rule(silence_s=50)], engine.memory)
    assert fired(again, sound.status(60), sound.status(95)) == []
    assert fired(again, sound.status(101)) == ["-"]


def retracted(sound: Sound, start: float, now: float, n: int):
    return sound.event("revised", start, now, n=n, end=round(start * RATE), retracted=True)


def test_what_is_retracted_does_not_count():
    sound = Sound()
    engine = Engine([rule(times=3, within_s=100), rule(name="after", silence_after_s=10)])
    for n in (1, 2):
        at = 10 * n
        assert fired(engine, sound.event("onset", at, at + 1, n=n)) == []
        assert fired(engine, retracted(sound, at, at + 2, n)) == []
    assert fired(engine, *map(sound.status, range(25, 60))) == []
    assert fired(engine, sound.event("onset", 70, 71, n=3)) == []


def test_the_text_after_a_silence_is_of_the_event_that_counted():
    text = "{label} has finished after {lasted_s} s, {count} times, peak {peak}"
    sound, engine = Sound(), Engine([rule(silence_after_s=3, times=2, text=text)])
    for n, at in ((1, 10), (2, 20)):
        engine.take(sound.event("onset", at, at + 1, n=n))
        engine.take(sound.event("offset", at, at + 5, n=n))
    [firing] = [each for at in range(26, 40) for each in engine.take(sound.status(at))]
    assert firing.text == "Dog has finished after 5 s, 2 times, peak 0.50"
    assert firing.event == "s-2"


def test_a_date_beyond_the_calendar_is_taken_for_its_end():
    sound, engine = Sound(at=1e12), Engine([rule(hours="00:00-24:00")])
    [firing] = engine.take(sound.event("onset", 0, 1))
    assert "9999-12-3" in firing.text
