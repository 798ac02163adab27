"""One topic of one session, as far as a subscriber has it."""

from streamtwl.messages import AnyMessage, ReplayRequest

REPLAYED = ("label", "event", "status", "level")  # kinds that can be replayed


class TopicStream:
    """What was delivered, what is held, and what is known to exist."""

    def __init__(self, session: str, topic: str, begin: int) -> None:
        self.session, self.topic = session, topic
        self.next = begin  # the seq to deliver next
        self.newest = begin - 1  # the newest seq that there is, as far as we know
        self.had = begin  # all before this the user has had
        self.held: dict[int, AnyMessage] = {}
        self.request: ReplayRequest | None = None  # not answered: it is repeated as it was, so
        # that a late answer is not taken for one to a question that goes further
        self.over = False  # a newer session has begun: request all that the journal has
        self.done = False  # and that has been answered
        self.before: TopicStream | None = None  # the same topic's, whose end comes first

    @property
    def key(self) -> tuple[str, str]:
        """Session and topic."""
        return self.session, self.topic

    @property
    def lacks(self) -> bool:
        """Whether there is something to request now."""
        if self.before is not None or self.done:
            return False
        return self.over or (self.next <= self.newest and self.next not in self.held)


def source_of(topic: str) -> str:
    """Return the source in `<kind>/<source>/`."""
    return topic.split("/")[1]


def can_be_replayed(topic: str) -> bool:
    """Whether the publisher's journal has such messages."""
    return topic.partition("/")[0] in REPLAYED
