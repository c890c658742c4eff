"""How far results may be from float64: a bar that comes from the plain composition beside them."""

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

LAST = torch.channels_last
LAYOUTS = (torch.contiguous_format, LAST)
ULP = torch.finfo(torch.float32).eps


def worst(got: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> tuple[float, str]:
    """The largest error relative to the largest number of its tensor, and the tensor's name.

    Of tensors that are zero but for rounding it is relative to 1e-4.
    """
    assert list(got) == list(want)
    errors = []
    for name, value in want.items():
        assert got[name].isfinite().all(), name
        scale = value.double().abs().max().clamp(min=1e-4)
        errors.append((float((got[name].double() - value.double()).abs().max() / scale), name))
    return max(errors)


def float32_bar(
    plain: Callable[[float, torch.memory_format], Mapping[str, Tensor]],
    exact: Mapping[str, Tensor],
    layouts: tuple[torch.memory_format, ...] = LAYOUTS,
) -> float:
    """The largest error in float32 that `worst` may find, on whatever processor this is.

    It is four times the plain composition's own error, and at least 8e-6. The error of a single
    run is partly luck, so the largest of ten counts: in both memory layouts, with the inputs as
    they are and scaled up and down by one or two units in the last place. The fused tail was at
    most 2.4 times as far off in 13,440 random cases with four sets of CPU kernels.

    Args:
        plain: The plain composition in float32, given a factor for its inputs and a layout.
        exact: The same numbers from float64.
        layouts: Memory layouts in which the plain composition runs.
    """
    runs = [plain(1 + step * ULP, layout) for layout in layouts for step in range(-2, 3)]
    return 4 * max(2e-6, *(worst(run, exact)[0] for run in runs))


def network_bar(plain: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], float]:
    """The feature maps of a plain network in float64, and how far from them float32 may be."""
    net = copy.deepcopy(plain).double()
    with torch.no_grad():
        exact = maps(net(x.double()))
        net.float()
        return exact, float32_bar(
            lambda scale, layout: maps(net((x * scale).float().contiguous(memory_format=layout))),
            exact,
        )


def maps(outs: Iterable[Tensor]) -> dict[str, Tensor]:
    """The feature maps of a backbone by name, as `worst` takes them."""
    return {f'out{index}': out.detach() for index, out in enumerate(outs)}
