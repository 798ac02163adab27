"""streamtwl listens to live sound, names what it hears, and keeps thinking while it listens."""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamtwl.client import Subscription, subscribe

__all__ = ["Subscription", "__version__", "subscribe"]
__version__ = "0.1.0"

# Small products, a window at a time: threads of numpy's own would wait for a core that is not free,
# which made a log-mel hop 16 ms instead of 0.3 on a busy machine. Read when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A program with a microphone sends nothing anywhere, whatever the environment says. Read when
# onnxruntime and huggingface_hub are imported: whoever imported them before has them sending.
onnxruntime_sends = "onnxruntime" in sys.modules and os.environ.get(
    "ORT_DISABLE_TELEMETRY", "0"
) in ("", "0")
os.environ.update(
    ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1", DISABLE_SAFETENSORS_CONVERSION="1"
)


def __getattr__(name: str) -> Any:
    """Import the client library where it is used, so that `import streamtwl` stays quick."""
    if name in ("Subscription", "subscribe"):
        from streamtwl import client

        return getattr(client, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
