"""Trunks by their names: transformers' own models, read step by step, and what is refused."""

from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModel

from streamtwl.errors import UsageError
from streamtwl.training import embedding_init, trunks
from streamtwl.training.trace_model import TraceModel

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 128,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
MODELS = {
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50},
    "Llama": SIZES,
    "Mistral": {**SIZES, "sliding_window": 7},
    "Qwen2": SIZES,
    "Gemma3Text": {**SIZES, **MIXED, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 7},
}


def saved(name: str, sizes: dict, folder) -> str:
    """Write a model whose weights are random and large enough that the past matters."""
    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(
        **sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    model = AutoModel.from_config(config)
    for weights in model.parameters():
        if weights.ndim == 2:
            torch.nn.init.normal_(weights, std=0.2)
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_body_reads_step_by_step_as_its_model_does_at_once(name, tmp_path):
    where = saved(name, MODELS[name], tmp_path)
    trunk, own = trunks.load(where, 0).eval(), AutoModel.from_pretrained(where).eval()
    words = own.get_input_embeddings()(torch.randint(50, (3, 40)))
    mean, std = trunk.usual
    expected = (own(inputs_embeds=words).last_hidden_state - mean) / std
    begins, past = torch.tensor([0, 10, 30]), trunk.empty_cache(3)
    for t in range(0, 40, 5):
        ages = (t - begins).clamp(min=0)
        at = ages[:, None] + torch.arange(5)
        there = torch.cat((torch.arange(t) < ages[:, None], torch.ones(3, 5, dtype=torch.bool)), 1)
        now = torch.stack([words[i, at[i]] for i in range(3)])
        hidden, new = trunk(now, past, there, at)
        past = [torch.nn.functional.pad(each, (0, 0, 0, 5)) for each in past]
        for i in range(3):
            torch.testing.assert_close(hidden[i], expected[i, at[i]], atol=1e-4, rtol=1e-4)
            for cached, added in zip(past, new, strict=True):
                cached[i, :, at[i]] = added[i]


def test_a_reader_begins_with_embeddings_as_loud_as_the_words_of_its_body(tmp_path):
    trunk = trunks.load(saved("Gemma3Text", MODELS["Gemma3Text"], tmp_path), 0)
    symbols = TraceModel(trunk, 521, 3, 0).symbols.weight
    assert symbols.std().item() == pytest.approx(0.2 * SIZES["hidden_size"] ** 0.5, rel=0.1)
    assert TraceModel(trunks.load("tiny", 0), 521, 3, 0).symbols.weight.std().item() < 0.03


@torch.no_grad()
def test_what_is_large_whatever_is_read_is_taken_out(tmp_path):
    where = saved("Gemma3Text", MODELS["Gemma3Text"], tmp_path)
    own = AutoModel.from_pretrained(where).eval()
    own.norm.weight[3] = 200.0  # a dimension that outshouts the others
    own.save_pretrained(where)
    trunk = trunks.load(where, 0).eval()
    words = torch.arange(50).repeat(4)[:192].view(6, 32)
    embedded = own.get_input_embeddings()(words)
    there, at = torch.ones(6, 32, dtype=torch.bool), torch.arange(32).expand(6, -1)
    hidden, _ = trunk(embedded, trunk.empty_cache(6), there, at)
    loud = own(inputs_embeds=embedded).last_hidden_state.flatten(0, 1).std(dim=0)
    assert loud[3] > 20 * loud.median()
    assert hidden.flatten(0, 1).std(dim=0).numpy() == pytest.approx(np.ones(32), abs=0.4)
    assert hidden.mean().abs() < 0.1
    assert trunks.load("tiny", 0).usual is None


def write_gguf(file) -> None:
    """Write a Llama of one layer, as llama.cpp names its parts."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(50)
    shapes = {"token_embd": (50, 32), "output": (50, 32), "blk.0.attn_q": (32, 32)}
    shapes |= {"blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32)}
    shapes |= {"blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)}
    for name, shape in shapes.items():
        weights = 0.2 * rng.standard_normal(shape)
        writer.add_tensor(f"{name}.weight", weights.astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_a_body(tmp_path):
    write_gguf(tmp_path / "small.gguf")
    trunk = trunks.load(str(tmp_path / "small.gguf"), 0)
    assert (trunk.width, trunk.layers, trunk.heads, trunk.head_width) == (32, 1, 2, 8)
    assert trunk.model.layers[0].mlp.gate_proj.weight.std().item() == pytest.approx(0.2, rel=0.1)


def test_a_gguf_file_needs_its_packages(tmp_path, monkeypatch):
    (tmp_path / "small.gguf").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs gguf: pip install 'streamtwl\[train\]'"):
        trunks.load(str(tmp_path / "small.gguf"), 0)


@pytest.mark.parametrize(
    ("trunk", "said"),
    [
        ("no/such/place", "no such directory"),
        ("nothing.gguf", "no such file"),
        ("{folder}", "not a model"),
        ("{folder}/cut.gguf", "not a model, or damaged"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(trunk, said, tmp_path):
    write_gguf(tmp_path / "whole.gguf")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "whole.gguf").read_bytes()[:100])
    with pytest.raises(UsageError, match=said) as refused:
        trunks.load(trunk.format(folder=tmp_path), 0)
    assert "\n" not in str(refused.value)


def test_an_id_that_the_hub_does_not_give_says_how_to_get_it(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("We couldn't connect\nCheck your connection")

    monkeypatch.setattr(AutoModel, "from_pretrained", unreachable)
    with pytest.raises(UsageError, match=r"couldn't connect\).* --local-dir DIR"):
        trunks.load("openai-community/gpt2", 0)


@pytest.mark.parametrize("name", ["Mamba", "Bert"])
def test_a_model_that_cannot_go_on_from_a_cache_is_refused(name, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 50}
    if name == "Bert":
        sizes |= {"num_attention_heads": 2, "intermediate_size": 32}
    with pytest.raises(UsageError, match=f"a {name.lower()} does not continue"):
        trunks.load(saved(name, sizes, tmp_path), 0)


@pytest.mark.parametrize(
    ("trunk", "offline", "local"),
    [("here", "", True), ("someone/model", "", False), ("someone/model", "1", True)],
)
def test_the_hub_is_contacted_only_for_an_id_of_it(trunk, offline, local, monkeypatch, tmp_path):
    requests = []

    def from_pretrained(*_arguments, local_files_only=False, **_options):
        requests.append(local_files_only)
        raise OSError("no such model")

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAMTWL_OFFLINE", offline)
    for module, name in ((trunks, "AutoModel"), (embedding_init, "AutoTokenizer")):
        monkeypatch.setattr(module, name, SimpleNamespace(from_pretrained=from_pretrained))
    with pytest.raises(UsageError, match=f"--body {trunk}"):
        trunks._pretrained(trunk)
    assert embedding_init._tokenizer(trunk) is None
    assert requests == [local, local]
