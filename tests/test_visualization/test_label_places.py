"""Label places: which corner of a box, and none where there is no place."""

from mmdet_featviz.visualization.label_places import Area, free_place

TILE = 200, 100
BOX = [50.0, 40.0, 120.0, 80.0]


def test_the_corners_of_a_box_are_tried_in_turn():
    taken = []
    for left, top in [(50, 30), (90, 30), (50, 40), (90, 40), (50, 80), (90, 80), (50, 70), (90, 70)]:
        place = free_place(BOX, (30, 10), TILE, taken)
        assert place == (left, top, left + 30, top + 10)
        taken.append(place)
    assert free_place(BOX, (30, 10), TILE, taken) is None


def test_a_label_stays_inside_the_tile():
    assert free_place([-20.0, -5.0, 30.0, 50.0], (40, 10), TILE, []) == (0, 0, 40, 10)
    assert free_place([180.0, 95.0, 240.0, 130.0], (40, 10), TILE, []) == (160, 85, 200, 95)
    assert free_place([0.0, 0.0, 200.0, 100.0], (201, 10), TILE, []) is None
    assert free_place([0.0, 0.0, 200.0, 100.0], (30, 101), TILE, []) is None


def test_an_inset_is_not_covered():
    assert free_place(BOX, (30, 10), TILE, [Area(0, 0, 200, 41)]) == (50, 80, 80, 90)
