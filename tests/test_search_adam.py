"""Adam with a step count for every slot, against `torch.optim.Adam` on every slot alone."""

from __future__ import annotations

import pytest
import torch

from pulse_sr.search.adam import SlotAdam

# When each slot begins, which steps it rests in, and its rates.
BEGINS = (0, 3, 7)
STEPS = 12


def rate(slot, step):
    """A rate that changes, and is 0 in some steps of slot 1."""
    return 0.0 if slot == 1 and step in (5, 6) else 0.1 * (slot + 1) / (1 + 0.1 * step)


def gradients(dtype):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(STEPS, 3, 4, 5, generator=rng, dtype=torch.float64).to(dtype)


def move(adam, gradients, rates):
    """One step: the host's part, then the device's."""
    adam.prepare(rates)
    adam.apply(gradients)


def alone(slot, dtype):
    """A slot by itself: no step before it begins, no gradient where its rate is 0."""
    variable = torch.full((4, 5), 0.5, dtype=dtype, requires_grad=True)
    adam = torch.optim.Adam([variable], lr=0.0)
    for step in range(BEGINS[slot], STEPS):
        adam.param_groups[0]["lr"] = rate(slot, step)
        variable.grad = gradients(dtype)[step, slot] if rate(slot, step) else None
        adam.step()
    return variable.detach()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_every_slot_moves_as_if_it_were_alone(dtype, tolerance):
    """Slots that begin later, after others have moved in them, and one that rests."""
    variable = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    variable.requires_grad_()
    adam = SlotAdam([variable])
    for step in range(STEPS):
        fresh = [slot for slot in range(3) if BEGINS[slot] == step]
        with torch.no_grad():
            variable[fresh] = 0.5
        adam.reset(fresh)
        move(adam, [gradients(dtype)[step]], [[rate(slot, step) for slot in range(3)]])
    for slot in range(3):
        assert (variable[slot] - alone(slot, dtype)).abs().max() < tolerance


def test_a_slot_with_rate_zero_stays_where_it_is():
    variable = torch.ones(2, 3, requires_grad=True)
    adam = SlotAdam([variable])
    for _ in range(3):
        move(adam, [torch.ones(2, 3)], [[0.0, 0.1]])
    assert torch.equal(variable[0], torch.ones(3))
    assert (variable[1] < 1).all()


def test_the_variables_of_a_slot_have_counts_of_their_own():
    """The second begins two steps later: its first step is one of full length."""
    pair = [torch.zeros(1, 2, requires_grad=True) for _ in range(2)]
    adam = SlotAdam(pair)
    for late in (0.0, 0.0, 0.1):
        move(adam, [torch.ones(1, 2)] * 2, [[0.1], [late]])
    assert pair[1].tolist() == [pytest.approx([-0.1, -0.1], abs=1e-6)]
    assert pair[0].tolist() == [pytest.approx([-0.3, -0.3], abs=1e-6)]


def test_a_forgotten_failure_leaves_nothing():
    """After NaNs and a reset, a slot moves as a fresh one."""
    variable = torch.zeros(1, 2, requires_grad=True)
    adam = SlotAdam([variable])
    move(adam, [torch.full((1, 2), torch.nan)], [[0.1]])
    with torch.no_grad():
        variable.zero_()
    adam.reset([0])
    move(adam, [torch.ones(1, 2)], [[0.1]])
    assert variable.tolist() == [pytest.approx([-0.1, -0.1], abs=1e-6)]
