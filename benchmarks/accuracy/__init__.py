"""Each goal for accuracy as a command, with its table in ``docs/results/accuracy``.

    python -m benchmarks.accuracy --goal N --output results/accuracy-goal-N

====  ==================  ==============================================================
N     module              what is measured
====  ==================  ==============================================================
1     `paper_tables`      the experiments of Wang & E (2025): a tenth of their errors
2     `compositional`     64 and 1,024 pieces against peers, and controls of equal cost
3     `recombination`     errors on combinations of regions that were never seen
4     `manifold`          errors over D and n on manifolds, smooth and in pieces
5     `sparsity`          two of many experts against all of them
6     `more_experts`      errors and dead experts over the number of experts
7     `real_data`         real tables, everyone by default parameters
8     `how_many`          errors over experts and layers, and what the default took
====  ==================  ==============================================================

A goal is a `Goal`: its tasks, its contestants, and how rows become tables and verdicts. All
share one loop (`loop`), which measures what is missing, row by row.
"""
