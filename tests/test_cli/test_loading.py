"""Loading: which part of a config the drawing options reach."""

from mmdet.models import ATSS
from mmengine.config import Config

from mmdet_featviz import FeatVizHook
from mmdet_featviz.cli.loading import add_heatmaps


def test_options_reach_a_hook_whose_type_is_a_class():
    """As in pure Python configs."""
    options = dict(out_dir='there', max_images=3)
    cfg = Config(dict(model=dict(type=ATSS), default_hooks=dict(mine=dict(type=FeatVizHook, boxes='pred'))))
    add_heatmaps(cfg, options)
    assert dict(cfg.default_hooks) == dict(mine=dict(type=FeatVizHook, boxes='pred', out_dir='there', max_images=3))


def test_options_reach_a_detector_that_draws_by_itself():
    cfg = Config(dict(model=dict(type='mmdet.RetinaNetHp', featviz=dict(boxes='pred'))))
    add_heatmaps(cfg, dict(max_images=3))
    assert dict(cfg.model) == dict(type='mmdet.RetinaNetHp', featviz=dict(boxes='pred', max_images=3))
