"""The export of a run as a data set for FiftyOne, as its importer reads it."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import featviz
from figure_runs import BOXES, CORNERS, META, SIZE, save_figure_run

from mmdet_featviz.apis.fiftyone_export import export_fiftyone
from mmdet_featviz.evaluation.detection_errors import find_errors
from mmdet_featviz.evaluation.error_records import ErrorRecord, MissedObject, errors_csv
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Views

NO_CROWDS = Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
MISSED_BOX = [70.0, 5, 90, 15]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Two images, the second without boxes in the table of errors."""
    folder = Path(save_figure_run(tmp_path_factory.mktemp('fiftyone'), colormap='gray'))
    objects = Boxes(np.array([CORNERS[0], MISSED_BOX]), np.array([0, 1]), np.full(2, np.nan))
    image = str(folder.parent / 'images' / 'a.png')
    missed = {1: MissedObject('background', (70, 5, 90, 14), 1, 0.2, 0.9)}
    record = ErrorRecord(image, find_errors(BOXES[1:], objects, NO_CROWDS), missed, {'neck_0': np.array([1.5, np.nan])})
    (folder / 'errors.csv').write_bytes(errors_csv([record], META['classes'], 0.3))
    return folder


def export(run, out, *options):
    """Export by the command; returns the samples, the metadata and what was printed."""
    done = featviz('export-fiftyone', str(run), '--out-dir', str(out), *options)
    assert done.returncode == 0, done.stderr
    return (*(json.loads((out / name).read_text()) for name in ('samples.json', 'metadata.json')), done.stdout)


def pixels_of(label):
    left, top, width, height = label['bounding_box']
    return [left * SIZE[1], top * SIZE[0], (left + width) * SIZE[1], (top + height) * SIZE[0]]


def test_boxes_have_their_errors(run, tmp_path):
    data, metadata, printed = export(run, tmp_path / 'out')
    assert printed.strip() == f'2 images for FiftyOne: {tmp_path / "out"}'
    assert 'version' not in metadata  # which would be that of FiftyOne's database
    assert metadata['info'] == dict(config='one.py', reduction='max', run=str(run), classes=list(META['classes']))
    first, second = data['samples']
    assert first['filepath'] == str(run.parent / 'images' / 'a.png')
    assert (first['metadata']['width'], first['metadata']['height']) == SIZE[::-1]
    assert (first['missed_objects'], first['false_predictions']) == (1, 1)
    best, other = first['predictions']['detections']
    assert (best['label'], best['error'], best['confidence']) == ('star', 'true', 0.9)
    assert (other['label'], other['error'], other['confidence']) == ('Straße $5', 'background', 0.4)
    assert best['iou'] == pytest.approx(39 / 40)
    assert pixels_of(best) == pytest.approx(CORNERS[2])
    found, missed = first['ground_truth']['detections']
    assert (found['error'], found['size'], found['contrast_neck_0']) == ('found', 'medium', 1.5)
    assert (missed['error'], missed['size'], missed['mechanism']) == ('missed', 'small', 'background')
    assert pixels_of(missed) == pytest.approx(MISSED_BOX)
    assert 'confidence' not in missed and 'contrast_neck_0' not in missed
    assert second['missed_objects'] == len(second['ground_truth']['detections']) == 0


def test_heatmaps_are_those_of_the_pictures(run, tmp_path):
    data = export(run, tmp_path / 'out')[0]
    views = Views(Style(save='heatmap', colormap='gray', align='center'))
    for sample, snapshot in zip(data['samples'], Run(str(run)).snapshots()):
        pictures = {picture.name: picture.pixels for picture in views.draw(snapshot, views.place(snapshot))}
        for level in ('neck_0', 'neck_1'):
            label = sample[f'heat_{level}']
            assert (label['_cls'], label['map_path'].split('/')[:2]) == ('Heatmap', ['fields', f'heat_{level}'])
            heat = cv2.imread(str(tmp_path / 'out' / label['map_path']), cv2.IMREAD_UNCHANGED)
            assert heat.dtype == np.uint8
            np.testing.assert_array_equal(heat, pictures[f'{level}.heatmap.png'][..., 0])


def test_heatmaps_of_a_run_with_one_range_can_be_compared(tmp_path):
    run = save_figure_run(tmp_path / 'run', normalize='run')  # the values of the second image are ten times as large
    samples = export(run, tmp_path / 'out')[0]['samples']
    dim, bright = (
        cv2.imread(str(tmp_path / 'out' / one['heat_neck_0']['map_path']), cv2.IMREAD_UNCHANGED) for one in samples
    )
    assert dim.max() < 40 and bright.max() > 240


def test_without_errors_the_boxes_are_those_of_the_run(run, tmp_path):
    plain = shutil.copytree(run, tmp_path / 'plain')
    (plain / 'errors.csv').unlink()
    (sample, _) = export(plain, tmp_path / 'out')[0]['samples']
    assert [label['label'] for label in sample['ground_truth']['detections']] == ['star']
    assert [label['confidence'] for label in sample['predictions']['detections']] == pytest.approx([0.4, 0.9])
    assert not {'missed_objects', 'error'} & {*sample, *sample['predictions']['detections'][0]}


def test_the_table_of_a_metric_with_a_prefix_is_read_too(run, tmp_path):
    other = shutil.copytree(run, tmp_path / 'other')
    (other / 'errors.csv').rename(other / 'errors_low.csv')
    export_fiftyone(str(other), str(tmp_path / 'out'))
    sample = json.loads((tmp_path / 'out' / 'samples.json').read_text())['samples'][0]
    assert (sample['missed_objects'], sample['false_predictions']) == (1, 1)


def test_what_cannot_be_exported_is_an_error_that_says_what_to_do(run, tmp_path):
    export(run, tmp_path / 'out')
    assert 'holds the pictures of another run' in featviz('export-fiftyone', run, '--out-dir', tmp_path / 'out').stderr
    export(run, tmp_path / 'out', '--overwrite')
    assert 'is, contains or is inside' in featviz('export-fiftyone', run, '--out-dir', run / 'out').stderr
    assert 'is no run' in featviz('export-fiftyone', tmp_path, '--out-dir', tmp_path / 'b').stderr
    damaged = shutil.copytree(run, tmp_path / 'damaged')
    (damaged / 'errors.csv').write_text((run / 'errors.csv').read_text().replace('prediction,0', 'guess,0'))
    done = featviz('export-fiftyone', damaged, '--out-dir', tmp_path / 'c')
    assert "errors.csv is damaged ('guess'): remove it to export the boxes alone" in done.stderr
    row = 'image,kind,number,class,left,top,right,bottom,size,score,type,mechanism\na,prediction,0,x,0,0,inf,9,,0.5,,\n'
    (damaged / 'errors.csv').write_text(row)
    done = featviz('export-fiftyone', damaged, '--out-dir', tmp_path / 'd')
    assert 'errors.csv is damaged (Out of range float values' in done.stderr
