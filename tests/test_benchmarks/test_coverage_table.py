"""The table of the model zoo's configs."""

from dataclasses import asdict

from mmdet_featviz.benchmarks.coverage_table import write_table
from mmdet_featviz.benchmarks.explanation_placement import ExplanationPlacement
from mmdet_featviz.benchmarks.patch_placement import LevelPlacement


def level_row(level, verdict='right', moves=0.01):
    return asdict(LevelPlacement('neck', level, (0.5, 0.5 + level), moves, 0.25 * (level + 1), 1.0, verdict))


def write_sample(tmp_path, **changes):
    """Write a table of one config that runs and one that does not; returns whether it passed, and the table."""
    row = dict(
        detector='ATSS',
        same=True,
        pictures=2,
        levels=[['neck', 0, 8.0, 8.0], ['neck', 1, 16.0, 16.0]],
        silent=[],
        placed=[level_row(0), level_row(1)],
        explained=asdict(ExplanationPlacement('detection', 'neck_1', 0.2, 0.0, 'right')),
        masked=dict(target='detection'),
        seconds=3.2,
    )
    rows = {
        'good': [(tmp_path / 'good_r50.py', {**row, **changes})],
        'bad': [(tmp_path / 'bad_r50.py', dict(error='ImportError: no | such module'))],
    }
    path = tmp_path / 'docs' / 'table.md'
    passed = write_table(path, rows)
    return passed, path.read_text()


def test_the_table_has_a_row_for_each_config(tmp_path):
    passed, text = write_sample(tmp_path)
    assert passed
    assert (
        '1 of 2 configs in 2 folders run, 1 of them with identical predictions, '
        '1 placed right, 0 blurred, 0 placed wrong; 1 explained with ODAM, 0 of them placed wrong; 1 '
        'explained with D-RISE.'
    ) in text
    assert (
        '| good | `good_r50` | ATSS | neck 8 16 | neck 0.5 0.5x1.5 | yes | neck 0.01 / 0.50 '
        '| yes 0.20 / 0.00 (detection, neck_1) | yes (detection) | identical | 3.2 s |' in text
    )
    assert '| bad | `bad_r50` | | | | | | | | | ImportError: no / such module |' in text


def test_wrong_placement_is_reported_and_fails(tmp_path):
    passed, text = write_sample(tmp_path, placed=[level_row(0, 'blurred'), level_row(1, 'wrong', float('nan'))])
    assert not passed
    assert '0 placed right, 0 blurred, 1 placed wrong; ' in text
    assert '| **no** | neck not finite / 0.50 (level 0 1) |' in text
    passed, text = write_sample(tmp_path, placed=[level_row(0, 'blurred', 1.5), level_row(1)])
    assert passed
    assert '| blurred | neck 1.50 / 0.50 (level 0) |' in text
    passed, text = write_sample(tmp_path, same=False)
    assert not passed
    assert '**differ**' in text


def test_an_explanation_that_is_placed_wrong_fails_and_a_missing_one_has_its_reason(tmp_path):
    nan = float('nan')
    passed, text = write_sample(tmp_path, explained=dict(error='ValueError: no gradient | here'))
    assert passed
    assert '0 explained with ODAM, 0 of them' in text
    assert '| no: ValueError: no gradient / here | yes (detection) |' in text
    for verdict, cell, passes in [
        ('wrong', '**no** 3.00 / 2.00 (candidate, neck_0)', False),
        ('not local', 'not local 3.00 / 2.00 (candidate, neck_0)', True),
    ]:
        explained = asdict(ExplanationPlacement('candidate', 'neck_0', 3.0, 2.0, verdict))
        passed, text = write_sample(tmp_path, explained=explained)
        assert passed is passes
        assert f'| {cell} |' in text
        assert '1 explained with ODAM' in text
    explained = asdict(ExplanationPlacement('detection', 'neck_0', nan, nan, 'no heat'))
    passed, text = write_sample(tmp_path, explained=explained)
    assert passed
    assert '0 explained with ODAM' in text
    assert '| no heat (detection, neck_0) |' in text


def test_what_d_rise_explains_or_why_nothing(tmp_path):
    _, text = write_sample(tmp_path)
    assert '; 1 explained with D-RISE.' in text
    assert '| yes (detection) | identical |' in text
    passed, text = write_sample(tmp_path, masked=dict(error='ValueError: no | box'))
    assert passed
    assert '; 0 explained with D-RISE.' in text
    assert '| no: ValueError: no / box | identical |' in text
