import math

import pytest

from mmdet_featviz.turns import Turns


def chosen(monkeypatch, world_size, images, rounds, interval, maximum):
    """Numbers of the images that each rank draws in each round, as mmengine's DefaultSampler deals them out."""
    found = []
    for rank in range(world_size):
        monkeypatch.setattr('mmdet_featviz.turns.get_dist_info', lambda rank=rank: (rank, world_size))
        turns, dealt = Turns(interval, maximum), list(range(images)) * 2
        for round_ in range(rounds):
            turns.begin('val', images)
            for number in dealt[: math.ceil(images / world_size) * world_size][rank::world_size]:
                was_over, drawn = turns.over, turns.next()
                assert not (was_over and drawn)
                if drawn:
                    found.append((round_, number))
    return sorted(found)


@pytest.mark.parametrize(('interval', 'maximum'), [(1, None), (3, None), (2, 4), (1, 9)])
def test_the_same_images_on_however_many_ranks(monkeypatch, interval, maximum):
    one = chosen(monkeypatch, 1, 7, 3, interval, maximum)
    assert one == [divmod(number, 7) for number in range(0, 21, interval)][:maximum]
    for world_size in (2, 3, 5):
        assert chosen(monkeypatch, world_size, 7, 3, interval, maximum) == one
