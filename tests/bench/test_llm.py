"""`bench llm`: a language model names clips by their traces, beside vote and floor."""

import json
import signal
import time

import numpy as np
import pytest

from streamtwl.bench import llm
from streamtwl.config import Settings, override
from streamtwl.errors import EndpointError, UsageError
from tests.conftest import PATIENCE_S
from tests.language_model_server import hangs, language_model, names, sends

pytestmark = pytest.mark.usefixtures("yamnet")

RATE = 16_000
NAMES = "category,audioset\nnoise,White noise|Noise\ntone,Sine wave\nodd,\n"


@pytest.fixture
def data(wav, tmp_path):
    """A data set in ESC-50's layout: noise and tones, of two folds, and a class without a name."""
    rng = np.random.default_rng(1)
    t = np.arange(2 * RATE) / RATE
    rows = ["filename,fold,category,src_file"]
    for i in range(8):
        fold, label = 1 + i % 2, ("noise", "tone")[i // 4]
        sound = 0.1 * rng.standard_normal(len(t)) if label == "noise" else np.sin(440 * 6.28 * t)
        wav(f"set/audio/{i}.wav", 0.3 * sound)
        rows.append(f"{i}.wav,{fold},{label},{'shared' if i in (0, 1) else i}")
    wav("set/audio/odd.wav", 0.1 * t)
    rows.append("odd.wav,1,odd,odd")
    (tmp_path / "set" / "meta").mkdir()
    (tmp_path / "set" / "meta" / "set.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "names.csv").write_text(NAMES)
    return tmp_path / "set"


def run(data, url: str, folds=(1,), samples=(0,), seeds=1, **more) -> str:
    changes = {"llm.endpoint": url, "llm.model": "m", "trace.traces": 2, **more}
    return llm.evaluate(
        data,
        data.parent / "names.csv",
        data.parent / "out",
        override(Settings(), changes),
        folds,
        samples,
        seeds,
        lambda *_: None,
    )


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_every_clip_is_named_and_the_table_says_how_well(data):
    with language_model(names("tone")) as server:
        table = run(data, server.url)
    assert len(server.requests) == 3  # 0 is of a recording that fold 2 has too, odd has no name
    found = {row[0]: row for row in rows(table)}
    assert {*found} == {"floor, mean", "majority vote", "`chat`"}
    assert found["`chat`"][1:4] == ["soft", "1", "1"]
    assert found["`chat`"][4].startswith("66.7 (")
    said = server.requests[0]["messages"][1]["content"]
    assert "Labels: noise; tone\n" in said
    assert "none of these" not in said


def test_what_was_answered_is_not_requested_again(data):
    acts = names("tone"), names("tone"), sends("{}", 404)
    with language_model(*acts) as server, pytest.raises(EndpointError, match="404"):
        run(data, server.url)
    [kept] = (data.parent / "out").glob("answers-*.jsonl")
    kept.write_bytes(kept.read_bytes() + b'{"clip": "cut o')
    with language_model(names("tone", reasoning="Hm.")) as server:
        run(data, server.url)
    assert len(server.requests) == 1
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len({line["clip"] for line in lines}) == len(lines) == 3
    assert lines[-1]["thought"] == "Hm."


def test_another_effort_or_prompt_is_not_taken_for_the_same(data):
    with language_model(names("tone")) as server:
        run(data, server.url)
        run(data, server.url, **{"reasoner.prior": 0.0})
    assert len(server.requests) == 6


def test_an_answer_without_a_label_is_wrong_and_it_goes_on(data):
    with language_model(names("cat"), names("cat"), names("tone")) as server:
        table = run(data, server.url)
    assert {row[0]: row[5] for row in rows(table)}["`chat`"] == "33"


def test_a_server_that_is_busy_is_waited_for(data, monkeypatch):
    waits = []
    monkeypatch.setattr(llm.time, "sleep", waits.append)
    with language_model(sends("{}", 429, Retry_After="7"), names("tone")) as server:
        run(data, server.url)
    assert waits == [7]
    assert len(server.requests) == 4


def test_k_m_votes_and_seeds_each_have_their_answers(data):
    with language_model(names("tone")) as server:
        table = run(data, server.url, samples=(4, 16), seeds=2, **{"llm.votes": 2})
    assert len(server.requests) == 3 * 2 * 2 * 2 * 2
    mine = [row[1:4] for row in rows(table) if row[0] == "`chat`"]
    assert mine == [[k, m, v] for k in ("4", "16") for m in ("1", "2") for v in ("1", "2")]
    votes = [row[1:3] for row in rows(table) if row[0] == "majority vote of draws"]
    assert votes == [[k, m] for k in ("4", "16") for m in ("1", "2")]


def test_draws_vote_for_the_label_whose_names_they_are():
    traces = llm.Traces([], ["a", "b"], ["x", "y", "z"], [[0], [1]], 0, 0.48)
    assert llm.vote_of_draws(traces, np.array([[1, 2, 2], [1, 0, 2]])) == 1
    assert llm.vote_of_draws(traces, np.array([[2, 2], [2, 2]])) is None


def test_folds_that_have_nothing_are_said(data):
    with pytest.raises(UsageError, match="no clip of the folds"):
        run(data, "http://127.0.0.1:1", folds=(9,))


def test_the_command_prints_the_table(cli, data):
    with language_model(names("tone")) as server:
        options = f"--endpoint {server.url} --preset chat --model m --pipeline yamnet --fold 1"
        ended = cli(
            *["bench", "llm", data, "--names", data.parent / "names.csv", *options.split()],
            cwd=data.parent,
        )
    assert ended.returncode == 0, ended.stderr
    assert "| majority vote |" in ended.stdout
    assert (data.parent / "llm" / "table.md").exists()


def test_control_c_ends_it_cleanly_and_what_is_there_stays(start_cli, data):
    with language_model(names("tone"), hangs()) as server:
        options = f"--endpoint {server.url} --preset chat --model m --pipeline yamnet --fold 1"
        table = data.parent / "names.csv"
        running = start_cli(
            *["bench", "llm", data, "--names", table, "-o", data.parent / "out", *options.split()]
        )
        until = time.monotonic() + PATIENCE_S
        while len(server.requests) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130
    assert b"Traceback" not in said
    [kept] = (data.parent / "out").glob("answers-*.jsonl")
    assert len(kept.read_text().splitlines()) == 1
