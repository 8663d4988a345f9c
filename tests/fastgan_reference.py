"""One step of FastGAN training at 64 px in plain formulas, float64, NCHW, no code of the package.

Parameters and buffers are dictionaries under the names of the public checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

STARTS = {"init.init.0"}


def spectral(p, name, advance):
    """W / (u' W v), after one power iteration if asked for."""
    weight = p[f"{name}.weight_orig"]
    rows = weight.transpose(0, 1) if name in STARTS else weight
    matrix = rows.reshape(rows.shape[0], -1)
    if advance:
        with torch.no_grad():
            v = matrix.t() @ p[f"{name}.weight_u"]
            p[f"{name}.weight_v"] = v / v.norm()
            u = matrix @ p[f"{name}.weight_v"]
            p[f"{name}.weight_u"] = u / u.norm()
    return weight / (p[f"{name}.weight_u"] @ matrix @ p[f"{name}.weight_v"])


def norm(p, name, x):
    mean = x.mean(dim=[0, 2, 3], keepdim=True)
    var = ((x - mean) ** 2).mean(dim=[0, 2, 3], keepdim=True)
    scale, shift = (p[f"{name}.{k}"].view(1, -1, 1, 1) for k in ("weight", "bias"))
    return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x)


def excite(p, name, low, advance):
    x = F.conv2d(F.adaptive_avg_pool2d(low, 4), spectral(p, f"{name}.main.1", advance))
    x = F.conv2d(x * torch.sigmoid(x), spectral(p, f"{name}.main.3", advance))
    return torch.sigmoid(x)


def enlarge(p, name, x, advance, noise=()):
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    x = F.conv2d(x, spectral(p, f"{name}.1", advance), padding=1)
    if not noise:
        return F.glu(norm(p, f"{name}.2", x), dim=1)
    x = F.glu(norm(p, f"{name}.3", x + p[f"{name}.2.weight"] * noise[0]), dim=1)
    x = F.conv2d(x, spectral(p, f"{name}.5", advance), padding=1)
    return F.glu(norm(p, f"{name}.7", x + p[f"{name}.6.weight"] * noise[1]), dim=1)


def generate(p, z, noise, advance):
    x = F.conv_transpose2d(z[:, :, None, None], spectral(p, "init.init.0", advance))
    x4 = F.glu(norm(p, "init.init.1", x), dim=1)
    x = enlarge(p, "feat_8", x4, advance, noise[:2])
    x = enlarge(p, "feat_16", x, advance)
    x32 = enlarge(p, "feat_32", x, advance, noise[2:])
    x64 = enlarge(p, "feat_64", x32, advance) * excite(p, "se_64", x4, advance)
    small = F.conv2d(x32, spectral(p, "to_32", advance))
    return F.conv2d(x64, spectral(p, "to_big", advance), padding=1), small


def halve(p, name, x, advance):
    y = F.conv2d(x, spectral(p, f"{name}.main.0", advance), stride=2, padding=1)
    return leaky(norm(p, f"{name}.main.1", y))


def halve_two_ways(p, name, x, advance):
    y = halve(p, name, x, advance)
    y = F.conv2d(y, spectral(p, f"{name}.main.3", advance), padding=1)
    y = leaky(norm(p, f"{name}.main.4", y))
    z = F.conv2d(F.avg_pool2d(x, 2), spectral(p, f"{name}.direct.1", advance))
    return (y + leaky(norm(p, f"{name}.direct.2", z))) / 2


def decode(p, name, x, advance):
    for i in (1, 2):
        x = enlarge(p, f"{name}.main.{i}", x, advance)
    return torch.tanh(F.conv2d(x, spectral(p, f"{name}.main.3", advance), padding=1))


def judge(p, big, small, advance=False, quarters=None):
    """Logits `[N, 50]`, and what the decoders make of the image."""
    x = leaky(F.conv2d(big, spectral(p, "down_from_big.0", advance), padding=1))
    x8 = x
    x16 = halve_two_ways(p, "down_16", x8, advance)
    x32 = halve_two_ways(p, "down_32", x16, advance)
    x64 = halve_two_ways(p, "down_64", x32, advance) * excite(p, "se_8_64", x8, advance)
    y = F.conv2d(x64, spectral(p, "rf_big.0", advance))
    y = F.conv2d(leaky(norm(p, "rf_big.1", y)), spectral(p, "rf_big.3", advance))
    s = leaky(F.conv2d(small, spectral(p, "down_from_small.0", advance), stride=2, padding=1))
    s = halve(p, "down_from_small.2", s, advance)
    logits = [y.reshape(-1, 25), F.conv2d(s, spectral(p, "rf_small", advance)).reshape(-1, 25)]
    if quarters is None:
        return torch.cat(logits, dim=1), ()
    parts = torch.stack([cut(each, q) for each, q in zip(x32, quarters, strict=True)])
    decoded = [
        decode(p, "decoder_big", x64, advance),
        decode(p, "decoder_small", s, advance),
        decode(p, "decoder_part", parts, advance),
    ]
    return torch.cat(logits, dim=1), decoded


def cut(x, quarter):
    """0: top left, 1: top right, 2: bottom left, 3: bottom right."""
    half = x.shape[-1] // 2
    top, left = half * (quarter // 2), half * (quarter % 2)
    return x[:, top : top + half, left : left + half]


def l1_at_four_scales(a, b):
    total = 0
    for scale in (1, 2, 4, 8):
        total = total + (F.avg_pool2d(a, scale) - F.avg_pool2d(b, scale)).abs().mean()
    return total / 4


def discriminator_loss(p, real, fake_big, fake_small, draws):
    small = real[:, :, ::2, ::2]
    on_real, decoded = judge(p, real, small, True, draws["quarter"].tolist())
    on_fake, _ = judge(p, fake_big, fake_small)
    whole = F.avg_pool2d(real, 2)
    parts = torch.stack([cut(x, q) for x, q in zip(real, draws["quarter"].tolist(), strict=True)])
    kept = sum(l1_at_four_scales(a, b) for a, b in zip(decoded, (whole, small, parts), strict=True))
    hinge = torch.relu(draws["real_margin"] - on_real).mean()
    hinge = hinge + torch.relu(draws["fake_margin"] + on_fake).mean()
    return hinge + 8 * kept


def first_adam_step(parameter, gradient, rate):
    """The moments are the gradient and its square after correction, whatever the decays."""
    return parameter - rate * gradient / (gradient.abs() + 1e-8)
