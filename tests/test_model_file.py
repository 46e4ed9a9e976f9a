"""The file format: bytes come back, damage is noticed, writing is all or nothing."""

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from benchmarks.reliability import bad_files, hostile_files
from skmoe import ModelFileError, model_file, part
from skmoe.model_file import MAX_BYTES, from_bytes, parse_json, read, to_bytes, write
from skmoe.stored_values import Reader, Writer, with_parts, without_parts

CONFIG = {"a": [1, 2.5, None, True, "ü"], "b": {"c": {}}}
ARRAYS = {
    "floats": np.array([[0.1, -np.inf], [np.nan, 1e-310]]),
    "short": np.arange(3, dtype=np.float32),
    "whole": np.array([-(2**63), 2**63 - 1]),
    "bytes": np.arange(7, dtype=np.uint8),
    "none": np.zeros((0, 3)),
    "one": np.array(0.5),
}
VERSIONS = {"skmoe": "1", "torch": "2"}


@pytest.fixture(scope="module")
def data():
    return to_bytes(CONFIG, ARRAYS, VERSIONS)


def test_all_comes_back(data):
    contents = from_bytes(data)
    assert contents.config == CONFIG
    assert contents.versions == VERSIONS
    assert contents.format == model_file.FORMAT
    assert contents.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        found = contents.arrays[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()


def test_arrays_of_any_layout_are_stored_by_value():
    array = np.arange(12.0).reshape(3, 4)
    layouts = {"f": np.asfortranarray(array), "back": array[::-1], "big": array.astype(">f8")}
    found = from_bytes(to_bytes({}, layouts, {})).arrays
    for name, given in layouts.items():
        np.testing.assert_array_equal(found[name], given)


def test_the_file_is_a_valid_safetensors_file_that_ends_in_its_digest(data):
    tensors = safetensors.numpy.load(data)
    assert tensors.keys() == {*ARRAYS, "~sha256"}
    digest = hashlib.sha256(data[:-32]).digest()
    assert tensors["~sha256"].tobytes() == data[-32:] == digest
    assert from_bytes(data).digest == digest.hex()


def test_the_same_contents_are_the_same_bytes(data):
    assert to_bytes(CONFIG, ARRAYS, VERSIONS) == data


def test_a_config_beyond_the_largest_header_is_refused_in_writing():
    with pytest.raises(ValueError, match="must fit into 1048576 bytes"):
        to_bytes({"a": "x" * 2**20}, {}, {})


def test_every_truncation_and_every_flipped_bit_is_refused():
    small = to_bytes({"a": [1, 2, 3]}, {"w": np.arange(30.0)}, VERSIONS)
    for length in range(len(small)):
        with pytest.raises(ModelFileError):
            from_bytes(small[:length])
    for place in range(len(small)):
        for bit in range(8):
            bad = bytearray(small)
            bad[place] ^= 1 << bit
            with pytest.raises(ModelFileError, match="damaged"):
                from_bytes(bytes(bad))


@pytest.mark.parametrize(
    "make",
    [hostile_files.broken_headers, hostile_files.broken_metadata],
    ids=["headers", "metadata"],
)
def test_what_is_wrong_with_the_right_digest_is_refused(data, make):
    cases = list(make(data))
    assert len(cases) > 25
    for name, bad in cases:
        try:
            from_bytes(bad)
        except ModelFileError:
            continue
        pytest.fail(f"{name} was read.")


@pytest.mark.parametrize("version", [2, 10**30])
def test_a_newer_format_asks_for_a_newer_skmoe(data, version):
    header, envelope, body = bad_files.opened(data)
    newer = {**envelope, "format": version, "what": "nobody knows yet"}
    with pytest.raises(ModelFileError, match="A newer skmoe is needed"):
        from_bytes(bad_files.told(header, newer, body))


@pytest.mark.parametrize("version", [True, 1.0, "1", None])
def test_a_format_is_an_integer_and_nothing_that_equals_one(data, version):
    header, envelope, body = bad_files.opened(data)
    with pytest.raises(ModelFileError, match="format must be an integer"):
        from_bytes(bad_files.told(header, {**envelope, "format": version}, body))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 1}', "a key twice"),
        ("NaN", "finite"),
        ("[-Infinity]", "finite"),
        ("1e999", "finite"),
        ("[" * 100_000, "broken JSON"),
        ("9" * 10_000, "broken JSON"),
        (b"\xff", "broken JSON"),
        ("", "broken JSON"),
    ],
)
def test_json_is_strict(text, message):
    with pytest.raises(ModelFileError, match=message):
        parse_json(text)


# On disk


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".tmp-" in path.name]


def test_a_file_is_written_and_read(tmp_path):
    write(tmp_path / "a.skmoe", b"abc")
    assert read(tmp_path / "a.skmoe", MAX_BYTES) == b"abc"
    assert os.listdir(tmp_path) == ["a.skmoe"]


def test_a_new_file_has_the_usual_mode_and_an_old_one_keeps_its_own(tmp_path):
    path, usual = tmp_path / "a", tmp_path / "usual"
    usual.touch()
    write(path, b"1")
    assert path.stat().st_mode == usual.stat().st_mode
    for mode in (0o600, 0o444, 0o664):
        path.chmod(mode)
        write(path, b"2")
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_only_regular_files_are_written_and_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="regular file"):
        read(tmp_path / "pipe", MAX_BYTES)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match="regular file"):
            write(path, b"")
    with pytest.raises(IsADirectoryError):
        read(tmp_path, MAX_BYTES)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing", MAX_BYTES)
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "nowhere" / "file", b"")


def test_a_name_of_any_length_has_a_temporary_one(tmp_path):
    write(tmp_path / ("n" * 255), b"abc")
    assert read(tmp_path / ("n" * 255), 3) == b"abc"


def test_files_above_the_limit_are_refused_unread(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    with pytest.raises(
        ModelFileError, match=r"at most max_bytes=1000 bytes\. Got 1099511627776"
    ):
        read(path, 1000)
    with pytest.raises(ValueError, match="max_bytes must be an int"):
        read(path, 0)


class Broken:
    """A file that fails in its `write`, or a function that fails."""

    def __init__(self, error, file=None):
        self.error, self.file = error, file

    def __call__(self, *args, **kwargs):
        raise self.error

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        raise self.error


@pytest.mark.parametrize("where", ["open", "write", "fsync", "chmod", "replace"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_the_old_file_survives_what_fails(tmp_path, monkeypatch, where, error):
    path = tmp_path / "model"
    write(path, b"good")
    if where == "write":
        wrapped = lambda file, mode: Broken(error, open(file, mode))  # noqa: E731, SIM115
        monkeypatch.setattr(model_file, "open", wrapped, raising=False)
    else:
        monkeypatch.setattr(model_file.os, where, Broken(error))
    with pytest.raises(type(error)):
        write(path, b"better")
    monkeypatch.undo()
    assert path.read_bytes() == b"good"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("has_links", [True, False])
def test_the_old_file_is_kept_and_there_is_one_at_any_time(tmp_path, monkeypatch, has_links):
    path, kept = tmp_path / "new", tmp_path / "old"
    model_file.write(path, b"1", kept=kept)
    assert not kept.exists()
    replace, there = os.replace, []

    def watched(*names):
        there.append(path.exists())
        replace(*names)

    def fail(*names):
        raise OSError

    monkeypatch.setattr(os, "replace", watched)
    if not has_links:
        monkeypatch.setattr(os, "link", fail)
    model_file.write(path, b"2", kept=kept)
    assert (path.read_bytes(), kept.read_bytes()) == (b"2", b"1")
    assert there == [True, True]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "old"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such folder: '.*nowhere'"):
        write(tmp_path / "nowhere" / "model", b"good")


FULL_DISK = """
import resource, sys
from skmoe import model_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    model_file.write(sys.argv[1], bytes(2000))
except OSError as error:
    print(type(error).__name__)
"""


def test_the_old_file_survives_a_full_disk(tmp_path):
    path = tmp_path / "model"
    write(path, b"good")
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["OSError"]
    assert path.read_bytes() == b"good"
    assert not leftovers(tmp_path)


def test_without_safetensors_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"pip install skmoe\[io\]"):
        to_bytes({}, {}, {})


# Values


VALUES = {
    "plain": [None, True, -3, 2.5, "text", [], [[]], {}],
    "tuple": ((1.0, 0.1), ()),
    "part": part("mlp", hidden_dim=3, levels=(2, 2), inner=part("a")),
    "losses": {part("group_sparsity", shape=(2, 2)): 0.1, "z": 1e-3},
    "not finite": [float("inf"), float("-inf")],
    "long": list(range(1000)),
    "long floats": [0.1 * i for i in range(1000)],
    "truths": [i % 3 == 0 for i in range(100)],
    "bins": [[0.1 * i for i in range(n)] for n in (30, 2, 0, 25)],
    "mixed": [1, 2.0] * 20,
    "large": [2**63] * 20,
    "history": [
        {"epoch": i, "usage": [[0.1 * i, 1.0], [0.0, 2.0]], "seen": i > 3}
        | ({"last": 1.5, "note": "x"} if i == 99 else {})
        | ({"some": i} if i % 7 == 0 else {})
        | ({"varies": i if i % 2 else 0.5} if i > 90 else {})
        for i in range(100)
    ],
}


def types_of(value):
    if isinstance(value, dict):
        return {key: types_of(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [types_of(one) for one in value]
    return type(value)


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_with_their_types(name):
    writer = Writer()
    stored = json.loads(json.dumps(writer.value(VALUES[name], "it"), allow_nan=False))
    assert len(json.dumps(stored)) < 700
    reader = Reader(writer.arrays)
    found = reader.value(stored)
    reader.finish()
    assert found == VALUES[name]
    assert types_of(found) == types_of(VALUES[name])


def test_arrays_and_names_come_back():
    names = np.array(["a", 'b"ü', ""], dtype=object)
    value = [np.arange(3.0), [np.arange(2)], names]
    writer = Writer()
    stored = writer.value(value, "it")
    numbers, (ids,), texts = Reader(writer.arrays).value(stored)
    np.testing.assert_array_equal(numbers, value[0])
    np.testing.assert_array_equal(ids, value[1][0])
    assert texts.dtype == object
    assert texts.tolist() == names.tolist()


def test_arrays_that_would_have_one_name_are_all_kept():
    one, two = (part("group_sparsity", of=[i] * 50) for i in (1.0, 2.0))
    writer = Writer()
    stored = writer.value({one: 1, two: 2}, "it")
    found = list(Reader(writer.arrays).value(stored))
    assert found == [one, two]


def test_numbers_of_numpy_come_back_as_pythons():
    writer = Writer()
    given = [np.int64(3), np.float32(0.5), np.bool(True), np.str_("a"), float("nan")]
    found = Reader({}).value(writer.value(given, "it"))
    assert found[:4] == [3, 0.5, True, "a"]
    assert [type(one) for one in found[:4]] == [int, float, bool, str]
    assert np.isnan(found[4])


@pytest.mark.parametrize(
    "value", [len, int, object(), {1, 2}, b"bytes", 1j, {1: 2}, np.array([1j]), [{1: 2}] * 2]
)
def test_nothing_else_is_stored(value):
    with pytest.raises(ValueError, match="A model file cannot hold it"):
        Writer().value([value], "it")


@pytest.mark.parametrize("name", ["plain", "tuple", "part", "losses", "bins"])
def test_parts_become_plain_values_and_come_back(name):
    plain = without_parts(VALUES[name])
    assert "part(" not in repr(plain)
    assert with_parts(plain) == VALUES[name]
    assert types_of(with_parts(plain)) == types_of(VALUES[name])
