"""Blood Cell Count and Detection (BCCD): Pascal VOC boxes to COCO JSON."""

from pathlib import Path

from mmse.datasets.conversion import convert, find_layout
from mmse.datasets.voc import PARTS, Convention, Pairs, write_split
from mmse.utils.errors import UserError
from mmse.utils.text import name_some

CLASSES = ('RBC', 'WBC', 'Platelets')
ORIGIN = 'github.com/Shenggan/BCCD_Dataset'

_VERSION = 1
_SPLITS = ('train', 'val', 'test')
_REQUIRED = ('train', 'val')
_READING = Convention(first=1, sizes=False)  # some of its sizes are wrong


def prepare_bccd(src: str | Path, dst: str | Path) -> dict[str, dict[str, int]]:
    """Convert a clone of BCCD to COCO JSON with the images beside it.

    Writes train, val and, where the clone lists it, test, as ``mmse.datasets.voc.write_split``
    says. Nothing in ``src`` is changed.

    Args:
        src: The clone, or the folder ``BCCD`` in it.
        dst: The folder to write; missing, empty, or made from the same files.

    Returns:
        The counts of every split.

    Raises:
        UserError: The source is not BCCD or has files missing, or ``dst`` holds something else.
    """
    root = find_layout(src, 'BCCD', PARTS, ORIGIN)

    def write(folder: Path, split: str, pairs: Pairs) -> dict[str, int]:
        return write_split(folder, split, pairs, root / 'JPEGImages', CLASSES, _READING)

    return convert('bccd', _VERSION, root, dst, _read_splits(root), write)


def _read_splits(root: Path) -> dict[str, Pairs]:
    """(image, annotation) files of every split that is listed."""
    splits = {}
    missing = []
    for split in _SPLITS:
        listing = root / 'ImageSets' / 'Main' / f'{split}.txt'
        if not listing.is_file():
            if split in _REQUIRED:
                missing.append(str(listing))
            continue
        splits[split] = [
            (root / 'JPEGImages' / f'{name}.jpg', root / 'Annotations' / f'{name}.xml')
            for name in listing.read_text().split()
        ]
        missing += [str(file) for pair in splits[split] for file in pair if not file.is_file()]
    if missing:
        raise UserError(
            f'{len(missing)} files of BCCD are missing ({name_some(missing)}): '
            f'give --src a whole clone of {ORIGIN}'
        )
    return splits
