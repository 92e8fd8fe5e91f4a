"""The export of box features: tables, files for the projector, and what a hostile name does in them."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from box_runs import CLASSES, LEVELS, write_box_run
from conftest import read

from mmdet_featviz.apis import box_sprite
from mmdet_featviz.apis.box_export import export_boxes
from mmdet_featviz.apis.fiftyone_export import export_fiftyone
from mmdet_featviz.cli import main
from mmdet_featviz.evaluation.neighbor_purity import neighbor_shares
from mmdet_featviz.report.box_table import read_boxes
from mmdet_featviz.report.error_tables import ErrorTables
from mmdet_featviz.runs.box_features_file import load_box_features


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return write_box_run(tmp_path_factory.mktemp('boxes') / 'run', 6)


def read_csv(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def test_tables_and_projector_have_the_vectors_of_all_boxes(run, tmp_path):
    printed = export_boxes(str(run.folder), str(tmp_path / 'out'))
    saved = [load_box_features(file.path) for file in run.box_features]
    for level in LEVELS:
        rows = read_csv(tmp_path / 'out' / f'{level}.csv')
        vectors = np.concatenate([one.vectors[level] for one in saved])
        seen = np.isfinite(vectors).all(axis=1)
        assert not seen.all()
        columns = [str(number) for number in range(vectors.shape[1])]
        written = np.array([[float(row[column]) for column in columns] for row in rows])
        np.testing.assert_allclose(written, vectors[seen], rtol=1e-5)
        tensors = np.loadtxt(tmp_path / 'out' / 'projector' / f'{level}.tensors.tsv', delimiter='\t')
        np.testing.assert_allclose(tensors, vectors[seen], rtol=1e-5)
    scores = np.concatenate([one.boxes.scores for one in saved])[seen]
    labels = np.concatenate([one.boxes.labels for one in saved])[seen]
    images = np.repeat(np.arange(6), [len(one.boxes) for one in saved])[seen]
    kinds = ['ground truth' if np.isnan(score) else 'prediction' for score in scores]
    assert [row['kind'] for row in rows] == kinds
    corners = np.concatenate([one.boxes.corners for one in saved])[seen]
    np.testing.assert_allclose([float(row['right']) for row in rows], corners[:, 2], rtol=1e-6)
    assert {row['type'] for row in rows} >= {'true', 'background', 'found', 'missed'}
    truth = np.isnan(scores)
    expected = neighbor_shares(vectors[seen][truth], labels[truth], images[truth]).mean()
    purity = read_csv(tmp_path / 'out' / 'purity.csv')
    row = next(one for one in purity if one['level'] == level and one['kind'] == 'ground truth' and not one['class'])
    assert float(row['purity']) == pytest.approx(expected, rel=1e-5)
    assert f'| {level} | ground truth | {truth.sum()} | {expected:.3f} |' in printed
    last = printed.splitlines()[-1]
    assert last.startswith(f'{seen.sum()} boxes at 2 levels: {tmp_path / "out"}')
    assert last.endswith('6 boxes left out, not seen by the network or not finite')


def test_hostile_names_of_classes_stay_in_their_cells(run, tmp_path):
    export_boxes(str(run.folder), str(tmp_path / 'out'))
    rows = read_csv(tmp_path / 'out' / 'neck_0.csv')
    names = {row['class'] for row in rows}
    assert names == {"'=1+1", 'a\tb\nc,"d"', '<img src=x onerror=alert(1)>', '3'}  # the last has no name
    head, *lines = (tmp_path / 'out' / 'projector' / 'metadata.tsv').read_text(encoding='utf-8').splitlines()
    assert len(lines) == len(rows) and all(line.count('\t') == head.count('\t') for line in lines)
    place = head.split('\t').index('class')
    assert {line.split('\t')[place] for line in lines} == {'=1+1', 'a b c,"d"', '<img src=x onerror=alert(1)>', '3'}
    config = (tmp_path / 'out' / 'projector' / 'projector_config.pbtxt').read_text()
    assert config.count('embeddings {') == 2 and 'tensor_path: "neck_0.tensors.tsv"' in config
    assert CLASSES[0] == '=1+1'


def test_the_sprite_has_the_crops_of_all_boxes_row_by_row(tmp_path, monkeypatch):
    """Of 24 boxes five are in a row; an image that is gone leaves its crops gray."""
    monkeypatch.setattr(box_sprite, 'LARGEST', 103)  # so that a crop has 20 pixels
    run = write_box_run(tmp_path / 'run', 6)
    images = {str(number): read(tmp_path / 'run images' / f'{number}.png') for number in range(6)}
    (tmp_path / 'run images' / '3.png').unlink()
    export_boxes(str(run.folder), str(tmp_path / 'out'))
    folder = tmp_path / 'out' / 'projector'
    sprite, rows = read(folder / 'sprite.png').astype(float), read_csv(tmp_path / 'out' / 'neck_0.csv')
    assert sprite.shape == (100, 100, 3) and len(rows) == 24
    for number, row in enumerate(rows):
        tile = sprite[number // 5 * 20 :, number % 5 * 20 :][:20, :20]
        key = Path(row['image']).stem
        if key == '3':
            assert (tile == 128).all()
            continue
        left, top, right, bottom = (float(row[side]) for side in ('left', 'top', 'right', 'bottom'))
        part = images[key][int(top) : math.ceil(bottom), int(left) : math.ceil(right)].astype(float)
        beside, above = ((20 - min(20, round(20 * part.shape[k] / part.shape[1 - k]))) // 2 for k in (1, 0))
        assert (tile[:, : max(beside - 1, 0)] == 128).all() and (tile[: max(above - 1, 0)] == 128).all()
        shown = tile[above : 20 - above, beside : 20 - beside]
        half = len(part) // 2, len(shown) // 2
        for of_image, of_sprite in ((part[: half[0]], shown[: half[1]]), (part[half[0] :], shown[half[1] :])):
            np.testing.assert_allclose(of_sprite.mean((0, 1)), of_image.mean((0, 1)), atol=6)
    assert (sprite[80:, 80:] == 128).all()  # no 25th box
    config = (folder / 'projector_config.pbtxt').read_text()
    assert config.count('sprite { image_path: "sprite.png" single_image_dim: 20 single_image_dim: 20 }') == 2


def test_many_boxes_are_thinned_evenly_and_damaged_files_left_out(run, tmp_path):
    whole, some = (read_boxes(run, ErrorTables(run), most) for most in (1000, 13))
    assert len(some.boxes) + some.infinite == 13 and set(some.images.tolist()) == set(range(6))
    assert f'13 of {whole.count} boxes, chosen evenly' in some.remarks
    for level in LEVELS:
        known = {tuple(row) for row in whole.vectors[level]}
        assert all(tuple(row) in known for row in some.vectors[level])
    damaged = write_box_run(tmp_path / 'damaged', 2)
    Path(damaged.box_features[0].path).write_bytes(b'no archive')
    table = read_boxes(damaged, ErrorTables(damaged))
    assert set(table.images.tolist()) == {1} and table.unreadable == ['0'] and 'not readable: 0' in table.remarks


def test_runs_without_features(run, tmp_path):
    empty = write_box_run(tmp_path / 'empty', 2, boxes=False)
    with pytest.raises(ValueError, match=r"holds no features of boxes: run with save=\('box_features',\)"):
        export_boxes(str(empty.folder), str(tmp_path / 'out'))
    with pytest.raises(ValueError, match='which is read: choose a folder beside it'):
        export_boxes(str(run.folder), str(Path(run.folder) / 'out'))
    with pytest.raises(SystemExit, match='box_features are not in saved maps: run the detector again'):
        main('render', [str(run.folder), '--out-dir', str(tmp_path / 'again'), '--save', 'box_features'])
    export_boxes(str(run.folder), str(tmp_path / 'out'))
    with pytest.raises(FileExistsError):
        export_boxes(str(run.folder), str(tmp_path / 'out'))
    export_boxes(str(run.folder), str(tmp_path / 'out'), overwrite=True)
    assert json.loads((tmp_path / 'out' / 'manifest.jsonl').read_text().splitlines()[0])['files'] == ['purity.csv']


@pytest.mark.parametrize('has_table', [True, False])
def test_boxes_in_fiftyone_have_their_vectors(tmp_path, has_table):
    """Those of the level with the purest neighbors; a box that the network did not see has none."""
    run = write_box_run(tmp_path / 'run', 16)
    if not has_table:
        (tmp_path / 'run' / 'errors.csv').unlink()
    export_fiftyone(str(run.folder), str(tmp_path / 'out'))
    samples = json.loads((tmp_path / 'out' / 'samples.json').read_text())['samples']
    assert json.loads((tmp_path / 'out' / 'metadata.json').read_text())['info']['features'] == 'neck_1'
    for sample, file in zip(samples, run.box_features):
        saved = load_box_features(file.path)
        best = max(sample['predictions']['detections'], key=lambda one: one['confidence'])
        np.testing.assert_allclose(best['features'], saved.vectors['neck_1'][3], rtol=1e-4)
        truth = sample['ground_truth']['detections']
        assert [('features' in one) for one in truth] == [True, True, False]
        np.testing.assert_allclose(truth[1]['features'], saved.vectors['neck_1'][1], rtol=1e-4)
