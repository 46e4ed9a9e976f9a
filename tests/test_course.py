"""A course is the same whether its steps are followed one by one or looked up in its table."""

import pytest
import torch

from skmoe._registry import part
from skmoe.course import Course
from skmoe.nn.losses import GroupSparsity, SquaredError
from skmoe.nn.networks import MoENetwork
from skmoe.optimizer import FlatAdamW, schedule
from skmoe.plan import TrainingPlan

N_STEPS, RATE = 30, 0.01
TEMPERATURES = 4.0, 0.5
CPU = torch.device("cpu")
scheduled_or_not = pytest.mark.parametrize("scheduled", [True, False])


def course_of(temperature, scheduled=True, others=()):
    plan = TrainingPlan(SquaredError(), RATE, 0.0, 8, max_epochs=1, scheduled=scheduled)
    network = MoENetwork(2, 1, n_experts=3, gate=part("linear", temperature=temperature))
    optimizer = FlatAdamW(network, RATE, 0.0)
    return Course(plan, optimizer, [*network.gates(), *others], N_STEPS)


def state(course):
    (rate,) = {group["lr"] for group in course.optimizer.param_groups}
    return rate, course.annealed[0].log_temperature.item()


def test_rate_and_temperature_follow_their_schedules():
    course = course_of(TEMPERATURES)
    for step in range(N_STEPS):
        course.follow()
        rate, log_temperature = state(course)
        assert rate == RATE * schedule(step / (N_STEPS - 1))
        share = step / (N_STEPS - 1)
        wanted = torch.tensor(TEMPERATURES[0] ** (1 - share) * TEMPERATURES[1] ** share).log()
        assert log_temperature == pytest.approx(wanted.item(), abs=1e-6)


def test_what_is_not_scheduled_stays():
    course = course_of(TEMPERATURES, scheduled=False)
    before = state(course)
    for _ in range(3):
        course.follow()
    assert state(course) == before


@scheduled_or_not
@pytest.mark.parametrize("temperature", [TEMPERATURES, 2.0])
def test_a_line_of_the_table_is_what_a_step_follows(scheduled, temperature):
    one_by_one, by_table = (course_of(temperature, scheduled) for _ in range(2))
    table = by_table.table(CPU)
    assert table.shape == (N_STEPS, 1 + (scheduled and temperature == TEMPERATURES))
    for line in table:
        one_by_one.follow()
        by_table.follow_line(line)
        rate, log_temperature = state(one_by_one)
        assert by_table.optimizer.rate == torch.tensor(rate, dtype=torch.float32)
        assert by_table.annealed[0].log_temperature.item() == log_temperature


def test_steps_that_others_took_are_skipped():
    one_by_one, skipping = course_of(TEMPERATURES), course_of(TEMPERATURES)
    for _ in range(11):
        one_by_one.follow()
    skipping.skip(4)
    skipping.skip(7)
    assert skipping.step == one_by_one.step
    assert state(skipping) == state(one_by_one)


def test_what_is_no_gate_has_no_table():
    assert course_of(2.0, others=[GroupSparsity()]).table(CPU) is None
