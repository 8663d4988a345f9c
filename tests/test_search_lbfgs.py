"""L-BFGS with a count for every slot, against the two loops of the textbook on every slot alone."""

from __future__ import annotations

import pytest
import torch

from pulse_sr.search.lbfgs import CURVED, LONGEST, PAIRS, SlotLbfgs

pytestmark = pytest.mark.kernels

SLOTS, STEPS = 3, 26
BEGINS = (0, 3, 7)
#: At this step of a sample its rates change.
TURN = 14


def function(x, y):
    """Of a sample's two variables: bent, coupled, and a thousand times stiffer at one end."""
    joined = torch.cat([x.flatten(1), y.flatten(1)], dim=1)
    stiff = torch.logspace(0, 3, joined.shape[1], dtype=joined.dtype)
    bent = (1 + (joined[:, 1:] - joined[:, :-1].square()).square()).log().sum(dim=1)
    return (stiff * (joined - 1).square()).sum(dim=1) / 2 + bent


def rates(step):
    return (0.3, 0.0) if step < TURN else (0.1, 0.05)


def start(seed, dtype):
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randn(10, generator=rng, dtype=torch.float64).to(dtype)
    return drawn[:4].view(4), drawn[4:].view(2, 3)


def gradient(x, y):
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_(), y.detach().requires_grad_()]
        return torch.autograd.grad(function(*leaves).sum(), leaves)


def textbook_step(history, gradient, count):
    """Nocedal and Wright, algorithm 7.4; the scale is equation 7.20, without pairs a mean of 1."""
    q, alphas = gradient.clone(), []
    pairs = [
        (s, y)
        for s, y in history[-PAIRS:]
        if s @ y > CURVED * (s @ s * (y @ y)).sqrt() and s @ y > 0
    ]
    for s, y in reversed(pairs):
        alphas.append((s @ q) / (s @ y))
        q = q - alphas[-1] * y
    q = q * ((pairs[-1][0] @ pairs[-1][1]) / (pairs[-1][1] @ pairs[-1][1]) if pairs else 1)
    if not pairs:
        q = q / (gradient @ gradient / count).sqrt()
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q = q + (alpha - (y @ q) / (s @ y)) * s
    return q * min(1.0, LONGEST / float((q @ q / count).sqrt()))


def alone(seed, steps):
    """A sample by itself in float64, where it is after each step."""
    x, y = start(seed, torch.float64)
    path, history, before, last = [], [], None, None
    for step in range(steps):
        rate = rates(step)
        scale = torch.tensor([rate[0]] * 4 + [rate[1]] * 6, dtype=torch.float64)
        moving = scale > 0
        parts = [each.flatten() for each in gradient(x[None], y[None])]
        g = (torch.cat(parts) * scale)[moving]
        z = (torch.cat([x, y.flatten()])[moving] / scale[moving]).clone()
        if rate != last:
            history, before = [], None
        if before is not None:
            history.append((z - before[0], g - before[1]))
        before, last = (z, g), rate
        moved = torch.zeros(10, dtype=torch.float64)
        moved[moving] = textbook_step(history, g, int(moving.sum())) * scale[moving]
        x, y = x - moved[:4], y - moved[4:].view(2, 3)
        path.append(torch.cat([x, y.flatten()]))
    return path


def together(dtype, begins=BEGINS, seeds=(0, 1, 2), steps=STEPS):
    """All samples in slots of one batch; returns the path of each slot since its sample began."""
    x = torch.zeros(SLOTS, 4, dtype=dtype)
    y = torch.zeros(SLOTS, 2, 3, dtype=dtype)
    moves = SlotLbfgs([x, y])
    paths = [[] for _ in range(SLOTS)]
    for step in range(steps):
        fresh = [slot for slot in range(SLOTS) if begins[slot] == step]
        for slot in fresh:
            x[slot], y[slot] = start(seeds[slot], dtype)
        moves.reset(fresh)
        own = [rates(step - begin) if step >= begin else (0.0, 0.0) for begin in begins]
        moves.prepare(list(zip(*own, strict=True)))
        moves.apply(gradient(x, y))
        for slot in range(SLOTS):
            if step >= begins[slot]:
                paths[slot].append(torch.cat([x[slot], y[slot].flatten()]))
    return paths


def test_every_slot_takes_the_steps_of_the_textbook():
    """Begun at different steps, past the number of pairs, over a change of rates."""
    for slot, path in enumerate(together(torch.float64)):
        for ours, expected in zip(path, alone(slot, len(path)), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)
    assert STEPS - TURN > PAIRS


def test_it_comes_down_where_adam_needs_hundreds_of_steps():
    losses = [
        function(path[-1][None, :4], path[-1][None, 4:].view(1, 2, 3)).item()
        for path in together(torch.float32, begins=(0, 0, 0), steps=60)
    ]
    assert max(losses) < 1e-3  # from about 3,000


def test_the_bits_of_a_sample_do_not_depend_on_its_company():
    """Neither on who else is there nor on when and in which slot it began."""
    first = together(torch.float32, begins=(0, 3, 7), seeds=(0, 1, 2))
    other = together(torch.float32, begins=(2, 7, 0), seeds=(5, 2, 0))
    for a, b in ((first[0], other[2]), (first[2], other[1])):
        pairs = list(zip(a, b, strict=False))
        assert len(pairs) > TURN
        assert all(torch.equal(*each) for each in pairs)


def test_a_variable_without_a_rate_stays_and_is_not_felt():
    """Even its gradient does not matter."""
    ends = []
    for factor in (1.0, 1e6):
        x, y = (each[None].clone() for each in start(0, torch.float32))
        before = y.clone()
        moves = SlotLbfgs([x, y])
        for _ in range(5):
            moves.prepare([[0.1], [0.0]])
            own = gradient(x, y)
            moves.apply([own[0], factor * own[1]])
        assert torch.equal(y, before)
        ends.append(x)
    assert torch.equal(*ends)
    assert not torch.equal(ends[0][0], start(0, torch.float32)[0])


def test_the_first_step_is_as_long_as_the_rate_and_none_is_longer_than_twice_that():
    x, y = (each[None].clone() for each in start(3, torch.float64))
    moves = SlotLbfgs([x, y])
    lengths = []
    for _ in range(12):
        before = x.clone()
        moves.prepare([[0.02], [0.0]])
        moves.apply(gradient(x, y))
        lengths.append((x - before).square().mean().sqrt().item() / 0.02)
    assert lengths[0] == pytest.approx(1)
    assert max(lengths) == pytest.approx(LONGEST)


def test_it_goes_down_where_the_curvature_is_negative():
    """On a hill the pairs do not count: every step is along the gradient."""
    x = torch.tensor([[0.1, -0.2, 0.05]], dtype=torch.float64)
    moves = SlotLbfgs([x])
    for _ in range(6):
        slope = -2 * x
        before = x.clone()
        moves.prepare([[0.01]])
        moves.apply([slope])
        step = x - before
        assert (step * slope).sum() < 0
        assert step.square().mean().sqrt().item() == pytest.approx(0.01)


def test_a_start_forgets_what_was_not_finite():
    """What is left of a sample must not poison the next one through a weight of zero."""
    x, y = (each[None].clone() for each in start(0, torch.float64))
    moves = SlotLbfgs([x, y])
    for step in range(12):
        moves.prepare([[0.3], [0.0]])
        bad = torch.full_like(x, torch.nan if step > 5 else torch.inf)
        moves.apply([bad if step > 2 else gradient(x, y)[0], torch.zeros_like(y)])
    assert not x.isfinite().any()
    x[0], y[0] = start(1, torch.float64)
    moves.reset([0])
    for expected in alone(1, TURN):
        moves.prepare([[0.3], [0.0]])
        moves.apply(gradient(x, y))
        torch.testing.assert_close(x[0], expected[:4], rtol=1e-9, atol=1e-10)


def test_a_gradient_of_zero_leaves_everything_where_it_is():
    x = torch.ones(2, 3)
    moves = SlotLbfgs([x])
    for _ in range(3):
        moves.prepare([[0.1, 0.1]])
        moves.apply([torch.zeros(2, 3)])
    assert torch.equal(x, torch.ones(2, 3))
