"""Options that several commands share, and what they set."""

import logging
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from streamtwl.config import Settings
from streamtwl.models.wheel import OFFLINE

Level = StrEnum("Level", ["debug", "info", "warning", "error"])
ProviderName = StrEnum("ProviderName", ["auto", "cpu", "cuda"])

Pipeline = Annotated[
    str,
    typer.Option(
        help="'default' or 'gpt2' (YAMNet and mn04, read by a GPT-2 that has second thoughts; "
        "without mn04's weights YAMNet alone), 'evidence' (the same without GPT-2), 'light' (every "
        "0.96 s and without GPT-2), 'yamnet' (YAMNet alone), 'ast' (an Audio Spectrogram "
        "Transformer that you have exported), 'llm' (a language model on a server of yours), or a "
        "pipeline file (.toml)."
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Which sounds to name: 'everyday' (about 70), 'all' (AudioSet's categories), or "
        "names separated by commas, as 'Dog, Siren'; of the sounds that you taught all, or those "
        "in the list. (default: the pipeline's, all)",
        show_default=False,
    ),
]
Hop = Annotated[
    float | None,
    typer.Option(
        help="Seconds from one decision to the next, a multiple of 0.01, no longer than the first "
        "window; 0.08 is quick. (default: the pipeline's, 0.48)",
        show_default=False,
    ),
]
Reasoner = Annotated[
    str | None,
    typer.Option(
        help="What decides: 'reader' (the GPT-2 of the default), 'evidence' (no language model; "
        "see --pipeline evidence), 'llm' (a language model on a server, beside evidence), or the "
        ".onnx file of a trained reasoner with labels of its own, as `streamtwl train` makes, "
        "which runs the windows that it reads. (default: the pipeline's, reader)",
        show_default=False,
    ),
]
ServerKey = Annotated[
    str | None,
    typer.Option(
        help="The publisher's public key, where it publishes with --curve: its server.key, or "
        "the 40 characters in it.",
        show_default=False,
    ),
]
ClientKey = Annotated[
    Path | None,
    typer.Option(
        "--key",
        help="Your own secret key, for --server-key. (default: keys/client.key_secret in the "
        "user's config folder, or in $STREAMTWL_CONFIG)",
        show_default=False,
    ),
]
Provider = Annotated[
    ProviderName | None,
    typer.Option(
        help="What the networks run on: auto (a GPU where ONNX Runtime has CUDA), cpu or cuda. "
        "(default: the pipeline's, auto)",
        show_default=False,
    ),
]
Channel = Annotated[
    str,
    typer.Option(
        help="Which channel of a source to use: mix (all; the louder one where they cancel one "
        "another out), left, right, or a number from 1 on."
    ),
]


def _forbid_network(wanted: bool) -> bool:
    if wanted:
        os.environ[OFFLINE] = "1"
    return wanted


Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Download nothing, not even a model's weights that are missing. STREAMTWL_OFFLINE=1 "
        "does the same.",
        callback=_forbid_network,
    ),
]
LogLevel = Annotated[
    Level, typer.Option(help="What is logged to standard error.", case_sensitive=False)
]

# of `train` and `bench`

Data = Annotated[Path, typer.Argument(help="Your sounds: ESC-50's layout, or a folder per class.")]
Corpus = Annotated[
    Path | None,
    typer.Option(
        help="Backgrounds without your sounds: FOLDER/train/ANY/*.flac, as tools/corpus.sh "
        "makes them. (default: corpus in the cache folder)",
        show_default=False,
    ),
]
LeaveOut = Annotated[
    list[int] | None,
    typer.Option(help="A fold to keep for a test. Repeat it for several. (default: none)"),
]
ReadWindows = Annotated[
    str | None,
    typer.Option(
        "--windows",
        help="What the reasoner reads: backbones and how much of the newest sound each scores, as "
        "yamnet:0.96,mn04:2. (default: yamnet:0.96,mn04:0.96,mn04:2; without mn04's weights "
        "yamnet:0.96)",
        show_default=False,
    ),
]
PatchHop = Annotated[
    float, typer.Option(help="Seconds from one patch to the next.", min=0.01, max=0.96)
]


_log = logging.getLogger(__name__)


def pipeline_settings(pipeline: str, changes: dict[str, Any]) -> Settings:
    """Return the settings of a pipeline, changed where an option was given (is not None)."""
    from streamtwl import available

    return available.settings(pipeline, changes, _log.warning)


def start_logging(level: str) -> None:
    """Log to standard error."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
