"""What "auto" means: choices that follow from the number of rows and features."""

import math
from typing import Any

import numpy as np
import torch

from skmoe._registry import Part, part
from skmoe.nn.base import Network
from skmoe.nn.experts import EXPERTS
from skmoe.nn.losses import outputs_per_target
from skmoe.nn.routers import ROUTERS, SoftmaxRouter

# Up to here one batch holds all rows: small fits are then exactly weight-equivalent.
FULL_BATCH = 512
# Below this, a tenth more rows to learn from is worth more than what they tell.
MIN_ROWS_FOR_VALIDATION = 2500
# Below this, rows that show how large the noise is are too few. Rows learned from do not.
MIN_ROWS_FOR_NOISE = 500
# Up to here all experts are asked: that learns better than asking two, and leaves hardly any
# expert idle. On few rows it costs no more time.
MAX_SOFT_EXPERTS, MAX_SOFT_EXPERTS_OF_FEW_ROWS = 16, 32
TOP_K = 2
# Weight of a loss that balances experts, where few rows ask all of them: weak enough to cost
# nothing, strong enough that hardly any expert is idle. With many rows it costs accuracy.
BALANCE = 0.03
# A closed-form fit: experts asked, so that the others would add too little to jump,
# and up to how many rows how many experts.
RIDGE_TOP_K = 8
RIDGE_EXPERTS = ((4_000, 8), (250_000, 16), (math.inf, 32))
# A mean squared error of a closed-form fit, in units of the variance, that training would
# not lower: descent stays above it even on smooth targets.
CLEAR_ERROR = 2.5e-5
# Axes that are few, so that rows are dense there; training on them: number of experts, and
# steps in units of the usual ones.
MAX_AXES = 16
EXPERTS_ON_AXES, MAX_EXPERTS_ON_AXES = 4, 32
# Experts there, which may have to oscillate: residual layers, and a start that is less smooth.
OSCILLATING = {"depth": 2, "hidden_gain": 4.0}
STEPS_ON_AXES = 3.0
# Steps of a fit of up to 256 rows, and of one of very many.
STEPS = 100
MAX_STEPS = 16_000
# Below this, brief fits do not tell which features belong together.
MIN_ROWS_FOR_BLOCKS = 2000
# Float64 costs twice the time in training; in prediction that is nothing on small data.
MAX_ROWS_TRAINED_IN_FLOAT64 = 256
MAX_ROWS_PREDICTED_IN_FLOAT64 = 1000
# From here on one large net learns more than several small ones.
MIN_ROWS_FOR_ONE_NET = 2000
# An ensemble learns in larger steps and more of them, beyond 256 rows in small batches; looks
# at the rows that its members leave out, in the course of a fit.
RATE, ENSEMBLE_RATE = 5e-3, 4e-2
SMALL_ENSEMBLE_STEPS, ENSEMBLE_STEPS = 95, 200
ENSEMBLE_FULL_BATCH = 256
ENSEMBLE_BATCH = 128
ENSEMBLE_LOOKS = 30
# Blocks, layers or members; experts in each, of several in an ensemble and of one large net.
LAYERS = 8
ENSEMBLE_EXPERTS, USUAL_EXPERTS = 4, 8
# With fewer members, what each of them leaves out would be too much.
MIN_FOLDS = 4
# Below this a GPU's start-up costs more than it saves.
MIN_ROWS_FOR_CUDA = 3_000
# Quantile bins for so many features would dwarf the rest of the network.
MAX_FEATURES_FOR_BINS = 128


def is_auto(setting: Any) -> bool:
    """Whether a parameter is left to us; it may be an array or a class, too."""
    return isinstance(setting, str) and setting == "auto"


def n_experts(estimator: Any, usual: int) -> int:
    """The number asked for; of a list of kinds, its length; else the usual one."""
    if not is_auto(estimator.n_experts):
        return estimator.n_experts
    return len(estimator.expert) if isinstance(estimator.expert, list | tuple) else usual


def n_layers(setting: int | str) -> int:
    """Eight, until factors are found."""
    return LAYERS if isinstance(setting, str) else setting


def max_soft_experts(n_rows: int) -> int:
    """Up to how many experts are all asked."""
    few = n_rows < MIN_ROWS_FOR_ONE_NET
    return MAX_SOFT_EXPERTS_OF_FEW_ROWS if few else MAX_SOFT_EXPERTS


def top_k(
    estimator: Any, n_experts: int, most: int = MAX_SOFT_EXPERTS, of_many: int = TOP_K
) -> int | None:
    """All of up to `most` experts; few of more; and what a router is made for."""
    setting = estimator.top_k
    if isinstance(setting, str):
        if not asks_some(estimator.expert):
            return None
        kind, _ = ROUTERS.resolve(estimator.router)
        if (usual := getattr(kind, "usual_top_k", None)) is not None:
            return min(usual, n_experts)
        return of_many if n_experts > most else None
    if setting is not None and setting > n_experts:
        raise ValueError(
            f"top_k must be at most n_experts. Got top_k={setting} and n_experts={n_experts}."
        )
    return setting


def auxiliary_losses(estimator: Any, n_rows: int, network: Network) -> dict[Any, float] | None:
    """What balances the experts of one layer on few rows, if all of several are asked."""
    if not is_auto(estimator.auxiliary_losses):
        return estimator.auxiliary_losses
    (layer,) = network.moe_layers()
    n_experts, router = layer.experts.n_experts, layer.router
    all_asked = n_experts > 1 and (router.top_k is None or router.top_k >= n_experts)
    few_rows = n_rows < MIN_ROWS_FOR_ONE_NET and predicts_a_value(estimator.loss)
    balanced = few_rows and all_asked and type(router) is SoftmaxRouter
    return {"switch": BALANCE} if balanced else None


def asks_some(expert: Any) -> bool:
    """Whether experts of this kind can be asked some at a time."""
    return getattr(EXPERTS.resolve(expert)[0], "asks_some", True)


def are_alike(expert: Any) -> bool:
    """Whether one expert can take the place of another, as where regions are shared out."""
    return asks_some(expert) and getattr(EXPERTS.resolve(expert)[0], "slices", True)


def sizes_without_training(estimator: Any, n_rows: int) -> dict[str, Any]:
    """Sizes for a shallow mixture that is solved for in closed form.

    There are ``16 sqrt(n)`` unknowns, up to 2,048, and ``4 sqrt(n)`` up to 4,096. Experts are
    smooth, as what is not trained cannot put its kinks in the right places, and see the
    features themselves.
    """
    usual = next(experts for most, experts in RIDGE_EXPERTS if n_rows <= most)
    some = n_experts(estimator, usual)
    width = estimator.hidden_dim
    if isinstance(width, str):
        root = math.sqrt(n_rows)
        n_unknowns = min(16 * root, max(4 * root, 2048), 4096)
        width = max(round(n_unknowns / some) - 1, 4)
    smooth = part("mlp", activation="gelu")
    embedding = estimator.embedding
    return {
        "n_experts": some,
        "top_k": top_k(estimator, some, RIDGE_TOP_K, RIDGE_TOP_K),
        "expert": smooth if estimator.expert == "mlp" else estimator.expert,
        "hidden_dim": width,
        "embedding": None if embedding == "auto" else embedding,
    }


def sizes_on_axes(estimator: Any, n_rows: int) -> dict[str, Any]:
    """Sizes and parts of a shallow mixture on a few axes that hold all there is to see.

    Rows are dense there, and what is left to learn is where functions change abruptly: that
    takes a gate and experts that are deep, and few of them.
    """
    few = n_experts(estimator, EXPERTS_ON_AXES)
    oscillating = part("mlp", activation="silu", **OSCILLATING)
    return {
        "n_experts": few,
        "top_k": top_k(estimator, few, max_soft_experts(n_rows)),
        "expert": oscillating if estimator.expert == "mlp" else estimator.expert,
        "gate": deep_gate(estimator.gate, n_rows),
    }


def may_do_without_training(estimator: Any) -> bool:
    """Whether to try the closed form first.

    Who sets epochs or callbacks, or goes on from an earlier fit, asks for training.
    """
    squared = solver("auto", estimator.loss) == "adam+ridge"
    asked = estimator.max_epochs != "auto" or estimator.callbacks or estimator.warm_start
    return estimator.solver == "auto" and squared and not asked


def solver(setting: str, loss: str | Part) -> str:
    """The closed form minimises squared errors only."""
    squared = (loss.name if isinstance(loss, Part) else loss) == "squared_error"
    if setting == "auto":
        return "adam+ridge" if squared else "adam"
    if "lbfgs" in setting and not predicts_a_value(loss):
        raise ValueError(f"solver={setting!r} needs a loss of predictions. Got loss={loss!r}.")
    if "ridge" in setting and not squared:
        raise ValueError(f"solver={setting!r} needs loss='squared_error'. Got loss={loss!r}.")
    return setting


def predicts_a_value(loss: Any) -> bool:
    """Whether a loss judges predictions, and not a distribution."""
    return outputs_per_target(loss) == 1


def possible_solver(chosen: str, setting: str, network: Network) -> str:
    """Gradient descent alone if the prediction is linear in no map of the network."""
    if setting == "auto" and network.n_members > 1:
        return "adam"  # maps of members that were stopped in time would be fitted to the end
    if "ridge" not in chosen or network.output_map() is not None:
        return chosen
    if setting == "auto":
        return "adam"
    raise ValueError(
        f"solver={setting!r} needs experts whose last step is a linear map. Use 'adam' "
        "with these experts."
    )


def init(setting: Any, solver: str) -> Any:
    """A start from the data where nothing else adapts to them."""
    if not isinstance(setting, str) or setting not in ("auto", "blocks", "regions"):
        return setting  # blocks are looked for later, by a brief fit from this start
    return "kmeans" if solver == "ridge" else "random"


def arrangement(setting: Any, n_rows: int, solver: str) -> Part:
    """An ensemble for few rows, where members that leave rows out tell when to stop."""
    if setting != "auto":
        return part(setting) if isinstance(setting, str) else setting
    few = n_rows < MIN_ROWS_FOR_ONE_NET and solver in ("auto", "adam")
    return part("ensemble" if few else "parallel")


def deep_gate(setting: Any, n_rows: int) -> Any:
    """A deep gate, unless there are too few rows for one."""
    if not is_auto(setting):
        return setting
    return "deep" if n_rows >= MIN_ROWS_FOR_BLOCKS else "linear"


def width(setting: int | str, n_rows: int, usual: int, small: int) -> int:
    """The usual width of a layer; a smaller one while all rows fit into one batch."""
    if isinstance(setting, str):
        return usual if n_rows > FULL_BATCH else small
    return setting


def pace(estimator: Any, n_rows: int, ensemble: bool, factor: float) -> dict[str, Any]:
    """Learning rate, batches and epochs of a `TrainingPlan`, of `factor` times the steps."""
    rate = estimator.learning_rate
    if rate == "auto":
        rate = ENSEMBLE_RATE if ensemble else RATE
    batch = batch_size(estimator.batch_size, n_rows, ensemble)
    return {
        "learning_rate": rate,
        "batch_size": batch,
        "max_epochs": max_epochs(estimator.max_epochs, n_rows, batch, ensemble, factor),
        "looks": ENSEMBLE_LOOKS if ensemble else None,
    }


def member_dim(setting: int | str, n_rows: int) -> int:
    """Width of a member of an ensemble: smaller while all rows are in one batch."""
    if isinstance(setting, str):
        return 32 if n_rows > ENSEMBLE_FULL_BATCH else 16
    return setting


def batch_size(setting: int | str, n_rows: int, ensemble: bool = False) -> int:
    """All rows up to 512; beyond, a power of two that grows like the square root of n."""
    if not isinstance(setting, str):
        return setting
    if ensemble:
        return ENSEMBLE_FULL_BATCH if n_rows <= ENSEMBLE_FULL_BATCH else ENSEMBLE_BATCH
    if n_rows <= FULL_BATCH:
        return FULL_BATCH
    return int(2 ** np.clip(round(math.log2(2 * math.sqrt(n_rows))), 6, 11))


def max_epochs(
    setting: int | str, n_rows: int, batch: int, ensemble: bool = False, factor: float = 1.0
) -> int:
    """Enough epochs for a number of steps that grows like ``n^1.1``, up to 16,000.

    `factor` multiplies their number, but not the most there may be.
    """
    if not isinstance(setting, str):
        return setting
    growth = max(n_rows / 256, 1.0)
    first = STEPS
    if ensemble:
        small = n_rows <= ENSEMBLE_FULL_BATCH
        first = SMALL_ENSEMBLE_STEPS if small else ENSEMBLE_STEPS
    steps = min(factor * first * growth**1.1, MAX_STEPS)
    return max(10, round(steps / math.ceil(n_rows / batch)))


def early_stopping(estimator: Any, n_rows: int, ensemble: bool) -> bool:
    """Hold out validation rows from 2,500 rows on; for a distribution from 500 rows on.

    Members of an ensemble leave out rows of their own.
    """
    if not isinstance(estimator.early_stopping, str):
        return estimator.early_stopping
    tells_noise = not predicts_a_value(estimator.loss) and not ensemble
    return n_rows >= (MIN_ROWS_FOR_NOISE if tells_noise else MIN_ROWS_FOR_VALIDATION)


def leaves_out(early_stopping: bool | str, network: Network) -> bool:
    """Whether each member leaves some rows out, if there are enough members."""
    return early_stopping == "auto" and network.n_members >= MIN_FOLDS


def chooses_epochs(estimator: Any) -> bool:
    """Whether rows left out may tell the number of epochs, if no others do."""
    return is_auto(estimator.max_epochs) and is_auto(estimator.early_stopping)


def embedding(setting: str | Part | None, n_features: int) -> str | Part | None:
    """Quantile bins unless there are very many features."""
    if setting != "auto":
        return setting
    return part("piecewise_linear") if n_features <= MAX_FEATURES_FOR_BINS else None


def device(setting: str, n_rows: int) -> torch.device:
    """A CUDA GPU if there is one and enough to do; else the CPU."""
    if setting == "auto":
        use_cuda = torch.cuda.is_available() and n_rows >= MIN_ROWS_FOR_CUDA
        return torch.device("cuda" if use_cuda else "cpu")
    known = setting.partition(":")[0] in ("cpu", "cuda", "mps")
    try:
        chosen = torch.device(setting if known else "")
    except RuntimeError:
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:<i>' or 'mps'. Got {setting!r}."
        ) from None
    _check_available(chosen, setting)
    return chosen


def _check_available(chosen: torch.device, setting: str) -> None:
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            built = "" if torch.version.cuda else ", which is built without CUDA"
            raise ValueError(
                f"device={setting!r} was asked for, but {count} CUDA devices were found by "
                f"torch {torch.__version__}{built}. device='auto' takes a GPU if there is one."
            )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={setting!r} was asked for, but no such device was found.")


def trained_dtype(setting: str, n_rows: int, chosen_device: torch.device) -> torch.dtype:
    """To train in: float64 for few rows on the CPU, where rounding would be all that tells a
    row of weight two from two rows; else float32, unless float64 was asked for."""
    few = n_rows <= MAX_ROWS_TRAINED_IN_FLOAT64 and chosen_device.type == "cpu"
    return torch.float64 if few or setting == "float64" else torch.float32


def predicted_dtype(
    setting: str, X: np.ndarray, chosen_device: torch.device, is_trained: bool = True
) -> torch.dtype:
    """To predict in: float64 for float64 data on the CPU where there are few rows, or nothing
    was trained, as maps of a closed form may be so large that float32 tells a row's prediction
    from that among others by a thousandth; else float32, unless float64 was asked for."""
    may_be = chosen_device.type == "cpu" and X.dtype == np.float64
    few = len(X) <= MAX_ROWS_PREDICTED_IN_FLOAT64
    solved = setting == "auto" and not is_trained
    precise = setting == "float64" or (may_be and (few or solved))
    return torch.float64 if precise else torch.float32
