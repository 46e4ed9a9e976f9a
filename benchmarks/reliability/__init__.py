"""How often each promise of reliability held: ``python -m benchmarks.reliability``.

Each module is a section: its `measure(scale, seed)` yields a `Figure` for each promise. At
scale 1 the counts are those of the report; the tests run the same sections at a small scale.
"""
