"""A summary of repeats as messages again, for those that count hops and seconds."""

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from streamtwl.messages import AnyMessage, Label, Scored, Status
from streamtwl.stages import SAMPLE_RATE

M = TypeVar("M", bound=AnyMessage)


def unrolled(message: M) -> Iterator[M]:
    """Yield what a summary stands for: a label a hop, without its refinements, or all states.

    Their distances are equal, their scores are those of the summary, all else is the last one's.
    Any other message is itself.
    """
    if not isinstance(message, Label | Status) or message.summary is None:
        yield message
        return
    summary = message.summary
    hops = len(summary.hops) if isinstance(message, Label) else summary.count
    for i in range(hops):
        share = i / (hops - 1) if hops > 1 else 1.0
        position = _between(summary.first_position, message.position, share)
        captured_at = message.captured_at
        if captured_at is not None:
            captured_at -= (message.position - position) / SAMPLE_RATE
        one = msgspec.structs.replace(
            message,
            seq=_between(summary.first_seq, message.seq, share),
            position=position,
            captured_at=captured_at,
            published_at=summary.first_published_at
            + share * (message.published_at - summary.first_published_at),
            summary=None,
        )
        if isinstance(one, Label):
            one.top = top(summary.labels, summary.hops[i])
            scores = {each.label: each.score for each in one.top}
            strongest = one.top[0].score if one.top else one.confidence
            one.confidence = scores.get(one.label, strongest) if one.label else strongest
        yield one


def top(labels: list[str], hop: list[int]) -> list[Scored]:
    """Return `top` of a hop in a summary; what is damaged in it is left out."""
    return [
        Scored(labels[index], min(1.0, max(0.0, score / 1000)))
        for index, score in zip(hop[::2], hop[1::2], strict=False)
        if 0 <= index < len(labels)
    ]


def _between(first: int, last: int, share: float) -> int:
    return first + round(share * (last - first))
