"""MQTT's topics and states, without a broker."""

import json
import re
import time

import msgspec
import pytest

pytest.importorskip("aiomqtt")

from streamtwl.errors import UsageError
from streamtwl.services import roll
from streamtwl.services import service as service_module
from streamtwl.services.mqtt import states as states_module
from streamtwl.services.mqtt.states import Memory, States
from streamtwl.services.mqtt.topics import Topics, slug
from streamtwl.services.service import Lateness
from tests.example_messages import event, label, status

HOSTILE = ["#", "+/+", "a/../b", "Dog\n", "", "$SYS", "Hü\u0000nd", "x" * 500, '{{ 1 }}"<b>']
TOPICS = Topics("streamtwl", "homeassistant")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_label_is_one_harmless_level_of_a_topic(name):
    assert re.fullmatch("[a-z0-9_]{1,60}", slug(name))
    for topic, payload in TOPICS.discovered("mic", [name], "1"):
        assert re.fullmatch(r"homeassistant/\w+/[a-zA-Z0-9_-]+/config", topic)
        assert re.fullmatch(r"[\w/]+", payload["state_topic"])


def test_two_labels_never_share_a_topic():
    assert slug("Doorbell") == "doorbell"
    assert slug("Speech synthesizer") == "speech_synthesizer"
    assert len({slug(each) for each in [*HOSTILE, "Dog", "dog!", "a b", "a_b", "a-b"]}) == 14


def test_two_entities_never_share_an_id():
    def ids(prefix: str, source: str, name: str) -> tuple[str, str, str]:
        topics = Topics(prefix, "homeassistant")
        topic, payload = next(topics.discovered(source, [name], "1"))
        return topic, payload["unique_id"], payload["device"]["identifiers"][0] + name

    for each in zip(
        ids("streamtwl", "kitchen", "Smoke alarm"),
        ids("streamtwl", "kitchen_smoke", "Alarm"),
        strict=True,
    ):
        assert each[0] != each[1]
    ways = [("a_b", "c"), ("a", "b_c"), ("a/b", "c"), ("a.b", "c"), ("a/b_c", "c")]
    for each in zip(*(ids(prefix, source, "Dog") for prefix, source in ways), strict=True):
        assert len(set(each)) == len(ways)


def test_an_entity_is_called_after_its_source_and_label():
    _, dog = next(TOPICS.discovered("kitchen", ["Dog"], "1"))
    assert dog["default_entity_id"] == "binary_sensor.streamtwl_kitchen_dog"


def test_home_assistants_own_prefix_is_refused():
    with pytest.raises(UsageError, match=r"prefix and \.discovery are both 'homeassistant'"):
        Topics("homeassistant", "homeassistant")


def test_labels_that_differ_in_case_alone_share_one():
    assert slug("DOG") == slug("dog")


@pytest.mark.parametrize("prefix", ["", "#", "a/+", "/a", "a\n", "a//b", "x" * 101])
def test_a_prefix_that_cannot_be_is_refused(prefix):
    with pytest.raises(UsageError, match=r"services\.mqtt\.prefix"):
        Topics(prefix, "")


def now(message, **more):
    return msgspec.structs.replace(message, published_at=time.time(), **more)


def of_label(states: States, name: str) -> bytes:
    return states.all[TOPICS.label("mic", name)]


def test_a_binary_sensor_follows_its_events():
    states = States(TOPICS, ["Dog", "Cat"], Memory())
    dog = {"id": "1", "label": "Dog", "end": None}
    states.take(now(event(0), **dog))
    assert (of_label(states, "Dog"), of_label(states, "Cat")) == (b"ON", b"OFF")
    states.take(now(event(1), **dog | {"label": "Cat", "phase": "revised"}))
    assert (of_label(states, "Dog"), of_label(states, "Cat")) == (b"OFF", b"ON")
    states.take(now(event(2), **dog | {"label": "Cat", "phase": "offset", "end": 9}))
    assert (of_label(states, "Dog"), of_label(states, "Cat")) == (b"OFF", b"OFF")


def test_a_binary_sensor_follows_the_kinds_of_its_sound_too():
    states = States(TOPICS, ["Dog", "Smoke alarm", "Bark"], Memory())
    states.take(now(event(0), id="1", label="Whimper (dog)", end=None))
    assert [of_label(states, each) for each in ("Dog", "Bark")] == [b"ON", b"OFF"]
    states.take(now(event(1), id="2", label="Smoke detector, smoke alarm", end=None))
    assert of_label(states, "Smoke alarm") == b"ON"


def test_an_everyday_sound_is_not_on_for_another():
    states = States(TOPICS, ["Door", "Doorbell", "Animal"], Memory())
    states.take(now(event(0), id="1", label="Ding-dong", end=None))
    assert of_label(states, "Doorbell") == b"ON"
    assert of_label(states, "Door") == b"OFF"
    states.take(now(event(1), id="2", label="Dog", end=None))
    assert of_label(states, "Animal") == b"ON"  # a category, with all of its kinds


def test_what_is_history_switches_nothing_on():
    states = States(TOPICS, ["Dog"], Memory())
    dog = {"id": "1", "label": "Dog", "published_at": time.time() - 3600}
    states.take(msgspec.structs.replace(event(0), end=None, **dog))
    states.take(msgspec.structs.replace(event(1), end=9, phase="offset", **dog))
    states.take(now(status(0)))
    assert (TOPICS.label("mic", "Dog"), b"ON") not in states.changes
    assert of_label(states, "Dog") == b"OFF"


def old(message, seconds: float, **more):
    return msgspec.structs.replace(message, published_at=time.time() - seconds, **more)


def test_what_was_held_up_switches_nothing_on():
    """A link that was frozen for a minute: states and events of then come, fast, one by one."""
    states = States(TOPICS, ["Dog"], Memory())
    states.take(now(status(0)))
    states.changes.clear()
    for number in range(5):
        age = 65 - 5 * number
        states.take(old(status(1 + number, event=2 * number), age))
        states.take(old(event(2 * number), age, id=f"s-{number}", label="Dog", end=None))
        states.take(old(event(2 * number + 1), age - 2, id=f"s-{number}", label="Dog", end=9))
    states.take(now(status(9, event=9)))
    assert (TOPICS.label("mic", "Dog"), b"ON") not in states.changes
    assert json.loads(states.all["streamtwl/mic/state"])["last_sound"] == "Dog"


def test_a_live_state_amid_a_replay_switches_nothing_on():
    states = States(TOPICS, ["Dog"], Memory())
    states.take(now(status(0)))
    for seq in range(0, 20, 2):
        states.take(old(event(seq), 3600, id=f"s-{seq}", label="Dog", end=None))
        states.take(now(status(1 + seq, event=19), state="silent"), lacking=True)
        states.take(now(label(seq, name=f"l{seq}")))
        states.take(old(event(seq + 1), 3599, id=f"s-{seq}", label="Dog", end=9, phase="offset"))
    assert (TOPICS.label("mic", "Dog"), b"ON") not in states.changes
    states.take(old(event(20), 600, id="s-20", label="Dog", end=None))
    assert of_label(states, "Dog") == b"OFF"
    states.take(now(status(30, event=20)))
    assert of_label(states, "Dog") == b"ON"  # it began long ago, and goes on


def test_what_sounded_when_the_program_ended_is_not_on_before_its_events_are_known():
    memory = Memory()
    first = States(TOPICS, ["Dog"], memory)
    first.take(now(status(0)))
    first.take(now(event(0), id="s-0", label="Dog", end=None))
    again = States(TOPICS, ["Dog"], memory)
    again.take(now(status(9, event=1)), lacking=True)
    assert TOPICS.label("mic", "Dog") not in again.all
    assert again.all["streamtwl/mic/availability"] == b"offline"
    again.take(old(event(1), 900, id="s-0", label="Dog", end=9, phase="offset"))
    again.take(now(status(10, event=1)))
    assert of_label(again, "Dog") == b"OFF"
    assert again.all["streamtwl/mic/availability"] == b"online"


def test_a_sound_whose_end_was_lost_ends(monkeypatch):
    states = States(TOPICS, ["Dog"], Memory())
    states.take(now(status(0)))
    states.take(now(event(0), id="s-0", label="Dog", end=None))
    states.take(now(status(1, event=1)), lacking=True)
    assert of_label(states, "Dog") == b"ON"  # it may still come
    monkeypatch.setattr(states_module, "LOST_S", -1.0)
    states.take(now(status(2, event=1)))
    assert of_label(states, "Dog") == b"OFF"
    states.take(now(event(2), id="s-1", label="Dog", end=None))
    assert of_label(states, "Dog") == b"ON"
    states.take(now(event(4), id="s-2", label="Cat", end=None))  # the one between never came
    assert of_label(states, "Dog") == b"OFF"


def test_a_clock_that_was_set_is_believed_when_it_stays(monkeypatch):
    lateness = Lateness()
    lateness.take(now(status(0)))
    lateness.take(old(status(1), 100))
    assert lateness.is_late(time.time() - 100)
    monkeypatch.setattr(service_module, "SURE_S", -1.0)
    lateness.take(old(status(2), 99))
    assert not lateness.is_late(time.time() - 100)


def test_a_listener_whose_clock_is_wrong_switches_all_the_same():
    for leap in (-86_400, 86_400):
        states = States(TOPICS, ["Dog"], Memory())
        then = {"published_at": time.time() + leap}
        states.take(msgspec.structs.replace(status(0), **then))
        states.take(msgspec.structs.replace(event(0), id="1", label="Dog", end=None, **then))
        assert of_label(states, "Dog") == b"ON"
        states.take(msgspec.structs.replace(event(1), id="1", label="Dog", end=9, **then))
        assert of_label(states, "Dog") == b"OFF"


def test_a_sound_of_a_listener_that_was_killed_ends_with_the_next_session():
    states = States(TOPICS, ["Dog"], Memory())
    states.take(now(status(0, "a")))
    states.take(now(event(0, "a"), label="Dog", end=None))
    assert of_label(states, "Dog") == b"ON"
    states.take(now(status(0, "b")))
    states.take(now(label(0, "b")))
    assert of_label(states, "Dog") == b"OFF"


def test_an_event_of_an_old_session_that_comes_late_does_not_last():
    states = States(TOPICS, ["Dog"], Memory())
    states.take(now(status(0, "a")))
    states.take(now(status(0, "b")))
    states.take(now(event(0, "a"), label="Dog", end=None))
    states.take(now(event(0, "b"), label="Dog", end=None, id="b-1"))
    assert list(states.memory.sounding["mic"]) == ["b-1"]


def test_the_level_is_published_unweighted_and_a_weighted():
    states = States(TOPICS, [], Memory())
    states.take(now(status(0), level_dbfs=-31.26, level_dba=52.34))
    state = json.loads(states.all["streamtwl/mic/state"])
    assert (state["level_dbfs"], state["level_dba"]) == (-31.3, 52.3)
    announced = dict(TOPICS.discovered("mic", [], "1"))
    config = announced["homeassistant/sensor/streamtwl_mic-level_dba/config"]
    assert (config["device_class"], config["unit_of_measurement"]) == ("sound_pressure", "dBA")


def test_a_listener_that_says_nothing_is_not_available(monkeypatch):
    states = States(TOPICS, [], Memory())
    states.take(now(status(0)))
    assert states.all["streamtwl/mic/availability"] == b"online"
    monkeypatch.setattr("streamtwl.services.mqtt.states.GONE_S", -1.0)
    states.look()
    assert states.all["streamtwl/mic/availability"] == b"offline"


def test_the_last_sound_is_the_one_that_began_last():
    states = States(TOPICS, [], Memory())

    def last(message) -> tuple[str | None, float]:
        states.take(message)
        state = json.loads(states.all["streamtwl/mic/state"])
        return state["last_sound"], state["last_sound_at"]

    states.take(now(status(0)))
    first = last(now(event(0), id="1", label="Dog", end=None))
    assert first[0] == "Dog"
    second = last(now(event(1), id="2", label="Cat", end=None))
    assert second[0] == "Cat"
    # a pipe has no clock: each message dates the beginning anew
    later = msgspec.structs.replace(event(2), id="1", label="Dog", phase="offset", end=9, start=0)
    assert last(msgspec.structs.replace(later, published_at=time.time() + 5)) == second
    revised = event(3)
    assert last(now(revised, id="2", label="Lion", phase="revised")) == ("Lion", second[1])
    assert last(now(event(4), id="2", label="Lion", end=0, retracted=True)) == first
    assert last(now(event(5), id="1", label="Dog", end=0, retracted=True)) == (None, None)


def test_a_source_that_the_newest_session_does_not_have_is_forgotten(monkeypatch):
    states = States(TOPICS, ["Dog"], Memory())
    monkeypatch.setattr(roll, "GONE_S", -1.0)
    states.take(now(status(0, "a")))
    states.look()
    assert states.sources == ["mic"]  # it may come back
    states.take(now(status(0, "b"), source="hall"))
    states.look()
    assert states.sources == ["hall"]
    assert not [topic for topic in states.all if topic.startswith("streamtwl/mic/")]
    states.take(old(event(1, "a"), 600))  # of before
    assert states.sources == ["hall"]
