"""Checkpoint files, apart from the fits that write them."""

import gc
from concurrent.futures import ThreadPoolExecutor, wait

from skmoe.checkpoint import Checkpoint

IDENTITY = {"data": "of this fit"}


def read(path):
    return Checkpoint(path, IDENTITY, {"key": 0}).content["identity"]


def test_threads_may_read_at_once(tmp_path):
    # Python 3.11.7 raised a SystemError where another thread had read while the garbage
    # collector ran amid a reading; here one tries to whenever it does.
    path = tmp_path / "fit"
    Checkpoint(path, IDENTITY, {"key": 0}).finish()
    others = []

    def let_another_read(phase, found):
        if phase == "start" and all(other.done() for other in others):
            others.append(pool.submit(read, path))
            wait(others[-1:], timeout=0.01)

    before = gc.get_threshold()
    with ThreadPoolExecutor(1) as pool:
        gc.callbacks.append(let_another_read)
        gc.set_threshold(1)
        try:
            found = [read(path) for _ in range(20)]
        finally:
            gc.set_threshold(*before)
            gc.callbacks.remove(let_another_read)
    assert found == [IDENTITY] * 20
    assert others
    assert {other.result()["data"] for other in others} == {"of this fit"}
