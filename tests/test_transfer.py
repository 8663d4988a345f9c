"""Beginning with the weights of another run: transfer, growing, frozen stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_training import (
    assert_same_state,
    few_statistics,
    noise_images,
    schedule,
    train,
    trainer_in,
)

from pulse_sr.data.order import rng_of
from pulse_sr.errors import SetupError, UsageError
from pulse_sr.priors.files import read_prior
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training.gan.build import build_objective, describe_network
from pulse_sr.training.gan.options import GanOptions
from pulse_sr.training.gan.plan import plan_training
from pulse_sr.training.gan.transfer import begin_with, read_continued, read_source

SMALL = StyleGAN2Config(8, 16, 16, 2, (8, 8))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run at 8 px."""
    few_statistics(monkeypatch)
    train(tmp_path / "run", 40)
    return tmp_path / "run"


def grown(run, resolution=16, images=None, network=None):
    """Networks at another resolution, or another network, that began with those of the run."""
    source = read_source(str(run))
    network = network or describe_network("stylegan2", resolution, source)
    objective = build_objective(trainer_in(run.parent / "new", network=network).config)
    begin_with(source, objective, noise_images(40, resolution) if images is None else images)
    return objective


def test_the_same_networks_take_over_every_weight(run, tmp_path):
    """The averaged generator and the discriminator of the state."""
    objective = grown(run, resolution=8)
    before = trainer_in(run)
    pairs = ((objective.generator, before.averages.first),)
    pairs += ((objective.discriminator, before.task.gan.objective.discriminator),)
    for new, old in pairs:
        weights = new.state_dict()
        assert all(torch.equal(weights[name], each) for name, each in old.state_dict().items())


def test_a_prior_file_gives_its_generator_alone(run, tmp_path):
    source = read_source(str(run / "model.safetensors"))
    assert source.discriminator == {}
    average = trainer_in(run).averages.first.state_dict()
    assert all(torch.equal(source.generator[name], each) for name, each in average.items())


def test_a_bundled_prior_is_known_by_its_name():
    source = read_source("faces-128")
    network = describe_network("stylegan2", 256, source)
    assert network.channels == (*source.header["config"]["channels"], 8)
    assert network.w_dim == source.header["config"]["w_dim"]


def test_a_grown_generator_draws_the_old_picture_enlarged(run):
    """The new block adds nothing at first; enlarging is that of the RGB skip."""
    objective = grown(run)
    z = torch.randn(4, 16, generator=rng_of("z"))
    with torch.no_grad():
        small = trainer_in(run).averages.first(z)
        large = objective.generator(z)
    upsample = objective.generator.synthesis.b16.upsample
    assert large.shape == (4, 3, 16, 16)
    assert (large - upsample @ small @ upsample.t()).abs().max() < 1e-5
    assert objective.generator.synthesis.b16.torgb.weight.requires_grad


def smooth_images(count, side, seed=0):
    noise = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    images = F.interpolate(noise, size=(side, side), mode="bilinear")
    return (images * 255).byte().numpy()


def test_a_grown_discriminator_judges_as_the_old_one_did(run):
    """Its new stage is fitted to what the old one saw: the logits of new images agree."""
    images = smooth_images(200, 16)
    objective = grown(run, images=images)
    old = trainer_in(run).task.gan.objective.discriminator
    unseen = torch.from_numpy(smooth_images(64, 16, seed=1)).float() / 127.5 - 1
    with torch.no_grad():
        expected = old(F.interpolate(unseen, size=(8, 8), mode="area")).flatten()
        logits = objective.discriminator(unseen).flatten()
        untrained = trainer_in(run.parent / "untrained", network=grown_config(run)).task
        random = untrained.modules()["D"](unseen).flatten()
    error, chance = ((each - expected).square().mean() for each in (logits, random))
    assert error < 0.25 * expected.var()
    assert chance > expected.var()


def grown_config(run):
    return describe_network("stylegan2", 16, read_source(str(run)))


def test_a_wider_generator_draws_the_old_picture(run):
    """To rounding; each of its new weights has a gradient as soon as its neighbours have moved."""
    wide = grown(run, 8, network=StyleGAN2Config(8, 16, 16, 2, (12, 20))).generator
    z = torch.randn(4, 16, generator=rng_of("z"))
    old = trainer_in(run).averages.first
    with torch.no_grad():
        assert (wide.double()(z.double()) - old.double()(z.double())).abs().max() < 1e-6
    torch.nn.init.normal_(wide.synthesis.b8.torgb.weight)
    wide(z.double()).square().mean().backward()
    weight = wide.synthesis.b8.conv1.weight
    assert weight[:8, 8:].abs().max() == 0
    assert all((block != 0).all() for block in (weight.grad[:8, 8:], weight.grad[8:]))


def test_a_wider_discriminator_judges_as_the_old_one_did(run):
    """But for the deviation within a group, which is a mean over all channels."""
    source = trainer_in(run).task.gan.objective.discriminator.double()
    wide = grown(run, 8, network=StyleGAN2Config(8, 16, 16, 2, (12, 20))).discriminator.double()
    layers = [each.b4.conv.weight.data for each in (wide, source)]
    gain = (13 / 9) ** 0.5
    assert torch.allclose(layers[0][:8, -1], gain * layers[1][:, -1], rtol=1e-6)
    for weight in layers:
        weight[:, -1] = 0
    images = torch.rand(8, 3, 8, 8).double() * 2 - 1
    with torch.no_grad():
        assert (wide(images) - source(images)).abs().max() < 1e-6


@pytest.mark.parametrize("channels", [(8, 16, 8), (4, 6, 8)])
def test_other_widths_at_a_larger_size(run, channels):
    """Wider or narrower; where the old layers do not fit, the new ones have nothing to imitate."""
    objective = grown(run, network=StyleGAN2Config(16, 16, 16, 2, channels))
    z = torch.randn(2, 16, generator=rng_of("z"))
    old = trainer_in(run).averages.first
    with torch.no_grad():
        assert objective.discriminator(objective.generator(z)).isfinite().all()
        up = objective.generator.synthesis.b16.upsample
        same = (objective.generator(z) - up @ old(z) @ up.t()).abs().max() < 1e-5
    assert same == (channels[0] == 8)


def test_a_smaller_network_takes_what_fits(run):
    large = grown(run)
    source = read_source(str(run))
    source.generator.clear()
    source.generator.update(large.generator.state_dict())
    small = build_objective(trainer_in(run.parent / "small", network=SMALL).config)
    begin_with(source, small, noise_images())
    for name, each in small.generator.state_dict().items():
        assert torch.equal(each, large.generator.state_dict()[name])


def test_a_source_that_fits_nowhere_is_refused(run):
    other = StyleGAN2Config(8, 10, 10, 1, (6, 6))
    objective = build_objective(trainer_in(run.parent / "other", network=other).config)
    source = read_source(str(run))
    for name in list(source.generator):
        if source.generator[name].ndim == 0 or "noise_const" in name or name.endswith("torgb.bias"):
            del source.generator[name]
    with pytest.raises(UsageError, match="none of its layers"):
        begin_with(source, objective, noise_images())


def test_another_architecture_is_refused(run, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    with pytest.raises(UsageError, match="is a stylegan2 prior, --arch is fastgan"):
        plan_training(folder, tmp_path / "x", GanOptions(architecture="fastgan", init=str(run)))


def test_a_source_that_is_not_there_or_damaged(run, tmp_path):
    with pytest.raises(UsageError, match="no prior"):
        read_source(str(tmp_path / "nowhere"))
    (run / "state.safetensors").write_bytes(b"damaged")
    with pytest.raises(SetupError, match=r"state\.safetensors can not be read"):
        read_source(str(run))


def test_a_run_goes_on_with_the_whole_state_of_another(run, tmp_path):
    """Networks, averages, moments and numbers; without new options the course is the same."""
    state = run / "state.safetensors"
    other = trainer_in(tmp_path / "other", continued=state)
    list(other.train(schedule(60)))
    train(run, 60)
    assert_same_state(run, tmp_path / "other")


def test_what_a_continued_state_has_not_begins_as_ever(run, tmp_path):
    """Heads are new, further averages begin with the one that is there."""
    before = trainer_in(run)
    options = {"heads": "squeezenet", "heads_warmup": 48, "ema_bank": (20.0,)}
    other = trainer_in(tmp_path / "other", continued=run / "state.safetensors", **options)
    assert other.images_shown == 40
    weights = before.averages.first.state_dict()
    for average in (other.averages.first, other.averages.bank[20.0]):
        assert all(torch.equal(weights[k], v) for k, v in average.state_dict().items())
    list(other.train(schedule(60)))
    again = trainer_in(tmp_path / "again", continued=other.state_file, **options)
    heads = other.task.modules()["heads"].state_dict()
    kept = again.task.modules()["heads"].state_dict()
    assert all(torch.equal(heads[name], each) for name, each in kept.items())
    assert not torch.equal(weights["mapping.fc0.weight"], again.averages.first.mapping.fc0.weight)


def test_continuing_is_refused_in_one_line(run, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    with pytest.raises(UsageError, match=r"there is no state\.safetensors in it"):
        read_continued(str(folder))
    with pytest.raises(UsageError, match="is a stylegan2 run, --arch is fastgan"):
        plan_training(
            folder, tmp_path / "x", GanOptions(architecture="fastgan", continued=str(run))
        )
    with pytest.raises(UsageError, match="--init and --continue"):
        plan_training(folder, tmp_path / "x", GanOptions(init=str(run), continued=str(run)))


def test_the_run_remembers_what_it_began_with(run, tmp_path):
    """Another source is another run; the card names the first one."""
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(16):
        pixels = np.full((16, 16, 3), 10 * i, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    options = {"resolution": 8, "batch": 4, "device": "cpu"}
    plan = plan_training(folder, tmp_path / "out", GanOptions(init=str(run), **options))
    trainer = plan.start()
    trainer.checkpoint()
    trainer.lock.close()
    card = read_prior(tmp_path / "out").card
    assert card["began_with"] == {"prior": "run", "sha256": read_prior(run).sha256}
    warm = {"heads": "squeezenet", "heads_warmup": 0.1}
    onward = GanOptions(continued=str(run), **warm, **options)
    continued = plan_training(folder, tmp_path / "y", onward)
    assert continued.config.heads_warmup == 40 + 100  # what the run had been shown, and then some
    assert continued.config.network.channels == (8, 8)
    assert continued.config.init == read_continued(str(run)).sha256
    narrow = GanOptions(**options, channel_max=8, channel_base=64)
    again = plan_training(folder, tmp_path / "out", narrow)
    with pytest.raises(UsageError, match="init was"):
        again.start()
