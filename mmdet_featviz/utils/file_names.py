"""File names: turns any text into one part of a path that every file system accepts."""

from __future__ import annotations

import hashlib
import re

MAX_NAME_BYTES = 180  # file systems allow 255, and suffixes are added
WINDOWS_DEVICES = {
    'CON',
    'CONIN$',
    'CONOUT$',
    'PRN',
    'AUX',
    'NUL',
    *(f'{port}{number}' for port in ('COM', 'LPT') for number in '123456789\u00b9\u00b2\u00b3'),
}
WINDOWS_CHARACTERS = re.compile('[<>:"|?*\\\\]')


def safe_name(part: str, is_reserved: bool = False) -> str:
    """Return one part of a path as a name that every file system accepts.

    Args:
        part: The part, without slashes.
        is_reserved: Whether the name must change in any case.

    Returns:
        The part itself if it is such a name, else one that ends with ``~`` and a hash of the part.
    """
    encoded = part.encode('utf-8', 'surrogateescape')
    name = part if len(encoded) <= MAX_NAME_BYTES else encoded[:MAX_NAME_BYTES].decode('utf-8', 'ignore')
    name = WINDOWS_CHARACTERS.sub('_', name).rstrip('. ')
    device = part.partition('.')[0].rstrip(' ').upper()
    is_reserved = is_reserved or device in WINDOWS_DEVICES
    return part if name == part and not is_reserved else f'{name}~{short_hash(part)}'


def short_hash(text: str) -> str:
    """Return eight hexadecimal digits that depend on the text."""
    return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]
