"""The client without its sockets: whatever the network does, each message once and in order."""

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamtwl.client import sequencer
from streamtwl.client.sequencer import TIMEOUT_S, TRIES, Sequencer
from streamtwl.messages import AnyMessage, ReplayHeader, Summary
from tests.example_messages import event, hello, label, patch, status


def only(*kinds: str):
    return lambda topic: topic.partition("/")[0] in kinds


def left(one: Sequencer) -> list[tuple[str, str, int]]:
    """Take what leaves, as its user does."""
    told = []
    while one.ready:
        message = one.ready.popleft()
        one.had(message)
        told.append((message.session, message.topic, message.seq))
    return told


def seqs(one: Sequencer) -> list[int]:
    return [seq for _, _, seq in left(one)]


def answer(request, messages: list[AnyMessage], following: int | None = None) -> tuple:
    header = ReplayHeader(
        session=request.session, topic=request.topic, from_=request.from_, next=following,
        count=len(messages),
    )  # fmt: skip
    return header, messages


def test_what_is_in_order_leaves_at_once():
    one = Sequencer(only("label"))
    for seq in (7, 8, 9):
        one.take(label(seq), 0.0)
        assert seqs(one) == [seq]
    assert one.request(0.0) is None
    assert one.due(0.0) is None


def test_a_newcomer_is_not_told_what_was_before():
    one = Sequencer(only("label", "event", "status"))
    one.take(status(4, label=6, event=2), 0.0)
    assert one.request(0.0) is None
    one.take(label(7), 0.0)
    assert left(one) == [("s", "status/mic/", 4), ("s", "label/mic/", 7)]


def test_what_comes_after_a_gap_waits_for_what_is_missing():
    one = Sequencer(only("label"))
    one.take(hello(0), 0.0)
    for seq in (0, 3, 4):
        one.take(label(seq), 0.0)
    assert seqs(one) == [0]
    request = one.request(0.0)
    assert (request.session, request.topic, request.from_, request.to) == ("s", "label/mic/", 1, 2)
    assert one.request(1.0) is None  # one at a time
    one.answer(*answer(request, [label(1), label(2)]), 1.0)
    assert seqs(one) == [1, 2, 3, 4]
    assert (one.recovered, one.lost, one.due(1.0)) == (2, {}, None)


def test_a_lost_last_message_is_told_of_by_status():
    one = Sequencer(only("label"))
    one.take(label(0), 0.0)
    one.take(status(0, label=1), 0.0)
    request = one.request(0.0)
    assert (request.from_, request.to) == (1, 1)
    one.answer(*answer(request, [label(1)]), 0.0)
    assert seqs(one) == [0, 1]


def test_a_first_message_is_missed_too_where_status_came_before_it():
    one = Sequencer(only("label"))
    one.take(status(0), 0.0)
    one.take(label(1), 0.0)
    assert one.request(0.0).from_ == 0


def test_what_the_journal_lacks_is_lost_and_counted():
    one = Sequencer(only("label"))
    one.take(hello(0), 0.0)
    for seq in (0, 5):
        one.take(label(seq), 0.0)
    one.answer(*answer(one.request(0.0), [label(2), label(4)]), 0.0)
    assert seqs(one) == [0, 2, 4, 5]
    assert one.lost == {"label": 2}


def test_pages_are_asked_for_one_after_the_other():
    one = Sequencer(only("label"))
    one.take(hello(0), 0.0)
    for seq in (0, 5):
        one.take(label(seq), 0.0)
    one.answer(*answer(one.request(0.0), [label(1), label(2)], following=3), 0.0)
    assert seqs(one) == [0, 1, 2]
    request = one.request(0.0)
    assert (request.from_, request.to) == (3, 4)
    one.answer(*answer(request, [label(3), label(4)]), 0.0)
    assert seqs(one) == [3, 4, 5]


def test_an_empty_page_leads_to_the_next():
    one = Sequencer(only("label"))
    one.take(hello(0), 0.0)
    for seq in (0, 5):
        one.take(label(seq), 0.0)
    one.answer(*answer(one.request(0.0), [], following=4), 0.0)
    assert one.request(0.0).from_ == 4
    assert one.lost == {"label": 3}


def test_topics_take_turns():
    one = Sequencer(only("label", "event"))
    one.take(hello(0), 0.0)
    for message in (label(0), label(9), event(0), event(9)):
        one.take(message, 0.0)
    asked = []
    for _ in range(4):
        request = one.request(0.0)
        asked.append((request.topic, request.from_))
        page = [label, event]["event" in request.topic](request.from_)
        one.answer(*answer(request, [page], following=request.from_ + 1), 0.0)
    assert asked == [("label/mic/", 1), ("event/mic/", 1), ("label/mic/", 2), ("event/mic/", 2)]


def test_patches_are_counted_and_not_asked_for():
    one = Sequencer(only("patch"))
    for seq in (0, 3):
        one.take(patch(seq), 0.0)
    assert seqs(one) == [0, 3]
    one.take(status(0, patch=5), 0.0)
    assert one.request(0.0) is None
    assert one.lost == {"patch": 4}


@pytest.mark.parametrize("known", [True, False])
def test_without_replay_one_goes_on_at_once_or_when_it_is_clear_that_there_is_none(known):
    one = Sequencer(only("label"))
    for seq in (0, 2):
        one.take(label(seq), 0.0)
    if known:
        one.take(hello(0, replay=None), 0.0)
    else:
        assert one.request(0.0) is None
        assert one.due(0.0) == TIMEOUT_S
    assert one.request(0.0 if known else TIMEOUT_S) is None
    assert seqs(one) == [0, 2]
    assert one.lost == {"label": 1}


def test_a_server_that_never_answers_holds_a_topic_up_for_a_while_and_the_next_time_shorter():
    one = Sequencer(only("label", "status"))
    one.take(hello(0), 0.0)
    for seq in (0, 2):
        one.take(label(seq), 0.0)
    assert seqs(one) == [0]
    for number in range(TRIES):
        now = number * TIMEOUT_S
        assert one.request(now) is not None
        assert one.due(now) == now + TIMEOUT_S
        one.take(status(number, label=2), now)  # others go on
        assert left(one) == [("s", "status/mic/", number)]
    now += TIMEOUT_S
    assert one.request(now) is None
    assert seqs(one) == [2]
    one.take(label(4), now)
    assert one.request(now) is not None
    assert one.request(now + TIMEOUT_S) is None
    assert seqs(one) == [4]
    assert one.lost == {"label": 2}


def test_a_refusal_is_waited_out():
    one = Sequencer(only("label"))
    one.take(hello(0), 0.0)
    for seq in (0, 2):
        one.take(label(seq), 0.0)
    request = one.request(0.0)
    one.answer(ReplayHeader(error="too many requests: wait"), [], 0.0)
    assert one.request(0.0) is None
    assert one.request(one.due(0.0)) == request


def test_an_answer_that_comes_too_late_is_no_answer_to_the_next_question():
    one = Sequencer(only("label"))
    one.take(hello(0), 0.0)
    for seq in (0, 2):
        one.take(label(seq), 0.0)
    first = one.request(0.0)
    assert one.request(TIMEOUT_S) == first  # again
    one.answer(*answer(first, [label(1)]), TIMEOUT_S)
    one.take(label(4), TIMEOUT_S)
    second = one.request(TIMEOUT_S)
    one.answer(*answer(first, [label(1)]), TIMEOUT_S)  # the first, again
    assert seqs(one) == [0, 1, 2]
    one.answer(*answer(second, [label(3)]), TIMEOUT_S)
    assert seqs(one) == [3, 4]
    assert not one.lost


def test_a_late_answer_does_not_speak_for_what_came_after_the_question():
    one = Sequencer(only("label"))
    one.take(label(0), 0.0)
    one.take(status(0, label=2), 0.0)
    first = one.request(0.0)
    one.take(status(1, label=4), 1.0)
    assert one.request(TIMEOUT_S) == first  # as it was
    one.answer(*answer(first, [label(1), label(2)]), TIMEOUT_S)  # to the first time
    assert (seqs(one), one.lost) == ([0, 1, 2], {})
    second = one.request(TIMEOUT_S)
    one.answer(*answer(first, [label(1), label(2)]), TIMEOUT_S)  # to the second
    one.answer(*answer(second, [label(3), label(4)]), TIMEOUT_S)
    assert (seqs(one), one.lost) == ([3, 4], {})


def test_a_late_answer_does_not_end_a_session_that_is_over_meanwhile():
    one = Sequencer(only("label"))
    one.take(label(0, "old"), 0.0)
    one.take(status(0, "old", label=1), 0.0)
    first = one.request(0.0)
    one.take(hello(0, "new"), 1.0)
    assert one.request(TIMEOUT_S) == first
    one.answer(*answer(first, [label(1, "old")]), TIMEOUT_S)
    rest = one.request(TIMEOUT_S)
    assert (rest.session, rest.from_, rest.to) == ("old", 2, None)
    one.answer(*answer(rest, [label(2, "old")]), TIMEOUT_S)
    assert (seqs(one), one.lost) == ([0, 1, 2], {})


def test_after_a_restart_the_end_of_the_old_session_comes_first_and_then_the_new_ones_start():
    one = Sequencer(only("label", "event"))
    one.take(status(0, "old"), 0.0)
    one.take(label(0, "old"), 0.0)
    one.take(hello(0, "new"), 9.0)
    one.take(label(2, "new"), 9.0)
    answers = {
        ("old", "label/mic/"): [label(1, "old"), label(2, "old")],
        ("old", "event/mic/"): [],  # none was heard; the first may have been missed
        ("new", "label/mic/"): [label(0, "new"), label(1, "new")],
    }
    asked = []
    while request := one.request(9.0):
        asked.append((request.session, request.topic))
        one.answer(*answer(request, answers[asked[-1]]), 9.0)
    assert sorted(asked) == sorted(answers)
    assert [(session, seq) for session, _, seq in left(one)] == [
        ("old", 0), ("old", 1), ("old", 2), ("new", 0), ("new", 1), ("new", 2),
    ]  # fmt: skip
    assert not one.lost


def replayed(one: Sequencer, journal: dict[str, list[AnyMessage]]) -> list[tuple[str, str]]:
    """Answer all requests from a journal: {session: its messages}; return what was requested."""
    asked = []
    while request := one.request(9.0):
        asked.append((request.session, request.topic))
        page = [m for m in journal.get(request.session, ()) if m.topic == request.topic]
        one.answer(*answer(request, [m for m in page if m.seq >= request.from_]), 9.0)
    return asked


@pytest.mark.parametrize("begun", [False, True], ids=["resumed", "with the new one's beginning"])
def test_sessions_that_came_and_went_meanwhile_are_had_in_their_order(begun):
    resume = {("a", "event/mic/"): 0} | ({("d", "event/mic/"): -1} if begun else {})
    one = Sequencer(only("event"), resume)
    one.take(hello(0, "d", earlier=("before", "a", "b", "c")), 0.0)
    one.take(event(0, "d"), 0.0)
    journal = {
        "a": [event(1, "a")], "b": [event(0, "b"), event(1, "b")], "c": [event(0, "c")],
        "before": [event(0, "before")],
    }  # fmt: skip
    asked = replayed(one, journal)
    assert [session for session, _ in asked] == ["a", "b", "c"]
    had = [(session, seq) for session, _, seq in left(one)]
    assert had == [("a", 1), ("b", 0), ("b", 1), ("c", 0), ("d", 0)]
    one.take(hello(1, "d", earlier=("before", "a", "b", "c")), 60.0)  # it says so each minute
    assert (replayed(one, journal), one.positions()) == ([], {("d", "event/mic/"): 0})
    again = Sequencer(only("event"), one.positions())
    again.take(hello(2, "d", earlier=("before", "a", "b", "c")), 0.0)
    assert replayed(again, journal) == []
    assert not one.lost


def test_a_session_in_between_is_had_where_hello_comes_after_its_sessions_first_message():
    one = Sequencer(only("event"), {("a", "event/mic/"): 0})
    one.take(event(0, "c"), 0.0)
    one.take(hello(0, "c", earlier=("a", "b")), 0.0)
    one.take(event(1, "c"), 0.0)
    assert [s for s, _ in replayed(one, {"b": [event(0, "b")]})] == ["a", "b"]
    assert {(s, seq) for s, _, seq in left(one)} == {("b", 0), ("c", 0), ("c", 1)}


def test_it_goes_on_in_between_if_it_is_killed_there():
    one = Sequencer(only("event"), {("a", "event/mic/"): 0})
    one.take(hello(0, "d", earlier=("a", "b", "c")), 0.0)
    another = Sequencer(only("event"), one.positions())
    another.take(hello(1, "d", earlier=("a", "b", "c")), 0.0)
    another.take(event(0, "d"), 0.0)
    replayed(another, {"b": [event(0, "b")], "c": [event(0, "c")]})
    assert [session for session, _, _ in left(another)] == ["b", "c", "d"]


@pytest.mark.parametrize("resume", [{}, {("x", "event/mic/"): 5}], ids=["new", "of elsewhere"])
def test_earlier_sessions_are_not_had_by_one_who_never_was_there(resume):
    one = Sequencer(only("event"), resume)
    one.take(hello(0, "d", earlier=("a", "b")), 0.0)
    one.take(event(0, "d"), 0.0)
    assert {session for session, _ in replayed(one, {})} <= {"x"}
    assert [session for session, _, _ in left(one)] == ["d"]


def test_many_sources_and_sessions_are_had_whole():
    """More topics than are remembered: those of a session are followed when the one before is."""
    sources, missed = [f"s{number}" for number in range(40)], ("b", "c", "d", "e", "f", "g", "h")
    kinds = ("label", "event", "status", "level")

    def its(session: str, topic: str, seq: int) -> AnyMessage:
        kind, source, _ = topic.split("/")
        made = label(seq, session, source) if kind == "label" else event(seq, session)
        return msgspec.structs.replace(made, source=source)

    one = Sequencer(only(*kinds), {("a", f"{k}/{s}/"): 0 for k in kinds for s in sources})
    for source in sources:
        one.take(hello(0, "z", source=source, earlier=("a", *missed)), 0.0)
    asked = []
    while request := one.request(9.0):
        asked.append((request.session, request.topic))
        wanted = request.topic.startswith(("label", "event"))
        seq = 1 if request.session == "a" else 0
        page = [its(request.session, request.topic, seq)] if wanted else []
        one.answer(*answer(request, page), 9.0)
    assert len(asked) == len(set(asked)) == len(sources) * len(kinds) * (1 + len(missed))
    had: dict[str, list[str]] = {}
    for session, topic, _ in left(one):
        had.setdefault(topic, []).append(session)
    assert list(had.values()) == [["a", *missed]] * len(sources) * 2
    assert not one.lost


def test_one_who_was_away_for_too_many_sessions_is_warned(caplog):
    one = Sequencer(only("event"), {("a", "event/mic/"): 0})
    one.take(hello(0, "z", earlier=tuple(map(str, range(100)))), 0.0)
    one.take(hello(1, "z", earlier=tuple(map(str, range(100)))), 60.0)
    assert caplog.text.count("mic: sessions may have been missed") == 1
    new = Sequencer(only("event"))
    caplog.clear()
    new.take(hello(0, "z", earlier=("x", "y")), 0.0)
    assert not caplog.text


def test_the_first_message_of_a_topic_is_missed_too_by_one_who_comes_back():
    one = Sequencer(only("event"))
    one.take(status(0, label=3), 0.0)
    another = Sequencer(only("event"), one.positions())
    another.take(status(9, label=9, event=0), 0.0)
    assert another.request(0.0).from_ == 0


def test_one_resumes_behind_what_one_had():
    one = Sequencer(only("label"), {("s", "label/mic/"): 3})
    one.take(status(9, label=5), 0.0)
    request = one.request(0.0)
    assert (request.from_, request.to) == (4, 5)
    one.answer(*answer(request, [label(4), label(5)]), 0.0)
    assert seqs(one) == [4, 5]


def test_one_resumes_in_a_session_that_is_over():
    one = Sequencer(only("label"), {("old", "label/mic/"): 3})
    assert one.request(0.0) is None  # nobody is there yet
    one.take(status(0, "new", label=0), 0.0)
    request = one.request(0.0)
    assert (request.session, request.from_, request.to) == ("old", 4, None)
    one.answer(*answer(request, [label(4, "old")]), 0.0)
    request = one.request(0.0)
    assert (request.session, request.from_, request.to) == ("new", 0, 0)
    one.answer(*answer(request, [label(0, "new")]), 0.0)
    assert [(session, seq) for session, _, seq in left(one)] == [("old", 4), ("new", 0)]
    assert one.positions() == {("new", "label/mic/"): 0}


def test_one_resumes_in_a_session_of_which_one_topic_is_had_whole_and_another_is_not():
    wanted = only("label", "event")
    one = Sequencer(wanted)
    one.take(status(0, "old"), 0.0)
    one.take(label(0, "old"), 0.0)
    one.take(hello(0, "new"), 0.0)
    request = one.request(0.0)
    one.answer(*answer(request, [label(1, "old")]), 0.0)
    assert (request.topic, seqs(one)) == ("label/mic/", [0, 1])
    another = Sequencer(wanted, one.positions())  # it was killed here
    another.take(hello(1, "new"), 0.0)
    asked = set()
    while request := another.request(0.0):
        asked.add((request.session, request.topic, request.from_))
        another.answer(*answer(request, []), 0.0)
    assert asked >= {("old", "label/mic/", 2), ("old", "event/mic/", 0)}
    assert ("old", "label/mic/", 0) not in asked


def test_positions_are_what_was_had_and_not_what_has_come():
    one = Sequencer(only("label", "event"))
    one.take(status(3, event=6), 0.0)
    for seq in (0, 1):
        one.take(label(seq), 0.0)
    assert one.positions() == {("s", "event/mic/"): 6, ("s", "label/mic/"): -1}
    one.had(one.ready.popleft())
    assert one.positions() == {("s", "event/mic/"): 6, ("s", "label/mic/"): 0}


def test_the_hold_is_bounded_and_what_it_has_no_room_for_is_asked_for(monkeypatch):
    monkeypatch.setattr(sequencer, "HELD", 2)
    one = Sequencer(only("label"))
    one.take(hello(0), 0.0)
    for seq in (0, 2, 2, 3, 4, 5):  # what comes twice takes no more room
        one.take(label(seq), 0.0)
    one.answer(*answer(one.request(0.0), [label(1)]), 0.0)
    assert seqs(one) == [0, 1, 2, 3]
    request = one.request(0.0)
    assert (request.from_, request.to) == (4, 5)


def test_streams_are_bounded(monkeypatch):
    monkeypatch.setattr(sequencer, "STREAMS", 3)
    one = Sequencer(only("label"))
    for number in range(10):
        one.take(label(0, source=f"mic{number}"), 0.0)
        one.take(label(2, source=f"mic{number}"), 0.0)
    assert len(one.positions()) == 3
    assert one.lost == {"label": 7}  # the gaps of those forgotten


class World:
    """A publisher and a subscriber that restart, a network that loses, repeats and reorders."""

    KINDS = ("label", "event", "patch", "status")

    def __init__(self, chance: random.Random, restarts: float) -> None:
        self.chance = chance
        self.restarts = restarts  # chance of one after each message
        self.sent: list[AnyMessage] = []
        self.journal: set[tuple[str, str, int]] = set()
        self.heard: set[str] = set()
        self.now = 0.0
        self.one = Sequencer(only(*self.KINDS))
        self.told: list[tuple[str, str, int]] = []

    def session(self, name: str) -> None:
        """Publish a session, its last status always heard."""
        chance, last, wire = self.chance, Counter(), []
        if name == "0":
            first = self.message("status", 0, name, last)
            self.sent.append(first)
            self.hear(first)  # from here on the first session is followed
            last["status"] += 1
        for _ in range(chance.randrange(1, 40)):
            kind = chance.choice(self.KINDS)
            message = self.message(kind, last[kind], name, last)
            last[kind] += 1
            self.sent.append(message)
            if kind != "patch" and chance.random() < 0.9:
                self.journal.add((name, message.topic, message.seq))
            if chance.random() < 0.6:
                wire.insert(max(0, len(wire) - chance.choice((0, 0, 0, 1, 5))), message)
            if chance.random() < 0.1 and wire:
                wire.append(chance.choice(wire))
        for message in wire:
            self.hear(message)
        if chance.random() < 0.5:  # else it was killed
            message = self.message("status", last["status"], name, last)
            self.sent.append(message)
            self.journal.add((name, message.topic, message.seq))
            self.hear(message)

    def message(self, kind: str, seq: int, session: str, last: Counter) -> AnyMessage:
        if kind == "status":
            newest = {kind: count - 1 for kind, count in last.items() if count}
            return status(seq, session, **newest | {"status": seq})
        return {"label": label, "event": event, "patch": patch}[kind](seq, session)

    def hear(self, message: AnyMessage) -> None:
        self.heard.add(message.session)
        self.one.take(message, self.now)
        self.told += left(self.one)
        if self.chance.random() < 0.3:
            self.ask()
        if self.chance.random() < self.restarts:
            self.restart(message.session)

    def restart(self, session: str) -> None:
        """The subscriber is killed, and another, which is greeted, goes on from its positions."""
        self.one = Sequencer(only(*self.KINDS), self.one.positions())
        self.one.take(hello(0, session), self.now)

    def ask(self, patiently: bool = False) -> None:
        """Let the client ask, and answer at once, never, twice, or with a refusal."""
        self.now += 0.1
        if (request := self.one.request(self.now)) is None:
            return
        fate = 1.0 if patiently else self.chance.random()
        if fate < 0.2:
            self.now += TIMEOUT_S
        elif fate < 0.3:
            self.one.answer(ReplayHeader(error="too many requests"), [], self.now)
        else:
            to = 10**9 if request.to is None else request.to
            there = [
                m
                for m in self.sent
                if (m.session, m.topic) == (request.session, request.topic)
                and request.from_ <= m.seq <= to
                and (m.session, m.topic, m.seq) in self.journal
            ]
            page = there[: self.chance.randrange(1, 5)]
            following = there[len(page)].seq if len(page) < len(there) else None
            for _ in range(1 + (fate < 0.4)):
                self.one.answer(*answer(request, page, following), self.now)
        self.told += left(self.one)


@pytest.mark.parametrize(("room", "restarts"), [(1, 0.0), (3, 0.05), (10_000, 0.0), (10_000, 0.1)])
@given(chance=st.randoms(use_true_random=False), sessions=st.integers(1, 4))
def test_each_message_leaves_once_and_in_order_unless_it_is_lost(room, restarts, chance, sessions):
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(sequencer, "HELD", room)
        patching.setattr(sequencer, "TRIES", 10**6)  # a test of its own has them run out
        world = World(chance, restarts)
        world.one.take(hello(0, "0"), 0.0)
        for number in range(sessions):
            world.session(str(number))
        while (due := world.one.due(world.now)) is not None:
            world.now = due
            world.ask(patiently=True)

    told = world.told
    assert not world.one.ready
    assert len(told) == len(set(told))
    streams: dict[tuple[str, str], list[int]] = {}
    for session, topic, seq in told:
        streams.setdefault((session, topic), []).append(seq)
    assert all(numbers == sorted(numbers) for numbers in streams.values())
    for kind in ("label", "event", "status"):
        sessions_of_one = [session for session, topic, _ in told if topic == f"{kind}/mic/"]
        assert sessions_of_one == sorted(sessions_of_one)
    had = set(told)
    heard = {(m.session, m.topic, m.seq) for m in world.sent if m.session in world.heard}
    missing = heard - had
    behind = {each for each in missing if each[2] < max(streams.get(each[:2], [-1]))}
    live = max(world.heard)
    # All that the journal has is had, but for the end of the last session, of which nobody told.
    for session, topic, seq in missing & world.journal:
        assert (session, topic, seq) not in behind
        assert session == live
    if not restarts:  # a subscriber counts its own losses
        assert len(behind) <= world.one.lost.total() <= len(missing)


def summary(first: int, last: int) -> AnyMessage:
    """The label `last`, which stands for all from `first` on."""
    of = Summary(first, 0, 0.0, last - first + 1, 0.5, 0.5)
    return msgspec.structs.replace(label(last), summary=of)


def test_what_a_summary_stands_for_is_not_lost_and_counted_apart():
    one = Sequencer(only("label"))
    one.take(hello(0), 0.0)
    for seq in (0, 20):
        one.take(label(seq), 0.0)
    one.answer(*answer(one.request(0.0), [label(1), summary(2, 9), summary(12, 18)]), 0.0)
    assert seqs(one) == [0, 1, 9, 18, 20]
    assert one.summarised == {"label": 7 + 6}
    assert one.lost == {"label": 3}
    assert one.recovered == 3


def test_a_summary_that_reaches_beyond_a_gap_comes_after_what_is_there():
    one = Sequencer(only("label"))
    one.take(hello(0), 0.0)
    for seq in (0, 1, 4, 5, 6, 7):
        one.take(label(seq), 0.0)
    request = one.request(0.0)
    assert (request.from_, request.to) == (2, 3)
    one.answer(*answer(request, [summary(1, 6)]), 0.0)
    assert seqs(one) == [0, 1, 4, 5, 6, 7]
    assert (one.summarised, one.lost) == ({"label": 2}, {})
    assert one.request(0.0) is None


def test_pages_of_summaries_lose_nothing_between_them():
    one = Sequencer(only("label"), {("s", "label/mic/"): 9})
    one.take(hello(0), 0.0)
    one.take(label(40), 0.0)
    one.answer(*answer(one.request(0.0), [summary(5, 19)], following=20), 0.0)
    one.answer(*answer(one.request(0.0), [summary(20, 39)]), 0.0)
    assert seqs(one) == [19, 39, 40]
    assert (one.summarised, one.lost) == ({"label": 9 + 19}, {})
