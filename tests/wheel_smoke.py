"""The installed wheel, used once. `make wheel` runs this in a fresh environment."""

import pickle
from importlib.metadata import version
from importlib.resources import files

import matplotlib as mpl

import skmoe
from skmoe.datasets import load_airfoil, load_concrete
from skmoe.plotting import ExpertUsageDisplay


def main() -> None:
    package = files("skmoe")
    assert "site-packages" in str(package), f"not the installed package: {package}"
    assert version("skmoe") == skmoe.__version__
    assert package.joinpath("py.typed").is_file()
    mpl.use("agg")
    X, y = load_airfoil(return_X_y=True)
    for moe in (skmoe.MoERegressor(random_state=0), skmoe.DeepMoERegressor(random_state=0)):
        score = moe.fit(X[::2], y[::2]).score(X[1::2], y[1::2])
        again = pickle.loads(pickle.dumps(moe))
        assert score > 0.8, score
        assert (again.predict(X) == moe.predict(X)).all()
        assert ExpertUsageDisplay.from_estimator(moe).bars_
        print(f"{type(moe).__name__}: R^2 {score:.3f} on the rows left out")
    assert load_concrete().data.shape == (1030, 8)
    print(f"skmoe {skmoe.__version__} from {package}: all is there")


if __name__ == "__main__":
    main()
