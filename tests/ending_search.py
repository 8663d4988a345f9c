"""A stand-in for the search that ends its own process for some inputs, as the kernel may do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import fake_search


class Ending:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return _end, ()


def _end():
    os.kill(os.getpid(), signal.SIGKILL)


_STREAM = fake_search.one_by_one(fake_search.search)


def search(requests, prior, config, progress=None, samples=None):
    """Ends its process at every input named poison, and at one named once if it is the first time.

    What was not told by then is lost. The place where the first time is noted is beside the input.
    """
    for request in requests:
        path = Path(request.image.path)
        noted = path.with_suffix(".noted")
        if path.stem.startswith("poison") or (path.stem.startswith("once") and not noted.exists()):
            with open(noted, "a") as file:
                file.write("ended\n")
            os.kill(os.getpid(), signal.SIGKILL)
        yield from _STREAM([request], prior, config)
