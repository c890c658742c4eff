"""Heads and losses of a model that belong to a number of classes."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmse.engine.config.kinds import at
from mmse.engine.config.override import walk
from mmse.utils.errors import UserError
from mmse.utils.text import name_some

COUNTS = ('num_classes', 'num_things_classes')
# Heads whose classes are others than those of the data: RPN's object or not, stuff of COCO.
OTHERS = {'backbone', 'neck', 'rpn_head', 'semantic_head'}


def fit_heads(cfg: Config, below: Config, classes: Sequence[str]) -> None:
    """Give every head of a config's model, and the losses in it, as many classes as the data have.

    A weight for each class follows if the base's are all equal; otherwise they belong to the base's
    classes and are left out, which is logged. One more, for no object, stays.

    Args:
        cfg: The config; changed in place.
        below: What its file inherits.
        classes: The class names of the data.

    Raises:
        UserError: The user sets a number of classes that is not that of the data.
    """
    before = _number_of_classes(below)
    for place, value in list(walk(cfg.model, 'model')):
        path, _, key = place.rpartition('.')
        if key not in (*COUNTS, 'class_weight') or OTHERS & set(path.split('.')):
            continue
        node = at(cfg, path)
        theirs = at(below, place) != value
        if key == 'class_weight':
            if isinstance(value, list | tuple) and not theirs and before is not None:
                node[key] = _weights(value, before, len(classes), place)
        elif theirs and value != len(classes):
            raise UserError(
                f'{place}={value} is set beside own_data, whose data have {len(classes)} classes '
                f'({name_some(classes, 8)}): leave it out, or change the classes'
            )
        elif value == before:
            node[key] = len(classes)


def _number_of_classes(cfg: Config) -> int | None:
    """The number of classes of a model's first head."""
    for place, value in walk(cfg.get('model'), 'model'):
        path, _, key = place.rpartition('.')
        if key in COUNTS and not OTHERS & set(path.split('.')):
            return int(value)
    return None


def _weights(weights: Sequence[float], before: int, now: int, place: str) -> list[float] | None:
    of_classes, rest = list(weights[:before]), list(weights[before:])
    if len(of_classes) < before or len(rest) > 1 or len(set(of_classes)) > 1:
        print_log(
            f'own_data: {place} of the base belongs to its {before} classes and is left out',
            'current',
            level=30,
        )
        return None
    return of_classes[:1] * now + rest


def check_class_weights(model: Any) -> None:
    """Refuse weights in a loss that are not one for each class of its head.

    Args:
        model: The ``model`` of a config.

    Raises:
        UserError: It names the loss, both numbers and the one that is needed.
    """
    values = dict(walk(model, 'model'))
    for place, weights in values.items():
        head = _head_of(place, values)
        if not place.endswith('.class_weight') or not isinstance(weights, list | tuple) or not head:
            continue
        path, number = head
        loss = place.rpartition('.')[0]
        # A softmax over classes of objects has one more output, for no object.
        classifies = 'loss_cls' in f'{loss} {values.get(f"{loss}.loss_name")}'
        no_object = classifies and not values.get(f'{loss}.use_sigmoid', False)
        outputs = values.get(f'{path}.out_channels') if '.loss_decode.' in place else None
        needed = number + 1 if no_object else outputs or number
        if len(weights) != needed:
            raise UserError(
                f'{place} has {len(weights)} entries, but its head has {number} classes: give '
                f'{needed}' + (', the last one for no object' if no_object else '')
            )


def _head_of(place: str, values: Mapping[str, Any]) -> tuple[str, int] | None:
    """The head that a loss is in, and how many classes it has, stuff included."""
    while place := place.rpartition('.')[0]:
        for key in COUNTS:
            if isinstance(number := values.get(f'{place}.{key}'), int):
                return place, number + values.get(f'{place}.num_stuff_classes', 0)
    return None
