"""ExplanationMetric: how well methods explain the detections of a test or validation."""

from __future__ import annotations

from typing import Any, Sequence

from mmengine.dist import get_dist_info
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from mmengine.runner import BaseLoop

from mmdet_featviz.structures.boxes import class_names
from mmdet_featviz.utils.arguments import check_whole_number
from mmdet_featviz.utils.call_stack import calling


@METRICS.register_module()
class ExplanationMetric(BaseMetric):
    """Measures how well methods explain the detections of a test or validation, beside its other metrics.

    The first boxes of the data set are explained, on several ranks the first ones of each, and measured as ``featviz
    evaluate-explanations`` does. Each box costs ``2 * steps`` predictions for each method. Predictions and other
    metrics stay as they are.

    Keys are, for example, ``explanation/odam/insertion``, ``explanation/odam/odi`` and ``explanation/boxes``. A measure
    that no box has is left out. The ground truth is taken from the data samples: put ``LoadAnnotations`` after the
    transforms that move pixels.

    Args:
        methods: Names of registered explainers.
        targets: Which detections of each image are explained, as in :func:`mmdet_featviz.explain`.
        layers: Layers to explain at: module paths or globs. None is the neck.
        max_boxes: Largest number of boxes, of all ranks together.
        steps: Steps of insertion and of deletion.
        randomise: Whether to explain again with shuffled weights.
        **kwargs: ``prefix``, ``collect_device`` and ``collect_dir``, as in mmengine's ``BaseMetric``.

    Raises:
        TypeError, ValueError: If a name does not exist, or a number is out of range.

    Example:
        >>> test_evaluator = [
        ...     dict(type='CocoMetric', ann_file='val.json'),
        ...     dict(type='ExplanationMetric', methods=['odam', 'random'], max_boxes=50),
        ... ]
    """

    default_prefix = 'explanation'

    def __init__(
        self,
        methods: Sequence[str] | str = ('odam', 'random'),
        targets: str | int | Sequence[str | int] = 'score 0.3, top 5',
        layers: Sequence[str] | None = None,
        max_boxes: int = 50,
        steps: int = 30,
        randomise: bool = False,
        **kwargs: Any,
    ) -> None:
        from mmdet_featviz.evaluation.explanation_scores import Protocol  # imports mmdet's models

        super().__init__(**kwargs)
        self.protocol = Protocol(methods, targets, layers, steps, randomise=randomise)
        self.max_boxes = check_whole_number('max_boxes', max_boxes)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Explain and measure the detections of a batch, until there are enough boxes.

        Args:
            data_batch: The batch as the data loader returns it.
            data_samples: Predictions of the batch; not used.

        Raises:
            RuntimeError: If no detector runs: predictions from a file cannot be explained.
        """
        from mmdet_featviz.evaluation.explanation_scores import score_explanations
        from mmdet_featviz.explanation.detector_batch import DetectorBatch

        rank, world_size = get_dist_info()
        own = (self.max_boxes + world_size - 1 - rank) // world_size
        left = own - self._count_boxes(self.results)
        if left <= 0:
            self.results += [[] for _ in data_samples]
            return
        loop = calling('run_iter', BaseLoop)
        if loop is None:
            raise RuntimeError(
                'ExplanationMetric explains the detector that is tested: use it in the test_evaluator or val_evaluator '
                'of a runner, not with predictions from a file'
            )
        batch = DetectorBatch(loop.runner.model, data_batch, self.protocol.layers)
        self.results += score_explanations(batch, class_names(self.dataset_meta), self.protocol, left)

    def _count_boxes(self, results: Sequence[Sequence[dict]]) -> int:
        return sum(map(len, results)) // len(self.protocol.methods)

    def compute_metrics(self, results: Sequence[Sequence[dict[str, Any]]]) -> dict[str, float]:
        """Average each measure over the boxes. See the class for the keys.

        Args:
            results: Those of each image.
        """
        from mmdet_featviz.evaluation.explanation_summary import ALL, summarize

        summary = summarize([row for of_image in results for row in of_image])
        metrics = {f'{one["method"]}/{one["measure"]}': one['mean'] for one in summary if one['size'] == ALL}
        return dict(boxes=float(self._count_boxes(results)), **metrics)
