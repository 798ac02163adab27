"""Files are opened with each version of PyAV that the package may be installed with."""

import importlib
import re
from pathlib import Path

import av
import pytest

from streamtwl.audio import opening
from streamtwl.audio.decoder import Decoder

PACKAGE = Path(__file__).parents[2] / "streamtwl"


@pytest.fixture
def opened_as(monkeypatch):
    """Return what `open_input` gives to `av.open` where PyAV is of a version."""

    def options(version: str) -> dict:
        given: dict = {}
        with monkeypatch.context() as patched:
            patched.setattr(av, "__version__", version)
            patched.setattr(av, "open", lambda file, mode, **options: given.update(options))
            importlib.reload(opening).open_input("any", timeout=1.0)
        importlib.reload(opening)
        return given

    return options


@pytest.mark.parametrize("version", ["15.0.0", "18.1.0"])
def test_until_18_the_tags_may_be_any_bytes_only_where_that_is_said(opened_as, version):
    assert opened_as(version) == {"timeout": 1.0, "metadata_errors": "replace"}


@pytest.mark.parametrize("version", ["19.0.0", "19.0.2rc1"])
def test_from_19_on_there_is_no_such_argument(opened_as, version):
    assert opened_as(version) == {"timeout": 1.0}


def test_a_title_in_another_coding_than_utf_8_is_no_error(tmp_path):
    path = tmp_path / "caf.mka"
    with av.open(path, "w") as container:
        container.metadata["title"] = "CAFE"
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame(format="s16", layout="mono", samples=1600)
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    tagged = path.read_bytes()
    assert tagged.count(b"CAFE") == 1
    path.write_bytes(tagged.replace(b"CAFE", b"CAF\xe9"))
    with path.open("rb") as file:
        decoder = Decoder(file, path.name)
        assert decoder.read() is not None
        decoder.close()


def test_no_other_place_says_what_versions_of_pyav_disagree_on():
    files = [
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if re.search(r"metadata_(errors|encoding)|stream_options", file.read_text())
    ]
    assert files == ["audio/opening.py"]
