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
