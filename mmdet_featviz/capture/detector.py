"""The detector inside wrappers."""

from __future__ import annotations

from torch import nn


def unwrap_detector(model: nn.Module) -> nn.Module:
    """The detector inside a distributed wrapper or a test-time augmentation model."""
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    return model


def predicting_branch(model: nn.Module) -> str:
    """Path of the detector that predicts inside a semi-supervised wrapper, with a dot; empty for plain detectors."""
    semi_test_cfg = getattr(model, 'semi_test_cfg', None)
    if not (hasattr(model, 'teacher') and hasattr(model, 'student') and semi_test_cfg is not None):
        return ''
    return f'{semi_test_cfg.get("predict_on", "teacher")}.'
