"""The stages that sound passes, and the messages between them. Read this before you add a stage.

    Source -> blocks -> Windower -> windows -> Backbone -> patches -> Reasoner -> decisions
           -> tracker -> changes of events -> Reporter -> messages (`messages.py`) -> Sink

Data goes one way. A stage takes the message of the stage before it, keeps the state of each stream
apart, and learns what it must know from that message or from what the other stage says of itself
here, never from its constants. One worker thread runs all of them.

Sources, backbones, reasoners and sinks are open: a package adds one through an entry point of the
group that `plugins.py` names, without any change to streamtwl.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from streamtwl.audio.addresses import SourceOptions
    from streamtwl.config import Settings
    from streamtwl.messages import AnyMessage

SAMPLE_RATE = 16_000  # Hz, of every stream; positions count its samples from the stream's start

# --- sources ---


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive frames as a source gives them: its own rate, its own channels."""

    frames: np.ndarray  # float32[n, channels], full scale at 1
    rate: int  # Hz
    start: int  # of frames[0], counted in frames from the opening of the source
    opened_at: int = 0  # the stream's position (16 kHz samples) at that opening
    last_frame_at: float | None = None  # monotonic seconds of the last frame; None if unknown


State = Literal["opening", "listening", "silent", "stalled", "lost", "ended"]


class Source(ABC):
    """A microphone, file, pipe or network stream.

    The worker calls `read` whenever a fileno is readable, or it is due.
    """

    live = False  # it has no end of its own, and nothing but zeros means that it is switched off

    def __init__(self, name: str, paced: bool, clocked: bool, channel: int | None = None) -> None:
        self.name = name
        self.channel = channel  # the one to use, from 1; None: the mix of all
        self.paced = paced  # it does not wait for a slow reader, who loses sound or falls behind
        self.clocked = clocked  # a second of sound takes a second to arrive: waits can be planned
        self.state: State = "opening"
        self.error: str | None = None  # why it is stalled, lost or ended, in one line
        self.overflows = 0  # inside the driver, before anything was counted
        self.reopened = 0
        self.stop_requested: Callable[[], int] = lambda: 0  # polled while the source blocks

    @abstractmethod
    def start(self) -> None:
        """Begin; raises AudioError where that is known to fail."""

    def filenos(self) -> list[int]:
        """Return file descriptors to wait for; none where only time matters."""
        return []

    @abstractmethod
    def due_in(self, now: float) -> float:
        """Return the seconds from `now` (monotonic) until `read` is due without a ready fileno."""

    @abstractmethod
    def read(self, now: float) -> Chunk | None:
        """Return what has come, or None; never blocks for long. Sets `state`."""

    @abstractmethod
    def stop(self) -> None:
        """Take no new sound; `read` still returns what had arrived until `state` is ended."""

    def close(self) -> None:
        """Release everything."""
        self.state = "ended"


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive samples of one stream, 16 kHz mono."""

    stream: int
    position: int  # of samples[0]
    samples: np.ndarray  # float32[n] in [-1, 1]
    captured_at: float | None  # wall-clock seconds just after the last sample; None for files
    ready_at: float  # monotonic seconds at which the resampler returned the last sample
    last: bool = False  # the stream ends with this block
    breaks_off: bool = False  # there is a gap before whatever comes next


# --- windows ---


@dataclass(frozen=True, slots=True)
class WindowKind:
    """A backbone, and how much of the newest sound it is to score: `mn04:3`."""

    name: str  # as the pipeline writes it
    backbone: int  # index into the pipeline's backbones
    length_s: float


@dataclass(frozen=True, slots=True)
class Window:
    """The newest sound of a stream at one hop, of which every backbone scores some lengths."""

    stream: int
    position: int  # 16 kHz samples from the stream's start to the window's end
    start: int  # position at which the sound without gaps began that the window is in
    first: bool  # it is the first one of that sound: it covers all of it so far
    features: tuple[np.ndarray, ...]  # a backbone each: the newest float32[frames, bands], as many
    # as its longest window takes and there are since `start`
    level_dbfs: float  # RMS of the newest hop, of the whole window where it is the first
    captured_at: float | None  # wall-clock seconds at `position`; None for files
    ready_at: float  # monotonic seconds at which the resampler returned its last sample


@dataclass(frozen=True, slots=True)
class End:
    """The sound of a stream broke off at `position`: there is a gap before whatever follows.

    Gaps are decided in one place, where windows are cut; this message passes them on.
    """

    stream: int
    position: int
    captured_at: float | None
    last: bool  # the stream is over


# --- backbones ---


class FrontEnd(Protocol):
    """Sound to frames of features, streaming: for one stretch of sound without gaps."""

    def push(self, samples: np.ndarray, power: np.ndarray) -> np.ndarray:
        """Take float32[n] samples; return the float32[m, bands] frames they complete.

        `power` is float32[k, 257], the frames of the shared spectrum (`features/spectrum.py`) that
        these samples complete: most front ends need no more.
        """
        ...


class Backbone(Protocol):
    """A frozen classifier: windows of features in, posteriors and embeddings out."""

    name: str
    sha256: str  # of its weights
    categories: tuple[str, ...]  # C display names, in the posterior's order
    parents: tuple[tuple[int, ...], ...]  # for each category the indices of its nearest ancestors
    prior: np.ndarray | None  # float32[C], mean logits on generic audio; None: not known
    lengths_s: tuple[float, float]  # of the shortest and of the longest window that it scores
    frame: int  # samples that a frame of its front end covers
    frame_hop: int  # samples from one frame to the next

    def front_end(self) -> FrontEnd:
        """Return a new front end."""
        ...

    def score(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take float32[N, frames, bands]; return posteriors float32[N, C], embeddings [N, D]."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """A backbone's output for one window."""

    window: str  # the name of its kind, as mn04:3
    length_s: float  # less than its kind's where there is not so much sound yet
    posterior: np.ndarray  # float32[C], each category's sigmoid score in [0, 1]
    embedding: np.ndarray  # float32[D]; D may be 0


@dataclass(frozen=True, slots=True)
class Patch:
    """The scores of all windows of all backbones at one hop."""

    window: Window
    scores: tuple[Score, ...]  # one a kind of window, in the pipeline's order

    @property
    def posterior(self) -> np.ndarray:
        """Return the posterior of the first kind of window."""
        return self.scores[0].posterior


# --- reasoners ---


@dataclass(frozen=True, slots=True)
class Thought:
    """What a language model says that an event is."""

    label: str | None  # None: none of the labels
    instead_of: str  # the event's label until now
    start: int  # position at which that event began
    text: str  # what it thought; "" where it does not say
    latency_ms: float  # from the query to its answer


@dataclass(frozen=True, slots=True)
class Decision:
    """The label in force after a patch, and how sure the reasoner is of each label."""

    label: str | None  # None: nothing that the vocabulary has a name for
    confidence: float  # of `label`; of the most likely one where it is None; in [0, 1]
    scores: np.ndarray  # float32[L] in [0, 1], one per label of the vocabulary
    specific: np.ndarray  # float32[L], the same with 0 for labels that yield to a descendant
    samples: int = 0  # drawn samples that went into it, over all traces
    traces: int = 0
    refinement: int = 0  # 0 is the first decision on a patch
    earlier: np.ndarray | None = None  # float32[B, 2, L]: scores and specific of the B patches
    # before, newest first, as revised by now
    in_force: np.ndarray | None = None  # float32[L]: the strongest of these is the label, where it
    # is not that of `specific`
    drawn: np.ndarray | None = None  # int[n] categories that were drawn for the patch, if any
    thoughts: tuple[Thought, ...] = ()  # of a language model, that came since the last decision


class Reasoner(Protocol):
    """Patches to decisions, keeping state per stream.

    One that works on a thread of its own may also have `figures()`, which returns fields of
    `Status`, `close()`, which ends that thread, `waiting`, whether `refine` waits for it, and
    `stop_requested()`, set from outside, with which it waits no more.
    """

    name: str
    sha256: str  # of its file; "" where it has none
    labels: list[str]  # L, in the order of a decision's scores
    open: bool  # the labels are AudioSet's categories, or roll-ups of them
    on: float  # an event of a label begins at this score, unless the user sets another ...
    off: float  # ... and ends below this one
    lags: int  # B, the patches before the newest that a decision revises
    behind: int  # samples from the moment that a score refers to, to the end of its window

    @property
    def settled(self) -> bool:
        """Whether `refine` has nothing to add to the decisions on the newest patches."""
        ...

    @property
    def refining_s(self) -> float:
        """Seconds that a refinement would take, as measured recently."""
        ...

    def step(self, patches: list[Patch]) -> list[Decision]:
        """Take a new patch of each of S streams, at most one per stream; decide on each."""
        ...

    def refine(self, deadline: float) -> list[Decision] | None:
        """Refine the decisions until `deadline` (monotonic seconds); None if there is no more."""
        ...

    def forget(self, stream: int) -> None:
        """Drop a stream's state: its sound ended, or there is a gap before whatever follows."""
        ...

    def thresholds(self, on: np.ndarray, off: np.ndarray) -> None:
        """Take float32[L]: the scores at which events of each label begin, and below which end."""
        ...


# --- sinks ---


class Sink(ABC):
    """Takes every message of a session, in order, on the worker's thread."""

    journals = False  # it keeps labels, events and states

    @abstractmethod
    def emit(self, message: "AnyMessage") -> None:
        """Take a message without changing it; must not block in real time."""

    def emit_all(self, messages: "Sequence[AnyMessage]") -> None:
        """Take the messages of a hop, in order."""
        for message in messages:
            self.emit(message)

    def figures(self) -> dict[str, Any]:
        """Return the fields of `Status` and `Hello` that this sink knows, such as `queued`."""
        return {}

    def close(self) -> None:  # noqa: B027
        """Pass on what is still held, and release everything."""


# --- what an entry point is, by group ---

SourceFactory = Callable[[str, str, "SourceOptions"], Source]  # its name, its address, options
BackboneFactory = Callable[[str, "Settings"], Backbone]  # its name
ReasonerFactory = Callable[["Settings", Sequence[Backbone], Sequence[str]], Reasoner]  # and sources
SinkFactory = Callable[[Mapping[str, Any]], Sink]  # its table in the pipeline, under [sinks]
