"""EfficientAT's networks: against the reference's posteriors, and against torch."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import soxr

from streamtwl.errors import ModelError
from streamtwl.features import log_mel
from streamtwl.features.spectrum import Spectrum
from streamtwl.models import efficientat, pt_file
from tests.conftest import mn04_file

FRAMES = {"2s": 200, "5s": 500}


def random_weights(width: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Return weights of a network of that width that neither dies out nor explodes."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in efficientat.shapes(width).items():
        each = rng.standard_normal(shape, np.float32)
        if name.endswith("running_var"):
            each = np.abs(each) + 0.5
        elif len(shape) > 1:
            each *= np.sqrt(2 / np.prod(shape[1:], dtype=float))
        weights[name] = each.astype(np.float32)
    return weights


@cache
def mn04_random() -> dict[str, np.ndarray]:
    return random_weights(0.4)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString())


def run(network: onnxruntime.InferenceSession, log_mel: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return posteriors and embeddings of float32[N, T, 128]."""
    return tuple(network.run(["posterior", "embedding"], {"log_mel": log_mel}))


def noise(n: int, frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, frames, 128), np.float32)


# --- the release's mn04 ---


@pytest.fixture(scope="module")
def mn04() -> onnxruntime.InferenceSession:
    return session(efficientat.build(mn04_file()))


@pytest.fixture(scope="module")
def reference(data) -> dict[str, np.ndarray]:
    """Posteriors of ten clips by an independent implementation."""
    file = data.parent / "models" / "mn04_reference.npz"
    if not file.exists():
        pytest.skip(f"{file} is absent")
    return dict(np.load(file))


def samples(file: Path, rate: int) -> np.ndarray:
    """Return the first five seconds of a clip, float32[5 * rate], mono."""
    frames, own = soundfile.read(file, dtype="float32", always_2d=True)
    return soxr.resample(frames.mean(axis=1), own, rate, "HQ")[: 5 * rate].astype(np.float32)


def from_spectrum(samples: np.ndarray) -> np.ndarray:
    """Return float32[m, 128] of 16 kHz sound, centred as in the reference."""
    reflected = np.concatenate((samples[200:0:-1], samples, samples[-2:-202:-1]))
    return log_mel.efficientat(Spectrum().push(reflected.astype(np.float32)))


def own_front_end(samples: np.ndarray) -> np.ndarray:
    """Return EfficientAT's own float32[m, 128] of 32 kHz sound, written out."""
    emphasised = samples[1:].astype(np.float64) - 0.97 * samples[:-1]
    centred = np.pad(emphasised, 512, mode="reflect")
    symmetric = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)
    window = np.pad(symmetric, 112)
    frames = np.lib.stride_tricks.sliding_window_view(centred, 1024)[::320]
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    mel = 1127 * np.log(1 + np.arange(513) * 31.25 / 700)
    edges = np.linspace(0, 1127 * np.log(1 + 15_000 / 700), 130)
    triangles = np.minimum(
        (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2]),
        (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1]),
    )
    bands = power @ np.maximum(triangles, 0)
    return ((np.log(bands + 1e-5) + 4.5) / 5).astype(np.float32)


@pytest.mark.parametrize(
    ("front_end", "rate"), [("stft_16k", 16_000), ("torch_32k", 32_000)], ids=["ours", "its own"]
)
def test_posteriors_are_the_references(front_end, rate, mn04, reference, esc10):
    features = {"stft_16k": from_spectrum, "torch_32k": own_front_end}[front_end]
    clips = [features(samples(esc10 / "audio" / file, rate)) for file in reference["files"]]
    for length, frames in FRAMES.items():
        found, _ = run(mn04, np.stack([clip[:frames] for clip in clips]))
        expected = reference[f"{front_end}_{length}"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_one_session_takes_windows_of_any_length(mn04):
    for frames in (32, 96, 97, 200, 333, 1000):
        posterior, embedding = run(mn04, noise(2, frames))
        assert (posterior.shape, embedding.shape) == ((2, 527), (2, 384))
        assert np.isfinite(embedding).all()
        assert 0 <= posterior.min() <= posterior.max() <= 1


def test_a_batch_gives_what_each_window_gives_alone(mn04):
    windows = noise(3, 96)
    alone = [run(mn04, one[None]) for one in windows]
    for together, *apart in zip(run(mn04, windows), *alone, strict=True):
        np.testing.assert_allclose(together, np.concatenate(apart), rtol=0, atol=1e-4)


# --- random weights ---


@pytest.mark.parametrize(
    ("name", "embedding"),
    [
        ("mn04", 384),
        ("mn10", 960),
        pytest.param("mn20", 1920, marks=pytest.mark.slow),
        pytest.param("mn40", 3840, marks=pytest.mark.slow),
    ],
)
def test_each_width_is_built_and_runs(name, embedding):
    model = efficientat.build_from(random_weights(efficientat.WIDTHS[name]))
    assert model.graph.name == name
    posterior, found = run(session(model), noise(1, 64))
    assert (posterior.shape, found.shape) == ((1, 527), (1, embedding))
    assert np.isfinite(found).all()
    assert found.std() > 0


def test_counts_of_batches_and_the_order_of_names_do_not_matter():
    weights = mn04_random()
    shuffled = dict(reversed(weights.items()))
    shuffled["features.0.1.num_batches_tracked"] = np.array(7)
    one, other = (efficientat.build_from(each) for each in (weights, shuffled))
    assert one.SerializeToString() == other.SerializeToString()


def changed(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    found = mn04_random() | {name.replace("__", "."): each for name, each in changes.items()}
    return {name: each for name, each in found.items() if each is not None}


@pytest.mark.parametrize(
    "weights",
    {
        "none": {},
        "of something else": {"fc.weight": np.zeros((2, 2), np.float32)},
        "one absent": changed(classifier__5__bias=None),
        "one too many": changed(classifier__6__bias=np.zeros(3, np.float32)),
        "with a prefix": {f"model.{name}": each for name, each in mn04_random().items()},
        "another shape": changed(classifier__5__bias=np.zeros(50, np.float32)),
        "a scalar": changed(classifier__5__bias=np.float32(0).reshape(())),
    }.items(),
    ids=lambda item: item[0],
)
def test_other_names_and_shapes_are_refused_in_a_line(weights):
    with pytest.raises(ModelError, match=r"^mine\.pt does not have .*mn04_as_mAP_432") as raised:
        efficientat.build_from(weights[1], "mine.pt")
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features.3.block.1.0.weight", np.nan),
        ("classifier.2.bias", np.inf),
        ("features.5.block.1.1.running_var", -1.0),  # has no root
        ("features.5.block.1.1.running_var", np.inf),
        ("features.0.1.running_var", -efficientat.EPSILON),
        ("features.0.1.running_mean", 1e300),  # no float32
        ("classifier.5.weight", 1e39),
    ],
)
def test_weights_that_are_not_finite_are_refused_in_a_line(name, value):
    wrong = mn04_random()[name].astype(np.float64)
    wrong.flat[0] = value
    with pytest.raises(ModelError, match=r"^mine\.pt .*not finite") as raised:
        efficientat.build_from(mn04_random() | {name: wrong}, "mine.pt")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_weights_of_another_precision_are_taken(dtype):
    weights = {name: each.astype(dtype) for name, each in mn04_random().items()}
    found = run(session(efficientat.build_from(weights)), noise(1, 64))
    expected = run(session(efficientat.build_from(mn04_random())), noise(1, 64))
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=0.05)


# --- torch ---


def by_torch(state: dict[str, np.ndarray], log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return posteriors and embeddings: MobileNetV3-Large as torch's functions make it."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    state = {name: torch.tensor(each) for name, each in state.items()}

    def conv(x, name, stride=1):
        kernel = state[f"{name}.0.weight"]
        groups = x.shape[1] // kernel.shape[1]
        x = f.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, 1, groups)
        norm = [state[f"{name}.1.{each}"] for each in ("running_mean", "running_var")]
        affine = [state[f"{name}.1.{each}"] for each in ("weight", "bias")]
        return f.batch_norm(x, *norm, *affine, eps=1e-3)

    def linear(x, name):
        return f.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = f.hardswish(conv(torch.tensor(log_mel).transpose(1, 2)[:, None], "features.0", 2))
    for i, stride in enumerate((1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1), 1):
        into, activation = x, torch.relu if i <= 6 else f.hardswish
        there = {int(name.split(".")[3]) for name in state if name.startswith(f"features.{i}.")}
        for layer in sorted(there):
            name = f"features.{i}.block.{layer}"
            if f"{name}.conc_se_layers.0.fc1.weight" in state:
                squeezed = torch.relu(linear(x.mean((2, 3)), f"{name}.conc_se_layers.0.fc1"))
                gate = linear(squeezed, f"{name}.conc_se_layers.0.fc2")
                x = x * torch.sigmoid(gate)[:, :, None, None]
                continue
            depthwise = state[f"{name}.0.weight"].shape[-1] > 1
            x = conv(x, name, stride if depthwise else 1)
            x = x if layer == max(there) else activation(x)
        x = x + into if stride == 1 and x.shape == into.shape else x
    embedding = f.hardswish(conv(x, "features.16")).mean((2, 3))
    hidden = f.hardswish(linear(embedding, "classifier.2"))
    return torch.sigmoid(linear(hidden, "classifier.5")).numpy(), embedding.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("frames", [32, 96, 301])
@pytest.mark.parametrize("which", ["mn04", "random mn04", "random mn10"])
def test_torch_gives_the_same(which, frames):
    if which == "mn04":
        weights = pt_file.read(mn04_file())
    else:
        weights = random_weights(efficientat.WIDTHS[which.split()[1]])
    found = run(session(efficientat.build_from(weights)), noise(2, frames))
    posterior, embedding = by_torch(weights, noise(2, frames))
    np.testing.assert_allclose(found[0], posterior, rtol=0, atol=1e-4)
    scale = np.abs(embedding).max()
    np.testing.assert_allclose(found[1], embedding, rtol=0, atol=1e-4 * scale)
