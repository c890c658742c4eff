"""How far results may be from float64: bars that the plain composition sets on the same machine."""

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

LAST = torch.channels_last
LAYOUTS = (torch.contiguous_format, LAST)
Tensors = Mapping[str, Tensor]


def errors(got: Tensors, want: Tensors) -> dict[str, float]:
    """The largest error of each tensor, relative to the tensor's largest number or to 1e-4."""
    assert list(got) == list(want)
    assert all(value.isfinite().all() for value in got.values())
    return {
        name: float((got[name].double() - value).abs().max() / value.abs().max().clamp(min=1e-4))
        for name, value in ((name, value.double()) for name, value in want.items())
    }


def worst(got: Tensors, want: Tensors) -> tuple[float, str]:
    """The largest of `errors`, and the name of its tensor."""
    return max((error, name) for name, error in errors(got, want).items())


def rounding_bars(
    plain: Callable[[float, torch.memory_format], Tensors],
    exact: Tensors,
    dtype: torch.dtype = torch.float32,
    floor: float = 8,
) -> dict[str, float]:
    """The largest error that each tensor may have in low precision, on whatever processor this is.

    That is four times the plain composition's own error. The error of a single run is partly
    luck, so the largest of ten runs counts: in both memory layouts, with the inputs as they are
    and scaled up and down by one or two units in the last place. In float32 the fused tail was at
    most 2.3 times as far off, in 6,720 random cases under three sets of CPU kernels.

    Args:
        plain: The plain composition in low precision, given a factor for its inputs and a layout.
        exact: The same numbers from float64.
        dtype: The low precision.
        floor: The smallest error of the plain composition that counts, in units in the last place.
    """
    unit = torch.finfo(dtype).eps
    runs = [plain(1 + step * unit, layout) for layout in LAYOUTS for step in range(-2, 3)]
    usual = [errors(run, exact) for run in runs]
    return {name: 4 * max(floor * unit, *(run[name] for run in usual)) for name in exact}


def beyond(got: Tensors, exact: Tensors, bars: Mapping[str, float]) -> dict[str, str]:
    """The tensors whose error is larger than their bar, with both numbers."""
    return {
        name: f'{error:.1e}, allowed {bars[name]:.1e}'
        for name, error in errors(got, exact).items()
        if error > bars[name]
    }


def network_bars(plain: nn.Module, x: Tensor) -> tuple[Tensors, dict[str, float]]:
    """The feature maps of a plain network in float64, and the bars of float32 for them."""
    net = copy.deepcopy(plain).double()

    def run(scale: float, layout: torch.memory_format) -> Tensors:
        return maps(net((x * scale).float().contiguous(memory_format=layout)))

    with torch.no_grad():
        exact = maps(net(x.double()))
        net.float()
        return exact, rounding_bars(run, exact)


def maps(outs: Iterable[Tensor]) -> Tensors:
    """The feature maps of a backbone by name."""
    return {f'out{index}': out.detach() for index, out in enumerate(outs)}
