"""The safe file format: (config, arrays) <-> bytes <-> a file on disk.

A model file is a valid safetensors file. Its metadata has one entry, ``skmoe``: a JSON object
of `format`, an integer, `versions`, the packages that wrote it, and `config`, plain values that
only the caller understands. Its last tensor, ``~sha256``, is the SHA-256 of all bytes before
it, so that damage is always noticed. It says nothing about who wrote a file: what protects from
hostile files is that nothing in them is ever run or looked up outside of literal tables, and
that all is checked before it is used.

Every refused file is refused with `ModelFileError`. A change of what a config may hold raises
`FORMAT`; older formats stay readable for ever.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skmoe._optional import import_optional
from skmoe._settings import check_integer
from skmoe._version import __version__

FORMAT = 1
KEY = "skmoe"
DIGEST = "~sha256"  # of the dtype and with the name that safetensors sorts last
DIGEST_BYTES = 32
MAX_BYTES = 2**30
MAX_HEADER_BYTES = 2**20
MAX_DIMENSIONS = 8
DTYPES = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "U8": np.uint8}


class ModelFileError(ValueError):
    """A file that is no sound model file, or whose model this skmoe does not build."""


class Contents(NamedTuple):
    """What a model file holds."""

    config: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    versions: dict[str, str]
    """Of the packages that wrote it, by name."""
    format: int
    digest: str
    """SHA-256 of all bytes before it, as hexadecimal digits."""


def to_bytes(
    config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], versions: Mapping[str, str]
) -> bytes:
    """The bytes of a model file.

    Parameters
    ----------
    config : dict
        Of JSON's types, floats finite.
    arrays : dict of str to ndarray
        Of float64, float32, int64 or uint8.
    versions : dict of str to str
        Of packages, for information.

    Raises
    ------
    ValueError
        If the config does not fit into a header of 1 MiB.
    """
    safetensors = _safetensors()
    envelope = {"format": FORMAT, "versions": dict(versions), "config": dict(config)}
    text = json.dumps(envelope, allow_nan=False, separators=(",", ":"))
    tensors = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    tensors[DIGEST] = np.zeros(DIGEST_BYTES, np.uint8)
    data = bytearray(safetensors.save(tensors, {KEY: text}))
    if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
        raise ValueError(
            f"Parameters and names must fit into {MAX_HEADER_BYTES} bytes of JSON. "
            f"Got {len(text)} and {len(tensors)} arrays."
        )
    data[-DIGEST_BYTES:] = hashlib.sha256(memoryview(data)[:-DIGEST_BYTES]).digest()
    return bytes(data)


def from_bytes(data: bytes) -> Contents:
    """The contents of a model file, after all checks that need no knowledge of models.

    Raises
    ------
    ModelFileError
        If anything is out of order.
    """
    safetensors = _safetensors()
    digest = _check_digest(data)
    header, start = _read_header(data)
    envelope = _read_envelope(header.pop("__metadata__", None))
    _check_layout(header, len(data) - start)
    try:
        arrays = safetensors.load(data)
    except Exception as error:  # of the package's own class, or a rule that it has besides
        raise ModelFileError(f"The file is no safetensors file: {error}") from error
    del arrays[DIGEST]
    return Contents(
        envelope["config"], arrays, envelope["versions"], envelope["format"], digest.hex()
    )


def _safetensors() -> Any:
    return import_optional("safetensors.numpy", "Model files need safetensors", "io")


def _check_digest(data: bytes) -> bytes:
    told = data[-DIGEST_BYTES:]
    if hashlib.sha256(memoryview(data)[:-DIGEST_BYTES]).digest() != told:
        raise ModelFileError(
            "The file is damaged, or it is no model file of skmoe: it does not end in the "
            "SHA-256 of what comes before."
        )
    return told


def _read_header(data: bytes) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors start."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 + DIGEST_BYTES or length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ModelFileError(
            f"A header must be inside of the file and have at most {MAX_HEADER_BYTES} bytes. "
            f"Got {length}."
        )
    raw = data[8 : 8 + length]
    header = parse_json(raw)
    if raw[:1] != b"{" or not isinstance(header, dict):
        raise ModelFileError("The header must be a JSON object.")
    return header, 8 + length


def _read_envelope(metadata: Any) -> dict[str, Any]:
    """What the metadata tells, its format checked first: it decides about all else."""
    check_keys("__metadata__", metadata, {KEY})
    if not isinstance(metadata[KEY], str):
        raise ModelFileError(f"The metadata {KEY!r} must be a text.")
    envelope = parse_json(metadata[KEY])
    if not isinstance(envelope, dict):
        raise ModelFileError(f"The metadata {KEY!r} must be a JSON object.")
    _check_format(envelope.get("format"))
    check_keys(KEY, envelope, {"format", "versions", "config"})
    versions = envelope["versions"]
    if not isinstance(versions, dict) or not all(
        isinstance(version, str) for version in versions.values()
    ):
        raise ModelFileError("versions must be texts.")
    if not isinstance(envelope["config"], dict):
        raise ModelFileError("config must be a JSON object.")
    return envelope


def _check_format(version: Any) -> None:
    if type(version) is not int or version < 1:  # True and 1.0 are equal to 1, and are not it
        raise ModelFileError(f"format must be an integer of at least 1. Got {version!r:.80}.")
    if version > FORMAT:
        raise ModelFileError(
            f"The file has format {version}, and skmoe {__version__} reads formats up to "
            f"{FORMAT}. A newer skmoe is needed: pip install --upgrade skmoe"
        )


def _check_layout(header: dict[str, Any], n_bytes: int) -> None:
    """Refuse tensors that do not tile the rest of the file, the digest at its end."""
    spans = sorted((*_span(name, entry), name) for name, entry in header.items())
    end = 0
    for start, stop, name in spans:
        if start != end:
            raise ModelFileError(f"Tensor {name!r:.80} must start at {end}. Got {start}.")
        end = stop
    if end != n_bytes:
        raise ModelFileError(f"Tensors must have {n_bytes} bytes in all. Got {end}.")
    last = spans[-1][2] if spans else None
    if last != DIGEST or header[DIGEST]["dtype"] != "U8":
        raise ModelFileError(f"The last tensor must be {DIGEST!r}. Got {last!r:.80}.")
    if header[DIGEST]["shape"] != [DIGEST_BYTES]:
        raise ModelFileError(f"{DIGEST!r} must have {DIGEST_BYTES} bytes.")


def _span(name: str, entry: Any) -> tuple[int, int]:
    """First byte and end of a tensor, from an entry whose parts agree."""
    check_keys(f"tensor {name!r:.80}", entry, {"dtype", "shape", "data_offsets"})
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ModelFileError(f"Tensors must be of {sorted(DTYPES)}. Got {dtype!r:.80}.")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise ModelFileError(f"A shape must be a list of sizes. Got {shape!r:.80}.")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise ModelFileError(f"Offsets must be two integers. Got {offsets!r:.80}.")
    start, stop = offsets
    if stop - start != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ModelFileError(
            f"Tensor {name!r:.80} of {dtype} and shape {shape!r:.80} does not fit into bytes "
            f"{start} to {stop}."
        )
    return start, stop


def _are_counts(values: Any) -> bool:
    # Python's integers have no limit: a product of a few of these is made in no time.
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 2**63 for value in values
    )


def check_keys(what: str, value: Any, keys: Collection[str]) -> None:
    """Refuse all but a dict with exactly these keys."""
    if not isinstance(value, dict):
        raise ModelFileError(f"{what} must be a JSON object. Got {type(value).__name__}.")
    if unknown := value.keys() - set(keys):
        raise ModelFileError(f"{what} has unknown keys: {sorted(unknown)!r:.200}.")
    if missing := set(keys) - value.keys():
        raise ModelFileError(f"{what} lacks {sorted(missing)!r:.200}.")


def parse_json(text: str | bytes) -> Any:
    """JSON without repeated keys and without numbers that are not finite."""
    try:
        return json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=_without_repeats,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except ModelFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"The file has broken JSON: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ModelFileError("A JSON object has a key twice.")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ModelFileError(f"Numbers in JSON must be finite. Got {text[:80]}.")
    return value


def read(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """All bytes of a regular file of at most `max_bytes`."""
    check_integer("max_bytes", max_bytes)
    if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):
        raise ModelFileError(f"A model file must be a regular file. Got {str(path)!r}.")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise ModelFileError(
                f"A model file must have at most max_bytes={max_bytes} bytes. Got {size}."
            )
        return file.read(size)


def write(
    path: str | os.PathLike[str],
    data: bytes | memoryview,
    kept: str | os.PathLike[str] | None = None,
) -> None:
    """Put the bytes in the place of `path`, all or nothing.

    They are written to ``.<name>.tmp-<process>-<random>`` beside it, and to the disk, before
    that file is renamed. Whatever happens, `path` is the old file or the new one; where `kept`
    is given, the old file is moved there first.
    """
    target = Path(os.path.realpath(path))  # a link stays one
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder", str(target.parent))
    mode = _mode_of(target)
    temporary = target.with_name(
        f".{target.name[:64]}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    )
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(temporary, flags, 0o666 if mode is None else mode)
        with open(descriptor, "wb") as file:
            if mode is not None:
                os.chmod(temporary, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if kept is not None and mode is not None:
            _keep(target, Path(kept))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _keep(target: Path, kept: Path) -> None:
    """Give the old file a second name, so that there is one under its own at any time."""
    link = kept.with_name(f".{kept.name[:64]}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        try:
            os.link(target, link)
        except OSError:  # the file system has no links
            shutil.copyfile(target, link)
        os.replace(link, kept)
    finally:
        link.unlink(missing_ok=True)  # there still if both were the same file


def _mode_of(target: Path) -> int | None:
    """Permissions of the old file; None without one."""
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(old.st_mode):
        raise OSError(f"A model can only be saved in a regular file. Got {str(target)!r}.")
    return stat.S_IMODE(old.st_mode)


def _sync_folder(folder: Path) -> None:
    """Make the rename last; Windows has no such call, and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
