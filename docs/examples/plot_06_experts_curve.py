"""
More experts, until it no longer pays
=====================================

`ExpertsCurveDisplay` draws scores over the number of experts, and marks the smallest number
whose score the folds cannot tell from the best one.
"""

from skmoe import MoERegressor
from skmoe.datasets import load_airfoil
from skmoe.plotting import ExpertsCurveDisplay

X, y = load_airfoil(return_X_y=True)
display = ExpertsCurveDisplay.from_estimator(
    MoERegressor(solver="adam", max_epochs=40, random_state=0),
    X,
    y,
    n_experts=(1, 2, 4, 8, 16),
    cv=3,
    random_state=0,
)

curve = display.curve
for number, scores, seconds in zip(
    curve.n_experts, curve.test_scores, curve.fit_times, strict=True
):
    print(f"{number:>2} experts: R^2 {scores.mean():.4f}, {seconds:.1f} seconds a fit")
print("choice:", curve.best_n_experts_)

# %%
# The lines are means, the bands one standard error of them. One expert is a plain net, so
# that the leftmost point shows what a net without a gate makes of the table. How far the line
# of the training rows lies above the other shows whether more experts learn by heart.
