"""streamtwl listens to live sound, names what it recognises, and revises as it listens."""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamtwl.client import Subscription, subscribe
    from streamtwl.errors import StreamtwlError
    from streamtwl.in_process import classify, listen
    from streamtwl.messages import Event, Hello, Label, Level, Patch, Status
    from streamtwl.stages import Backbone, Reasoner, Sink, Source

_FRONT_DOOR = {  # what is imported from here, and where it is
    "streamtwl.in_process": ("classify", "listen"),
    "streamtwl.client": ("Subscription", "subscribe"),
    "streamtwl.messages": ("Event", "Hello", "Label", "Level", "Patch", "Status"),
    "streamtwl.errors": ("StreamtwlError",),
    "streamtwl.stages": ("Backbone", "Reasoner", "Sink", "Source"),
}

__all__ = [
    "Backbone",
    "Event",
    "Hello",
    "Label",
    "Level",
    "Patch",
    "Reasoner",
    "Sink",
    "Source",
    "Status",
    "StreamtwlError",
    "Subscription",
    "__version__",
    "classify",
    "listen",
    "subscribe",
]
__version__ = "0.1.0"

# Small products, a window at a time: threads of numpy's own would wait for a core that is not free,
# which made a log-mel hop 16 ms instead of 0.3 on a busy machine. Read when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A program with a microphone sends nothing anywhere, whatever the environment says. Read when
# onnxruntime and huggingface_hub are imported: it has no effect if they were imported before.
onnxruntime_sends = "onnxruntime" in sys.modules and os.environ.get(
    "ORT_DISABLE_TELEMETRY", "0"
) in ("", "0")
os.environ.update(
    ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", DISABLE_SAFETENSORS_CONVERSION="1"
)


def __getattr__(name: str) -> Any:
    """Import what is used where it is used, so that `import streamtwl` stays quick."""
    for module, names in _FRONT_DOOR.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
