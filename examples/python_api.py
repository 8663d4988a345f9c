"""The main job from Python: several faces for one low-resolution input, and how far they differ."""

from pathlib import Path
from tempfile import mkdtemp

import pulse_sr

here = Path(__file__).parent
prior = pulse_sr.load_prior()
result = pulse_sr.super_resolve(here / "face_lr.png", prior=prior, samples=2, batch=2, seed=0)

print(f"{len(result.samples_list)} samples of {prior.resolution} px from {prior.name}")
for sample in result.samples_list:
    print(f"  {sample.lr_psnr_search:.1f} dB by search, {sample.lr_psnr:.1f} dB as written")
print(f"mean pixel deviation {result.std.mean():.3f}")
print(f"written to {result.save(mkdtemp())}")
