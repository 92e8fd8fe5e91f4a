"""Finds the detector inside a wrapper: distributed training, test-time augmentation, semi-supervised training."""

from __future__ import annotations

from torch import nn


def unwrap_detector(model: nn.Module) -> nn.Module:
    """Return the detector inside a distributed wrapper or a test-time augmentation model; itself if not wrapped."""
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    return model


def predicting_branch(model: nn.Module) -> str:
    """Prefix of the predicting branch of a semi-supervised wrapper, such as ``teacher.``; empty for plain detectors."""
    semi_test_cfg = getattr(model, 'semi_test_cfg', None)
    if not (hasattr(model, 'teacher') and hasattr(model, 'student') and semi_test_cfg is not None):
        return ''
    # As SemiBaseDetector chooses it; TeacherStudentValLoop leaves None behind if nothing was set.
    return 'teacher.' if semi_test_cfg.get('predict_on', 'teacher') == 'teacher' else 'student.'
