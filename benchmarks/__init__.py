"""Measurements that anyone can repeat; they use public names of skmoe only.

=================================  =====================================================
``python -m benchmarks.compare``   skmoe against kernels, trees, neighbours and dense nets,
                                   all tuned alike, on synthetic and real data
``python -m benchmarks.paper``     the experiments of Wang & E (2025), section 6
``python -m benchmarks.headline``  default parameters, beside controls of equal cost
``python -m benchmarks.accuracy``  each goal for accuracy, with a verdict
=================================  =====================================================

Every script prints the machine and the versions (`benchmarks.environment`), runs all
contestants interleaved in one process and shows medians with their spread.
"""
