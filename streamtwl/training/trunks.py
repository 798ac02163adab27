"""Language models that read a trace: transformers' own, with the cache of a stream in and out.

A trunk takes embeddings instead of words, and one key and one value tensor per layer, so that every
kind of causal model has the same interface. `tiny` is the project's own small GPT-2.
"""

import copy
import functools
import importlib.util
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModel, GPT2Config, GPT2Model, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from streamtwl.errors import UsageError
from streamtwl.models import wheel
from streamtwl.training import embedding_init
from streamtwl.training.recipe import TINY

PRETRAINING = "pretraining.json"  # in a folder of `streamtwl bench pretrain`: how it was made
TINY_POSITIONS = 512
WORDS_STD = 0.02  # of a fresh model's word embeddings: GPT2Config.initializer_range
ATTENTION = "streamtwl"
FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of layers, as in configurations
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
GGUF_PACKAGES = ("gguf", "accelerate")
UNSEEN = -1e9  # added to the attention logits of masked tokens


class _Layer(DynamicLayer):
    """A layer's past keys and values and its new ones, which are never concatenated."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self.past = self.new = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Return what `_attend` takes: keys and values, each in two parts where there is a past."""
        self.new = key_states, value_states
        return self.new if self.past[0].shape[2] == 0 else zip(self.past, self.new, strict=True)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Any,
    value: Any,
    attention_mask: Tensor,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention for transformers' models, with the past kept apart from the new tokens.

    Concatenating the two, and repeating keys that several heads share, would copy the whole cache
    at every step: a sixth to a quarter of a step's time, for GPT-2 and Gemma 3 270M.
    """
    if isinstance(key, Tensor):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )
    (past_keys, keys), (past_values, values) = key, value
    n_past, (_, heads, n_new, width) = past_keys.shape[2], keys.shape
    scale = width**-0.5 if scaling is None else scaling
    query = query.unflatten(1, (heads, -1)).flatten(2, 3)  # R, H, heads that share a key x T, E
    scores = torch.cat((query @ past_keys.mT, query @ keys.mT), dim=-1) * scale
    scores = scores.unflatten(2, (-1, n_new)) + attention_mask[:, :, None]
    shares = scores.softmax(dim=-1).flatten(2, 3)
    read = shares[..., :n_past] @ past_values + shares[..., n_past:] @ values
    return read.unflatten(2, (-1, n_new)).flatten(1, 2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attend)


class Trunk(nn.Module):
    """A causal language model without its words."""

    def __init__(
        self,
        model: PreTrainedModel,
        words_std: float = WORDS_STD,
        initial_embedding: Tensor | None = None,
        usual: Tensor | None = None,
    ) -> None:
        """Take a model, and the standard deviation of its word embeddings as its layers get them.

        Gemma multiplies its word embeddings by the root of its width, but not embeddings that are
        passed in their place. `initial_embedding` is what a trace model's embedding may start from:
        see `embedding_init.py`. `usual`, float32[n, D], are typical hidden states of the model;
        with them each dimension is scaled to zero mean and unit variance, because in some models a
        few dimensions are large for any input and would dominate what a read-out learns.
        """
        super().__init__()
        self.usual: Tensor | None
        moments = None if usual is None else torch.stack((usual.mean(0), usual.std(0) + 1e-3))
        self.register_buffer("usual", moments)
        self.model = model
        self.words_std = words_std
        self.initial_embedding = initial_embedding
        model.set_attn_implementation(ATTENTION)
        config = model.config.get_text_config()
        self.width: int = config.hidden_size
        self.layers: int = config.num_hidden_layers
        self.heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self.head_width: int = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.positions: int = config.max_position_embeddings
        self.window: int = getattr(config, "sliding_window", None) or 0
        kinds = getattr(config, "layer_types", None) or [SLIDING if self.window else FULL]
        self.kinds = sorted(set(kinds))

    def forward(
        self,
        embeddings: Tensor,
        past: Sequence[Tensor],
        attention_mask: Tensor,
        position_ids: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """Read T new tokens of R rows, of which P were read before.

        Takes float32[R, T, D], each layer's key and value float32[R, H, P, E], bool[R, P + T]:
        which tokens of a row there are, and int64[R, T]. Returns float32[R, T, D] and the new keys
        and values, float32[R, H, T, E].
        """
        layers = [_Layer(past[i], past[i + 1]) for i in range(0, len(past), 2)]
        read = self.model(
            inputs_embeds=embeddings,
            attention_mask=self._masks(past[0].shape[2], attention_mask, position_ids),
            position_ids=position_ids,
            past_key_values=Cache(layers=[*layers]),
            use_cache=True,
        )
        hidden = read.last_hidden_state
        if self.usual is not None:
            hidden = (hidden - self.usual[0]) / self.usual[1]
        return hidden, [each for layer in layers for each in layer.new]

    def _masks(
        self, n_past: int, attention_mask: Tensor, position_ids: Tensor
    ) -> Tensor | dict[str, Tensor]:
        """Return what each new token does not see, float32[R, 1, T, P + T], by kind of layer."""
        n_new = position_ids.shape[1]
        order = torch.ones(n_new, n_past + n_new, dtype=torch.bool).tril(n_past)
        seen = {FULL: order[None] & attention_mask[:, None]}
        if SLIDING in self.kinds:
            before = torch.arange(n_past).expand(len(position_ids), -1)
            positions = torch.cat((before, position_ids), dim=1)
            near = position_ids[:, :, None] - positions[:, None] < self.window
            seen[SLIDING] = seen[FULL] & near
        masks = {kind: torch.where(seen[kind], 0.0, UNSEEN)[:, None] for kind in self.kinds}
        return masks if len(masks) > 1 else masks.popitem()[1]

    def empty_cache(self, rows: int) -> list[Tensor]:
        """Return an empty cache for this many rows."""
        return [torch.zeros(rows, self.heads, 0, self.head_width)] * (2 * self.layers)


def load(trunk: str, seed: int, local_only: bool = False) -> Trunk:
    """Return a trunk by its name.

    `tiny`, or a causal Hugging Face model: a directory, a GGUF file, or an id, which with
    `local_only` the hub is not contacted for. Raises UsageError where it does not exist or cannot
    serve as a trunk.
    """
    torch.manual_seed(seed)
    if trunk == TINY:
        return Trunk(wordless(tiny()))
    return copy.deepcopy(_read(trunk, local_only))


def made_by(trunk: str) -> str:
    """Return the `streamtwl bench pretrain` command that made a trunk; empty for any other."""
    about = Path(trunk) / PRETRAINING
    return json.loads(about.read_text())["command"] if about.exists() else ""


def tiny(words: int = 1) -> GPT2Model:
    """Return the project's own small GPT-2 with random weights."""
    config = GPT2Config(
        n_layer=3,
        n_embd=128,
        n_head=4,
        n_positions=TINY_POSITIONS,
        vocab_size=words,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.3,
        embd_pdrop=0.1,
        attn_pdrop=0.0,
    )
    return GPT2Model(config)


@functools.lru_cache(maxsize=1)  # a GGUF file takes minutes
def _read(trunk: str, local_only: bool = False) -> Trunk:
    rng = torch.get_rng_state()
    model = _pretrained(trunk, local_only)
    made = _as_trunk(model, embedding_init.of_trunk(model, trunk, local_only))
    if made is None:
        raise UsageError(
            f"--body {trunk}: a {model.config.model_type} does not continue from cached keys and "
            "values; use a model such as GPT-2, Llama, Qwen or Gemma"
        )
    torch.set_rng_state(rng)  # so that it does not matter whether it was cached
    return made


def _pretrained(trunk: str, local_only: bool = False) -> PreTrainedModel:
    path = Path(trunk)
    is_gguf = path.suffix == ".gguf"
    if is_gguf and not path.is_file():
        raise UsageError(f"--body {trunk}: there is no such file")
    if not path.exists() and not HUB_ID.fullmatch(trunk):
        raise UsageError(
            f"--body {trunk}: there is no such directory; it takes tiny, a directory, a .gguf file "
            "or an id of Hugging Face's hub such as openai-community/gpt2"
        )
    for package in GGUF_PACKAGES if is_gguf else ():
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"--body {trunk}: it needs {package}: pip install 'streamtwl[train]'")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs every retry
    try:
        if is_gguf:
            return AutoModel.from_pretrained(
                path.resolve().parent, gguf_file=path.name, local_files_only=True
            )
        local_only = local_only or path.exists() or wheel.is_offline()
        return AutoModel.from_pretrained(trunk, dtype=torch.float32, local_files_only=local_only)
    except Exception as error:  # a damaged file fails in many ways
        reason = str(error).splitlines()[0]
        if path.exists():
            raise UsageError(f"--body {trunk}: not a model, or damaged ({reason})") from None
        raise UsageError(
            f"--body {trunk}: not available from the Hugging Face hub ({reason}); where the hub "
            f"can be reached, run `hf download {trunk} --local-dir DIR`, then use --body DIR"
        ) from None


@torch.no_grad()
def _as_trunk(model: PreTrainedModel, initial: Tensor | None) -> Trunk | None:
    """Return a trunk that gives the same in two parts as the model at once; None if it does not."""
    try:
        config = model.config.get_text_config()
        words = torch.arange(0, config.vocab_size, 1 + config.vocab_size // 4096)
        embedding = model.get_input_embeddings()
        words_std = embedding(words).std().item()
        texts = embedding(torch.linspace(0, config.vocab_size - 1, 512).long()).view(16, 32, -1)
        usual = None
        if not embedding_init.has_trace_vocabulary(embedding):
            usual = model.eval()(inputs_embeds=texts).last_hidden_state.flatten(0, 1)
        model = wordless(model).eval()
        embeddings = words_std * torch.randn(1, 8, config.hidden_size)
        at_once = model(inputs_embeds=embeddings).last_hidden_state
        trunk = Trunk(model, words_std, initial)
        there, positions = torch.ones(1, 8, dtype=torch.bool), torch.arange(8)[None]
        first, past = trunk(embeddings[:, :4], trunk.empty_cache(1), there[:, :4], positions[:, :4])
        second, _ = trunk(embeddings[:, 4:], past, there, positions[:, 4:])
    except Exception:  # each kind of unsuitable model fails in its own way
        return None
    in_parts = torch.cat((first, second), dim=1)
    if not torch.allclose(at_once, in_parts, rtol=1e-3, atol=1e-3):
        return None
    return Trunk(model, words_std, initial, usual)


def wordless(model: PreTrainedModel) -> PreTrainedModel:
    """Drop the word embeddings, which can be most of a small model."""
    model.set_input_embeddings(nn.Embedding(1, model.config.get_text_config().hidden_size))
    return model
