"""Drawing case: feature maps of one image, and several ways to draw them."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Sequence

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_featviz.apis.visualizer import FeatureVisualizer

INPUT_SIZE, IMAGE_SIZE = (800, 1067), (576, 768)  # height, width
BACKBONE = [(256, 4), (512, 8), (1024, 16), (2048, 32)]  # channels and stride of C2-C5
NECK = [(256, stride) for stride in (8, 16, 32, 64, 128)]  # P3-P7
REDUCTIONS = ('squeeze_mean', 'select_max')  # of mmengine's draw_featmap


class ConstantFeatures(nn.Module):
    """A module that always returns the same feature maps, for taps to catch as in a detector."""

    def __init__(self, levels: list[Tensor]) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.levels


def smooth_features(channels: int, stride: int, size: tuple[int, int] = INPUT_SIZE) -> Tensor:
    """Random blobs (1, channels, rows, columns), like the maps of a trained network and unlike noise."""
    rows, columns = (-(-side // stride) for side in size)
    coarse = torch.rand(1, channels, max(rows // 6, 2), max(columns // 6, 2))
    return nn.functional.interpolate(coarse, (rows, columns), mode='bilinear').contiguous()


def smooth_image(size: tuple[int, int]) -> np.ndarray:
    """A random image (height, width, 3), uint8, with coarse and fine structure."""
    rng, image = np.random.default_rng(0), np.zeros((*size, 3), np.float32)
    for cells in (4, 16, 64, 256):
        grid = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC) * 180 / cells**0.5
    return np.clip(image + 128, 0, 255).astype(np.uint8)


class DrawingCase:
    """Feature maps of one image, and ways to draw them. All ways write the same number of pictures.

    Args:
        folder: Folder for the image and the pictures.
        backbone: Channels and stride of each level of the backbone.
        neck: Channels and stride of each level of the neck.
        image_size: (height, width) of the image.
    """

    def __init__(
        self,
        folder: str,
        backbone: Sequence[tuple[int, int]] = BACKBONE,
        neck: Sequence[tuple[int, int]] = NECK,
        image_size: tuple[int, int] = IMAGE_SIZE,
    ) -> None:
        torch.manual_seed(0)
        self.folder = Path(folder)
        self.model = nn.Module()
        self.model.backbone = ConstantFeatures([smooth_features(*level) for level in backbone])
        self.model.neck = ConstantFeatures([smooth_features(*level) for level in neck])
        self.features = [*self.model.backbone.levels, *self.model.neck.levels]
        self.image = self.folder / 'image.jpg'
        pixels = smooth_image(image_size)
        cv2.imwrite(str(self.image), pixels)
        scale = (INPUT_SIZE[1] / image_size[1], INPUT_SIZE[0] / image_size[0])
        meta = dict(img_path=str(self.image), ori_shape=image_size, img_shape=INPUT_SIZE, scale_factor=scale)
        self.sample = DetDataSample(metainfo=meta)
        # The input shows the image, as the visualizer checks.
        self.inputs = torch.from_numpy(cv2.resize(pixels, INPUT_SIZE[::-1])).permute(2, 0, 1)[None].float()
        self.written = 0
        self.visualizer = FeatureVisualizer(out_dir=str(self.folder / 'ours'), strict=True)
        self.visualizer.open(self.model, image_root=str(self.folder))

    def ours(self) -> None:
        """Draw with this package."""
        with self.visualizer.taps as taps:
            taps.begin(self.inputs, [self.sample])
            self.model.backbone(self.inputs)
            self.model.neck(self.inputs)
        self.visualizer.draw(taps.take())

    def draw_featmap(self, reduction: str) -> None:
        """Draw with mmengine's ``Visualizer.draw_featmap``."""
        from mmengine.visualization import Visualizer

        image = cv2.cvtColor(cv2.imread(str(self.image)), cv2.COLOR_BGR2RGB)
        for number, feature in enumerate(self.features):
            drawn = Visualizer.draw_featmap(feature[0], image, channel_reduction=reduction, alpha=0.4)
            self._write(f'{reduction}_{number}.jpg', cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))

    def recipe(self) -> None:
        """Draw as published in many blogs; improved by reading the image once and drawing figures without margins."""
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
            blended = 0.4 * cv2.applyColorMap(np.uint8(255 * heat), cv2.COLORMAP_JET) + image
            figure = plt.figure(figsize=(width / 100, height / 100), dpi=100)
            plt.axes([0, 0, 1, 1]).axis('off')
            plt.imshow(np.clip(blended, 0, 255).astype(np.uint8)[..., ::-1])
            self.written += 1
            plt.savefig(str(self.folder / f'{self.written}_recipe_{number}.png'))
            plt.close(figure)

    def floor(self, reduce: Callable[[Tensor], Tensor] = lambda feature: feature.amax(1)) -> None:
        """Do only what no way can avoid: decode the image, read each feature map, encode and write the pictures.

        Args:
            reduce: How a feature map is read; a faster reduction lowers the floor.
        """
        cv2.imread(str(self.image))
        for number, feature in enumerate(self.features):
            reduce(feature)
            self._write(f'floor_{number}.jpg', self.drawn[number])

    @property
    def drawn(self) -> list[np.ndarray]:
        """The pictures that :meth:`ours` wrote; read once."""
        if not hasattr(self, '_drawn'):
            files = sorted(file for file in (self.folder / 'ours' / 'image').glob('*.jpg') if 'pass' not in file.name)
            self._drawn = [cv2.imread(str(file)) for file in files]
            assert len(self._drawn) == len(self.features)
        return self._drawn

    def _write(self, name: str, picture: np.ndarray) -> None:
        """Write a picture as a new file, as ours does: replacing a file takes some file systems longer."""
        done, encoded = cv2.imencode('.jpg', picture)
        assert done
        self.written += 1
        (self.folder / f'{self.written}_{name}').write_bytes(encoded.tobytes())
