"""Reader: the folder of a run is opened again, and its images are found."""

import json

import cv2
import numpy as np
import pytest
from conftest import read
from drawn_run import draw

from mmdet_featviz.runs.maps_file import dump_snapshot, load_snapshot
from mmdet_featviz.runs.reader import Run, load_with_image
from mmdet_featviz.structures.snapshot import Snapshot


def test_a_folder_without_a_run_or_without_maps_is_an_error(pool_model, tmp_path):
    with pytest.raises(FileNotFoundError, match='is no run: it has no manifest.jsonl'):
        Run(str(tmp_path))
    draw(pool_model, tmp_path, count=1)
    with pytest.raises(ValueError, match=r"holds no maps to draw from: run with save=\('maps',\)"):
        Run(str(tmp_path / 'run'))


def test_images_of_relative_paths_are_found_from_another_folder(pool_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(pool_model, tmp_path, count=1, save=('overlay', 'maps'))
    info = tmp_path / 'run' / 'run.json'
    assert json.loads(info.read_text())['working_dir'] == str(tmp_path)
    path = Run(str(tmp_path / 'run')).paths[0]
    snapshot = load_snapshot(path)
    (tmp_path / 'relative').mkdir()
    relative = tmp_path / 'relative' / 'maps.npz'
    relative.write_bytes(dump_snapshot(Snapshot(**{**vars(snapshot), 'path': '图 0.png'})))
    monkeypatch.chdir(tmp_path / 'relative')
    image = load_with_image(str(relative), json.loads(info.read_text())).image()
    np.testing.assert_array_equal(image, read(tmp_path / '图 0.png'))
    (tmp_path / 'relative' / '图 0.png').write_bytes(cv2.imencode('.png', image)[1].tobytes())
    (tmp_path / '图 0.png').write_bytes(cv2.imencode('.png', np.zeros_like(image))[1].tobytes())
    np.testing.assert_array_equal(load_with_image(str(relative), json.loads(info.read_text())).image(), image)


def test_the_folder_of_a_report_is_not_a_run(pool_model, tmp_path):
    draw(pool_model, tmp_path, count=1, save='maps', report=True)
    with pytest.raises(ValueError, match='report holds no maps to draw from'):
        Run(str(tmp_path / 'run' / 'report'))


def test_the_order_is_that_of_the_data_set_on_any_number_of_threads_and_ranks(tmp_path):
    """Two ranks, each with a validation of two epochs, training images and two tests, finished in any order."""
    run_order = [
        *(('epoch_2', position, 0) for position in range(4)),
        *(('epoch_10', position, augmentation) for position in range(4) for augmentation in (0, 1, 10, 'mean')),
        ('iter_9', 0, 0),
        ('iter_10', 1, 0),
        *(('', position, 0) for position in (0, 2, 10)),
        ('test_2', 0, 0),
    ]
    parts = [], []
    for folder, position, augmentation in run_order:
        key = f'{folder}/{99 - position}'.lstrip('/')
        entry = dict(key=key, folder=folder, position=position, augmentation=augmentation, layer='neck', level=0)
        parts[position % 2].append(json.dumps({**entry, 'files': [f'{key}/maps.{augmentation}.npz']}) + '\n')
    rng = np.random.default_rng(0)
    for rank, part in enumerate(parts):
        rng.shuffle(part)
        (tmp_path / f'manifest.rank{rank}.jsonl').write_text(''.join(part))
    found = Run(str(tmp_path))
    assert [(e['folder'], e['position'], e['augmentation']) for e in found.entries.values()] == run_order
    assert [path[len(str(tmp_path)) + 1 :] for path in found.paths] == [
        f'{folder}/{99 - position}/maps.{augmentation}.npz'.lstrip('/') for folder, position, augmentation in run_order
    ]


def test_entries_without_a_position_keep_the_order_of_the_file(tmp_path):
    keys = ['epoch_2/c', 'b', 'epoch_1/d', 'a']  # as earlier versions wrote them
    with open(tmp_path / 'manifest.jsonl', 'w') as file:
        for key in keys:
            entry = dict(key=key, augmentation=0, layer='neck', level=0, files=[f'{key}/maps.npz'])
            file.write(json.dumps(entry) + '\n')
    assert [key for key, *_ in Run(str(tmp_path)).entries] == keys
