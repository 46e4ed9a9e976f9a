"""The parts of a mixture of experts, in torch. Knows nothing of scikit-learn or skorch.

Tensors carry their shape as a suffix: T samples, D inputs, O outputs, E experts,
K experts kept per sample, H hidden, R rank, C rows of one expert, B blocks side by side
and G = B * E, the experts of all blocks. Every part is stacked over B blocks, so that the
blocks of a deep network cost one matrix product instead of B small ones.
"""
