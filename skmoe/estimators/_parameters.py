"""The parameters that both estimators share: what is allowed, and what they mean.

Documented once, here; `documented` puts the text into an estimator's docstring.
"""

import os
import textwrap
from typing import Any

import numpy as np

from skmoe._registry import Part, Registry, name_of
from skmoe._settings import check_number
from skmoe._validation import (
    PartOf,
    PartsOf,
    at_least,
    check_outputs,
    fraction,
    not_negative,
    one_of,
    positive,
)
from skmoe.initialization import INITS
from skmoe.model import FittedModel
from skmoe.nn.base import Network
from skmoe.nn.embeddings import EMBEDDINGS
from skmoe.nn.experts import EXPERTS
from skmoe.nn.gates import GATES
from skmoe.nn.losses import LOSSES, build_auxiliary, outputs_per_target
from skmoe.nn.networks import MoENetwork
from skmoe.nn.routers import ROUTERS
from skmoe.objective import AuxiliaryLoss

PARTS = {
    "gate": GATES,
    "router": ROUTERS,
    "expert": EXPERTS,
    "embedding": EMBEDDINGS,
    "loss": LOSSES,
    "init": INITS,
}

CONSTRAINTS: dict[str, list[Any]] = {
    "n_experts": [at_least(1), one_of("auto")],
    "top_k": [at_least(1), one_of("auto"), None],
    "n_shared_experts": [at_least(0)],
    "gate": [PartOf(GATES)],
    "router": [PartOf(ROUTERS)],
    "expert": [PartsOf(EXPERTS)],
    "hidden_dim": [at_least(1), one_of("auto")],
    "embedding": [one_of("auto"), PartOf(EMBEDDINGS), None],
    "loss": [PartOf(LOSSES)],
    "auxiliary_losses": [dict, None],
    "init": [one_of("auto"), PartOf(INITS)],
    "solver": [one_of("auto", "adam", "ridge", "adam+ridge", "adam+lbfgs")],
    "learning_rate": [positive()],
    "weight_decay": [not_negative()],
    "batch_size": [at_least(1), one_of("auto")],
    "max_epochs": [at_least(1), one_of("auto")],
    "early_stopping": ["boolean", one_of("auto")],
    "validation_fraction": [fraction()],
    "n_iter_no_change": [at_least(1), None],
    "warm_start": ["boolean"],
    "callbacks": [list, tuple, None],
    "checkpoint": [str, os.PathLike, None],
    "device": [str],
    "dtype": [one_of("auto", "float32", "float64", "tf32")],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def auxiliary_losses(given: dict[Any, float] | str | None) -> list[AuxiliaryLoss]:
    """The losses that the user named; unknown ones and weights below 0 are refused."""
    losses = []
    named = given if isinstance(given, dict) else {}  # None and "auto" name none
    for spec, weight in named.items():
        name, loss = name_of(spec), build_auxiliary(spec)
        weight = check_number(f"the weight of the auxiliary loss {name!r}", weight)
        if weight > 0:  # else not even the order of additions changes
            losses.append(AuxiliaryLoss(name, weight, loss))
    return losses


def check_gate_and_router(gate: Any, router: Any) -> None:
    """Refuse a gate that the router would not ask."""
    own = getattr(ROUTERS.resolve(router)[0], "own_gate", None)
    name = gate.name if isinstance(gate, Part) else gate
    if own is not None and name not in ("auto", own):
        raise ValueError(
            f"router={router!r} asks no other gate than its own. Leave gate='auto' or set "
            f"gate={own!r}. Got gate={gate!r}."
        )


def check_gates_can_learn(network: Network) -> None:
    """Refuse routers that give their gates no gradient."""
    if not all(layer.router.gate_can_learn for layer in network.moe_layers()):
        raise ValueError(
            "top_k=1 with renormalised weights gives the gate no gradient. Use top_k=2 "
            "or more, or a router with renormalize=None."
        )


def check_is_distribution(network: Network) -> None:
    """Refuse a mixture of distributions with weights or parts that are none."""
    if not isinstance(network, MoENetwork):
        return
    if not network.layer.router.weights_sum_to_one:
        raise ValueError(
            "loss='gaussian_nll' needs weights that sum to one. Use top_k=None, or top_k=2 or "
            "more, with a router whose weights do."
        )
    if not network.layer.experts.sums:
        raise ValueError(
            "loss='gaussian_nll' needs a distribution from each expert, and expert='merged' "
            "makes one net of them. Use another kind of expert."
        )


def check_goes_on(loss: Any, model: FittedModel, y: np.ndarray) -> None:
    """Refuse to go on from a model of other outputs, or of another kind than the loss."""
    check_outputs(y, len(model.y_scaling.center))
    if (outputs_per_target(loss) > 1) != model.is_distribution:
        told = "distributions" if model.is_distribution else "values"
        raise ValueError(
            f"loss must be of the kind that the model was fitted with, which predicts {told}. "
            f"Got loss={loss!r}: fit anew, with warm_start=False."
        )


ROUTING = """
top_k : int, None or "auto", default="auto"
    Experts asked for each sample. None asks all (a soft mixture), "auto" all of up to
    16, or 32 below 2,000 rows, and of more two; with one layer and ``solver="ridge"`` all of
    up to eight, and eight of more; two where gates start at regions (see `init`), or where
    the router is "noisy_top_k" or "expert_choice"; one for "hash"; all of "cp",
    "tensor_ring" and "merged" experts, which cannot be asked one by one. Where few of many
    are asked, most may end up without rows, of which a warning tells. The weights of the
    chosen are renormalised for `top_k` of 2 and more; for 1 the weight is the chosen expert's
    share among all, so that the gate learns.
n_shared_experts : int, default=0
    Experts that answer for every sample, with weight 1, beside the routed ones.
gate : {gates}, part(...) or class, default={gate}
    What scores the experts. Settings of all gates: `temperature` (a number, a pair to
    anneal between, or "learn") and `noise`. "auto" is "deep" from 2,000 rows on, of a
    shallow mixture only on few axes (see `embedding`), else "linear".
router : {routers}, part(...) or class, default="softmax"
    What turns scores into weights. "normalized_sigmoid" learns experts at better rates, and
    may balance them by a bias of the choice (`balance_rate`). "sigmoid" weighs each expert for
    itself, so that weights have no sum, and may ask only those above a `threshold`, fixed or
    "learn". "entmax" gives unlikely experts weights of exactly zero, and needs the package
    entmax (``pip install skmoe[parts]``). "hierarchical" chooses among `n_groups` groups, then
    within them. "noisy_top_k" adds `noise` to scores in training. With "expert_choice", experts
    choose rows. "hash" learns nothing about choosing: a yardstick. See `skmoe.nn.routers`.
""".strip()

TRAINING = """
embedding : {embeddings}, part(...), None or "auto", default="auto"
    Numeric embedding of the features. "auto" takes quantile bins, ``piecewise_linear``,
    for up to 128 features, and none for one layer with ``solver="ridge"``. One layer with
    "auto" looks at principal axes in place of features if at most 16, and half as many as
    there are features, hold all the variance, as on a manifold in a small subspace: it
    then does not matter how many features there are. If each feature has a noise of its own
    besides, that tells nothing of y, it looks at the common factors of factor analysis, if
    there are a quarter as many as features, from 1,000 rows on, and ten for each feature
    (`skmoe.common_factors`).
loss : {losses} or part(...), default="squared_error"
    What is minimised, on standardised targets. With "gaussian_nll" the target has a
    distribution, told by ``predict(X, return_std=True)`` and `sample`: of one layer a mixture
    of normal ones, one for each expert; of a deep mixture a normal one for each member.
    Blocks and regions are not looked for then (see `init`).
auxiliary_losses : dict of str, part(...) or function to float, None or "auto", \
default={auxiliary_losses}
    Weights of losses on the routing, e.g. ``{{"switch": 0.01}}``: "switch" and "importance"
    balance the experts' load, "z" keeps logits small, "mutual_information" asks for balance
    and for decisions, "group_sparsity" for experts that are asked with their neighbours on a
    map, ``{{part("group_sparsity", shape=(4, 8)): 0.01}}``. "auto", for one layer only, is
    ``{{"switch": 0.03}}`` in a `fit` to fewer than 2,000 rows that ask all experts, with the
    softmax router and a loss of predictions: without it, hardly any row would ask some of them.
init : {inits} or "auto", part(...) or function, default="auto"
    Where weights start. "kmeans" puts gates of the kinds "linear" and "prototype" at centres
    of the data and experts' hidden units into the regions around them; "random" looks at no
    data. "auto" is "kmeans" for ``solver="ridge"``, else "random". For a deep mixture of
    parallel latent blocks there are "blocks" and "regions" too, and "auto" is "blocks" from
    2,000 rows on, and "regions" if there are validation rows besides. "blocks": a brief fit
    shows whether the function is made of factors with features, or linear maps of them, of
    their own (`skmoe.structure`), whatever noise of their own features have besides; if so, and
    if it makes another brief fit better, each block starts at one of them and a small net
    without a view of the features combines the blocks.
    "regions": that fit shows besides where the factors jump (`skmoe.regions`); "region" gates
    then start at these borders, soft at first and sharper with each step, and experts that
    hardly any row asks get half of the rows of the busiest one a few times. First a sum or a
    product combines the factors, which holds for combinations that were not seen, for eight
    tenths of the epochs, then a net, for as many; the first is kept whose loss is below 0.8
    times that of the brief fit, and without any all is as for "blocks", for half of the epochs.
    Only ``gate="auto"`` with the softmax router is replaced. One layer on few axes (see
    `embedding`) with "auto" looks for jumps in y itself (`skmoe.pieces`); if noise hides them,
    for regions of a brief fit, three times, each time in one from those found before. With
    fewer experts than pieces, a "patch" gate gives pieces that touch to different ones. From
    there it trains for four tenths of the epochs, with borders placed by logistic regression
    amid training; if then less than half as much would be on the wrong side of curved ones, it
    trains once more with these, polynomials of the second or third degree
    (`skmoe.region_borders`); and also without regions; validation rows choose. A deep mixture
    without factors does the same if features lie on up to 8 axes and y jumps there, with one
    block; and without, unless its loss is below a tenth of the brief fit's. Of one layer, it
    may be a fitted dense net as well, an `MLPRegressor` with one hidden layer or a
    `MoERegressor` with one expert and no embedding: all experts start as copies of it, in its
    width and kind, without an embedding. Wrap it in scikit-learn's `FrozenEstimator` where the
    mixture is cloned, as in a search.
solver : {{"auto", "adam", "ridge", "adam+ridge", "adam+lbfgs"}}, default="auto"
    "auto" is "adam+ridge" where that is possible, else "adam"; and "adam" for an ensemble.
    With one layer, it tries "ridge" first and stays with it if that leaves hardly any error
    (mean squared error below 2.5e-5 of the variance) or, on few axes, nothing but noise; if
    there are validation rows, it takes the better of both after training. `max_epochs`,
    `callbacks` and `warm_start` ask for training.
    "adam" trains all weights by gradient descent. "ridge" trains none: given the start, the
    last maps of all experts, or of a deep mixture, are solved for as one ridge regression,
    in seconds. "adam+ridge" solves for them after training and keeps the better ones. Both
    choose their penalty by the validation rows, without them by generalised
    cross-validation, and need squared errors and experts that end in a linear map.
    "adam+lbfgs" goes on with up to 300 iterations of L-BFGS on all weights, on up to 16,384
    rows: for targets with little noise, and small tables. On thousands of rows it takes several
    times as long, on hundreds some ten times.
learning_rate : float, default={learning_rate}
    Largest step of AdamW. It rises over the first 5 % of the steps, then falls to zero along
    half a cosine. "auto", for deep mixtures only, is 5e-3, and 4e-2 for an ensemble.
weight_decay : float, default={weight_decay}
    Decoupled weight decay of maps; biases are not decayed.
batch_size : int or "auto", default="auto"
    Rows per step. "auto" takes all of up to 512 rows, beyond that about ``2 sqrt(n)``, at
    most 2,048; for an ensemble all of up to 256 rows, else 128.
max_epochs : int or "auto", default="auto"
    Passes over the data. "auto" sets a number of steps that grows from 100
    like ``n^1.1``, up to 16,000; for an ensemble from 95, and beyond 256 rows from 200; of
    one layer on few axes, three times as many. With few rows (see `early_stopping`) it is the
    best number up to there.
early_stopping : bool or "auto", default="auto"
    Whether rows are held out to choose the best epoch by. "auto" does so from 2,500 rows on,
    one net with "gaussian_nll" from 500, where they show besides how large the noise is. With
    fewer, all rows are learned from: of an ensemble of four or more, each member leaves some
    rows out, and the best epoch is that with the smallest error of members on rows that they
    have not seen; another net is first trained without one fifth of the rows, and without
    another, and then with all of them for as many epochs as were best for those left out,
    unless `max_epochs` is given. Not used if `fit` is given validation rows.
validation_fraction : float, default=0.1
    Share of the rows to hold out.
n_iter_no_change : int or None, default=None
    Stop after so many epochs without a better validation loss. None runs all epochs, and
    still keeps the weights of the best one.
warm_start : bool, default=False
    Whether `fit` goes on from the last fit: same scaling, weights and optimiser state, and the
    sizes and parts of that network, whatever `n_experts` and others say by now.
callbacks : list of skorch callbacks, default=None
    Called by the training loop, of each start in turn where several are tried (see `init`).
    Those that score (use `set_callbacks`) or save (use `checkpoint`) are refused.
    scikit-learn's own callbacks, which are experimental, are set by `set_callbacks`: a fit is a
    task, each start that is trained a task in it, and each epoch one in that.
checkpoint : str, path or None, default=None
    A file to which `fit` writes how far it has come, every second or more seldom (it takes
    at most a fiftieth of the time), at the end of an epoch. After a crash, the same call with
    the same data and parameters goes on from there and ends with the same bits, on the same
    machine with as many threads. A file of another fit is refused; a damaged one gives way to
    the one before, ``<file>.before``, with a warning. Given a folder that exists, each fit has
    a file of its own in it, named after its data and parameters: after a crash a search takes
    up where it was. A fit that is done is taken from its file as it is, also without a fixed
    `random_state`: remove the file to learn anew. Files hold numbers and names only, so that
    reading one runs no code; `verbose` may change between runs; callbacks are told of the
    epochs that are run only, and of their memory only that of skorch's `EarlyStopping` is
    kept. `partial_fit` and `fine_tune` write none.
device : str, default="auto"
    Where to train and predict, as torch names it. "auto" takes a CUDA GPU if there is one
    and at least 3,000 rows to learn from.
dtype : {{"auto", "float32", "float64", "tf32"}}, default="auto"
    Precision of training and prediction. "auto" takes float32. "tf32" is float32 whose matrix
    products are in TF32 while a fit runs on a CUDA GPU: numbers keep 10 of 23 binary places,
    and large products take a fraction of the time. On the CPU, at most 256 rows
    are learned in float64 whatever it is, so that a weight of 2 is a row twice to 1e-7; and
    after at most 1,000 rows of float64, or with "auto" after a closed form without training,
    predictions are computed in float64.
random_state : int, RandomState instance or None, default=None
    Seed of initial weights, validation split, batches and noise. torch's and numpy's global
    generators are neither used nor moved.
verbose : int, default=0
    1 prints a line for each epoch. 2 shows a bar of epochs, with losses, dead experts and the
    seconds that are left; it needs the package rich (``pip install skmoe[progress]``).
""".strip()

ATTRIBUTES = """
net_ : torch.nn.Module
    The trained network, on scaled data, in evaluation mode.
n_samples_fit_ : int
    Number of rows learned from, without those held out.
n_iter_ : int
    Number of epochs run.
history_ : list of dict
    One entry per epoch: `train_loss`, `valid_loss` (with validation rows, or of rows that
    members left out, about 30 times in the course of a fit and repeated in between), one
    `<name>_loss` for each auxiliary loss, `usage` and `gate_entropy` (1 is a uniform choice)
    for each layer, both from one batch in eight, `dead_experts` (how many got less than
    ``1 / (10 n_experts)``), `learning_rate`, `train_seconds`, `valid_seconds`. Losses are on
    standardised targets.
    After a closed-form solve, the last one has `ridge_alpha`, `ridge_score_before`,
    `ridge_score` (mean squared error on validation rows, or of generalised
    cross-validation), `ridge_residual` of the equations and `ridge_seconds`; after L-BFGS
    `lbfgs_iterations`, `lbfgs_loss_before`, `lbfgs_loss` and `lbfgs_seconds`; of a chunk of
    `partial_fit` `rate_share`, its share of the learning rate.
best_loss_ : float
    Smallest validation loss, or training loss without validation rows.
n_features_in_ : int
    Number of features seen in `fit`.
feature_names_in_ : ndarray of shape (n_features,)
    Their names, if X was a data frame with string column names.
""".strip()


def documented(**defaults: Any) -> Any:
    """Fill the shared texts into a class's docstring; `defaults` are values to quote."""
    names = {
        "gates": GATES,
        "routers": ROUTERS,
        "embeddings": EMBEDDINGS,
        "losses": LOSSES,
        "experts": EXPERTS,
        "inits": INITS,
    }
    listed = {kind: _listed(registry) for kind, registry in names.items()}
    texts = {"routing": ROUTING, "training": TRAINING, "attributes": ATTRIBUTES}
    filled = {
        key: textwrap.indent(text.format(**listed, **defaults), "    ").strip()
        for key, text in texts.items()
    }

    def fill(cls: type) -> type:
        cls.__doc__ = str(cls.__doc__).format(**filled, **listed)
        return cls

    return fill


def _listed(registry: Registry) -> str:
    return "{" + ", ".join(f'"{name}"' for name in registry) + "}"
