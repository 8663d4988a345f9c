"""A CUDA graph emulated on the CPU.

It records the operations of a piece of work as PyTorch dispatches them, those of the backward pass
included, and does them again on the same memory, without any Python of the work. What a CUDA graph
can not hold is an error here as well: an operation whose result the host needs, and a tensor that
the host makes anew every time.
"""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Operations that hand contents of tensors to the host, or shapes that follow from contents.
WAITING = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::nonzero_numpy",
    "aten::_unique2",
}
#: The same as methods that do not dispatch an operation on a CPU.
WAITING_METHODS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu}


class EmulatedGraph:
    """What `pulse_sr.search.capture.CudaGraph` does on a GPU.

    Attributes:
        replays: how often the work was done from the record.
    """

    def __init__(self):
        self.operations, self.replays = [], 0
        self._read = {}

    def warm_up(self, work):
        recorder = _Recorder(strict=False)
        with recorder:
            results = work()
        self._read = recorder.read
        return results

    def record(self, work):
        recorder = _Recorder(strict=True)
        try:
            with recorder, _NoContents():
                results = work()
        finally:
            recorder.undo()  # recording does nothing
        if recorder.read.keys() != self._read.keys():
            raise RuntimeError("the work reads other tensors than the time before")
        self.operations = recorder.operations
        for result in results:
            result.fill_(-7)  # not valid before the replay
        return results

    def replay(self):
        self.replays += 1
        with torch.no_grad():
            for operation in self.operations:
                operation.repeat()


class _Operation:
    """One operation on its tensors, and those that it makes."""

    def __init__(self, function, args, kwargs, results):
        self.function, self.args, self.kwargs = function, args, kwargs
        self.results = [r for r in tree_leaves(results) if isinstance(r, torch.Tensor)]
        self.given = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        places = {place(a) for a in self.given}
        # The others are views, or tensors changed in place.
        self.made = [place(r) not in places for r in self.results]

    @property
    def name(self):
        return self.function._schema.name

    @property
    def written(self):
        """The tensors that it changes in place."""
        arguments = self.function._schema.arguments
        given = dict(zip([a.name for a in arguments], self.args, strict=False)) | self.kwargs
        written = [a.name for a in arguments if a.alias_info and a.alias_info.is_write]
        changed = [given.get(name) for name in written]
        return [t for t in tree_leaves(changed) if isinstance(t, torch.Tensor)]

    def repeat(self):
        results = self.function(*self.args, **self.kwargs)
        fresh = [r for r in tree_leaves(results) if isinstance(r, torch.Tensor)]
        for old, new, made in zip(self.results, fresh, self.made, strict=True):
            if made:
                old.detach().copy_(new)


class _Recorder(TorchDispatchMode):
    """Keeps the operations, what they read that they have not made, and how that was before."""

    def __init__(self, strict):
        super().__init__()
        self.strict, self.operations = strict, []
        self.made, self.read, self.before = set(), {}, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.strict and function._schema.name in WAITING:
            raise RuntimeError(f"the host waits for {function._schema.name}")
        draft = _Operation(function, args, kwargs, ())
        for tensor in draft.written:
            if place(tensor) not in self.made and place(tensor) not in self.before:
                storage = tensor.untyped_storage()
                self.before[place(tensor)] = storage, storage.clone()
        results = function(*args, **kwargs)
        operation = _Operation(function, args, kwargs, results)
        self.read |= {place(t): t for t in operation.given if place(t) not in self.made}
        pairs = zip(operation.results, operation.made, strict=True)
        self.made |= {place(r) for r, made in pairs if made}
        self.operations.append(operation)
        return results

    def undo(self):
        for storage, before in self.before.values():
            storage.copy_(before)


class _NoContents(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in WAITING_METHODS:
            raise RuntimeError(f"the host waits for {function.__name__}")
        return function(*args, **(kwargs or {}))


def place(tensor):
    """Which memory a tensor lies in; valid as long as somebody holds it."""
    return tensor.untyped_storage()._cdata
