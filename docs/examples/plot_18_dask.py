"""
A search on a Dask cluster
==========================

Searches of scikit-learn run on a cluster as they are. Here the cluster is two processes of this
machine; give `Client` the address of a scheduler, and it is as many machines as that one has.
"""

# %%
# Beside the score of a fit, the search keeps in which process it was done, and when.

import os
import time

import joblib
import numpy as np
from distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV

from skmoe import MoERegressor
from skmoe.datasets import make_circle_regression

X, y = make_circle_regression(500, random_state=0)


def scores(estimator, X, y):
    return {"r2": estimator.score(X, y), "process": os.getpid(), "end": time.time()}


def search():
    return GridSearchCV(
        MoERegressor(solver="adam", max_epochs=30, random_state=0),
        {"n_experts": [2, 4, 8], "learning_rate": [0.003, 0.03]},
        scoring=scores,
        refit="r2",
        cv=3,
    )


# %%
# Inside of `parallel_config`, joblib sends each fit to a worker. One thread for each process is
# enough: fits are small, and there are many. Processes import the script that starts them, so
# that what starts them stands behind ``if __name__ == "__main__"``; a notebook needs no such
# line.

if __name__ == "__main__":
    alone = search().fit(X, y)
    quiet = {"dashboard_address": None, "silence_logs": "ERROR"}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, **quiet) as cluster,
        Client(cluster) as client,
        joblib.parallel_config("dask"),
    ):
        client.run(search().estimator.fit, X, y)  # in each process: the first fit takes long
        spread = search().fit(X, y)
    print("best:", spread.best_params_)
    pair = [found.cv_results_["mean_test_r2"] for found in (alone, spread)]
    print(f"largest difference of two scores: {np.abs(pair[0] - pair[1]).max():.1e}")

# %%
# Who did what, and when: each bar is a fit, in the colour of its number of experts. A process
# that is done with one takes the next.

if __name__ == "__main__":
    import matplotlib.pyplot as plt

    found = spread.cv_results_
    numbers = [candidate["n_experts"] for candidate in found["params"]]
    process, end = (
        np.array([found[f"split{fold}_test_{name}"] for fold in range(spread.n_splits_)])
        for name in ("process", "end")
    )
    # A search keeps the mean of the folds' times only.
    start = end - found["mean_fit_time"]
    workers = np.unique(process)
    figure, ax = plt.subplots(figsize=(9, 2.8), layout="constrained")
    for i, number in enumerate(np.unique(numbers)):
        own = np.broadcast_to(np.equal(numbers, number), end.shape)
        rows = np.searchsorted(workers, process[own])
        ax.barh(
            rows,
            (end - start)[own],
            left=(start - start.min())[own],
            color=f"C{i}",
            edgecolor="white",
            label=f"{number} experts",
        )
    ax.set_yticks(range(len(workers)), [f"process {i}" for i in range(len(workers))])
    ax.set(xlabel="seconds")
    figure.legend(loc="outside upper center", ncols=3)
    plt.show()
