"""Finds the detector inside a wrapper: distributed training, test-time augmentation, semi-supervised training."""

from __future__ import annotations

from mmengine.model import BaseModel, BaseTTAModel, is_model_wrapper
from torch import nn

from mmdet_featviz.utils.call_stack import calling


def unwrap_detector(model: nn.Module) -> nn.Module:
    """Return the detector inside a distributed wrapper or a test-time augmentation model; itself if not wrapped."""
    while _is_wrapper(model):
        model = model.module
    return model


def has_test_time_augmentation(model: nn.Module) -> bool:
    """Whether a model is, or is wrapped in, a test-time augmentation model, which makes several passes per batch."""
    while not isinstance(model, BaseTTAModel):
        if not _is_wrapper(model):
            return False
        model = model.module
    return True


def is_augmented_call() -> bool:
    """Whether a test-time augmentation model has called what runs now, such as a pass of a detector.

    A detector does not know that it is wrapped, and several passes over one image may also be separate predictions.
    """
    return calling('test_step', BaseTTAModel) is not None


def _is_wrapper(model: nn.Module) -> bool:
    """Whether a model only wraps its `module`, which may also be an ordinary part of a detector."""
    inner = getattr(model, 'module', None)
    if not isinstance(inner, nn.Module):
        return False
    if isinstance(model, BaseModel):
        return isinstance(model, BaseTTAModel)
    return is_model_wrapper(model) or all(part is inner for part in model.children())


def predicting_branch(model: nn.Module) -> str:
    """Prefix of the predicting branch of a semi-supervised wrapper, such as ``teacher.``; empty for plain detectors."""
    semi_test_cfg = getattr(model, 'semi_test_cfg', None)
    if not (hasattr(model, 'teacher') and hasattr(model, 'student') and semi_test_cfg is not None):
        return ''
    # As SemiBaseDetector chooses it; TeacherStudentValLoop leaves None behind if nothing was set.
    return 'teacher.' if semi_test_cfg.get('predict_on', 'teacher') == 'teacher' else 'student.'
