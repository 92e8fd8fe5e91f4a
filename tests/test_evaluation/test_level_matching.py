"""Levels of two runs are paired."""

from comparison_samples import make_level

from mmdet_featviz.evaluation.level_matching import level_names, match_levels


def test_levels_match_by_stride_then_by_layer_and_index():
    a = [
        make_level('backbone', 0, 4),
        make_level('backbone', 1, 8),
        make_level('neck', 0, 8),
        make_level('neck', 1, 16),
        make_level('x', 0, 64),
    ]
    b = [
        make_level('x', 1, 8),
        make_level('neck', 0, 4),
        make_level('neck', 1, 8),
        make_level('stem', 0, 16),
        make_level('backbone', 1, 8),
        make_level('x', 0, 32),
    ]
    groups, (unmatched_a, unmatched_b) = match_levels([a, b])
    assert [level_names(group) for group in groups] == [
        ('backbone_0', 'neck_0'),  # same stride
        ('backbone_1', 'backbone_1'),  # same layer and index
        ('neck_0', 'neck_1'),  # same layer and stride, although x_1 comes first
        ('neck_1', 'stem_0'),
    ]
    assert [level.name for level in unmatched_a] == ['x_0']
    assert [level.name for level in unmatched_b] == ['x_1', 'x_0']
