"""Image selection, on any number of ranks."""

import math

import pytest

from mmdet_featviz.runs.image_selection import ImageSelection


def drawn_on_ranks(monkeypatch, world_size, images, stages, interval, maximum, names=()):
    """(round, number) of all images drawn on all ranks, which get them as from mmengine's DefaultSampler."""
    drawn_images = []
    for rank in range(world_size):
        monkeypatch.setattr('mmdet_featviz.runs.image_selection.get_dist_info', lambda rank=rank: (rank, world_size))
        selection, padded = ImageSelection(interval, maximum, names), list(range(images)) * 2
        for round_, stage in enumerate(stages):
            assert stage == selection.stage or not selection.is_over(stage)
            selection.begin(stage, None if stage == 'train' else images)
            per_rank = images // world_size if stage == 'train' else math.ceil(images / world_size)
            for number in padded[: per_rank * world_size][rank::world_size]:
                was_over, drawn = selection.is_over(stage), selection.next(f'/data/street/{number}.jpg')
                assert not (was_over and drawn)
                if drawn:
                    drawn_images.append((round_, number))
    return sorted(drawn_images)


@pytest.mark.parametrize(('interval', 'maximum'), [(1, None), (3, None), (2, 2), (1, 5)])
def test_each_validation_draws_the_same_images_on_any_number_of_ranks(monkeypatch, interval, maximum):
    expected = [(round_, number) for round_ in range(3) for number in list(range(0, 7, interval))[:maximum]]
    for world_size in (1, 2, 3, 5):
        assert drawn_on_ranks(monkeypatch, world_size, 7, ['val'] * 3, interval, maximum) == expected


@pytest.mark.parametrize(('interval', 'maximum'), [(1, 10), (4, None), (4, 3)])
def test_training_continues_to_count_across_validations(monkeypatch, interval, maximum):
    """Two epochs of six images, with a validation after each."""
    trained = [divmod(number, 6) for number in range(0, 12, interval)][:maximum]
    validated = [(round_, number) for round_ in (1, 3) for number in list(range(0, 6, interval))[:maximum]]
    expected = sorted([(2 * epoch, number) for epoch, number in trained] + validated)
    for world_size in (1, 2, 3):
        assert drawn_on_ranks(monkeypatch, world_size, 6, ['train', 'val'] * 2, interval, maximum) == expected


@pytest.mark.parametrize('names', [('4', '1.jpg'), ('street/4', 'data/street/1.jpg'), ('1', '/street/1', '4')])
def test_images_selected_by_name(monkeypatch, names):
    for world_size in (1, 2, 5):
        found = drawn_on_ranks(monkeypatch, world_size, 7, ['val', 'val'], 1, None, names)
        assert found == [(0, 1), (0, 4), (1, 1), (1, 4)]


def test_missing_lists_names_without_an_image():
    selection = ImageSelection(1, None, ('a', 'b/c.png', 'reet/d', 'C:/e'))
    assert selection.missing(['/data/a.jpg', '/data/b/c.png', '/data/street/d.jpg', 'C:\\e.jpg']) == ['reet/d']
    assert selection.missing([]) == list(selection.names)
    assert not selection.next(None)
