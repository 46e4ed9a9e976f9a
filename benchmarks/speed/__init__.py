"""How near skmoe is to the limit of the machine: ``python -m benchmarks.speed``.

Contestants of a case are run in turn in one process, several times, and first shown to compute
the same thing. What counts is their ratio within a turn. With one thread, time is that of the
processor: other programs on the machine slow it down, but do not count.
"""
