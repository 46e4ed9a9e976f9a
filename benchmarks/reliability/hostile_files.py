"""Files that `load_model` has to refuse, written by hand: by one who knows the format.

They ask for code, for memory without end, or for a model that is none, with the right digest.
"""

import copy
import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.bad_files import opened, sealed, told

DIGEST = "~sha256"
HUGE = 2**62
REMOVED = object()
NAN = {"number": "nan"}
Named = Iterator[tuple[str, bytes]]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def foreign(canary: Path) -> Named:
    """Files of other kinds, some of which run code where they are opened."""
    payload = pickle.dumps(Payload(canary))
    yield "nothing", b""
    yield "one byte", b"{"
    yield "pickle", payload
    yield "old pickle", pickle.dumps(Payload(canary), protocol=0)
    yield "pickle with a digest", payload + hashlib.sha256(payload).digest()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("archive/data.pkl", payload)
        packed.writestr("schema.json", "{}")
        packed.writestr("../../../escape", "x")
    yield "zip", archive.getvalue()
    array = io.BytesIO()
    np.save(array, np.array([Payload(canary)], dtype=object), allow_pickle=True)
    yield "array of objects", array.getvalue()
    yield "script", f"#!/bin/sh\ntouch {canary}\n".encode()
    yield "code", f"__import__('os').system('touch {canary}')".encode()
    yield "yaml", f"!!python/object/apply:os.system ['touch {canary}']".encode()
    yield "zeros", bytes(4096)
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    text = json.dumps({"__metadata__": {"format": "pt"}, "weight": entry}).encode()
    plain = len(text).to_bytes(8, "little") + text + bytes(8)
    yield "safetensors of something else", plain
    seal = {"dtype": "U8", "shape": [32], "data_offsets": [8, 40]}
    others = {"weight": entry, DIGEST: seal}
    yield "safetensors with a digest", sealed(others, bytes(8))
    yield (
        "safetensors of others' metadata",
        sealed({"__metadata__": {"format": "pt"}, **others}, bytes(8)),
    )


def broken_headers(data: bytes) -> Named:
    """Headers that are not what safetensors asks for, or that lie about the rest."""
    header, _, body = opened(data)
    text = json.dumps(header).encode()
    for name, length in (("0", 0), ("of 2**63", 2**63), ("too long by 1", len(data))):
        start = length.to_bytes(8, "little") + data[8:-32]
        yield f"header {name}", start + hashlib.sha256(start).digest()
    yield "header of 2 MiB", sealed(text + b" " * 2**21, body)
    yield "header of nothing", sealed(b"", body)
    yield "header of a list", sealed(b"[]", body)
    yield "header of a number", sealed(b"7", body)
    yield "header after a space", sealed(b" " + text, body)
    yield "header with more after it", sealed(text + b"{}", body)
    yield "header that is no text", sealed(b"{\xff\xfe" + text[1:], body)
    yield "header nested deeply", sealed(b'{"a":' + b"[" * 500_000, body)
    yield "header with a key twice", sealed(b'{"~sha256":{},' + text[1:], body)
    yield "metadata twice", sealed(b'{"__metadata__":{},' + text[1:], body)
    yield "NaN in the header", sealed(text.replace(b"[0,", b"[NaN,", 1), body)
    name = next(key for key in header if key not in ("__metadata__", DIGEST))
    first, last = header[name]["data_offsets"]
    entries = {
        "dtype": ["F16", "BF16", "BOOL", "O", "f8", "", None, 7, ["F64"]],
        "shape": [
            [HUGE, HUGE],
            [2**63],
            [10**40],
            [-1],
            [True],
            [1.0],
            None,
            "3",
            [1] * 99,
            [[1]],
        ],
        "data_offsets": [
            [first + 1, last + 1],
            [first, last + 8],
            [last, first],
            [-8, last],
            [first, HUGE],
            [first, True],
            [first, float(last)],
            [first],
            [first, last, last],
            None,
            [0, 10**40],
        ],
    }
    for key, values in entries.items():
        for value in values:
            changed = {**header, name: {**header[name], key: value}}
            yield f"tensor with {key}={value}", sealed(changed, body)
    yield "tensor without a shape", sealed({**header, name: {"dtype": "F64"}}, body)
    yield "tensor with more keys", sealed({**header, name: {**header[name], "x": 1}}, body)
    yield "tensor that is a text", sealed({**header, name: "F64"}, body)
    yield "tensor left out", sealed({k: v for k, v in header.items() if k != name}, body)
    yield "no digest", sealed({k: v for k, v in header.items() if k != DIGEST}, body)
    halves = {**header[DIGEST], "shape": [4, 8]}
    yield "digest of another shape", sealed({**header, DIGEST: halves}, body)
    swapped = {**header, "z": header[DIGEST]}
    del swapped[DIGEST]
    yield "digest of another name", sealed(swapped, body)


def broken_metadata(data: bytes) -> Named:
    """Metadata that are not what a model file has."""
    header, envelope, body = opened(data)
    metadata = header["__metadata__"]
    for value in (None, {}, [], "x", {"skmoe": 1}, {"skmoe": None}, {**metadata, "more": "x"}):
        changed = {**header, "__metadata__": value}
        yield f"metadata {str(value)[:20]}", sealed(changed, body)
    for text in (
        "",
        "{",
        "[]",
        "1",
        "null",
        "[" * 100_000,
        '{"format":1,"format":1}',
        "\ud800",
    ):
        yield f"metadata that tells {text[:20]}", told(header, text, body)
    versions = (True, False, 1.0, "1", None, 0, -1, 2, 10**30, [1], {"format": 1})
    for version in versions:
        yield f"format {version!r}", told(header, {**envelope, "format": version}, body)
    for key in envelope:
        less = {k: v for k, v in envelope.items() if k != key}
        yield f"without {key}", told(header, less, body)
    yield "more than that", told(header, {**envelope, "code": "print()"}, body)
    for key, value in (("versions", None), ("versions", {"torch": 2}), ("config", [])):
        yield f"{key} {value}", told(header, {**envelope, key: value}, body)


def edited(data: bytes, path: tuple, value: Any) -> bytes:
    """The file with one thing in its config replaced; a value of None at "-" removes it."""
    header, envelope, body = opened(data)
    envelope = copy.deepcopy(envelope)
    place = envelope["config"]
    *way, last = path
    for key in way:
        place = place[key]
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    return told(header, envelope, body)


def reargued(data: bytes, name: str, value: Any) -> bytes:
    """The file with another argument of the network."""
    _, envelope, _ = opened(data)
    arguments = dict(envelope["config"]["model"]["arguments"]["items"])
    pairs = [[key, one] for key, one in {**arguments, name: value}.items()]
    return edited(data, ("model", "arguments", "items"), pairs)


def hostile_configs(data: bytes) -> Named:
    """Configs that ask for code, for classes, for memory without end, or for nonsense."""
    _, envelope, _ = opened(data)
    config = envelope["config"]
    for name in ("os.system", "Pipeline", "BaseMoERegressor", "__import__('os')", None, ["x"]):
        yield f"estimator {name}", edited(data, ("estimator",), name)
    for key in config:
        yield f"config without {key}", edited(data, (key,), REMOVED)
        yield f"{key} of nothing", edited(data, (key,), None)
    yield "config with more", edited(data, ("__reduce__",), "os.system")
    parameters: list[tuple[str, Any]] = [
        ("device", "cuda"),
        ("__class__", "os"),
        ("callbacks", ["x"]),
        ("n_experts", REMOVED),
        ("random_state", {"number": "inf"}),
        ("auxiliary_losses", {"items": [["eval", 1.0]]}),
        ("auxiliary_losses", {"items": [["switch", NAN]]}),
        ("auxiliary_losses", {"items": [["switch", 1.0], ["switch", 1.0]]}),
        ("auxiliary_losses", {"items": [["switch"]]}),
        ("auxiliary_losses", {"items": [[{"tuple": []}, 1.0]]}),
        ("auxiliary_losses", {"items": "switch"}),
        ("gate", {"part": "linear", "settings": {"generator": 1}}),
        ("gate", {"part": "linear", "settings": {"__init__": 1}}),
        ("gate", {"part": ["linear"], "settings": {}}),
        ("gate", {"part": "linear"}),
        ("gate", {"part": "linear", "settings": {}, "class": "os"}),
        ("gate", {"py/object": "os.system"}),
        ("gate", {"array": "x_center"}),
        ("gate", {"array": "no such array"}),
        ("gate", {"names": "y_center"}),
        ("expert", {"numbers": "y_center", "lengths": "y_scale"}),
        ("expert", [["mlp"]]),
        ("expert", []),
        ("verbose", {"tuple": 3}),
        ("verbose", nested(100)),
    ]
    wrong = [True, 2.5, "8", -1, 10**30, NAN, [], {"items": []}, "__import__('os')"]
    parameters += [("n_experts", value) for value in wrong]
    names = ("gate", "router", "expert", "loss", "init", "solver", "embedding")
    parameters += [(name, "os.system") for name in names]
    parameters += [("learning_rate", value) for value in (NAN, -1.0, {"number": "1"}, "fast")]
    for name, value in parameters:
        yield f"parameter {name}={value}"[:80], edited(data, ("parameters", name), value)
    for name, value in (
        ("network", "os.system"),
        ("network", None),
        ("network", "adapted"),
        ("arguments", []),
        ("arguments", {"items": []}),
        ("std_factor", 0.0),
        ("std_factor", True),
        ("std_factor", NAN),
        ("block_directions", 3),
        ("block_directions", [3]),
        ("block_directions", [{"array": "weights.layer.gate.linear.weight"}]),
    ):
        yield f"model {name}={value}", edited(data, ("model", name), value)
    yield from _hostile_arguments(data)
    yield from _hostile_attributes(data)


def nested(depth: int) -> Any:
    """Lists within lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _hostile_arguments(data: bytes) -> Named:
    deep = {"part": "mlp", "settings": {"depth": 10**9}}
    many = [{"part": "mlp", "settings": {"depth": i}} for i in range(5_000)]
    cores = {"part": "mpo", "settings": {"bond": {"tuple": [HUGE, HUGE]}}}
    bins = {"part": "piecewise_linear", "settings": {"n_bins": 10**9}}
    ragged = {"part": "piecewise_linear", "settings": {"bins": [[0.0]] * 3000 + [[0.5] * 3000]}}
    sizes = ("n_inputs", "n_outputs", "n_experts", "hidden_dim", "n_axes", "n_shared_experts")
    no_sizes = (HUGE, 10**30, 10**9, -1, True, 1.5)
    cases: list[tuple[str, Any]] = [
        *((name, value) for name in sizes for value in no_sizes),
        *((name, 0) for name in sizes[:-1]),
        ("generator", 1),
        ("__class__", "os"),
        ("embedding", "piecewise_linear"),
        ("embedding", bins),
        ("embedding", ragged),
        ("embedding", "os.system"),
        ("expert", deep),
        ("expert", many),
        ("expert", cores),
        ("expert", "os.system"),
        ("expert", {"part": "cp", "settings": {"rank": HUGE}}),
        ("expert", {"part": "tensor_ring", "settings": {"ring_rank": 60_000}}),
        ("router", {"part": "hierarchical", "settings": {"n_groups": 7}}),
        ("gate", {"part": "deep", "settings": {"depth": 60_000}}),
        ("gate", {"part": "mlp", "settings": {"hidden_dim": 60_000}}),
        ("gate", {"part": "linear", "settings": {"temperature": -1.0}}),
        ("top_k", 10**9),
        ("gate_sees", "all"),
    ]
    for name, value in cases:
        yield f"argument {name}={value}"[:80], reargued(data, name, value)


def _hostile_attributes(data: bytes) -> Named:
    column = {"key": "a", "rows": [0, 1], "values": [1]}
    cases: list[tuple[str, Any]] = [
        ("n_features_in_", 0),
        ("n_features_in_", True),
        ("n_features_in_", 10**30),
        ("n_features_in_", REMOVED),
        ("_model", 1),
        ("__dict__", {"items": []}),
        ("_y_ndim", 3),
        ("_y_ndim", True),
        ("_y_ndim", []),
        ("n_iter_", -1),
        ("n_iter_", True),
        ("best_loss_", "low"),
        ("expert_usage_", [1.0]),
        ("expert_usage_", {"array": "x_center"}),
        ("feature_names_in_", ["a"]),
        ("history_", {"items": []}),
        ("history_", [1]),
        ("history_", {"records": 10**12, "columns": []}),
        ("history_", {"records": 10**12, "columns": [column]}),
        ("history_", {"records": 1, "columns": [column, column]}),
        ("history_", {"records": 1, "columns": [{**column, "rows": [0, 10**30]}]}),
        ("history_", {"records": 1, "columns": [{**column, "rows": [-1, 0]}]}),
        ("history_", {"records": True, "columns": [column]}),
        ("history_", {"records": 1, "columns": [{**column, "key": 7}]}),
        ("_optimizer_state", {"items": [["0", {"items": []}]]}),
        ("_optimizer_state", [1]),
        ("tuned_experts_", [9]),
        ("singular_values_", [[1.0]]),
        ("n_tuned_weights_", 1.5),
    ]
    for name, value in cases:
        yield f"attribute {name}={value}"[:80], edited(data, ("fitted", name), value)


def wrong_values(data: bytes) -> Named:
    """Arrays that no fit leaves, and one too many."""
    header, envelope, body = opened(data)
    seal = header[DIGEST]
    end = seal["data_offsets"][1]
    more = {**header, "../../etc/passwd": seal}
    more[DIGEST] = {**seal, "data_offsets": [end, end + 32]}
    yield "one tensor more", told(more, envelope, body + bytes(32))
    for name, entry in header.items():
        if name in ("__metadata__", DIGEST) or entry["dtype"] not in ("F32", "F64"):
            continue
        if not name.startswith(("weights.", "x_", "y_", "expert_usage")):
            continue
        start, end = entry["data_offsets"]
        dtype = np.dtype("<f8" if entry["dtype"] == "F64" else "<f4")
        for value in (np.nan, np.inf):
            bad = np.array(value, dtype).tobytes()
            yield (
                f"{value} in {name}",
                told(header, envelope, body[:start] + bad + body[start + len(bad) :]),
            )
        if name.startswith("weights."):
            shape = {**entry, "shape": [1, *entry["shape"]]}
            yield f"{name} of another shape", told({**header, name: shape}, envelope, body)
            raw = {**entry, "dtype": "U8", "shape": [end - start]}
            yield f"{name} of another type", told({**header, name: raw}, envelope, body)
            renamed = {**header, f"{name}.x": entry}
            del renamed[name]
            yield f"{name} of another name", told(renamed, envelope, body)


def hostile(data: bytes, canary: Path) -> Named:
    """All that was written by hand."""
    yield from foreign(canary)
    yield from broken_headers(data)
    yield from broken_metadata(data)
    yield from hostile_configs(data)
    yield from wrong_values(data)
