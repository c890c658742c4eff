"""The checkpoint that a run goes on from."""

import logging
from pathlib import Path
from zipfile import is_zipfile

from mmengine.logging import print_log


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """The checkpoint that a run in ``work_dir`` goes on from; None if there is no whole one.

    MMEngine names the checkpoint that it saved last in the file ``last_checkpoint``, by the path
    that it had then. A kill while it saves can leave that file empty. It can also leave the
    checkpoint removed (``max_keep_ckpts`` is 1) or cut off (``save_best`` saves it again). Then the
    newest whole one in the folder takes its place, with a warning.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    if not pointer.is_file():
        return None
    if named := pointer.read_text().strip():
        # Beside it first: the folder may have been moved. Elsewhere with CheckpointHook's out_dir.
        for path in (pointer.with_name(Path(named).name), Path(named)):
            if _is_whole(path):
                return str(path)
    saved = [p for pattern in ('iter_*.pth', 'epoch_*.pth') for p in pointer.parent.glob(pattern)]
    newest = max(filter(_is_whole, saved), key=lambda path: path.stat().st_mtime, default=None)
    print_log(
        f'{pointer} names {named or "no checkpoint"}, which is missing or cut off; '
        + (f'going on from {newest}' if newest else 'there is no whole checkpoint to go on from'),
        'current',
        logging.WARNING,
    )
    return str(newest) if newest else None


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint is not cut off: torch's files end with the directory of a zip file.

    One of DeepSpeed is a folder.
    """
    return path.is_dir() or is_zipfile(path)
