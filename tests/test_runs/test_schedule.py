"""Schedule: the choice between threads, drawing at once and drawing after the loop, from given measurements."""

import os
import sys
import threading

import pytest
from conftest import noise, pool_detector, runner_config, test_predictions, write_dataset
from mmdet.registry import MODELS

from mmdet_featviz import FeatureVisualizer
from mmdet_featviz.runs import schedule
from mmdet_featviz.runs.schedule import AUTO, Schedule, check_workers
from mmdet_featviz.visualization.views import Views


def measured(detector, drawing, later=0.0, batches=12, images=4, **options):
    """A schedule that has seen batches which took the detector, drawing at once and drawing later these seconds."""
    now = [0.0]
    options = {'has_end': True, 'cores': 4, 'busy_cores': 4, 'clock': lambda: now[0], **options}
    result, postponed = Schedule(AUTO, **options), []

    def draw_postponed():
        now[0] += later * len(postponed)
        postponed.clear()

    for _ in range(batches):
        now[0] += detector
        with result.batch(images, draw_postponed):
            if result.postpones:
                postponed.append(None)
            else:
                now[0] += drawing
    return result


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(schedule, 'print_log', lambda message, logger: lines.append(message))
    return lines


@pytest.mark.parametrize(
    ('circumstances', 'reason'),
    [
        (dict(device='cuda'), 'runs on the device cuda'),
        (dict(device='cuda', cores=1, busy_cores=1), 'runs on the device cuda'),
        (dict(busy_cores=1), 'leaves 3 of 4 processor cores idle'),
        (dict(is_remote=True), 'would otherwise wait for the network'),
    ],
)
def test_threads_beside_a_detector_that_leaves_cores_idle(circumstances, reason, log):
    chosen = measured(1.0, 1.0, **circumstances)
    assert (chosen.threads, chosen.postpones) == (2, False)
    assert log == [f"workers='auto': pictures are drawn in 2 threads beside the detector, which {reason}."]


def test_a_single_core_draws_at_once(log):
    chosen = measured(1.0, 1.0, cores=1, busy_cores=1)
    assert (chosen.threads, chosen.postpones) == (0, False)
    assert log == ["workers='auto': pictures are drawn at once: this process has a single processor core."]


def test_busy_cores_and_faster_drawing_on_all_cores_draw_after_the_loop(log):
    chosen = measured(detector=0.8, drawing=0.2, later=0.1)
    assert (chosen.threads, chosen.workers_at_end, chosen.postpones, chosen.encodes_beside) == (0, 4, True, True)
    assert log == [
        "workers='auto': pictures are drawn after the loop, on 4 processor cores, from maps saved during it: drawing "
        'takes 50.0 ms per image at once, and 25.0 ms after the loop.'
    ]


def test_busy_cores_and_no_faster_drawing_on_all_cores_draw_at_once(log):
    chosen = measured(detector=0.8, drawing=0.2, later=0.19)
    assert (chosen.threads, chosen.postpones) == (0, False)
    assert log == [
        "workers='auto': pictures are drawn at once: drawing takes 50.0 ms per image at once, and 47.5 ms after the "
        'loop.'
    ]


def test_busy_cores_and_cheap_pictures_are_drawn_at_once(log):
    chosen = measured(detector=0.96, drawing=0.04, batches=3)
    assert (chosen.threads, chosen.postpones) == (0, False)
    assert log == ["workers='auto': pictures are drawn at once: drawing took 4% of the time of the first images."]


def test_the_first_batch_which_fills_caches_does_not_count():
    now = [0.0]
    chosen = Schedule(AUTO, has_end=True, cores=2, busy_cores=2, clock=lambda: now[0])
    for drawing in (50.0, 0.01, 0.01):
        now[0] += 1.0
        with chosen.batch(4, pytest.fail):
            now[0] += drawing
    assert not chosen.postpones


def test_a_batch_without_a_drawn_image_is_not_the_first_one(log):
    now = [0.0]
    chosen = Schedule(AUTO, has_end=True, cores=4, busy_cores=4, clock=lambda: now[0])
    for images, drawing in ((0, 0), (4, 9), (4, 0.01), (4, 0.01)):
        now[0] += 1
        with chosen.batch(images, list):
            now[0] += drawing
    assert log == ["workers='auto': pictures are drawn at once: drawing took 1% of the time of the first images."]


def test_batches_without_a_drawn_image_do_not_count(log):
    assert not measured(1.0, 1.0, batches=20, images=0).postpones
    assert not log


@pytest.mark.parametrize(('batches', 'postpones'), [(2, False), (3, True), (4, True)])
def test_nothing_is_decided_before_it_was_measured(batches, postpones, log):
    """One batch fills caches, two have the eight images drawn at once, and two more those that are drawn later."""
    assert measured(1.0, 1.0, batches=batches).postpones == postpones
    assert not log


def test_ten_cores_are_shared_by_the_processes_that_detect_on_them(monkeypatch):
    monkeypatch.setattr(schedule.torch, 'get_num_threads', lambda: 2)
    assert measured(1.0, 1.0, cores=10, busy_cores=None).threads == 2
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '5')
    chosen = measured(1.0, 1.0, cores=10, busy_cores=None)
    assert (chosen.threads, chosen.postpones, chosen.workers_at_end) == (0, True, 2)


def test_drawing_later_is_not_tried_where_each_process_has_one_core(monkeypatch, log):
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '10')
    chosen = measured(1.0, 1.0, cores=10, busy_cores=10)
    assert (chosen.threads, chosen.postpones, chosen.workers_at_end) == (0, False, 1)
    assert log == ["workers='auto': pictures are drawn at once: this process has a single processor core."]


def test_a_run_without_a_known_end_draws_at_once():
    chosen = measured(1.0, 1.0, has_end=False, device='cuda')
    assert (chosen.threads, chosen.postpones) == (0, False)


@pytest.mark.parametrize('workers', [0, 3])
def test_a_number_is_obeyed(workers, log):
    chosen = Schedule(workers, 'cuda', has_end=True, cores=2, busy_cores=2)
    assert (chosen.threads, chosen.workers_at_end, chosen.postpones) == (workers, workers, False)
    assert not log


@pytest.mark.parametrize('workers', ['many', -1, 1.5, True, None])
def test_other_values_are_refused(workers):
    with pytest.raises(ValueError, match='workers must be '):
        check_workers(workers)


@pytest.mark.parametrize(
    ('workers', 'busy_cores', 'measured', 'places'),
    [
        (0, 1, 8, {'here'}),
        (2, 1, 8, {'thread'}),
        ('auto', 1, 8, {'thread'}),
        ('auto', 2, 8, {'here'}),
        ('auto', 2, 1, {'here', 'process' if sys.platform == 'linux' else 'thread'}),  # some after the loop
    ],
)
def test_the_hook_draws_where_its_schedule_says(tmp_path, workers, busy_cores, measured, places, monkeypatch):
    monkeypatch.setattr(schedule, 'SMALL_SHARE', -1)
    monkeypatch.setattr(schedule, 'MEASURED_IMAGES', measured)
    monkeypatch.setattr(schedule, '_usable_cores', lambda: 2)
    monkeypatch.setattr(schedule, '_cores_of_detector', lambda: busy_cores)
    draw, log, this = Views.draw, tmp_path / 'log', os.getpid()

    def recorded(self, *args, **options):
        place = 'here' if threading.current_thread() is threading.main_thread() else 'thread'
        with open(log, 'a') as file:
            file.write(f'{place if os.getpid() == this else "process"}\n')
        return draw(self, *args, **options)

    monkeypatch.setattr(Views, 'draw', recorded)
    data = write_dataset(tmp_path / 'data', {f'{n}.png': noise(seed=n) for n in range(4)})
    hook = dict(out_dir=str(tmp_path / 'out'), workers=workers, layers='backbone')
    test_predictions(runner_config(data, tmp_path / 'work', pool_detector((8, 16)), hook=hook))
    assert set(log.read_text().split()) == places


@pytest.mark.parametrize(('device', 'strict', 'threads'), [('meta', False, 2), ('cpu', False, 0), ('meta', True, 0)])
def test_a_visualizer_decides_by_the_device_of_the_detector(tmp_path, device, strict, threads, monkeypatch, log):
    monkeypatch.setattr(schedule, '_usable_cores', lambda: 2)
    monkeypatch.setattr(schedule, '_cores_of_detector', lambda: 2)
    visualizer = FeatureVisualizer(out_dir=str(tmp_path / 'out'), strict=strict)
    visualizer.open(MODELS.build(pool_detector((8,))).to(device), in_run=True)
    assert visualizer._schedule.threads == threads
    assert len(log) == (threads > 0)  # with strict, nothing else is said to be chosen
