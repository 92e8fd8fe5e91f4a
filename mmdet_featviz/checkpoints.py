"""Loading the checkpoints that mmengine's own training writes."""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def allow_training_checkpoints() -> None:
    """Let ``torch.load`` read a checkpoint written by mmengine's training.

    Since torch 2.6 checkpoints are loaded with ``weights_only=True``, and mmengine up to 0.10.7 neither says otherwise
    nor names the classes that its message hub stores beside the weights: the loss histories and NumPy's numbers in
    them. Exactly those are allowed here; everything else stays refused.
    """
    if not hasattr(torch.serialization, 'add_safe_globals'):  # before torch 2.4 nothing is refused
        return
    array = np.zeros(1)
    # What NumPy writes to rebuild an array and a scalar; NumPy 1 and 2 keep the two in different modules.
    rebuild_array, rebuild_scalar = array.__reduce__()[0], array[0].__reduce__()[0]
    number_types = {type(np.dtype(name)) for name in ('float16', 'float32', 'float64', 'int32', 'int64', 'bool')}
    torch.serialization.add_safe_globals(
        [HistoryBuffer, rebuild_array, rebuild_scalar, np.ndarray, np.dtype, *number_types]
    )
