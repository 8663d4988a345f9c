"""Checkpoints in the layout of other programs, written without those programs.

As a script it writes a full-size StyleGAN2 with random weights as NVIDIA's releases do:

    python tests/foreign_checkpoints.py stylegan2-f.pkl --resolution 1024
"""

from __future__ import annotations

import argparse
import collections
import io
import math
import pickle

import numpy as np
import torch
from torch import nn

from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config


class Call:
    """Pickles as a call of a function by name, whatever is installed here."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Instance:
    """Pickles as an object of a class by name, with a state."""

    def __init__(self, kind, state):
        self.kind, self.state = kind, state


def named(module, name):
    """A function or class that pickles by that name; its module need not exist."""
    return type(name, (), {"__module__": module, "__qualname__": name})


def pickled(value, protocol):
    """Like pickle.dumps, but trusting that the names that it writes can be found."""
    stream = io.BytesIO()
    pickler = pickle._Pickler(stream, protocol)

    def save_global(obj, name=None):
        module, name = obj.__module__, obj.__qualname__
        if protocol >= 4:
            pickler.save(module)
            pickler.save(name)
            pickler.write(pickle.STACK_GLOBAL)
        else:
            pickler.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        pickler.memoize(obj)

    def save_instance(_, instance):
        save_global(instance.kind)
        pickler.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
        pickler.memoize(instance)
        pickler.save(instance.state)
        pickler.write(pickle.BUILD)

    pickler.save_global = save_global
    table = {type: lambda _, obj: save_global(obj), Instance: save_instance}
    pickler.dispatch = {**pickle._Pickler.dispatch, **table}
    pickler.dump(value)
    return stream.getvalue()


# NVIDIA's PyTorch releases

BUFFERS = {"resample_filter", "noise_const", "w_avg", "running_mean", "running_var", "freqs"}
BUFFERS |= {"num_batches_tracked", "weight_u", "weight_v", "phases", "transform"}


def easy_dict(**entries):
    return collections.OrderedDict(entries)


def persistent(class_name, state):
    meta = {
        "type": "class",
        "version": 6,
        "module_src": "raise SystemExit('the source text was executed')",
        "class_name": class_name,
        "state": state,
    }
    return Call(named("torch_utils.persistence", "_reconstruct_persistent_obj"), meta)


def plain_module(class_name, state):
    module, _, name = class_name.rpartition(".")
    return Instance(named(module, name), state)


def module_tree(weights, make, name_of, attributes, path=""):
    """The modules that a `state_dict` comes from, with the attributes that `nn.Module` has."""
    own, inner = {}, collections.OrderedDict()
    for key, value in weights.items():
        head, _, rest = key.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            own[head] = value
    state = nn.Module().__dict__ | attributes(path)
    state["_parameters"] = {k: nn.Parameter(v) for k, v in own.items() if k not in BUFFERS}
    state["_buffers"] = {k: v for k, v in own.items() if k in BUFFERS}
    state["_modules"] = collections.OrderedDict(
        (name, module_tree(part, make, name_of, attributes, f"{path}.{name}".strip(".")))
        for name, part in inner.items()
    )
    return make(name_of(path), state)


def nvidia_pickle(weights, discriminator=None, *, c_dim=0, lr_multiplier=0.01, protocol=4):
    """A snapshot as stylegan2-ada-pytorch writes it."""
    width = weights["mapping.fc0.weight"].shape[1] if "mapping.fc0.weight" in weights else 32
    top = {
        "c_dim": c_dim,
        "img_resolution": 32,
        "_init_args": (),
        "_init_kwargs": easy_dict(z_dim=width, mapping_kwargs=easy_dict(num_layers=8)),
    }

    def attributes(path):
        if path == "":
            return top
        if path.startswith("mapping.fc"):
            gain = lr_multiplier / math.sqrt(weights[f"{path}.weight"].shape[1])
            return {"activation": "lrelu", "weight_gain": gain, "bias_gain": lr_multiplier}
        return {}

    def name_of(path):
        return {"": "Generator", "mapping": "MappingNetwork"}.get(path, "SynthesisLayer")

    network = module_tree(weights, persistent, name_of, attributes)
    judge = module_tree(discriminator or {}, persistent, lambda _: "Discriminator", lambda _: {})
    return pickled(
        {
            "G": network,
            "D": judge,
            "G_ema": network,
            "augment_pipe": None,
            "training_set_kwargs": easy_dict(class_name="training.dataset.ImageFolderDataset"),
        },
        protocol,
    )


def projected_gan_pickle(weights, resolution):
    """A snapshot of Projected GAN: modules that are pickled whole, without persistent classes."""
    names = {
        "": "pg_modules.networks_fastgan.Generator",
        "synthesis": "pg_modules.networks_fastgan.FastganSynthesis",
    }

    def attributes(path):
        own = {"c_dim": 0, "img_resolution": resolution}
        return own if path in names else {}

    network = module_tree(
        weights,
        plain_module,
        lambda path: names.get(path, "torch.nn.modules.container.Sequential"),
        attributes,
    )
    judge = plain_module("pg_modules.discriminator.ProjectedDiscriminator", nn.Module().__dict__)
    return pickled({"G": network, "D": judge, "G_ema": network}, 4)


# NVIDIA's TensorFlow release


def tensorflow_pickle(weights, lr_multiplier=0.01):
    """Three networks of StyleGAN2's official TensorFlow release, from PyTorch's names."""
    mapping, synthesis, top = [], [], []
    for key, value in weights.items():
        target = {"mapping": mapping, "synthesis": synthesis}.get(key.split(".")[0])
        name, array = _tensorflow_variable(key, value.numpy())
        if name is not None:
            (top if key == "mapping.w_avg" else target).append((name, array))

    def network(name, variables, **components):
        state = {
            "version": 4,
            "name": name,
            "static_kwargs": easy_dict(mapping_lrmul=lr_multiplier),
            "components": easy_dict(**components),
            "build_module_src": "raise SystemExit('the source text was executed')",
            "build_func_name": "G_main",
            "variables": variables,
        }
        return Instance(named("dnnlib.tflib.network", "Network"), state)

    parts = {"mapping": network("G_mapping", mapping), "synthesis": network("G_s", synthesis)}
    whole = network("Gs", top, **parts)
    return pickled((whole, network("D", []), whole), 4)


def _tensorflow_variable(key, array):
    part, *path, leaf = key.split(".")
    if leaf == "w_avg":
        return "dlatent_avg", array
    if leaf == "resample_filter":
        return None, array
    if part == "mapping":
        number = path[0].removeprefix("fc")
        return f"Dense{number}/{leaf}", array.T if leaf == "weight" else array
    side = int(path[0][1:])
    if leaf == "const":
        return f"{side}x{side}/Const/const", array[None]
    layer = path[1]
    if leaf == "noise_const":
        number = 2 * int(math.log2(side)) - (5 if layer == "conv0" else 4)
        return f"noise{number}", array[None, None]
    theirs = {"conv0": "Conv0_up", "conv1": "Conv" if side == 4 else "Conv1", "torgb": "ToRGB"}
    prefix = f"{side}x{side}/{theirs[layer]}"
    if path[-1] == "affine":
        return f"{prefix}/mod_{leaf}", array.T if leaf == "weight" else array - 1
    if leaf == "weight":
        array = array.transpose(2, 3, 1, 0)
        array = array[::-1, ::-1] if layer == "conv0" else array
    return f"{prefix}/{leaf}", np.ascontiguousarray(array)


def main():
    parser = argparse.ArgumentParser(description="Write a StyleGAN2 with random weights.")
    parser.add_argument("file")
    parser.add_argument("--resolution", type=int, default=1024)
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = Generator(StyleGAN2Config.from_base(options.resolution))
    with torch.no_grad():
        for block in generator.synthesis.blocks:
            block.torgb.weight.mul_(0.25)
    with open(options.file, "wb") as file:
        file.write(nvidia_pickle(generator.state_dict()))


if __name__ == "__main__":
    main()
