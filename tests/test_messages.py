import json

import msgspec
import pytest

from streamtwl.messages import (
    Event,
    Hello,
    Label,
    Message,
    Patch,
    Scored,
    Status,
    decode,
    encode,
    topic,
)

COMMON = {
    "source": "kitchen",
    "session": "abc",
    "seq": 3,
    "position": 15_600,
    "captured_at": 1.7e9,
    "published_at": 1.7e9 + 0.25,
}
COUNTS = {field.name: 7 for field in msgspec.structs.fields(Status) if field.type is int}
TOP = [Scored("Dog", 0.5), Scored("Smoke detector, smoke alarm", 0.25)]
MESSAGES = [
    Hello(
        **COMMON,
        labels=["Dog", "Gürteltier"],
        settings={"hop_s": 0.48, "events": {"include": []}},
        models={"yamnet": "ab12"},
        replay="tcp://127.0.0.1:5578",
    ),
    Patch(**COMMON, top=TOP, level_dbfs=-120.0),
    Label(
        **(COMMON | {"captured_at": None}),
        label=None,
        confidence=0.05,
        top=TOP,
        reasoner="evidence",
        samples=16,
        traces=1,
        refinement=0,
        latency_ms=2.5,
    ),
    Event(
        **COMMON, id="abc-kitchen-0", phase="onset", label="Dog", start=7800, end=None, peak=0.5,
        mean=0.5,
    ),
    Status(
        **COUNTS | COMMON, state="lost", error="unplugged", last_seq={"label/kitchen/": 3},
        level_dbfs=-60.0, real_time_factor=0.01, memory_mb=120.5, capture_delay_ms=None,
        resampling_delay_ms=21.0,
    ),
]  # fmt: skip
KINDS = ["hello", "patch", "label", "event", "status"]
every_message = pytest.mark.parametrize("message", MESSAGES, ids=KINDS)
every_encoding = pytest.mark.parametrize("encoding", ["msgpack", "json"])


@every_message
@every_encoding
def test_a_message_comes_back_as_it_went(message, encoding):
    found = decode(encode(message, encoding))
    assert type(found) is type(message)
    assert found == message


@every_message
def test_both_encodings_say_the_same(message):
    plain = msgspec.msgpack.decode(encode(message, "msgpack"))
    assert json.loads(encode(message, "json")) == plain


@every_message
def test_messagepack_is_the_default(message):
    assert encode(message) == encode(message, "msgpack")


@every_message
@every_encoding
def test_what_a_newer_version_adds_is_ignored(message, encoding):
    plain = json.loads(encode(message, "json")) | {"mood": ["new", {"in": "2.0"}], "schema": "9.0"}
    payload = (msgspec.json if encoding == "json" else msgspec.msgpack).encode(plain)
    found = decode(payload)
    assert found.schema == "9.0"
    found.schema = message.schema
    assert found == message


@pytest.mark.parametrize(("message", "kind"), list(zip(MESSAGES, KINDS, strict=True)))
def test_topics_and_tags_are_the_kind(message, kind):
    assert message.topic == f"{kind}/kitchen/"
    assert json.loads(encode(message, "json"))["kind"] == kind
    assert topic(type(message), "attic") == f"{kind}/attic/"
    assert topic(type(message), "") == f"{kind}/"


def test_a_topic_is_no_prefix_of_a_longer_sources():
    assert not topic(Label, "kitchen-2").startswith(topic(Label, "kitchen"))


@every_message
def test_every_message_carries_what_all_carry(message):
    plain = json.loads(encode(message, "json"))
    assert set(Message.__struct_fields__) | {"kind"} <= set(plain)
    assert plain["schema"] == "1.0"


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"hello", b"\xc1", b"{}", b'{"kind": "poem"}', b'{"kind": "label"}', b"\x80"],
)
def test_what_is_no_message_is_a_decode_error(payload):
    with pytest.raises(msgspec.DecodeError):
        decode(payload)
