"""Every detector class of mmdet that can be built here: the drawing sibling fits and predicts the same."""

import contextlib
import copy
import difflib
import inspect
import sys
from collections import defaultdict
from functools import lru_cache

import cv2
import pytest
import torch
from conftest import ROOT, noise, pictures
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_featviz import FeatVizMixin

sys.path.insert(0, str(ROOT / 'tools'))
from zoo_coverage import NO_DETECTORS, configs_of, same, zoo  # noqa: E402
from zoo_models import LARGER, build, packed, pipeline_of, small  # noqa: E402

CLASSES = sorted(
    name
    for name, detector in MODELS.module_dict.items()
    if inspect.isclass(detector)
    and issubclass(detector, BaseDetector)
    and not issubclass(detector, FeatVizMixin)
    and not inspect.isabstract(detector)
    and detector.__module__.startswith('mmdet.')
)
# What this stack cannot build or run, with or without the plugin.
IMPOSSIBLE = {
    'CrowdDet': 'needs torchvision',
    'Detectron2Wrapper': 'needs detectron2',
    'KnowledgeDistillationSingleStageDetector': 'loads a teacher',
    'SingleStageDetector': 'is the base of others',
    'SingleStageInstanceSegmentor': 'is the base of others',
    'TwoStageDetector': 'is the base of others',
    'TwoStagePanopticSegmentor': 'is the base of others',
    'SemiBaseDetector': 'is the base of others',
}


@lru_cache(maxsize=None)
def configs_by_class():
    """{class name: configs of the model zoo}."""
    found = defaultdict(list)
    for family in sorted(path for path in zoo().iterdir() if path.name not in NO_DETECTORS and path.name[0] != '_'):
        for path in configs_of(family)[:4]:
            with contextlib.suppress(ImportError):  # of a package that a config brings in
                model = Config.fromfile(path).get('model')
                if model is not None:
                    found[model.type].append(path)
    return found


def config_of(name):
    """The config of a class whose folder is called most like it."""
    return max(
        configs_by_class()[name],
        key=lambda path: difflib.SequenceMatcher(None, path.parent.name.replace('_', ''), name.lower()).ratio(),
    )


@pytest.mark.parametrize('name', CLASSES)
def test_the_drawing_sibling_has_the_same_keys_and_predictions(tmp_path, monkeypatch, name):
    if name in IMPOSSIBLE:
        pytest.skip(f'{name} {IMPOSSIBLE[name]}')
    monkeypatch.chdir(zoo().parent)  # some configs name others relative to it
    try:
        cfg = Config.fromfile(config_of(name))
        plain = build(cfg.model)
    except ImportError as error:  # some need packages of their own
        pytest.skip(f'{name} cannot be built: {error}')
    featviz = dict(out_dir=str(tmp_path / 'out'), save='heatmap', image_root=str(tmp_path))
    drawing = build({**cfg.model, 'type': f'{name}Hp', 'featviz': featviz})
    assert list(drawing.state_dict()) == list(plain.state_dict())
    drawing.load_state_dict(plain.state_dict())

    photo = tmp_path / 'photo.png'
    cv2.imwrite(str(photo), noise(240, 320))
    pipeline = small(pipeline_of(cfg), LARGER.get(name, (320, 240)))
    results = []
    for model in (plain, drawing):
        torch.manual_seed(0)
        with torch.no_grad():
            try:
                results.append(copy.deepcopy(model.test_step(packed(pipeline, photo))[0]))
            except (ImportError, TypeError, RuntimeError) as error:  # QueryInst's mask head, with untrained boxes
                if model is plain:
                    pytest.skip(f'{name} does not predict here without the plugin either: {error}')
                raise
    assert same(*results)
    assert len(pictures(tmp_path / 'out')) > 0
