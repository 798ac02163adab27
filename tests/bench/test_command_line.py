"""`streamtwl bench`, and the commands and switches that were elsewhere before."""

import pytest

from streamtwl.commands import train


@pytest.mark.parametrize("arguments", ["bench", "bench --help"])
def test_it_shows_what_there_is(cli, arguments):
    shown = cli(*arguments.split()).stdout
    assert all(f" {command} " in shown for command in ("pretrain", "train", "llm"))


def test_train_has_what_a_user_sets_and_bench_train_every_switch(cli):
    users, everything = (cli(*each, "--help").stdout for each in (["train"], ["bench", "train"]))
    for switch in (
        "--corpus",
        "--leave-out",
        "--windows",
        "--body",
        "--epochs",
        "--seed",
        "--offline",
    ):
        assert switch in users
        assert switch in everything
    for switch in train.BENCH_SWITCHES:
        assert f"{switch} " not in users
        assert f"{switch} " in everything


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pretrain --corpus nowhere -o DIR", "pretrain"),
        ("train nowhere --trace=sampled --no-residual", "train"),
    ],
)
def test_an_old_spelling_says_so_in_one_line_and_goes_on(cli, yamnet, tmp_path, old, new):
    done = cli(*old.replace("DIR", str(tmp_path / "trunk")).split(), cwd=tmp_path)
    deprecated, problem = done.stderr.splitlines()
    assert deprecated.endswith(f"is deprecated: it is `streamtwl bench {new}` now")
    assert problem.startswith("streamtwl: ")  # of the command itself, which has run
    assert "nowhere" in problem
    assert done.returncode == 2


@pytest.mark.parametrize("switch", ["--nosuch", "--nosuch=1"])
def test_a_switch_that_neither_has_is_refused_where_it_was_given(cli, switch):
    ended = cli("train", "sounds", switch)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "`streamtwl train --help`" in ended.stderr
    ended = cli("bench", "train", "sounds", switch)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "`streamtwl bench train --help`" in ended.stderr


def test_what_has_gone_says_what_there_is_now(cli):
    ended = cli("evaluate", "sounds", "--no-noise")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "`streamtwl paper --help`" in ended.stderr


def test_old_names_are_not_shown_in_the_help(cli):
    shown = cli("--help").stdout
    assert " bench " in shown
    assert " pretrain " not in shown
    assert " evaluate " not in shown
