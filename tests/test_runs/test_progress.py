"""Progress: the bar is shown where there is a stream for it, and an unusable stream costs nothing."""

import contextlib
import io
import os
import sys

import pytest

from mmdet_featviz.runs.progress import progress_bar


def test_the_bar_counts_on_the_error_stream(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', io.StringIO())
    with progress_bar(2, is_shown=True) as progress:
        progress.update()
        progress.update()
    assert '2/2' in sys.stderr.getvalue()
    with progress_bar(2, is_shown=False) as progress:
        progress.update()
    assert sys.stderr.getvalue().count('2/2') == 1


@pytest.mark.parametrize('kind', ['none', 'closed', 'pipe that nobody reads'])
def test_an_unusable_error_stream_costs_nothing(monkeypatch, kind):
    reading, writing = os.pipe()
    stream = open(writing, 'w', buffering=1)  # noqa: SIM115
    os.close(reading)
    if kind == 'closed':
        stream.close()
    monkeypatch.setattr(sys, 'stderr', None if kind == 'none' else stream)
    counted = []
    with progress_bar(2, is_shown=True) as progress:
        for number in range(2):
            progress.update()
            counted.append(number)
    assert counted == [0, 1]
    monkeypatch.undo()
    with contextlib.suppress(OSError):  # what was buffered
        stream.close()
