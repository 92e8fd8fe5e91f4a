"""A small run that is drawn without a runner."""

import cv2
import torch
from conftest import noise
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_featviz import FeatureVisualizer

SIZE = (75, 111)


def draw(model, tmp_path, name='run', count=3, images=True, **options):
    """Draw the feature maps of BrightnessPools for some images scaled by a half.

    Args:
        model: A detector on BrightnessPools.
        tmp_path: Where the images are written.
        name: Output folder in `tmp_path`.
        count: Number of images.
        images: Whether the detector knows the paths of the images; otherwise they are arrays to it.
        **options: Arguments of FeatureVisualizer.
    """
    visualizer = FeatureVisualizer(out_dir=str(tmp_path / name), image_format='png', **options)
    visualizer.open(model, image_root=str(tmp_path), dataset_meta=dict(classes=('猫', 'dog')))
    for number in range(count):
        image, path = noise(*SIZE, seed=number), tmp_path / f'图 {number}.png'
        path.write_bytes(cv2.imencode('.png', image)[1].tobytes())
        half = cv2.resize(image, (SIZE[1] // 2, SIZE[0] // 2)) // (number + 1)
        meta = dict(
            ori_shape=SIZE,
            img_shape=half.shape[:2],
            scale_factor=(half.shape[1] / SIZE[1], half.shape[0] / SIZE[0]),
            img_path=str(path) if images else None,
        )
        result = DetDataSample(metainfo=meta)
        result.pred_instances = InstanceData(
            bboxes=torch.tensor([[20.0, 10, 80, 60]]), labels=torch.tensor([0]), scores=torch.tensor([0.9])
        )
        inputs = torch.from_numpy(half).permute(2, 0, 1)
        with visualizer.taps, torch.no_grad():
            data = model.data_preprocessor(dict(inputs=[inputs], data_samples=[result]))
            model.backbone(data['inputs'])
        visualizer.draw(visualizer.taps.take(), [result])
    visualizer.close()
    return visualizer
