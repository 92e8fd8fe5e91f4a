"""Level statistics: the figures are NumPy's in float64, and each sentence is said where it is true."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, keep_ratio_pipeline, noise, pictures, resnet_detector
from drawn_run import draw
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_featviz import level_statistics
from mmdet_featviz.apis import visualizer
from mmdet_featviz.cli import main
from mmdet_featviz.evaluation.level_statistics import RunStatistics, statistics_table
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot

STRIDES = {'backbone': (4, 8, 16, 32), 'neck': (8, 16, 32, 64, 128)}


def figures_of(images):
    """The figures of a level over images (C, rows, columns) without padding, by singular value decomposition."""
    cells = np.concatenate([image.reshape(len(image), -1) for image in images], 1).astype(np.float64)
    is_edge = []
    for image in images:
        edge = np.ones(image.shape[1:], bool)
        edge[1:-1, 1:-1] = False
        is_edge.append(edge.ravel())
    is_edge = np.concatenate(is_edge)
    singular = np.linalg.svd(cells - cells.mean(1, keepdims=True), compute_uv=False)
    shares = singular[singular > 1e-9 * singular[0]] / singular.sum()
    return dict(
        low=cells.min(),
        high=cells.max(),
        mean=cells.mean(),
        dead=np.mean(cells.max(1) <= 0),
        effective_rank=np.prod(shares**-shares),
        edge_energy=(cells[:, is_edge] ** 2).sum() / (cells**2).sum(),
        edge_cells=is_edge.mean(),
        not_finite=0,
    )


def test_figures_are_those_of_all_cells_without_padding():
    torch.manual_seed(0)
    model = MODELS.build(resnet_detector()).eval()
    pipeline = [step for step in keep_ratio_pipeline() if 'Annotations' not in step['type']]
    model.cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    captured = []
    handles = [
        module.register_forward_hook(lambda module, args, output: captured.append(output))
        for module in (model.backbone, model.neck)
    ]
    images = [noise(height, 120, seed=height) for height in (90, 60)]  # 160 pixels wide, and padded below
    found = level_statistics(model, images)
    for handle in handles:
        handle.remove()
    passes = [captured[-4:-2], captured[-2:]]  # finding the receptive fields took others before
    expected = {}
    for number, (layer, strides) in enumerate(STRIDES.items()):
        for level, stride in enumerate(strides):
            rows = [-(-height // stride) for height in (120, 80)]
            maps = [taken[number][level][0].numpy()[:, :count] for taken, count in zip(passes, rows)]
            expected[f'{layer}_{level}'] = figures_of(maps)
    assert [one.name for one in found] == list(expected)
    for one in found:
        for name, value in expected[one.name].items():
            np.testing.assert_allclose(getattr(one, name), value, rtol=1e-6, err_msg=f'{one.name} {name}')


def remarks_on(features):
    """What is said on a level (C, rows, columns)."""
    return statistics_of(features).remarks


def statistics_of(features):
    """The figures of a level (C, rows, columns), of two images that are the same."""
    size = tuple(8 * length for length in features.shape[1:])
    level = Level('neck', 4, len(features), (8.0, 8.0), features[0], raw=features.astype(np.float32))
    statistics = RunStatistics()
    for key in 'ab':
        statistics.add(Snapshot(key, None, 0, identity_placement(size, size), [level]))
    return statistics.levels()[0]


def test_what_is_unusual_is_said_in_one_sentence():
    rng = np.random.default_rng(0)
    healthy = rng.normal(size=(40, 20, 20))
    assert remarks_on(healthy) == []
    dead, collapsed, edge, broken = (healthy.copy() for _ in range(4))
    dead[:32] = -np.abs(dead[:32])
    (remark,) = remarks_on(dead)
    assert remark.startswith("80% of neck_4's channels never fire (are above zero in no cell): ")
    collapsed[:] = collapsed[:1] * rng.normal(size=(40, 1, 1))
    (remark,) = remarks_on(collapsed)
    assert remark.startswith('The effective rank of neck_4 is 1.0 of 40: ')
    edge[:, [0, -1]] *= 10
    (remark,) = remarks_on(edge)
    assert 'of the energy of neck_4 is in the outermost cells, which are 19% of all: padding may take part' in remark
    broken[3, 4, 5] = np.nan
    (remark,) = remarks_on(broken)
    assert remark.startswith('0.006% of the values of neck_4 are not finite: ')
    broken[:4] = np.nan  # whole channels say nothing of the others
    (remark,) = remarks_on(broken)
    assert remark.startswith('10% of the values of neck_4 are not finite: ')
    assert remarks_on(np.full((40, 20, 20), 7.3)) == [
        'neck_4 is constant: it sees nothing of the image. Weights may be missing, or a layer before it dead.'
    ]
    assert remarks_on(np.zeros((40, 20, 20)))[0].startswith('neck_4 is constant')
    assert remarks_on(np.full((4, 2, 2), np.inf)) == ['No value of neck_4 is finite: the training may have diverged.']


def test_values_that_are_not_finite_count_for_nothing_else():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 9, 9)) + 1
    features[0], features[1, 2, 3], features[2, 0, 0] = np.nan, np.inf, -np.inf
    features[3] = -np.abs(features[3])
    found = statistics_of(features)
    finite = features[np.isfinite(features)]
    edge = np.ones((9, 9), bool)
    edge[1:-1, 1:-1] = False
    at_edge = features[:, edge]
    energy = (at_edge[np.isfinite(at_edge)] ** 2).sum() / (finite**2).sum()
    expected = dict(low=finite.min(), high=finite.max(), mean=finite.mean(), dead=2 / 6, edge_energy=energy)
    filled = features.reshape(6, -1)[1:].copy()
    for channel in filled:
        channel[~np.isfinite(channel)] = channel[np.isfinite(channel)].mean()
    singular = np.linalg.svd(filled - filled.mean(1, keepdims=True), compute_uv=False)
    shares = singular / singular.sum()
    expected.update(not_finite=83 / features.size, effective_rank=np.prod(shares**-shares), edge_cells=32 / 81)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-6, err_msg=name)


def test_a_report_has_the_statistics_of_the_first_images(pool_model, tmp_path, monkeypatch):
    monkeypatch.setattr(visualizer, 'MEASURED_IMAGES', 2)
    draw(pool_model, tmp_path, save='raw', count=3, align='center', name='raw')
    folder = tmp_path / 'run'
    draw(pool_model, tmp_path, report=True, count=3, align='center')
    assert not [name for name in pictures(folder) if 'raw' in name]
    statistics = json.loads((folder / 'run.json').read_text(encoding='utf-8'))['statistics']
    assert statistics['images'] == 2
    for number, stride in enumerate((8, 16, 32)):
        maps = [
            np.load(tmp_path / 'raw' / f'图 {image}' / f'backbone_{number}.raw.npy')[
                :, : -(-37 // stride), : -(-55 // stride)
            ]
            for image in range(2)
        ]
        for name, value in figures_of(maps).items():
            np.testing.assert_allclose(statistics['levels'][number][name], value, rtol=1e-5, err_msg=name)
    page = (folder / 'report' / 'index.html').read_text(encoding='utf-8')
    assert 'Features: statistics of the first 2 images</caption>' in page
    assert '<th scope="row">backbone_2</th><td>32</td><td>2</td>' in page


def test_the_command_prints_a_table(tmp_path, capsys):
    for number in range(2):
        cv2.imwrite(str(tmp_path / f'{number}.png'), noise(64, 96, seed=number))
    config = str(ROOT / 'configs' / 'demo' / 'atss_shapes.py')
    weights = str(Path(config).with_suffix('.pth'))
    main('layers', [config, weights, '--statistics', '--image', str(tmp_path), '--layers', 'neck'])
    lines = capsys.readouterr().out.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith('level '))
    names = [line.split()[0] for line in lines[header + 1 : header + 6]]
    assert names == [f'neck_{level}' for level in range(5)]
    assert lines[-1] == '2 images, without padding'
    for options, message in (
        (['--statistics'], '--statistics needs --image'),
        (['--layers', 'neck'], '--layers needs --receptive-field or --statistics'),
        (['--statistics', '--receptive-field'], 'choose one'),
    ):
        with pytest.raises(SystemExit):
            main('layers', [config, *options])
        assert message in capsys.readouterr().err
    model = MODELS.build(resnet_detector())
    model.cfg = Config()
    with pytest.raises(ValueError, match='need at least one image'):
        level_statistics(model, [])


def test_a_table_without_remarks_has_no_empty_line():
    assert statistics_table([]).count('\n') == 0
