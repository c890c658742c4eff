"""Finds what README and the pages of docs/ tell users to run."""

import re
from collections.abc import Iterator
from typing import NamedTuple

PROGRAMS = (
    *('apt-get', 'bash', 'conda', 'curl', 'docker', 'git', 'make', 'mim', 'mkdocs', 'pip'),
    *('pre-commit', 'pytest', 'python', 'python3', 'ruff', 'srun', 'torchrun', 'wget'),
)
COMMAND = rf'(\w+=\S+ )*({"|".join(PROGRAMS)}) [^ ]'


class Item(NamedTuple):
    """A command in one line, or a block of Python with the file name that the page gives it."""

    where: str
    text: str
    python: bool = False
    file: str | None = None


def items_of(name: str, text: str) -> Iterator[Item]:
    """Every command and every block of Python of a page, in order.

    Raises:
        ValueError: A block has a language for which there is no rule.
    """
    fence = r'^ *```(?P<language>[^\n`]*)\n(?P<block>.*?)^ *```$'
    for found in re.finditer(rf'{fence}|`(?P<span>[^`]+)`', text, re.M | re.S):
        line = text.count('\n', 0, found.start()) + 1
        if found['span']:
            span = ' '.join(found['span'].split())
            if re.match(COMMAND, span) and not re.fullmatch(r'(pip|mim) \w+', span):
                yield from (Item(f'{name}:{line}', part) for part in span.split(' && '))
        elif found['language'] in ('bash', 'text'):
            for number, command in commands_of(found['block']):
                # A block of text shows output, unless a line of it is a command.
                if found['language'] == 'bash' or re.match(COMMAND, command):
                    where = f'{name}:{line + number}'
                    yield from (Item(where, part) for part in command.split(' && '))
        elif found['language'] == 'python':
            file = re.search(r'`(\w+\.py)`[^`]*:\s*$', text[: found.start()])
            yield Item(f'{name}:{line}', found['block'], True, file and file[1])
        else:
            raise ValueError(f'{name}:{line}: nothing runs a block of {found["language"]!r}')


def commands_of(block: str) -> Iterator[tuple[int, str]]:
    """Each command of a block in one line, uncommented, with the number of its first line."""
    begun, first = '', 1
    for number, line in enumerate(block.splitlines(), 1):
        first = first if begun else number
        begun += re.sub(r'(^|\s)#.*', '', line).strip() + ' '
        if begun.endswith('\\ '):
            begun = begun[:-2]
            continue
        if begun.strip():
            yield first, ' '.join(begun.split())
        begun = ''
