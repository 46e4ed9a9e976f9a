"""`export_onnx`: the prediction for programs that know neither Python nor torch."""

import os

from skmoe import model_file
from skmoe._validation import check_is_fitted
from skmoe.model import FittedModel
from skmoe.onnx_export import onnx_bytes


class Exporting:
    """`export_onnx`, of an estimator with a fitted model."""

    _model: FittedModel

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the prediction as an ONNX graph, for ONNX Runtime and others.

        The graph holds all of `predict`, scaling included. Its input ``X`` is float64 of shape
        (n_samples, n_features), its output ``y`` float64 of shape (n_samples, n_outputs), also
        for one output; with ``loss="gaussian_nll"`` it is the mean. Like `save_model`, it
        replaces a file all at once. Needs the extra ``onnx``
        (``pip install skmoe[onnx]``).

        Parameters
        ----------
        path : str or path-like
            Where to put it; by habit with the suffix ``.onnx``.

        Raises
        ------
        NotFittedError
            If there is no fitted model.
        ValueError
            If a part cannot be told in ONNX, as ``gate="hash"``.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from skmoe import MoERegressor
        >>> from skmoe.datasets import make_circle_regression
        >>> X, y = make_circle_regression(200, random_state=0)
        >>> moe = MoERegressor(4, max_epochs=5, random_state=0).fit(X, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "moe.onnx"
        ...     moe.export_onnx(path)
        ...     path.stat().st_size > 1000
        True
        """
        check_is_fitted(self)
        model_file.write(path, onnx_bytes(self._model))
