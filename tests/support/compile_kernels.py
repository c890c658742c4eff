"""Compile every kernel for GPUs that are not here, and print its registers and local memory.

Run it in a process of its own, without TRITON_INTERPRET.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmse.models import kernel_calls, kernels

MAPS = {'y', 'shortcut', 'out', 'grad', 'd', 'grad_y'}
INTEGERS = {'places', 'place'}
NUMBERS = {'hw': 'i32', 'c': 'i32', 'samples': 'i32', 'slices': 'i32', 'eps': 'fp32'}
NUMBERS['momentum'] = 'fp32'
DTYPES = {75: ('fp32', 'fp16'), 80: ('fp32', 'bf16'), 90: ('fp32', 'bf16')}


def variants() -> list[tuple[str, Any, dict[str, Any]]]:
    """Every kernel with the constants that need most of it."""
    found = []
    tiles = {'long': kernel_calls.LONG, 'short': kernel_calls.SHORT, 'last': kernel_calls.LAST}
    every = {'batch': True, 'extremes': True}
    for name, (p, k) in tiles.items():
        tile = {'last': name == 'last', 'p': p, 'k': k}
        found += [
            (f'reduce_forward {name}', kernels.reduce_forward, {**tile, **every}),
            (f'apply_forward {name}', kernels.apply_forward, tile),
            (f'reduce_backward {name}', kernels.reduce_backward, tile),
            (
                f'apply_backward {name}',
                kernels.apply_backward,
                {**tile, **every, 'average': True},
            ),
        ]
    merged = {'k': kernel_calls.MERGED}
    parts = {'s': kernel_calls.PARTS, **merged}
    forward = {**parts, **every, 'average': True, 'update': True, 'last': True}
    grads = {'batch': True, 'kinds': 2, 'b': kernel_calls.PARTS, **merged}
    found += [
        ('merge_forward', kernels.merge_forward, forward),
        ('merge_backward', kernels.merge_backward, parts),
        ('norm_grads', kernels.norm_grads, grads),
    ]
    return found


def compiled(kernel: Any, constants: dict[str, Any], dtype: str, capability: int) -> bytes:
    """The binary of a kernel for a GPU's generation."""
    signature = {}
    for name in kernel.arg_names:
        pointer = f'*{dtype if name in MAPS else "i32" if name in INTEGERS else "fp32"}'
        signature[name] = 'constexpr' if name in constants else NUMBERS.get(name, pointer)
    aligned = [
        (index,)
        for index, name in enumerate(kernel.arg_names)
        if signature[name].startswith('*') or name in ('hw', 'c')
    ]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs=constants,
        attrs={place: [['tt.divisibility', 16]] for place in aligned},
    )
    target = GPUTarget('cuda', capability, 32)
    found = triton.compile(source, target=target, options={'num_warps': 4})
    return bytes(found.asm['cubin'])


def main() -> None:
    tool = next(Path(triton.__file__).parent.rglob('cuobjdump'))
    found = {}
    for capability, dtypes in DTYPES.items():
        for dtype in dtypes:
            for name, kernel, constants in variants():
                with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
                    file.write(compiled(kernel, constants, dtype, capability))
                    file.flush()
                    text = subprocess.run(
                        [tool, '--dump-resource-usage', file.name],
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout
                usage = re.search(r'REG:(\d+) STACK:\d+ SHARED:\d+ LOCAL:(\d+)', text)
                assert usage, text
                registers, local = map(int, usage.groups())
                key = f'sm_{capability} {dtype} {name}'
                found[key] = {'registers': registers, 'local': local}
    print(json.dumps(found))


if __name__ == '__main__':
    main()
