"""Fits that run side by side, so that their networks can be trained as one program.

A fit is more than training: it looks at the data, starts, tries, finishes. Rather than write
all of that for many estimators at once, each fit runs in a thread of its own, one of them at a
time, until it wants a network trained. There it waits until all have come so far; then their
networks are trained together (`side_by_side`), and each goes on. Who runs when does not depend
on time, so the results do not either.
"""

import contextvars
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from joblib.parallel import ParallelBackendBase

from skmoe.kinds import Request
from skmoe.plan import TrainingResult
from skmoe.precision import products_of_others
from skmoe.shared_work import SHARED, SharedWork
from skmoe.side_by_side import train_requests
from skmoe.training import TRAINER


class Abandoned(BaseException):
    """Ends a fit whose result nobody waits for. Not an `Exception`, which a fit may catch."""


class Fit(threading.Thread):
    """One of the fits: a call that may ask for training.

    Parameters
    ----------
    call : callable
        Without arguments.
    shared : SharedWork
        Of all fits that run together.

    Attributes
    ----------
    outcome : object
        What the call returned.
    error : BaseException or None
        What it raised instead.
    waited, trained : float
        Seconds that it waited for others, and its share of the training.
    """

    def __init__(self, call: Callable[[], Any], shared: SharedWork) -> None:
        super().__init__(daemon=True)
        self.call, self.shared = call, shared
        self.outcome: Any = None
        self.error: BaseException | None = None
        self.request: Request | None = None
        self.waited = self.trained = 0.0
        self.ended = False
        self._abandoned = False
        self._turn, self._pause = threading.Semaphore(0), threading.Semaphore(0)
        self._context = contextvars.copy_context()

    def run(self) -> None:
        self._turn.acquire()
        try:
            if not self._abandoned:
                self.outcome = self._context.run(self._call)
        except Abandoned:
            pass
        except BaseException as error:
            self.error = error
        self.ended = True
        self._pause.release()

    def _call(self) -> Any:
        TRAINER.set(self._train)
        SHARED.set(self.shared)
        return self.call()

    def _train(self, *arguments: Any) -> TrainingResult:
        """In place of `train_alone`: wait for the others."""
        request = self.request = Request(*arguments)
        started = time.perf_counter()
        with _own_filters(), products_of_others():
            self._pause.release()
            self._turn.acquire()
        self.waited += time.perf_counter() - started
        self.trained += request.seconds
        self.request = None
        if self._abandoned:
            raise Abandoned
        if isinstance(request.outcome, TrainingResult):
            return request.outcome
        raise request.outcome or Abandoned

    def go_on(self) -> None:
        """Run until the call ends or asks for training."""
        with _own_filters():
            if self.ident is None:
                self.start()
            self._turn.release()
            self._pause.acquire()

    def abandon(self) -> None:
        """End the thread, wherever it waits."""
        if not self.ended and self.ident is not None:
            self._abandoned = True
            self._turn.release()
            self.join()


@contextmanager
def _own_filters() -> Iterator[None]:
    """Find one's own filters of warnings again after others have run.

    The user's are the same for all, but a fit may change them for a while.
    """
    filters = warnings.filters
    yield
    warnings.filters = filters


def run_together(
    calls: Sequence[Callable[[], Any]], heard: Callable[[Request], None] = lambda _: None
) -> list[Fit]:
    """Run these calls, with their training as one program, until one of them fails.

    Parameters
    ----------
    calls : sequence of callable
        Without arguments; mostly fits.
    heard : callable, optional
        Is told of each finished `Request`.

    Returns
    -------
    fits : list of Fit
        With outcomes; if one has an error, others may have been abandoned.
    """
    shared = SharedWork()
    fits = [Fit(call, shared) for call in calls]
    try:
        while running := [fit for fit in fits if not fit.ended]:
            for fit in running:
                fit.go_on()
                if fit.error is not None:
                    return fits
            requests = [fit.request for fit in running if fit.request is not None]
            train_requests(requests)
            for request in requests:
                heard(request)
    finally:
        for fit in fits:
            fit.abandon()
    return fits


class _Pending:
    """A call that a `Parallel` has submitted."""

    def __init__(self, backend: "TogetherBackend", call: Any, callback: Any) -> None:
        self.backend, self.call, self.callback = backend, call, callback
        self.fit: Fit | None = None

    def get(self, timeout: float | None = None) -> Any:
        if self.fit is None:
            self.backend.run_pending()
        return None if self.fit is None else self.fit.outcome


class TogetherBackend(ParallelBackendBase):
    """A joblib backend whose calls are fits that are trained together.

    Parameters
    ----------
    most : int
        Calls at the same time, at most.
    finished : callable
        Is told of each `Fit` that has ended, to complete its outcome.
    heard : callable
        Is told of each `Request` that was trained.
    """

    supports_retrieve_callback = False

    def __init__(
        self,
        most: int,
        finished: Callable[[Fit], None],
        heard: Callable[[Request], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.most, self.finished, self.heard = most, finished, heard
        self.pending: list[_Pending] = []

    def effective_n_jobs(self, n_jobs: int) -> Any:
        return self.most

    def submit(self, func: Any, callback: Any = None) -> Any:
        pending = _Pending(self, func, callback)
        self.pending.append(pending)
        return pending

    def run_pending(self) -> None:
        """Run all that was submitted so far."""
        asked, self.pending = self.pending, []
        fits = run_together([one.call for one in asked], self.heard)
        for one, fit in zip(asked, fits, strict=True):
            one.fit = fit
            if fit.error is not None:
                raise fit.error
        for one, fit in zip(asked, fits, strict=True):
            self.finished(fit)
            if one.callback is not None:
                one.callback(one)
