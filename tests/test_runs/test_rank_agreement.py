"""A drawing detector on several ranks, each of which opens the run when it first draws, or never."""

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta

import bucket  # noqa: F401  registers bucket://
import pytest
import torch
from conftest import ROOT, noise, pictures, pool_detector, runner_config, write_dataset

from mmdet_featviz.runs import rank_agreement
from mmdet_featviz.runs.manifest import read_entries
from mmdet_featviz.runs.rank_agreement import decide_once
from mmdet_featviz.runs.storage import get_storage

RANK = """
import os, sys
sys.path.insert(0, os.path.join({root!r}, 'tests'))
import bucket, conftest, torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
rank, images, options = int(sys.argv[1]), eval(sys.argv[2]), eval(sys.argv[3])
torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
config = dict(conftest.pool_detector((8, 16)), type='SingleStageDetectorHp', featviz=options)
torch.manual_seed(0)  # the same weights when it is resumed
model = MODELS.build(config).eval()
meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0))
for path in images[rank]:
    path = dict(img_path=path) if path else {{}}
    with torch.no_grad():
        model.predict(torch.rand(1, 3, 64, 64), [DetDataSample(metainfo=dict(meta, **path))])
torch.distributed.barrier()
print(model.featviz.summary())
"""

RUNNER = """
import os, sys
sys.path.insert(0, os.path.join({root!r}, 'tests'))
import conftest, torch
from mmengine.config import Config
from mmengine.runner import Runner
torch.distributed.init_process_group('gloo', rank=int(sys.argv[1]), world_size=2)
Runner.from_cfg(Config.fromfile('config.py')).test()
torch.distributed.barrier()
"""


def on_two_ranks(folder, images, **options):
    """Draw images on each of two ranks with a detector of its own, and return both outputs."""
    return run_two_ranks(folder, RANK, repr(images), repr(dict(save='heatmap', **options)))


def run_two_ranks(folder, code, *arguments):
    """Run code on two ranks, which get their rank as first argument; return [((output, errors), exit code)] of both."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    env = {**os.environ, 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port), 'PYTHONPATH': str(ROOT)}
    code = code.format(root=str(ROOT))
    ranks = [
        subprocess.Popen(
            [sys.executable, '-c', code, str(rank), *arguments],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return [(rank.communicate(timeout=280), rank.returncode) for rank in ranks]


def written(ranks):
    assert [code for _, code in ranks] == [0, 0], ranks
    return ranks


@pytest.mark.parametrize(
    ('images', 'out_dir'),
    [([['/i/0', '/i/1'], ['/i/2']], 'bucket://run'), ([[], ['/i/2', '/i/1', '/i/0']], 'run')],
    ids=['both, at a URL', 'one'],
)
def test_both_ranks_write_to_one_run_and_everything_is_listed(tmp_path, images, out_dir, monkeypatch):
    monkeypatch.setenv('BUCKET', str(tmp_path))
    run = tmp_path / 'run'
    written(on_two_ranks(tmp_path, images, out_dir=out_dir, image_root='/i'))
    entries = list(read_entries(get_storage(run)))
    assert len(entries) == 3 * 2
    files = {file for entry in entries for file in entry['files']}
    assert files == {name for name in pictures(run) if 'manifest' not in name}
    assert len(files) == 6
    run_id = json.loads((run / 'run.json').read_text())['id']
    refused = on_two_ranks(tmp_path, images, out_dir=out_dir, image_root='/i')
    assert any('FileExistsError' in error for (_, error), _ in refused)
    written(on_two_ranks(tmp_path, [['/i/8'], ['/i/9']], out_dir=out_dir, image_root='/i', overwrite=True))
    entries = list(read_entries(get_storage(run)))
    assert len(entries) == 2 * 2
    assert len([name for name in pictures(run) if 'manifest' not in name]) == 4
    assert json.loads((run / 'run.json').read_text())['id'] != run_id


def test_resuming_on_two_ranks_keeps_what_both_had(tmp_path):
    written(on_two_ranks(tmp_path, [['/i/0'], ['/i/1']], out_dir='run', image_root='/i'))
    written(on_two_ranks(tmp_path, [['/i/0', '/i/2'], ['/i/1', '/i/3']], out_dir='run', image_root='/i', resume=True))
    entries = list(read_entries(get_storage(tmp_path / 'run')))
    assert len(entries) == len({tuple(entry['files']) for entry in entries}) == 4 * 2


@pytest.mark.parametrize('backends', [[dict(type='LocalVisBackend')], []], ids=['local', 'none'])
def test_a_runner_that_knows_nothing_of_heatmaps_gets_them_in_its_log_folder(tmp_path, backends):
    data = write_dataset(tmp_path / 'data', {f'{number}.png': noise(64, 96, seed=number) for number in range(5)})
    featviz = dict(save='heatmap', image_root=str(data / 'images'))
    model = dict(pool_detector((8, 16)), type='SingleStageDetectorHp', featviz=featviz)
    cfg = runner_config(data, tmp_path / 'work', model)
    cfg.visualizer = dict(type='Visualizer', vis_backends=backends)
    cfg.dump(str(tmp_path / 'config.py'))
    written(run_two_ranks(tmp_path, RUNNER))
    (run,) = (tmp_path / 'work').glob('*/featviz')
    assert not (tmp_path / 'work_dirs').exists()
    names = [name for name in pictures(run) if 'manifest' not in name]
    assert {name.partition('~')[0] for name in names} == set('01234')
    assert {file for entry in read_entries(get_storage(run)) for file in entry['files']} == set(names)


def test_the_first_rank_that_asks_decides_and_its_error_is_that_of_all(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setattr(rank_agreement, 'get_dist_info', lambda: (1, 3))
    monkeypatch.setattr(rank_agreement, '_default_store', lambda: store)
    monkeypatch.setattr(rank_agreement, 'LONGEST_WAIT', timedelta(seconds=5))
    assert decide_once('folder', lambda: dict(id=1)) == (dict(id=1), True)
    for _ in range(2):
        assert decide_once('folder', lambda: pytest.fail('decided again')) == (dict(id=1), False)
    assert decide_once('another', lambda: 2) == (2, True)

    def fail():
        raise FileExistsError('taken')

    with pytest.raises(FileExistsError, match='taken'):
        decide_once('wrong', fail)
    with pytest.raises(FileExistsError, match='taken'):
        decide_once('wrong', lambda: pytest.fail('decided again'))

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decide_once('interrupted', interrupt)
    with pytest.raises(RuntimeError, match='KeyboardInterrupt'):
        decide_once('interrupted', lambda: pytest.fail('decided again'))
