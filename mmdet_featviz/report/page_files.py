"""Page files: write the parts of a report page into a folder, or all into one HTML file."""

from __future__ import annotations

import base64
import json
import os.path as osp
from typing import Any, Sequence

from mmdet_featviz.report.page_template import DATA_PLACE, STATIC_FILES, page_code, render_page
from mmdet_featviz.runs.run_folder import RunFolder

PAGE = 'index.html'
# Of the page, which the files of a folder call.
FUNCTIONS = {'data': 'shot', 'photos': 'photo', 'boxes': 'boxes', 'contrasts': 'contrasts', 'cells': 'cells'}
MAX_BYTES = 300_000_000  # of one file: browsers read it as a whole before they show anything


class PageFolder:
    """A page with its data beside it, in files that it loads when it needs them.

    Args:
        folder: The folder. An earlier report in it is deleted.

    Raises:
        OSError: If the folder cannot be written to.
    """

    def __init__(self, folder: str) -> None:
        self._folder = RunFolder(folder, overwrite=True)
        # Recorded in the manifest, so that the next report deletes them.
        self._folder.record([dict(files=[PAGE, 'data/index.js', *STATIC_FILES])])
        self._page = osp.join(self._folder.out_dir, PAGE)

    def add_data(self, number: int, data: Any) -> str:
        """Write the data of a pass, which can be JSON; returns the name of the file."""
        return self._add_script('data', number, data)

    def add_boxes(self, data: Any) -> None:
        """Write the data of the map of boxes."""
        self._add_part('boxes', 0, data)

    def add_contrasts(self, data: Any) -> None:
        """Write the contrasts of objects."""
        self._add_part('contrasts', 0, data)

    def add_cells(self, number: int, entries: Any) -> None:
        """Write a file of cells, which can be JSON."""
        self._add_part('cells', number, entries)

    def _add_part(self, folder: str, number: int, value: Any) -> None:
        """Write data that is of no single image."""
        self._folder.record([dict(files=[self._add_script(folder, number, value)])])

    def add_image(self, folder: str, number: int, jpeg: bytes) -> str:
        """Write an image to ``photos`` or ``thumbs``; returns the name of the file."""
        if folder in FUNCTIONS:  # a page may not save a picture that it drew from an image file, but from a script
            return self._add_script(folder, number, base64.b64encode(jpeg).decode('ascii'))
        name = f'{_name(folder, number)}.jpg'
        self._folder.write(name, jpeg)
        return name

    def _add_script(self, folder: str, number: int, value: Any) -> str:
        name = f'{_name(folder, number)}.js'
        self._folder.write(name, script_call(FUNCTIONS[folder], number, value))
        return name

    def record(self, path: str, key: str, names: Sequence[str]) -> None:
        """Note which files were written for an image."""
        self._folder.record([dict(image=path, key=key, files=names)])

    def finish(self, index: dict, **values: Any) -> str:
        """Write the page.

        Args:
            index: What the page needs when it opens.
            **values: Variables of its template.

        Returns:
            Where it is.
        """
        for name, source in STATIC_FILES.items():
            self._folder.write(name, source.read_bytes())
        self._folder.write('data/index.js', script_call('run', index))
        self._folder.write(PAGE, render_page(**values))
        self._folder.flush()
        return self._page


class SingleFile:
    """A page that is one file, with all data in it. The methods are those of :class:`PageFolder`.

    Args:
        folder: Folder of the file. An earlier report in it is deleted when this one is written.
        passes: Number of passes to come.
    """

    def __init__(self, folder: str, passes: int) -> None:
        self._path = folder
        self._passes = passes
        self._blocks: list[bytes] = []
        self.bytes = 0  # of the data so far, and of the whole file once it is written

    def add_data(self, number: int, data: Any) -> str:
        """Add the data of a pass, after its images.

        Raises:
            ValueError: If the file would become too large.
        """
        name = self._add_block('data', number, data)
        self._check_size(self.bytes / (number + 1) * self._passes)
        return name

    def _check_size(self, expected: float) -> None:
        if self.bytes > MAX_BYTES:
            raise ValueError(
                f'one file would have about {expected / 1e6:.0f} MB, more than the {MAX_BYTES / 1e6:.0f} MB that '
                'browsers open well: show fewer images (--max-images), or write a folder (without --single-file)'
            )

    def add_boxes(self, data: Any) -> None:
        """Add the data of the map of boxes."""
        self._add_block('boxes', 0, data)

    def add_contrasts(self, data: Any) -> None:
        """Add the contrasts of objects."""
        self._add_block('contrasts', 0, data)

    def add_cells(self, number: int, entries: Any) -> None:
        """Add a file of cells.

        Raises:
            ValueError: If the file would become too large.
        """
        self._add_block('cells', number, entries)
        self._check_size(self.bytes)

    def add_image(self, folder: str, number: int, jpeg: bytes) -> str:
        """Add an image."""
        return self._add_block(folder, number, base64.b64encode(jpeg).decode('ascii'))

    def _add_block(self, folder: str, number: int, value: Any) -> str:
        """Add a script that does not run: the page reads its text when it needs the data."""
        name = _name(folder, number)
        self._blocks.append(b'<script type="application/json" id="%s">%s</script>\n' % (name.encode(), to_json(value)))
        self.bytes += len(self._blocks[-1])
        return name

    def record(self, path: str, key: str, names: Sequence[str]) -> None:
        """Do nothing: an image has no files of its own."""

    def finish(self, index: dict, **values: Any) -> str:
        """Write the file."""
        folder = RunFolder(self._path, overwrite=True)
        folder.record([dict(files=[PAGE])])
        html = render_page(**page_code(script_call('run', index).decode('ascii')), **values)
        before, after = html.split(DATA_PLACE)
        content = b''.join([before, *self._blocks, after])
        self.bytes = len(content)
        folder.write(PAGE, content)
        folder.flush()
        return osp.join(folder.out_dir, PAGE)


def _name(folder: str, number: int) -> str:
    return f'{folder}/{number:06d}'


def to_json(*values: Any) -> bytes:
    """Values as JSON with commas between. ``<`` is escaped, so that it is safe inside the scripts of a page."""
    texts = (json.dumps(value, allow_nan=False, separators=(',', ':')) for value in values)
    return ','.join(texts).replace('<', '\\u003c').encode('ascii')


def script_call(function: str, *values: Any) -> bytes:
    """A script that calls one of the page's functions, such as ``featviz.run``, with values as JSON."""
    return b'featviz.%s(%s);\n' % (function.encode(), to_json(*values))
