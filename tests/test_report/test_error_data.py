"""Errors in the data of the report page, against the rows of errors.csv."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from error_runs import CLASSES, count_types, make_record, read_rows, write_error_run
from report_pages import read_data, write_report

from mmdet_featviz.evaluation.missed_contrasts import compare_contrasts
from mmdet_featviz.report.builder import Report
from mmdet_featviz.report.error_data import join_boxes
from mmdet_featviz.runs.reader import Run

IMAGES = 'b', 'a', 'c'


@pytest.mark.parametrize('saved_truth', [True, False], ids=['saved', 'only in the table'])
def test_the_page_has_the_rows_of_the_table(tmp_path, saved_truth):
    run, tables = write_error_run(tmp_path / 'run', IMAGES, saved_truth=saved_truth)
    write_report(run)
    index, rows_of = read_data(run), read_rows(tables[''])
    names = index['errors']
    seen = set()
    for number, image in enumerate(index['images']):
        rows = rows_of[str(tmp_path / f'{image["key"]}.png')]
        side = read_data(run, f'{number:06d}')['sides'][0]
        boxes, known = side['boxes'], side['errors']
        places = {}
        for row in rows:
            corners = [float(row[name]) for name in ('left', 'top', 'right', 'bottom')]
            score = float(row['score']) if row['score'] else None
            wanted = [*corners, CLASSES.index(row['class']), score]
            (place,) = (
                at
                for at, box in enumerate(boxes)
                if np.allclose(box[:5], wanted[:5], atol=0.01)
                and (box[5] is None) == (score is None)
                and (score is None or abs(box[5] - score) < 1e-4)
            )
            places[row['kind'], row['number']] = place
        assert len(set(places.values())) == len(rows) == sum(error is not None for error in known)
        below = [box for box, error in zip(boxes, known) if error is None]
        assert all(box[5] < 0.3 for box in below)
        for row in rows:
            error = known[places[row['kind'], row['number']]]
            assert [error['type'], error['size']] == [row['type'], row['size']]
            other = {'prediction': 'ground truth', 'ground truth': 'prediction'}[row['kind']]
            assert error['match'] == (places[other, row['match']] if row['match'] else None)
            if row['iou']:
                assert error['iou'] == pytest.approx(float(row['iou']), rel=1e-4)
            if row['kind'] == 'ground truth':
                assert (error['mechanism'] or '') == row['mechanism']
                assert (error['candidate'] is None) == (row['candidate_score'] == '')
                if error['candidate']:
                    shown = [float(row[f'candidate_{name}']) for name in ('left', 'top', 'right', 'bottom')]
                    shown += [CLASSES.index(row['candidate_class']), float(row['candidate_score'])]
                    assert error['candidate'] == pytest.approx([*shown, float(row['candidate_iou'])], rel=1e-4)
                for level, value in error['contrasts'].items():
                    cell = row[f'contrast {level}']
                    assert value == (pytest.approx(float(cell), rel=1e-4) if cell else None)
            seen.add(row['type'])
        values = image['values'][0]['errors']
        types = [names['types'][type_] for _, _, type_, _ in values['predictions']]
        types += ['missed' if steps < 0 else 'found' for _, steps, _, _ in values['truth']]
        expected = count_types(rows)
        assert {type_: types.count(type_) for type_ in seen} == {type_: expected[type_] for type_ in seen}
        reasons = [names['mechanisms'][one] for *_, one in values['truth'] if one >= 0]
        assert reasons == [row['mechanism'] for row in rows if row['mechanism']]
    assert len(seen) == 8  # all but ignored


def test_equal_boxes_are_joined_one_to_one():
    record = make_record('a.png', 0)
    predictions = record.errors.predictions
    doubled = predictions[np.r_[0, 0, 1 : len(predictions)]]
    joined = join_boxes(doubled, replace(record, errors=replace(record.errors, predictions=doubled)))
    assert len(joined.boxes) == len(doubled) + len(record.errors.truth)
    assert joined.predictions.tolist() == list(range(len(doubled)))


def test_the_head_of_the_page_has_the_contrasts_of_the_whole_table(tmp_path):
    run, _ = write_error_run(tmp_path / 'run', tuple('abcdef'))
    write_report(run)
    records = [make_record(str(tmp_path / f'{name}.png'), n) for n, name in enumerate('abcdef')]
    rows = compare_contrasts(records, 0.3)
    means = read_data(run)['errors']['contrasts']
    assert {(level, size) for level, of_level in means.items() for size in of_level} == {
        (row.level, row.size) for row in rows
    }
    for row in rows:
        assert means[row.level][row.size] == pytest.approx([row.found.mean, row.missed.mean], rel=1e-4)
    page = (Path(run.folder) / 'report' / 'index.html').read_text(encoding='utf-8')
    all_sizes = next(row for row in rows if (row.level, row.size) == ('neck_0', 'all'))
    assert f'<td>{all_sizes.found.mean:.3f} ({all_sizes.found.objects})</td>' in page
    assert f'[{all_sizes.difference.low:.3f}, {all_sizes.difference.high:.3f}]' in page


def test_each_epoch_has_the_errors_of_its_folder(tmp_path, caplog):
    """That of the third one is damaged: its boxes have no errors, and the page says so."""
    run, tables = write_error_run(tmp_path / 'run', IMAGES[:1], ('epoch_1', 'epoch_2', 'epoch_3'))
    table = Path(run.folder) / 'epoch_3' / 'errors.csv'
    table.write_bytes(table.read_bytes().replace(b'mechanism', b'reason'))
    report = write_report(Run(run.folder))
    first, second, third = read_data(run)['images'][0]['values']
    for values, epoch in ((first, 'epoch_1'), (second, 'epoch_2')):
        expected = count_types(*read_rows(tables[epoch]).values())
        assert sum(steps < 0 for _, steps, _, _ in values['errors']['truth']) == expected['missed']
        assert len(values['errors']['predictions']) == expected['true'] + expected['false']
    assert first['errors'] != second['errors']
    assert 'errors' not in third
    assert read_data(run, '000002')['sides'][0]['errors'] is None
    assert '1 left out, errors not readable (epoch_3/errors.csv)' in report.summary()
    page = Path(report.page).read_text(encoding='utf-8')
    assert 'tables of errors left out, as they cannot be read: epoch_3/errors.csv' in page
    assert 'of the data set, epoch_2' in page


def test_of_several_metrics_the_one_without_a_prefix_is_shown(tmp_path):
    run, tables = write_error_run(tmp_path / 'run', IMAGES[:2])
    low = Path(run.folder) / 'errors_low.csv'
    low.write_bytes(b'')
    run.evaluation_files = ['errors_low.csv', 'errors.csv', 'errors.md']
    report = Report(run)
    assert [record.image for record in report._errors[0].latest] == list(read_rows(tables['']))
