"""The middle of everything: one low-res input to several measured faces."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_priors import random_stylegan2

import pulse_sr
from pulse_sr.api import search_image
from pulse_sr.config import SearchConfig
from pulse_sr.devices import choose_bf16, choose_device
from pulse_sr.errors import InputError, SetupError, UsageError
from pulse_sr.images.pixels import to_uint8
from pulse_sr.images.read import read_image
from pulse_sr.inversion import stream as streaming
from pulse_sr.jobs import searching
from pulse_sr.models import registry
from pulse_sr.operators.building import make_operator
from pulse_sr.operators.degrading import degrade
from pulse_sr.priors.bank import bank_of
from pulse_sr.priors.stylegan2 import StyleGAN2Prior
from pulse_sr.search.methods import Settings
from pulse_sr.search.records import Observed
from pulse_sr.search.samples import find_samples, sample_seed

STEPS = 12


@pytest.fixture(scope="module")
def prior() -> StyleGAN2Prior:
    """A StyleGAN2 of 32 px with random weights."""
    return random_stylegan2(5, name="tiny", sha256="5" * 64)


@pytest.fixture
def face(tmp_path, prior):
    """An 8-px input that the prior can explain."""
    pixels = (prior.sample([77])[0].numpy() * 255).round().astype(np.uint8)
    path = tmp_path / "face.png"
    Image.fromarray(degrade(pixels, "bicubic", 4).transpose(1, 2, 0)).save(path)
    return path


def search(path, prior, indices, **options):
    config = SearchConfig(**{"steps": STEPS, "batch": 4} | options)
    return search_image(read_image(path), prior, config, indices)


def pixels_of(result):
    return {sample.index: sample.pixels for sample in result.samples_list}


@pytest.mark.parametrize("method", ["phased", "pulse"])
def test_a_sample_does_not_depend_on_what_is_asked_for_with_it(face, prior, method):
    together = pixels_of(search(face, prior, range(8), method=method))
    for indices in ([3], [4, 5, 6, 7], [6, 1]):
        for index, pixels in pixels_of(search(face, prior, indices, method=method)).items():
            assert np.array_equal(pixels, together[index]), f"sample {index} of {indices}"


def test_the_search_starts_from_the_bank_of_its_prior(face, prior):
    """The sample is that of `find_samples` with the bank, and not the one without."""
    config = SearchConfig(steps=STEPS, batch=4, project="off")
    image = read_image(face)
    [sample] = search_image(image, prior, config, [2]).samples_list
    settings = Settings("phased", False, STEPS, config.target_db, 4, 0)
    given = Observed(
        y=torch.from_numpy(image.pixels / 255.0),
        operator=make_operator("bicubic", 8, 32),
        side=8,
        sha256=image.sha256,
        indices=[2],
    )
    found = {}
    for name, bank in (("bank", bank_of(prior)), ("none", None)):
        [sampled] = find_samples(prior, given, settings, bank)
        found[name] = to_uint8(sampled.image.double().numpy())
    assert np.array_equal(sample.pixels, found["bank"])
    assert not np.array_equal(sample.pixels, found["none"])


def test_methods_without_a_bank_look_for_none(face, prior, monkeypatch):
    monkeypatch.setattr(streaming, "bank_of", None)
    assert len(search(face, prior, [0], method="pulse", steps=2).samples_list) == 1


def test_samples_and_seeds_differ(face, prior):
    first, second = (search(face, prior, range(4), seed=seed) for seed in (0, 1))
    images = [s.pixels for s in (*first.samples_list, *second.samples_list)]
    for i, a in enumerate(images):
        assert all(not np.array_equal(a, b) for b in images[:i])


def test_strict_pulse_shares_one_stream_and_is_not_projected(face, prior):
    result = search(face, prior, range(4), method="pulse", strict_pulse=True)
    assert {s.seed for s in result.samples_list} == {result.samples_list[0].seed}
    assert [s.steps for s in result.samples_list] == [STEPS] * 4
    # Half a grey level is what rounding to 8 bits changes at most.
    assert max(s.hr_rms_change for s in result.samples_list) <= 0.5 / 255


def test_written_samples_downscale_to_the_input(face, prior):
    result = search(face, prior, range(4))
    target = np.asarray(Image.open(face)).transpose(2, 0, 1)
    for sample in result.samples_list:
        assert sample.lr_psnr >= 50
        assert sample.status == "ok"
        # One level of rounding is what separates 50 dB and more from the input itself.
        low = degrade(sample.pixels, "bicubic", 4).astype(int)
        assert np.abs(low - target).max() <= 1


def test_numbers_are_those_of_the_pixels(face, prior):
    result = search(face, prior, range(2), project="off")
    for sample in result.samples_list:
        assert sample.lr_psnr == pytest.approx(sample.lr_psnr_search, abs=1e-9)
    assert result.samples.shape == (2, 3, 32, 32)
    assert torch.equal(result.mean, result.samples.mean(dim=0))


def test_soft_projection_stays_between_search_and_exact(face, prior):
    change = {
        project: search(face, prior, [0], project=project).samples_list[0].hr_rms_change
        for project in ("off", "soft", "exact")
    }
    assert change["off"] < change["soft"] <= change["exact"] * 1.05


def test_jpeg_input_is_projected_softly(tmp_path, face, prior):
    jpeg = tmp_path / "face.jpg"
    Image.open(face).save(jpeg, quality=40)
    chosen = search(jpeg, prior, [0]).samples_list[0]
    soft = search(jpeg, prior, [0], project="soft").samples_list[0]
    exact = search(jpeg, prior, [0], project="exact").samples_list[0]
    assert np.array_equal(chosen.pixels, soft.pixels)
    assert chosen.lr_psnr < exact.lr_psnr


def test_padding_is_not_observed(tmp_path, face, prior):
    """Rows outside a non-square input are free: only the observed ones must match."""
    cut = tmp_path / "cut.png"
    Image.open(face).crop((0, 1, 8, 7)).save(cut)
    result = search(cut, prior, range(2))
    assert result.observation.rows == (1, 7)
    target = np.asarray(Image.open(cut)).transpose(2, 0, 1)
    for sample in result.samples_list:
        low = degrade(sample.pixels, "bicubic", 4).astype(int)[:, 1:7]
        assert np.abs(low - target).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK", "I;16", "LA"])
def test_every_picture_mode_gives_a_result(tmp_path, face, prior, mode):
    source = Image.open(face)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
    else:
        image = source.convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    result = search(path, prior, range(2), steps=4)
    assert min(sample.lr_psnr for sample in result.samples_list) >= 45


def test_rotated_input_is_turned_upright(tmp_path, face, prior):
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = tmp_path / "turned.png"
    Image.open(face).rotate(180).save(turned, exif=exif)
    assert np.array_equal(read_image(turned).pixels, read_image(face).pixels)


def test_bad_inputs_fail_alone(tmp_path, face, prior):
    """The refused ones are one row each; the others of the same call finish."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (9, 9)).save(tmp_path / "nine.png")
    data = face.read_bytes()
    (tmp_path / "truncated.png").write_bytes(data[: len(data) // 2])
    names = ["empty", "text", "nine", "truncated", "face"]
    records = searching.run(
        [tmp_path / f"{name}.png" for name in names],
        tmp_path / "out",
        SearchConfig(samples=2, batch=2, steps=4),
        prior,
    )
    status = {record.stem: record for record in records}
    assert [status[name].status for name in names] == ["failed"] * 4 + ["done"]
    assert "4, 8, 16" in status["nine"].error + status["nine"].hint
    for name in names[:4]:
        assert "\n" not in status[name].error


def test_order_of_inputs_and_interruption_change_nothing(tmp_path, face, prior):
    other = tmp_path / "other.png"
    Image.open(face).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other)
    config = SearchConfig(samples=3, batch=2, steps=4)
    list(searching.run([face, other], tmp_path / "a", config, prior))
    interrupted = searching.run([other, face], tmp_path / "b", config, prior)
    next(interrupted)
    interrupted.close()
    list(searching.run([other, face], tmp_path / "b", config, prior))
    for name in ("face", "other"):
        for k in range(3):
            a, b = (tmp_path / d / name / f"sample_{k:02d}.png" for d in ("a", "b"))
            assert a.read_bytes() == b.read_bytes()


def test_four_then_eight_samples_keep_the_first_four(tmp_path, face, prior):
    out = tmp_path / "out"
    list(searching.run([face], out, SearchConfig(samples=4, batch=8, steps=4), prior))
    files = [out / "face" / f"sample_{k:02d}.png" for k in range(4)]
    before = [file.read_bytes() for file in files]
    list(searching.run([face], out, SearchConfig(samples=8, batch=8, steps=4), prior))
    assert [file.read_bytes() for file in files] == before
    whole = tmp_path / "whole"
    list(searching.run([face], whole, SearchConfig(samples=8, batch=8, steps=4), prior))
    for k in range(8):
        name = f"face/sample_{k:02d}.png"
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_seed_of_a_sample():
    seeds = {sample_seed(s, sha, i) for s in (0, 1) for sha in ("a", "b") for i in range(50)}
    assert len(seeds) == 200
    assert max(seeds) < 2**48


def test_super_resolve_takes_files_and_arrays(face, prior):
    options = {"samples": 2, "batch": 2, "steps": 4}
    from_file = pulse_sr.super_resolve(face, prior=prior, **options)
    assert len(from_file.lr_psnr) == 2
    pixels = read_image(face).pixels
    from_array = pulse_sr.super_resolve(pixels, prior=prior, **options)
    assert from_array.samples.shape == (2, 3, 32, 32)
    with pytest.raises(UsageError, match="uint8"):
        pulse_sr.super_resolve(pixels / 255.0, prior=prior, **options)
    with pytest.raises(InputError, match="16"):
        pulse_sr.super_resolve(np.zeros((3, 9, 9), np.uint8), prior=prior, **options)


def test_arrays_are_saved_side_by_side(prior, tmp_path):
    options = {"prior": prior, "samples": 1, "batch": 1, "steps": 1}
    arrays = [np.full((3, 16, 16), level, np.uint8) for level in (90, 180)]
    folders = [pulse_sr.super_resolve(each, **options).save(tmp_path) for each in arrays]
    assert folders[0] != folders[1]
    for folder, level in zip(folders, (90, 180), strict=True):
        assert (np.asarray(Image.open(folder / "input.png")) == level).all()
    assert pulse_sr.super_resolve(arrays[0], **options).save(tmp_path) == folders[0]


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(SetupError, match="cuda:99"):
        choose_device("cuda:99")
    with pytest.raises(SetupError, match="no device"):
        choose_device("abacus")
    assert not choose_bf16("auto", torch.device("cpu"))
    assert choose_bf16("bf16", torch.device("cpu"))
    assert not choose_bf16("fp32", torch.device("cuda"))


def test_bf16_is_honoured(face, prior):
    exact = search(face, prior, [0], steps=2, project="off").samples_list[0].pixels
    coarse = search(face, prior, [0], steps=2, project="off", precision="bf16")
    difference = np.abs(coarse.samples_list[0].pixels.astype(int) - exact)
    assert difference.max() > 0
    assert difference.mean() < 8
    assert not prior.bf16  # a view of it was searched


def test_a_view_in_another_precision_has_the_same_weights(prior):
    view = prior.in_precision(bf16=True)
    assert (view.bf16, prior.bf16) == (True, False)
    assert view.generator is prior.generator
    assert prior.in_precision(bf16=False) is prior


def test_bundled_prior_is_what_the_registry_says():
    name, entry = next(iter(registry.bundled().items()))
    file = registry.FOLDERS["prior"] / entry["file"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"]
    assert file.stat().st_size <= 25e6
    prior = pulse_sr.load_prior(device="cpu")
    assert (prior.name, prior.sha256) == (name, entry["sha256"])
    for key in ("licence", "data", "attribution", "caveat", "alignment", "training"):
        assert prior.card[key]
    images = prior.sample([0, 1])
    assert images.shape == (2, 3, prior.resolution, prior.resolution)
    assert 0.02 < images.std() < 0.5


def test_a_changed_bundled_prior_is_refused(tmp_path, monkeypatch):
    name, entry = next(iter(registry.bundled().items()))
    data = bytearray((registry.FOLDERS["prior"] / entry["file"]).read_bytes())
    data[-1] ^= 1
    (tmp_path / entry["file"]).write_bytes(data)
    (tmp_path / registry.REGISTRY).write_bytes(
        (registry.FOLDERS["prior"] / registry.REGISTRY).read_bytes()
    )
    monkeypatch.setitem(registry.FOLDERS, "prior", tmp_path)
    with pytest.raises(SetupError, match="checksum"):
        pulse_sr.load_prior(name, device="cpu")


def test_unknown_prior_names_the_known_ones():
    with pytest.raises(UsageError) as error:
        pulse_sr.load_prior("faces-1024", device="cpu")
    assert next(iter(registry.bundled())) in error.value.hint


def test_a_search_that_diverges_says_so(face, prior):
    broken = prior.generator.synthesis.b32.torgb.bias
    kept = broken.detach().clone()
    with torch.no_grad():
        broken.fill_(float("nan"))
    try:
        with pytest.raises(InputError, match=r"no finite image for the samples \[1\]"):
            search(face, prior, [1], steps=2)
    finally:
        with torch.no_grad():
            broken.copy_(kept)


def name_of(request):
    return Path(request.image.path).stem


def requests_of(paths):
    """Inputs that are read when they are asked for."""
    for path in paths:
        yield streaming.Request(read_image(path), range(2))


def test_a_stream_gives_each_input_what_it_gets_alone(tmp_path, face, prior):
    """Also one that is padded, and one that can not be searched between them."""
    turned, cut, nine = (tmp_path / f"{name}.png" for name in ("turned", "cut", "nine"))
    Image.open(face).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(turned)
    Image.open(face).crop((0, 1, 8, 7)).save(cut)
    Image.new("RGB", (9, 9)).save(nine)
    config, seen = SearchConfig(steps=STEPS, batch=4), []
    stream = streaming.search_images(
        requests_of([face, nine, turned, cut]),
        prior,
        config,
        lambda request, step: seen.append((name_of(request), step.samples)),
    )
    outcomes = {name_of(request): outcome for request, outcome in stream}
    assert isinstance(outcomes.pop("nine"), InputError)
    # Progress is that of the input that has waited longest.
    assert set(seen) == {("face", 2), ("cut", 2)}
    assert outcomes.keys() == {"face", "turned", "cut"}
    for path in (face, turned, cut):
        alone, together = search(path, prior, range(2)), outcomes[path.stem]
        assert pixels_of(alone).keys() == pixels_of(together).keys()
        for index, pixels in pixels_of(alone).items():
            assert np.array_equal(pixels, pixels_of(together)[index])
        assert together.slots == 4
        assert together.timing["search_s"] > 0


def test_an_unexpected_error_ends_the_inputs_under_way_and_no_others(face, prior, monkeypatch):
    """The search breaks down while the first two inputs are in it; the third is searched."""
    real, broken = streaming.search_samples, []

    def break_once(*words):
        for tick in real(*words):
            if not broken:
                broken.append(True)
                raise RuntimeError("something else")
            yield tick

    monkeypatch.setattr(streaming, "search_samples", break_once)
    config = SearchConfig(steps=2, batch=4)
    outcomes = [
        outcome
        for _, outcome in streaming.search_images(requests_of([face, face, face]), prior, config)
    ]
    assert [type(each).__name__ for each in outcomes] == ["RuntimeError", "RuntimeError", "Result"]


def test_a_sample_that_was_started_again_is_named(face, prior, monkeypatch):
    def again(*words):
        for tick in real_search(*words):
            found = [replace(each, restarts=2 * each.job.index) for each in tick.found]
            yield replace(tick, found=found)

    real_search = streaming.search_samples
    monkeypatch.setattr(streaming, "search_samples", again)
    result = search(face, prior, [0, 1], steps=2)
    assert result.notes == ("sample 1 was started again 2 times: its loss was not finite",)


def test_the_chains_of_a_sampler_are_described(face, prior, tmp_path):
    """Noise and diagnostics from the sampler to the result, the record and the page."""
    result = search(face, prior, [0, 2, 3], method="langevin", steps=30)
    rounding = (1 / (12 * 255**2)) ** 0.5
    assert all(sample.sigma >= rounding * 0.999 for sample in result.samples_list)
    found = result.diagnostics
    assert found["samples"] == [0, 2, 3]
    assert found["draws"] == 6  # the last fifth of the steps
    assert len(found["r_hat"]["coordinates"]) == len(found["ess"]["coordinates"]) == 8
    folder = result.save(tmp_path / "out")
    document = json.loads((folder / "result.json").read_text())
    assert document["diagnostics"] == found
    assert [s["sigma"] for s in document["samples"]] == [s.sigma for s in result.samples_list]
    page = (folder.parent / "index.html").read_text()
    assert "largest split R-hat" in page
    assert "They have not mixed" in page
    assert "alone" not in page
    search(face, prior, [1], method="langevin", steps=30).save(tmp_path / "out")
    assert "(of #1 alone, searched last)" in (folder.parent / "index.html").read_text()
    assert search(face, prior, [0]).diagnostics is None


def test_no_target_for_a_method_that_takes_all_its_steps():
    with pytest.raises(UsageError, match="--target-db has no effect on --method langevin"):
        SearchConfig(method="langevin", target_db=40)
