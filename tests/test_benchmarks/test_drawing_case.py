import cv2

from mmdet_featviz.benchmarks.drawing_case import DrawingCase
from mmdet_featviz.structures.misplacement import misplacement
from mmdet_featviz.structures.placement import placement_from_metas


def test_the_input_shows_the_image(tmp_path):
    """Otherwise each benchmark of drawing would warn that the heat may lie elsewhere."""
    case = DrawingCase(str(tmp_path), backbone=[(2, 32)], neck=[(2, 64)])
    placement = placement_from_metas(case.sample.metainfo, case.inputs[0])
    assert misplacement(case.inputs[0].numpy(), cv2.imread(str(case.image)), placement) == 0
