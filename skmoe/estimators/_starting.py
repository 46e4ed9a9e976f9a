"""What a fit starts from: scaled rows, and a network of the right sizes or of the last fit."""

import copy
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skmoe._registry import own_copy
from skmoe.batches import Rows
from skmoe.estimators import _auto
from skmoe.estimators._parameters import check_is_distribution
from skmoe.initialization import INITS, with_bins
from skmoe.model import Architecture, FittedModel
from skmoe.nn.losses import outputs_per_target
from skmoe.scaling import Scaling
from skmoe.shared_work import once
from skmoe.upcycling import dense_net_of, upcycle


class Starting(ABC):
    """`_start`, of an estimator that says which network it has."""

    n_shared_experts: int
    gate: Any
    router: Any
    expert: Any
    hidden_dim: Any
    embedding: Any
    loss: Any
    init: Any
    device: str
    dtype: str
    _model: FittedModel
    _hidden_dims: dict[str, int]  # what hidden_dim="auto" means

    def _start(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        random: np.random.RandomState,
        solver: str,
        keep: bool,
    ) -> tuple[FittedModel, Rows]:
        """An untrained model, or a copy of the fitted one to go on from; and scaled rows."""
        seed = int(random.randint(2**31 - 1))
        device = _auto.device(self.device, len(X))
        dtype = _auto.trained_dtype(self.dtype, len(X), device)
        if keep and hasattr(self, "_model"):
            net = copy.deepcopy(self._model.net).to(device, dtype)
            model = replace(self._model, net=net)
            return model, model.rows(X, y, weight)
        x_scaling = self._feature_scaling(X, weight)
        name, arguments = self._network(len(X))
        scaled = once(Scaling.apply_softly, x_scaling, X)
        axes = self._axes(scaled, y, weight)
        arguments |= self._shared_arguments(scaled, weight, y.shape[1], solver, axes)
        dense = dense_net_of(self.init) if isinstance(self.init, BaseEstimator) else None
        if dense is not None:
            arguments |= dense.arguments()
        own = {key: own_copy(value) for key, value in arguments.items()}
        architecture = Architecture(name, own)
        net = architecture.build(torch.Generator().manual_seed(seed)).to(device, dtype)
        if axes is not None:
            net.set_axes(*map(torch.as_tensor, axes))
        y_scaling = once(Scaling.of_targets, y, weight)
        model = FittedModel(architecture, net, x_scaling, y_scaling)
        if model.is_distribution:
            check_is_distribution(net)
        rows = model.rows_of(scaled, y, weight)
        if dense is not None:
            upcycle(model, dense)
            return model, rows
        start, settings = INITS.resolve(_auto.init(self.init, solver))
        start(net, rows, seed, **settings)
        return model, rows

    @abstractmethod
    def _network(self, n_rows: int) -> tuple[str, dict[str, Any]]:
        """Name of the network and the arguments that are its own."""

    def _is_ensemble(self, n_rows: int) -> bool:
        """Whether there are several nets, to be averaged."""
        return False

    def _feature_scaling(self, X: np.ndarray, weight: np.ndarray) -> Scaling:
        """Of each feature by itself."""
        return once(Scaling.of_features, X, weight)

    def _axes(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Any:
        """Coordinates of the scaled features that the network is to see in their place."""
        return None

    def _shared_arguments(
        self, X: np.ndarray, weight: np.ndarray, n_outputs: int, solver: str, axes: Any
    ) -> dict[str, Any]:
        """Arguments that all networks take."""
        n_seen = X.shape[1] if axes is None else axes[0].shape[1]
        arguments = {
            "n_inputs": X.shape[1],
            "n_outputs": n_outputs * outputs_per_target(self.loss),
            "n_shared_experts": self.n_shared_experts,
            "gate": self.gate,
            "router": self.router,
            **self._sizes(len(X), n_seen, solver),
        }
        if axes is not None:
            return arguments | {"n_axes": n_seen, "embedding": None}
        return arguments | {"embedding": with_bins(arguments["embedding"], X, weight)}

    def _sizes(self, n_rows: int, n_features: int, solver: str) -> dict[str, Any]:
        """What depends on the number of rows and features, and on the solver."""
        usual = _auto.ENSEMBLE_EXPERTS if self._is_ensemble(n_rows) else _auto.USUAL_EXPERTS
        n_experts = _auto.n_experts(self, usual)
        return {
            "n_experts": n_experts,
            "top_k": _auto.top_k(self, n_experts, _auto.max_soft_experts(n_rows)),
            "expert": self.expert,
            "hidden_dim": _auto.width(self.hidden_dim, n_rows, **self._hidden_dims),
            "embedding": _auto.embedding(self.embedding, n_features),
        }
