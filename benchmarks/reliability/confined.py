"""Fits that the system gives no network, no home and no folder to write to.

``python -X dev -W error -m benchmarks.reliability.confined N_WAYS``, in a read-only folder,
prints as JSON what fits and predictions have touched, and what they could have. As root it
becomes "nobody" first, for whom a read-only folder is one. An audit hook sees what is tried in
vain.
"""

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from skmoe import DeepMoERegressor, MoERegressor

NOBODY = 65534
WATCHED = ("socket.connect", "socket.getaddrinfo", "os.mkdir", "os.rename")
# An address that is never given to anyone.
ANYWHERE = ("192.0.2.1", 9)
WAYS: tuple[dict[str, Any], ...] = (
    {"early_stopping": True},
    {},
    {"solver": "adam+lbfgs"},
)


def without_network() -> list[str]:
    """The start of a command that has no network; nothing where the system permits none."""
    for start in (["unshare", "--net"], ["unshare", "--net", "--map-current-user"]):
        try:
            subprocess.run([*start, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return start
    return []


def become_nobody() -> None:
    """Give up the rights of root, if there are any."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def fits(n_ways: int) -> None:
    """Fit and predict with both estimators in so many ways."""
    X = np.random.default_rng(0).normal(size=(100, 3))
    for kind in (MoERegressor, DeepMoERegressor):
        for way in WAYS[:n_ways]:
            kind(4, random_state=0, **way).fit(X, np.sin(X[:, 0])).predict(X)


def main(n_ways: int) -> None:
    """Fit as nobody, and tell of it."""
    fits(n_ways)  # imports what is imported late, which "nobody" may not read
    become_nobody()
    network, folder = _has_network(), _may_write()
    touched: list[str] = []
    sys.addaudithook(lambda event, arguments: _watch(event, arguments, touched))
    fits(n_ways)
    print(json.dumps({"touched": list(touched), "network": network, "folder": folder}))


def _watch(event: str, arguments: tuple, touched: list[str]) -> None:
    place = str(arguments[0]) if arguments else ""
    if event == "open":
        mode = arguments[1] if isinstance(arguments[1], str) else ""
        seen = bool(set(mode) & set("wax+")) and not place.startswith("/dev/")
    else:
        # torch makes itself a folder for compiled code, which stays empty.
        seen = event in WATCHED and not place.startswith(tempfile.gettempdir())
    if seen:
        touched.append(f"{event} {arguments}")


def _has_network() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        return one.connect_ex(ANYWHERE) != errno.ENETUNREACH


def _may_write() -> bool:
    try:
        with open("probe", "w"):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main(int(sys.argv[1]))
