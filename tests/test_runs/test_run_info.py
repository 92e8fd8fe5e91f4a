"""run.json: the settings of a run, and its metrics."""

import json

import numpy as np
import torch
from drawn_run import draw

from mmdet_featviz.runs.run_info import numeric_metrics
from mmdet_featviz.visualization.style import Style


def test_run_json_says_how_the_run_was_drawn(pool_model, tmp_path):
    draw(pool_model, tmp_path, save=('overlay', 'maps'), alpha=0.3, reduction='l2')
    info = json.loads((tmp_path / 'run' / 'run.json').read_text(encoding='utf-8'))
    assert info['style']['alpha'] == 0.3
    assert info['reduction'] == 'l2'
    assert info['layers'] == ['backbone']
    assert info['dataset_meta']['classes'] == ['猫', 'dog']
    assert Style(**info['style']) == Style(alpha=0.3, save=('overlay', 'maps'), image_format='png')


def test_metrics_are_kept_as_finite_numbers_or_none():
    metrics = dict(
        mAP=np.float32(0.5), loss=torch.tensor([0.25]), count=3, bad=float('nan'), name='x', two=torch.ones(2)
    )
    assert numeric_metrics(metrics) == dict(mAP=0.5, loss=0.25, count=3.0, bad=None)
