"""Pictures of snapshots with known values."""

import cv2
import numpy as np
import pytest
from conftest import noise
from mmdet.structures import DetDataSample

from mmdet_featviz.structures.boxes import collect_boxes
from mmdet_featviz.structures.channel_maps import ChannelMaps
from mmdet_featviz.structures.placement import Placement, identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization import views
from mmdet_featviz.visualization.images import ImageError
from mmdet_featviz.visualization.sheets import shrink_to_tile
from mmdet_featviz.visualization.style import Style
from mmdet_featviz.visualization.views import Views

SIZE = (64, 96)


def level(name='neck', number=0, channels=16, seed=0, **parts):
    values = np.random.default_rng(seed).normal(size=(8, 12)).astype(np.float32)
    return Level(name, number, channels, (8.0, 8.0), **{'values': values, **parts})


def channel_maps(channels, chosen, seed=0):
    maps = np.random.default_rng(seed).normal(size=(channels, 8, 12)).astype(np.float32)
    return ChannelMaps(np.array(chosen), maps[chosen], maps.mean((1, 2)))


def snapshot(levels, image=None, **extra):
    image = noise(*SIZE) if image is None else image
    return Snapshot('a', None, 0, identity_placement(SIZE, SIZE), levels, image=lambda: image, **extra)


def drawn(style, shot):
    views_of_style = Views(style)
    return {picture.name: picture for picture in views_of_style.draw(shot, views_of_style.place(shot))}


@pytest.mark.parametrize('turn', [0.0, 1e-9], ids=['crop', 'homography'])
def test_what_the_network_did_not_see_is_hatched_and_not_cold(sheets, turn):
    """It saw rows 16 to 63 and columns 24 to 95."""
    image = noise(*SIZE)
    placement = Placement(np.array([[1, turn, -24], [0, 1, -16], [0, 0, 1]]), SIZE, (48, 72))
    shot = snapshot([level(values=np.random.default_rng(0).normal(size=(6, 9)).astype(np.float32))], image)
    shot = Snapshot(**{**vars(shot), 'placement': placement})
    pictures = drawn(Style(save=('overlay', 'heatmap', 'panel', 'overview'), image_format='png'), shot)
    for name, below in (('neck_0.png', image), ('neck_0.heatmap.png', np.full_like(image, 255))):
        same = (pictures[name].pixels == below).all(2)
        assert 0.6 < same[:16].mean() < 0.9
        assert 0.6 < same[:, :24].mean() < 0.9
        assert same[16:, 24:].mean() < 0.1
    captions = [caption for _, captions in sheets for caption in captions if caption != ['image']]
    assert captions == [['neck_0', '16 channels, stride 8', 'hatched: not seen by the network']] * 2


@pytest.fixture
def sheets(monkeypatch):
    """The (title, captions) of all sheets that are drawn."""
    made = []
    real = views.make_sheet

    def spy(rows, title='', columns=6, scale=1.0):
        shown = [place for row in rows for place in row if place]
        made.append((title, [caption for caption, _ in shown]))
        tiles.extend(tile for _, tile in shown)
        return real(rows, title, columns, scale)

    tiles = spy.tiles = []
    monkeypatch.setattr(views, 'make_sheet', spy)
    return made


def expected_tile(values, limits, over=None):
    """The expected tile: resized, scaled, colored and blended with OpenCV and a formula."""
    unit = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1)
    heat = cv2.applyColorMap(np.uint8(255 * cv2.resize(unit, SIZE[::-1])), cv2.COLORMAP_JET)
    return heat if over is None else 0.6 * over.astype(float) + 0.4 * heat


@pytest.mark.parametrize('tiles', ['overlay', 'heatmap'])
def test_one_file_per_channel(tiles):
    maps, image = channel_maps(120, [7, 119, 3]), noise(*SIZE)
    style = Style(save='channels', channel_tiles=tiles, channel_files=True, image_format='png')
    pictures = drawn(style, snapshot([level(channels=120, picked=maps)], image))
    names = ['neck_0.channel_007.png', 'neck_0.channel_119.png', 'neck_0.channel_003.png']
    assert list(pictures) == names
    for name, values in zip(names, maps.maps):
        expected = expected_tile(values, (values.min(), values.max()), image if tiles == 'overlay' else None)
        difference = np.abs(pictures[name].pixels - expected)
        assert np.quantile(difference, 0.99) <= 2  # one gray level changes the color
        assert pictures[name].levels == ['neck_0']


def test_channels_share_a_range():
    maps = channel_maps(4, [0, 1, 2, 3])
    maps.maps[0] *= 10
    style = Style(save='channels', channel_tiles='heatmap', channel_files=True, normalize='layer', image_format='png')
    pictures = drawn(style, snapshot([level(channels=4, picked=maps)]))
    limits = maps.maps.min(), maps.maps.max()
    for number, values in enumerate(maps.maps):
        difference = np.abs(pictures[f'neck_0.channel_{number}.png'].pixels - expected_tile(values, limits).astype(int))
        assert np.quantile(difference, 0.99) <= 4


@pytest.mark.parametrize('scale', [1, -1])
def test_range_from_zero_is_empty_if_all_values_are_negative(sheets, scale):
    """Otherwise the caption would be `0 to -1`."""
    values = scale * np.linspace(1, 2, 96, dtype=np.float32).reshape(8, 12)
    picked = ChannelMaps(np.array([0]), values[None], np.ones(1, np.float32))
    style = Style(save=('panel', 'channels'), normalize='max', colorbar=True, channel_tiles='heatmap')
    drawn(style, snapshot([Level('neck', 0, 1, (8.0, 8.0), values, picked=picked)]))
    ends = '0 to 2' if scale > 0 else '0 to 0'
    assert [captions for _, captions in sheets] == [
        [['image'], ['neck_0', '1 channels, stride 8', ends]],
        [['channel 0', ends]],
    ]
    shades = len(np.unique(views.make_sheet.tiles[-1].reshape(-1, 3), axis=0))
    assert shades > 20 if scale > 0 else shades == 1


@pytest.mark.parametrize(('count', 'pages'), [(16, 1), (64, 1), (65, 2), (2048, 32)])
def test_sheets_of_at_most_64_channels(sheets, count, pages):
    maps = ChannelMaps(np.arange(count), np.zeros((count, 8, 12), np.float32), np.zeros(count, np.float32))
    pictures = drawn(Style(save='channels', channels='all'), snapshot([level(channels=count, picked=maps)]))
    numbers = [''] if pages == 1 else [f'_{page + 1:0{len(str(pages))}d}' for page in range(pages)]
    assert list(pictures) == [f'neck_0.channels{number}.jpg' for number in numbers]
    assert max(len(captions) for _, captions in sheets) <= 64
    assert [caption for _, captions in sheets for caption in captions] == [[f'channel {n}'] for n in range(count)]
    title = f'neck_0: {count} of {count} channels, stride 8'
    assert [title for title, _ in sheets] == (
        [title] if pages == 1 else [f'{title} (page {page + 1} of {pages})' for page in range(pages)]
    )


def test_tiles_show_the_channels_of_their_captions(sheets):
    maps, image = channel_maps(100, list(range(99, -1, -1))), noise(*SIZE)
    drawn(Style(save='channels', channels='all'), snapshot([level(channels=100, picked=maps)], image))
    captions = [caption for _, page in sheets for caption in page]
    assert len(views.make_sheet.tiles) == len(captions) == 100
    for ((_, number),), tile in zip((map(str.split, caption) for caption in captions), views.make_sheet.tiles):
        values = maps.maps[99 - int(number)]
        expected = shrink_to_tile(expected_tile(values, (values.min(), values.max()), image).astype(np.uint8), 240)
        assert np.abs(tile.astype(int) - expected).mean() < 1


def test_layer_with_one_value_per_channel_is_drawn_as_a_chart_only():
    weights = np.linspace(-1, 1, 16).astype(np.float32)
    values = np.full((1, 1), 1, np.float32)
    pooled = ChannelMaps(np.array([15]), np.ones((1, 1, 1), np.float32), weights)
    shot = snapshot([Level('backbone.se.act', 0, 16, (64.0, 96.0), values, pooled=pooled)])
    (picture,) = drawn(Style(save='attention'), shot).values()
    assert picture.pixels.shape[1] == 1200
    assert picture.pixels.shape[0] < 300  # a title and the chart, without empty tiles


def test_channels_are_chosen_from_a_whole_feature_map(sheets):
    raw = np.random.default_rng(1).normal(size=(5, 8, 12)).astype(np.float16)
    drawn(Style(save='channels', channels='top 2', colorbar=True), snapshot([level(channels=5, raw=raw)]))
    best = np.argsort(-raw.astype(float).mean((1, 2)))[:2]
    assert sheets[0][1] == [[f'channel {n}', f'{raw[n].min():.4g} to {raw[n].max():.4g}'] for n in best]


def test_overview_has_all_levels_in_forward_order_on_pages(sheets):
    levels = [level(f'backbone.stage{n}.a_block_with_a_long_name.conv', seed=n, channels=n + 1) for n in range(200)]
    pictures = drawn(Style(save='overview'), snapshot(levels))
    assert list(pictures) == [f'overview_{page}.jpg' for page in range(1, 5)]
    captions = [caption for _, page in sheets for caption in page]
    assert captions == [[expected.name, f'{expected.channels} channels, stride 8'] for expected in levels]
    assert [title for title, _ in sheets] == [
        f'a: 200 levels in forward order (page {page} of 4)' for page in range(1, 5)
    ]
    assert [name for picture in pictures.values() for name in picture.levels] == [expected.name for expected in levels]
    assert all(max(picture.pixels.shape) < 4000 for picture in pictures.values())


def test_attention_picture_names_the_kind_of_weights(sheets):
    pooled, weighted = channel_maps(16, [3, 1]), channel_maps(16, [2, 0], seed=1)
    shot = snapshot([level(pooled=pooled)])
    assert list(drawn(Style(save='attention'), shot)) == ['neck_0.attention.jpg']
    shot = snapshot([level(pooled=pooled)], attention=[level('backbone.se', pooled=weighted)])
    assert list(drawn(Style(save='attention'), shot)) == ['backbone.se_0.attention.jpg']
    assert sheets == [
        (
            'neck_0: global average pooling of its 16 channels (no channel attention)',
            [[f'channel {n}', f'mean activation {pooled.weights[n]:.4g}'] for n in (3, 1)],
        ),
        (
            'backbone.se: weights that this channel attention gives its 16 channels',
            [[f'channel {n}', f'weight {weighted.weights[n]:.4g}'] for n in (2, 0)],
        ),
    ]


def test_the_size_of_tiles(sheets):
    """Text grows with tiles, and does not shrink."""
    shot = snapshot([level(picked=channel_maps(16, [1]))])
    wide, narrow = (drawn(Style(save=('panel', 'channels'), tile_size=size), shot) for size in (640, 48))
    assert [tile.shape[1] for tile in views.make_sheet.tiles] == 3 * [640] + 3 * [48]
    assert wide['panel.jpg'].pixels.shape[1] == 2 * (640 + 6) + 6
    assert narrow['panel.jpg'].pixels.shape[1] == 2 * (240 + 6) + 6  # room for captions
    with pytest.raises(ValueError, match='tile_size must be a whole number of at least 32, but is 31'):
        Style(tile_size=31)


def test_color_bars_are_beside_the_picture():
    shot = snapshot([level()])
    plain, barred = (
        drawn(Style(save=('overlay', 'heatmap'), image_format='png', colorbar=bar), shot) for bar in (False, True)
    )
    for name in ('neck_0.png', 'neck_0.heatmap.png'):
        assert plain[name].pixels.shape == (*SIZE, 3)
        assert barred[name].pixels.shape[1] > SIZE[1] + 20
        np.testing.assert_array_equal(barred[name].pixels[:, : SIZE[1]], plain[name].pixels)


def test_pictures_that_need_no_image_are_drawn_before_the_error():
    def missing():
        raise ImageError('a.jpg: gone')

    shot = Snapshot('a', 'a.jpg', 0, identity_placement(SIZE, SIZE), [level(picked=channel_maps(16, [1]))])
    shot = Snapshot(**{**vars(shot), 'image': missing})
    heatmap_views, made = Views(Style(save=('overlay', 'heatmap', 'channels'), channel_tiles='heatmap')), []
    with pytest.raises(ImageError):
        for picture in heatmap_views.draw(shot, heatmap_views.place(shot)):
            made.append(picture.name)
    assert made == ['neck_0.heatmap.png', 'neck_0.channels.jpg']


def test_names_of_further_passes():
    shot = snapshot([level(picked=channel_maps(16, [1]), pooled=channel_maps(16, [1]))])
    shot = Snapshot(**{**vars(shot), 'augmentation': 2})
    kinds = ('overlay', 'heatmap', 'panel', 'channels', 'overview', 'attention')
    assert sorted(drawn(Style(save=kinds), shot)) == [
        'neck_0.pass_2.attention.jpg',
        'neck_0.pass_2.channels.jpg',
        'neck_0.pass_2.heatmap.png',
        'neck_0.pass_2.jpg',
        'overview.pass_2.jpg',
        'panel.pass_2.jpg',
    ]


@pytest.mark.parametrize('normalize', ['image', 'percentile', 'max', 'layer', 'run', (100, 110)])
def test_a_level_without_finite_values_is_cold_and_changes_no_other(normalize):
    values = np.linspace(100, 110, 96, dtype=np.float32).reshape(8, 12)
    warm = Level('neck', 0, 4, (8.0, 8.0), values)
    empty = Level('neck', 1, 4, (8.0, 8.0), np.full((8, 12), np.nan, np.float32))
    views_of_style = Views(Style(normalize=normalize, save='heatmap', colormap='gray'), {'neck_0': (100.0, 110.0)})
    together, alone = (
        {picture.name: picture.pixels for picture in views_of_style.draw(shot, views_of_style.place(shot))}
        for shot in (snapshot([warm, empty]), snapshot([warm]))
    )
    assert together.keys() == {'neck_0.heatmap.png', 'neck_1.heatmap.png'}
    np.testing.assert_array_equal(together['neck_0.heatmap.png'], alone['neck_0.heatmap.png'])
    assert np.ptp(alone['neck_0.heatmap.png']) > (20 if normalize == 'max' else 240)
    assert not together['neck_1.heatmap.png'].any()


def test_the_range_of_a_layer_is_that_of_its_own_levels():
    values = np.linspace(0, 10, 96, dtype=np.float32).reshape(8, 12)
    levels = [level(values=values), level(number=1, values=values + 10), level('backbone', values=1000 * values)]
    pictures = drawn(Style(normalize='layer', save='heatmap', colormap='gray'), snapshot(levels))
    found = [(picture.pixels.min(), picture.pixels.max()) for picture in pictures.values()]
    assert list(pictures) == ['neck_0.heatmap.png', 'neck_1.heatmap.png', 'backbone_0.heatmap.png']
    np.testing.assert_allclose(found, [(0, 127), (127, 255), (0, 255)], atol=1)


@pytest.mark.parametrize('boxes', [None, 'pred'])
def test_pictures_drawn_in_the_same_memory_are_those_drawn_in_memory_of_their_own(boxes):
    levels = [level('neck', number, seed=number) for number in range(3)]
    shot = snapshot(levels, boxes=collect_boxes(None, DetDataSample(), None))
    style = Views(Style(save=('overlay', 'heatmap', 'panel', 'overview'), image_format='png', boxes=boxes))
    placed = style.place(shot)
    own = {picture.name: picture.pixels for picture in style.draw(shot, placed)}
    kept = []
    for picture in style.draw(shot, placed, reuse=True):
        np.testing.assert_array_equal(picture.pixels, own.pop(picture.name))
        kept.append(picture.pixels)
    assert not own
    if boxes is None:  # boxes are drawn on a copy
        # Of three overlays, three heatmaps, a panel and an overview.
        assert len({pixels.ctypes.data for pixels in kept}) == 1 + 1 + 2


def test_cubic_interpolation_is_cut_where_it_leaves_the_range():
    """Beside a step it goes 7 % beyond; as a byte that is not cut, this would be black."""
    step = np.repeat(np.repeat([0, 1], 6)[None], 8, 0).astype(np.float32)
    style = Style(save='heatmap', colormap='gray', interpolation='cubic', normalize=(0, 1))
    picture = drawn(style, snapshot([level(values=step)]))['neck_0.heatmap.png'].pixels
    assert picture[:, :44].max() == 0 and picture[:, 52:].min() == 255
