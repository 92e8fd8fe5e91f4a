"""Whole-test benchmark: ratios of known times, and data sets of given images."""

import json

import cv2
import pytest
from conftest import noise

from mmdet_featviz.benchmarks.tables import TARGETS
from mmdet_featviz.benchmarks.whole_test import DETECTORS, ratios_of, write_scenes


def test_ratios_are_those_of_the_hook_to_none_and_of_what_it_adds_to_the_floor():
    seconds = {'without': [2.0, 4.0], 'workers=0': [3.0, 5.0], 'workers=auto': [2.5, 4.9], 'floor': [0.4, 0.5]}
    ratios = ratios_of(seconds)
    assert ratios == {
        'workers=0 / without': 1.5,
        'workers=0 / without, processor': 1.25,
        'workers=0 - without / floor, processor': 2.0,
        'workers=auto / without': 1.25,
        'workers=auto / without, processor': pytest.approx(1.225),
        'workers=auto - without / floor, processor': pytest.approx(1.8),
    }
    components = {"save='embeddings'": [5.0, 9.8], "reduction='pca'": [2.5, 9.8]}
    added = {name: ratio for name, ratio in ratios_of({**seconds, **components}).items() if '/ workers=auto' in name}
    assert added == {
        "reduction='pca' / workers=auto": 1,
        "reduction='pca' / workers=auto, processor": pytest.approx(2),
        "save='embeddings' / workers=auto": 2,
        "save='embeddings' / workers=auto, processor": pytest.approx(2),
    }
    bounded = {f'{detector} {name}' for detector in DETECTORS for name in ratios} & TARGETS.keys()
    assert bounded == {
        'ATSS-R50 workers=auto / without',
        'YOLOX-nano workers=auto / without',
        'YOLOX-nano workers=auto - without / floor, processor',
    }


def test_given_images_are_repeated_until_there_are_enough(tmp_path):
    originals = tmp_path / 'originals'
    originals.mkdir()
    cv2.imwrite(str(originals / 'a.png'), noise(30, 40))
    cv2.imwrite(str(originals / 'b.jpg'), noise(50, 20))
    (originals / 'notes.txt').write_text('no image')
    write_scenes(tmp_path / 'data', 5, originals=originals)
    content = json.loads((tmp_path / 'data' / 'val.json').read_text())
    sizes = [(entry['width'], entry['height']) for entry in content['images']]
    assert sizes == [(40, 30), (20, 50), (40, 30), (20, 50), (40, 30)]
    for entry, (width, height) in zip(content['images'], sizes):
        assert cv2.imread(str(tmp_path / 'data' / 'val' / entry['file_name'])).shape == (height, width, 3)
    assert len({entry['id'] for entry in content['images']}) == 5
