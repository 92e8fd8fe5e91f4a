"""Principal components: the leading components of a level over many images. The first three are drawn as colors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmdet_featviz.structures.compact_features import CompactFeatures

COMPONENTS = 16
COLORS = 3  # red, green and blue
DEVIATIONS = 2.0  # from the mean to the darkest and to the brightest color


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """The 16 leading principal components of a level.

    Attributes:
        mean: (C,) float64: mean of all cells.
        axes: (16, C) float64: orthonormal directions of the largest variance; of each, the entry with the largest
            absolute value is positive. Zero beyond the number of channels.
        variances: (16,) float64: variance along each.
        shares: (16,) float64: the same as shares of the variance of all channels; 0 in a constant level.
        foreground: Components of all cells, if these are those of the foreground only. A cell is foreground if its
            first component is positive.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    shares: np.ndarray
    foreground: PrincipalComponents | None = None

    def scores(self, features: CompactFeatures, count: int = COMPONENTS) -> np.ndarray:
        """The first components (count, rows, columns) of each cell, float64; NaN for cells that are not finite."""
        axes = self.axes[:count]
        scores = np.tensordot(axes @ features.basis.T.astype(np.float64), features.scores, 1)
        return scores + (axes @ (features.mean - self.mean))[:, None, None]

    def significant_scores(self, features: CompactFeatures) -> np.ndarray:
        """All components (16, rows, columns) of each cell, float64, without what is only rounding.

        Zero are components without variance, and cells that are no farther from the mean than the rounding of the
        float32 values in which the features were saved. NaN for cells that are not finite.
        """
        scores = self.scores(features) * (self.variances > 0)[:, None, None]
        rounding = 1e-6 * np.sqrt(max(np.square(self.mean).max(), self.variances[0]))
        return np.where(np.abs(scores).max(0) <= rounding, 0, scores)

    def is_foreground(self, features: CompactFeatures) -> np.ndarray:
        """Which cells (rows, columns) have a positive first component."""
        return self.scores(features, 1)[0] > 0

    def units(self, features: CompactFeatures) -> np.ndarray:
        """The first three components (3, rows, columns) float32: two standard deviations around the mean are 0 to 1.

        NaN for cells that are not finite or not foreground.
        """
        variances = self.variances[:COLORS]
        deviations = np.where(variances > 0, np.sqrt(variances), np.inf)[:, None, None]
        scaled = self.scores(features, COLORS) / (2 * DEVIATIONS * deviations) + 0.5
        if self.foreground is not None:
            scaled[:, ~self.foreground.is_foreground(features)] = np.nan
        return scaled.astype(np.float32)


class ComponentFit:
    """Finds the principal components of a level; memory does not grow with the number of images.

    Counts, sums and products of all channels are added up in float64 around the mean of the first image, so that large
    means do not cost precision.
    """

    def __init__(self) -> None:
        self._cells, self._squares = 0, 0.0
        self._origin = self._sum = self._products = None
        self._edge_cells, self._edge_sum = 0, 0.0

    def add(
        self, features: CompactFeatures, norms: np.ndarray, chosen: np.ndarray, is_edge: np.ndarray | None = None
    ) -> None:
        """Add the chosen cells of an image.

        Args:
            features: Its features.
            norms: (rows, columns): norms of the whole features, from which the shares of the variance follow.
            chosen: (rows, columns) bool.
            is_edge: (rows, columns) bool: those along the sides of the image, for :meth:`components`.
        """
        if self._origin is None:
            channels = len(features.mean)
            self._origin = features.mean.astype(np.float64)
            self._sum, self._products = np.zeros(channels), np.zeros((channels, channels))
        chosen = chosen & np.isfinite(features.scores[0])
        basis, shift = features.basis.astype(np.float64), features.mean - self._origin
        scores = features.scores[:, chosen].astype(np.float64)
        cells, total = scores.shape[1], scores.sum(1) @ basis
        self._cells += cells
        self._squares += np.square(norms[chosen].astype(np.float64)).sum()
        self._sum += total + cells * shift
        cross = np.outer(total, shift)
        self._products += basis.T @ (scores @ scores.T) @ basis + cross + cross.T + cells * np.outer(shift, shift)
        if is_edge is not None:
            edge = features.scores[:, chosen & is_edge].astype(np.float64)
            self._edge_cells += edge.shape[1]
            self._edge_sum = self._edge_sum + edge.sum(1) @ basis + edge.shape[1] * shift

    def components(self, foreground: PrincipalComponents | None = None) -> PrincipalComponents | None:
        """The components of all cells that were added; None without any.

        Args:
            foreground: Components of all cells, if those that were added are its foreground.

        If cells along the sides were given, the first component is negative there on average: what lies along the sides
        of images is mostly background.
        """
        if not self._cells:
            return None
        shift = self._sum / self._cells
        variances, axes = np.linalg.eigh(self._products / self._cells - np.outer(shift, shift))
        leading = slice(None, -COMPONENTS - 1, -1)
        kept = variances.clip(0).sum()
        axes, variances = axes.T[leading], variances.clip(0)[leading]
        axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1))
        if self._edge_cells and axes[0] @ (self._edge_sum / self._edge_cells - shift) > 0:
            axes[0] *= -1
        missing = COMPONENTS - len(axes)
        axes, variances = np.pad(axes, ((0, missing), (0, 0))), np.pad(variances, (0, missing))
        # Below the rounding of float32, in which the features were saved, there is no variance.
        rounding = 1e-12 * max(np.square(self._origin + shift).max(), variances[0])
        variances = np.where(variances > rounding, variances, 0)
        mean = self._origin + shift
        total = max(self._squares / self._cells - mean @ mean, kept)  # with what the compact features have lost
        shares = variances / total if variances.any() else np.zeros(COMPONENTS)
        return PrincipalComponents(mean, axes, variances, shares, foreground)
