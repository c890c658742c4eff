"""The passes of a tail over feature maps as Triton kernels, for GPUs.

A tile has P positions and K channels of one sample: in NCHW mostly one channel, in channels_last
many. The reductions cut a map into slices, so that small batches fill a GPU as well, and leave
partial results that are merged by kernels over (B, C) numbers. Sums are in single precision, about
a pivot near the channel's mean. The formulas are those of ``mmse.models.fused``; names as in
``mmse.models.eager``.

    index of an element = sample*C*HW + channel*(1 if LAST else HW) + position*(C if LAST else 1)
"""

import triton
import triton.language as tl

PIVOT_VALUES = tl.constexpr(32)  # of the first sample, from all over the map
GOLDEN = tl.constexpr(40503)  # of 65536
NO_POSITION = tl.constexpr(2147483647)


@triton.jit
def _channels(c, k: tl.constexpr):
    """The channels of this program, and which of them there are."""
    channel = tl.program_id(0) * k + tl.arange(0, k)
    return channel, channel < c


@triton.jit
def _tile(channel, inside, first, end, hw, c, p: tl.constexpr, last: tl.constexpr):
    """Positions of a tile, its elements' index within a sample, and which of them there are."""
    position = first + tl.arange(0, p)
    mask = (position < end)[:, None] & inside[None, :]
    if last:
        index = position[:, None].to(tl.int64) * c + channel[None, :]
    else:
        index = channel[None, :].to(tl.int64) * hw + position[:, None]
    return position, index, mask


@triton.jit
def _part(hw, c, p: tl.constexpr, k: tl.constexpr):
    """Of a map this program's sample, channels, and positions: whole tiles but for the last."""
    channel, inside = _channels(c, k)
    tiles = tl.cdiv(tl.cdiv(hw, p), tl.num_programs(1))
    start = tl.program_id(1) * tiles * p
    end = tl.minimum(start + tiles * p, hw)
    return tl.program_id(2).to(tl.int64), channel, inside, start, end


@triton.jit
def reduce_forward(
    y, running_mean, pivots, partial, places, hw, c,
    batch: tl.constexpr, extremes: tl.constexpr,
    last: tl.constexpr, p: tl.constexpr, k: tl.constexpr,
):  # fmt: skip
    """Of every slice: sum and sum of squares about the pivot, maximum, minimum, their positions."""
    sample, channel, inside, start, end = _part(hw, c, p, k)
    if batch:
        # Multiples of the golden ratio: equal steps can meet the same column in every row.
        part = (tl.arange(0, PIVOT_VALUES) * GOLDEN) % 65536
        spread = ((part.to(tl.int64) * hw) // 65536)[:, None]
        if last:
            near_index = spread * c + channel[None, :]
        else:
            near_index = channel[None, :].to(tl.int64) * hw + spread
        near = tl.load(y + near_index, mask=inside[None, :], other=0.0).to(tl.float32)
        pivot = tl.sum(near, 0) / PIVOT_VALUES
    else:
        pivot = tl.load(running_mean + channel, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((p, k), tl.float32)
    squares = tl.zeros((p, k), tl.float32)
    high = tl.full((p, k), float('-inf'), tl.float32)
    low = tl.full((p, k), float('inf'), tl.float32)
    at_high = tl.full((p, k), NO_POSITION, tl.int32)
    at_low = tl.full((p, k), NO_POSITION, tl.int32)
    base = y + sample * c * hw
    for first in range(start, end, p):
        position, index, mask = _tile(channel, inside, first, end, hw, c, p, last)
        value = tl.load(base + index, mask=mask, other=0.0).to(tl.float32)
        centred = tl.where(mask, value - pivot[None, :], 0.0)
        total += centred
        squares += centred * centred
        if extremes:
            higher = mask & (value > high)
            lower = mask & (value < low)
            high = tl.where(higher, value, high)
            low = tl.where(lower, value, low)
            at_high = tl.where(higher, position[:, None], at_high)
            at_low = tl.where(lower, position[:, None], at_low)
    count = tl.num_programs(2) * tl.num_programs(1) * c  # of each kind of result
    out = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * c + channel
    tl.store(partial + out, tl.sum(total, 0), mask=inside)
    tl.store(partial + count + out, tl.sum(squares, 0), mask=inside)
    if extremes:
        top, bottom = tl.max(high, 0), tl.min(low, 0)
        tl.store(partial + 2 * count + out, top, mask=inside)
        tl.store(partial + 3 * count + out, bottom, mask=inside)
        first_high = tl.min(tl.where(high == top[None, :], at_high, NO_POSITION), 0)
        first_low = tl.min(tl.where(low == bottom[None, :], at_low, NO_POSITION), 0)
        tl.store(places + out, first_high, mask=inside)
        tl.store(places + count + out, first_low, mask=inside)
    if (tl.program_id(1) == 0) & (tl.program_id(2) == 0):
        tl.store(pivots + channel, pivot, mask=inside)


@triton.jit(do_not_specialize=['samples', 'slices'])
def merge_forward(
    y, partial, places, weight, bias, running_mean, running_var, channels, values, squeezed, place,
    samples, slices, hw, c, eps, momentum,
    batch: tl.constexpr, update: tl.constexpr, average: tl.constexpr, extremes: tl.constexpr,
    last: tl.constexpr, s: tl.constexpr, k: tl.constexpr,
):  # fmt: skip
    """Statistics of each channel, running ones included, and what is squeezed of each sample.

    ``channels`` has five rows of C: pivot (given), mean less pivot, a, at, 1/deviation.
    """
    channel, inside = _channels(c, k)
    count = samples * slices * c
    pivot = tl.load(channels + channel, mask=inside, other=0.0)
    if batch:
        total = tl.zeros((s, k), tl.float32)
        squares = tl.zeros((s, k), tl.float32)
        for first in range(0, samples * slices, s):
            row = first + tl.arange(0, s)
            mask = (row < samples * slices)[:, None] & inside[None, :]
            index = row[:, None] * c + channel[None, :]
            total += tl.load(partial + index, mask=mask, other=0.0)
            squares += tl.load(partial + count + index, mask=mask, other=0.0)
        n = (samples * hw).to(tl.float32)
        rest = tl.sum(total, 0) / n
        mean_square = tl.sum(squares, 0) / n
        var = mean_square - rest * rest
        var = tl.where(var < 0.0, 0.0, var)
        if update:
            old = tl.load(running_mean + channel, mask=inside, other=0.0).to(tl.float32)
            new = old + momentum * (pivot - old + rest)
            tl.store(running_mean + channel, new.to(running_mean.dtype.element_ty), mask=inside)
            old = tl.load(running_var + channel, mask=inside, other=0.0).to(tl.float32)
            new = old + momentum * (var * (n / (n - 1.0)) - old)
            tl.store(running_var + channel, new.to(running_var.dtype.element_ty), mask=inside)
    else:
        rest = tl.zeros((k,), tl.float32)
        var = tl.load(running_var + channel, mask=inside, other=0.0).to(tl.float32)
    invstd = 1.0 / tl.sqrt_rn(var + eps)
    a = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32) * invstd
    at = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32) - a * rest
    tl.store(channels + c + channel, rest, mask=inside)
    tl.store(channels + 2 * c + channel, a, mask=inside)
    tl.store(channels + 3 * c + channel, at, mask=inside)
    tl.store(channels + 4 * c + channel, invstd, mask=inside)
    for sample in range(0, samples):
        total = tl.zeros((s, k), tl.float32)
        best = tl.full((k,), float('-inf'), tl.float32)
        best_place = tl.zeros((k,), tl.int32)
        for first in range(0, slices, s):
            row = first + tl.arange(0, s)
            mask = (row < slices)[:, None] & inside[None, :]
            index = (sample * slices + row)[:, None] * c + channel[None, :]
            total += tl.load(partial + index, mask=mask, other=0.0)
            if extremes:
                high = tl.load(partial + 2 * count + index, mask=mask, other=float('-inf'))
                low = tl.load(partial + 3 * count + index, mask=mask, other=float('inf'))
                at_high = tl.load(places + index, mask=mask, other=NO_POSITION)
                at_low = tl.load(places + count + index, mask=mask, other=NO_POSITION)
                key = tl.where((a > 0.0)[None, :], high, -low)
                where = tl.where((a > 0.0)[None, :], at_high, at_low)
                top = tl.max(key, 0)
                where = tl.min(tl.where(key == top[None, :], where, NO_POSITION), 0)
                better = top > best
                best = tl.where(better, top, best)
                best_place = tl.where(better, where, best_place)
        sums = tl.sum(total, 0)
        out = sample * c + channel
        if average:
            value = sums / hw
            tl.store(values + out, value, mask=inside)
            tl.store(squeezed + out, at + a * value, mask=inside)
        if extremes:
            # Where a is 0 all positions are maxima: the first counts.
            first_index = out.to(tl.int64) * hw
            if last:
                first_index = first_index - (channel.to(tl.int64) * (hw - 1))
            origin = tl.load(y + first_index, mask=inside, other=0.0).to(tl.float32)
            best_place = tl.where(a == 0.0, 0, best_place)
            value = tl.where(a > 0.0, best, tl.where(a < 0.0, -best, origin)) - pivot
            value = tl.where(sums == sums, value, sums)  # a map with NaN has no maximum
            tl.store(place + out, best_place, mask=inside)
            shift = samples * c if average else 0
            tl.store(values + shift + out, value, mask=inside)
            tl.store(squeezed + shift + out, at + a * value, mask=inside)


@triton.jit
def apply_forward(
    y, shortcut, out, channels, q, hw, c,
    last: tl.constexpr, p: tl.constexpr, k: tl.constexpr,
):  # fmt: skip
    """relu((y - pivot)*(a*q) + at*q + shortcut)."""
    sample, channel, inside, start, end = _part(hw, c, p, k)
    pivot = tl.load(channels + channel, mask=inside, other=0.0)
    gain = tl.load(q + sample * c + channel, mask=inside, other=0.0)
    scale = tl.load(channels + 2 * c + channel, mask=inside, other=0.0) * gain
    offset = tl.load(channels + 3 * c + channel, mask=inside, other=0.0) * gain
    base = sample * c * hw
    for first in range(start, end, p):
        _unused, index, mask = _tile(channel, inside, first, end, hw, c, p, last)
        value = tl.load(y + base + index, mask=mask, other=0.0).to(tl.float32)
        other = tl.load(shortcut + base + index, mask=mask, other=0.0).to(tl.float32)
        found = (value - pivot[None, :]) * scale[None, :] + offset[None, :] + other
        found = tl.where(found < 0.0, 0.0, found)  # NaN stays
        tl.store(out + base + index, found.to(out.dtype.element_ty), mask=mask)


@triton.jit
def reduce_backward(
    grad, out, y, d, channels, partial, hw, c,
    last: tl.constexpr, p: tl.constexpr, k: tl.constexpr,
):  # fmt: skip
    """d = grad where out > 0, and of every slice the sums of d and of d*(y - pivot)."""
    sample, channel, inside, start, end = _part(hw, c, p, k)
    pivot = tl.load(channels + channel, mask=inside, other=0.0)
    sum_d = tl.zeros((p, k), tl.float32)
    sum_dy = tl.zeros((p, k), tl.float32)
    base = sample * c * hw
    for first in range(start, end, p):
        _unused, index, mask = _tile(channel, inside, first, end, hw, c, p, last)
        gradient = tl.load(grad + base + index, mask=mask, other=0.0).to(tl.float32)
        on = tl.load(out + base + index, mask=mask, other=0.0).to(tl.float32)
        value = tl.load(y + base + index, mask=mask, other=0.0).to(tl.float32)
        gradient = tl.where(on <= 0.0, 0.0, gradient)
        tl.store(d + base + index, gradient.to(d.dtype.element_ty), mask=mask)
        sum_d += gradient
        sum_dy += tl.where(mask, gradient * (value - pivot[None, :]), 0.0)
    count = tl.num_programs(2) * tl.num_programs(1) * c
    at = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * c + channel
    tl.store(partial + at, tl.sum(sum_d, 0), mask=inside)
    tl.store(partial + count + at, tl.sum(sum_dy, 0), mask=inside)


@triton.jit(do_not_specialize=['samples', 'slices'])
def merge_backward(
    partial, channels, sums, grad_q, samples, slices, c, s: tl.constexpr, k: tl.constexpr
):
    """The sums over slices, and the gradient of the gain, at*sum(d) + a*sum(d*(y - pivot))."""
    channel, inside = _channels(c, k)
    sample = tl.program_id(1)
    count = samples * slices * c
    sum_d = tl.zeros((s, k), tl.float32)
    sum_dy = tl.zeros((s, k), tl.float32)
    for first in range(0, slices, s):
        row = first + tl.arange(0, s)
        mask = (row < slices)[:, None] & inside[None, :]
        index = (sample * slices + row)[:, None] * c + channel[None, :]
        sum_d += tl.load(partial + index, mask=mask, other=0.0)
        sum_dy += tl.load(partial + count + index, mask=mask, other=0.0)
    all_d, all_dy = tl.sum(sum_d, 0), tl.sum(sum_dy, 0)
    a = tl.load(channels + 2 * c + channel, mask=inside, other=0.0)
    at = tl.load(channels + 3 * c + channel, mask=inside, other=0.0)
    out = sample * c + channel
    tl.store(sums + out, all_d, mask=inside)
    tl.store(sums + samples * c + out, all_dy, mask=inside)
    tl.store(grad_q + out, at * all_d + a * all_dy, mask=inside)


@triton.jit(do_not_specialize=['samples'])
def norm_grads(
    sums, q, slopes, values, channels, grads, samples, hw, c,
    batch: tl.constexpr, kinds: tl.constexpr, b: tl.constexpr, k: tl.constexpr,
):  # fmt: skip
    """Gradients of the norm's bias and weight, and what its statistics give to the map's.

    ``grads`` has four rows of C: of the bias, of the weight, and k and c of d*(a*q) + (y - pivot)*k
    + c. ``slopes`` and ``values`` have ``kinds`` times B*C numbers.
    """
    channel, inside = _channels(c, k)
    per_kind = samples * c
    sum_g = tl.zeros((b, k), tl.float32)
    sum_gy = tl.zeros((b, k), tl.float32)
    for first in range(0, samples, b):
        row = first + tl.arange(0, b)
        mask = (row < samples)[:, None] & inside[None, :]
        index = row[:, None] * c + channel[None, :]
        gain = tl.load(q + index, mask=mask, other=0.0)
        sum_g += gain * tl.load(sums + index, mask=mask, other=0.0)
        sum_gy += gain * tl.load(sums + per_kind + index, mask=mask, other=0.0)
        for kind in tl.static_range(kinds):
            slope = tl.load(slopes + kind * per_kind + index, mask=mask, other=0.0)
            sum_g += slope
            sum_gy += slope * tl.load(values + kind * per_kind + index, mask=mask, other=0.0)
    rest = tl.load(channels + c + channel, mask=inside, other=0.0)
    a = tl.load(channels + 2 * c + channel, mask=inside, other=0.0)
    invstd = tl.load(channels + 4 * c + channel, mask=inside, other=0.0)
    grad_bias = tl.sum(sum_g, 0)
    grad_weight = (tl.sum(sum_gy, 0) - rest * grad_bias) * invstd
    tl.store(grads + channel, grad_bias, mask=inside)
    tl.store(grads + c + channel, grad_weight, mask=inside)
    if batch:
        share = -a / (samples * hw).to(tl.float32)
        slope = share * invstd * grad_weight
        tl.store(grads + 2 * c + channel, slope, mask=inside)
        tl.store(grads + 3 * c + channel, share * grad_bias - slope * rest, mask=inside)


@triton.jit
def apply_backward(
    d, y, grad_y, channels, grads, q, u, v, place, hw, c,
    batch: tl.constexpr, average: tl.constexpr, extremes: tl.constexpr,
    last: tl.constexpr, p: tl.constexpr, k: tl.constexpr,
):  # fmt: skip
    """d*(a*q) + (y - pivot)*k + c + u*a/HW, and a*v at the maximum's position."""
    sample, channel, inside, start, end = _part(hw, c, p, k)
    row = sample * c + channel
    pivot = tl.load(channels + channel, mask=inside, other=0.0)
    a = tl.load(channels + 2 * c + channel, mask=inside, other=0.0)
    scale = a * tl.load(q + row, mask=inside, other=0.0)
    constant = tl.zeros((k,), tl.float32)
    if batch:
        slope = tl.load(grads + 2 * c + channel, mask=inside, other=0.0)
        constant += tl.load(grads + 3 * c + channel, mask=inside, other=0.0)
    if average:
        constant += tl.load(u + row, mask=inside, other=0.0) * a / hw
    if extremes:
        peak = tl.load(place + row, mask=inside, other=-1)
        spike = a * tl.load(v + row, mask=inside, other=0.0)
    base = sample * c * hw
    for first in range(start, end, p):
        position, index, mask = _tile(channel, inside, first, end, hw, c, p, last)
        found = tl.load(d + base + index, mask=mask, other=0.0).to(tl.float32) * scale[None, :]
        found += constant[None, :]
        if batch:
            value = tl.load(y + base + index, mask=mask, other=0.0).to(tl.float32)
            found += (value - pivot[None, :]) * slope[None, :]
        if extremes:
            found += tl.where(position[:, None] == peak[None, :], spike[None, :], 0.0)
        tl.store(grad_y + base + index, found.to(grad_y.dtype.element_ty), mask=mask)
