"""Images and videos that a command line names."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mmse.utils.errors import UserError

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp', '.jp2')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')


class Source(NamedTuple):
    """A file with one image, or with the frames of a video.

    Args:
        path: The file.
        name: Its path below the folder that was given, as results name it.
        out: Where what comes from it goes, relative and without an ending.
        frames: Number of frames of a video; None for an image.
        rate: Frames of a video per second; 0 for an image.
    """

    path: Path
    name: str
    out: Path
    frames: int | None
    rate: float


class Image(NamedTuple):
    """One image to predict.

    Args:
        source: Where it is from.
        frame: The number of the frame in a video, from 0; None for an image.
        content: The file, or a frame (H, W, 3) in BGR.
    """

    source: Source
    frame: int | None
    content: str | np.ndarray


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """The images and videos that files, folders (with their subfolders) and globs name.

    Raises:
        UserError: An input names nothing, or a video cannot be read.
    """
    named: dict[str, str] = {}  # path -> path below the input
    for given in inputs:
        found = _below(given)
        if not found:
            raise UserError(
                f'{given}: no such file, or a folder without images ({", ".join(IMAGES)}) and '
                f'videos ({", ".join(VIDEOS)})'
            )
        named |= {path: name for path, name in found.items() if path not in named}
    if len(set(named.values())) < len(named):  # two folders have files of the same name
        shared = os.path.commonpath([Path(path).parent for path in named])
        named = {path: os.path.relpath(path, shared) for path in named}
    stems = Counter(str(Path(name).with_suffix('')) for name in named.values())
    return [
        _source(Path(path), name, alone=stems[str(Path(name).with_suffix(''))] == 1)
        for path, name in named.items()
    ]


def images_of(sources: Sequence[Source]) -> Iterator[Image]:
    """Every image and every frame, one after the other."""
    for source in sources:
        if source.frames is None:
            yield Image(source, None, str(source.path))
            continue
        video = cv2.VideoCapture(str(source.path))
        frame = 0
        while True:
            read, content = video.read()
            if not read:
                break
            yield Image(source, frame, content)
            frame += 1
        video.release()


def _below(given: str) -> dict[str, str]:
    """The files that an input names, by absolute path, with their names below the input."""
    folder = Path(given).expanduser()
    if folder.is_dir():
        files = [
            Path(parent, name)
            for parent, folders, names in os.walk(folder, followlinks=True)
            for name in sorted(names)
            if not name.startswith('.') and Path(name).suffix.lower() in (*IMAGES, *VIDEOS)
        ]
        return {os.path.abspath(file): str(file.relative_to(folder)) for file in sorted(files)}
    if folder.is_file():
        return {os.path.abspath(folder): folder.name}
    files = [Path(f) for f in sorted(glob.glob(str(folder), recursive=True)) if Path(f).is_file()]
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), folder.parts))
    return {os.path.abspath(file): os.path.relpath(file, fixed) for file in files}


def _source(path: Path, name: str, alone: bool) -> Source:
    out = Path(name).with_suffix('') if alone else Path(name)
    if path.suffix.lower() not in VIDEOS:
        return Source(path, name, out, None, 0.0)
    video = cv2.VideoCapture(str(path))
    frames, rate = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), video.get(cv2.CAP_PROP_FPS)
    opened = video.isOpened()
    video.release()
    if not opened:
        raise UserError(f'{path} cannot be read as a video')
    return Source(path, name, out, max(frames, 0), rate or 25.0)
