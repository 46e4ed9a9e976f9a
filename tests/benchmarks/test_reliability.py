"""The sections of the benchmark of reliability, on a share of their tries."""

import os

import pytest

from benchmarks.reliability import __main__ as command
from benchmarks.reliability import confined, faults, inputs, processes
from benchmarks.reliability.figure import Figure


def test_the_list_of_inputs_is_long_and_its_names_are_unique():
    for cases in (inputs.REFUSED, inputs.HANDLED):
        names = [case.name for case in cases]
        assert len(set(names)) == len(names)
    assert len(inputs.REFUSED) >= 60
    assert len(inputs.HANDLED) >= 40


@pytest.mark.parametrize("kind", inputs.KINDS)
@pytest.mark.parametrize("case", inputs.REFUSED, ids=lambda case: case.name)
def test_wrong_inputs_are_refused(kind, case):
    assert inputs.fault(kind, case) == ""


@pytest.mark.parametrize("case", inputs.HANDLED, ids=lambda case: case.name)
def test_odd_inputs_work(case):
    assert inputs.fault(inputs.KINDS[0], case) == ""


def test_what_is_wrong_is_told():
    X_is_fine = inputs.Case("fine", lambda X, y: {}, "never")
    assert inputs.fault(inputs.KINDS[0], X_is_fine) == "accepted"
    X_is_not = inputs.Case("not fine", lambda X, y: {"X": X * float("nan")})
    assert inputs.fault(inputs.KINDS[0], X_is_not).startswith("refused")


@pytest.mark.parametrize(
    "promise",
    [processes.threads_predict, processes.predict_during_refits, processes.order],
    ids=lambda promise: promise.__name__,
)
def test_promises_of_threads_hold(promise):
    assert promise(0.02, 0).holds


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="has other rights")
def test_fits_need_no_network_no_home_and_no_folder():
    figure = processes.strict(0.1, 0)
    assert figure.holds, figure.note
    if not confined.without_network():
        pytest.skip("the network cannot be taken away here; the rest holds")


def test_a_connection_that_is_tried_is_seen():
    touched = []
    confined._watch("socket.connect", ("a socket", ("192.0.2.1", 9)), touched)
    confined._watch("open", ("model.skmoe", "wb", 0), touched)
    confined._watch("open", ("model.skmoe", "rb", 0), touched)
    assert [told.split()[0] for told in touched] == ["socket.connect", "open"]


def test_no_fit_ends_with_weights_that_are_not_finite():
    assert faults.finite_fits(0.01, 1).holds


def test_experts_do_not_die_on_two_clusters():
    figure = faults.living_experts(0.1, 5)
    assert figure.holds, figure.note


def test_ctrl_c_leaves_all_or_nothing():
    figure = faults.interrupts(0.01, 0)
    assert figure.holds, figure.note


def test_a_report_names_the_machine_and_each_promise(tmp_path, capsys, monkeypatch):
    figures = [Figure("all is well", 3, 3), Figure("or not", 1, 2, "a|b")]
    monkeypatch.setattr(command, "measure", lambda section, scale, seed: iter(figures))
    arguments = ["--section", "faults", "--scale", "0.5", "--output", str(tmp_path)]
    assert command.main(arguments) == 0
    text = (tmp_path / "report.md").read_text()
    assert "| all is well | 3 | 3 |  |" in text
    assert "| or not | 1 | 2 | a\\|b |" in text
    assert "Machine: cpu" in text
    assert "Scale: 0.5" in text
    assert text in capsys.readouterr().out
