"""Shapes and values of weights, compared with those of a backbone."""

from torch import Tensor

from mmse.utils.errors import UserError


def keeps_its_stem(key: str, given: Tensor, own: Tensor) -> str | None:
    """A sentence about a first convolution for images of other channels; None for anything else.

    As in mmdet and mmseg everything else is loaded, and that convolution keeps its random start.
    """
    first = key in ('conv1.weight', 'stem.0.weight')
    if not first or given.ndim != 4 or own.ndim != 4:
        return None
    if given.shape[1] == own.shape[1] or given.shape[::2] != own.shape[::2]:
        return None
    return (
        f'{key} is for images of {given.shape[1]} channels, those of the backbone have '
        f'{own.shape[1]}: it keeps its random start, and the other weights are loaded'
    )


def check_tensor(key: str, given: Tensor, own: Tensor) -> None:
    """Refuse a weight that has another shape or is not finite.

    Raises:
        UserError: It names the key, and what to do.
    """
    if given.shape != own.shape:
        raise UserError(
            f'{key} is {tuple(given.shape)} in the weights and {tuple(own.shape)} in the backbone; '
            + _remedy(key, given, own)
        )
    if given.is_floating_point() and not given.is_meta and not _is_finite(given):
        raise UserError(
            f'{key} has values that are not finite (NaN or infinite): '
            'the training that wrote it diverged; use an earlier checkpoint'
        )


def _is_finite(weight: Tensor) -> bool:
    # A sum is quick, and not finite where a value is not; it may overflow all the same.
    return bool(weight.sum().isfinite()) or bool(weight.isfinite().all())


def _remedy(key: str, given: Tensor, own: Tensor) -> str:
    if '.attention.fc' in key:
        hidden = len(given) if '.fc1.' in key else given.shape[-1]
        return f'set reduction or min_hidden of attention for a hidden width of {hidden}'
    grouped = key.endswith('conv2.weight') and len(given) == len(own)
    if grouped and given.shape[1] != own.shape[1]:
        return 'set groups and base_width of the backbone to those of the weights'
    return 'set depth and widths of the backbone to those of the weights, or use other weights'
