"""CSV table: writes rows as CSV in which a spreadsheet runs no cell as a formula, and reads them back."""

from __future__ import annotations

import csv
import io
import re
from types import SimpleNamespace
from typing import Any, Iterable, Sequence

# What a spreadsheet takes for the beginning of a formula, also in full width. The apostrophes keep escaping reversible.
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def csv_text(columns: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV; texts that a spreadsheet would run, such as ``=1+1``, begin with an apostrophe.

    Args:
        columns: Names of the columns.
        rows: The cells of each row; None is an empty cell.
    """
    lines: list[str] = []
    # With this end, cells with either sign are quoted; with a line feed alone, a carriage return would begin a row.
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator='\r\n')
    writer.writerow([*map(_harmless, columns)])
    writer.writerows([*map(_harmless, row)] for row in rows)
    return ''.join(line[:-2] + '\n' for line in lines)


class CsvRows(csv.DictReader):
    """Iterates over the rows of a table of :func:`csv_text`, as {column: text}.

    Args:
        text: The table.
    """

    def __init__(self, text: str) -> None:
        super().__init__(io.StringIO(text, newline=''))

    def __next__(self) -> dict[str, Any]:
        return {name: cell[1:] if _is_escaped(cell) else cell for name, cell in super().__next__().items()}


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if _is_formula(cell) else cell


def _is_escaped(cell: Any) -> bool:
    return isinstance(cell, str) and cell.startswith("'") and _is_formula(cell)


def _is_formula(cell: Any) -> bool:
    """Whether a spreadsheet would run a text, perhaps without its apostrophes; one or several numbers are none."""
    if not isinstance(cell, str) or not FORMULA.match(cell):
        return False
    try:
        for number in cell.lstrip("'").split():
            float(number)
    except ValueError:
        return True
    return False
