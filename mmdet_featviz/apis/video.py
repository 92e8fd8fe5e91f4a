"""Video: draws the frames of a video with the heat of each level, and what detections rest on, next to them."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple, Sequence

import cv2
import numpy as np
from mmdet.apis import inference_detector
from torch import nn

from mmdet_featviz.apis.inference import batch_of_one, build_pipeline
from mmdet_featviz.apis.visualizer import FeatureVisualizer
from mmdet_featviz.capture.detector import unwrap_detector
from mmdet_featviz.capture.nested_passes import nested_passes
from mmdet_featviz.capture.reductions import PCA
from mmdet_featviz.explanation.explanation import LOOK, Explanation
from mmdet_featviz.explanation.targets import NoTargetError
from mmdet_featviz.runs.component_fit import fit_components
from mmdet_featviz.structures.boxes import Boxes, class_names
from mmdet_featviz.structures.placement import identity_placement
from mmdet_featviz.structures.snapshot import Level, Snapshot
from mmdet_featviz.visualization.sheets import TEXT_COLOR, add_colorbar, shrink_to_tile
from mmdet_featviz.visualization.text import CAPTION_SIZE, Text, draw_texts, line_height, wrap_lines
from mmdet_featviz.visualization.unseen_pixels import unseen_caption
from mmdet_featviz.visualization.views import PlacedLevel, Views

TILE_SIZE = 640  # for which captions have their usual size
WIDEST_NUMBER = '-0.000'  # at color bars, for which there is room in each frame


class _Tile(NamedTuple):
    """A picture with what is said of it: lines above, and the values of its colors if it has any."""

    caption: str
    picture: np.ndarray
    limits: tuple[float, float] | None = None


class FrameDrawer:
    """Draws one picture per frame: the frame itself, and the heat of each level over it, as tiles.

    With ``reduction='pca'``, the components are those of the first frame, for all frames.

    If the visualizer explains detections, one more tile shows what they rest on: the largest heat of all of them, each
    divided by its own maximum.

    Args:
        model: The detector.
        visualizer: A visualizer with taps on the detector.
        levels: Names of the levels to draw; ``*`` matches any characters. None draws all.
        tile_size: Longer side of each tile, in pixels.
        direction: ``horizontal`` puts the tiles side by side, ``vertical`` one below the other.
        with_frame: Whether the first tile is the plain frame.

    Raises:
        ValueError: If the detector lacks a layer or a class to explain.
    """

    def __init__(
        self,
        model: nn.Module,
        visualizer: FeatureVisualizer,
        levels: Sequence[str] | None = None,
        tile_size: int = TILE_SIZE,
        direction: str = 'horizontal',
        with_frame: bool = True,
    ) -> None:
        self.model = model
        self.visualizer = visualizer
        self.levels = levels or ('*',)
        self.tile_size = tile_size
        self.direction = direction
        self.with_frame = with_frame
        self._pipeline = build_pipeline(model, of_arrays=True)
        self._views = Views(visualizer.style)
        self._explained = Views(replace(visualizer.style, **LOOK))
        if visualizer.explanations is not None:
            names = class_names(getattr(model, 'dataset_meta', None))
            visualizer.explanations.check(unwrap_detector(model), names)

    def draw(self, frame: np.ndarray) -> np.ndarray:
        """Predict on a frame, and return its picture.

        Args:
            frame: (H, W, 3), BGR.

        Raises:
            ValueError: If `levels` match no level.
        """
        with nested_passes(), self.visualizer.taps as taps:
            result = inference_detector(self.model, frame, self._pipeline)
        passes = taps.take()[:1]
        (snapshot,) = self.visualizer.snapshots(passes, 0, result, array=frame)
        if self._views.components is None:
            is_pca = self.visualizer.reduction_name == PCA
            components = fit_components(lambda: [snapshot], self._views.style) if is_pca else {}
            self._views = Views(self._views.style, components=components)
        tiles = [self._tile('frame', frame, snapshot)] if self.with_frame else []
        placed = self._views.place(snapshot)
        for shown in self._select_levels(placed):
            limits, level = self._views.limits_of(shown, placed), shown.level
            picture = self._views.paint_level(shown, limits, frame)
            caption = ', '.join([f'{level.name}, stride {level.stride_text}', *unseen_caption(shown.seen)])
            values = limits if shown.colors is None else None  # principal components have no values
            tiles.append(self._tile(caption, picture, snapshot, values))
        if self.visualizer.explanations is not None:
            data = batch_of_one(self._pipeline, frame)
            try:
                explained = self.visualizer.explain_snapshots({0: snapshot}, data, [result], passes[0].features)[0]
            except NoTargetError:
                explained = []
            tiles.append(self._explanation_tile(frame, snapshot, explained))
        return self._join(tiles)

    def _tile(
        self,
        caption: str,
        picture: np.ndarray,
        snapshot: Snapshot,
        limits: tuple[float, float] | None = None,
        views: Views | None = None,
    ) -> _Tile:
        """Scale a picture to a tile and draw boxes on it, with lines of the same width in every video."""
        tile = shrink_to_tile(picture, self.tile_size)
        tile = (views or self._views).draw_boxes(tile, snapshot, len(tile) / len(picture))
        return _Tile(caption, tile, limits)

    def _explanation_tile(self, frame: np.ndarray, snapshot: Snapshot, explained: Sequence[Explanation]) -> _Tile:
        """The heat of all explained detections, and their boxes; cold and without boxes if there are none."""
        size, views, request = snapshot.placement.image_size, self._explained, self.visualizer.explanations
        heat = np.zeros(size, np.float32)
        for heatmap in (one.heatmap for one in explained):
            np.maximum(heat, heatmap / (heatmap.max() or 1.0), out=heat)
        level = Level('explanation', 0, 1, (1.0, 1.0), heat)
        placed = replace(
            views.place_level(level, identity_placement(size, size)),
            seen=snapshot.placement.seen,
        )
        boxes = [one.snapshot.boxes for one in explained]
        of_all = replace(snapshot, boxes=_joined(boxes)) if boxes else replace(snapshot, boxes=None)
        limits = views.limits_of(placed, [placed])
        picture = views.paint(heat, placed.grid, limits, placed.seen, frame)
        caption = f'what the {request.of} of detections rests on, {request.method}'
        caption = ', '.join([caption, *unseen_caption(placed.seen)])
        return self._tile(caption, picture, of_all, limits, views)

    def _select_levels(self, placed: Sequence[PlacedLevel]) -> list[PlacedLevel]:
        names = [level.level.name for level in placed]
        selected = [
            level for level, name in zip(placed, names) if any(fnmatchcase(name, pattern) for pattern in self.levels)
        ]
        if not selected:
            raise ValueError(f'--levels {" ".join(self.levels)} matches no level: choose from {", ".join(names)}')
        return selected

    def _join(self, tiles: Sequence[_Tile]) -> np.ndarray:
        """Join tiles and their captions into one picture of even height and width, as video codecs require."""
        size = round(CAPTION_SIZE * max(1.0, self.tile_size / TILE_SIZE))
        pictures = [self._with_colorbar(tile) for tile in tiles]
        is_column = self.direction == 'vertical'
        if is_column:
            width = max(picture.shape[1] for picture in pictures)
            pictures = [_widened(picture, width) for picture in pictures]
        captions = [wrap_lines([tile.caption], picture.shape[1] - 2, size) for tile, picture in zip(tiles, pictures)]
        most = max(map(len, captions))
        captioned = []
        for lines, picture in zip(captions, pictures):
            height = (len(lines) if is_column else most) * line_height(size) + 4
            texts = [Text(line, (0, 2 + k * line_height(size)), size, TEXT_COLOR) for k, line in enumerate(lines)]
            label = draw_texts(np.full((height, picture.shape[1], 3), 255, np.uint8), texts)
            captioned.append(np.concatenate([label, picture]))
        picture = np.concatenate(captioned, axis=0 if is_column else 1)
        height, width = picture.shape[:2]
        return cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)

    def _with_colorbar(self, tile: _Tile) -> np.ndarray:
        """Add a color bar to a tile if the style asks for it, as wide in each frame whatever its numbers."""
        if not self._views.style.colorbar or tile.limits is None:
            return tile.picture
        add = partial(add_colorbar, tile.picture, self._views.style.table, room=WIDEST_NUMBER)
        barred, own, width = add(tile.limits), tile.picture.shape[1], add((0.0, 0.0)).shape[1]
        if barred.shape[1] == width:
            return barred
        bar = cv2.resize(barred[:, own:], (width - own, len(barred)), interpolation=cv2.INTER_AREA)
        return np.concatenate([tile.picture, bar], axis=1)


def _joined(boxes: Sequence[Boxes]) -> Boxes:
    parts = ([getattr(one, name) for one in boxes] for name in ('corners', 'labels', 'scores'))
    return Boxes(*map(np.concatenate, parts))


def _widened(picture: np.ndarray, width: int) -> np.ndarray:
    """Add white on the right of a picture."""
    return cv2.copyMakeBorder(picture, 0, 0, 0, width - picture.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255))
