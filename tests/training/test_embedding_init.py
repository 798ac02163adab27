"""Rows of an embedding, from a text model's own words."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

from streamtwl.ontology import categories
from streamtwl.training import trunks
from streamtwl.training.trace_model import TraceModel


def test_a_row_is_the_mean_of_the_words_of_its_name(tmp_path):
    words = sorted({word for name in categories() for word in _words(name)})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    config = GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=len(words))
    model = GPT2Model(config)
    model.save_pretrained(tmp_path)
    trunk = trunks.load(str(tmp_path), 0)
    assert trunk.initial_embedding is not None
    number = categories().index("Dog")
    own = model.get_input_embeddings().weight
    torch.testing.assert_close(trunk.initial_embedding[number], own[words.index("Dog")])
    several = categories().index("Crying, sobbing")
    mean = own[[words.index(word) for word in ("Crying", ",", "sobbing")]].mean(dim=0)
    torch.testing.assert_close(trunk.initial_embedding[several], mean)
    model = TraceModel(trunk, len(categories()), 3, 0)
    assert torch.equal(model.symbols.weight[:-1], trunk.initial_embedding)  # the boundary has none
    assert 0.01 < model.bins.weight.std() < 0.03


def _words(name: str) -> list[str]:
    return [word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(name)]


def test_a_model_without_words_gives_no_rows(tmp_path):
    GPT2Model(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=50)).save_pretrained(tmp_path)
    assert trunks.load(str(tmp_path), 0).initial_embedding is None
    assert trunks.load("tiny", 0).initial_embedding is None
