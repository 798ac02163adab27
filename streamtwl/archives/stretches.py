"""A long file in stretches, scored apart: the result is that of the unbroken file.

What a hop's scores depend on ends with the longest window: a few seconds of sound. What comes after
them does not: a running mean, a reader's rows, an event that has lasted for hours. So only the
networks' scores are computed in stretches, each of which begins as much earlier as the longest
window takes (WARM_UP); the reasoner and the tracker then run over the scores of all stretches in
order, as they do over an unbroken file. At each seam both sides have scored the last SEAM hops:
where these are not the same to the bit, the file is labelled unbroken instead.

Every stretch decodes the file from its beginning, as the resampler and the mix of channels have a
memory; that takes a tenth of the time that scoring does.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from streamtwl.audio.intake import Stream
from streamtwl.audio.recording import Recording
from streamtwl.backbones.bank import Bank
from streamtwl.config import Settings
from streamtwl.errors import AudioError
from streamtwl.features.window import Windower, samples_in
from streamtwl.pipeline import Pipeline
from streamtwl.stages import Block, End, Patch, Score, Window

SEAM = 2  # hops that two stretches both score
WARM_UP = 2  # hops more than the longest window takes
MOST = 8  # stretches a file: each decodes what is before it, too


class SeamError(Exception):
    """The stretches of a file do not fit together: label it unbroken."""


@dataclass(frozen=True)
class Stretch:
    """The hops from `first` up to `end` (None: the last) of a file."""

    number: int
    of: int
    first: int
    end: int | None


def may_cut(settings: Settings) -> bool:
    """Whether a pipeline's scores depend on nothing but the newest sound: with a gate they do."""
    return not settings.gate


def cut(duration_s: float, hop_s: float, count: int) -> list[Stretch]:
    """Return a file's stretches, equally long by its header; the last one goes on to the end."""
    hops = int(duration_s / hop_s)
    firsts = [hops * i // count for i in range(count)]
    ends: list[int | None] = [*firsts[1:], None]
    return [Stretch(i, count, *each) for i, each in enumerate(zip(firsts, ends, strict=True))]


def score(stretch: Stretch, recording: Recording, pipeline: Pipeline) -> bytes:
    """Return the scores of a stretch's hops, and of SEAM before it, for `decide`.

    Raises SeamError where the sound breaks off: positions are then not those of an unbroken file.
    """
    bank = pipeline.bank
    windower = Windower(pipeline.settings.hop_s, bank.backbones, bank.kinds)
    scorer = Bank(bank.backbones, bank.kinds)
    hop = windower.hop
    reach = max(samples_in(bank.backbones[each.backbone], each.length_s) for each in bank.kinds)
    wanted = max(0, stretch.first - SEAM)
    begin = max(0, wanted - -(-reach // hop) - WARM_UP)
    patches: list[Patch] = []
    stream = Stream(0, recording)
    hops = begin
    try:
        recording.start()
        while not stream.ended and (stretch.end is None or hops < stretch.end):
            for block in stream.read(0.0):
                if block.breaks_off or stream.error is not None:
                    raise SeamError
                for windows in windower.push(_from(begin * hop, block)):
                    if isinstance(windows, End):
                        continue
                    if wanted <= hops and (stretch.end is None or hops < stretch.end):
                        patches += scorer.score(windows)
                    hops += 1
    except AudioError:
        raise SeamError from None
    finally:
        recording.close()
    facts = (stream.position, stream.bad_samples, recording.skipped_packets, int(stream.ended))
    return _packed(wanted, facts, patches)


def _from(position: int, block: Block) -> list[Block]:
    """Return the part of a block from a position on."""
    late = position - block.position
    if late <= 0:
        return [block]
    if late >= len(block.samples) and not block.last:
        return []
    return [replace(block, position=position, samples=block.samples[late:])]


@dataclass(frozen=True)
class Facts:
    """What the last stretch, which has decoded all of the file, says of it."""

    position: int
    bad_samples: int
    skipped_packets: int


def decide(pieces: Iterator[bytes], pipeline: Pipeline) -> Facts:
    """Push the scores of all stretches, in order, as those of stream 0; then its end.

    Raises SeamError before anything of a stretch that does not fit is pushed.
    """
    before: list[Patch] = []
    at = 0
    facts: tuple[int, ...] = (0, 0, 0, 0)
    for piece in pieces:
        first, facts, patches = _unpacked(piece, pipeline)
        seam = min(SEAM, at - first) if at else 0
        if first + seam != at or not _same(before[-seam:] if seam else [], patches[:seam]):
            raise SeamError
        for patch in patches[seam:]:
            window = replace(patch.window, first=at == 0)
            pipeline.push_scored([replace(patch, window=window)])
            at += 1
        before = patches[-SEAM:]
    if not facts[3]:
        raise SeamError
    pipeline.push_scored(End(0, facts[0], None, True))
    return Facts(*facts[:3])


def _same(left: Sequence[Patch], right: Sequence[Patch]) -> bool:
    if len(left) != len(right):
        return False
    return all(
        a.window.position == b.window.position
        and all(
            np.array_equal(x.posterior, y.posterior) and np.array_equal(x.embedding, y.embedding)
            for x, y in zip(a.scores, b.scores, strict=True)
        )
        for a, b in zip(left, right, strict=True)
    )


def _packed(first: int, facts: tuple[int, ...], patches: list[Patch]) -> bytes:
    arrays = {
        "first": np.array(first),
        "facts": np.array(facts),
        "positions": np.array([patch.window.position for patch in patches], np.int64),
        "levels": np.array([patch.window.level_dbfs for patch in patches]),
    }
    for k, scores in enumerate(zip(*(patch.scores for patch in patches), strict=True)):
        arrays[f"length_{k}"] = np.array([score.length_s for score in scores])
        arrays[f"posterior_{k}"] = np.stack([score.posterior for score in scores])
        arrays[f"embedding_{k}"] = np.stack([score.embedding for score in scores])
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    return packed.getvalue()


def _unpacked(piece: bytes, pipeline: Pipeline) -> tuple[int, tuple[int, ...], list[Patch]]:
    with np.load(io.BytesIO(piece)) as arrays:
        there = dict(arrays)
    patches = []
    for i, position in enumerate(there["positions"].tolist()):
        window = Window(0, position, 0, False, (), float(there["levels"][i]), None, 0.0)
        scores = tuple(
            Score(
                kind.name,
                float(there[f"length_{k}"][i]),
                there[f"posterior_{k}"][i],
                there[f"embedding_{k}"][i],
            )
            for k, kind in enumerate(pipeline.kinds)
        )
        patches.append(Patch(window, scores))
    return int(there["first"]), tuple(there["facts"].tolist()), patches
