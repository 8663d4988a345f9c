"""The Ray cluster of a call: how it is reached or started, and what of it each worker has."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator

from pulse_sr.errors import SetupError, UsageError, first_line

log = logging.getLogger(__name__)

#: Threads of a worker on a CPU where nobody says how many workers there are.
_THREADS = 4
#: A cluster of this machine gets so many tries to come up: Ray gives each half a minute alone.
_TRIES = 3


def shares(workers: int | None, device: str) -> tuple[int, dict[str, int]]:
    """How many actors there are, and what of a machine each has.

    Raises:
        UsageError: the cluster has not got so much.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if device.startswith("cuda") or (device == "auto" and gpus):
        if gpus < (workers or 1):
            raise UsageError(
                f"--workers {workers or 1} on GPUs: the cluster has {gpus}", "--device cpu"
            )
        return workers or gpus, {"num_gpus": 1, "num_cpus": 1}
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    most = min(_THREADS, max(cpus)) if workers is None else max(cpus)
    for threads in range(most, 0, -1):
        count = sum(each // threads for each in cpus)
        if count >= (workers or 1):
            return workers or count, {"num_cpus": threads}
    raise UsageError(
        f"--workers {workers or 1}: the cluster has {sum(cpus)} CPUs", "one worker for each at most"
    )


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster: that of the calling program if it has one, else one of our own.

    Raises:
        SetupError: the cluster can not be reached or started.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    # Read when the processes of a cluster start, and there is no argument for it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    before = signal.getsignal(signal.SIGTERM)
    try:
        _connect(address)
    except Exception as error:  # Ray raises a plain one where its own processes do not come up
        raise SetupError(
            f"the Ray cluster {address} can not be used: {first_line(error)}",
            "ray status --address HOST:PORT; RAY_AUTH_MODE=token if it wants a token",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own ends the process without our words
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    import ray

    for left in reversed(range(_TRIES if address == "local" else 1)):
        try:
            ray.init(
                address,
                include_dashboard=False,
                log_to_driver=log.isEnabledFor(logging.DEBUG),
                logging_level=logging.ERROR,
            )
            return
        except Exception as error:
            ray.shutdown()
            if not left:
                raise
            log.warning("Ray did not start, once more: %s", first_line(error))
