"""Page template: the HTML of the report page, with its scripts and style sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE_FOLDER = Path(__file__).parent / 'page'
SCRIPTS = (  # in the order in which the page loads them
    'dom.js',
    'heat.js',
    'store.js',
    'errors.js',
    'error_orders.js',
    'box_outlines.js',
    'counts.js',
    'changes.js',
    'marks.js',
    'orders.js',
    'exports.js',
    'settings.js',
    'address.js',
    'gallery.js',
    'controls.js',
    'matches.js',
    'picture.js',
    'picture_file.js',
    'hover.js',
    'explanations.js',
    'type_legend.js',
    'box_panel.js',
    'image_view.js',
    'strip.js',
    'zoom.js',
    'readout.js',
    'error_table.js',
    'keys.js',
    'page.js',
)
STATIC_FILES = {f'page/{name}': PAGE_FOLDER / name for name in (*SCRIPTS, 'report.css')}  # path in the report: source


def render_page(**values: Any) -> bytes:
    """The report's ``index.html``.

    Args:
        **values: Variables of the template ``page/index.html``. Names from outside, such as image keys, are escaped.
    """
    from jinja2 import Environment, FileSystemLoader  # imported here because only the report needs it

    environment = Environment(
        loader=FileSystemLoader(str(PAGE_FOLDER)), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template('index.html').render(scripts=SCRIPTS, **values)
    return html.encode('utf-8', 'surrogateescape')  # file names may not be UTF-8
