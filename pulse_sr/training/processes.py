"""Several processes that train one model: who is who, and what they tell each other.

`torchrun` starts the processes and names them in the environment. Each computes its part of every
batch; gradients are averaged before the optimizer steps, so that all hold the same weights. This is
done here, once for each backward pass, and not by a wrapper around the networks: gradient penalties
call the network inside the loss, and a wrapper would average at the wrong moment or not at all.
"""

from __future__ import annotations

import datetime
import importlib
import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from pulse_sr.errors import SetupError, first_line

#: The first process decodes the images while the others wait for it.
PATIENCE = datetime.timedelta(hours=3)

#: Seconds between two looks at the store.
_PAUSE = 0.02


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: number of this process; 0 writes the files.
        count: how many there are.
        local_rank: number of this process on its machine: which GPU it takes.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            dist.barrier()

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their means over the processes, in one message."""
        if self.count == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def agree(self, value: bool, device: torch.device) -> bool:
        """What the first process says."""
        if self.count == 1:
            return value
        said = torch.tensor(float(value), device=device)
        dist.broadcast(said, 0)
        return bool(said.item())


def join_processes(device_name: str) -> Processes:
    """Join the processes that torchrun started; one of one when it did not.

    Args:
        device_name: "auto", "cpu" or "cuda": decides how they talk (gloo or NCCL).

    Raises:
        SetupError: when the others can not be reached.
    """
    environment = os.environ
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    on_gpu = device_name != "cpu" and torch.cuda.is_available()
    # Its default arguments are the group that there is when it is imported, which optimizers do:
    # that group, and its threads, would live until Python ends, and abort it now and then.
    importlib.import_module("torch.distributed.nn")
    try:
        shared, rank, count = next(iter(dist.rendezvous("env://", timeout=PATIENCE)))
        store = dist.PrefixStore(agree_on_name(shared, rank, count), shared)
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        count = environment["WORLD_SIZE"]
        raise SetupError(
            f"the {count} processes could not be joined ({first_line(error)})",
            "start them with: torchrun --nproc-per-node N -m pulse_sr train-prior ...",
        ) from error
    local = int(environment.get("LOCAL_RANK", "0"))
    return Processes(dist.get_rank(), dist.get_world_size(), local)


def agree_on_name(store: dist.Store, rank: int, count: int) -> str:
    """Agree with the other processes on a name that no earlier start of them has used.

    torchrun keeps its store when it starts processes again, with the addresses of those that died
    (pytorch issue 135712); its count of restarts is not the same on every machine. So each process
    says a random word, the first answers with its own random word, and goes on when all have
    repeated that: an old entry matches no new word.

    Args:
        store: what the processes share; blocks in `get` until the key is there.
        rank: number of this process.
        count: how many there are.

    Returns:
        The word of the first process.

    Raises:
        RuntimeError: when the others do not answer within `PATIENCE`.
    """
    mine = uuid.uuid4().hex
    deadline = time.monotonic() + PATIENCE.total_seconds()
    if rank > 0:
        store.set(f"hello/{rank}", mine)
        while time.monotonic() < deadline:
            heard, name = store.get(f"answer/{rank}").decode().split()
            if heard == mine:
                store.set(f"repeat/{rank}", name)
                if store.check([f"go/{name}"]):
                    return name
            time.sleep(_PAUSE)
        raise RuntimeError("the first process does not answer")
    others = set(range(1, count))
    while others:
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing is heard of processes {sorted(others)}")
        for other in sorted(others):
            if store.check([f"hello/{other}"]):
                heard = store.get(f"hello/{other}").decode()
                store.set(f"answer/{other}", f"{heard} {mine}")
            repeated = [f"repeat/{other}"]
            if store.check(repeated) and store.get(repeated[0]).decode() == mine:
                others.discard(other)
        time.sleep(_PAUSE)
    store.set(f"go/{mine}", "1")
    return mine


def leave_processes() -> None:
    """Undo `join_processes`."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
