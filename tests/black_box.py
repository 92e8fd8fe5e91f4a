"""A detector without a network, whose score is known: the share of an object that is visible."""

import torch
from mmdet.structures import DetDataSample

from mmdet_featviz.explanation.detections import Detections
from mmdet_featviz.explanation.targets import parse_targets

OBJECTS = torch.tensor([[8.0, 8, 24, 24], [32, 8, 48, 24]])  # side by side, of one class


class BlackBox:
    """Predicts both objects; the score of each is the share of its pixels that are visible (white)."""

    def __init__(self):
        pixels = torch.zeros(3, 32, 64, dtype=torch.uint8)
        for left, top, right, bottom in OBJECTS.int().tolist():
            pixels[:, top:bottom, left:right] = 255
        self.data = dict(inputs=[pixels], data_samples=[DetDataSample()])
        self.calls = []
        self.detections = self.predict(**dict(inputs=self.data['inputs'], samples=[None]))

    def predict(self, inputs, samples):
        self.calls.append(len(inputs))
        scores = [
            torch.stack([image[:, 8:24, left : left + 16].float().mean() / 255 for left in (8, 32)]) for image in inputs
        ]
        return [Detections(OBJECTS, score, torch.tensor([1, 1])) for score in scores]


def all_targets(box):
    """A target for each detection."""
    (selection,) = parse_targets('all', 'score', ())
    return selection.choose(0, box.detections[0], None)[0]
