"""StyleGAN2 in straight formulas: functions of a dict of weights, grouped convolutions, no tricks.

Written from the paper (Karras et al., CVPR 2020) for tests to compare with; any dtype, plain NCHW.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
FIR = torch.outer(TAPS, TAPS) / TAPS.sum() ** 2


def dense(p, name, x, lr=1.0, activate=False):
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    x = x @ (weight * lr / math.sqrt(weight.shape[1])).t() + bias * lr
    return F.leaky_relu(x, 0.2) * math.sqrt(2) if activate else x


def mapping(p, z, layers, lr=0.01):
    x = z / (z.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for i in range(layers):
        x = dense(p, f"mapping.fc{i}", x, lr, activate=True)
    return x


def fir(x, pad, gain=1.0):
    x = F.pad(x, pad)
    kernel = (FIR.to(x) * gain).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, groups=x.shape[1])


def upsampled(x):
    n, c, h, w = x.shape
    inserted = x.new_zeros(n, c, h, 2, w, 2)
    inserted[:, :, :, 0, :, 0] = x
    return fir(inserted.view(n, c, 2 * h, 2 * w), [2, 1, 2, 1], gain=4)


def modulated(x, weight, styles, demodulate, up=False):
    """One image at a time, each with weights of its own."""
    out = []
    for image, style in zip(x, styles, strict=True):
        w = weight * style[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum(dim=[1, 2, 3], keepdim=True) + 1e-8).sqrt()
        if up:
            y = F.conv_transpose2d(image[None], w.transpose(0, 1), stride=2)
            y = fir(y, [1, 1, 1, 1], gain=4)
        else:
            y = F.conv2d(image[None], w, padding=w.shape[2] // 2)
        out.append(y)
    return torch.cat(out)


def synthesis(p, ws, noise, sides):
    x = p["synthesis.b4.const"].expand(len(ws), -1, -1, -1)
    image, row = None, 0
    for side in sides:
        for conv in ("conv1",) if side == 4 else ("conv0", "conv1"):
            name = f"synthesis.b{side}.{conv}"
            styles = dense(p, f"{name}.affine", ws[:, row])
            x = modulated(x, p[f"{name}.weight"], styles, True, up=conv == "conv0")
            x = x + p[f"{name}.noise_strength"] * noise[row] + p[f"{name}.bias"][:, None, None]
            x = F.leaky_relu(x, 0.2) * math.sqrt(2)
            row += 1
        name = f"synthesis.b{side}.torgb"
        weight = p[f"{name}.weight"]
        styles = dense(p, f"{name}.affine", ws[:, row]) / math.sqrt(weight.shape[1])
        rgb = modulated(x, weight, styles, False) + p[f"{name}.bias"][:, None, None]
        image = rgb if image is None else upsampled(image) + rgb
    return image


def convolved(p, name, x, down=False, activate=True, gain=1.0):
    weight = p[f"{name}.weight"]
    size = weight.shape[2]
    weight = weight / math.sqrt(weight.shape[1] * size * size)
    if down:
        pad = size // 2
        x = fir(x, [pad + 1, pad + 1, pad + 1, pad + 1])
        x = F.conv2d(x, weight, stride=2)
    else:
        x = F.conv2d(x, weight, padding=size // 2)
    if f"{name}.bias" in p:
        x = x + p[f"{name}.bias"][:, None, None]
    return (F.leaky_relu(x, 0.2) * math.sqrt(2) if activate else x) * gain


def discriminator(p, x, sides, group=4):
    """`sides` from the image's own down to 8."""
    x = convolved(p, f"b{sides[0]}.fromrgb", x)
    for side in sides:
        skip = convolved(p, f"b{side}.skip", x, down=True, activate=False, gain=math.sqrt(0.5))
        x = convolved(p, f"b{side}.conv0", x)
        x = skip + convolved(p, f"b{side}.conv1", x, down=True, gain=math.sqrt(0.5))
    n = len(x)
    grouped = x.reshape(min(group, n), -1, *x.shape[1:])
    deviation = (grouped.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=[1, 2, 3])
    deviation = deviation.repeat(min(group, n))[:, None, None, None].expand(-1, 1, 4, 4)
    x = convolved(p, "b4.conv", torch.cat([x, deviation], dim=1))
    x = dense(p, "b4.fc", x.flatten(1), activate=True)
    return dense(p, "b4.out", x)
