"""Those who look on while a network is trained: a line or a bar for epochs, and tasks.

They are skorch callbacks, called after all others, and change nothing but, if they ask for
it, the end of training, and the weights that it leaves.
"""

import dis
import math
from collections.abc import Callable, Sequence
from typing import Any

import skorch.callbacks as given
from skorch.callbacks import Callback, EarlyStopping

from skmoe._optional import import_optional


class EpochLine(Callback):
    """One line for each epoch."""

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        epoch, last = net.history[-1], net.max_epochs
        valid = f"  valid {epoch['valid_loss']:.5g}" if "valid_loss" in epoch else ""
        print(
            f"epoch {epoch['epoch']:>{len(str(last))}}/{last}  train {epoch['train_loss']:.5g}"
            f"{valid}{_dead(epoch)}  {epoch['train_seconds']:.2f} s"
        )


class EpochBar(Callback):
    """A bar of epochs: losses, dead experts, and the seconds that are left."""

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        progress = import_optional("rich.progress", "verbose=2 needs rich", "progress")
        # Kept on this object only while it runs; a bar holds a thread and a terminal.
        self.bar_ = progress.Progress(
            progress.TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[told]}"),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
        )
        self.task_ = self.bar_.add_task("", total=net.max_epochs, told="")
        self.bar_.start()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        epoch = net.history[-1]
        valid = f"  valid {epoch['valid_loss']:.3g}" if "valid_loss" in epoch else ""
        told = f"train {epoch['train_loss']:.3g}{valid}{_dead(epoch)}"
        self.bar_.update(self.task_, completed=epoch["epoch"], told=told)

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.bar_.stop()
        del self.bar_, self.task_


class EpochTasks(Callback):
    """Tells scikit-learn's callbacks of a training run: a task, and one in it for each epoch.

    Parameters
    ----------
    root : sklearn.callback.CallbackContext
        Of the fit.
    begin, end : callable
        Called with the context of each task; `end` may return that training is to stop.
    """

    def __init__(
        self, root: Any, begin: Callable[[Any], None], end: Callable[[Any], bool]
    ) -> None:
        self.root = root
        self.begin = begin
        self.end = end

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.run_ = self.root.subcontext("train", max_subtasks=net.max_epochs)
        self.begin(self.run_)

    def on_epoch_begin(
        self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any
    ) -> None:
        self.epoch_ = self.run_.subcontext("epoch")
        self.begin(self.epoch_)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        if self.end(self.epoch_):
            raise KeyboardInterrupt  # as skorch's own callbacks stop a fit

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.end(self.run_)


class BestEpoch(EarlyStopping):
    """Ends a fit with the weights of the best epoch: skorch's, but for how these are copied.

    A deep copy of them takes as long as some steps of a small net. Patience is in epochs, also
    where validation rows are looked at in some of them only. No epoch before `first` stays
    the best one: then errors are heavy-tailed, and a small loss is one of few rows by chance.
    """

    best_epoch_: int

    def __init__(self, first: int = 0, **settings: Any):
        super().__init__(**settings)
        self.first = first

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        last = net.history[-1]
        if not net.is_measured(last):
            return
        epoch, score = last["epoch"], last[self.monitor]
        outdated = self.best_epoch_ < self.first <= epoch and math.isfinite(score)
        if outdated or self._is_score_improved(score):
            self.misses_, self.best_epoch_ = 0, epoch
            self.dynamic_threshold_ = self._calc_new_threshold(score)
            state = net.module_.state_dict()
            self.best_model_weights_ = {name: value.clone() for name, value in state.items()}
            return
        self.misses_ = epoch - self.best_epoch_
        if self.misses_ >= self.patience:
            raise KeyboardInterrupt


# Those of skorch that need rows, or the history of each batch, which training does not give.
CURES = {
    (given.EpochScoring, given.BatchScoring): "for scores use "
    "set_callbacks(sklearn.callback.ScoringMonitor()), or give fit X_val and y_val for losses",
    (given.Checkpoint, given.TrainEndCheckpoint, given.LoadInitState): "use checkpoint= of the "
    "estimator to go on after a crash, or save_model",
}


def check_callbacks(callbacks: Sequence[Any] | None) -> None:
    """Refuse what training cannot call, alone or as (name, callback)."""
    for one in callbacks or ():
        callback = one[-1] if isinstance(one, tuple) and one else one
        if not hasattr(callback, "on_train_begin"):
            raise ValueError(f"callbacks must be callbacks of skorch. Got {one!r:.80}.")
        for kinds, cure in CURES.items():
            if isinstance(callback, kinds):
                raise ValueError(
                    f"callbacks must not score or save. Got {type(callback).__name__}: {cure}."
                )


def monitors(verbose: int) -> list[Callback]:
    """What `verbose` asks for."""
    if not verbose:
        return []
    return [EpochBar() if verbose > 1 else EpochLine()]


def _dead(epoch: dict[str, Any]) -> str:
    return f"  dead {epoch['dead_experts']}" if epoch.get("dead_experts") else ""


def overrides(callback: Callback, method: str) -> bool:
    """Whether a callback does anything at this moment."""
    return getattr(type(callback), method) is not getattr(Callback, method)


def raised_by_callback(error: BaseException, callbacks: Sequence[Callback]) -> bool:
    """Whether a callback's own `on_epoch_end` raised, and not a signal inside of it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code = traceback.tb_frame.f_code
    # A signal comes between instructions, at any of them but a `raise`.
    raises = dis.opname[code.co_code[traceback.tb_lasti]] == "RAISE_VARARGS"
    own = {
        vars(kind)["on_epoch_end"].__code__
        for callback in callbacks
        for kind in type(callback).__mro__
        if "on_epoch_end" in vars(kind)
    }
    return raises and code in own
