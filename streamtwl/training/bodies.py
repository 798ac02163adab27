"""Language models that read a trace: transformers' own, with the cache of a stream in and out.

A body takes embeddings instead of words, and a key and a value a layer, so that every kind of
causal model has the same face: `tiny` is the project's own small GPT-2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModel, DynamicCache, GPT2Config, GPT2Model, PreTrainedModel

TINY = "tiny"
TINY_POSITIONS = 512
UNSEEN = -1e9  # added to the attention of what is not to be seen


class Body(nn.Module):
    """A causal language model without its words."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        config = model.config.get_text_config()
        self.width: int = config.hidden_size
        self.layers: int = config.num_hidden_layers
        self.heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self.head_width: int = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        self.positions: int = config.max_position_embeddings

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
        n_new, n_past = embeddings.shape[1], past[0].shape[2]
        order = torch.ones(n_new, n_past + n_new, dtype=torch.bool).tril(n_past)
        seen = order[None] & attention_mask[:, None]
        mask = torch.where(seen, 0.0, UNSEEN)[:, None].to(embeddings.dtype)
        cache = DynamicCache()
        for layer in range(self.layers):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        read = self.model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        layers = read.past_key_values.layers
        new = [each[:, :, n_past:] for layer in layers for each in (layer.keys, layer.values)]
        return read.last_hidden_state, new

    def nothing_read(self, rows: int) -> list[Tensor]:
        """Return the empty cache of so many rows."""
        return [torch.zeros(rows, self.heads, 0, self.head_width)] * (2 * self.layers)


def load(body: str, seed: int) -> Body:
    """Return a body by its name: `tiny`, or a Hugging Face directory or id of a causal model."""
    torch.manual_seed(seed)
    if body == TINY:
        config = GPT2Config(
            n_layer=3,
            n_embd=128,
            n_head=4,
            n_positions=TINY_POSITIONS,
            vocab_size=1,
            bos_token_id=0,
            eos_token_id=0,
            resid_pdrop=0.3,
            embd_pdrop=0.1,
            attn_pdrop=0.0,
        )
        return Body(_wordless(GPT2Model(config)))
    return Body(_wordless(AutoModel.from_pretrained(body)))


def _wordless(model: PreTrainedModel) -> PreTrainedModel:
    """Let go of the word embeddings, which can be most of a small model."""
    model.set_input_embeddings(nn.Embedding(1, model.config.get_text_config().hidden_size))
    return model
