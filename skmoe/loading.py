"""`load_model` and `inspect_model`: estimators from files, without running anything in them."""

import os
from typing import Any

from skmoe.estimators import DeepMoERegressor, MoERegressor
from skmoe.estimators._saving import ModelInfo, inspect, load
from skmoe.model_file import MAX_BYTES

__all__ = ["ModelInfo", "inspect_model", "load_model"]

# All that a file can become.
CLASSES = {"MoERegressor": MoERegressor, "DeepMoERegressor": DeepMoERegressor}


def load_model(
    path: str | os.PathLike[str], *, device: str = "auto", max_bytes: int = MAX_BYTES
) -> Any:
    """Load a fitted estimator from a file that `save_model` wrote.

    Nothing in the file is run, imported or looked up beyond the names of skmoe's own parts.
    All is checked before it is used, and before memory is taken for it: the digest at the end,
    the format, every parameter as in `fit`, name, type and shape of every weight. A file that
    is damaged, hostile or of something else is refused with `skmoe.ModelFileError`; there is no
    other format that would be tried.

    Parameters
    ----------
    path : str or path-like
        The file.
    device : str, default="auto"
        Where to predict, and the parameter `device` from then on. "auto" loads on the CPU,
        wherever the model was fitted; "cuda" and "cuda:1" load on a GPU.
    max_bytes : int, default=2**30
        Refuse larger files, before anything of them is read.

    Returns
    -------
    estimator : MoERegressor or DeepMoERegressor
        With the parameters and fitted attributes of the one that was saved, and its predictions
        to the bit.

    Raises
    ------
    ModelFileError
        If the file is refused; a kind of ValueError.
    OSError
        If it cannot be read.
    ImportError
        If safetensors is missing, or a package that a part of the model needs.

    See Also
    --------
    inspect_model : What a file says about itself.
    MoERegressor.save_model : Write such a file.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skmoe import MoERegressor, inspect_model, load_model
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, max_epochs=5, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "moe.skmoe"
    ...     moe.save_model(path)
    ...     load_model(path), inspect_model(path).network
    (MoERegressor(max_epochs=5, n_experts=4, random_state=0), 'shallow')
    """
    return load(path, CLASSES, device, max_bytes)


def inspect_model(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> ModelInfo:
    """What a model file says about itself; no estimator is built.

    Parameters
    ----------
    path : str or path-like
        The file.
    max_bytes : int, default=2**30
        Refuse larger files, before anything of them is read.

    Returns
    -------
    info : `skmoe.ModelInfo`
        Class and parameters, network, arrays, versions, format, digest and size. A model that
        `load_model` would refuse may still be told about.

    Raises
    ------
    ModelFileError
        If the file is damaged, of a newer format or no model file.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skmoe import MoERegressor, inspect_model
    >>> from skmoe.datasets import make_circle_regression
    >>> X, y = make_circle_regression(200, random_state=0)
    >>> moe = MoERegressor(4, max_epochs=5, embedding=None, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "moe.skmoe"
    ...     moe.save_model(path)
    ...     info = inspect_model(path)
    >>> info.estimator, info.n_features_in, info.arrays["weights.layer.gate.linear.bias"]
    ('MoERegressor', 16, ('float64', (1, 1, 4)))
    """
    return inspect(path, max_bytes)
