from dataclasses import fields
from pathlib import Path

import pytest

from mmdet_featviz import DetectionErrorMetric, ExplanationMetric, FeatureFocusMetric, FeatureVisualizer
from mmdet_featviz.utils.arguments import check_names, check_path
from mmdet_featviz.visualization.style import Style


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
        dict(layer_type=5),
        dict(reduction=0),
        dict(reduction=['max']),
        dict(colormap=['jet']),
        dict(percentiles='19'),
        dict(percentiles=(True, 99)),
        dict(normalize=('0', '1')),
    ],
)
def test_wrong_types_name_their_argument_in_the_visualizer(options):
    (name,) = options
    with pytest.raises((TypeError, ValueError), match=f'^{name}'):
        FeatureVisualizer(**options)


def test_a_folder_may_be_a_path_object():
    assert FeatureVisualizer(out_dir=Path('out')).out_dir == 'out'
    assert FeatureVisualizer().out_dir is None


SWITCHES = (
    *('average_passes', 'overwrite', 'resume', 'log_to_visualizer', 'report', 'strict'),
    *('colorbar', 'channel_files'),
)


@pytest.mark.parametrize('value', ['no', 'False', '', 0, 1, None, [True]])
def test_a_switch_is_true_or_false(value):
    """A text such as 'no', as a command line gives it, would count as true."""
    kinds = [(FeatureVisualizer, {name: value}) for name in SWITCHES]
    kinds += [(FeatureFocusMetric, dict(classwise=value)), (FeatureFocusMetric, dict(scores=value))]
    kinds += [(DetectionErrorMetric, dict(mechanisms=value)), (ExplanationMetric, dict(randomise=value))]
    kinds += [(lambda explain: FeatureVisualizer(explain=explain), dict(explain=dict(each_level=value)))]
    for kind, options in kinds:
        name = next(iter(options)) if 'explain' not in options else 'each_level'
        with pytest.raises(TypeError) as caught:
            kind(**options)
        assert str(caught.value) == f'{name} must be True or False, but is {value!r}'


def test_all_switches_are_checked():
    defaults = {**FeatureVisualizer.__init__.__kwdefaults__, **{one.name: one.default for one in fields(Style)}}
    assert sorted(SWITCHES) == sorted(name for name, value in defaults.items() if isinstance(value, bool))
