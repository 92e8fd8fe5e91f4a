import math

import pytest

from mmdet_featviz.runs.image_selection import ImageSelection


def chosen(monkeypatch, world_size, images, stages, interval, maximum, names=()):
    """Numbers of the images that each rank draws in each round, as mmengine's DefaultSampler deals them out."""
    found = []
    for rank in range(world_size):
        monkeypatch.setattr('mmdet_featviz.runs.image_selection.get_dist_info', lambda rank=rank: (rank, world_size))
        turns, dealt = ImageSelection(interval, maximum, names), list(range(images)) * 2
        for round_, stage in enumerate(stages):
            assert stage == turns.stage or not turns.is_over(stage)
            turns.begin(stage, None if stage == 'train' else images)
            whole = images // world_size if stage == 'train' else math.ceil(images / world_size)
            for number in dealt[: whole * world_size][rank::world_size]:
                was_over, drawn = turns.is_over(stage), turns.next(f'/data/street/{number}.jpg')
                assert not (was_over and drawn)
                if drawn:
                    found.append((round_, number))
    return sorted(found)


@pytest.mark.parametrize(('interval', 'maximum'), [(1, None), (3, None), (2, 2), (1, 5)])
def test_each_validation_draws_the_same_images_on_however_many_ranks(monkeypatch, interval, maximum):
    expected = [(round_, number) for round_ in range(3) for number in list(range(0, 7, interval))[:maximum]]
    for world_size in (1, 2, 3, 5):
        assert chosen(monkeypatch, world_size, 7, ['val'] * 3, interval, maximum) == expected


@pytest.mark.parametrize(('interval', 'maximum'), [(1, 10), (4, None), (4, 3)])
def test_a_training_counts_on_over_its_validations(monkeypatch, interval, maximum):
    """Two epochs of six images, with a validation after each."""
    trained = [divmod(number, 6) for number in range(0, 12, interval)][:maximum]
    validated = [(round_, number) for round_ in (1, 3) for number in list(range(0, 6, interval))[:maximum]]
    expected = sorted([(2 * epoch, number) for epoch, number in trained] + validated)
    for world_size in (1, 2, 3):
        assert chosen(monkeypatch, world_size, 6, ['train', 'val'] * 2, interval, maximum) == expected


@pytest.mark.parametrize('names', [('4', '1.jpg'), ('street/4', 'data/street/1.jpg'), ('1', '/street/1', '4')])
def test_images_by_their_names(monkeypatch, names):
    for world_size in (1, 2, 5):
        found = chosen(monkeypatch, world_size, 7, ['val', 'val'], 1, None, names)
        assert found == [(0, 1), (0, 4), (1, 1), (1, 4)]


def test_names_that_no_image_has():
    turns = ImageSelection(1, None, ('a', 'b/c.png', 'reet/d', 'C:/e'))
    assert turns.missing(['/data/a.jpg', '/data/b/c.png', '/data/street/d.jpg', 'C:\\e.jpg']) == ['reet/d']
    assert turns.missing([]) == list(turns.names)
    assert not turns.next(None)
