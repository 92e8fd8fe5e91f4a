"""Level statistics: figures that show whether a level of features is healthy, and sentences on what is unusual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Sequence

import numpy as np

from mmdet_featviz.structures.grid import Grid
from mmdet_featviz.structures.snapshot import Snapshot, format_stride

MANY_DEAD = 0.5  # of the channels
LOW_RANK = 0.05  # of the largest possible rank
MUCH_AT_EDGE = 2.0  # times the share of the cells
CONSTANT = 1e-12  # variance by mean square


@dataclass(frozen=True)
class LevelStatistics:
    """Figures of one level over the cells of some images; cells of padding only do not count.

    Attributes:
        name: Name of the level, such as ``neck_0``.
        stride: (vertical, horizontal) distance of neighboring cells, in pixels of the network's input.
        channels: Number of channels.
        low: Smallest finite value.
        high: Largest finite value.
        mean: Mean of the finite values.
        dead: Share of the channels that are above zero in no cell.
        effective_rank: ``exp(entropy(p))``, where ``p`` are the singular values, divided by their sum, of the matrix of
            cells by channels without the mean cell (Roy and Vetterli, The effective rank: A measure of effective
            dimensionality, EUSIPCO 2007). 1 to `largest_rank`; 0 if all cells are equal.
        largest_rank: The largest rank that this many cells and channels can have.
        edge_energy: Share of the squared values that is in the outermost cells of the images.
        edge_cells: Share of the cells that these are.
        not_finite: Share of the values that are NaN or infinite. They count for nothing else; where the effective rank
            is found, they are the mean of their channel in the first image.
    """

    name: str
    stride: tuple[float, float]
    channels: int
    low: float
    high: float
    mean: float
    dead: float
    effective_rank: float
    largest_rank: int
    edge_energy: float
    edge_cells: float
    not_finite: float

    @property
    def remarks(self) -> list[str]:
        """One sentence for each unusual figure, with what it may mean."""
        name = self.name
        if self.not_finite == 1:
            return [f'No value of {name} is finite: the training may have diverged.']
        remarks = []
        if self.not_finite:
            remarks.append(
                f'{_percent(self.not_finite)} of the values of {name} are not finite: half precision may have '
                'overflowed, or the training diverged.'
            )
        if not self.effective_rank:
            remarks.append(
                f'{name} is constant: it sees nothing of the image. Weights may be missing, or a layer before it dead.'
            )
            return remarks
        if self.dead >= MANY_DEAD:
            remarks.append(
                f"{_percent(self.dead)} of {name}'s channels never fire (are above zero in no cell): the learning rate "
                'may have been too high, or the images are unlike those of the training.'
            )
        if self.effective_rank < LOW_RANK * self.largest_rank:
            remarks.append(
                f'The effective rank of {name} is {self.effective_rank:.1f} of {self.largest_rank}: its channels '
                'nearly repeat each other, so the features may have collapsed.'
            )
        if self.edge_cells < 0.5 and self.edge_energy > MUCH_AT_EDGE * self.edge_cells:
            remarks.append(
                f'{_percent(self.edge_energy)} of the energy of {name} is in the outermost cells, which are '
                f'{_percent(self.edge_cells)} of all: padding may take part in what it sees.'
            )
        return remarks


class LevelSums:
    """Adds up a level over images, in float64; memory does not grow with their number.

    Args:
        name: Name of the level.
        stride: (vertical, horizontal) distance of neighboring cells.
        channels: Number of channels.
    """

    def __init__(self, name: str, stride: tuple[float, float], channels: int) -> None:
        self.name, self.stride, self.channels = name, stride, channels
        self._values = self._finite = self._cells = self._edge_cells = 0
        self._low, self._high, self._total = np.inf, -np.inf, 0.0
        self._fires = np.zeros(channels, bool)
        self._origin = np.zeros(channels)
        self._sum, self._products = np.zeros(channels), np.zeros((channels, channels))
        self._energy = self._edge_energy = 0.0

    def add(self, features: np.ndarray, covers: np.ndarray, is_edge: np.ndarray) -> None:
        """Add an image.

        Args:
            features: (C, rows, columns).
            covers: (rows, columns) bool: cells that cover part of the image.
            is_edge: (rows, columns) bool: the outermost of these.
        """
        cells, is_edge = features[:, covers].astype(np.float64), is_edge[covers]
        finite = np.isfinite(cells)
        self._values += cells.size
        self._finite += int(finite.sum())
        if not finite.any():
            return
        if not self._cells:
            self._origin = np.where(finite, cells, 0).sum(1) / finite.sum(1).clip(1)
        self._cells += cells.shape[1]
        self._edge_cells += int(is_edge.sum())
        values = cells[finite]
        self._low, self._high = min(self._low, values.min()), max(self._high, values.max())
        self._total += values.sum()
        energy = np.square(np.where(finite, cells, 0)).sum(0)
        self._energy += energy.sum()
        self._edge_energy += energy[is_edge].sum()
        self._fires |= (np.where(finite, cells, 0) > 0).any(1)
        shifted = np.where(finite, cells, self._origin[:, None]) - self._origin[:, None]
        self._sum += shifted.sum(1)
        self._products += shifted @ shifted.T

    def statistics(self) -> LevelStatistics:
        """Return the figures of all images added."""
        count = max(self._cells, 1)
        shift = self._sum / count
        variances = np.linalg.eigvalsh(self._products / count - np.outer(shift, shift)).clip(0)
        is_constant = variances.sum() <= CONSTANT * self._energy / count
        return LevelStatistics(
            self.name,
            tuple(self.stride),
            self.channels,
            float(self._low) if self._cells else 0.0,
            float(self._high) if self._cells else 0.0,
            self._total / max(self._finite, 1),
            float(1 - self._fires.mean()),
            0.0 if is_constant else effective_rank(np.sqrt(variances)),
            min(self.channels, max(self._cells - 1, 1)),
            float(self._edge_energy / self._energy) if self._energy else 0.0,
            self._edge_cells / count,
            1 - self._finite / self._values if self._values else 0.0,
        )


def effective_rank(singular: np.ndarray) -> float:
    """``exp(entropy(p))`` of singular values divided by their sum, as of Roy and Vetterli (EUSIPCO 2007)."""
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


class RunStatistics:
    """Figures of the levels of some images."""

    def __init__(self) -> None:
        self.images = 0
        self._sums: dict[str, LevelSums] = {}

    def add(self, snapshot: Snapshot) -> None:
        """Add the levels of an image that have their whole feature map."""
        self.images += 1
        for level in snapshot.levels:
            if level.raw is None:
                continue
            grid = Grid(level.values.shape, level.stride, snapshot.placement)  # the blocks that the cells cover
            covers = grid.covers_image()
            sums = self._sums.setdefault(level.name, LevelSums(level.name, level.stride, level.channels))
            sums.add(level.raw, covers, covers & ~grid.covers_image(border=1))

    def levels(self) -> list[LevelStatistics]:
        """The figures of each level, in forward order."""
        return [sums.statistics() for sums in self._sums.values()]


COLUMNS = 'level', 'stride', 'channels', 'range', 'mean', 'dead', 'effective rank', 'energy at edge', 'not finite'


def statistics_rows(levels: Iterable[LevelStatistics]) -> list[tuple[str, ...]]:
    """The figures of each level as texts, for the columns `COLUMNS`."""
    return [
        (
            one.name,
            format_stride(one.stride),
            str(one.channels),
            f'{one.low:.4g} to {one.high:.4g}',
            f'{one.mean:.3g}',
            _percent(one.dead),
            f'{one.effective_rank:.1f} of {one.largest_rank}',
            f'{_percent(one.edge_energy)} in {_percent(one.edge_cells)}',
            _percent(one.not_finite),
        )
        for one in levels
    ]


def statistics_table(levels: Sequence[LevelStatistics]) -> str:
    """Format the figures of levels as a table, with the remarks below."""
    rows = [COLUMNS, *statistics_rows(levels)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ['  '.join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    remarks = [remark for one in levels for remark in one.remarks]
    return '\n'.join([*lines, *([''] if remarks else []), *remarks])


def _percent(share: float) -> str:
    """A share in percent; a small one is not rounded to zero."""
    return f'{share:.0%}' if not share or share >= 0.01 else f'{100 * share:.1g}%'
