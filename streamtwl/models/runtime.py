"""ONNX Runtime: sessions, on the processor or a GPU, with its telemetry off."""

import contextlib
import ctypes
import logging
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import streamtwl
from streamtwl.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime

_log = logging.getLogger(__name__)

Provider = Literal["auto", "cpu", "cuda"]
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
M_MMAP_THRESHOLD = -3  # of malloc.h
LARGE_BYTES = 1 << 20  # more than a hop of a stream takes anywhere
_fell_back = False  # the warning is given once


def open_session(
    file: Path, threads: int, provider: Provider = "auto"
) -> "onnxruntime.InferenceSession":
    """Return an ONNX Runtime session over an ONNX file.

    `auto` runs on a GPU where this ONNX Runtime has CUDA. Raises ModelError where there is no ONNX
    Runtime, or no CUDA for `cuda`; ONNX Runtime's own errors where it cannot load the file.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ModelError(
            "no ONNX Runtime here: pip install 'streamtwl[cpu]' (or 'streamtwl[gpu]')"
        ) from None

    _quieten(onnxruntime)
    has_cuda = CUDA in onnxruntime.get_available_providers()
    if provider == "cuda" and not has_cuda:
        raise ModelError(
            "--provider cuda: this ONNX Runtime runs on the processor only: pip uninstall "
            "onnxruntime, then pip install 'streamtwl[gpu]'; or take --provider auto"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(threads, os.cpu_count() or 1)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = [CUDA, CPU] if has_cuda and provider != "cpu" else [CPU]
    session = onnxruntime.InferenceSession(str(file), options, providers=wanted)
    give_back()
    if CUDA in wanted and CUDA not in session.get_providers():
        _say_fallback(provider)
    return session


def provider(session: "onnxruntime.InferenceSession") -> str:
    """Return what a session runs on: CUDAExecutionProvider only where CUDA did start."""
    return session.get_providers()[0]


def on_gpu(provider: Provider) -> bool:
    """Whether models will run on a GPU, unless CUDA fails to start."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return False
    return provider != "cpu" and CUDA in onnxruntime.get_available_providers()


def errors() -> tuple[type[BaseException], ...]:
    """Return what ONNX Runtime raises; they have no common base class."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ModuleNotFoundError:
        return ()
    kinds = [each for each in vars(state).values() if isinstance(each, type)]
    return tuple(kind for kind in kinds if issubclass(kind, Exception))


def give_back() -> None:
    """Return freed memory to the system, where glibc is: reading YAMNet leaves 33 MB behind."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def give_back_at_once() -> None:
    """Have glibc return what is large when it is freed; by itself it begins to keep it."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def _say_fallback(provider: Provider) -> None:
    """Warn that CUDA did not start; ONNX Runtime itself continues on the processor."""
    global _fell_back
    problem = "ONNX Runtime could not start CUDA (check the driver and CUDA's libraries)"
    if provider == "cuda":
        raise ModelError(f"--provider cuda: {problem}; or take --provider cpu")
    if not _fell_back:
        _fell_back = True
        _log.warning("%s: running on the processor; --provider cpu avoids this warning", problem)


def _quieten(onnxruntime: ModuleType) -> None:
    """Turn ONNX Runtime's telemetry off, as far as possible if it was imported before us."""
    onnxruntime.disable_telemetry_events()
    if streamtwl.onnxruntime_sends:
        streamtwl.onnxruntime_sends = False  # warn once
        _log.warning(
            "onnxruntime was imported before streamtwl, and its telemetry has begun: import "
            "streamtwl first, or set ORT_DISABLE_TELEMETRY=1"
        )
