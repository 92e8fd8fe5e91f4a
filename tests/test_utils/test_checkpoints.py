import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

import mmdet_featviz  # noqa: F401  allows these checkpoints

OLD_TORCH = not hasattr(torch.serialization, 'add_safe_globals')


class GetattrCall:
    """Is pickled as a call of getattr."""

    def __init__(self, owner, name):
        self.arguments = owner, name

    def __reduce__(self):
        return getattr, self.arguments


def test_training_checkpoints_of_mmengine_are_read(tmp_path):
    history = HistoryBuffer([1.0, 2.0, 4.0], [1, 1, 1])
    stored = dict(history=history, number=np.float64(0.5), count=np.int64(3), array=np.arange(3.0))
    torch.save(stored, tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert loaded['history'].mean() == pytest.approx(7 / 3)
    assert loaded['history'].statistics('max') == 4
    assert (loaded['number'], loaded['count']) == (0.5, 3)
    np.testing.assert_array_equal(loaded['array'], [0, 1, 2])


@pytest.mark.skipif(OLD_TORCH, reason='this torch refuses nothing')
@pytest.mark.parametrize(
    ('owner', 'name'),
    [(HistoryBuffer, '__init__'), (HistoryBuffer, '_log_history'), (np.ndarray, 'tofile'), (np.ndarray, 'min')],
)
def test_other_attributes_stay_refused(tmp_path, owner, name):
    torch.save(GetattrCall(owner, name), tmp_path / 'a.pth')
    with pytest.raises(pickle.UnpicklingError, match='may not ask for the attribute'):
        torch.load(tmp_path / 'a.pth', weights_only=True)


@pytest.mark.skipif(OLD_TORCH, reason='this torch refuses nothing')
def test_other_classes_stay_refused(tmp_path):
    torch.save(pytest.ExitCode.OK, tmp_path / 'a.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'a.pth', weights_only=True)
