"""Drawing after the loop: the same files as at once, and nothing lost where a run ends early."""

import os
import signal
import sys

import pytest
from conftest import (
    manifest,
    noise,
    pictures,
    resnet_detector,
    runner_config,
    same_files,
    test_predictions,
    test_project,
    train_config,
    write_dataset,
    write_project,
)
from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner import Runner

from mmdet_featviz.runs import processes, schedule, writer
from mmdet_featviz.runs.backlog import Backlog
from mmdet_featviz.runs.writer import RunWriter
from mmdet_featviz.visualization import images

IMAGES = 6
BUSY = (
    'from mmdet_featviz.runs import schedule\n'
    'schedule._usable_cores = schedule._cores_of_detector = lambda: 2\n'
    'schedule.SMALL_SHARE, schedule.MEASURED_IMAGES, schedule.TRIED_IMAGES = -1, 2, 100\n'
)


@pytest.fixture
def busy(monkeypatch):
    """The detector keeps all cores busy, and drawing takes long: all images but the first three are drawn later."""
    monkeypatch.setattr(schedule, '_usable_cores', lambda: 2)
    monkeypatch.setattr(schedule, '_cores_of_detector', lambda: 2)
    for name, value in dict(SMALL_SHARE=-1, MEASURED_IMAGES=2, TRIED_IMAGES=100).items():
        monkeypatch.setattr(schedule, name, value)


@pytest.fixture
def data(tmp_path):
    return write_dataset(tmp_path / 'data', {f'{n}.png': noise(90, 120, seed=n) for n in range(IMAGES)})


@pytest.fixture
def saved(monkeypatch):
    """Numbers of passes of the images that were saved for later."""
    add, counts = Backlog.add, []

    def counting(self, snapshots):
        counts.append(len(snapshots))
        add(self, snapshots)

    monkeypatch.setattr(Backlog, 'add', counting)
    return counts


def run(tmp_path, data, name, **options):
    """Test with a hook, and return its summary."""
    hook = dict(out_dir=str(tmp_path / name), **options)
    cfg = runner_config(data, tmp_path / f'work_{name}', resnet_detector(), hook=hook)
    cfg.experiment_name = f'{tmp_path.name}_{name}'
    _, _, runner = test_predictions(cfg)
    return next(hook for hook in runner.hooks if type(hook).__name__ == 'FeatVizHook').visualizer.summary()


@pytest.mark.parametrize(
    'options',
    [
        dict(boxes='both', score_thr=0.0, colorbar=True),
        dict(save=('overlay', 'panel', 'maps'), normalize='layer', maps_dtype='float16'),
        dict(save=('heatmap', 'channels', 'attention'), channels='first 2', layers='neck'),
        dict(normalize='run', layers='neck'),
        dict(save=('overlay', 'raw'), layers='backbone'),
    ],
    ids=['overlays', 'maps', 'channels', 'run', 'raw'],
)
def test_all_ways_write_the_same_files(tmp_path, data, busy, saved, options):
    at_once = run(tmp_path, data, 'at_once', workers=0, **options)
    assert not saved
    for workers in (1, 2, 'auto'):
        summary = run(tmp_path, data, f'{workers}', workers=workers, **options)
        assert same_files(tmp_path / 'at_once', tmp_path / f'{workers}')
        assert summary.replace(f'/{workers}', '/at_once') == at_once
    # raw maps are written anyway, and with normalize='run' all pictures wait for the end
    assert saved == ([] if options.get('normalize') == 'run' or 'raw' in options.get('save', ()) else [1] * 3)


def test_an_image_is_decoded_once_for_all_its_pictures(tmp_path, data, busy, monkeypatch):
    decode, count = images._decode, tmp_path / 'count'

    def counting(*args):
        with open(count, 'a') as file:  # also from other processes
            file.write('.')
        return decode(*args)

    monkeypatch.setattr(images, '_decode', counting)
    run(tmp_path, data, 'out', save=('overlay', 'heatmap', 'panel'), boxes='both')
    assert count.read_text() == '.' * IMAGES


def test_each_validation_is_drawn_at_its_end(tmp_path, data, busy, saved, monkeypatch):
    drawn, finish = [], RunWriter.finish

    def recorded(self, *args, **kwargs):
        finish(self, *args, **kwargs)
        drawn.append({entry['key'].split('/')[0] for entry in manifest(tmp_path / 'out')})
        assert not (tmp_path / 'out' / 'postponed.rank0.maps').exists()

    monkeypatch.setattr(RunWriter, 'finish', recorded)
    hook = dict(out_dir=str(tmp_path / 'out'), stages='val', layers='neck')
    cfg = train_config(data, tmp_path / 'work', resnet_detector(), hook=hook)
    Runner.from_cfg(cfg).train()
    assert saved == [1] * (IMAGES - 3 + IMAGES)
    assert drawn[:2] == [{'epoch_1'}, {'epoch_1', 'epoch_2'}]
    assert len(pictures(tmp_path / 'out')) == 2 * IMAGES * 5


@pytest.fixture
def drawing_processes(monkeypatch, tmp_path):
    """Returns the ids of the processes that have drawn postponed images, one for each image."""
    draw, log = RunWriter._draw_image, tmp_path / 'processes'

    def logging(self, maps):
        with open(log, 'a') as file:
            file.write(f'{os.getpid()}\n')
        return draw(self, maps)

    monkeypatch.setattr(RunWriter, '_draw_image', logging)
    return lambda: [int(line) for line in log.read_text().split()]


@pytest.mark.skipif(sys.platform != 'linux', reason='processes are not copied here')
def test_processes_of_their_own_draw_what_waited(tmp_path, data, busy, drawing_processes):
    run(tmp_path, data, 'out')
    assert len(drawing_processes()) == 3
    assert len(set(drawing_processes())) == 2 and os.getpid() not in drawing_processes()


@pytest.mark.parametrize(
    'options',
    [
        dict(backend_args=dict(backend='disk_of_test')),
        dict(log_to_visualizer=True, normalize='run'),  # otherwise nothing waits for the end
        dict(workers=1, normalize='run'),
    ],
    ids=['file backend', 'visualizer', 'one'],
)
def test_threads_draw_where_something_cannot_be_shared(tmp_path, data, busy, monkeypatch, options):
    monkeypatch.setattr(writer, 'do_in_processes', None)
    register_backend('disk_of_test', LocalBackend, force=True)
    summary = run(tmp_path, data, 'out', **options)
    assert summary.startswith('54 pictures') and 'skipped' not in summary


def test_a_killed_process_costs_no_picture(tmp_path, data, busy, monkeypatch):
    draw, this = RunWriter._draw_image, os.getpid()

    def killed(self, maps):
        if os.getpid() != this and (tmp_path / 'out' / '3').exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(self, maps)

    monkeypatch.setattr(RunWriter, '_draw_image', killed)
    lines = []
    monkeypatch.setattr(processes, 'print_log', lambda message, *args: lines.append(message))
    summary = run(tmp_path, data, 'out')
    assert summary == f'54 pictures of 6 images in {tmp_path / "out"}'
    assert len(lines) == 1 and lines[0].startswith(
        'a process that draws has ended early, perhaps because memory is short ('
    )
    run(tmp_path, data, 'whole', workers=0)
    assert pictures(tmp_path / 'out') == pictures(tmp_path / 'whole')
    entries = {(entry['key'], entry['layer'], entry['level']): entry for entry in manifest(tmp_path / 'out')}
    whole = {(entry['key'], entry['layer'], entry['level']): entry for entry in manifest(tmp_path / 'whole')}
    assert entries == whole


def project(folder, trouble):
    write_project(folder, IMAGES, trouble)
    with open(folder / 'trouble.py', 'a') as file:
        file.write(BUSY)


@pytest.mark.parametrize('end', ["exec('raise KeyError(5)')", 'os.kill(os.getpid(), signal.SIGTERM)'])
def test_after_an_error_or_a_signal_all_that_was_seen_is_drawn(tmp_path, end):
    project(tmp_path, f'batch_idx == 4 and {end}')
    ended = test_project(tmp_path, '--featviz-dir', 'out')
    assert ended.returncode in (1, 128 + signal.SIGTERM), ended.stderr
    output = (ended.stdout + ended.stderr).strip()
    assert f'Feature maps drawn before the run ended early: 45 pictures of 5 images in {tmp_path / "out"}\n' in output
    assert len(pictures(tmp_path / 'out')) == 45


@pytest.mark.parametrize('drawn_before', [0, 1])
def test_a_run_killed_while_it_draws_can_be_resumed(tmp_path, drawn_before):
    """Killed between loop and drawing, or amid drawing."""
    project(tmp_path, 'pass')
    whole = test_project(tmp_path, '--featviz-dir', 'whole')
    assert whole.returncode == 0, whole.stderr
    assert f'54 pictures of 6 images in {tmp_path / "whole"}\n' in whole.stdout + whole.stderr
    with open(tmp_path / 'trouble.py', 'a') as file:
        file.write(
            'from mmdet_featviz.runs.writer import RunWriter\n'
            'draw, drawn = RunWriter._draw_image, []\n'
            'def killed(self, maps):\n'
            f'    if len(drawn) == {drawn_before}:\n'
            '        os.kill(os.getpid(), signal.SIGKILL)\n'
            '    drawn.append(1)\n'
            '    return draw(self, maps)\n'
            'RunWriter._draw_image = killed\n'
            'schedule.MOST_AT_END = 0\n'
        )
    killed = test_project(tmp_path, '--featviz-dir', 'out')
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(pictures(tmp_path / 'out')) == 9 * (3 + drawn_before) + 1  # and the backlog
    project(tmp_path, 'pass')
    resumed = test_project(tmp_path, '--featviz-dir', 'out', '--resume')
    assert resumed.returncode == 0, resumed.stderr
    output = resumed.stdout + resumed.stderr
    assert f'Feature maps drawn that the stopped run had saved: {9 * (3 - drawn_before)} pictures' in output
    assert f'0 pictures of 0 images in {tmp_path / "out"}; 6 images drawn before' in output
    assert same_files(tmp_path / 'whole', tmp_path / 'out')


def test_two_ranks_draw_what_each_of_them_saved_and_resume_what_both_left(tmp_path):
    project(tmp_path, 'pass')
    with open(tmp_path / 'trouble.py', 'a') as file:
        file.write('schedule.MEASURED_IMAGES = 1\n')
        file.write('schedule._usable_cores = schedule._cores_of_detector = lambda: 4\n')  # two for each rank
    one = test_project(tmp_path, '--featviz-dir', 'one')
    assert one.returncode == 0, one.stderr
    two = test_project(tmp_path, '--featviz-dir', 'two', ranks=2)
    assert two.returncode == 0, two.stderr
    assert (two.stdout + two.stderr).count(f'54 pictures of 6 images in {tmp_path / "two"}\n') >= 1
    assert same_files(tmp_path / 'one', tmp_path / 'two')
    kept = (tmp_path / 'trouble.py').read_text()
    with open(tmp_path / 'trouble.py', 'a') as file:
        file.write(
            'from mmdet_featviz.runs.writer import RunWriter\n'
            'from mmengine.dist import barrier\n'
            'def killed(self, shows_progress):\n'
            '    barrier()\n'
            '    os.kill(os.getpid(), signal.SIGKILL)\n'
            'RunWriter.draw_postponed = killed\n'
        )
    killed = test_project(tmp_path, '--featviz-dir', 'left', ranks=2)
    assert killed.returncode != 0
    assert sorted(name for name in pictures(tmp_path / 'left') if '/' not in name) == [
        'manifest.rank0.jsonl',
        'manifest.rank1.jsonl',
        'postponed.rank0.maps',
        'postponed.rank1.maps',
    ]
    (tmp_path / 'trouble.py').write_text(kept)
    resumed = test_project(tmp_path, '--featviz-dir', 'left', '--resume', ranks=2)
    assert resumed.returncode == 0, resumed.stderr
    assert '0 pictures of 0 images' in resumed.stdout + resumed.stderr
    assert same_files(tmp_path / 'one', tmp_path / 'left')


def test_an_interruption_while_drawing_says_what_is_left_and_is_not_begun_again(tmp_path, data, busy, monkeypatch):
    draw, drawn = RunWriter._draw_image, []

    def interrupted(self, maps):
        if drawn:
            raise KeyboardInterrupt
        drawn.append(1)
        return draw(self, maps)

    monkeypatch.setattr(RunWriter, '_draw_image', interrupted)
    monkeypatch.setattr(schedule, 'MOST_AT_END', 0)
    lines = []
    monkeypatch.setattr('mmdet_featviz.apis.visualizer.print_log', lambda message, *args: lines.append(message))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data, 'out')
    assert lines == [
        f'Feature maps drawn before the run ended early: 36 pictures of 4 images in {tmp_path / "out"}; '
        '2 images saved but not drawn yet, which resume=True does'
    ]
    monkeypatch.setattr(RunWriter, '_draw_image', draw)
    run(tmp_path, data, 'out', resume=True)
    run(tmp_path, data, 'whole', workers=0)
    assert same_files(tmp_path / 'out', tmp_path / 'whole')


def test_an_image_deleted_before_it_is_drawn_is_counted(tmp_path, data, busy, monkeypatch):
    draw = RunWriter.draw_postponed

    def delete_and_draw(self, shows_progress):
        (data / 'images' / '4.png').unlink()
        draw(self, shows_progress)

    monkeypatch.setattr(RunWriter, 'draw_postponed', delete_and_draw)
    line = run(tmp_path, data, 'out')
    assert line == f'45 pictures of 5 images in {tmp_path / "out"}; skipped: 1 image, image not readable (4.png)'


def test_overwriting_a_killed_run_removes_what_it_had_saved(tmp_path, data, busy, monkeypatch):
    monkeypatch.setattr(Backlog, 'remove', lambda self: None)
    run(tmp_path, data, 'out')
    assert (tmp_path / 'out' / 'postponed.rank0.maps').exists()
    monkeypatch.undo()
    run(tmp_path, data, 'out', overwrite=True, workers=0)
    assert not (tmp_path / 'out' / 'postponed.rank0.maps').exists()


def test_where_no_process_can_be_made_all_is_drawn_here(tmp_path, data, busy, monkeypatch):
    def fail(*args):
        raise OSError(12, 'Cannot allocate memory')

    monkeypatch.setattr(os, 'fork', fail)
    assert run(tmp_path, data, 'out') == f'54 pictures of 6 images in {tmp_path / "out"}'
