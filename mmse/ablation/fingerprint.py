"""A fingerprint of the source that shapes the result of a trial."""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import mmse

# Whose source shapes the result of a trial; the rest only moves, counts or draws it.
SHAPING = ('models', 'checkpoints', 'datasets', 'hooks/iteration_seed.py', 'ablation/start.py')
TYPING = ('typing', 'typing_extensions', 'collections.abc', 'types')


def digest(what: Any) -> str:
    """A hash of nested dicts and lists of plain values."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()


@cache
def code_fingerprint(root: Path = Path(mmse.__file__).parent) -> str:
    """A hash of what the source in ``SHAPING`` computes.

    Comments, docstrings, annotations and the imports that annotations take do not count: results
    outlive better documentation.

    Args:
        root: The folder of the package.
    """
    paths = [
        path for part in SHAPING for path in sorted((root / part).rglob('*.py')) or [root / part]
    ]
    return digest([[str(p.relative_to(root)), computation(p.read_text())] for p in paths])[:12]


def computation(source: str) -> str:
    """A Python file's syntax tree without what nothing is computed from."""
    return ast.dump(_Bare().visit(ast.parse(source)))


class _Bare(ast.NodeTransformer):
    """Drops docstrings, annotations and imports of types."""

    def __init__(self) -> None:
        self._within: ast.AST | None = None

    def generic_visit(self, node: ast.AST) -> ast.AST:
        before = self._within
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            self._within = node
            if ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        super().generic_visit(node)
        self._within = before
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if isinstance(self._within, ast.ClassDef):  # where it may be the field of a dataclass
            node.annotation = ast.Constant(None)
            return self.generic_visit(node)
        return ast.Assign([node.target], self.visit(node.value)) if node.value else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module in TYPING else node
