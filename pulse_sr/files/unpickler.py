"""Reading pickles as data: no name in one is ever imported, called or looked up.

A pickle is a program for a small stack machine. This one runs it over plain containers. The
functions that a file may call stand in a table and are replaced by functions of ours; objects of
the classes that checkpoints consist of become `Record`s, a class name and a state. Any other name
refuses the file. The machine takes the operations from `pickletools.genops`, which only decodes;
an operation that is not in `_OPERATIONS` (extension codes, old-style instances, out-of-band
buffers) refuses the file too.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from pulse_sr.errors import first_line

#: Largest number of operations, and nesting of what comes out.
MAX_OPERATIONS, MAX_DEPTH = 2_000_000, 200
#: torch writes one whole number of ten bytes; nothing longer is needed.
MAX_INTEGER_BITS = 128

#: What functions of the table raise for arguments that make no sense; RuntimeError is torch's.
_WRONG_ARGUMENTS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    OverflowError,
    RuntimeError,
)
#: What a call may copy.
_COPIED = (str, bytes, bytearray, list, tuple, set, dict)

_MODULE, _NAME = re.compile(r"\w+(\.\w+)*", re.ASCII), re.compile(r"[A-Za-z_]\w*", re.ASCII)


class Forbidden(Exception):
    """The pickle does what no model file needs to do; the message says what."""


class Damaged(Exception):
    """The pickle is not a whole, valid one; the message says why."""


@dataclass(frozen=True)
class Global:
    """A name as it stands in the file, `module.name`: not what it means."""

    name: str


@dataclass(eq=False)
class Record:
    """An object of a class of somebody else's program.

    Attributes:
        class_name: `module.name`.
        state: what the object was built from, most often its attributes.
    """

    class_name: str
    state: Any = None

    def set_state(self, state: Any) -> None:
        """Takes what the pickle gives the object, once."""
        if self.state is not None:
            raise Forbidden(f"an object of {self.class_name} is built twice")
        self.state = state


Constructor = Callable[..., Any]


class Unpickler:
    """Runs one pickle.

    Args:
        stream: positioned at its beginning; afterwards right behind its end.
        constructors: what stands for the functions and classes that may be called, by name. They
            get the arguments of the file, may raise `Forbidden` or `Damaged`, and return data; data
            with a method `set_state` takes the state that a pickle gives an object.
        is_record: whether objects of a class `module.name` become records.
        size: of the pickle in bytes. Calls may be given twice as many bytes and entries in all, so
            that copying one thing over and over fills no memory.
        persistent: from a persistent id to data; None: the file has none.
    """

    def __init__(
        self,
        stream: IO[bytes],
        constructors: Mapping[str, Constructor],
        is_record: Callable[[str], bool],
        size: int,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.stream, self.constructors = stream, constructors
        self.is_record, self.persistent = is_record, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.left = 2 * size + 1024

    def load(self) -> Any:
        """The object that the pickle describes.

        Raises:
            Forbidden: it holds what is not allowed.
            Damaged: it is not a valid pickle.
        """
        for count, (opcode, argument, _) in enumerate(self._operations()):
            if count >= MAX_OPERATIONS:
                raise Forbidden(f"more than {MAX_OPERATIONS:,} operations")
            operation = _OPERATIONS.get(opcode.name)
            if operation is None:
                name = f" {argument[:80]!a}" if isinstance(argument, str) else ""
                raise Forbidden(f"the operation {opcode.name}{name}")
            operation(self, argument)
        [result] = self._pop(1)
        _check_depth(result)
        return result

    def _operations(self) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
        try:
            yield from pickletools.genops(self.stream)
        except (ValueError, OverflowError, MemoryError) as error:
            raise Damaged((str(error).splitlines() or ["it ends early"])[0]) from error

    # the stack

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def integer(self, value: int) -> None:
        """Puts a whole number on the stack."""
        if value.bit_length() > MAX_INTEGER_BITS:
            raise Forbidden(f"a whole number of {value.bit_length()} bits")
        self.push(value)

    def mark(self, _: Any) -> None:
        """Remembers the height of the stack."""
        self.marks.append(len(self.stack))

    def pop(self, _: Any) -> None:
        """Drops a value, or a mark where nothing stands above it."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self._pop(1)

    def pop_mark(self, _: Any) -> None:
        """Drops what stands above the last mark."""
        self._since_mark()

    def duplicate(self, _: Any) -> None:
        """Puts the last value on the stack again."""
        self.push(self._last())

    def _last(self, kind: type | tuple[type, ...] = object) -> Any:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) <= floor:
            raise Damaged("it takes from an empty stack")
        if not isinstance(self.stack[-1], kind):
            raise Forbidden(f"it adds to an object of the kind {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _pop(self, count: int) -> list[Any]:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - count < floor:
            raise Damaged("it takes from an empty stack")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _since_mark(self) -> list[Any]:
        if not self.marks:
            raise Damaged("a mark is missing")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    # what was seen before

    def remember(self, index: Any) -> None:
        """Keeps the last value under a number; without one, under the next."""
        self.memo[len(self.memo) if index is None else int(index)] = self._last()

    def recall(self, index: Any) -> None:
        """Puts a value that was kept on the stack."""
        try:
            self.push(self.memo[int(index)])
        except KeyError:
            raise Damaged(f"nothing was kept as number {index}") from None

    # containers

    def tuple_of(self, count: int) -> None:
        """Makes a tuple of the last values."""
        self.push(tuple(self._pop(count)))

    def collect(self, kind: type) -> None:
        """Makes a tuple, list or dictionary of what stands above the last mark."""
        values = self._since_mark()
        if kind is dict:
            target: dict[Any, Any] = {}
            _set_items(target, values)
            self.push(target)
        elif kind is frozenset:
            self.push(frozenset(map(_key, values)))
        else:
            self.push(kind(values))

    def append(self, _: Any) -> None:
        """Adds one value to a list."""
        values = self._pop(1)
        self._last(list).extend(values)

    def extend(self, _: Any) -> None:
        """Adds values to a list."""
        values = self._since_mark()
        self._last(list).extend(values)

    def add(self, _: Any) -> None:
        """Adds values to a set."""
        values = self._since_mark()
        self._last(set).update(map(_key, values))

    def set_item(self, _: Any) -> None:
        """Sets one entry of a dictionary."""
        values = self._pop(2)
        _set_items(self._last(dict), values)

    def set_items(self, _: Any) -> None:
        """Sets entries of a dictionary."""
        values = self._since_mark()
        _set_items(self._last(dict), values)

    # names and objects

    def name(self, argument: str) -> None:
        """Puts a name on the stack: pickletools gives "module name"."""
        module, _, name = argument.partition(" ")
        self.push(self._allowed(module, name))

    def name_of_stack(self, _: Any) -> None:
        """Puts the name on the stack whose two parts stand there."""
        module, name = self._pop(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Forbidden("a name that is no text")
        self.push(self._allowed(module, name))

    def _allowed(self, module: str, name: str) -> Global:
        full = f"{module}.{name}"
        proper = _MODULE.fullmatch(module) and _NAME.fullmatch(name)
        if not proper or not (full in self.constructors or self.is_record(full)):
            raise Forbidden(f"the name {full[:80]!a}")
        return Global(full)

    def call(self, _: Any) -> None:
        """Calls what stands for a function: only functions of the table."""
        function, arguments = self._pop(2)
        constructor = self.constructors.get(getattr(function, "name", ""))
        if not isinstance(function, Global) or constructor is None:
            raise Forbidden(f"a call of {describe(function)}")
        self.push(self._called(constructor, arguments))

    def new(self, _: Any) -> None:
        """Makes an object of a class: a record, or what stands for the class in the table."""
        self.push(self._new(*self._pop(2)))

    def new_with_keywords(self, _: Any) -> None:
        """Makes an object of a class, as `new` does: keywords are refused."""
        kind, arguments, keywords = self._pop(3)
        if keywords != {}:
            raise Forbidden(f"keywords for {describe(kind)}")
        self.push(self._new(kind, arguments))

    def _new(self, kind: Any, arguments: Any) -> Any:
        if not isinstance(kind, Global):
            raise Forbidden(f"an object of {describe(kind)}")
        if kind.name in self.constructors:
            return self._called(self.constructors[kind.name], arguments)
        if arguments != ():
            raise Forbidden(f"arguments for an object of {kind.name}")
        return Record(kind.name)

    def build(self, _: Any) -> None:
        """Gives an object its state."""
        [state] = self._pop(1)
        target = self._last()
        if isinstance(target, dict):
            return  # attributes of a dictionary: torch keeps versions of modules there
        if not hasattr(target, "set_state"):
            raise Forbidden(f"a state for an object of the kind {type(target).__name__}")
        self._called(target.set_state, (state,))

    def _called(self, constructor: Constructor, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise Forbidden("a call without a tuple of arguments")
        inner = [part for each in arguments if isinstance(each, tuple) for part in each]
        given = [arguments, *arguments, *inner]
        self.left -= sum(len(each) for each in given if isinstance(each, _COPIED))
        if self.left < 0:
            raise Forbidden("calls that copy more than the whole file")
        try:
            return constructor(*arguments)
        except _WRONG_ARGUMENTS as error:
            raise Forbidden(f"arguments that no model file has ({first_line(error)})") from error

    def persistent_id(self, name: str | None) -> None:
        """Puts what a persistent id stands for on the stack."""
        [key] = self._pop(1) if name is None else [name]
        if self.persistent is None:
            raise Forbidden("a persistent id")
        self.push(self.persistent(key))


def new_object(kind: Any, base: Any = None, state: Any = None) -> Record:
    """Stands for `copyreg._reconstructor`, with which old protocols make an object of a class."""
    proper = isinstance(base, Global) and base.name in ("builtins.object", "__builtin__.object")
    if not isinstance(kind, Global) or not proper or state is not None:
        raise Forbidden(f"an object of {describe(kind)} with a state of its base")
    return Record(kind.name)


def _set_items(target: dict[Any, Any], values: list[Any]) -> None:
    if len(values) % 2:
        raise Damaged("a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[_key(key)] = value


def _key(key: Any) -> Any:
    """A key of a dictionary or member of a set, whose hash is quick and takes no recursion."""
    for each in key if isinstance(key, tuple) else (key,):
        plain = each is None or isinstance(each, str | bytes | float | bool | Global)
        if not plain and not (isinstance(each, int) and each.bit_length() < 64):
            raise Forbidden(f"a key of the kind {type(each).__name__}")
    return key


def describe(value: Any) -> str:
    """A name or a text as it stands in the file, of anything else its kind; one short line."""
    if isinstance(value, str):
        return f"{value[:40]!a}"
    return value.name if isinstance(value, Global) else f"an object ({type(value).__name__})"


def _check_depth(result: Any) -> None:
    """Refuses what is nested too deeply, by levels: without recursion, in spite of circles."""
    level, seen = [result], {id(result)}
    for _ in range(MAX_DEPTH):
        found = [inner for each in level for inner in _inside(each)]
        level = []
        for each in found:
            if id(each) not in seen:
                seen.add(id(each))
                level.append(each)
        if not level:
            return
    raise Forbidden(f"containers nested more than {MAX_DEPTH} deep")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.values()]
    if isinstance(value, Record):
        return [value.state]
    return [*value] if isinstance(value, list | tuple) else []


Operation = Callable[[Unpickler, Any], None]


def _constant(value: Any) -> Operation:
    return lambda machine, _: machine.push(value)


def _fresh(kind: type) -> Operation:
    return lambda machine, _: machine.push(kind())


def _collected(kind: type) -> Operation:
    return lambda machine, _: machine.collect(kind)


def _tuple(count: int) -> Operation:
    return lambda machine, _: machine.tuple_of(count)


def _nothing(machine: Unpickler, _: Any) -> None:
    pass


_TEXTS = "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
_BYTES = "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"

_OPERATIONS: dict[str, Operation] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
    **dict.fromkeys([*_TEXTS.split(), *_BYTES.split(), "FLOAT", "BINFLOAT"], Unpickler.push),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2"), Unpickler.integer),
    **dict.fromkeys(("LONG", "LONG1", "LONG4"), Unpickler.integer),
    **{"NONE": _constant(None), "NEWTRUE": _constant(True), "NEWFALSE": _constant(False)},
    **{"EMPTY_TUPLE": _constant(()), "EMPTY_LIST": _fresh(list), "EMPTY_DICT": _fresh(dict)},
    **{"EMPTY_SET": _fresh(set), "FROZENSET": _collected(frozenset)},
    **{"TUPLE": _collected(tuple), "LIST": _collected(list), "DICT": _collected(dict)},
    **{"TUPLE1": _tuple(1), "TUPLE2": _tuple(2), "TUPLE3": _tuple(3)},
    **{"MARK": Unpickler.mark, "POP": Unpickler.pop, "POP_MARK": Unpickler.pop_mark},
    **{"DUP": Unpickler.duplicate, "APPEND": Unpickler.append, "APPENDS": Unpickler.extend},
    **{"ADDITEMS": Unpickler.add, "SETITEM": Unpickler.set_item, "SETITEMS": Unpickler.set_items},
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Unpickler.recall),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Unpickler.remember),
    **{"GLOBAL": Unpickler.name, "STACK_GLOBAL": Unpickler.name_of_stack},
    **{"REDUCE": Unpickler.call, "BUILD": Unpickler.build},
    **{"NEWOBJ": Unpickler.new, "NEWOBJ_EX": Unpickler.new_with_keywords},
    **dict.fromkeys(("PERSID", "BINPERSID"), Unpickler.persistent_id),
}
