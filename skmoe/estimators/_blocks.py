"""A start in which each block has a factor of the function to itself, where that can be told.

A brief fit gives the function roughly; `skmoe.structure` reads the factors off its gradients;
and a second brief fit, with the blocks at these factors, must do better than one without,
or else all stays as it was, unless rows tell pieces (`_pieces`). That fit then shows the
regions of each factor (`_regions`); a fit from them, with the simplest way to combine the
factors or with a net, must be good enough.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from skmoe._registry import Part, part
from skmoe.batches import Rows
from skmoe.estimators._attempts import Attempt, regions_first
from skmoe.estimators._auto import MAX_EXPERTS_ON_AXES
from skmoe.estimators._brief import (
    BRIEF,
    CLEARLY,
    ROUGH,
    brief_fit,
    copied,
    shortened,
)
from skmoe.estimators._combinations import product_of_factors, sum_of_factors
from skmoe.estimators._pieces import (
    attempts_at_pieces,
    of_features,
    start_block_at_pieces,
)
from skmoe.estimators._regions import start_at_regions
from skmoe.estimators._settling import settling
from skmoe.model import FittedModel
from skmoe.nn.experts import EXPERTS, LatentExperts
from skmoe.nn.networks import ParallelMoENetwork
from skmoe.plan import TrainingPlan
from skmoe.structure import Blocks, find_blocks

# Factors of a function are low-dimensional and may oscillate: experts start less smooth.
HIDDEN_GAIN = 4.0
# What combines the factors is simpler than a whole function. The fewer numbers it gets from
# a block, the less it can tell combinations of pieces apart that it has seen.
HEAD = {"model_dim": 64, "n_dense": 2, "block_outputs": 4}
# Brief fits have at most so many experts, and ask all of them: two of many show less.
MAX_BRIEFLY = 8
# Experts of a block at its regions, of which a row asks two however many there are.
EXPERTS_AT_REGIONS = 16
# A fit at regions has to lower the loss of the rough one to this share.
GOOD_ENOUGH = 0.8
# Shares of the epochs for fits at regions, the first of which is nearly always the last one,
# and for deep gates if nothing at regions was good enough: fits have to end.
AT_REGIONS, LAST = 0.8, 0.5
PRODUCT_HEAD = {"model_dim", "n_dense", "n_factors"}


def attempts_at_blocks(
    model: FittedModel,
    rows: Rows,
    held_out: Rows | None,
    plan: TrainingPlan,
    seed: int,
    given: Mapping[str, Any],
    regions: bool,
) -> Iterator[Attempt]:
    """What to train: the model at its blocks and their regions, at its blocks, or as it was.

    Parameters
    ----------
    model : FittedModel
        Untrained, with a parallel arrangement of latent experts.
    rows, held_out : Rows
        To learn from, and to compare brief fits by (else by their training loss).
    plan : TrainingPlan
        Of the fit to come.
    seed : int
        Of the brief fits.
    given : mapping
        Arguments of the network that the user chose, and that stay as they are.
    regions : bool
        Whether to look for the regions of each block, too.
    """
    return _Search(model, rows, held_out, plan, seed, given).attempts(regions)


@dataclass(frozen=True)
class _Search:
    """What `attempts_at_blocks` has to go by."""

    model: FittedModel
    rows: Rows
    held_out: Rows | None
    plan: TrainingPlan
    seed: int
    given: Mapping[str, Any]

    def attempts(self, regions: bool) -> Iterator[Attempt]:
        arguments = _without_trunk(self.model.architecture.arguments, self.given)
        found = self.blocks_that_help(_briefly(arguments), ROUGH if regions else BRIEF)
        if found is None:
            yield from self.without_blocks(regions)
            return
        blocks, rough, loss = found
        plan = self.plan
        experts = {"n_experts": EXPERTS_AT_REGIONS, **self.given}
        settled = start_at_regions(rough, self.rows, self.seed, experts) if regions else None
        if settled is not None:
            yield from self.at_regions(settled, len(blocks.groups), loss)
            plan = shortened(plan, LAST)
        yield Attempt(_placed(self.model, arguments, blocks, self.seed), plan)

    def blocks_that_help(
        self, briefly: dict[str, Any], share: float
    ) -> tuple[Blocks, FittedModel, float] | None:
        """Blocks, a rough fit at them, and its loss, which is below that without them."""
        scout = self.model.rebuilt(briefly, self.seed)
        scout_loss = self.fit(scout)
        blocks = find_blocks(scout.net, self.rows, self.seed)
        n_blocks = scout.net.moe_layers()[0].experts.n_blocks
        if blocks is None or len(blocks.groups) > n_blocks:
            return None
        rough = _placed(self.model, briefly, blocks, self.seed)
        loss = self.fit(rough, share)
        helps = loss <= CLEARLY * scout_loss or loss < self.fit(copied(self.model), share)
        return (blocks, rough, loss) if helps else None

    def without_blocks(self, pieces: bool) -> Iterator[Attempt]:
        """At pieces that rows tell, if there are any; else the model as it was."""
        told = None
        if pieces and not self.given.keys() & HEAD.keys():
            most = MAX_EXPERTS_ON_AXES
            told = start_block_at_pieces(self.model, self.rows, self.seed, most, self.given)
        usual = Attempt(self.model, self.plan)
        if told is None:
            yield usual
            return
        at_pieces = attempts_at_pieces(told, self.rows, self.plan, 1.0, self.resistant)
        judged_by = self.held_out if self.held_out is not None else self.rows
        yield from regions_first(at_pieces, usual, judged_by, self.plan.fit_loss)

    def at_regions(
        self, settled: FittedModel, n_factors: int, rough_loss: float
    ) -> Iterator[Attempt]:
        """At the regions of each factor, with the simplest way to combine these, and a net."""
        good_enough = GOOD_ENOUGH * rough_loss
        plan = settling(self.plan, self.rows, AT_REGIONS, resistant=self.resistant)
        if n_factors > 1 and not self.given.keys() & PRODUCT_HEAD:
            combined = self.combined(settled, rough_loss)
            if combined is not None:
                yield Attempt(combined, plan, good_enough)
        yield Attempt(settled, plan, good_enough)

    def combined(self, settled: FittedModel, rough_loss: float) -> FittedModel | None:
        """A sum or a product of the factors: these hold where there are no rows, too."""
        added = sum_of_factors(settled, self.seed)
        if self.fit(added) <= rough_loss:
            return added
        return product_of_factors(added, self.rows, self.seed)

    @property
    def resistant(self) -> bool:
        """Without validation rows, attempts are compared by the loss of training: it stays."""
        return self.held_out is not None

    def fit(self, candidate: FittedModel, share: float = BRIEF) -> float:
        return brief_fit(candidate, self.rows, self.held_out, self.plan, self.seed, share)


def _without_trunk(arguments: dict[str, Any], given: Container[str]) -> dict[str, Any]:
    _, settings = EXPERTS.resolve(arguments["expert"])
    expert = part("latent", **{"hidden_gain": HIDDEN_GAIN, **settings})
    head = {name: value for name, value in HEAD.items() if name not in given}
    return {**arguments, **head, "trunk": False, "embedding": None, "expert": expert}


def _briefly(arguments: dict[str, Any]) -> dict[str, Any]:
    """The network of brief fits, the same for any large number of experts."""
    return {
        **arguments,
        "n_experts": min(arguments["n_experts"], MAX_BRIEFLY),
        "top_k": None,
    }


def _placed(
    model: FittedModel, arguments: dict[str, Any], blocks: Blocks, seed: int
) -> FittedModel:
    """A fresh model whose encoders start at the blocks."""
    spec: Part = arguments["expert"]
    expert = part("latent", **{**spec.settings, "latent_dim": blocks.dim})
    sizes = {"expert": expert, "n_axes": blocks.axes_DA.shape[1]}
    placed = model.rebuilt({**arguments, **sizes}, seed)
    network = cast(ParallelMoENetwork, placed.net)
    network.set_axes(torch.from_numpy(blocks.axes_DA), torch.from_numpy(-blocks.center_A))
    experts = cast(LatentExperts, network.blocks.experts)
    experts.place_encoder(torch.from_numpy(blocks.encoders(experts.n_blocks)))
    axes = of_features(blocks.axes_DA, model.x_scaling)
    return replace(placed, block_directions=[axes[:, group] for group in blocks.groups])
