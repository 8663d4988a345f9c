"""How a batch is dealt out so that a step fits into a limit of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tiny_training import trainer_in

from pulse_sr.errors import UsageError
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training import memory
from pulse_sr.training.memory import (
    HEADROOM,
    MemoryPlan,
    bytes_per_image,
    fit_memory,
    fit_on_device,
    fixed_bytes,
    plan_memory,
    saved_bytes,
)

WIDE = StyleGAN2Config(32, 16, 16, 2, (16, 16, 16, 16))


@pytest.fixture
def task(tmp_path):
    return trainer_in(tmp_path / "run", network=WIDE, batch=32, augment="off").task


def test_what_is_always_there_is_counted_by_hand(task):
    """Weights, gradients and two moments of both networks, and the average, 4 bytes each."""
    sizes = [
        sum(p.numel() for p in network.parameters())
        for network in (task.gan.objective.generator, task.gan.objective.discriminator)
    ]
    assert fixed_bytes(task) == 4 * (4 * sum(sizes) + sizes[0])


def test_saved_tensors_are_counted_once_and_weights_not_at_all(task):
    """relu saves its output, the product its other factor, which is the same tensor."""
    x = torch.zeros(1000, requires_grad=True)

    def loss():
        y = F.relu(x)
        return (y * y.detach().clone()).sum()

    assert saved_bytes(task, loss) == 2 * 4000
    weight = task.gan.objective.generator.synthesis.b4.const
    assert saved_bytes(task, lambda: (weight * weight).sum()) == 0


def test_what_a_step_saves_grows_with_the_images(task):
    small, large = (bytes_per_image(task, count) for count in (4, 16))
    assert small == pytest.approx(large, rel=0.05)
    pixels = 32 * 32 * 16 * 4  # bytes of one feature map at full size
    assert 4 * pixels < large < 40 * pixels


def test_the_fewest_parts_that_fit_are_taken(task):
    each, fixed = bytes_per_image(task, 4), fixed_bytes(task)

    def limit(images):
        return fixed + int(HEADROOM * each * images) + 1000

    for images, parts in ((32, 1), (31, 2), (16, 2), (9, 4), (4, 8)):
        plan = plan_memory(task, limit(images), 32)
        assert (plan.micro_steps, plan.recompute) == (parts, False)
        assert plan.bytes <= limit(images)


def test_activations_are_recomputed_only_when_they_must_be(task):
    """Then the penalty, which is differentiated twice, decides what is needed."""
    kept = bytes_per_image(task, 4)
    task.gan.objective.set_recompute(True)
    recomputed = bytes_per_image(task, 4)
    assert recomputed < 0.9 * kept
    between = fixed_bytes(task) + int(HEADROOM * 4 * (kept + recomputed) / 2)
    plan = plan_memory(task, between, 32)
    assert (plan.micro_steps, plan.recompute) == (8, True)


def test_too_little_memory_is_said_with_what_is_needed(task):
    with pytest.raises(UsageError, match=r"0.00 GB is too little.*takes 0\.0[0-9] GB") as caught:
        plan_memory(task, 1000, 32)
    assert "--resolution" in caught.value.hint


def test_the_passes_that_are_tried_change_nothing(tmp_path):
    """FastGAN's batch norm and spectral norm move in every forward pass."""
    options = {"loss": "hinge", "gamma": 0.0, "reconstruction": "l1", "augment": "off"}
    task = trainer_in(tmp_path, network=FastGANConfig(64, ngf=4), **options).task

    def tensors():
        modules = task.modules().values()
        return [each.clone() for module in modules for each in module.state_dict().values()]

    before = tensors()
    fit_memory(task, 10**9)
    assert all(map(torch.equal, before, tensors()))
    for loss in task.probes(4):
        loss()
    assert not all(map(torch.equal, before, tensors()))


PEAK = """
import sys
import torch
from pathlib import Path
from pulse_sr.devices import keep_freed_memory
import tiny_training as tiny
from pulse_sr.bench.frame import peak_memory_mb
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training.memory import fit_memory

torch.set_num_threads(1)
network = StyleGAN2Config(64, 16, 16, 2, (32, 32, 32, 32, 32))
options = {"network": network, "batch": 64, "augment": "off", "images": tiny.noise_images(64, 64)}
trainer = tiny.trainer_in(Path(sys.argv[1]), **options)
list(trainer.train(tiny.schedule(0)))
small = tiny.trainer_in(Path(sys.argv[1]) / "small", **options | {"batch": 4})
small.task.gan.run(torch.zeros(4, 3, 64, 64), 64)  # what any step loads
cpu = torch.device("cpu")
before = peak_memory_mb(cpu)
plan = fit_memory(trainer.task, int(float(sys.argv[2])))
for shown in (0, 64):
    trainer.task.gan.run(torch.zeros(64, 3, 64, 64), shown)
print(plan.micro_steps, int((peak_memory_mb(cpu) - before) * 2**20))
"""


def test_a_process_stays_within_its_limit(tmp_path):
    """A step that takes more than 300 MB in one part, within 200 MB: by the resident set."""
    found = {}
    for limit in ("200e6", "1e10"):
        words = [sys.executable, "-c", PEAK, str(tmp_path / limit), limit]
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=Path(__file__).parent,
            check=True,
        )
        found[limit] = [int(word) for word in done.stdout.split()]
    assert found["1e10"][0] == 1
    assert found["1e10"][1] > 300e6
    assert found["200e6"][0] > 1
    assert found["200e6"][1] < 200e6


class Rows:
    """A task whose images take 16 MiB a tensor, and a quarter of that when it is recomputed."""

    group, smaller, averaged = 1, "take fewer rows", "net"
    config, processes = SimpleNamespace(batch=8, ema_bank=()), SimpleNamespace(count=1)

    def __init__(self, device):
        self.device = torch.device(device)
        self.net = torch.nn.Linear(1, 1).to(device)
        self.recompute = False

    def modules(self):
        return {"net": self.net}

    def optimizers(self):
        return {"sgd": torch.optim.SGD(self.net.parameters())}

    def frozen(self):
        return []

    def deal_out(self, micro_steps, recompute):
        self.micro_steps, self.recompute = micro_steps, recompute

    def probes(self, count):
        rows = count * 2**22 // (4 if self.recompute else 1)
        return [lambda: self.net(torch.ones(rows, 1, device=self.device)).exp().sum()]


def test_smaller_parts_are_tried_until_one_fits_and_then_recomputing(monkeypatch):
    """1,000 bytes an image, 100 when recomputed; above 4 images the device is full."""

    def peak(task, count):
        return None if count > 4 else count * (100 if task.recompute else 1000)

    monkeypatch.setattr(memory, "_peak", peak)
    for limit, expected in (
        (None, (2, False, 4000)),
        (2000, (4, False, 2000)),
        (900, (2, True, 400)),
        (150, (8, True, 100)),
    ):
        found = fit_on_device(Rows("cpu"), MemoryPlan(1, False, 0), limit, 8)
        assert found == MemoryPlan(*expected), limit
    assert fit_on_device(Rows("cpu"), MemoryPlan(4, True, 0), None, 8) == MemoryPlan(4, True, 200)
    with pytest.raises(UsageError, match="does not fit") as caught:
        fit_on_device(Rows("cpu"), MemoryPlan(1, False, 0), 99, 8)
    assert caught.value.hint == "take fewer rows"


@pytest.mark.gpu
def test_a_device_measures_what_a_step_takes():
    task = Rows("cuda")
    whole = fit_memory(task, None)
    assert (whole.micro_steps, whole.recompute, task.micro_steps) == (1, False, 1)
    # The product and its exponential are kept for the way back: 16 MiB an image each, at least.
    assert 8 * 2 * 2**24 < whole.bytes < 8 * 8 * 2**24
    halves = fit_on_device(task, MemoryPlan(1, False, 0), whole.bytes - 1, 8)
    assert (halves.micro_steps, halves.recompute) == (2, False)
    assert halves.bytes == pytest.approx(whole.bytes / 2, rel=0.1)
    recomputed = fit_on_device(task, MemoryPlan(1, False, 0), whole.bytes // 12, 8)
    assert recomputed.recompute
    with pytest.raises(UsageError, match="does not fit"):
        fit_on_device(task, MemoryPlan(1, False, 0), 1000, 8)
