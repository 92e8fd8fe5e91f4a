"""Demo data: generates the data set of the demo detectors, solid shapes on textured scenes.

Four shapes of 16 to 256 pixels on 640x480 scenes, annotated in COCO format. A scene depends only on its split and its
number, so the same command always gives the same scenes, and a longer split starts with the scenes of a shorter one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterable, Sequence

import cv2
import numpy as np

WIDTH, HEIGHT = 640, 480
MIN_SIZE, MAX_SIZE = 16, 256  # longer side of a shape, in pixels
SPLIT_SEEDS = {'train': 1, 'val': 2}
SUPERSAMPLING = 4  # for smooth edges
# Angles (in turns) and radii of the corners of each shape, inside the unit circle.
SHAPES = {
    'disc': [(k / 48, 1.0) for k in range(48)],
    'square': [(k / 4 + 1 / 8, 1.0) for k in range(4)],
    'triangle': [(k / 3 - 1 / 4, 1.0) for k in range(3)],
    'star': [(k / 10 - 1 / 4, 1.0 if k % 2 == 0 else 0.42) for k in range(10)],
}


def random_color(rng: np.random.Generator) -> np.ndarray:
    """A random color (3,), float32 in 0-255, vivid or dull."""
    hsv = np.uint8([[[rng.integers(180), rng.integers(30, 255), rng.integers(40, 250)]]])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise of several octaves (height, width), with mean 0 and standard deviation 1."""
    total = np.zeros((height, width), np.float32)
    for octave in range(1, 8):
        cells = 2**octave
        grid = rng.standard_normal((cells * 3 // 4 + 1, cells + 1)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) * 0.65**octave
    return (total - total.mean()) / total.std()


def background(rng: np.random.Generator) -> np.ndarray:
    """A textured scene (HEIGHT, WIDTH, 3), float32 in 0-255, without objects."""
    first, second = random_color(rng), random_color(rng)
    mix = 1 / (1 + np.exp(-texture(rng, HEIGHT, WIDTH)))[..., None]
    grain = rng.standard_normal((HEIGHT, WIDTH, 1)).astype(np.float32) * rng.uniform(2, 8)
    return first * mix + second * (1 - mix) + grain


def outline(rng: np.random.Generator, shape: str, size: float) -> np.ndarray:
    """Corners (K, 2) of a slightly rotated shape whose longer side is `size` pixels, with its top left at (0, 0)."""
    turn = rng.uniform(-0.08, 0.08)
    angles, radii = np.array(SHAPES[shape]).T
    corners = np.stack([np.cos((angles + turn) * 2 * np.pi), np.sin((angles + turn) * 2 * np.pi)], 1) * radii[:, None]
    corners -= corners.min(0)
    return corners / corners.max() * size


def paint(rng: np.random.Generator, scene: np.ndarray, corners: np.ndarray) -> None:
    """Paint a shaded shape with smooth edges onto the scene, in place."""
    left, top = np.floor(corners.min(0)).astype(int)
    right, bottom = np.ceil(corners.max(0)).astype(int) + 1
    patch = scene[top:bottom, left:right]
    height, width = patch.shape[:2]
    mask = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    cv2.fillPoly(mask, [np.round((corners - (left, top)) * SUPERSAMPLING).astype(np.int32)], 255)
    mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)[..., None] / np.float32(255)
    behind = patch[mask[..., 0] > 0.5].mean(0)
    color = max((random_color(rng) for _ in range(4)), key=lambda c: np.abs(c - behind).sum())
    shade = texture(rng, height, width)[..., None] * rng.uniform(4, 14)
    patch[:] = patch * (1 - mask) + (color + shade) * mask


def overlaps(box: Sequence[float], others: Iterable[Sequence[float]]) -> bool:
    """Whether a box (x, y, w, h) overlaps any of the others, with a margin of 4 pixels."""
    x, y, w, h = box
    return any(x < ox + ow + 4 and ox < x + w + 4 and y < oy + oh + 4 and oy < y + h + 4 for ox, oy, ow, oh in others)


def make_scene(split: str, index: int) -> tuple[np.ndarray, list[tuple[str, list[float]]]]:
    """Generate a scene.

    Args:
        split: ``train`` or ``val``.
        index: Number of the scene.

    Returns:
        The image (HEIGHT, WIDTH, 3), uint8, and its objects as (class name, [x, y, w, h]).
    """
    rng = np.random.default_rng([SPLIT_SEEDS[split], index])
    scene = background(rng)
    objects = []
    sizes = np.exp(rng.uniform(np.log(MIN_SIZE), np.log(MAX_SIZE), rng.integers(3, 9)))
    for size in sorted(sizes, reverse=True):
        shape = str(rng.choice(list(SHAPES)))
        corners = outline(rng, shape, size)
        width, height = corners.max(0)
        for _ in range(20):  # attempts to find free space; a crowded scene goes without this shape
            x, y = rng.uniform(0, WIDTH - width - 2), rng.uniform(0, HEIGHT - height - 2)
            box = [round(float(v), 2) for v in (x, y, width, height)]
            if not overlaps(box, [other for _, other in objects]):
                paint(rng, scene, corners + (x, y))
                objects.append((shape, box))
                break
    return np.clip(np.round(scene), 0, 255).astype(np.uint8), objects


def make_split(out_dir: Path, split: str, count: int) -> None:
    """Write the images of a split, and its COCO annotation file.

    Args:
        out_dir: Folder of the data set; images are written to ``out_dir/split``, annotations to ``out_dir/split.json``.
        split: ``train`` or ``val``.
        count: Number of images.

    Raises:
        OSError: If an image cannot be written.
    """
    folder = out_dir / split
    folder.mkdir(parents=True, exist_ok=True)
    names = list(SHAPES)
    images, annotations = [], []
    for index in range(count):
        scene, objects = make_scene(split, index)
        file_name = f'scene_{index:04d}.jpg'
        if not cv2.imwrite(str(folder / file_name), scene):
            raise OSError(
                f'{folder / file_name} cannot be written: check that the folder is writable and the disk not full'
            )
        images.append(dict(id=index + 1, file_name=file_name, width=WIDTH, height=HEIGHT))
        for shape, box in objects:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index + 1,
                    category_id=names.index(shape) + 1,
                    bbox=box,
                    area=round(box[2] * box[3], 2),
                    iscrowd=0,
                )
            )
    categories = [dict(id=number, name=name) for number, name in enumerate(names, 1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (out_dir / f'{split}.json').write_text(json.dumps(content), encoding='utf-8')
