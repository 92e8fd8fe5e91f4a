"""Page template: the HTML of the report page, with its scripts and style sheet."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

PAGE_FOLDER = Path(__file__).parent / 'page'
SCRIPTS = (  # in the order in which the page loads them
    'dom.js',
    'tables.js',
    'scores.js',
    'heat.js',
    'store.js',
    'errors.js',
    'error_orders.js',
    'box_outlines.js',
    'label_places.js',
    'box_labels.js',
    'counts.js',
    'changes.js',
    'marks.js',
    'orders.js',
    'exports.js',
    'settings.js',
    'similarity.js',
    'address.js',
    'gallery.js',
    'controls.js',
    'matches.js',
    'picture.js',
    'picture_file.js',
    'similar_cells.js',
    'hover.js',
    'explanations.js',
    'type_legend.js',
    'box_panel.js',
    'image_view.js',
    'strip.js',
    'zoom.js',
    'readout.js',
    'error_table.js',
    'contrast_table.js',
    'box_map.js',
    'keys.js',
    'page.js',
)
STYLE = 'report.css'
STATIC_FILES = {f'page/{name}': PAGE_FOLDER / name for name in (*SCRIPTS, STYLE)}  # path in the report: source


DATA_PLACE = b'<!-- data -->'  # in a page that is one file


def page_code(start: str) -> dict[str, Any]:
    """Variables of the template for a page that is one file: its scripts and style sheet, and their hashes.

    Args:
        start: Script that starts the page.
    """
    code = '\n'.join((PAGE_FOLDER / name).read_text(encoding='utf-8') for name in SCRIPTS)
    style = (PAGE_FOLDER / STYLE).read_text(encoding='utf-8')
    hashes = dict(script_hash=f'{_hash(code)} {_hash(start)}', style_hash=_hash(style))
    return dict(code=code, start=start, style=style, **hashes)


def _hash(text: str) -> str:
    """The source of a content security policy that allows this text and no other inside the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render_page(**values: Any) -> bytes:
    """The report's ``index.html``.

    Args:
        **values: Variables of the template ``page/index.html``. Names from outside, such as image keys, are escaped.
            With those of :func:`page_code` the page is one file, with a place for the data.
    """
    from jinja2 import Environment, FileSystemLoader  # imported here because only the report needs it

    environment = Environment(
        loader=FileSystemLoader(str(PAGE_FOLDER)), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template('index.html').render(scripts=SCRIPTS, **values)
    return html.encode('utf-8', 'surrogateescape')  # file names may not be UTF-8
