"""Make the README's pictures again: `python docs/make_images.py YOLOX_NANO_CHECKPOINT`, with scikit-image, selenium,
Chromium and its chromedriver.

Run `make demo` before: its scenes are drawn, too.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import mmdet
import numpy as np
from skimage import data

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / 'docs' / 'images'
NANO = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'yolox' / 'yolox_nano_8xb8-300e_coco.py'
DEMO = ROOT / 'configs' / 'demo' / 'atss_shapes_hp.py'
SCENE = ROOT / 'data' / 'demo' / 'val' / 'scene_0004.jpg'
DEMO_OPTIONS = ['--max-images', 16, '--save', 'maps', '--align', 'corner']
WIDTH = 1200
FIELDS = 'backbone_1', 'neck_2'  # levels of YOLOX-nano


def run(tool, *arguments):
    subprocess.run([sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)], check=True)


def keep(picture, name, width=WIDTH):
    """Save a picture for the README, no wider than that."""
    picture = cv2.imread(str(picture)) if isinstance(picture, Path) else picture
    scale = min(1, width / picture.shape[1])
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    cv2.imwrite(str(IMAGES / f'{name}.jpg'), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])


def video_frame(folder, photo, checkpoint):
    """The middle frame of a pan over the photo."""
    picture = cv2.imread(str(photo))
    writer = cv2.VideoWriter(str(folder / 'pan.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (400, 400))
    for step in range(3):
        writer.write(np.ascontiguousarray(picture[:400, 20 * step : 20 * step + 400]))
    writer.release()
    options = ['--levels', 'backbone_2', 'neck_1', '--align', 'corner', '--boxes', 'pred', '--tile-size', 400]
    run('video_demo.py', folder / 'pan.avi', NANO, checkpoint, '--out', folder / 'heat.avi', *options)
    reader = cv2.VideoCapture(str(folder / 'heat.avi'))
    return [reader.read()[1] for _ in range(2)][1]


def screenshot(page, size=(1280, 860)):
    """A page of a report, once its heat is drawn."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.add_argument('--headless=new')
    options.add_argument('--no-sandbox')
    service = webdriver.ChromeService(shutil.which('chromedriver'))  # or selenium looks for one on the internet
    with webdriver.Chrome(options, service) as browser:
        metrics = dict(width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
        browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
        browser.get(page)
        drawn = (
            "return document.getElementById('pictures').dataset.painted && "
            "[...document.querySelectorAll('.picture img, #grid img')].every((image) => image.complete)"
        )
        WebDriverWait(browser, 30).until(lambda _: browser.execute_script(drawn))
        return cv2.imdecode(np.frombuffer(browser.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)


def report_page(folder):
    """The demo's report, its images sorted by the heat inside their boxes."""
    run('test.py', DEMO, '--featviz-dir', folder / 'run', '--work-dir', folder / 'work', *DEMO_OPTIONS)
    run('report.py', folder / 'run')
    page = (folder / 'run' / 'report' / 'index.html').as_uri()
    return screenshot(f'{page}#image={SCENE.stem}&level=neck_2&sort=gain&down=1')


def print_figure(folder):
    """The worked example of the guide on figures."""
    for name, run_name in (('atss_shapes', 'run_atss'), ('faster_rcnn_shapes', 'run_faster_rcnn')):
        config = DEMO.parent / f'{name}.py'
        options = ['--featviz-dir', folder / run_name, '--work-dir', folder / 'work', '--save', 'maps']
        run('test.py', config, config.with_suffix('.pth'), *options, '--max-images', 4, '--explain', 'targets=top 1')
    command = [sys.executable, '-m', 'mmdet_featviz', 'figure', DEMO.parent / 'figure.yml', '--out', 'figure.png']
    subprocess.run(command, check=True, cwd=folder)
    return folder / 'figure.png'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', type=Path, help="YOLOX-nano for mmdet's yolox_nano_8xb8-300e_coco.py")
    args = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        photo = folder / 'astronaut.png'
        cv2.imwrite(str(photo), data.astronaut()[..., ::-1])
        nano = [photo, NANO, args.checkpoint, '--align', 'corner']
        views = ['panel', 'overlay', 'channels', 'attention', 'maps']
        options = ['--channels', 'top', '8', '--attention-channels', '6', '--boxes', 'pred']
        run('image_demo.py', *nano, '--out-dir', folder / 'nano', '--save', *views, *options)
        drawn = folder / 'nano' / 'astronaut'
        keep(drawn / 'panel.jpg', 'astronaut', 2000)
        keep(drawn / 'neck_1.channels.jpg', 'channels')
        keep(drawn / 'backbone_1.attention.jpg', 'attention')

        scores = ['--save', 'scores', 'panel', '--boxes', 'pred']
        run('image_demo.py', *nano[:3], '--out-dir', folder / 'scores', *scores)
        keep(folder / 'scores' / 'astronaut' / 'panel.jpg', 'scores')

        layers = ['--layers', 'backbone', '--layer-type', 'ConvModule', '--save', 'overview']
        run('image_demo.py', *nano, '--out-dir', folder / 'layers', *layers)
        keep(folder / 'layers' / 'astronaut' / 'overview.jpg', 'overview', 1000)

        again = ['--save', 'overlay', '--levels', 'backbone_2', '--colormap', 'magma', '--colorbar', '--alpha', '0.6']
        run('render.py', folder / 'nano', '--out-dir', folder / 'again', *again)
        keep(folder / 'again' / 'astronaut' / 'backbone_2.jpg', 'colorbar', 420)

        larger = ['--cfg-options', 'test_dataloader.dataset.pipeline.1.scale=(640,640)']
        run('image_demo.py', *nano, '--out-dir', folder / 'larger', '--save', 'maps', '--layers', 'neck', *larger)
        run('compare.py', folder / 'nano', folder / 'larger', '--out-dir', folder / 'compared')
        keep(folder / 'compared' / 'astronaut' / 'compare.jpg', 'compare', 900)
        keep(video_frame(folder, photo, args.checkpoint), 'video')

        run('image_demo.py', SCENE, DEMO, '--out-dir', folder / 'demo', '--save', 'panel')
        keep(folder / 'demo' / SCENE.stem / 'panel.jpg', 'demo', 2000)
        fields = folder / 'fields'
        options = ['--receptive-field', '--image', photo, '--at', '220', '120', '--out-dir', fields]
        subprocess.run([sys.executable, '-m', 'mmdet_featviz', 'layers', NANO, args.checkpoint, *options], check=True)
        levels = [cv2.imread(str(fields / 'astronaut' / f'{name}.receptive_field.jpg')) for name in FIELDS]
        keep(np.hstack(levels), 'receptive_field', 640)
        keep(report_page(folder), 'report', 1280)
        keep(print_figure(folder), 'figure', 1600)


if __name__ == '__main__':
    main()
