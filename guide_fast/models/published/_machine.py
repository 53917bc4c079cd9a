"""A pickle machine that makes inert records of a closed list of names.

It knows the operations that protocols 2 to 5 use for published checkpoints, counts each of them, takes bytes as views
into the file. Nothing is imported, nothing called, no attribute of a Python object looked up.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from guide_fast.errors import IntegrityError, RefusedError
from guide_fast.models.published import _globals
from guide_fast.models.published._records import Budget, Global, Instance, Persistent

_LONGEST_NUMBER = 16  # bytes
_LONGEST_LINE = 512
_KEYS = (str, int, float, bytes, type(None))

Persist = Callable[[Any], Any]


class Machine:
    """One pickle at `position` of `data`; `persist` answers persistent ids, `load` reads torch files in bytes."""

    def __init__(
        self,
        data: memoryview,
        budget: Budget,
        load: _globals.Load,
        *,
        position: int = 0,
        persist: Persist | None = None,
    ) -> None:
        self.position = position
        self._data = data
        self._budget = budget
        self._load = load
        self._persist = persist
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The record of what the pickle describes; `position` is then behind it.

        Raises RefusedError for names or operations off the list, IntegrityError for damage.
        """
        try:
            while True:
                self._budget.operations -= 1
                if self._budget.operations < 0:
                    raise RefusedError("the file takes more steps to read than any published checkpoint; get another")
                code = self._data[self.position]
                self.position += 1
                if code == 0x2E:  # STOP
                    return self._stack.pop()
                step = _STEPS.get(code)
                if step is None:
                    raise RefusedError(
                        f"the file uses pickle operation {code:#04x}, which no published checkpoint needs"
                    )
                step(self)
        except (IndexError, struct.error):
            raise IntegrityError("the file ends early or is damaged; get it again") from None
        except (UnicodeDecodeError, KeyError) as error:
            raise IntegrityError(f"the file is damaged ({type(error).__name__}); get it again") from None

    # reading

    def _take(self, count: int) -> memoryview:
        if count < 0 or count > len(self._data) - self.position:
            raise IntegrityError(f"the file ends early: {count:,} more bytes were promised; get it again")
        start, self.position = self.position, self.position + count
        return self._data[start : self.position]

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        window = bytes(self._data[self.position : self.position + _LONGEST_LINE])
        end = window.find(b"\n")
        if end < 0:
            raise IntegrityError("the file ends early or is damaged; get it again")
        self.position += end + 1
        return window[:end].decode()

    def _text(self, layout: str) -> None:
        count = self._number(layout)
        self._budget.text(count)
        self._stack.append(bytes(self._take(count)).decode())

    # building

    def _above_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise RefusedError(f"the file appends to a {type(target).__name__}, which no published checkpoint does")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise RefusedError(f"the file sets items of a {type(target).__name__}, which no published checkpoint does")
        if len(items) % 2:
            raise IndexError
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _KEYS):  # hashing nested tuples can take for ever
                raise RefusedError(f"the file has a {type(key).__name__} as a key, which no published checkpoint has")
            target[key] = value

    def _build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Instance):
            target.state = state
        elif not isinstance(target, dict | Persistent):  # _metadata of a state dict, nothing of a persistent object
            what = str(target) if isinstance(target, Global) else f"a {type(target).__name__}"
            raise RefusedError(f"the file puts a state into {what}, which no published checkpoint does")

    def _call(self) -> None:
        arguments = self._stack.pop()
        for argument in arguments if isinstance(arguments, tuple) else ():  # a call may copy each of them
            if isinstance(argument, list | tuple | dict):
                self._budget.operations -= len(argument)
            elif isinstance(argument, str):
                self._budget.text(len(argument))
        self._stack[-1] = _globals.call(self._stack[-1], arguments, self._load)

    def _named(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise RefusedError("the file computes a name, which no published checkpoint does")
        self._stack.append(_globals.resolve(module, name))

    def _persistent(self) -> None:
        if self._persist is None:
            raise RefusedError("the file refers to an object outside it, which no published checkpoint does")
        self._stack.append(self._persist(self._stack.pop()))

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _remember(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _whole(self, count: int) -> None:
        if count > _LONGEST_NUMBER:
            raise RefusedError(f"the file has a whole number of {count} bytes; {_LONGEST_NUMBER} are allowed")
        self._stack.append(int.from_bytes(self._take(count), "little", signed=True))

    def _protocol(self) -> None:
        version = self._number("<B")
        if version > 5:
            raise IntegrityError(f"the file is a pickle of protocol {version}; 5 is the newest, get the file again")


def _push(make: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    def step(machine: Machine) -> None:
        value = make(machine)  # first: taking what lies above a mark changes which stack is the current one
        machine._stack.append(value)

    return step


_STEPS: dict[int, Callable[[Machine], Any]] = {
    ord(code): step
    for code, step in {
        "\x80": lambda m: m._protocol(),
        "\x95": lambda m: m._take(8),  # FRAME: a hint for streams
        "(": lambda m: m._mark(),
        "0": lambda m: m._stack.pop(),
        "1": lambda m: m._above_mark(),
        "2": lambda m: m._stack.append(m._stack[-1]),
        "N": _push(lambda m: None),
        "\x88": _push(lambda m: True),
        "\x89": _push(lambda m: False),
        "J": _push(lambda m: m._number("<i")),
        "K": _push(lambda m: m._number("<B")),
        "M": _push(lambda m: m._number("<H")),
        "G": _push(lambda m: m._number(">d")),
        "\x8a": lambda m: m._whole(m._number("<B")),
        "\x8b": lambda m: m._whole(m._number("<i")),
        "X": lambda m: m._text("<I"),
        "\x8c": lambda m: m._text("<B"),
        "\x8d": lambda m: m._text("<Q"),
        "U": lambda m: m._text("<B"),  # Python 2's byte strings: names here
        "T": lambda m: m._text("<I"),
        "B": _push(lambda m: m._take(m._number("<I"))),
        "C": _push(lambda m: m._take(m._number("<B"))),
        "\x8e": _push(lambda m: m._take(m._number("<Q"))),
        "\x96": _push(lambda m: m._take(m._number("<Q"))),
        ")": _push(lambda m: ()),
        "]": _push(lambda m: []),
        "}": _push(lambda m: {}),
        "\x8f": _push(lambda m: []),  # EMPTY_SET: its members are kept in a list
        "t": _push(lambda m: tuple(m._above_mark())),
        "l": _push(lambda m: m._above_mark()),
        "\x91": _push(lambda m: m._above_mark()),
        "\x85": lambda m: m._tuple(1),
        "\x86": lambda m: m._tuple(2),
        "\x87": lambda m: m._tuple(3),
        "a": lambda m: m._append([m._stack.pop()]),
        "e": lambda m: m._append(m._above_mark()),
        "\x90": lambda m: m._append(m._above_mark()),
        "s": lambda m: m._set([m._stack.pop(), m._stack.pop()][::-1]),
        "u": lambda m: m._set(m._above_mark()),
        "q": lambda m: m._remember(m._number("<B")),
        "r": lambda m: m._remember(m._number("<I")),
        "\x94": lambda m: m._remember(len(m._memo)),
        "h": _push(lambda m: m._memo[m._number("<B")]),
        "j": _push(lambda m: m._memo[m._number("<I")]),
        "c": _push(lambda m: _globals.resolve(m._line(), m._line())),
        "\x93": lambda m: m._named(),
        "R": lambda m: m._call(),
        "\x81": lambda m: m._call(),
        "b": lambda m: m._build(),
        "Q": lambda m: m._persistent(),
    }.items()
}
