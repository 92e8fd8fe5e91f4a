"""What an installation brings: light imports, clear errors, configs that other projects can inherit."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, python
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS

ZOO = sorted((ROOT / 'configs' / 'zoo').glob('*.py'))


def test_the_import_brings_nothing_that_the_main_path_does_not_need():
    code = (
        'import sys, mmdet.apis\n'
        'before = set(sys.modules)\n'
        'import mmdet_featviz\n'
        'print(*sorted(set(sys.modules) - before))'
    )
    result = python(code, ROOT)
    assert result.returncode == 0, result.stderr
    brought = result.stdout.split()
    assert {name.partition('.')[0] for name in brought} <= {'mmdet_featviz', 'mmdet', 'mmengine'}
    assert not [
        name
        for name in brought
        if name.startswith(('mmdet.models', 'mmdet_featviz.models.', 'mmdet_featviz.report.', 'jinja2'))
    ]


def test_the_import_is_light():
    heavy = ('mmdet.apis', 'mmdet.models', 'mmdet.datasets', 'matplotlib', 'pycocotools', 'scipy')
    code = f'import sys, mmdet_featviz\nprint(*(name for name in {heavy} if name in sys.modules))'
    result = python(code, ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


@pytest.mark.parametrize('before', ['', "MODELS.get('RetinaNet')"])
def test_detectors_that_draw_are_found_by_name_and_imported_by_name(before):
    """Also where mmdet's models were looked up already."""
    code = (
        'from mmdet.registry import MODELS\n'
        f'{before}\n'
        'import mmdet_featviz\n'
        "print(MODELS.get('DINOHp').__name__, MODELS.get('mmdet.SingleStageDetectorHp').__name__)\n"
        'from mmdet_featviz import FeatVizMixin, SingleStageDetectorHp, TwoStageDetectorHp\n'
        "print(SingleStageDetectorHp is MODELS.get('SingleStageDetectorHp'), hasattr(mmdet_featviz, 'Nothing'))\n"
        'import pickle\n'
        "print(pickle.loads(pickle.dumps(MODELS.get('DINOHp'))).__mro__[1].__name__)"
    )
    result = python(code, ROOT)
    expected = ['DINOHp', 'SingleStageDetectorHp', 'True', 'False', 'FeatVizMixin']
    assert result.stdout.split() == expected, result.stderr


def test_drawing_overlays_needs_neither_matplotlib_nor_fonts(tmp_path):
    """They are barred, as if they were not installed, once mmdet has what it takes of them itself."""
    code = (
        'import sys, torch, mmdet.apis, mmdet.models\n'
        'from mmdet.structures import DetDataSample\n'
        'for name in [name for name in sys.modules if name.partition(".")[0] in ("matplotlib", "PIL")]:\n'
        '    del sys.modules[name]\n'
        'sys.modules.update(matplotlib=None, PIL=None)\n'
        'from mmdet_featviz import FeatureVisualizer\n'
        'from mmdet_featviz.capture.activation_map import ActivationMap, Pass\n'
        'model = torch.nn.Module()\n'
        'model.neck = torch.nn.Identity()\n'
        f'visualizer = FeatureVisualizer(out_dir={str(tmp_path)!r}, save=("overlay", "heatmap", "maps"), strict=True)\n'
        'visualizer.open(model)\n'
        'sample = DetDataSample(metainfo=dict(ori_shape=(32, 32), img_shape=(32, 32), scale_factor=(1.0, 1.0)))\n'
        'maps = [ActivationMap("neck", 0, 3, (8.0, 8.0), torch.rand(1, 4, 4))]\n'
        'visualizer.draw([Pass(torch.zeros(1, 3, 32, 32), [sample], maps)])\n'
        'visualizer.close()\n'
        'print(visualizer.summary())'
    )
    result = python(code, ROOT)
    assert '2 pictures and 1 file of maps of 1 image' in result.stdout, result.stderr


@pytest.mark.parametrize(
    ('files', 'message'),
    [
        (
            {'mmcv/__init__.py': "__version__ = '1.7.1'"},
            'mmdet_featviz needs mmcv 2.0 or newer, but 1.7.1 is installed',
        ),
        (
            {'mmcv/__init__.py': "__version__ = '2.1.0'", 'mmdet/__init__.py': "__version__ = '3.3.0'"},
            'needs mmcv with its compiled ops, but this mmcv has none',
        ),
        (
            {'mmdet/__init__.py': "assert False, 'MMCV==2.2.0 is used but incompatible.'"},
            'cannot use this mmdet: MMCV==2.2.0 is used but incompatible; install the tested set with: pip install',
        ),
        ({'mmengine/__init__.py': "__version__ = '0.6.0'"}, 'needs mmengine 0.7 or newer, but 0.6.0 is installed'),
    ],
)
def test_a_stack_that_does_not_fit_is_named_with_its_remedy(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    result = python('import mmdet_featviz', ROOT, tmp_path)
    assert result.returncode != 0
    assert message in result.stderr.splitlines()[-1]


def test_a_missing_package_is_named_with_its_remedy():
    code = (
        'import importlib.util as u\n'
        'find = u.find_spec\n'
        'u.find_spec = lambda name, *rest: None if name == "mmcv" else find(name, *rest)\n'
        'import mmdet_featviz'
    )
    last = python(code, ROOT).stderr.splitlines()[-1]
    assert last.startswith('ImportError: mmdet_featviz needs mmcv, which is not installed; install the tested set with')


@pytest.mark.parametrize('path', ZOO, ids=lambda path: path.stem)
def test_zoo_configs_are_mmdets_own_with_the_hook_and_a_checkpoint(path):
    cfg = Config.fromfile(path)
    assert cfg.load_from.startswith('https://download.openmmlab.com/mmdetection/')
    assert cfg.load_from.endswith('.pth')
    assert cfg.default_hooks.featviz.type == 'FeatVizHook'
    assert cfg.default_hooks.checkpoint.type == 'CheckpointHook'  # mmdet's own are still there
    HOOKS.build(cfg.default_hooks.featviz)
    cfg.model.backbone.init_cfg = None
    MODELS.build(cfg.model)


def test_there_are_five_zoo_configs():
    assert len(ZOO) == 5


def test_the_base_config_says_the_defaults():
    import inspect

    from mmdet_featviz import FeatureVisualizer, Style

    hook = dict(Config.fromfile(ROOT / 'configs' / '_base_' / 'featviz.py').custom_hooks[0])
    assert hook.pop('type') == 'FeatVizHook'
    parameters = {**inspect.signature(FeatureVisualizer).parameters, **inspect.signature(Style).parameters}
    assert hook == {name: parameter.default for name, parameter in parameters.items() if name != 'style'}


@pytest.fixture(scope='module')
def distributions(tmp_path_factory):
    """The source distribution, and the wheel built from it."""
    folder = tmp_path_factory.mktemp('dist with space')
    source = folder / 'mmdet_featviz'  # as a clone is called
    listed = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    quiet = dict(check=True, capture_output=True)
    subprocess.run([sys.executable, 'setup.py', '-q', 'sdist', '-d', str(folder)], cwd=source, **quiet)
    sdist = next(folder.glob('*.tar.gz'))
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / 'unpacked')
    unpacked = next((folder / 'unpacked').iterdir())
    subprocess.run([sys.executable, 'setup.py', '-q', 'bdist_wheel', '-d', str(folder)], cwd=unpacked, **quiet)
    return source, sdist, next(folder.glob('*.whl'))


def test_wheel_and_sdist_carry_configs_weights_and_tools(distributions):
    _, sdist, wheel = distributions
    wanted = {
        'mmdet_featviz/.mim/configs/_base_/featviz.py',
        'mmdet_featviz/.mim/configs/demo/atss_shapes.pth',
        'mmdet_featviz/.mim/configs/zoo/yolox_tiny.py',
        'mmdet_featviz/.mim/tools/test.py',
        'mmdet_featviz/report/page/index.html',
        'mmdet_featviz/report/page/page.js',
        'mmdet_featviz/report/page/report.css',
    }
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert wanted | {'setup.py', 'LICENSE', 'requirements/runtime.txt', 'configs/_base_/featviz.py'} <= names


@pytest.mark.parametrize('kind', ['wheel', 'sdist', 'editable'])
def test_configs_can_be_inherited_from_every_kind_of_install(tmp_path, distributions, kind):
    source, sdist, wheel = distributions
    what = {'wheel': [str(wheel)], 'sdist': [str(sdist)], 'editable': ['-e', str(source)]}[kind]
    environment = tmp_path / 'env'
    venv.create(environment, with_pip=False, symlinks=True)
    executable = str(environment / 'bin' / 'python')
    # The heavy packages are those of this environment; only ours is installed into the new one.
    packages = [entry for entry in sys.path if entry.endswith('site-packages')]
    site = next((environment / 'lib').glob('python*')) / 'site-packages'
    (site / 'stack.pth').write_text('\n'.join(packages))
    install = ['-m', 'pip', '--quiet', 'install', '--no-deps', '--no-build-isolation', '--force-reinstall']
    done = subprocess.run([executable, *install, *what], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / 'config.py').write_text(
        "_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 'mmdet_featviz::_base_/featviz.py']\n"
    )
    code = (
        'import mmdet_featviz\n'
        'from mmengine.config import Config\n'
        'cfg = Config.fromfile("config.py")\n'
        'from mmengine.registry import HOOKS, init_default_scope\n'
        'init_default_scope("mmdet")\n'
        'hook = type(HOOKS.build(cfg.custom_hooks[0])).__name__\n'
        'print(mmdet_featviz.__file__, hook, cfg.model.type, sep="\\n")'
    )
    result = python(code, executable=executable, cwd=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert 'WARNING' not in result.stdout + result.stderr  # mmengine finds the scope of the inherited hook
    file, hook, model = result.stdout.splitlines()
    assert (hook, model) == ('FeatVizHook', 'RetinaNet')
    expected = source if kind == 'editable' else environment
    assert expected in Path(file).parents
    if kind == 'editable':  # also beside the clone, whose folder has the package's name
        beside = python('import mmdet_featviz; print(mmdet_featviz.__file__)', executable=executable, cwd=source.parent)
        assert beside.stdout.strip() == file, beside.stderr


def test_types_of_an_inherited_config_are_found_in_our_scope():
    """mmengine gives the parts of a base config ``mmdet_featviz::...`` this scope."""
    from conftest import pool_detector
    from mmengine.registry import DATASETS, HOOKS, LOOPS, METRICS, MODELS, VISUALIZERS, init_default_scope

    init_default_scope('mmdet')
    scope = dict(_scope_='mmdet_featviz')
    assert type(MODELS.build({**pool_detector((8,)), **scope})).__name__ == 'SingleStageDetector'
    assert type(HOOKS.build(dict(type='FeatVizHook', **scope))).__name__ == 'FeatVizHook'
    for registry, name in (
        (VISUALIZERS, 'DetLocalVisualizer'),
        (DATASETS, 'CocoDataset'),
        (LOOPS, 'TestLoop'),
        (METRICS, 'CocoMetric'),
    ):
        with registry.switch_scope_and_registry('mmdet_featviz') as own:
            assert own.scope == 'mmdet_featviz'
            assert own.get(name).__name__ == name
