import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtwl.errors import MessageError, UnknownKind
from streamtwl.messages import (
    SCHEMA,
    AnyMessage,
    Event,
    Hello,
    Label,
    Message,
    Patch,
    Scored,
    Status,
    Summary,
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
COUNTS = {
    name: 7
    for name, field in msgspec.json.schema(Status)["$defs"]["Status"]["properties"].items()
    if field.get("type") == "integer"
}
TOP = [Scored("Dog", 0.5), Scored("Smoke detector, smoke alarm", 0.25)]
MESSAGES = [
    Hello(
        **COMMON,
        labels=["Dog", "Gürteltier"],
        settings={"hop_s": 0.48, "events": {"include": []}},
        models={"yamnet": "ab12"},
        replay="tcp://127.0.0.1:5578",
        providers={"yamnet": "CPUExecutionProvider"},
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


def changed(message: Message, encoding: str, **changes) -> bytes:
    """The payload of a message with other values under some keys."""
    plain = json.loads(encode(message, "json")) | changes
    return (msgspec.json if encoding == "json" else msgspec.msgpack).encode(plain)


@every_message
@every_encoding
def test_what_a_newer_minor_version_adds_is_ignored(message, encoding):
    payload = changed(message, encoding, mood=["new", {"in": "1.9"}], schema="1.9")
    found = decode(payload)
    assert found.schema == "1.9"
    found.schema = message.schema
    assert found == message


@every_message
@every_encoding
def test_a_newer_major_version_is_refused_with_both_versions(message, encoding):
    with pytest.raises(MessageError, match=rf"schema 2\.0.*{SCHEMA}"):
        decode(changed(message, encoding, schema="2.0"))
    with pytest.raises(MessageError, match=rf"schema 2\.0.*{SCHEMA}"):  # unreadable besides
        decode(changed(message, encoding, schema="2.0", seq="three"))


@every_encoding
def test_a_kind_that_came_later_is_told_apart_from_damage(encoding):
    with pytest.raises(UnknownKind, match="poem"):
        decode(changed(MESSAGES[0], encoding, kind="poem"))
    with pytest.raises(MessageError) as raised:
        decode(changed(MESSAGES[0], encoding, seq=-1))
    assert not isinstance(raised.value, UnknownKind)


def test_a_state_that_came_later_is_taken():
    assert decode(changed(MESSAGES[4], "json", state="dreaming")).state == "dreaming"


def test_messages_of_the_first_version_are_read():
    """They lack what 1.1 added, as an old journal does."""
    for message in MESSAGES:
        plain = json.loads(encode(message, "json")) | {"schema": "1.0"}
        for added in ("journalled", "journal_errors", "journal", "providers"):
            plain.pop(added, None)
        found = decode(msgspec.json.encode(plain))
        assert not getattr(found, "journalled", False)


def test_a_label_of_1_6_repeats_nothing_that_it_says():
    plain = json.loads(encode(MESSAGES[2], "json")) | {"schema": "1.6"}
    del plain["repeat"], plain["summary"]
    found = decode(msgspec.json.encode(plain))
    assert (found.repeat, found.summary) == (False, None)


def test_a_hello_of_1_2_says_nothing_of_providers():
    plain = json.loads(encode(MESSAGES[0], "json")) | {"schema": "1.2"}
    del plain["providers"]
    assert decode(msgspec.json.encode(plain)).providers == {}


numbers = st.floats(allow_nan=False, allow_infinity=False)
shares = st.floats(0, 1)
counts = st.integers(0, 2**53)
words = st.text(max_size=20)
tops = st.lists(st.builds(Scored, words, shares), max_size=5)
summaries = st.builds(
    Summary, counts, counts, numbers, counts, st.none() | shares, st.none() | shares,
    st.lists(words, max_size=5), st.lists(st.lists(st.integers(0, 1000), max_size=4), max_size=5),
)  # fmt: skip
common = {
    "source": st.from_regex(r"\A[a-z0-9_-]+\Z"),
    "session": words,
    "seq": counts,
    "position": counts,
    "captured_at": st.none() | numbers,
    "published_at": numbers,
}
any_message = st.one_of(
    st.builds(
        Hello,
        labels=st.lists(words),
        settings=st.dictionaries(words, numbers | words | counts | st.lists(words)),
        models=st.dictionaries(words, words),
        **common,
    ),
    st.builds(Patch, top=tops, level_dbfs=st.floats(-120, 30), **common),
    st.builds(
        Label, label=st.none() | words, confidence=shares, top=tops, reasoner=words,
        samples=counts, traces=counts, refinement=counts, latency_ms=numbers,
        journalled=st.booleans(), repeat=st.booleans(), summary=st.none() | summaries, **common,
    ),
    st.builds(
        Event, id=words, phase=st.sampled_from(["onset", "offset", "revised"]), label=words,
        start=counts, end=st.none() | counts, peak=shares, mean=shares,
        journalled=st.booleans(), **common,
    ),
    st.builds(
        Status,
        **dict.fromkeys(COUNTS, counts) | common,
        state=words, error=st.none() | words, last_seq=st.dictionaries(words, counts),
        level_dbfs=st.floats(-120, 30), real_time_factor=st.floats(0, 1e6),
        memory_mb=st.floats(0, 1e6), capture_delay_ms=st.none() | numbers,
        resampling_delay_ms=st.floats(0, 1e6), journalled=st.booleans(),
        journal=st.none() | words,
    ),
)  # fmt: skip


@given(any_message)
def test_whatever_is_said_is_said_alike_in_both_encodings(message):
    assert decode(encode(message, "msgpack")) == message
    assert decode(encode(message, "json")) == message


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@every_encoding
def test_what_json_has_no_word_for_is_refused(number, encoding):
    patch, label = (msgspec.structs.replace(message) for message in MESSAGES[1:3])
    patch.level_dbfs = number
    label.top = [Scored("Dog", number)]
    hello = msgspec.structs.replace(MESSAGES[0], settings={"events": {"on": [number]}})
    for message, where in ((patch, "level_dbfs"), (label, "top.score"), (hello, "settings.events")):
        with pytest.raises(ValueError, match=where):
            encode(message, encoding)


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
    assert plain["schema"] == SCHEMA


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"hello", b"\xc1", b"{}", b'{"kind": "poem"}', b'{"kind": "label"}', b"\x80"],
)
def test_what_is_no_message_is_a_message_error(payload):
    with pytest.raises(MessageError):
        decode(payload)


@pytest.mark.parametrize("field", [b"\xa8settings", b"\xa8whatever"])
def test_what_is_nested_beyond_measure_is_a_message_error(field):
    payload = encode(MESSAGES[0])
    nested = payload.replace(b"\xa8settings", field + b"\x91" * 100_000 + b"\x90" + b"\xa8settings")
    with pytest.raises(MessageError):
        decode(nested)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: b"{" + text.encode()))
def test_nothing_but_a_message_error_comes_of_noise(payload):
    try:
        assert isinstance(decode(payload), AnyMessage)
    except MessageError as error:
        assert str(error)  # noqa: PT017
