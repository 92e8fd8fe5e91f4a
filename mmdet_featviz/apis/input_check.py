"""Input check: warns if the network's input does not show the image where the meta information places it."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Sequence

from mmengine.logging import print_log

from mmdet_featviz.capture.activation_map import Pass
from mmdet_featviz.structures.input_match import agreement
from mmdet_featviz.structures.snapshot import Snapshot
from mmdet_featviz.visualization.images import ImageError

IMAGES = 3  # of each stage that are checked: a pipeline does the same to all
LEAST_AGREEMENT = 0.6  # changes of color leave more, a rotation by 10 degrees or a crop by a fifth leaves less


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
            found = agreement(pass_.inputs[index].detach().float().cpu().numpy(), image, snapshot.placement)
            if found < LEAST_AGREEMENT:
                self._checked[stage] = IMAGES
                message = (
                    f"the network's input does not show {snapshot.path} where the meta information places it (R² "
                    f'{max(found, 0):.2f} of 1), so its heat, and that of other {stage} images, may lie elsewhere. '
                    'Transforms that rotate, shear, crop or resize once more need a homography: for those of mmdet add '
                    "'homography_matrix' to meta_keys of PackDetInputs; others, such as Albu, must be removed from the "
                    f'{stage} pipeline'
                )
                print_log(message, 'current', logging.WARNING)
                return
