"""Addresses of sources: what each becomes, and that their secrets are shown nowhere."""

import io

import hypothesis
import pytest
from hypothesis import strategies as st

from streamtwl.audio import addresses
from streamtwl.audio.addresses import SourceOptions, make_sources
from streamtwl.audio.microphone import Microphone
from streamtwl.audio.network import NetworkStream
from streamtwl.audio.network_address import Address
from streamtwl.audio.pipe import Pipe
from streamtwl.audio.recording import Recording
from streamtwl.errors import UsageError

SECRETS = ("anna", "s3cret", "token")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def make(*texts: str, **options) -> list:
    return make_sources(SourceOptions(list(texts), **options))


@pytest.mark.parametrize(
    ("address", "kind", "name"),
    [
        ("mic:", Microphone, "mic"),
        ("mic:USB Audio: 2", Microphone, "mic"),
        ("file:Street 1.flac", Recording, "street-1"),
        ("file:-", Recording, "file"),
        ("-", Recording, "file"),
        ("demo:", Recording, "demo"),
        ("http://radio.example/live", NetworkStream, "radio-example"),
        ("https://anna:s3cret@radio.example:8443/live?token=1", NetworkStream, "radio-example"),
        ("rtsp://anna:s3cret@192.168.1.9/token", NetworkStream, "192-168-1-9"),
        ("rtsps://[::1]:8554/1", NetworkStream, "1"),
        ("http://bücher.example/ä b".replace(" ", "%20"), NetworkStream, "b-cher-example"),
    ],
)
def test_an_address_becomes_a_source(address, kind, name):
    [source] = make(address)
    assert (type(source), source.name) == (kind, name)


def test_standard_input_is_an_address(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    [source] = make("stdin:", rate=48_000)
    assert (type(source), source.name) == (Pipe, "stdin")


def test_a_path_that_exists_is_a_file_and_a_scheme_goes_first(tmp_path):
    for name in ("a.wav", "rec:1.wav", "mic:"):
        (tmp_path / name).touch()
    sources = make("a.wav", "rec:1.wav", "mic:", "./mic:")
    assert [type(source) for source in sources] == [Recording, Recording, Microphone, Recording]
    assert [source.name for source in sources] == ["a", "rec-1", "mic", "mic-2"]


def test_without_any_it_is_the_default_microphone():
    [source] = make()
    assert isinstance(source, Microphone)


def test_names_go_in_the_order_of_the_addresses():
    sources = make("demo:", "http://cam/1", "http://cam/2", names=["yard"])
    assert [source.name for source in sources] == ["yard", "cam", "cam-2"]


@pytest.mark.parametrize(
    ("texts", "options", "says"),
    [
        (["kazoo"], {}, "'kazoo': no such file"),
        (["ftp://anna:s3cret@host/token"], {}, "no address"),
        (["anna:s3cret@cam/1"], {}, "no address"),
        (["http:radio"], {}, "http://host/path"),
        (["http://"], {}, "http://host/path"),
        (["rtsp://anna:s3cret@:554/token"], {}, "rtsp://host/path"),
        (["rtsp://anna:s3cret@cam:99999/token"], {}, "rtsp://host/path"),
        (["rtsp://anna:s3cret@cam:port/token"], {}, "rtsp://host/path"),
        (["rtsp://anna:s3cret@[::1/token"], {}, "rtsp://host/path"),
        (["http://anna:s3cret@cam/a b"], {}, "spaces"),
        (["http://anna:s3cret@cam/\n"], {}, "control"),
        (["http://" + "a" * 70 + ".example/"], {}, "http://host/path"),
        (["file:"], {}, "it takes a path"),
        (["demo:x"], {}, "nothing follows"),
        (["stdin:x"], {}, "nothing follows"),
        (["stdin:", "-"], {}, "one standard input"),
        (["http://cam/"], {"fast": True}, "--fast"),
        ([], {"fast": True}, "--fast"),
    ],
)
def test_what_is_wrong_is_one_line_without_secrets(texts, options, says):
    with pytest.raises(UsageError, match=says) as refused:
        make(*texts, **options)
    assert "\n" not in str(refused.value)
    assert not any(secret in str(refused.value) for secret in SECRETS)


@hypothesis.given(
    st.text() | st.from_regex(r"(mic|file|rtsps?|https?|demo):(//)?.*", fullmatch=True)
)
def test_any_text_is_a_source_or_one_line(text):
    said = "no error"
    try:
        [source] = make(text)
        source.close()
    except UsageError as error:
        said = str(error)
    assert said
    assert said.isprintable()


@hypothesis.given(
    st.sampled_from(["http", "https", "rtsp", "rtsps", "ftp"]),
    st.from_regex("[a-z0-9:@/?#.%]{0,9}", fullmatch=True),
)
def test_no_text_shows_a_password(scheme, tail):
    text = f"{scheme}://anna:s3cret@{tail}"
    try:
        [source] = make(text)
        shown = f"{source.name} {source._address} {source._address!r}"
    except UsageError as error:
        shown = str(error)
    assert "s3cret" not in shown


def test_what_is_shown_of_an_address_has_no_secrets():
    address = Address("rtsp://anna:s3cret@cam.example:8554/token/1?token=2#token")
    assert f"{address}" == "rtsp://cam.example:8554"
    assert not any(secret in repr(address) for secret in SECRETS)
    assert address.bare == "rtsp://cam.example:8554/token/1?token=2"
    assert address.with_user == "rtsp://anna:s3cret@cam.example:8554/token/1?token=2"


def test_another_kind_of_source_is_one_entry(monkeypatch):
    class Tone(Recording):
        pass

    monkeypatch.setitem(
        addresses.SCHEMES, "tone", lambda name, rest, _options: Tone(name, None, channel=int(rest))
    )
    [source] = make("tone:440")
    assert (type(source), source.name, source.channel) == (Tone, "tone", 440)


def test_each_source_falls_to_one_shard_and_one_more_takes_its_share_from_all():
    names = [f"mic-{i}" for i in range(1000)]
    four = {name: addresses.shard_of(name, 4) for name in names}
    five = {name: addresses.shard_of(name, 5) for name in names}
    assert all(150 < list(five.values()).count(i) < 250 for i in range(1, 6))
    assert all(five[name] in (four[name], 5) for name in names)
    assert [four[name] for name in names[:5]] == [1, 3, 4, 3, 1]  # on every machine
    kept = [make(*(f"http://{name}/" for name in names[:20]), shard=f"{i}/2") for i in (1, 2)]
    assert sorted(source.name for half in kept for source in half) == sorted(names[:20])


@pytest.mark.parametrize("said", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", ""])
def test_a_shard_is_i_of_n(said):
    with pytest.raises(UsageError, match="--shard"):
        make("http://a/", shard=said)


def test_a_shard_without_a_source_says_so():
    mine = addresses.shard_of("a", 2)
    with pytest.raises(UsageError, match="none of the sources"):
        make("http://a/", shard=f"{3 - mine}/2")
