"""Tables as CSV: what a spreadsheet would run as a formula, it shows as text; reading gives back what was written."""

import csv
import io

import numpy as np
import pytest
from made_errors import boxes

from mmdet_featviz.evaluation.comparison_table import csv_table
from mmdet_featviz.evaluation.detection_errors import find_errors
from mmdet_featviz.evaluation.error_records import ErrorRecord, MissedObject, errors_csv
from mmdet_featviz.evaluation.explanation_summary import to_csv
from mmdet_featviz.evaluation.saved_errors import read_errors
from mmdet_featviz.runs.field_files import field_files
from mmdet_featviz.utils.csv_table import CsvRows, csv_text

FORMULAS = ['=1+1', '+cmd|x!A1', '-2+3', '@SUM(A1)', '\t=1', '\r=1', '\n=1', '\uff1d1', "'=1", "''@x"]
HARMLESS = ['', '-2', '+1e-5', '-inf', '-1 2 -3.5', "'quoted'", 'a\rb', 'a=1', ' =1', '<b>', 'a,"b"\nc', 'e\u202egpj']


def cells_of(text):
    return [cell for row in csv.reader(io.StringIO(text, newline='')) for cell in row]


def is_run(cell):
    """Whether a spreadsheet may run a cell: it begins like a formula and is no number."""
    try:
        list(map(float, cell.split()))
    except ValueError:
        return cell[:1] in tuple('=+-@\t\r\n\uff1d\uff0b\uff0d\uff20')
    return False


def test_cells_are_harmless_and_are_read_as_they_were():
    text = csv_text(['name', '=column'], [[one, one] for one in FORMULAS + HARMLESS])
    assert not any(map(is_run, cells_of(text)))
    assert [row['name'] for row in CsvRows(text)] == FORMULAS + HARMLESS
    assert all(cell in cells_of(text) for cell in HARMLESS)
    assert all("'" + cell in cells_of(text) for cell in FORMULAS)
    assert csv_text(['a', 'b'], [[None, -1.5]]) == 'a,b\n,-1.5\n'
    assert list(CsvRows('a,b\n1\n1,2,3\n')) == [{'a': '1', 'b': None}, {'a': '1', 'b': '2', None: ['3']}]


@pytest.mark.parametrize('name', ['=HYPERLINK("http://x")', "'=1", '-1+1'])
def test_a_table_of_errors_with_such_names_is_read_as_it_was(name):
    truth, found = boxes((0, 0, 10, 10, 0), (50, 50, 90, 90, 1)), boxes((0, 0, 10, 9, 0, 0.9), (-7, 0, -1, 9, 1, 0.5))
    missed = {1: MissedObject('background', (-5.0, 0, 50, 40), 0, 0.25, 0.0)}
    written = ErrorRecord(name, find_errors(found, truth, boxes()), missed, {name: np.array([-0.5, 1])})
    content = errors_csv([written], [name, 'cat'], 0.3)
    assert not any(map(is_run, cells_of(content.decode())))
    assert '-7' in cells_of(content.decode())
    (record,) = read_errors(content, [name, 'cat'])
    assert record.image == name and record.missed == missed
    assert record.errors.truth.labels.tolist() == [0, 1]
    assert record.contrasts[name].tolist() == [-0.5, 1]


def test_other_tables_are_harmless():
    name = '=1+1'
    score = dict(mean=-0.5, images=3)
    row = dict(level_a=name, level_b=name, stride='8', images=3, chance=None, correlation=score, inside_a=None)
    comparison = csv_table(dict(levels=[dict(row, inside_b=score)]), [name, '@b'])
    fields = field_files(dict(images=2, levels=[dict(name=name, stride=[8, 8], theoretical=None, effective=3.0)]))
    summary = to_csv([dict(image=name, method='@odam', bbox=[-1, 2, 3, 4], curves=[1]), dict(image='b', extra=-2)])
    for text in (comparison, fields['receptive_fields.csv'].decode(), summary):
        assert "'=1+1" in cells_of(text)
        assert not any(map(is_run, cells_of(text)))
    assert '-0.5' in cells_of(comparison)
    assert list(csv.DictReader(io.StringIO(summary))) == [
        dict(image="'=1+1", method="'@odam", bbox='-1.00 2.00 3.00 4.00', extra=''),
        dict(image='b', method='', bbox='', extra='-2'),
    ]
