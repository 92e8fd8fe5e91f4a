"""A script of a user whose detector draws by itself, and who never closes it: ``predicting_script.py WAY CONFIG``."""

import os
import sys
import threading

from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmengine.runner import Runner


def main(way, config):
    if way == 'runner':
        Runner.from_cfg(Config.fromfile(config)).test()
        return
    model = init_detector(config, device='cpu')
    folder = Config.fromfile(config).test_dataloader.dataset.data_root
    images = [f'{folder}/images/{number}.png' for number in range(3)]
    if way == 'threads':  # not waited for: the interpreter does so before it ends
        threading.Thread(target=inference_detector, args=(model, images.pop())).start()
    for image in images:
        inference_detector(model, image)
    if way == 'error':
        raise ValueError('an error of the user')
    if way == 'fork' and os.fork() == 0:
        sys.exit()
    if way == 'fork':
        os.wait()


main(*sys.argv[1:])
