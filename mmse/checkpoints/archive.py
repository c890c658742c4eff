"""What is looked at in a checkpoint file before torch opens it."""

import struct
import tarfile
import zipfile
from typing import BinaryIO

from mmse.checkpoints.allowed import Refused, Unusual
from mmse.checkpoints.unpickler import Fits

# Formats of the end of a zip file: its record, and the 64-bit locator and record before it.
_END = struct.Struct('<4s4H2LH')
_LOCATOR = struct.Struct('<4sLQL')
_END64 = struct.Struct('<4sQ2H2L4Q')


def inspect(file: BinaryIO) -> Fits:
    """Refuse archives that torch would open in another way than as a checkpoint.

    Args:
        file: What ``torch.save`` may have written; it is left at its start.

    Returns:
        Tells whether the file has as many bytes for a storage as a pickle says.

    Raises:
        Refused: It is a TorchScript archive.
        Unusual: It is a zip file that ``torch.save`` cannot have written; the text says why.
        ValueError: It is neither a zip file nor a pickle, or a tar archive.
        zipfile.BadZipFile: It is a damaged zip file.
    """
    start = file.read(4)
    length = file.seek(0, 2)
    if start == b'PK\x03\x04':
        _check_end(file, length)
        fits = _inspect_zip(file, length)
    elif start[:1] != b'\x80' or _is_tar(file):
        raise ValueError('neither a zip file nor a pickle')
    else:
        fits = _within(length)
    file.seek(0)
    return fits


def _within(length: int) -> Fits:
    """For the files of torch < 1.6, whose storages follow the pickle."""
    sizes: dict[str, int] = {}

    def fits(key: str, size: int) -> bool:
        nonlocal length
        if key not in sizes:
            sizes[key] = size
            length -= size
        return length >= 0 and sizes[key] == size

    return fits


def _is_tar(file: BinaryIO) -> bool:
    """Whether torch would take the file for one of its archives of 2016."""
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode='r:'):
            return True
    except tarfile.TarError:
        return False


def _check_end(file: BinaryIO, size: int) -> None:
    """Refuse a zip file in which two readers may find two directories.

    torch reads the directory at the place that the end of the file names, Python just before that
    end. They agree if the directory ends where its end begins and nothing follows.
    """
    file.seek(max(0, size - _END.size - _LOCATOR.size - _END64.size))
    tail = file.read()
    tag, *_, length, offset, comment = _END.unpack(tail[-_END.size :])
    end = size - _END.size
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator[:4] == b'PK\x06\x07':
        end -= _LOCATOR.size + _END64.size
        *_, length, offset = _END64.unpack(tail[: _END64.size])
        if tail[:4] != b'PK\x06\x06' or _LOCATOR.unpack(locator)[2] != end:
            raise Unusual('a zip directory that is not where it should be')
    if tag != b'PK\x05\x06' or comment or offset + length != end:
        raise Unusual('a zip directory that is not where it should be')


def _inspect_zip(file: BinaryIO, length: int) -> Fits:
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
    names = [record.filename for record in records]
    top = names[0].partition('/')[0] if names else ''
    inner = {name.removeprefix(f'{top}/'): r for name, r in zip(names, records, strict=True)}
    if 'constants.pkl' in inner or any(name.startswith('code/') for name in inner):
        raise Refused('the code of a TorchScript archive')
    if len(inner) != len(names) or any(not name.startswith(f'{top}/') for name in names):
        raise Unusual('two records of one name, or of two archives')
    if [name for name in inner if name.endswith('.pkl')] != ['data.pkl']:
        raise Unusual('another pickle than data.pkl')
    if any(r.compress_type or r.compress_size != r.file_size for r in records):
        raise Unusual('compressed records')
    if sum(record.file_size for record in records) > length:
        raise Unusual('records that are larger than the file')

    def fits(key: str, size: int) -> bool:
        record = inner.get(f'data/{key}')
        return record is not None and size <= record.file_size

    return fits
