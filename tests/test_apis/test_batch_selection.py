"""Batch selection: rounds over a data set, for a detector that knows neither batches nor epochs."""

import pytest
import torch
from mmdet.structures import DetDataSample

from mmdet_featviz.apis.batch_selection import BatchSelection
from mmdet_featviz.runs.image_selection import ImageSelection


@pytest.mark.parametrize(('rank', 'expected'), [(0, [0, 2]), (1, [1, None])])
def test_an_image_that_the_sampler_repeats_at_the_end_is_not_drawn_again(monkeypatch, rank, expected):
    """Three images on two ranks: the second rank gets the first image again."""
    monkeypatch.setattr('mmdet_featviz.runs.image_selection.get_dist_info', lambda: (rank, 2))
    batches, inputs = BatchSelection(ImageSelection(1, None)), torch.zeros(1, 3, 4, 4)
    for stage, folder in (('val', 'epoch_1'), ('val', 'epoch_2'), ('test', ''), ('test', '')):
        samples = [DetDataSample(metainfo=dict(img_id=(2 * n + rank) % 3)) for n in range(2)]
        found = [batches.select(inputs, [sample], folder, stage, False, 2, 3).positions for sample in samples]
        assert found == [[position] for position in expected]
