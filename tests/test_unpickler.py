"""Checkpoints are read as data: what a file names is never imported, called or looked up."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import random
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from foreign_checkpoints import Call, named, pickled

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.files.checkpoints import MAX_FILE_BYTES, read_checkpoint
from pulse_sr.files.unpickler import MAX_DEPTH, MAX_OPERATIONS, Record


def in_zip(pickle_bytes, storage=b"", method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("x/data.pkl", pickle_bytes)
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/data/0", storage)
        archive.writestr("x/version", "3\n")
    return stream.getvalue()


def in_stream(pickle_bytes, keys=()):
    magic, facts = 0x1950A86A20F9469CFC6C, {"little_endian": True}
    heads = b"".join(pickle.dumps(each, 2) for each in (magic, 1001, facts))
    return heads + pickle_bytes + pickle.dumps(list(keys), 2)


def in_storage_bytes(pickle_bytes):
    """As a pickle of NVIDIA's holds its tensors: a whole stream as an argument."""
    return pickled(Call(named("torch.storage", "_load_from_bytes"), in_stream(pickle_bytes)), 4)


CONTAINERS = {
    "plain": lambda data: data,
    "zip": in_zip,
    "stream": in_stream,
    "bytes": in_storage_bytes,
}


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A path that a payload would write to; its folder is the current one."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists()


def read(tmp_path, data):
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    return read_checkpoint(path)


def refused(tmp_path, data, words=""):
    """It ends in the documented error, one line, exit code 2."""
    with pytest.raises(UsageError, match="is refused: it holds") as error:
        read(tmp_path, data)
    assert words in error.value.message
    assert "\n" not in error.value.message
    assert error.value.exit_code == 2


def test_what_is_said_of_a_damaged_file_is_short(tmp_path):
    with pytest.raises(SetupError, match="no string quotes around") as error:
        read(tmp_path, b"S" + b"]" * 4000 + b"\n.")
    assert len(error.value.message) < 200 + len(str(tmp_path))


CALLS = [
    ("os", "system", "touch canary"),
    ("posix", "system", "touch canary"),
    ("nt", "system", "touch canary"),
    ("subprocess", "Popen", ["touch", "canary"]),
    ("subprocess", "check_output", ["touch", "canary"]),
    ("builtins", "eval", "open('canary', 'w')"),
    ("builtins", "exec", "open('canary', 'w')"),
    ("__builtin__", "eval", "open('canary', 'w')"),
    ("builtins", "open", "canary", "w"),
    ("io", "open", "canary", "w"),
    ("builtins", "getattr", "", "join"),
    ("builtins", "__import__", "os"),
    ("builtins", "compile", "0", "x", "eval"),
    ("importlib", "import_module", "os"),
    ("operator", "attrgetter", "system"),
    ("operator", "methodcaller", "touch"),
    ("functools", "partial", 1),
    ("pickle", "loads", b"cos\nsystem\n(S'touch canary'\ntR."),
    ("_pickle", "loads", b"cos\nsystem\n(S'touch canary'\ntR."),
    ("torch", "load", "model.pt"),
    ("torch.serialization", "load", "model.pt"),
    ("torch.hub", "load", "a/b", "c"),
    ("numpy", "load", "model.pt"),
    ("numpy", "fromfile", "model.pt"),
    ("numpy.testing._private.utils", "runstring", "open('canary', 'w')", {}),
    ("runpy", "run_path", "model.pt"),
    ("shutil", "copyfile", "model.pt", "canary"),
    ("pathlib", "Path", "canary"),
    ("types", "FunctionType", b"", {}),
    ("types", "CodeType", 0),
    ("ctypes", "CDLL", "libc.so.6"),
    ("sys", "exit", 1),
    ("torch.nn.modules.linear", "Linear", 4, 4),
    ("torch.nn.functional", "one_hot", 1),
    ("torch_utils.persistence", "import_hook", 1),
    ("dnnlib.util", "open_url", "http://localhost/"),
    ("training.networks", "Generator", 1),
    ("argparse", "Namespace", 1),
    ("argparse", "FileType", "w"),
    ("timm.models.helpers", "load_checkpoint", 1),
]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}.{call[1]}")
def test_a_call_of_what_is_not_in_the_table_is_refused(tmp_path, canary, call, container):
    module, name, *arguments = call
    payload = {"G_ema": [1, {"weight": Call(named(module, name), *arguments)}]}
    for protocol in (0, 2, 4):
        data = CONTAINERS[container](pickled(payload, protocol))
        refused(tmp_path, data, f"{module}.{name}")


def op(text):
    """Handwritten pickles: operations in words."""
    return text.replace("~", "\n").encode("latin1") + b"."


SYSTEM = "cos~system~"
HANDWRITTEN = {
    "instance of the old style": op("(S'touch canary'~ios~system~"),
    "object of the old style": op(f"({SYSTEM}S'touch canary'~o"),
    "name alone": op(SYSTEM),
    "name in a key": op(f"}}({SYSTEM}I1~u"),
    "name in a tuple": op(f"({SYSTEM}t"),
    "new object of a function": b"\x80\x02" + op(f"{SYSTEM})\x81"),
    "new object with keywords": b"\x80\x04" + op(f"{SYSTEM})}}\x92"),
    "name of computed parts": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "name of computed parts, kept": b"\x80\x04\x8c\x06system\x94\x8c\x02os\x94h\x00\x93.",
    "name of no text": b"\x80\x04K\x01\x8c\x06system\x93.",
    "name inside a name": b"\x80\x04\x8c\x08torch.nn\x8c\x09os.system\x93.",
    "name with a line end": b"\x80\x04\x8c\x09torch.nn\n\x8c\x02os\x93.",
    "name of nothing": b"\x80\x04\x8c\x00\x8c\x06system\x93.",
    "name in other letters": b"\x80\x04\x8c\x08torch.nn\x8c\x02\xd0\xb5\x93.",
    "extension 1": b"\x80\x02\x82\x01.",
    "extension 2": b"\x80\x02\x83\x01\x00.",
    "extension 4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "buffer out of band": b"\x80\x05\x97.",
    "read-only buffer": b"\x80\x05\x97\x98.",
    "persistent id in a plain pickle": op("Pstorage~"),
    "persistent id of a call": op("(S'storage'~S'x'~tQ"),
    "state of a number": op("I1~(S'a'~tb"),
    "state of a list": op("](S'a'~tb"),
    "state with __setstate__": op("ctorch.nn~Linear~)\x81}(S'__setstate__'~" + SYSTEM + "ub"),
    "state twice": op("ctorch.nn~Linear~)\x81}(S'a'~I1~ub}(S'a'~I1~ub"),
    "call of a text": op("S'os.system'~(S'touch canary'~tR"),
    "call of a record": op("ctorch.nn~Linear~)\x81(S'touch canary'~tR"),
    "call without a tuple": op("ccollections~OrderedDict~S'x'~R"),
    "reconstructor of a function": op(f"ccopy_reg~_reconstructor~({SYSTEM}cbuiltins~object~NtR"),
    "reconstructor of another base": op("ccopyreg~_reconstructor~(ctorch.nn~Linear~I1~NtR"),
    "parameter of a text": op("ctorch._utils~_rebuild_parameter~(S'x'~tR"),
    "tensor of a text": op("ctorch._utils~_rebuild_tensor_v2~(S'x'~I0~(t(ttR"),
    "text in another encoding": op("c_codecs~encode~(S'x'~S'zip'~tR"),
    "array of objects": op("cnumpy~dtype~(S'O8'~I0~I1~tR"),
    "array of records": op("cnumpy~dtype~(S'f4,f4'~I0~I1~tR"),
    "array with a wrong format": op(
        "cnumpy.core.multiarray~_reconstruct~(cnumpy~ndarray~(I0~tS'b'~tR(I1~(I1~tS'O'~I0~S'x'~tb"
    ),
    "scalar of a name": op(f"cnumpy.core.multiarray~scalar~({SYSTEM}S'x'~tR"),
    "byte order that does not exist": op("cnumpy~dtype~(S'f4'~I0~I1~tR(I3~S'x'~tb"),
    "persistent object of a function": op(
        "ctorch_utils.persistence~_reconstruct_persistent_obj~(}(S'type'~S'func'~utR"
    ),
    "persistent object without a state": op(
        "ctorch_utils.persistence~_reconstruct_persistent_obj~(}(S'type'~S'class'~utR"
    ),
    "list as a key": op("}(](I1~u"),
    "nested tuple as a key": op("}((I1~ttI1~s"),
    "record in a set": b"\x80\x04\x8f(" + op("ctorch.nn~Linear~)\x81\x90"),
    "set of lists": op("c__builtin__~set~(((I1~lltR"),
    "huge whole number": b"\x80\x02\x8b" + struct.pack("<i", 1000) + b"\x7f" * 1000 + b".",
    "long shape": op("ctorch~Size~((" + f"I{2**61}~" * 9 + "ttR"),
    "deep list as a format": b"\x80\x02cnumpy\ndtype\n(" + b"]" * 9999 + b"a" * 9998 + b"tR.",
    "method of a class of the table": b"\x80\x04\x8c\x05torch\x8c\x0fSize.__reduce__\x93.",
    "object of the old style, of the table": op("(S'a'~icollections~OrderedDict~"),
    "arguments given again": (
        op("ctorch~device~(I1~" + "I1~" * 5000 + "tp0~")[:-1]
        + b"R0ctorch\ndevice\nq\x01"
        + b"h\x01h\x00R0" * 5000
        + b"N."
    ),
    "adding to a number": op("I1~I2~a"),
    "setting in a list": op("]I1~I2~s"),
    "streams in streams": in_storage_bytes(in_storage_bytes(in_storage_bytes(b"N."))),
}


@pytest.mark.parametrize("what", HANDWRITTEN)
def test_a_trick_is_refused(tmp_path, canary, what):
    refused(tmp_path, HANDWRITTEN[what])


def test_the_name_of_an_old_instance_is_told(tmp_path):
    refused(tmp_path, HANDWRITTEN["instance of the old style"], "INST 'os system'")


@pytest.mark.parametrize(
    "what", [key for key in HANDWRITTEN if not key.startswith("persistent id")]
)
@pytest.mark.parametrize("container", ["zip", "stream"])
def test_a_trick_in_a_torch_file_is_refused(tmp_path, canary, what, container):
    refused(tmp_path, CONTAINERS[container](HANDWRITTEN[what]))


def storage_id(kind="torch~FloatStorage", key="S'0'~", count="I4~", rest=""):
    return f"(S'storage'~c{kind}~{key}S'cpu'~{count}{rest}tQ"


def tensor(size="(I4~t", stride="(I1~t", offset="I0~", storage=None):
    return op(
        f"ctorch._utils~_rebuild_tensor_v2~({storage or storage_id()}{offset}{size}{stride}tR"
    )


STORAGES = {
    "another class": storage_id("os~system"),
    "a class that is none": storage_id("torch.nn~Linear"),
    "a key that is a number": storage_id(key="I0~"),
    "a negative size": storage_id(count="I-1~"),
    "a size that is a text": storage_id(count="S'4'~"),
    "a view of another": storage_id(rest="(I0~t"),
    "two entries": "(S'storage'~S'0'~tQ",
    "a deep list": "(S'storage'~" + "]" * 9999 + "a" * 9998 + "S'0'~S'cpu'~I4~tQ",
}


@pytest.mark.parametrize("what", STORAGES)
def test_a_persistent_id_that_is_no_storage_is_refused(tmp_path, canary, what):
    refused(tmp_path, in_zip(tensor(storage=STORAGES[what]), bytes(16)))


TENSORS = {
    "outside of the storage": tensor("(I5~t"),
    "behind an offset": tensor(offset="I1~"),
    "by its stride": tensor("(I2~t", "(I4~t"),
    "repeated without end": tensor("(I1000000~I1000000~t", "(I0~I0~t"),
    "of a storage that is missing": tensor(storage=storage_id(key="S'1'~")),
    "of a storage of another size": tensor(storage=storage_id(count="I8~")),
    "of a storage of another path": tensor(storage=storage_id(key="S'../byteorder'~")),
}


@pytest.mark.parametrize("what", TENSORS)
def test_a_tensor_that_is_not_there_is_damage(tmp_path, what):
    with pytest.raises(SetupError, match="is damaged or truncated"):
        read(tmp_path, in_zip(TENSORS[what], bytes(16)))


@pytest.mark.parametrize("call", ["ctorch~Size~(", "ccollections~OrderedDict~(("])
def test_the_members_of_a_tensor_are_never_made_objects(tmp_path, call):
    """A million of them would take a thousand times the bytes of the file."""
    number = 1_000_000
    storage = storage_id("torch~ByteStorage", count=f"I{number}~")
    inside = tensor(f"(I{number}~t", storage=storage)[:-1]
    end = op("ltR" if call.endswith("((") else "tR")
    refused(tmp_path, in_zip(op(call)[:-1] + inside + end, bytes(number)))


def test_an_archive_without_torchs_pickle_is_named(tmp_path):
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    refused(tmp_path, stream.getvalue(), "a zip archive with 0 data.pkl")


def test_no_bytes_in_an_old_protocol(tmp_path):
    assert read(tmp_path, pickle.dumps([b"", b"x"], 2)) == [b"", b"x"]


def test_negative_sizes_and_strides_are_refused(tmp_path):
    for changed in ({"size": "(I-4~t"}, {"stride": "(I-1~t"}, {"offset": "I-1~"}):
        refused(tmp_path, in_zip(tensor(**changed), bytes(16)))
    assert read(tmp_path, in_zip(tensor(), bytes(16))).equal(torch.zeros(4))


# what fills memory or time


def test_nesting_has_a_limit(tmp_path):
    for inside in (b")" + b"\x85" * 100_000, b"]" * 50_000 + b"a" * 49_999):
        refused(tmp_path, b"\x80\x02" + inside + b".", f"nested more than {MAX_DEPTH}")


def test_the_number_of_operations_has_a_limit(tmp_path):
    refused(tmp_path, b"\x80\x02" + b"N0" * (MAX_OPERATIONS // 2) + b"N.", "operations")


def test_copying_has_a_limit(tmp_path):
    """One text of 100 kB that 2,000 calls turn into bytes would be 200 MB."""
    text = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00"
    call = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR"
    refused(tmp_path, b"\x80\x02" + text + b"](" + call * 2000 + b"e.", "copy more than")


def test_a_circle_comes_to_an_end(tmp_path):
    assert len(read(tmp_path, b"\x80\x02]q\x00h\x00a.")) == 1


def test_a_compressed_or_encrypted_archive_is_refused(tmp_path):
    bomb = in_zip(pickle.dumps(1), bytes(10**8), zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**6
    refused(tmp_path, bomb, "compressed")


def test_members_that_share_their_bytes_are_refused(tmp_path):
    data = in_zip(pickle.dumps(1), bytes(100_000))
    start = data.rindex(b"PK\x05\x06")
    directory = data[data.index(b"PK\x01\x02") : start]
    entries = [b"PK\x01\x02" + each for each in directory.split(b"PK\x01\x02")[1:]]
    [large] = [each for each in entries if b"x/data/0" in each]
    copies = [large.replace(b"x/data/0", f"x/data/{i}".encode()) for i in range(1, 10)]
    whole = b"".join(entries + copies)
    end = struct.pack(
        "<4s4H2IH", b"PK\x05\x06", 0, 0, 13, 13, len(whole), data.index(entries[0]), 0
    )
    with pytest.raises(SetupError, match="larger than the file"):
        read(tmp_path, data[: data.index(entries[0])] + whole + end)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x02B" + struct.pack("<I", 2**32 - 1) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**62),
        b"\x80\x02\x8a\xff.",
        b"t.",
        b"0.",
        b".",
        b"h\x05.",
        b"\xff",
    ],
)
def test_a_pickle_that_is_none_is_damage(tmp_path, data):
    with pytest.raises(SetupError, match="is damaged or truncated"):
        read(tmp_path, data)


def test_a_tar_archive_is_refused(tmp_path):
    refused(tmp_path, b"x" * 257 + b"ustar\x0000" + bytes(300), "a tar archive")


# what is read


def contents():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, 4))
    return {
        "weight": weight,
        "turned": weight.detach().t(),
        "part": weight.detach()[1:, 2],
        "half": torch.randn(5).half(),
        "bf16": torch.randn(5).bfloat16(),
        "whole": torch.arange(4),
        "true": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
        "number": torch.tensor(2.5),
        "layers": torch.nn.Sequential(torch.nn.Linear(2, 3)).state_dict(),
        "list": [1, -(2**40), 2.5, None, True, "text", b"bytes", (1, 2)],
        "options": argparse.Namespace(size=32),
        "format": torch.float16,
        "shape": torch.Size([1, 2]),
        "device": torch.device("cuda:1"),
        "members": {1, 2},
    }


def check(found, expected=None):
    expected = expected or contents()
    assert list(found) == list(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[key].dtype == value.dtype
            assert found[key].equal(value.detach())
    assert {k: v.tolist() for k, v in found["layers"].items()} == {
        k: v.tolist() for k, v in expected["layers"].items()
    }
    assert found["list"] == expected["list"]
    assert (found["shape"], found["device"], found["members"]) == ((1, 2), "cuda:1", {1, 2})
    assert isinstance(found["options"], Record)
    assert found["options"].state == {"size": 32}


@pytest.mark.parametrize("new", [True, False])
def test_what_torch_saves_comes_back(tmp_path, new):
    torch.save(contents(), tmp_path / "x.pt", _use_new_zipfile_serialization=new)
    check(read_checkpoint(tmp_path / "x.pt"))


@pytest.mark.parametrize("protocol", range(6))
def test_what_pickle_dumps_comes_back(tmp_path, protocol):
    check(read(tmp_path, pickle.dumps(contents(), protocol)))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["f2", "<f4", ">f4", "f8", "u1", "i8"])
def test_arrays_of_numpy_come_back(tmp_path, protocol, kind):
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    for each in (array, np.asfortranarray(array)):
        data = pickle.dumps(each, protocol)
        found = [read(tmp_path, data)]
        if protocol < 4:  # later ones hold the length of the name
            found.append(read(tmp_path, data.replace(b"numpy._core", b"numpy.core")))
        assert [one.tensor.tolist() for one in found] == [array.tolist()] * len(found)
    assert read(tmp_path, pickle.dumps(array.ravel()[5], protocol)) == 5.0


def test_a_network_becomes_records(tmp_path):
    network = torch.nn.Sequential(collections.OrderedDict(first=torch.nn.Linear(2, 3)))
    found = read(tmp_path, pickle.dumps(network))
    assert found.class_name == "torch.nn.modules.container.Sequential"
    linear = found.state["_modules"]["first"]
    assert linear.class_name == "torch.nn.modules.linear.Linear"
    assert linear.state["_parameters"]["bias"].equal(network.first.bias.detach())


def test_the_source_text_of_a_persistent_class_is_left_alone(tmp_path, canary):
    function = named("torch_utils.persistence", "_reconstruct_persistent_obj")
    meta = {
        "type": "class",
        "version": 6,
        "module_src": "open('canary', 'w')",
        "class_name": "Generator",
        "state": {"z_dim": 4},
    }
    found = read(tmp_path, pickled({"G_ema": Call(function, meta)}, 4))
    assert (found["G_ema"].class_name, found["G_ema"].state) == ("Generator", {"z_dim": 4})


def test_nothing_is_imported(tmp_path):
    """A module that lies on the path is not even looked at."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("raise SystemExit('imported')")
    sys.path.insert(0, str(tmp_path))
    try:
        found = read(tmp_path, op("ctraining.networks~Generator~)\x81}(S'a'~I1~ub"))
    finally:
        sys.path.remove(str(tmp_path))
    assert found.class_name == "training.networks.Generator"
    assert "training" not in sys.modules


def test_there_is_no_such_file(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_checkpoint(tmp_path / "x.pt")
    with pytest.raises(UsageError, match="is a folder"):
        read_checkpoint(tmp_path)
    with open(tmp_path / "huge.pt", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(UsageError, match="the limit is"):
        read_checkpoint(tmp_path / "huge.pt")


# damage


def valid_files():
    small = {"w": torch.ones(3, 2), "n": np.ones(2, np.float32), "o": argparse.Namespace(a=1)}
    zipped, stream = io.BytesIO(), io.BytesIO()
    torch.save(small | {"n": 1}, zipped)
    torch.save(small | {"n": 1}, stream, _use_new_zipfile_serialization=False)
    plain = [pickle.dumps(small, protocol) for protocol in (0, 2, 4)]
    return {
        "zip": zipped.getvalue(),
        "stream": stream.getvalue(),
        "plain": b"".join(plain[2:]),
        "text": plain[0],
        "old": plain[1],
    }


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        where, kind = rng.randrange(len(data)), rng.randrange(5)
        if kind == 0:
            data[where] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[where] = rng.randrange(256)
        elif kind == 2:
            del data[where : where + rng.randint(1, 8)]
        elif kind == 3:
            data[where:where] = rng.randbytes(rng.randint(1, 8))
        else:
            other = rng.randrange(len(data))
            data[where : where + 4] = data[other : other + 4]
        if not data:
            break
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "stream", "plain", "text", "old"])
def test_2000_mutations_give_an_answer_or_the_documented_error(tmp_path, canary, kind):
    data, rng = valid_files()[kind], random.Random(kind)
    path, outcomes = tmp_path / "model.pt", collections.Counter()
    for _ in range(2000):
        path.write_bytes(mutated(data, rng))
        try:
            read_checkpoint(path)
            outcomes["read"] += 1
        except (UsageError, SetupError) as error:
            outcomes[type(error).__name__ if "\n" not in error.message else "lines"] += 1
    assert min(outcomes[name] for name in ("read", "UsageError", "SetupError")) > 10, outcomes
    assert not outcomes["lines"]
    assert os.listdir(tmp_path) == ["model.pt"]


@pytest.mark.parametrize("kind", ["zip", "stream", "plain", "text", "old"])
def test_every_truncation_is_damage(tmp_path, kind):
    data = valid_files()[kind]
    for length in range(0, len(data) - 1, max(1, len(data) // 200)):
        with pytest.raises(SetupError, match="is damaged or truncated"):
            read(tmp_path, data[:length])
