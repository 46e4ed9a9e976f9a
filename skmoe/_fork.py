"""A forked child computes with one thread.

The threads that torch has started do not survive a fork; a child that waits for them hangs for
ever, as with joblib's backend "multiprocessing". With one thread there is nobody to wait for.
"""

import os

import torch

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
