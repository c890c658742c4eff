"""Lists of class names beside label maps, as labelling tools write them."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmse.datasets.headers import read_header
from mmse.utils.errors import UserError
from mmse.utils.text import name_some, repeated

Colour = tuple[int, int, int]


def _numbered(lines: list[str]) -> bool:
    """Whether each line begins with its label; names such as "2 euro" do not count from 0."""
    found = [re.match(r'(\d+)\W+\w', line) for line in lines]
    return sorted(int(match[1]) for match in found if match) == list(range(len(lines)))


# What people write in place of one name per line, each of which would shift or spoil the names.
_OTHER_FORMS: dict[str, Callable[[list[str]], bool]] = {
    'has a comment': lambda lines: any(line.startswith(('#', '//')) for line in lines),
    'numbers its names': _numbered,
    'is JSON': lambda lines: lines[0].startswith(('[', '{')),
    'is YAML': lambda lines: all(line.startswith('- ') for line in lines),
    'has all names in one line': lambda lines: len(lines) == 1 and ',' in lines[0],
}


class Listing(NamedTuple):
    """The classes of label maps, in the order of their labels.

    Args:
        file: Where they are listed.
        names: Their names.
        colours: Their colours, RGB in 0..255; None if the file has none.
    """

    file: Path
    names: tuple[str, ...]
    colours: tuple[Colour, ...] | None = None


def find_listing(data_root: str | Path, seg_dir: str | Path) -> Listing | None:
    """The classes that a file beside the label maps lists.

    These files are looked for in ``data_root``, in the folder of label maps, and in those between:
    ``classes.txt``, or LabelMe's ``class_names.txt`` or ``labels.txt``, with one name per line;
    Roboflow's ``_classes.csv`` with a label and a name per line; CVAT's ``labelmap.txt`` with
    ``name:red,green,blue::`` per line. LabelMe's ``__ignore__`` stands for label -1 and is left
    out.

    Args:
        data_root: The data folder.
        seg_dir: The folder of label maps, in ``data_root``.

    Raises:
        UserError: The first file that is found is empty, repeats a name or has another form.
    """
    for folder in _folders(Path(data_root), Path(seg_dir)):
        for name, read in _READERS.items():
            if (file := folder / name).is_file():
                return _checked(read(file))
    return None


def check_listings(data_root: str | Path, seg_dirs: Sequence[str | Path]) -> None:
    """Refuse folders of label maps whose lists of classes give a label different names.

    One list may go on where another ends.

    Args:
        data_root: The data folder.
        seg_dirs: The folders of label maps.

    Raises:
        UserError: Two lists disagree, or one has another form than it may have.
    """
    longest: Listing | None = None
    for listing in filter(None, (find_listing(data_root, folder) for folder in seg_dirs)):
        longest = longest or listing
        for label, (name, other) in enumerate(zip(longest.names, listing.names, strict=False)):
            if name != other:
                raise UserError(
                    f'own_data: label {label} is {name} in {longest.file} and {other} in '
                    f'{listing.file}: list the same classes in the same order in both, and export '
                    'the label maps anew'
                )
        longest = max(longest, listing, key=lambda each: len(each.names))


def label_colours(
    data_root: str | Path, seg_dir: str | Path, maps: Sequence[str]
) -> tuple[Colour, ...] | None:
    """Colours of the classes where label maps show classes in colour, as CVAT writes them.

    Args:
        data_root: The data folder.
        seg_dir: The folder of label maps, in ``data_root``.
        maps: Their names.

    Returns:
        RGB in 0..255, in the order of the labels; None where the first label map holds labels, or
        no file lists their colours.

    Raises:
        UserError: The list of classes has another form than it may have.
    """
    listing = find_listing(data_root, seg_dir)
    if listing is None or listing.colours is None:
        return None
    for name in maps:
        if (header := read_header(Path(seg_dir, name))) is not None:
            return listing.colours if header.kind[1] in ('RGB', 'RGBA') else None
    return None


def _label_map(file: Path) -> Listing:
    lines = [line.split(':') for line in _lines(file) if not line.startswith('#')]
    names = tuple(parts[0].strip() for parts in lines)
    try:
        colours = tuple(_colour(parts[1].split(',')) for parts in lines)
    except (IndexError, ValueError) as error:
        raise UserError(
            f'{file}: write "name:red,green,blue::" per line, such as car:64,0,128::'
        ) from error
    if twice := sorted({str(colour) for colour in colours if colours.count(colour) > 1}):
        raise UserError(f'{file}: a colour stands for several classes ({name_some(twice)})')
    return Listing(file, names, colours)


def _folders(root: Path, seg_dir: Path) -> Iterator[Path]:
    yield root
    if seg_dir.is_relative_to(root):
        yield from (folder for folder in (seg_dir, *seg_dir.parents) if folder.is_relative_to(root))


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_bytes().decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(f'{file} is not in UTF-8: save it as UTF-8 ({error})') from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _checked(listing: Listing) -> Listing:
    if not listing.names:
        raise UserError(f'{listing.file} is empty: write one class name per line, in label order')
    if twice := repeated('class name', listing.names):
        raise UserError(f'{listing.file}: {twice[0]}')
    return listing


def _names(file: Path) -> Listing:
    names = _lines(file)
    if names and names[0].strip('_').lower() == 'ignore':
        names = names[1:]
    for other, is_other in _OTHER_FORMS.items():
        if names and is_other(names):
            raise UserError(
                f'{file} {other} ({name_some(names, 2)}): write one name per line and nothing '
                'else, in the order of the labels'
            )
    return Listing(file, tuple(names))


def _table(file: Path) -> Listing:
    rows = [[cell.strip() for cell in row] for row in csv.reader(_lines(file)[1:])]
    if any(len(row) != 2 or row[0] != str(k) for k, row in enumerate(rows)):
        raise UserError(f'{file}: write a heading, then "label, name" per line, from label 0 on')
    return Listing(file, tuple(name for _, name in rows))


def _colour(values: Sequence[str]) -> Colour:
    red, green, blue = map(int, values)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(values)
    return red, green, blue


_READERS: dict[str, Callable[[Path], Listing]] = {
    'classes.txt': _names,
    'class_names.txt': _names,
    'labels.txt': _names,
    'labelmap.txt': _label_map,
    '_classes.csv': _table,
}
