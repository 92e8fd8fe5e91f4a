"""Measure what drawing costs, beside what others do and beside what nobody can do without.

Parts: `draw`, nine heatmaps of one image, against mmengine's Visualizer.draw_featmap, the recipe that blogs publish,
and the floor (decode the image once, read each feature once, encode and write nine pictures); `test`, a whole test with
and without the hook; `memory`, its peak and its growth; `growth`, how cost grows with each size. What is compared runs
in turns, round by round, and medians are told. Run it alone on the machine.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import cv2
import mmcv
import mmdet
import mmengine
import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.runner import Runner
from torch import nn

from mmdet_featviz import FeatureVisualizer, FeatVizHook, __version__
from mmdet_featviz.benchmarks.demo_data import make_split
from mmdet_featviz.capture.reductions import reduce_max

PARTS = ('draw', 'test', 'memory', 'growth')
INPUT, IMAGE = (800, 1067), (576, 768)
BACKBONE = [(256, 4), (512, 8), (1024, 16), (2048, 32)]  # channels and stride of C2-C5
NECK = [(256, stride) for stride in (8, 16, 32, 64, 128)]  # P3-P7
DETECTORS = {'ATSS-R50': 'atss/atss_r50_fpn_1x_coco.py', 'YOLOX-nano': 'yolox/yolox_nano_8xb8-300e_coco.py'}
TARGETS = {  # ratio, or megabytes: its bound, and whether from below
    'draw_featmap squeeze_mean / ours': (200, True),
    'draw_featmap select_max / ours': (200, True),
    'recipe / ours': (6, True),
    'ours / floor': (1.5, False),
    'ours / floor of our reduction': (1.5, False),
    'ATSS-R50 with / without': (1.02, False),
    'YOLOX-nano with / without': (1.2, False),
    'YOLOX-nano: peak with - without': (100, False),
    'ATSS-R50: peak with - without': (100, False),
}
REDUCTIONS = ('squeeze_mean', 'select_max')
MEGABYTE = 2**20
LEAST_TURN = 1.0  # seconds


# Nine maps of one image.


class Features(nn.Module):
    """A module that puts out given feature maps, so that taps catch them as in a detector."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, x):
        return self.levels


def smooth_features(channels, stride, size=INPUT):
    """Random blobs (1, channels, rows, columns), as a trained network's maps have them rather than noise."""
    rows, columns = (-(-side // stride) for side in size)
    coarse = torch.rand(1, channels, max(rows // 6, 2), max(columns // 6, 2))
    return nn.functional.interpolate(coarse, (rows, columns), mode='bilinear').contiguous()


def smooth_image(size):
    """A random image with coarse and fine structure (height, width, 3)."""
    rng, image = np.random.default_rng(0), np.zeros((*size, 3), np.float32)
    for cells in (4, 16, 64, 256):
        grid = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC) * 180 / cells**0.5
    return np.clip(image + 128, 0, 255).astype(np.uint8)


class Case:
    """Feature maps of one image on disk, and ways to draw them."""

    def __init__(self, folder, backbone=BACKBONE, neck=NECK, image_size=IMAGE):
        torch.manual_seed(0)
        self.folder = Path(folder)
        self.model = nn.Module()
        self.model.backbone = Features([smooth_features(*level) for level in backbone])
        self.model.neck = Features([smooth_features(*level) for level in neck])
        self.features = [*self.model.backbone.levels, *self.model.neck.levels]
        self.image = self.folder / 'image.jpg'
        cv2.imwrite(str(self.image), smooth_image(image_size))
        scale = (INPUT[1] / image_size[1], INPUT[0] / image_size[0])
        meta = dict(img_path=str(self.image), ori_shape=image_size, img_shape=INPUT, scale_factor=scale)
        self.sample = DetDataSample(metainfo=meta)
        self.inputs = torch.zeros(1, 3, *INPUT)
        self.written = 0
        self.visualizer = FeatureVisualizer(out_dir=str(self.folder / 'ours'), strict=True)
        self.visualizer.open(self.model, image_root=str(self.folder))

    def ours(self):
        with self.visualizer.taps as taps:
            taps.begin(self.inputs, [self.sample])
            self.model.backbone(self.inputs)
            self.model.neck(self.inputs)
        self.visualizer.draw(taps.take())

    def draw_featmap(self, reduction):
        from mmengine.visualization import Visualizer

        image = cv2.cvtColor(cv2.imread(str(self.image)), cv2.COLOR_BGR2RGB)
        for number, feature in enumerate(self.features):
            drawn = Visualizer.draw_featmap(feature[0], image, channel_reduction=reduction, alpha=0.4)
            self._write(f'{reduction}_{number}.jpg', cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))

    def recipe(self):
        """What is published in many places; here with the image read once, and figures without margins."""
        import matplotlib

        matplotlib.use('agg')
        from matplotlib import pyplot as plt

        image = cv2.imread(str(self.image))
        height, width = image.shape[:2]
        for number, feature in enumerate(self.features):
            heat = torch.zeros_like(feature[0, 0])
            for channel in range(feature.shape[1]):
                heat += feature[0, channel]
            heat = np.maximum(heat.numpy(), 0)
            heat = cv2.resize(heat / heat.max(), (width, height))
            laid = 0.4 * cv2.applyColorMap(np.uint8(255 * heat), cv2.COLORMAP_JET) + image
            figure = plt.figure(figsize=(width / 100, height / 100), dpi=100)
            plt.axes([0, 0, 1, 1]).axis('off')
            plt.imshow(np.clip(laid, 0, 255).astype(np.uint8)[..., ::-1])
            self.written += 1
            plt.savefig(str(self.folder / f'{self.written}_recipe_{number}.png'))
            plt.close(figure)

    def floor(self, reduce=lambda feature: feature.amax(1)):
        """Without this nobody can do it; with the fastest reduction that we know it is lower still."""
        cv2.imread(str(self.image))
        for number, feature in enumerate(self.features):
            reduce(feature)
            self._write(f'floor_{number}.jpg', self.drawn[number])

    @property
    def drawn(self):
        """The pictures of ours."""
        if not hasattr(self, '_drawn'):
            files = sorted(file for file in (self.folder / 'ours' / 'image').glob('*.jpg') if 'pass' not in file.name)
            self._drawn = [cv2.imread(str(file)) for file in files]
            assert len(self._drawn) == len(self.features)
        return self._drawn

    def _write(self, name, picture):
        """Write a file that is not there, as ours are not: to replace one takes file systems longer."""
        done, encoded = cv2.imencode('.jpg', picture)
        assert done
        self.written += 1
        (self.folder / f'{self.written}_{name}').write_bytes(encoded.tobytes())


def seconds(work, *args):
    """Elapsed and processor seconds of a call."""
    elapsed, processor = time.perf_counter(), time.process_time()
    work(*args)
    return time.perf_counter() - elapsed, time.process_time() - processor


def in_turns(ways, rounds):
    """Medians (elapsed, processor) of each way, after one round that does not count.

    In its turn a way is run for a while, as over a data set: the first run also pays for what the way before left of
    caches and free memory.
    """
    taken = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            spent = [seconds(way)]
            while sum(elapsed for elapsed, _ in spent) < LEAST_TURN:
                spent.append(seconds(way))
            if round_:
                taken[name].append(medians(spent))
    return {name: medians(spent) for name, spent in taken.items()}


def medians(spent):
    return [statistics.median(one) for one in zip(*spent)]


def measure_draw(args):
    set_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # draw_featmap warns of each map
        case = Case(folder)
        case.ours()
        floors = {'floor': case.floor, 'floor of our reduction': partial(case.floor, reduce_max)}
        quick = in_turns({'ours': case.ours, **floors}, 3 * args.rounds)
        slow = in_turns({'recipe': case.recipe, 'ours': case.ours}, args.rounds)
        ways = {f'draw_featmap {name}': lambda name=name: case.draw_featmap(name) for name in REDUCTIONS}
        slowest = in_turns({**ways, 'ours': case.ours}, min(args.rounds, 3))
    ratios = {}
    for number, note in enumerate(('', ', processor')):
        for name in ways:
            ratios[f'{name} / ours{note}'] = slowest[name][number] / slowest['ours'][number]
        ratios[f'recipe / ours{note}'] = slow['recipe'][number] / slow['ours'][number]
        for name in floors:
            ratios[f'ours / {name}{note}'] = quick['ours'][number] / quick[name][number]
    return dict(seconds={**slowest, 'recipe': slow['recipe'], **quick}, ratios=ratios)


def set_threads(number):
    torch.set_num_threads(number)
    cv2.setNumThreads(number)


# A whole test.


def scenes(folder, count, distinct=100):
    """A data set of demo scenes, repeated under other names, with the classes of COCO that the detectors know."""
    make_split(folder, 'val', min(count, distinct))
    content = json.loads((folder / 'val.json').read_text())
    content['categories'] = [dict(id=n, name=name) for n, name in enumerate(CocoDataset.METAINFO['classes'], 1)]
    first = list(content['images'])
    for number in range(len(first), count):
        source = first[number % len(first)]
        name = f'again_{number:05d}.jpg'
        os.link(folder / 'val' / source['file_name'], folder / 'val' / name)
        content['images'].append({**source, 'id': number + 1, 'file_name': name})
    (folder / 'val.json').write_text(json.dumps(content))


def config_of(detector):
    """mmdet's own config of a detector."""
    return get_config(f'mmdet::{DETECTORS[detector]}')


def build_runner(detector, data, work_dir, images, checkpoint=None, hooks=()):
    """A runner of a detector over demo scenes."""
    cfg = config_of(detector)
    cfg.model.backbone.init_cfg = None
    dataset = dict(
        type='CocoDataset',
        data_root=str(data),
        ann_file='val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        indices=images,
        pipeline=cfg.test_dataloader.dataset.pipeline,
    )
    return Runner(
        cfg.model,
        str(work_dir),
        test_dataloader={**cfg.test_dataloader, 'dataset': dataset},
        test_evaluator=dict(type='CocoMetric', ann_file=str(data / 'val.json'), proposal_nums=(1, 10, 100)),
        test_cfg=dict(type='TestLoop'),
        custom_hooks=list(hooks),
        env_cfg=cfg.env_cfg,
        default_scope='mmdet',
        log_level='ERROR',
        load_from=checkpoint if detector == 'YOLOX-nano' else None,
        randomness=dict(seed=0),
        experiment_name=f'{Path(work_dir).name}_{time.time()}',
    )


def measure_test(args):
    found = dict(seconds={}, ratios={})
    for detector in args.detectors:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / 'data'
            # Several batches: of the last one the pictures can only be drawn after it.
            images = args.batches * config_of(detector).test_dataloader.batch_size
            scenes(data, images)
            runner = build_runner(detector, data, Path(folder) / 'work', images, args.checkpoint)
            numbers = iter(range(1000))

            def with_hook(runner=runner, folder=folder, numbers=numbers):
                hook = FeatVizHook(out_dir=f'{folder}/{next(numbers)}', workers=args.workers)
                runner.register_hook(hook)
                runner.test()
                runner.hooks.remove(hook)
                assert 'skipped' not in hook.visualizer.summary(), hook.visualizer.summary()

            taken = in_turns({'without': runner.test, 'with': with_hook}, args.rounds)
        found['seconds'].update({f'{detector} {name}': spent for name, spent in taken.items()})
        found['ratios'][f'{detector} with / without'] = taken['with'][0] / taken['without'][0]
        found['ratios'][f'{detector} with / without, processor'] = taken['with'][1] / taken['without'][1]
    return found


# Memory: each run has a process of its own.


class Watch(Hook):
    """Notes what the process holds after so many images: memory, threads and open files."""

    priority = 'VERY_LOW'

    def __init__(self, at):
        self.at = sorted(at)
        self.images = 0
        self.held = {}

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.images += len(outputs)
        if self.at and self.images >= self.at[0]:
            self.held[self.at.pop(0)] = held()


def held():
    return dict(resident=resident(), threads=threading.active_count(), files=len(os.listdir('/proc/self/fd')))


def resident(what='VmRSS'):
    """Bytes that the process holds; with ``VmHWM`` the most that it ever held.

    Not `getrusage`, whose peak is that of the parent where this was larger.
    """
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024


def child(args):
    """One run, whose memory goes to standard output."""
    kind, way = args.child
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if kind == 'draw':
            set_threads(args.threads)
            case = Case(folder)
            case.ours()
            case.drawn  # noqa: B018  the floor writes them again
            before = resident()
            work = case.draw_featmap if way in REDUCTIONS else getattr(case, way)
            work(*[way] if way in REDUCTIONS else [])
            print(json.dumps(dict(peak=resident('VmHWM') - before)))
            return
        images = args.memory_images if kind == 'YOLOX-nano' else args.batches
        data = Path(folder) / 'data'
        scenes(data, images)
        hooks = [FeatVizHook(out_dir=f'{folder}/out', workers=args.workers)] if way == 'with' else []
        watch = Watch({min(100, images), images})
        runner = build_runner(kind, data, Path(folder) / 'work', images, args.checkpoint, [*hooks, watch])
        before = held()
        runner.test()
        check_pictures(Path(folder) / 'out', images if hooks else 0)
        print(json.dumps(dict(peak=resident('VmHWM'), held=watch.held, before=before, after=held())))


def check_pictures(folder, images):
    """Check that the manifest knows all images, and that each of their pictures is there and readable."""
    manifest = folder / 'manifest.jsonl'
    entries = [json.loads(line) for line in manifest.read_text().splitlines()] if images else []
    assert len({entry['key'] for entry in entries}) == images
    assert all(cv2.imread(str(folder / name)) is not None for entry in entries for name in entry['files'])


def measure_memory(args):
    runs = [('draw', way) for way in ('floor', 'ours', 'recipe', *REDUCTIONS)]
    runs += [(detector, way) for detector in args.detectors for way in ('without', 'with')]
    found = {}
    for kind, way in runs:
        command = [sys.executable, '-m', 'mmdet_featviz', 'benchmark', '--child', kind, way]
        command += ['--batches', str(args.batches), '--memory-images', str(args.memory_images)]
        command += ['--threads', str(args.threads), '--workers', str(args.workers)]
        command += ['--checkpoint', args.checkpoint] if args.checkpoint else []
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, encoding='utf-8')
        found[f'{kind} {way}'] = json.loads(done.stdout.splitlines()[-1])
    megabytes = {name: round(memory['peak'] / MEGABYTE, 1) for name, memory in found.items()}
    for name, memory in found.items():
        if len(memory.get('held', ())) > 1:
            first, last = memory['held'].values()
            megabytes[f'{name}, growth'] = round((last['resident'] - first['resident']) / MEGABYTE, 1)
    for detector in args.detectors:
        above = found[f'{detector} with']['peak'] - found[f'{detector} without']['peak']
        megabytes[f'{detector}: peak with - without'] = round(above / MEGABYTE, 1)
    left = {
        name: {what: [memory[when][what] for when in ('before', 'after')] for what in ('threads', 'files')}
        for name, memory in found.items()
        if 'held' in memory
    }
    return dict(megabytes=megabytes, left=left)


# Growth.


def measure_growth(args):
    """Milliseconds of ours for one image, while one size varies at a time."""
    set_threads(args.threads)
    series = {
        'levels': {n: dict(backbone=[], neck=[(256, 8)] * n) for n in (1, 2, 4, 8, 16)},
        'channels': {c: dict(backbone=[], neck=[(c, 8)]) for c in (64, 256, 1024, 2048)},
        'image width': {
            w: dict(backbone=[], neck=[(256, 8)], image_size=(w * 3 // 4, w)) for w in (320, 768, 1920, 3840)
        },
    }
    found = {}
    for name, sizes in series.items():
        found[name] = {}
        for size, options in sizes.items():
            with tempfile.TemporaryDirectory() as folder:
                case = Case(folder, **options)
                found[name][size] = 1000 * in_turns({'ours': case.ours}, args.rounds)['ours'][0]
    with tempfile.TemporaryDirectory() as folder:
        case = Case(folder)
        found['images'] = {n: 1000 * seconds(lambda n=n: [case.ours() for _ in range(n)])[0] for n in (1, 3, 10, 30)}
    if args.plot is not None:
        plot(found, args.plot)
    return dict(milliseconds=found)


def plot(found, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3), layout='constrained')
    for axes, (name, cost) in zip(figure.subplots(1, len(found)), found.items()):
        axes.plot(list(cost), list(cost.values()), 'o-')
        axes.set(xlabel=name, ylabel='ms' if name == next(iter(found)) else '', ylim=(0, None))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(str(path), dpi=100)


# The tables.


def circumstances(args):
    return dict(
        mmdet_featviz=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        mmdet=mmdet.__version__,
        mmcv=mmcv.__version__,
        mmengine=mmengine.__version__,
        opencv=cv2.__version__,
        numpy=np.__version__,
        cores=os.cpu_count(),
        threads_of_draw=args.threads,
        threads_of_test=os.environ.get('OMP_NUM_THREADS', torch.get_num_threads()),
        workers=args.workers,
        load=os.getloadavg() if hasattr(os, 'getloadavg') else None,
    )


def print_table(title, rows):
    print(f'\n{title}')
    width = max(len(str(row[0])) for row in rows)
    for name, *cells in rows:
        print(f'  {str(name):{width}}  ' + '  '.join(str(cell) for cell in cells))


def verdict(name, value):
    if name not in TARGETS:
        return ''
    bound, from_below = TARGETS[name]
    reached = value >= bound if from_below else value <= bound
    return f'{"at least" if from_below else "at most"} {bound}: {"reached" if reached else "missed"}'


def print_part(part, found):
    if 'seconds' in found:
        rows = [(name, f'{one:9.4f}', f'{two:9.4f}') for name, (one, two) in found['seconds'].items()]
        print_table(f'{part}: median seconds, elapsed and of all processors', rows)
        print_table(f'{part}: ratios', [(n, f'{v:8.3f}', verdict(n, v)) for n, v in found['ratios'].items()])
    elif 'megabytes' in found:
        print_table(f'{part}: megabytes', [(n, f'{v:8.1f}', verdict(n, v)) for n, v in found['megabytes'].items()])
        print_table(f'{part}: threads and open files, before and after', found['left'].items())
    else:
        for name, cost in found['milliseconds'].items():
            print_table(f'{part}: {name}, ms', [(size, f'{spent:8.1f}') for size, spent in cost.items()])


def run_benchmark(args):
    """Measure the parts that the command line names, print tables and write the JSON file."""
    register_all_modules()
    if args.child:
        child(args)
        return
    result = dict(circumstances=circumstances(args))
    print_table('circumstances', result['circumstances'].items())
    measures = dict(draw=measure_draw, test=measure_test, memory=measure_memory, growth=measure_growth)
    for part in args.parts:
        result[part] = measures[part](args)
        print_part(part, result[part])
        if args.out is not None:  # after each part: a long run that is stopped leaves what it has
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=1))
