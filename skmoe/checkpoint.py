"""Checkpoints: how far a fit has come, in a file from which it goes on after a crash.

A fit is a sequence of stages: brief fits, attempts of gradient descent, a closed-form or a
second-order finish. Each of them changes a network in place and leaves a result. All that lies
between follows from data, parameters and random state; so a fit that goes on starts again, but
takes what finished stages have left from the file, and the stage that was under way from its
last epoch that was written. It ends with the same bits as a fit that was never stopped.

A file is an ``.npz`` of arrays, with JSON for all that is none, and its SHA-256 at the end:
reading it runs no code. It is written under another name and then renamed, and the one
before it is kept, so that there always is a whole one.
"""

import hashlib
import io
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
from torch import Tensor

from skmoe import model_file
from skmoe._version import __version__

Result = TypeVar("Result")

FORMAT = 1
DIGEST_SIZE = 32
# What is done is written after so many seconds at the earliest, and so seldom that writing
# takes a fiftieth of the time.
SECONDS = 1.0
TIMES_ITSELF = 50
# In place of an array, JSON holds its number under this key.
ARRAY = "~array"
# NumPy parses the header of each array as Python, which two threads cannot do at once before
# Python 3.11.8 and 3.12.2 (https://github.com/python/cpython/issues/106905).
_reading = threading.Lock()


class DamagedCheckpoint(Exception):
    """A file is no checkpoint, or not as it was written."""


def fingerprints(parameters: Mapping[str, Any], data: Any) -> dict[str, str]:
    """What tells one fit from others: a hash of its data, and of each of its parameters."""
    found = {name: joblib.hash(value) for name, value in sorted(parameters.items())}
    return {"data": joblib.hash(data), **found, "version of skmoe": __version__}


class Checkpoint:
    """The stages of one fit, as a file holds them.

    Parameters
    ----------
    place : str or path
        The file; or a folder, in which each fit has a file of its own.
    identity : dict
        `fingerprints` of the fit.
    random_state : dict
        State of the random numbers that the fit starts with. A fit that goes on takes that of
        its first start, which is then found in `random_state`.

    Raises
    ------
    ValueError
        If the file belongs to another fit, or is no checkpoint.
    OSError
        If it cannot be read or written.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        identity: dict[str, str],
        random_state: dict[str, Any],
    ) -> None:
        path = Path(os.path.realpath(place))  # a link may lead to another file system
        self.path = path / f"{joblib.hash(identity)}.npz" if path.is_dir() else path
        self.position = 0  # the number of the next stage
        self.seconds_of_writing = 0.0
        found = self._read_newest()
        self.is_new = found is None
        if found is None:
            found = {"identity": identity, "random_state": random_state, "stages": []}
            found |= {"format": FORMAT, "under_way": None, "finished": False}
            _write(self.path, found)
        _check_identity(self.path, found, identity)
        self.content = found
        self.random_state = found["random_state"]
        self.under_way = found["under_way"]
        self.written = time.monotonic()

    def stage(
        self,
        network: torch.nn.Module,
        work: Callable[[], Result],
        kind: Callable[..., Result],
    ) -> Result:
        """What `work` returns, with what it does to `network`; from the file if it is done.

        Parameters
        ----------
        network : Module
            What `work` changes in place.
        work : callable
            Without arguments; returns a dataclass with a field `interrupted`.
        kind : type
            That dataclass.
        """
        stages = self.content["stages"]
        if self.position < len(stages):
            outcome = stages[self.position]
            network.load_state_dict(tensors(outcome["weights"]))
            network.eval()
            result = kind(**outcome["result"])
        else:
            result = work()
            if getattr(result, "interrupted", False):
                return result  # goes on from its last epoch
            weights = {name: w.cpu().numpy().copy() for name, w in network.state_dict().items()}
            stages.append({"weights": weights, "result": dict(vars(result))})
            self.under_way = None
            self.write()
        self.position += 1
        return result

    def take_progress(self) -> dict[str, Any] | None:
        """The progress that an interrupted stage had made; only the first call has it."""
        taken, self.under_way = self.under_way, None
        return taken

    def write(self, progress: Callable[[], dict[str, Any]] | None = None) -> None:
        """Write what is done, and the progress of the stage under way if any; not too often."""
        pause = max(SECONDS, TIMES_ITSELF * self.seconds_of_writing)
        if time.monotonic() - self.written >= pause:
            self._write_now(progress and progress())

    def finish(self) -> None:
        """Write that the fit is done."""
        if not self.content["finished"]:
            self.content["finished"] = True
            self._write_now(None)

    def _write_now(self, progress: dict[str, Any] | None) -> None:
        started = time.monotonic()
        try:
            _write(self.path, {**self.content, "under_way": progress})
        except OSError as error:
            # Whoever has trained for hours does not want to lose that to a full disk.
            warnings.warn(
                f"The checkpoint {str(self.path)!r} was not written, and the fit goes on "
                f"without: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
        self.written = time.monotonic()
        self.seconds_of_writing = self.written - started

    def _read_newest(self) -> dict[str, Any] | None:
        """The last whole one; None if there is no file yet."""
        before = _before(self.path)
        try:
            return _read(self.path) if self.path.exists() else _read_if_there(before)
        except DamagedCheckpoint as error:
            try:
                found = _read_if_there(before)
            except DamagedCheckpoint:
                found = None
            if found is None:
                raise ValueError(
                    f"{error} There is no whole one before it either: remove the file to start "
                    "anew."
                ) from None
            os.replace(before, self.path)
            warnings.warn(f"{error} The fit goes on from the one before.", stacklevel=2)
            return found


def tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Arrays as tensors with memory of their own."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


def _check_identity(path: Path, found: dict[str, Any], identity: dict[str, str]) -> None:
    if found.get("format") != FORMAT:
        raise ValueError(
            f"A checkpoint must have the format {FORMAT}. Got {found.get('format')!r} in "
            f"{str(path)!r}."
        )
    names = sorted(identity.keys() | found["identity"].keys())
    differ = [name for name in names if identity.get(name) != found["identity"].get(name)]
    if differ:
        raise ValueError(
            f"A checkpoint must be of the same fit. Got {str(path)!r}, of a fit with another "
            f"{', '.join(differ)}. Give another file, or a folder, in which each fit has a "
            "file of its own."
        )


def _write(path: Path, content: dict[str, Any]) -> None:
    """Put a whole file in place of the old one, which is kept as the one before."""
    arrays: list[np.ndarray] = []
    text = json.dumps(_pack(content, arrays))
    body = io.BytesIO()
    named = {str(number): array for number, array in enumerate(arrays)}
    np.savez(body, allow_pickle=False, json=np.frombuffer(text.encode(), np.uint8), **named)
    body.write(hashlib.sha256(body.getbuffer()).digest())
    model_file.write(path, body.getbuffer(), kept=_before(path))


def _read_if_there(path: Path) -> dict[str, Any] | None:
    return _read(path) if path.exists() else None


def _read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    body, digest = data[:-DIGEST_SIZE], data[-DIGEST_SIZE:]
    if hashlib.sha256(body).digest() != digest:
        raise DamagedCheckpoint(f"The checkpoint {str(path)!r} is damaged, or is none.")
    with _reading, np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return _unpack(json.loads(arrays["json"].tobytes()), arrays)


def _pack(tree: Any, arrays: list[np.ndarray]) -> Any:
    """The tree as JSON knows it, its arrays put into the list."""
    if isinstance(tree, Tensor):
        tree = tree.detach().cpu().numpy()
    if isinstance(tree, np.ndarray):
        arrays.append(tree)
        return {ARRAY: len(arrays) - 1}
    if isinstance(tree, np.generic):
        return tree.item()
    if isinstance(tree, Mapping):
        return {str(key): _pack(value, arrays) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_pack(value, arrays) for value in tree]
    return tree


def _unpack(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(tree, dict):
        if ARRAY in tree:
            return arrays[str(tree[ARRAY])]
        return {key: _unpack(value, arrays) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_unpack(value, arrays) for value in tree]
    return tree
