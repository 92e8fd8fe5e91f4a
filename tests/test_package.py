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


@pytest.mark.parametrize('name', ['featviz', 'featviz.exe', 'look.py'])
def test_only_the_command_ends_with_one_sentence(name):
    """A script may want to catch the error."""
    code = f'import sys\nsys.argv = ["/usr/bin/{name}", "--version"]\nsys.modules["mmcv"] = None\nimport mmdet_featviz'
    done = python(code, ROOT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].partition('mmdet_featviz needs mmcv, which is not installed;')[1]
    assert (done.stderr.count('\n') == 1) == name.startswith('featviz')


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


def files_of(source, *folders):
    """Files of a clone, in some of its folders."""
    paths = (path for folder in folders for path in sorted((source / folder).rglob('*')))
    names = (path.relative_to(source) for path in paths if path.is_file())
    return {name.as_posix() for name in names if not {'__pycache__', '.mim'} & set(name.parts)}


def package_files(source):
    """What both kinds of distribution have: the code, the page, and what mim looks for."""
    for_mim = files_of(source, 'configs', 'tools') | {'model-index.yml'}
    return files_of(source, 'mmdet_featviz') | {f'mmdet_featviz/.mim/{name}' for name in for_mim}


def test_the_wheel_has_code_page_configs_tools_and_licence_and_nothing_else(distributions):
    source, _, wheel = distributions
    info = {'METADATA', 'RECORD', 'WHEEL', 'entry_points.txt', 'top_level.txt', 'LICENSE'}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith('/')}
    own = {name for name in names if '.dist-info/' not in name}
    assert own == package_files(source)
    assert {Path(name).name for name in names - own} == info
    assert {Path(name).suffix for name in own} == {'.css', '.html', '.js', '.pth', '.py', '.sh', '.yml'}


def test_the_sdist_has_what_builds_the_wheel_and_the_environments(distributions):
    source, sdist, _ = distributions
    with tarfile.open(sdist) as archive:
        names = {member.name.partition('/')[2] for member in archive.getmembers() if member.isfile()}
    top = {
        *('CHANGELOG.md', 'LICENSE', 'MANIFEST.in', 'Makefile', 'README.md', 'README_zh-CN.md'),
        *('model-index.yml', 'pyproject.toml', 'setup.py', 'PKG-INFO', 'setup.cfg'),
    }
    own = {name for name in names if not name.startswith('mmdet_featviz.egg-info/')}
    assert own == package_files(source) | files_of(source, 'configs', 'tools', 'requirements') | top


def test_the_distributions_pass_the_check_of_twine(distributions):
    pytest.importorskip('twine', reason='twine is not installed')
    command = [sys.executable, '-m', 'twine', 'check', '--strict', *map(str, distributions[1:])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count('PASSED') == 2


def install_from_index(environment, wheel):
    """Install a wheel and what it requires into an environment without pip; skips where there is no package index."""
    pip = [sys.executable, '-m', 'pip', '--python', str(environment / 'bin' / 'python'), '--retries', '0']
    done = subprocess.run([*pip, 'install', '--quiet', str(wheel)], capture_output=True, text=True)
    if 'NewConnectionError' in done.stderr or 'ConnectTimeoutError' in done.stderr:
        pytest.skip('the package index cannot be reached')
    assert done.returncode == 0, done.stderr
    checked = subprocess.run([*pip, 'check'], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.index
def test_the_wheel_works_in_an_environment_that_has_only_what_it_requires(tmp_path, distributions, monkeypatch):
    """First it says what is missing; with the stack of this environment it then draws the demo and a report."""
    monkeypatch.delenv('PYTHONPATH', raising=False)
    environment = tmp_path / 'env'
    venv.create(environment, with_pip=False, symlinks=True)
    install_from_index(environment, distributions[2])
    featviz = str(environment / 'bin' / 'featviz')
    said = subprocess.run([featviz, '--version'], capture_output=True, text=True, cwd=tmp_path)
    assert said.returncode == 1
    assert said.stderr.startswith('mmdet_featviz needs torch, which is not installed; install it first,')
    assert said.stderr.count('\n') == 1

    add_stack(environment)
    configs = next(environment.glob('lib/python*/site-packages')) / 'mmdet_featviz' / '.mim' / 'configs' / 'demo'
    make = ['demo-data', '--train', '0', '--val', '1', '--out-dir', 'data']
    draw = ['image', 'data/val', str(configs / 'atss_shapes_hp.py'), str(configs / 'atss_shapes.pth')]
    for arguments in (make, [*draw, '--device', 'cpu', '--out-dir', 'run', '--save', 'panel', '--report']):
        done = subprocess.run([featviz, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / 'run' / 'report' / 'index.html').stat().st_size > 1000


def add_stack(environment):
    """Let an environment have the packages of this one, after its own."""
    packages = [entry for entry in sys.path if entry.endswith('site-packages')]
    (next(environment.glob('lib/python*')) / 'site-packages' / 'stack.pth').write_text('\n'.join(packages))


@pytest.mark.parametrize('kind', ['wheel', 'sdist', 'editable'])
def test_configs_can_be_inherited_from_every_kind_of_install(tmp_path, distributions, kind, monkeypatch):
    monkeypatch.delenv('PYTHONPATH', raising=False)
    source, sdist, wheel = distributions
    what = {'wheel': [str(wheel)], 'sdist': [str(sdist)], 'editable': ['-e', str(source)]}[kind]
    environment = tmp_path / 'env'
    venv.create(environment, with_pip=False, symlinks=True)
    executable = str(environment / 'bin' / 'python')
    add_stack(environment)  # only our package is installed into the new one
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
