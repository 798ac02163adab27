"""From the user's taught sounds to what says whether one of them sounds now."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from streamtwl.clips.moments import named
from streamtwl.errors import UsageError
from streamtwl.sounds import heads, space
from streamtwl.sounds.embedding import Embedder
from streamtwl.sounds.heads import Heads, Taught
from streamtwl.sounds.space import Bank, Space
from streamtwl.sounds.store import Sound, Store
from streamtwl.stages import Backbone, WindowKind

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # recordings that are scored, of how many


def nothing(done: int, of: int) -> None:
    """Show no progress."""


def sounds_of_user() -> list[Sound]:
    """Return the sounds that the user taught; raises SoundsError where they are damaged."""
    try:
        return Store().sounds()
    except UsageError:
        return []  # a user without a home: nothing can have been taught


class Teacher:
    """Learns the sounds of a store by those windows of a pipeline that there is a bank for."""

    def __init__(
        self,
        backbones: Sequence[Backbone],
        kinds: Sequence[WindowKind],
        leave_out: Sequence[str] = (),
        only: Sequence[str] = (),
    ) -> None:
        """Groups of the bank in `leave_out` are not used; sounds are those of `only`, if any."""
        self._only = {name.casefold() for name in only}
        used = [kind for kind in kinds if kind.name in space.WEIGHTS]
        self.windows = [kind.name for kind in used]
        self.named = {k.name: named(k.name, backbones[k.backbone].sha256) for k in used}
        if used:
            indices = sorted({kind.backbone for kind in used})
            own = [WindowKind(k.name, indices.index(k.backbone), k.length_s) for k in used]
            self.embedder = Embedder([backbones[i] for i in indices], own)
            self.space = Space(self.windows, space.shipped(), leave_out)
            _compare({k.name: backbones[k.backbone].sha256 for k in used}, space.shipped())

    def heads(self, store: Store, progress: Progress = nothing) -> Heads | None:
        """Return the heads of all sounds of the store; None where there are none, or no window."""
        sounds = [
            sound
            for sound in store.sounds()
            if not self._only or sound.name.casefold() in self._only
        ]
        if not sounds or not self.windows:
            return None
        return heads.fit(self.space, self.taught(store, sounds, progress), self.home(store))

    def heads_of_user(self) -> Heads | None:
        """Return the heads of what the user taught; None where that is nothing.

        Raises SoundsError where it is damaged.
        """
        if not (names := [sound.name for sound in sounds_of_user()]):
            return None
        found = self.heads(Store())
        if found is None and not self.windows:
            _log.warning(
                "the sounds that you taught (%s) are not listened for: that takes the window %s, "
                "which this pipeline has not",
                ", ".join(names),
                " or ".join(space.WEIGHTS),
            )
        return found

    def taught(
        self, store: Store, sounds: Sequence[Sound], progress: Progress = nothing
    ) -> list[Taught]:
        """Return what the heads learn from; recordings that are new here are scored first."""
        total = sum(len(sound.examples) for sound in sounds)
        done = 0
        found = []
        for sound in sounds:
            rows = []
            for example in sound.examples:
                rows.append(self.features(store.samples(example)))
                done += 1
                progress(done, total)
            found.append(Taught(sound.name, rows, sound.false_alarms_a_day))
        return found

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Return float32[n, F] of a recording's windows, in all its variants."""
        return self.space.features(self.embedder.example(samples))

    def home(self, store: Store) -> np.ndarray | None:
        """Return float32[n, F] of the user's own background; None where there is none."""
        embeddings = store.background(self.embedder.key)
        return self.space.features(embeddings) if embeddings else None


def _compare(here: Mapping[str, str], bank: Bank) -> None:
    """Warn where the bank of general sound is of other weights than those here."""
    for window, weights in here.items():
        if weights and weights != bank.card.sha256[window]:
            _log.info("the bank of general sound is of other weights of %s", window)
