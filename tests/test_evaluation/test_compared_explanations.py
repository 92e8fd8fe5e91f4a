"""Comparison of the explanations of two runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import manifest, noise, read

from mmdet_featviz.evaluation.run_comparison import RunComparison
from mmdet_featviz.explanation.explanation import LOOK, explanation_of
from mmdet_featviz.explanation.targets import Target
from mmdet_featviz.report.builder import write_report
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_folder import RunFolder
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style

SIZE = 64, 96
STAR = Target(0, 3, 0, 'detection', (8.0, 8.0, 40.0, 40.0), 0, 0.9)
MOVED = Target(0, 1, 1, 'detection', (10.0, 10.0, 42.0, 42.0), 0, 0.7)  # the same object in the other run
OTHER_CLASS = Target(0, 2, 0, 'detection', (8.0, 8.0, 40.0, 40.0), 1, 0.8)
ELSEWHERE = Target(0, 4, 2, 'detection', (50.0, 30.0, 90.0, 60.0), 0, 0.6)


def write_run(folder, targets, maps=True):
    """A run of one image in which each target has heat of its own: {target: values (8, 12)}."""
    image = noise(*SIZE)
    values = np.random.default_rng(0).random((8, 12)).astype(np.float32)
    snapshot = Snapshot(
        'image',
        str(folder / 'image.png'),
        0,
        identity_placement(SIZE, SIZE),
        [Level('neck', 0, 4, (8.0, 8.0), values)],
        image=lambda: image,
        dataset_meta=dict(classes=('star', 'disc')),
    )
    info = dict(dataset_meta=dict(classes=('star', 'disc')))
    writer = RunWriter(RunFolder(str(folder)), Style(save='maps', align='center'), info)
    if maps:
        writer.write(snapshot)
    style = Style(**{**LOOK, 'align': 'center'})
    explanations = [
        explanation_of(target, 'odam', [Level('neck', 0, 4, (8.0, 8.0), heat.astype(np.float32))], snapshot, style)
        for target, heat in targets.items()
    ]
    writer.explain_and_write({0: 'image'}, lambda: {0: explanations})
    writer.finish()
    return Run(str(folder)), explanations


def test_the_same_box_is_compared(tmp_path):
    rng = np.random.default_rng(1)
    heat, other = rng.random((8, 12)), rng.random((8, 12))
    a, (star, _) = write_run(tmp_path / 'a', {STAR: heat, ELSEWHERE: heat})
    b, (_, moved) = write_run(tmp_path / 'b', {OTHER_CLASS: heat, MOVED: 1000 * other})
    comparison = RunComparison([a, b], str(tmp_path / 'out'))
    comparison.run()
    (row,) = (row for row in comparison.data()['levels'] if row['level_a'] == 'explanation_0')
    expected = np.corrcoef(star.heatmap.ravel().astype(np.float64), moved.heatmap.ravel().astype(np.float64))[0, 1]
    assert row['correlation']['mean'] == pytest.approx(expected, abs=1e-4)
    assert row['chance']['mean'] == pytest.approx(32 * 32 / (64 * 96))
    entries = [entry for entry in manifest(tmp_path / 'out') if entry['layer'] == 'explanation']
    assert [entry['files'][0] for entry in entries] == ['image/compare.explain.jpg']
    assert read(tmp_path / 'out' / 'image' / 'compare.explain.jpg').shape[1] > 3 * 96
    assert json.loads((tmp_path / 'out' / 'compare.json').read_text())['images'] == 1


def test_equal_runs_agree(tmp_path):
    heat = np.random.default_rng(2).random((8, 12))
    a, b = (write_run(tmp_path / name, {STAR: factor * heat})[0] for name, factor in (('a', 1), ('b', 50)))
    comparison = RunComparison([a, b], str(tmp_path / 'out'))
    comparison.run()
    (row,) = (row for row in comparison.data()['levels'] if row['level_a'] == 'explanation_0')
    assert row['correlation']['mean'] == pytest.approx(1)
    assert row['inside_a']['mean'] == pytest.approx(row['inside_b']['mean'])


def test_runs_of_explanations_alone(tmp_path):
    heat = np.ones((8, 12))
    full = write_run(tmp_path / 'full', {STAR: heat})[0]
    alone = write_run(tmp_path / 'alone', {STAR: heat}, maps=False)[0]
    message = 'alone holds explanations only, no activation maps'
    with pytest.raises(ValueError, match=message):
        RunComparison([full, alone], str(tmp_path / 'out'))
    assert message in write_report(alone.folder)


@pytest.mark.parametrize(
    ('change', 'problem'),
    [
        (dict(bbox=[1, 2, 3]), 'a box of its target'),
        (dict(label=-1), 'its target has the numbers'),
        (dict(score=None), 'its target has the numbers'),
        (dict(kind='../up'), "its target is the 'score' of a '../up'"),
        (dict(more=1), 'more'),
    ],
)
def test_a_file_from_outside_is_checked(tmp_path, caplog, change, problem):
    run, (one,) = write_run(tmp_path / 'run', {STAR: np.ones((8, 12))})
    from mmdet_featviz.runs import explanation_files
    from mmdet_featviz.runs.maps_file import MapsError, dump_snapshot

    facts = {**vars(one.target), 'method': 'odam', **change}
    (path,) = run.explanations['image']
    with open(path, 'wb') as file:
        file.write(dump_snapshot(one.snapshot, explanation=facts))
    with pytest.raises(MapsError, match=problem):
        explanation_files.load_explanation(path, run.info, one.style)
    snapshot = next(run.snapshots())
    assert explanation_files.saved_explanations(run, replace(snapshot), 'center') == []
