"""The check of explanations must fail when their heat is placed wrong: each mistake is made here on purpose."""

import pytest
from explained import narrow_retinanet, state_of
from mmengine.config import ConfigDict
from test_patch_placement import make_pipeline
from torch import nn

from mmdet_featviz.benchmarks.explanation_placement import explanation_placement
from mmdet_featviz.benchmarks.patch_placement import LevelPlacement
from mmdet_featviz.benchmarks.zoo_models import packed
from mmdet_featviz.explanation import request
from mmdet_featviz.structures import placement as placements

LEVELS = [LevelPlacement('neck', 0, None, 0.0, 0.0, 2.5, 'right')]


def place(model):
    return explanation_placement(model, lambda picture: packed(make_pipeline(), picture), LEVELS)


@pytest.fixture
def retinanet():
    return narrow_retinanet()


def test_a_detection_is_explained_and_its_heat_follows_the_patch(retinanet):
    before = state_of(retinanet)
    found = place(retinanet)
    assert (found.target, found.level, found.verdict) == ('detection', 'neck_0', 'right')
    assert found.moves < 1
    assert state_of(retinanet) == before


def test_without_a_detection_a_candidate_is_explained(retinanet):
    retinanet.bbox_head.test_cfg = ConfigDict(retinanet.bbox_head.test_cfg, score_thr=2)  # the other is shared by all
    assert place(retinanet).target == 'candidate'


def test_heat_that_does_not_move_with_the_patch_is_wrong(retinanet, monkeypatch):
    """Each heatmap is mirrored, so that it moves against the patch."""
    placement_of = placements.placement_from_metas

    def mirrored(meta, image, match=None):
        placement = placement_of(meta, image, match)
        matrix = placement.matrix.copy()
        matrix[0] = -matrix[0, 0], 0, image.shape[2]
        return placements.Placement(matrix, placement.image_size, placement.input_size)

    monkeypatch.setattr('mmdet_featviz.apis.snapshot_builder.placement_from_metas', mirrored)
    found = place(retinanet)
    assert found.verdict == 'wrong'
    assert found.moves > 10


def test_no_heat_is_no_explanation(retinanet, monkeypatch):
    without = lambda method: lambda batch, targets: _without_heat(explainer, batch, targets)  # noqa: E731
    explainer = request.get_explainer('odam')
    monkeypatch.setattr(request, 'get_explainer', without)
    assert place(retinanet).verdict == 'no heat'


def _without_heat(explainer, batch, targets):
    maps = explainer(batch, targets)
    for levels in maps:
        for level in levels:
            level.values[:] = 0
    return maps


def test_a_detector_without_boxes_raises(retinanet, monkeypatch):
    monkeypatch.setattr(type(retinanet), 'test_step', lambda self, data: data['data_samples'])
    with pytest.raises(ValueError, match='predicts no boxes'):
        place(retinanet)


def test_mistakes_behind_attention_are_not_local(retinanet):
    levels = [LevelPlacement('neck', 0, None, 0.0, 0.0, -1.0, 'right')]  # every deviation is too large
    retinanet.neck.attention = nn.MultiheadAttention(4, 1)
    pack = lambda picture: packed(make_pipeline(), picture)  # noqa: E731
    assert explanation_placement(retinanet, pack, levels).verdict == 'wrong'
    retinanet.bbox_head.attention = nn.MultiheadAttention(4, 1)
    assert explanation_placement(retinanet, pack, levels).verdict == 'not local'
