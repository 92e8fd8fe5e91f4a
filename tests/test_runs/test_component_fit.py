"""Component fit: the colors of reduction='pca' are those of NumPy's singular value decomposition of all cells."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import noise, pictures, read, resnet_detector, runner_config, write_dataset
from mmdet.registry import MODELS
from mmengine.runner import Runner

from mmdet_featviz import FeatureVisualizer, draw_figure, look
from mmdet_featviz.capture.feature_compression import compress_features
from mmdet_featviz.cli import main
from mmdet_featviz.runs.component_fit import fit_components
from mmdet_featviz.runs.embeddings_file import load_embeddings
from mmdet_featviz.runs.maps_file import MapsError, load_snapshot, parse_snapshot
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.boxes import Boxes
from mmdet_featviz.structures.embedding import COSINE_ERROR, quantize
from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.style import Style

LOOK = dict(save=('heatmap', 'raw', 'embeddings'), align='center', reduction='pca', layers=['backbone', 'neck'])


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Images that are padded below."""
    return write_dataset(
        tmp_path_factory.mktemp('data'), {f'{n}.png': noise(90 - 10 * n, 120, seed=n) for n in range(3)}
    )


def run_test(data, folder, **options):
    torch.manual_seed(0)
    cfg = runner_config(data, folder / 'work', resnet_detector(), hook={**LOOK, 'out_dir': str(folder), **options})
    Runner.from_cfg(cfg).test()
    return Run(str(folder))


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
    return run_test(data, tmp_path_factory.mktemp('run'))


def cells_over_image(level, snapshot):
    """Number of rows and columns of the cells that cover part of the image, which was scaled to 160 pixels in width."""
    height = snapshot.placement.image_size[0] * 160 / 120
    return int(np.ceil(height / level.stride[0] - 1e-6)), level.values.shape[1]


def features_over_images(snapshots, number):
    """Features (cells, C) of a level, of the cells of all images, in float64."""
    cells = []
    for snapshot in snapshots:
        level = snapshot.levels[number]
        rows, columns = cells_over_image(level, snapshot)
        cells.append(level.raw[:, :rows, :columns].reshape(level.channels, -1).T)
    return np.concatenate(cells).astype(np.float64)


def test_pictures_are_those_of_a_singular_value_decomposition(run):
    snapshots = list(run.snapshots())
    for number, level in enumerate(snapshots[0].levels):
        everything = features_over_images(snapshots, number)
        mean = everything.mean(0)
        _, singular, axes = np.linalg.svd(everything - mean, full_matrices=False)
        found = fit_components(lambda: snapshots, Style(align='center'))[level.name]
        count = min(16, np.count_nonzero(singular > 1e-3 * singular[0]))
        np.testing.assert_allclose(np.abs((found.axes[:count] * axes[:count]).sum(1)), 1, atol=1e-5)
        shares = singular[:count] ** 2 / (singular**2).sum()
        np.testing.assert_allclose(found.shares[:count], shares, rtol=1e-3)
        for axis in found.axes[:count]:
            assert axis[np.abs(axis).argmax()] > 0
        for snapshot in snapshots:
            one = snapshot.levels[number]
            grid = Grid(one.values.shape, one.stride, snapshot.placement)
            signs = np.sign((found.axes[:3] * axes[:3]).sum(1))
            scores = np.tensordot(axes[:3] * signs[:, None], one.raw.astype(np.float64) - mean[:, None, None], 1)
            deviations = singular[:3] / np.sqrt(len(everything))
            units = scores / (4 * deviations[:, None, None]) + 0.5
            expected = np.stack([grid.heatmap(plane) for plane in units[::-1]], 2)
            picture = read(f'{run.folder}/{snapshot.key}/{one.name}.heatmap.png')
            assert np.abs(picture - 255 * expected.clip(0, 1)).max() <= 1.5


def test_a_resumed_run_and_rendering_draw_the_same(run, data, tmp_path):
    run_test(data, tmp_path / 'resumed', max_images=2)
    before = {name: (tmp_path / 'resumed' / name).read_bytes() for name in pictures(tmp_path / 'resumed')}
    run_test(data, tmp_path / 'resumed', resume=True)
    main('render', [run.folder, '--out-dir', str(tmp_path / 'rendered'), '--save', 'heatmap', 'embeddings'])
    main('render', [run.folder, '--out-dir', str(tmp_path / 'boxes'), '--foreground', 'boxes', '--score-thr', '2'])
    kinds = '.png', 'embeddings.npz'
    names = [name for name in pictures(run.folder) if name.endswith(kinds)]
    assert len(names) == 27 + 3
    for name in names:
        expected = (Path(run.folder) / name).read_bytes()
        assert (tmp_path / 'resumed' / name).read_bytes() == expected
        assert (tmp_path / 'rendered' / name).read_bytes() == expected
    # Two images have other components than three.
    for kind in kinds:
        changed = [name for name in before if before[name] != (tmp_path / 'resumed' / name).read_bytes()]
        assert any(name.endswith(kind) for name in changed)
    box = np.zeros(3)
    for snapshot in run.snapshots():  # the only boxes that count are the ground truth, in the middle of each image
        height, width = snapshot.placement.image_size
        picture = read(tmp_path / 'boxes' / snapshot.key / 'backbone_0.heatmap.png')
        assert picture[: height // 4 - 8].max() == picture[:, : width // 4 - 8].max() == 0
        box += picture[height // 3 : height // 2, width // 3 : width // 2].mean((0, 1))
    assert (box > 3 * 64).all()


def test_one_image_and_figures_have_these_colors_too(run, data):
    image, level = run.paths[0], 'neck_0'
    spec = dict(
        run=run.folder,
        rows=[dict(image=Path(image).parent.name)],
        columns=[dict(show=level)],
        style=dict(alpha=1),
    )
    figure = draw_figure(spec)
    picture = read(f'{run.folder}/{Path(image).parent.name}/{level}.heatmap.png')
    (shown,) = [shown.get_array() for axes in figure.axes for shown in axes.get_images()]
    small = cv2.resize(np.asarray(shown), picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small[..., ::-1].astype(int) - picture).mean() < 2  # the figure is larger

    torch.manual_seed(0)
    cfg = runner_config(data, Path(run.folder) / 'work', resnet_detector())
    model = MODELS.build(cfg.model).eval()
    model.cfg = cfg
    seen = look(model, str(data / 'images' / '0.png'), layers='neck', reduction='pca', alpha=1, align='center')
    found = fit_components(lambda: [seen.snapshot], Style(align='center'))[level].units(seen.level(level).compact)
    plain = seen.level(level)
    grid = Grid(plain.values.shape, plain.stride, seen.snapshot.placement)
    expected = np.stack([grid.heatmap(plane).clip(0, 1) for plane in found], 2) * 255
    assert np.abs(seen.overlay(level) - expected).max() <= 1.5


def snapshot_of(features, key='a', boxes=None):
    """A snapshot of one level (C, rows, columns) of stride 8."""
    features = torch.from_numpy(features)
    size = tuple(8 * length for length in features.shape[1:])
    compact, norms = compress_features(features), features.norm(dim=0).numpy()
    level = Level('neck', 0, len(features), (8.0, 8.0), norms, compact=compact)
    return Snapshot(key, None, 0, identity_placement(size, size), [level], boxes=boxes)


def test_many_channels_of_small_images_are_exact_and_those_of_large_ones_near():
    """Values are rectified, as behind a ReLU; the variances of what is mixed fall slowly."""
    rng, channels = np.random.default_rng(0), 256
    mix = rng.normal(size=(channels, channels)) / np.arange(1, channels + 1) ** 0.7
    for side, error in ((20, 1e-9), (60, 1e-5)):  # 0.2 and 1 million values
        images = [np.maximum(mix @ rng.normal(size=(channels, side**2)), 0).astype(np.float32) for _ in range(3)]
        snapshots = [snapshot_of(image.reshape(channels, side, side)) for image in images]
        found = fit_components(lambda snapshots=snapshots: snapshots, Style())['neck_0']
        cells = np.concatenate(images, axis=1).T.astype(np.float64)
        axes = np.linalg.svd(cells - cells.mean(0), full_matrices=False)[2][:16]
        cosines = np.abs((found.axes * axes).sum(1))
        assert cosines.min() > 1 - error, (side, 1 - cosines.min())


def test_foreground():
    """A bright square in the middle, whose own variance is in other channels than its difference from the rest."""
    rng = np.random.default_rng(0)
    snapshots, is_square = [], np.zeros((12, 12), bool)
    is_square[4:8, 3:9] = True
    for _ in range(2):
        features = 0.1 * rng.normal(size=(6, 12, 12))
        features[0] -= 3 * is_square  # negative, so that the sign of the first component has to be turned
        features[4] += is_square * rng.normal(size=is_square.shape)
        boxes = Boxes(np.array([[24.0, 32, 72, 64]]), np.array([0]), np.array([np.nan]))
        snapshots.append(snapshot_of(features.astype(np.float32), boxes=boxes))
    everything = fit_components(lambda: snapshots, Style())['neck_0']
    assert np.abs(everything.axes[0]).argmax() == 0
    assert np.isfinite(everything.units(snapshots[0].levels[0].compact)).all()
    for kind in ('component', 'boxes'):
        found = fit_components(lambda: snapshots, Style(foreground=kind))['neck_0']
        assert np.abs(found.axes[0]).argmax() == 4
        if kind == 'component':
            np.testing.assert_array_equal(np.isfinite(found.units(snapshots[0].levels[0].compact))[0], is_square)


def test_embeddings_are_the_components_of_a_singular_value_decomposition(run):
    snapshots = list(run.snapshots())
    saved = [load_embeddings(f'{Path(path).parent}/embeddings.npz')[0] for path in run.paths]
    for number in range(len(snapshots[0].levels)):
        everything = features_over_images(snapshots, number)
        mean = everything.mean(0)
        axes = np.linalg.svd(everything - mean, full_matrices=False)[2][:16]
        for snapshot, embedded in zip(snapshots, saved):
            one = embedded.levels[number]
            assert one.embedding.shape == (16, *one.values.shape) and one.compact is None
            scores = np.tensordot(axes, snapshot.levels[number].raw - mean[:, None, None], 1)
            lengths = np.linalg.norm(scores, axis=0)
            np.testing.assert_allclose(one.values, lengths, rtol=1e-4, atol=1e-4 * lengths.max())
            codes = one.embedding / np.linalg.norm(one.embedding, axis=0)  # directions
            signs = np.sign((codes[: len(axes)] * scores).sum((1, 2)))[:, None, None]
            turned = (codes[: len(axes)] * signs * scores).sum(0) / lengths
            assert turned.min() > 1 - COSINE_ERROR**2 / 8 - 1e-6  # the cosine of the angle whose sine is half the error


def test_constant_and_missing_values():
    rng = np.random.default_rng(0)
    constant = fit_components(lambda: [snapshot_of(np.full((5, 4, 6), 1e3, np.float32))], Style())['neck_0']
    np.testing.assert_array_equal(constant.shares, 0)
    compact = snapshot_of(np.full((5, 4, 6), 1e3, np.float32)).levels[0].compact
    np.testing.assert_array_equal(constant.significant_scores(compact), 0)  # no direction, as all is rounding
    features = rng.normal(size=(2, 4, 6)).astype(np.float32)
    features[1, 2, 3], features[0, 0, 0] = np.nan, np.inf
    snapshot = snapshot_of(features)
    found = fit_components(lambda: [snapshot], Style())['neck_0']
    is_finite = np.isfinite(features).all(0)
    cells = features[:, is_finite].T.astype(np.float64)
    expected = np.linalg.svd(cells - cells.mean(0), full_matrices=False)[1] ** 2 / len(cells)
    np.testing.assert_allclose(found.variances[:3], [*expected, 0], rtol=1e-5)
    np.testing.assert_array_equal(np.isfinite(found.units(snapshot.levels[0].compact)).all(0), is_finite)
    np.testing.assert_array_equal(quantize(found.significant_scores(snapshot.levels[0].compact)).any(0), is_finite)
    assert fit_components(lambda: [snapshot_of(np.full((2, 3, 3), np.nan, np.float32))], Style()) == {}


@pytest.mark.parametrize('shape', [(80, 20, 30), (80, 5, 6), (3, 1, 1)])
def test_compact_features_are_the_best_of_their_rank(shape):
    rng, channels = np.random.default_rng(0), shape[0]
    mix = rng.normal(size=(channels, channels)) * np.exp(-np.arange(channels) / 4)[:, None]
    cells = rng.normal(size=(shape[1] * shape[2], channels)) @ mix + 20
    compact = compress_features(torch.from_numpy(cells.T.reshape(shape).astype(np.float32)), room=0)
    scores = compact.scores.reshape(len(compact.basis), -1).T
    left, singular, right = np.linalg.svd(cells - cells.mean(0), full_matrices=False)
    best = (left[:, :32] * singular[:32]) @ right[:32] + cells.mean(0)
    np.testing.assert_allclose(scores @ compact.basis + compact.mean, best, atol=2e-3 * np.abs(cells).max())
    np.testing.assert_allclose(compact.basis @ compact.basis.T, np.eye(len(compact.basis)), atol=1e-5)


def test_wrong_settings_and_files_are_errors(run, data, tmp_path):
    plain = run_test(data, tmp_path / 'plain', save='maps', reduction='max', max_images=1)
    with pytest.raises(SystemExit, match='the run saved no features to embed: repeat it with --save embeddings'):
        main('render', [plain.folder, '--out-dir', str(tmp_path / 'rendered'), '--save', 'embeddings'])
    with pytest.raises(ValueError, match="foreground='boxes' is for principal components: set reduction='pca'"):
        FeatureVisualizer(foreground='boxes')
    with pytest.raises(ValueError, match='the mean of passes has no features'):
        FeatureVisualizer(reduction='pca', average_passes=True)
    with pytest.raises(ValueError, match="foreground='sky' is not known: choose from component, boxes"):
        FeatureVisualizer(reduction='pca', foreground='sky')
    with np.load(run.paths[0]) as archive:
        arrays = {**archive, 'neck_0.compact.scores': archive['neck_0.compact.scores'][:, 1:]}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with pytest.raises(MapsError, match='its components of neck_0 are float32'):
        parse_snapshot(buffer.getvalue(), 'maps.npz')
    assert load_snapshot(run.paths[0]).levels[0].compact is not None
    embeddings = Path(run.paths[0]).parent / 'embeddings.npz'
    with np.load(embeddings) as archive:
        arrays = {**archive, 'neck_0.embedding': archive['neck_0.embedding'][:, 1:]}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with pytest.raises(MapsError, match='the embedding of neck_0 is int8'):
        parse_snapshot(buffer.getvalue(), 'embeddings.npz')
