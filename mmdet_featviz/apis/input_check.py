"""Input check: warns if the network's input does not show the image where the meta information places it."""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import Sequence

from mmengine.logging import print_log

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.structures.misplacement import misplacement
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.images import ImageError

IMAGES = 3  # of each stage that are checked: a pipeline does the same to all


class InputCheck:
    """Compares the input with the image file for the first images of each stage, and warns once per stage."""

    def __init__(self) -> None:
        self._checked: Counter = Counter()  # stage: number of images

    def check(self, passes: Sequence[Pass], index: int, snapshots: Sequence[Snapshot], stage: str) -> None:
        """Check one image.

        Args:
            passes: The passes over its batch.
            index: Index of the image in the batch.
            snapshots: Those of the image, one per pass; a mean of them may follow.
            stage: ``val`` or ``test``; a training image is its input, so there is nothing to check.
        """
        if stage == 'train' or self._checked[stage] >= IMAGES or not snapshots[0].is_file:
            return
        self._checked[stage] += 1
        for pass_, snapshot in zip(passes, snapshots):
            try:
                image = snapshot.image()
            except ImageError:  # reported when it should be drawn
                return
            distance = misplacement(pass_.inputs[index].detach().float().cpu().numpy(), image, snapshot.placement)
            if distance:
                self._checked[stage] = IMAGES
                where = f'{distance:.1%} of its longer side away' if math.isfinite(distance) else 'it was not found'
                message = (
                    f"the network's input does not show {snapshot.path} where the meta information places it "
                    f'({where}), so its heat, and that of other {stage} images, may lie elsewhere. Transforms that '
                    'rotate, shear, crop or resize once more need a homography: for those of mmdet add '
                    "'homography_matrix' to meta_keys of PackDetInputs; others, such as Albu, must be removed from the "
                    f'{stage} pipeline'
                )
                print_log(message, 'current', logging.WARNING)
                return
