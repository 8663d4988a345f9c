"""Several processes that train one model: who is who, and what they tell each other.

`torchrun` starts the processes and names them in the environment. Each computes its part of every
batch; gradients are averaged before the optimizer steps, so that all hold the same weights. This is
done here, once for each backward pass, and not by a wrapper around the networks: gradient penalties
call the network inside the loss, and a wrapper would average at the wrong moment or not at all.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from pulse_sr.errors import SetupError

#: The first process decodes the images while the others wait for it.
PATIENCE = datetime.timedelta(hours=3)


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
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SetupError(
            f"the {environment['WORLD_SIZE']} processes could not be joined ({reason})",
            "start them with: torchrun --nproc-per-node N -m pulse_sr train-prior ...",
        ) from error
    local = int(environment.get("LOCAL_RANK", "0"))
    return Processes(dist.get_rank(), dist.get_world_size(), local)


def leave_processes() -> None:
    """Undo `join_processes`."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
