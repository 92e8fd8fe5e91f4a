from pathlib import Path

import pytest

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.utils.arguments import check_names, check_path


@pytest.mark.parametrize('bad', [5, 2.5, [1], ['a', None], b'neck', object])
def test_names_of_another_type_name_the_argument(bad):
    with pytest.raises(TypeError, match='layers must be a name or a list of names, but is '):
        check_names('layers', bad)


def test_names_are_a_tuple_and_empty_only_where_allowed():
    assert check_names('layers', 'neck') == ('neck',)
    assert check_names('layers', ['neck', 'backbone']) == ('neck', 'backbone')
    assert check_names('stages', [], may_be_empty=True) == ()
    with pytest.raises(ValueError, match='layers is empty: name at least one'):
        check_names('layers', ())


class BytesPath:
    def __fspath__(self):
        return b'out'


@pytest.mark.parametrize('bad', [5, b'out', ['out'], None, BytesPath()])
def test_a_path_of_another_type_names_the_argument(bad):
    with pytest.raises(TypeError, match='out_dir must be a path, but is '):
        check_path('out_dir', bad)


def test_paths_are_strings():
    assert check_path('out_dir', Path('a') / 'b') == str(Path('a') / 'b')
    assert check_path('out_dir', 's3://bucket/run') == 's3://bucket/run'


@pytest.mark.parametrize(
    'options',
    [
        dict(layers=5),
        dict(out_dir=5),
        dict(image_root=5),
        dict(image_names=5),
        dict(stages=5),
        dict(save=5),
        dict(channels=2.5),
    ],
)
def test_wrong_types_name_their_argument_in_the_visualizer(options):
    (name,) = options
    with pytest.raises((TypeError, ValueError), match=f'^{name}'):
        FeatureVisualizer(**options)


def test_a_folder_may_be_a_path_object():
    assert FeatureVisualizer(out_dir=Path('out')).out_dir == 'out'
    assert FeatureVisualizer().out_dir is None
