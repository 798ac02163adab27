"""The initial value of a trace model's embedding, from the trunk's own word embeddings."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from streamtwl.models import wheel
from streamtwl.ontology import categories
from streamtwl.reasoners.sampling import N_BINS


def of_trunk(model: PreTrainedModel, trunk: str, local_only: bool = False) -> Tensor | None:
    """Return float32[C, D], or [C + 1 + bins, D] where its vocabulary is that of a trace.

    None where the trunk has no words for categories. A text model's row for a category is the mean
    of its embeddings of the words in the category's name, as its layers get them. A model of `bench
    pretrain` has a word for each category, the boundary, and each confidence bin.
    """
    names = categories()
    words: Any = model.get_input_embeddings()
    if has_trace_vocabulary(words):
        return words.weight.detach().clone()
    tokenizer = _tokenizer(trunk, local_only)
    if tokenizer is None:
        return None
    ids = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in names]
    if not all(ids):  # an empty tokenizer is made where there is none
        return None
    with torch.no_grad():
        return torch.stack([words(torch.tensor(each)).mean(dim=0) for each in ids])


def has_trace_vocabulary(words: Any) -> bool:
    """Return whether an embedding has the vocabulary that `streamtwl bench pretrain` trains."""
    return words.num_embeddings == len(categories()) + 1 + N_BINS


def _tokenizer(trunk: str, local_only: bool = False) -> Any | None:
    path = Path(trunk)
    try:
        if path.suffix == ".gguf":
            return AutoTokenizer.from_pretrained(
                path.resolve().parent, gguf_file=path.name, local_files_only=True
            )
        local_only = local_only or path.exists() or wheel.is_offline()
        return AutoTokenizer.from_pretrained(trunk, local_files_only=local_only)
    except Exception:  # a model without one fails in many ways
        return None
