import numpy as np
import pytest

from mmdet_featviz.visualization.charts import weight_chart


@pytest.mark.parametrize('count', [16, 2048])
def test_weight_chart_marks_the_shown_channels(count):
    weights = np.linspace(0, 1, count).astype(np.float32)
    chart = weight_chart(weights, np.array([count - 1, count - 2]), 'weight', (600, 240))
    assert chart.shape == (240, 600, 3)
    rows, columns = np.nonzero((np.abs(chart.astype(int) - (0x5B, 0x49, 0xD1)) < 12).all(-1))
    assert len(columns) > 50
    assert columns.min() > 450  # the marked ones are the last
