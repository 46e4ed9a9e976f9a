"""Callbacks of scikit-learn are experimental: without them, estimators can do without."""

import importlib.util
import sys

import skmoe._callbacks


def test_without_callbacks_in_scikit_learn_there_is_nothing_to_begin(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    spec = importlib.util.spec_from_file_location("without", skmoe._callbacks.__file__)
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)

    class Estimator(without.CallbackSupportMixin):
        pass

    assert without.begin_fit(Estimator()) is None
    assert not without.has_callbacks(Estimator())
    assert not hasattr(Estimator(), "set_callbacks")
