"""Which objects of a checkpoint have a state of their own, and what it may be."""

from argparse import Namespace
from collections import OrderedDict
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

from mmse.checkpoints.allowed import REACHABLE, Refused, are_sizes, is_number, name_of

# Classes of which an empty object may be made, whose state is then built.
MADE = (HistoryBuffer, Namespace)


def build(instance: Any, state: Any) -> None:
    """Set the state of an object, as BUILD does, if the object and the state are as expected.

    Args:
        instance: The object, changed in place.
        state: Its state.

    Raises:
        Refused: Objects of this type are not built, or not with this state.
    """
    kind = type(instance)
    if kind is OrderedDict and type(state) is dict and list(state) == ['_metadata']:
        _check(isinstance(state['_metadata'], dict), kind)
        instance._metadata = state['_metadata']  # of a state dict
    elif kind is HistoryBuffer and type(state) is dict:
        arrays = state.get('_log_history'), state.get('_count_history')
        _check(all(type(array) is np.ndarray for array in arrays), kind)
        _check(type(state.get('max_length')) is int, kind)
        statistics = state.get('statistics_methods', {})
        _check(type(statistics) is dict and set(statistics) <= set(REACHABLE[kind]), kind)
        _check(all(getattr(kind, k) is v for k, v in statistics.items()), kind)
        _check(len(state) == 3 + ('statistics_methods' in state), kind)
        instance.__setstate__(state)
    elif kind is Namespace and type(state) is dict:
        _check(all(type(k) is str and not k.startswith('__') for k in state), kind)
        instance.__dict__.update(state)
    elif kind is np.ndarray and type(state) is tuple and len(state) == 5:
        version, shape, dtype, fortran, data = state
        _check(version == 1 and are_sizes(shape) and is_number(dtype), kind)
        _check(type(data) is bytes and type(fortran) in (bool, int), kind)
        instance.__setstate__((version, shape, dtype, fortran, data))
    elif is_number(instance) and type(state) is tuple and len(state) == 8:
        _check(state[0] == 3 and state[1] in ('<', '>', '|', '='), kind)
        _check(state[2:] == (None, None, None, -1, -1, 0), kind)
        instance.__setstate__(state)
    else:
        _check(False, kind)


def _check(condition: bool, kind: type) -> None:
    if not condition:
        raise Refused(f'a state of {name_of(kind)}')
