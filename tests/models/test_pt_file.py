"""Files that the tests write byte by byte, so that they need no torch and can hold anything."""

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from streamtwl.errors import ModelError
from streamtwl.models import pt_file
from tests.conftest import mn04_file

DICT = b"ccollections\nOrderedDict\n"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
HUGE = b"J\xff\xff\xff\x7f"  # 2^31 - 1


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(key: str, count: int, kind: str = "Float") -> bytes:
    pid = text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu")
    return b"(" + pid + integer(count) + b"tQ"


def tensor(stored: bytes, shape: bytes, stride: bytes, offset: bytes = b"K\x00") -> bytes:
    return TENSOR + b"(" + stored + offset + shape + stride + b"\x89" + DICT + b")Rt" + b"R"


def named(*items: bytes) -> bytes:
    """The pickle of a dict of these keys and values, by turns."""
    return b"\x80\x02" + DICT + b")R(" + b"".join(items) + b"u."


SIX = np.arange(6, dtype="<f4")
USUAL = named(text("w"), tensor(storage("0", 6), numbers(2, 3), numbers(3, 1)))


@pytest.fixture
def pt(tmp_path):
    """Write a file: pt(pickle, {"0": values}) returns its path."""

    def write(pickled: bytes = USUAL, data=None, compression=zipfile.ZIP_STORED, **more) -> Path:
        path = tmp_path / "a.pt"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("a/data.pkl", pickled)
            for key, values in ({"0": SIX} if data is None else data).items():
                archive.writestr(f"a/data/{key}", bytes(values))
            for name, content in more.items():
                archive.writestr(f"a/{name}", content)
        return path

    return write


def refusal(path: Path) -> str:
    """Return why a file is refused: one line that names it, for which little is allocated."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as raised:
            pt_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    problem = str(raised.value)
    assert str(path) in problem
    assert problem.isprintable()
    assert len(problem) < 300 + len(str(path))
    return problem


# --- what is read ---


def test_the_releases_file_is_read():
    found = pt_file.read(mn04_file())
    assert len(found) == 312
    assert found["features.0.0.weight"].shape == (8, 1, 3, 3)
    assert found["classifier.5.bias"].dtype == np.float32
    assert found["features.0.1.num_batches_tracked"].shape == ()
    assert all(np.isfinite(each).all() for each in found.values())


@pytest.mark.parametrize(
    ("kind", "dtype"), [("Float", "<f4"), ("Half", "<f2"), ("Double", "<f8"), ("Long", "<i8")]
)
def test_values_of_every_dtype_are_those_that_were_stored(kind, dtype, pt):
    shaped = tensor(storage("0", 6, kind), numbers(2, 3), numbers(3, 1))
    found = pt_file.read(pt(named(text("w"), shaped), {"0": SIX.astype(dtype)}))["w"]
    assert found.dtype == dtype
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_offsets_strides_and_shared_storages_are_followed(pt):
    transposed = tensor(storage("0", 6), numbers(3, 2), numbers(1, 3))
    last = tensor(storage("0", 6), numbers(2), numbers(1), integer(4))
    scalar = tensor(storage("0", 6), b")", b")", integer(5))
    pickled = named(text("t"), transposed, text("last"), last, text("scalar"), scalar)
    found = pt_file.read(pt(pickled))
    assert found["t"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["last"].tolist() == [4, 5]
    assert found["scalar"] == 5


def test_parameters_attributes_and_the_memo_are_read(pt):
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + USUAL[len(named(text("w"))) - 2 : -2]
    metadata = b"}" + text("_metadata") + DICT + b")R" + text("") + b"}" + text("version")
    pickled = b"\x80\x02" + DICT + b"q\x00)R" + text("w") + parameter + b"\x88h\x00)RtR"
    pickled += b"s" + metadata + b"K\x02sssb."
    assert pt_file.read(pt(pickled))["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_little_endian_file_is_read(pt):
    assert pt_file.read(pt(byteorder="little"))["w"].shape == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64"])
def test_what_torch_writes_is_what_is_read(dtype, tmp_path):
    torch = pytest.importorskip("torch")
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    state = {name: each.to(getattr(torch, dtype)) for name, each in layers.state_dict().items()}
    state["transposed"] = state["0.weight"].transpose(0, 3)[1:]
    for written in (state, layers.state_dict()):  # the latter has attributes
        torch.save(written, tmp_path / "torch.pt")
        found = pt_file.read(tmp_path / "torch.pt")
        assert found.keys() == written.keys()
        for name, each in written.items():
            np.testing.assert_array_equal(found[name], each.numpy())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda torch: torch.nn.Linear(2, 2), "Linear"),
        (lambda torch: {"w": torch.zeros(2, dtype=torch.bfloat16)}, "BFloat16Storage"),
        (lambda torch: {"w": torch.zeros(2, dtype=torch.bool)}, "BoolStorage"),
        (lambda torch: {"w": torch.zeros(2).to_sparse()}, "sparse"),
        (lambda torch: {"w": 3}, "tensors"),
        (lambda torch: [torch.zeros(2)], "EMPTY_LIST"),
        (lambda torch: torch.zeros(2), "tensors"),
        (lambda torch: {"model": {"w": torch.zeros(2)}}, "tensors"),
    ],
    ids=["module", "bfloat16", "bool", "sparse", "number", "list", "tensor", "nested"],
)
def test_anything_else_of_torch_is_refused(made, named, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(made(torch), tmp_path / "torch.pt")
    assert named in refusal(tmp_path / "torch.pt")


@pytest.mark.slow
def test_torchs_old_format_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "torch.pt"
    torch.save({"w": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    assert "not a PyTorch file" in refusal(path)


# --- pickles that want more than tensors ---

CODE = {
    "a call": b"cos\nsystem\n" + text("touch {}") + b"\x85R.",
    "a builtin": b"cbuiltins\neval\n" + text("open('{}', 'w')") + b"\x85R.",
    "Python 2's builtin": b"c__builtin__\nexec\n" + text("open('{}', 'w')") + b"\x85R.",
    "by INST": b"(" + text("touch {}") + b"ios\nsystem\n.",
    "by OBJ": b"(cos\nsystem\n" + text("touch {}") + b"o.",
    "by NEWOBJ": b"cos\nsystem\n" + text("touch {}") + b"\x85\x81.",
    "by NEWOBJ_EX": b"\x80\x04cos\nsystem\n" + text("touch {}") + b"\x85}\x92.",
    "by STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + text("{}") + b"\x85R.",
    "an attribute": b"\x80\x04" + text("os") + text("path.os.system") + b"\x93.",
    "by a registered extension": b"\x82\x01.",
    "by copyreg": b"ccopyreg\n_reconstructor\n(" + DICT + b"cbuiltins\nobject\nNtR.",
    "torch's own loader": b"ctorch\nload\n" + text("{}") + b"\x85R.",
    "torch's hub": b"ctorch.hub\nload_state_dict_from_url\n" + text("{}") + b"\x85R.",
    "an old rebuilding": b"ctorch._utils\n_rebuild_tensor\n)R.",
    "getattr": b"cbuiltins\ngetattr\n(" + DICT + text("__class__") + b"tR.",
    "after a good dict": USUAL[:-1] + b"0cos\nsystem\n" + text("touch {}") + b"\x85R.",
    "in attributes": USUAL[:-1] + b"}" + text("x") + b"cos\nsystem\nsb.",
    "in a storage": b"(" + text("storage") + b"cos\nsystem\n" + text("0") * 2 + b"K\x06tQ.",
    "text as a storage's type": b"(" + text("storage") + text("0") * 3 + b"K\x06tQ.",
    "a name with a newline": text("os\nsystem") + b"\x85cos\n\x1b[2Jsystem\n.",
    "a persistent name": b"Pos.system\n.",
}


@pytest.mark.parametrize("pickled", CODE.values(), ids=CODE)
def test_nothing_is_run(pickled, pt, tmp_path):
    ran = tmp_path / "ran"
    pickled = pickled.replace(b"{}", str(ran).encode())
    refusal(pt(b"\x80\x02" + pickled))
    assert not ran.exists()


def test_what_a_pickle_asks_for_is_named(pt):
    assert "'os system'" in refusal(pt(b"cos\nsystem\n" + text("ls") + b"\x85R."))


W = tensor(storage("0", 6), numbers(6), numbers(1))
FUNCTIONS = {"dict": DICT, "tensor": TENSOR, "storage's type": b"ctorch\nFloatStorage\n"}
OBJECTS = FUNCTIONS | {
    "array": W,
    "storage": storage("0", 6),
    "text": text("x"),
    "tuple": b")",
    "mark": b"(q\x000h\x00",
}
STATE = b"(K\x01" + numbers(10**6, 0) + b"ctorch\nFloatStorage\n\x89C\x00t"
CHANGES = {
    "state": lambda it: it + STATE + b"b",
    "attributes": lambda it: it + b"}" + text("keys") + DICT + b"sb",
    "slots": lambda it: it + b"N}" + text("__defaults__") + b")s\x86b",
    "item": lambda it: it + text("x") + b"K\x01s",
    "items": lambda it: it + b"(" + text("x") + b"K\x01u",
    "append": lambda it: it + b"K\x01a",
    "appends": lambda it: it + b"(K\x01e",
    "call": lambda it: it + b"N\x85R",
    "call with much": lambda it: it + b"(" + HUGE * 7 + b"tR",
    "call without a tuple": lambda it: it + text("x") + b"R",
    "persistent": lambda it: it + b"Q",
    "persistent within": lambda it: b"(" + it * 5 + b"tQ",
    "all of a tensor": lambda it: TENSOR + b"(" + it * 4 + b"tR",
    "key": lambda it: b"}" + it + b"Ns",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("changed", OBJECTS.values(), ids=OBJECTS)
def test_nothing_that_a_pickle_can_name_can_be_changed_or_misused(changed, change, pt):
    refusal(pt(b"\x80\x02" + change(changed) + b"."))
    assert pt_file.read(pt())["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_attributes_cannot_take_the_place_of_methods(pt):
    found = pt_file.read(pt(USUAL[:-1] + b"}" + text("items") + DICT + b"sb."))
    assert list(found) == ["w"]


# --- pickles that crash an unpickler, or fill the memory ---

BOMBS = {
    "memo": b"Nr\xff\xff\xff\x7f.",  # an unpickler's memo is an array
    "keys in keys": b"})" + b"\x85" * 200_000 + b"Ns.",  # whose hash overflows the C stack
    "laughs": b"})q\x00" + b"0h\x00h\x00\x86q\x00" * 200 + b"Ns.",  # a hash of 2^200 tuples
    "laughs as a shape": tensor(storage("0", 6), b")q\x00" + b"0h\x00h\x00\x86q\x00" * 200, b")")
    + b".",
    "laughs as a key": b"(" + text("storage") + b"ctorch\nFloatStorage\n)q\x00"
    + b"0h\x00h\x00\x86q\x00" * 200 + text("cpu") + b"K\x06tQ.",
    "text": b"\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
    "bytes": b"\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "array": b"\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",
    "number": b"\x8b\xff\xff\xff\x7f\x01.",
    "digits": b"I" + b"9" * 100_000 + b"\n.",
    "tuples": b"(" * 50_000 + b"t" * 30_000 + b".",
}  # fmt: skip


@pytest.mark.parametrize("pickled", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_goes_off(pickled, pt):
    refusal(pt(b"\x80\x02" + pickled))


def test_a_pickle_of_many_megabytes_is_not_looked_at(pt):
    assert "bytes" in refusal(pt(b"}" * 2_000_000 + b"."))


def test_one_storage_in_many_tensors_is_read_once(pt):
    one = np.zeros(1_000_000, "<f4")
    shaped = tensor(storage("0", len(one)), numbers(len(one)), numbers(1))
    many = [each for i in range(50) for each in (text(f"w{i}"), shaped)]
    path = pt(named(*many), {"0": one})
    tracemalloc.start()
    try:
        found = pt_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert len(found) == 50


@pytest.mark.parametrize(
    "wrong",
    {
        "too many": tensor(storage("0", 6), numbers(7), numbers(1)),
        "huge": tensor(storage("0", 6), b"(" + HUGE * 4 + b"t", numbers(1, 1, 1, 1)),
        "huge and repeated": tensor(storage("0", 6), b"(" + HUGE + b"t", numbers(0)),
        "beyond by stride": tensor(storage("0", 6), numbers(2, 3), numbers(4, 1)),
        "beyond by a huge stride": tensor(storage("0", 6), numbers(2), b"(" + HUGE + b"t"),
        "stride of 100 bytes": tensor(storage("0", 6), numbers(1), b"(\x8a\x64" + b"\x7f" * 100
                                      + b"t"),
        "beyond by offset": tensor(storage("0", 6), numbers(3), numbers(1), integer(4)),
        "offset of 100 bytes": tensor(storage("0", 6), numbers(3), numbers(1), b"\x8a\x64"
                                      + b"\x7f" * 100),
        "before by offset": tensor(storage("0", 6), numbers(3), numbers(1), integer(-1)),
        "before by stride": tensor(storage("0", 6), numbers(3), numbers(-1)),
        "negative": tensor(storage("0", 6), numbers(-2, -3), numbers(3, 1)),
        "empty": tensor(storage("0", 6), numbers(0, 2**31 - 1), numbers(1, 1)),
        "shape and stride apart": tensor(storage("0", 6), numbers(2, 3), numbers(1)),
        "a hundred dimensions": tensor(storage("0", 6), numbers(*[1] * 100), numbers(*[1] * 100)),
        "text as a shape": tensor(storage("0", 6), text("ab"), numbers(1, 1)),
        "text within a shape": tensor(storage("0", 6), b"(" + HUGE + text("abc") + b"t",
                                      numbers(1, 1)),
        "bool as a size": tensor(storage("0", 6), b"(\x88t", numbers(1)),
        "text as an offset": tensor(storage("0", 6), numbers(1), numbers(1), text("0")),
        "no storage": tensor(text("0"), numbers(1), numbers(1)),
        "a tensor as storage": tensor(W, numbers(1), numbers(1)),
        "other count": tensor(storage("0", 7), numbers(1), numbers(1)),
        "negative count": tensor(storage("0", -6), numbers(1), numbers(1)),
        "other type": tensor(storage("0", 6, "Double"), numbers(1), numbers(1)),
        "missing storage": tensor(storage("1", 6), numbers(1), numbers(1)),
        "a storage elsewhere": tensor(storage("../data.pkl", 6), numbers(1), numbers(1)),
        "few arguments": TENSOR + b")R",
        "a storage as a tensor": storage("0", 6),
        "bfloat16": tensor(storage("0", 6, "BFloat16"), numbers(1), numbers(1)),
    }.items(),
    ids=lambda item: item[0],
)  # fmt: skip
def test_a_tensor_that_its_data_does_not_hold_is_refused(wrong, pt):
    refusal(pt(named(text("w"), wrong[1])))


@pytest.mark.parametrize(
    "pickled",
    [b"", b".", b"N.", b"\x80\x02", USUAL[:-1], USUAL[:60], b"t.", b"0.", b"R.", b"u.", b"s.",
     b"b.", b"Q.", b"q\x00.", b"h\x05.", b"(\x85t.", b"\xff.", b"c\xff\n\xff\n.", b"X\xff\xff",
     b"X\x01\x00\x00\x00\xff.", USUAL[:-2] + b"Nu.", USUAL + b"no more than what goes before it"],
)  # fmt: skip
def test_a_pickle_that_breaks_off_or_makes_no_sense_is_refused(pickled, pt):
    if pickled.startswith(USUAL):  # nothing after the end is looked at
        assert list(pt_file.read(pt(pickled))) == ["w"]
    else:
        refusal(pt(pickled))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pickletools, of a string's escapes
@pytest.mark.parametrize("seed", range(5))
def test_bytes_changed_by_chance_are_read_or_refused(seed, pt):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        pickled = bytearray(USUAL)
        for at in rng.integers(0, len(pickled), rng.integers(1, 6)):
            pickled[at] = rng.integers(0, 256)
        try:
            found = pt_file.read(pt(bytes(pickled)))
        except ModelError:
            continue
        assert all(each.size <= len(SIX) for each in found.values())


# --- archives ---


def test_a_big_endian_file_is_refused(pt):
    assert "'big'" in refusal(pt(byteorder="big")).replace("b'", "'")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_file_is_refused_without_unpacking_it(method, pt):
    assert "compressed" in refusal(pt(data={"0": bytes(5_000_000)}, compression=method))


def central(path: Path, at: int, value: bytes, entry: int = 0) -> None:
    """Change a field of an entry of the archive's directory."""
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    for _ in range(entry):
        start = content.index(b"PK\x01\x02", start + 4)
    path.write_bytes(content[: start + at] + value + content[start + at + len(value) :])


GIGABYTES = struct.pack("<I", 3_000_000_000)
FIELDS = {
    "encrypted": (8, b"\x01\x00"),
    "patched": (8, b"\x20\x00"),
    "of a method that nobody knows": (10, b"\x63\x00"),
    "for a version to come": (6, b"\xff\x00"),
    "of another checksum": (16, b"\x00\x00\x00\x00"),
    "of 3 GB": (24, GIGABYTES),
    "of 3 GB in the file": (20, GIGABYTES),
    "of 3 GB twice": (20, GIGABYTES * 2),
    "elsewhere": (42, struct.pack("<I", 7)),
    "beyond the end": (42, GIGABYTES),
    "of another name": (46, b"b"),
    "of a name that is none": (46, b"\xff/\x00"),
    "of a shorter name": (28, b"\x03\x00"),
}


@pytest.mark.parametrize("entry", [0, 1], ids=["pickle", "data"])
@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_an_entry_that_lies_is_refused(field, entry, pt):
    path = pt()
    central(path, *field, entry)
    refusal(path)


def test_entries_that_overlap_are_refused(tmp_path):
    path, written = tmp_path / "a.pt", io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("a/data.pkl", USUAL)
        archive.writestr("a/data/0", bytes(1000))
        for i in range(1, 200):  # further names of the same bytes
            twin = zipfile.ZipInfo(f"a/data/{i}")
            first = archive.getinfo("a/data/0")
            twin.header_offset, twin.CRC = first.header_offset, first.CRC
            twin.file_size = twin.compress_size = first.file_size
            archive.filelist.append(twin)
    path.write_bytes(written.getvalue())
    assert "add up" in refusal(path)


@pytest.mark.parametrize(
    "entries",
    [{}, {"data.pkl": USUAL}, {"a/b/data.pkl": USUAL}, {"a/data.pkl": USUAL, "b/data.pkl": USUAL}],
    ids=["none", "without a folder", "deeper", "two"],
)
def test_an_archive_without_one_pickle_is_refused(entries, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert "data.pkl" in refusal(tmp_path / "a.pt")


def test_a_file_that_breaks_off_is_refused(pt):
    whole = pt()
    content = whole.read_bytes()
    for size in range(0, len(content), 7):
        whole.write_bytes(content[:size])
        assert "not a PyTorch file" in refusal(whole)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04", b"\x80\x02}.", bytes(5000)])
def test_a_file_that_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "a.pt").write_bytes(content)
    assert "not a PyTorch file" in refusal(tmp_path / "a.pt")


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    assert "directory" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "a.pt")
