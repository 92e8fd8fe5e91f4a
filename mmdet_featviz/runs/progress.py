"""Progress: a bar on the error stream, which may be gone while the run goes on."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(count: int, is_shown: bool) -> tqdm:
    """Return a progress bar over images that are drawn.

    Args:
        count: Number of images.
        is_shown: Whether to show it.
    """
    from tqdm import tqdm  # not needed before

    is_shown = is_shown and sys.stderr is not None  # a process without a console has none
    return tqdm(
        None, 'drawing', count, file=_Forgiving(sys.stderr), dynamic_ncols=True, unit='image', disable=not is_shown
    )


class _Forgiving:
    """A stream of which errors of writing are ignored: of a closed terminal, or a pipe that nobody reads."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
