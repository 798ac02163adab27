"""One stage of each kind, as another package adds them: see `tests/test_third_party.py`."""

import numpy as np

from streamtwl.stages import Chunk, Decision, Sink, Source

RATE = 8000


class Beep(Source):
    """Three seconds, of which the middle one beeps: `beep:440`."""

    def __init__(self, name, hz):
        super().__init__(name, paced=False, clocked=False)
        self._hz, self._second = hz, 0

    @classmethod
    def make(cls, name, address, options):
        return cls(name, float(address))

    def start(self):
        self.state = "listening"

    def due_in(self, now):
        return 0.0

    def read(self, now):
        if self._second == 3:
            self.state = "ended"
            return None
        start, self._second = self._second * RATE, self._second + 1
        tone = np.sin(2 * np.pi * self._hz * np.arange(RATE) / RATE) * (start == RATE)
        return Chunk(tone.astype(np.float32)[:, None], RATE, start)

    def stop(self):
        self._second = 3


class Energy:
    def push(self, samples, power):
        return np.square(samples[: len(samples) // 160 * 160]).reshape(-1, 160).mean(1)[:, None]


class Loudness:
    """Two categories, from how loud a fifth of a second is."""

    name, sha256 = "loudness", ""
    categories, parents = ("Quiet", "Loud"), ((), ())
    lengths_s = (0.2, 0.2)
    prior = None
    frame = frame_hop = 160

    def __init__(self, name, settings):
        pass

    def front_end(self):
        return Energy()

    def score(self, features):
        loud = np.minimum(1, 2 * features.mean(axis=(1, 2)))
        return np.stack((1 - loud, loud), -1).astype(np.float32), features[:, :, 0]


class Gate:
    """Says what the backbone says."""

    name, sha256, open = "gate", "", False
    on, off, lags, behind = 0.6, 0.3, 0, 1600
    settled, refining_s = True, 0.0

    def __init__(self, settings, backbones, sources):
        self.labels = list(backbones[0].categories)

    def step(self, patches):
        return [
            Decision(
                self.labels[p.posterior.argmax()], float(p.posterior.max()), *[p.posterior] * 2
            )
            for p in patches
        ]

    def refine(self, deadline):
        return None

    def forget(self, stream):
        pass

    def thresholds(self, on, off):
        pass


class Notebook(Sink):
    """Writes the events into the file that the pipeline names."""

    def __init__(self, settings):
        self._file = open(settings["file"], "w")  # noqa: SIM115

    def emit(self, message):
        if message.topic.startswith("event/"):
            self._file.write(f"{message.phase} {message.label} {message.start / 16000:.2f}\n")

    def close(self):
        self._file.close()
