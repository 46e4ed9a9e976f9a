"""`save_model` and `load_model`: an estimator as a file that is safe to open.

`written` and `restored` translate between the state of an estimator, as `__getstate__` has it,
and the config and arrays of a model file. What a file may hold is in the tables below, and
nothing else is looked up by a name from a file.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
import torch

from skmoe import model_file
from skmoe._registry import name_of
from skmoe._validation import check_is_fitted
from skmoe._version import __version__
from skmoe.estimators import _auto
from skmoe.estimators._stored_attributes import (
    check_can_be_stored,
    check_fitted,
    check_names,
    read_fitted,
)
from skmoe.model import FittedModel
from skmoe.model_file import MAX_BYTES, Contents, ModelFileError, check_keys
from skmoe.stored_model import check_bounded, is_count, read_model, write_model
from skmoe.stored_values import Reader, Writer

# Where a model is computed, and fits are written to, belongs to a machine, not to the model.
NOT_STORED = {"device", "checkpoint"}
LARGEST_PARAMETER = 2**32 - 1


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says about itself.

    Attributes
    ----------
    estimator : str
        Name of the class.
    parameters : dict
        Its parameters, but `device` and `checkpoint`, which no file holds.
    network : str
        Kind of the network.
    arguments : dict
        With which it was made.
    n_features_in : int
        Number of features.
    arrays : dict of str to (str, tuple of int)
        Type and shape of each array.
    versions : dict of str to str
        Packages that wrote the file.
    format : int
        Version of the format.
    digest : str
        SHA-256 of all bytes before it, in hexadecimal digits.
    n_bytes : int
        Size of the file.
    """

    estimator: str
    parameters: dict[str, Any]
    network: str
    arguments: dict[str, Any]
    n_features_in: int
    arrays: dict[str, tuple[str, tuple[int, ...]]]
    versions: dict[str, str]
    format: int
    digest: str
    n_bytes: int


class Saving:
    """`save_model` and `load_model`."""

    def save_model(self, path: str | os.PathLike[str]) -> None:
        """Save the fitted model in a file that is safe to open.

        The file holds parameters, fitted attributes and weights, and no code: see
        `skmoe.load_model`. It is written beside `path` first and then put in its place, so that
        `path` is the old file or the new one whatever happens. Needs the package safetensors
        (``pip install skmoe[io]``).

        Parameters
        ----------
        path : str or path-like
            Where to put it; by habit with the suffix ``.skmoe``.

        Raises
        ------
        NotFittedError
            If there is no fitted model.
        ValueError
            If a parameter is a class, function, callback, generator or estimator: a file that
            runs nothing cannot hold it, and pickle is the alternative.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> from skmoe import MoERegressor, load_model
        >>> from skmoe.datasets import make_circle_regression
        >>> X, y = make_circle_regression(200, random_state=0)
        >>> moe = MoERegressor(4, max_epochs=5, random_state=0).fit(X, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "moe.skmoe"
        ...     moe.save_model(path)
        ...     again = load_model(path)
        >>> bool((again.predict(X) == moe.predict(X)).all())
        True
        """
        check_is_fitted(self)
        model_file.write(path, _to_bytes(self))

    @classmethod
    def load_model(
        cls, path: str | os.PathLike[str], *, device: str = "auto", max_bytes: int = MAX_BYTES
    ) -> Any:
        """Load an estimator of this class from a file: see `skmoe.load_model`.

        Parameters
        ----------
        path : str or path-like
            The file, from `save_model`.
        device : str, default="auto"
            Where to predict, and the parameter `device` from then on. "auto" loads on the CPU.
        max_bytes : int, default=2**30
            Refuse larger files.

        Returns
        -------
        estimator : object
            The fitted estimator.

        Raises
        ------
        ModelFileError
            If the file is refused, also as one of another class.
        """
        return load(path, {cls.__name__: cls}, device, max_bytes)


def _to_bytes(estimator: Any) -> bytes:
    """The file of a fitted estimator, after a check that it could be loaded."""
    cls = type(estimator)
    if cls.__module__.partition(".")[0] != "skmoe":
        raise ValueError(
            f"save_model stores skmoe's own estimators. Got {cls.__name__}, a class of one's "
            "own, for which pickle is the alternative."
        )
    config, arrays = written(estimator)
    data = model_file.to_bytes(config, arrays, _versions())
    try:
        restored(model_file.from_bytes(data), {cls.__name__: cls})
    except ModelFileError as error:
        raise ValueError(f"The model cannot be stored: {error}") from error
    return data


def _versions() -> dict[str, str]:
    return {
        "skmoe": __version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__.partition("+")[0],  # the rest names a machine's make
    }


def written(estimator: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Config and arrays of a fitted estimator."""
    writer = Writer()
    names = estimator._get_param_names()
    state = {**vars(estimator)}
    parameters = {name: state.pop(name) for name in names}
    model = state.pop("_model").to_arrays()
    check_can_be_stored(state)
    stored = {
        name: _parameter(writer, name, value)
        for name, value in parameters.items()
        if name not in NOT_STORED
    }
    config = {
        "estimator": type(estimator).__name__,
        "parameters": stored,
        "fitted": {name: writer.value(value, name.strip("_")) for name, value in state.items()},
        "model": _model(writer, model),
    }
    return config, writer.arrays


def _parameter(writer: Writer, name: str, value: Any) -> Any:
    """A parameter as JSON; none that would have to be run to be read."""
    if name == "callbacks" and value:
        raise ValueError(
            f"A model file cannot hold callbacks={value!r:.200}. set_params(callbacks=None) "
            "leaves the fitted model as it is; pickle is the alternative."
        )
    try:
        return writer.value(value, name)
    except ValueError as error:
        raise ValueError(
            f"{error} set_params({name}=...) leaves the fitted model as it is."
        ) from None


def _model(writer: Writer, model: dict[str, Any]) -> dict[str, Any]:
    for name, value in model["arguments"].items():
        if callable(value):
            raise ValueError(
                f"A model file cannot hold {name}={name_of(value)}, of which the network is "
                "made. pickle is the alternative."
            )
    return write_model(model, writer)


@contextmanager
def _one_error() -> Iterator[None]:
    """Refuse with `ModelFileError` what no check foresaw."""
    try:
        yield
    except (ModelFileError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise ModelFileError(f"The file makes no sense: {error}") from error


def load(
    path: str | os.PathLike[str], classes: Mapping[str, Any], device: str, max_bytes: int
) -> Any:
    """The estimator in a file, if it is of one of these classes."""
    chosen = _auto.device(device, 0)
    contents = model_file.from_bytes(model_file.read(path, max_bytes))
    with _one_error():
        cls, parameters, fitted, model = restored(contents, classes)
    estimator = cls(**parameters, device=device)
    vars(estimator).update(fitted, _model=FittedModel.from_arrays(model, str(chosen)))
    return estimator


def restored(
    contents: Contents, classes: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What the estimator in a file is made of, all of it checked and nothing built.

    Returns
    -------
    cls : type
    parameters, fitted : dict
        Its parameters but `device` and `checkpoint`, and fitted attributes but the model.
    model : dict
        What `FittedModel.from_arrays` takes.

    Raises
    ------
    ModelFileError
        If anything is not as it would be in a fitted estimator.
    """
    config = contents.config
    check_keys("config", config, {"estimator", "parameters", "fitted", "model"})
    name = config["estimator"]
    if not isinstance(name, str) or name not in classes:
        raise ModelFileError(f"The file must hold one of {sorted(classes)}. Got {name!r:.80}.")
    cls = classes[name]
    reader = Reader(contents.arrays)
    parameters = _read_parameters(cls, config["parameters"], reader)
    fitted = read_fitted(config["fitted"], reader)
    n_features = fitted["n_features_in_"]
    if not is_count(n_features):
        raise ModelFileError(f"n_features_in_ must be an integer. Got {n_features!r:.80}.")
    model, network = read_model(config["model"], reader, cls._networks, n_features)
    reader.finish()
    check_fitted(fitted, model, network)
    return cls, parameters, fitted, model


def _read_parameters(cls: Any, stored: Any, reader: Reader) -> dict[str, Any]:
    """The parameters, checked as `fit` checks them."""
    check_keys("parameters", stored, set(cls._get_param_names()) - NOT_STORED)
    parameters = {name: reader.value(value) for name, value in stored.items()}
    check_bounded("parameters", parameters, LARGEST_PARAMETER)
    if parameters["callbacks"]:
        raise ModelFileError("A model file must not have callbacks.")
    try:
        cls(**parameters)._validate_params()
    except (ValueError, TypeError) as error:
        raise ModelFileError(f"A parameter is wrong: {error}") from error
    return parameters


def inspect(path: str | os.PathLike[str], max_bytes: int) -> ModelInfo:
    """What a file says about itself."""
    data = model_file.read(path, max_bytes)
    contents = model_file.from_bytes(data)
    with _one_error():
        return _info(contents, len(data))


def _info(contents: Contents, n_bytes: int) -> ModelInfo:
    config = contents.config
    check_keys("config", config, {"estimator", "parameters", "fitted", "model"})
    for name in ("parameters", "fitted", "model"):
        if not isinstance(config[name], dict):
            raise ModelFileError(f"{name} must be a JSON object.")
    check_names(config["fitted"])
    model, reader = config["model"], Reader(contents.arrays)
    check_keys("model", model, {"network", "arguments", "std_factor", "block_directions"})
    return ModelInfo(
        estimator=config["estimator"],
        parameters={name: reader.value(value) for name, value in config["parameters"].items()},
        network=model["network"],
        arguments=reader.value(model["arguments"]),
        n_features_in=config["fitted"]["n_features_in_"],
        arrays={
            name: (str(array.dtype), array.shape) for name, array in contents.arrays.items()
        },
        versions=contents.versions,
        format=contents.format,
        digest=contents.digest,
        n_bytes=n_bytes,
    )
