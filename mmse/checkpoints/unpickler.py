"""A restricted unpickler for ``torch.load``, the same on every version of torch.

A pickle is a program for a stack machine. Its instructions beyond plain data are those that name
an object (GLOBAL), call one (REDUCE, NEWOBJ), set its state (BUILD), change a container in place
(APPEND, SETITEM, ADDITEMS) and ask for a storage (BINPERSID). Each is checked against the lists in
``mmse.checkpoints.allowed`` and ``mmse.checkpoints.states``. The others that could call something,
and the text instructions of protocol 0, which torch never wrote, are refused.
"""

import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch.serialization import StorageType

from mmse.checkpoints.allowed import NAMED, Allowed, Refused, Unusual, name_of
from mmse.checkpoints.states import MADE, build

# Whether a storage of a key may have so many bytes.
Fits = Callable[[str, int], bool]

_REFUSED = (
    *('PERSID', 'INST', 'OBJ', 'NEWOBJ_EX', 'EXT1', 'EXT2', 'EXT4'),
    *('NEXT_BUFFER', 'READONLY_BUFFER', 'INT', 'LONG', 'FLOAT', 'STRING', 'UNICODE', 'GET', 'PUT'),
)


class Unpickler(pickle._Unpickler):
    """Reads a pickle and never runs what it carries.

    Args:
        file: Where the pickle is read from.
        kwargs: As for ``pickle.Unpickler``.

    Raises:
        Refused: The pickle asks for something that is not allowed.
    """

    fits: ClassVar[Fits]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {**pickle._Unpickler.dispatch}
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> Any:
        module = 'builtins' if module == '__builtin__' else module
        full = f'{module}.{name}'
        if full in NAMED:
            return NAMED[full]
        # Not getattr, which torch answers by importing things.
        if module == 'torch' and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        raise Refused(full)

    def _call(self) -> None:
        args = self.stack.pop()
        function = self.stack[-1]
        if type(function) is not Allowed or type(args) is not tuple:
            raise Refused(f'a call of {name_of(function)}')
        self.stack[-1] = function(*args)

    def _make(self) -> None:
        args = self.stack.pop()
        kind = self.stack.pop()
        if kind not in MADE or args != ():
            raise Refused(f'an object of {name_of(kind)}')
        self.append(kind.__new__(kind))

    def _build(self) -> None:
        state = self.stack.pop()
        build(self.stack[-1], state)

    def _append(self) -> None:
        item = self.stack.pop()
        self._list().append(item)

    def _appends(self) -> None:
        items = self.pop_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        return self._last(list)  # type: ignore[no-any-return]

    def _set_item(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._last(dict, OrderedDict, Counter)[key] = value

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._last(dict, OrderedDict, Counter).update(zip(items[::2], items[1::2], strict=True))

    def _add_items(self) -> None:
        items = self.pop_mark()
        self._last(set).update(items)

    def _last(self, *kinds: type) -> Any:
        if type(self.stack[-1]) not in kinds:
            raise Refused(f'items put into {name_of(self.stack[-1])}')
        return self.stack[-1]

    def _storage(self) -> None:
        identity = self.stack.pop()
        if type(identity) is not tuple or len(identity) not in (5, 6):
            raise Refused('a persistent id that names no storage')
        tag, kind, key, location, size, *view = identity
        if tag not in ('storage', b'storage') or view not in ([], [None]):
            raise Refused(f'a persistent id of the kind {str(tag)[:40]}')
        if kind is torch.UntypedStorage:
            width = 1
        elif type(kind) is StorageType:
            width = torch.empty(0, dtype=kind.dtype).element_size()
        else:
            raise Refused(f'a storage of {name_of(kind)}')
        if type(key) is not str or type(size) is not int or size < 0:
            raise Unusual('a storage without a key or a size')
        if type(location) not in (str, bytes):
            raise Unusual('a storage without a location')
        if not type(self).fits(key, size * width):
            raise Unusual(f'a storage of {size * width} bytes without its bytes')
        self.append(self.persistent_load(identity))

    dispatch.update(
        {
            pickle.REDUCE[0]: _call,
            pickle.NEWOBJ[0]: _make,
            pickle.BUILD[0]: _build,
            pickle.APPEND[0]: _append,
            pickle.APPENDS[0]: _appends,
            pickle.SETITEM[0]: _set_item,
            pickle.SETITEMS[0]: _set_items,
            pickle.ADDITEMS[0]: _add_items,
            pickle.BINPERSID[0]: _storage,
        }
    )


def _refusal(name: str) -> Callable[[Unpickler], None]:
    def refuse(unpickler: Unpickler) -> None:
        raise Refused(f'the pickle instruction {name}')

    return refuse


Unpickler.dispatch.update({getattr(pickle, name)[0]: _refusal(name) for name in _REFUSED})


def pickle_module(fits: Fits) -> Any:
    """What ``torch.load`` takes as its ``pickle_module``.

    Args:
        fits: Whether a storage of a key may have so many bytes.
    """
    asked: set[str] = set()

    def fits_and_is_read(key: str, size: int) -> bool:
        asked.add(key)
        return fits(key, size)

    def load(file: Any, **kwargs: Any) -> Any:
        """Read what surrounds the pickle in the files of torch < 1.6."""
        loaded = unpickler(file, **kwargs).load()
        # The last part is the list of the storages that follow.
        if type(loaded) is list and not asked <= set(loaded):
            raise Unusual('a storage without its bytes')
        return loaded

    unpickler = type('Unpickler', (Unpickler,), {'fits': staticmethod(fits_and_is_read)})
    return SimpleNamespace(__name__=__name__, Unpickler=unpickler, load=load)
