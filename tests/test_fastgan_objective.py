"""What FastGAN learns from: one step against the plain port, draws, losses, several processes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from pulse_sr.bench.plain_fastgan import PlainDiscriminator, PlainGenerator
from pulse_sr.priors.batch_norm import BatchNorm
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.fastgan_prior import FastGANPrior
from pulse_sr.priors.recalibration import recalibrate
from pulse_sr.training.gan.fastgan_objective import FastGANObjective, noisy_hinge
from pulse_sr.training.gan.fastgan_reconstruction import multiscale_l1, squeezenet_content
from pulse_sr.training.gan.objective import gradient_penalty, take

CONFIG = FastGANConfig(64, ngf=8, z_dim=12)
RATE = 2e-4


def make_objective(dtype=torch.float64, **options):
    """Networks of 64 px with noise that matters, in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = FastGANObjective(CONFIG, **{"reconstruction": "l1", **options})
    with torch.no_grad():
        for parameter in objective.generator.parameters():
            if parameter.shape == (1,):
                parameter.fill_(0.3)
    for network in (objective.generator, objective.discriminator):
        network.to(dtype).to(memory_format=torch.channels_last).train()
    return objective


def make_draws(objective, count, seed=0, dtype=torch.float64):
    draws = objective.draw(count, torch.Generator().manual_seed(seed))
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in draws.items()}


def make_images(count, dtype=torch.float64):
    rng = torch.Generator().manual_seed(9)
    return torch.rand(count, 3, 64, 64, generator=rng, dtype=dtype) * 2 - 1


def unchanged(images):
    return images


def adam_for(network):
    return torch.optim.Adam(network.parameters(), lr=RATE, betas=(0.5, 0.999))


@torch.no_grad()
def generate(objective, draws):
    return objective.generate(draws)


def noise_of(draws):
    return [draws[f"noise{i}"] for i in range(len(CONFIG.noise_shapes))]


def worst_after_step(network, expected):
    """Largest difference of a parameter from its first Adam step by formula.

    The moments are the gradient and its square after correction, whatever the decays.
    """
    state = network.state_dict()
    return max(
        (state[name] - (p.detach() - RATE * p.grad / (p.grad.abs() + 1e-8))).abs().max()
        for name, p in expected.parameters.items()
    )


def l1_at_four_scales(a, b):
    scales = (1, 2, 4, 8)
    return sum((F.avg_pool2d(a, s) - F.avg_pool2d(b, s)).abs().mean() for s in scales) / 4


# one update, against plain formulas


def test_one_step_of_the_generator():
    """Every parameter within 1e-10 of the reference, where a step is 2e-4."""
    objective = make_objective()
    draws, expected = make_draws(objective, 4), PlainGenerator(objective.generator)
    judge = PlainDiscriminator(CONFIG, objective.discriminator)
    judge.advance = False
    loss = -judge(*expected(draws["z"], noise_of(draws))).logits.mean()
    loss.backward()
    adam = adam_for(objective.generator)
    objective.prepare(objective.generator)
    ours = objective.generator_loss(make_images(4), objective.generate(draws), unchanged)
    ours.backward()
    adam.step()
    assert abs(ours.item() - loss.item()) < 1e-12
    assert worst_after_step(objective.generator, expected) < 1e-10


def test_one_step_of_the_discriminator():
    objective = make_objective()
    draws, real = make_draws(objective, 4), make_images(4)
    draws["quarter"] = torch.full((4,), 2)
    plain = PlainGenerator(objective.generator)
    plain.advance = False
    expected = PlainDiscriminator(CONFIG, objective.discriminator)
    small, whole = real[:, :, ::2, ::2], F.avg_pool2d(real, 2)
    on_real, decoded = expected(real, small, part=2)
    expected.advance = False
    with torch.no_grad():
        fakes = plain(draws["z"], noise_of(draws))
    on_fake = expected(*fakes).logits
    pairs = zip(decoded, (whole, small, real[:, :, 32:, :32]), strict=True)
    loss = torch.relu(draws["real_margin"] - on_real).mean()
    loss = loss + torch.relu(draws["fake_margin"] + on_fake).mean()
    loss = loss + 8 * sum(l1_at_four_scales(a, b) for a, b in pairs)
    loss.backward()
    adam = adam_for(objective.discriminator)
    fakes = generate(objective, draws)
    objective.prepare(objective.discriminator)
    ours, on_real, on_fake = objective.discriminator_loss(real, fakes, draws, unchanged, unchanged)
    ours.backward()
    adam.step()
    assert abs(ours.item() - loss.item()) < 1e-12
    assert on_real.shape == on_fake.shape == (4, 50)
    assert worst_after_step(objective.discriminator, expected) < 1e-10
    assert all(p.grad is None for p in objective.generator.parameters())


# randomness


def test_all_draws_are_of_the_whole_batch():
    """Images first, so that parts of a batch take rows; margins in [0.8, 1]; four quarters."""
    draws = make_objective().draw(64, torch.Generator().manual_seed(1))
    assert {len(each) for each in draws.values()} == {64}
    assert draws["z"].shape == (64, 12)
    assert [tuple(draws[f"noise{i}"].shape[1:]) for i in range(4)] == [
        (1, 8, 8),
        (1, 8, 8),
        (1, 32, 32),
        (1, 32, 32),
    ]
    for name in ("real_margin", "fake_margin"):
        assert draws[name].min() >= 0.8
        assert draws[name].max() < 1
        assert abs(draws[name].mean() - 0.9) < 0.01
    assert draws["quarter"].unique().tolist() == [0, 1, 2, 3]


def test_losses_draw_nothing():
    objective = make_objective()
    draws, real = make_draws(objective, 2), make_images(2)
    before = torch.get_rng_state()
    fakes = objective.generate(draws)
    objective.generator_loss(real, fakes, unchanged)
    objective.discriminator_loss(real, fakes, draws, unchanged, unchanged)
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_meets_both_images_of_a_fake_and_the_real_one():
    """The small real image is that of the augmented one."""
    objective = make_objective()
    draws, real = make_draws(objective, 2), make_images(2)
    sides = {"real": [], "fake": []}

    def note(which):
        return lambda images: sides[which].append(images.shape[-1]) or images.flip(3)

    fakes = generate(objective, draws)
    loss = objective.discriminator_loss
    mirrored = loss(real.flip(3), fakes, draws, unchanged, note("fake"))[1]
    noted = loss(real, fakes, draws, note("real"), unchanged)[1]
    assert sides == {"real": [64], "fake": [64, 32]}
    assert torch.equal(mirrored, noted)


# losses


def test_the_hinge_has_a_margin_for_each_logit():
    real, fake = torch.tensor([[0.5, 2.0]]), torch.tensor([[-0.5, -2.0]])
    margins = torch.tensor([[0.8, 1.0]]), torch.tensor([[0.9, 1.0]])
    # (0.3 + 0) / 2 + (0.4 + 0) / 2
    assert noisy_hinge(real, fake, *margins).item() == pytest.approx(0.35)


def test_other_losses_take_the_place_of_the_hinge():
    """The logistic and the paired loss at the logits that come out, by formula."""
    for loss in ("logistic", "relativistic"):
        objective = make_objective(loss=loss)
        plain = make_objective()
        draws, real = make_draws(objective, 2), make_images(2)
        given = (real, generate(objective, draws), draws, unchanged, unchanged)
        ours, on_real, on_fake = objective.discriminator_loss(*given)
        hinge, same_real, _ = plain.discriminator_loss(*given)
        assert torch.equal(on_real, same_real)
        kept = hinge - noisy_hinge(on_real, on_fake, draws["real_margin"], draws["fake_margin"])
        if loss == "logistic":
            expected = (1 + (-on_real).exp()).log().mean() + (1 + on_fake.exp()).log().mean()
        else:
            expected = (1 + (on_fake - on_real).exp()).log().mean()
        assert abs((ours - kept - expected).item()) < 1e-9


def test_only_the_paired_loss_of_the_generator_looks_at_real_images():
    for loss in ("hinge", "logistic", "relativistic"):
        values = []
        for real in (make_images(2), make_images(2).flip(3)):
            objective = make_objective(loss=loss)
            fakes = generate(objective, make_draws(objective, 2))
            values.append(objective.generator_loss(real, fakes, unchanged))
        assert (values[0] != values[1]).item() == (loss == "relativistic")


def test_the_multi_scale_l1_is_its_formula():
    """A constant difference counts at all scales, a checkerboard only at full size."""
    a = torch.zeros(2, 3, 32, 32)
    b = a.clone()
    b[0] = 0.4
    b[1] = 0.4 * (-1.0) ** torch.arange(32).add(torch.arange(32)[:, None])
    distance = multiscale_l1(a, b)
    assert distance.tolist() == pytest.approx([0.4, 0.1], abs=1e-6)


def test_the_content_loss_is_the_feature_distance_of_images_from_0_to_1():
    from pulse_sr.metrics.squeezenet import feature_distance

    a, b = make_images(2, torch.float32)[:, :, :32, :32].split(1)
    images = [F.interpolate((x + 1) / 2, 64, mode="bilinear") for x in (a, b)]
    same = feature_distance(*images, least_side=0)
    assert torch.allclose(squeezenet_content(a, b), same, atol=1e-6)


def test_the_gradient_penalty_can_be_differentiated():
    """Along a random direction of all parameters, against central differences in float64.

    The steps are so small that no activation crosses the kink of its leaky ReLU.
    """
    objective = make_objective()
    draws, real = make_draws(objective, 2), make_images(2)
    network = objective.discriminator

    def penalty():
        return gradient_penalty(objective, real, draws, unchanged).mean()

    parameters = [p for n, p in network.named_parameters() if "decoder" not in n]
    gradients = torch.autograd.grad(penalty(), parameters)
    rng = torch.Generator().manual_seed(4)
    steps = [torch.randn(p.shape, generator=rng, dtype=p.dtype) * 1e-10 for p in parameters]
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(step, alpha=sign)
        values.append(penalty().item())
    slope = sum((g * s).sum().item() for g, s in zip(gradients, steps, strict=True))
    assert math.isclose((values[0] - values[1]) / 2, slope, rel_tol=1e-3)


# the prior that comes out


def test_the_averaged_generator_becomes_a_prior_and_stays_as_it_is():
    objective = make_objective(torch.float32)
    average = copy.deepcopy(objective.generator).eval().requires_grad_(False)
    before = {k: v.clone() for k, v in average.state_dict().items()}
    prior = objective.make_prior(average, "faces", {"licence": "CC0"})
    assert isinstance(prior, FastGANPrior)
    assert (prior.name, prior.card, prior.resolution) == ("faces", {"licence": "CC0"}, 64)
    assert all(torch.equal(v, before[k]) for k, v in average.state_dict().items())
    # The average has seen no batch: its own statistics are still zero and one.
    assert average.init.init[1].running_mean.abs().max() == 0
    twin = copy.deepcopy(average)
    recalibrate(twin)
    noise = [each.expand(2, -1, -1, -1) for each in prior.generator.fixed_noise()]
    z = make_draws(objective, 2, dtype=torch.float32)["z"]
    expected = twin(z, noise)[0] * 0.5 + 0.5
    image = prior.synthesize(z[:, None].expand(-1, 2, -1))
    assert (image - expected).abs().max() < 1e-5


# several processes


def _losses_and_gradients(objective, real, draws, rank, count):
    rows = torch.arange(len(real))[rank * len(real) // count : (rank + 1) * len(real) // count]
    part = take(draws, rows)
    found = {}
    for name, network in (("g", objective.generator), ("d", objective.discriminator)):
        if name == "g":
            loss = objective.generator_loss(real[rows], objective.generate(part), unchanged)
        else:
            fakes = generate(objective, part)
            loss = objective.discriminator_loss(real[rows], fakes, part, unchanged, unchanged)[0]
        gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        found[name] = torch.cat([loss.detach()[None], *(g.flatten() for g in gradients)])
    for name, module in objective.generator.named_modules():
        if isinstance(module, BatchNorm):
            found[name] = torch.cat([module.running_mean, module.running_var])
    return found


def _worker(rank, folder):
    torch.set_num_threads(1)
    init = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    objective = make_objective()
    found = _losses_and_gradients(objective, make_images(4), make_draws(objective, 4), rank, 2)
    for name in ("g", "d"):
        dist.all_reduce(found[name])
        found[name] /= 2
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
        # One process alone may write the prior: nothing waits for the other.
        recalibrate(objective.generator, batches=1)
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_are_one_with_the_doubled_batch(tmp_path):
    """Losses, gradients and running statistics within 1e-10 in float64."""
    mp.spawn(_worker, (str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    objective = make_objective()
    alone = _losses_and_gradients(objective, make_images(4), make_draws(objective, 4), 0, 1)
    assert found.keys() == alone.keys()
    assert len(found) == 2 + 7
    for name, expected in alone.items():
        error = (found[name] - expected).abs().max() / expected.abs().max()
        assert error < 1e-10, name
