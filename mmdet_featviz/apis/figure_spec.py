"""Figure specification: which images and which columns a figure shows, and how it looks."""

from __future__ import annotations

import difflib
import os
import os.path as osp
from dataclasses import dataclass, field, fields
from typing import Any, Mapping, Sequence

import yaml

from mmdet_featviz.utils.arguments import check_choice, check_names, check_number, check_whole_number
from mmdet_featviz.utils.messages import one_line
from mmdet_featviz.visualization.box_drawing import LABELS
from mmdet_featviz.visualization.figure_layout import SHARES, SMALLEST_TEXT, check_fonts
from mmdet_featviz.visualization.style import COLOR_OPTIONS, Style

BOXES = {'gt': 'ground truth', 'pred': 'predictions', 'both': 'ground truth and predictions'}  # with their names
EXPLAIN = 'explain'
STYLE = (*COLOR_OPTIONS, 'score_thr', 'classes')  # options of Style that a figure has


@dataclass(frozen=True)
class RowSpec:
    """A row of a figure: one image.

    Args:
        image: Its key, as in the folder of the run.
        name: Text on the left; a line end breaks it. Default: none.
        crop: Left, top, right and bottom of the part that is shown, in pixels of the image. Default: all of it.
        zoom: The part that is also shown enlarged, in a corner of each picture. Default: none.
        explanation: Which explanation of the image is shown, by the name of its files; ``*`` matches any characters.
            Default: the first.
    """

    image: str
    name: str = ''
    crop: Sequence[float] | None = None
    zoom: Sequence[float] | None = None
    explanation: str = '*'

    def __post_init__(self) -> None:
        _check_texts(self, 'image', 'name', 'explanation')
        for option in ('crop', 'zoom'):
            _check_corners(option, getattr(self, option))


@dataclass(frozen=True)
class ColumnSpec:
    """A column of a figure: what is shown of each image.

    Args:
        show: ``image``, ``gt`` (ground truth), ``pred`` (predictions), ``both``, the name of a level such as
            ``neck_0`` or ``bbox_head.merged_scores_0``, or ``explain`` (an explanation).
        run: Folder of the run that it is from. Default: the run of the figure.
        name: Text above; a line end breaks it. Default: what is shown.
        boxes: Boxes over the heat of a level: ``gt``, ``pred`` or ``both``. Default: none; over an explanation, the
            explained box.
        explanation: For ``explain``, which one, by the name of its files, such as ``*.odam``. Default: the first.
    """

    show: str
    run: str | None = None
    name: str | None = None
    boxes: str | None = None
    explanation: str = '*'

    def __post_init__(self) -> None:
        _check_texts(self, 'show', 'explanation')
        for option in ('run', 'name'):
            if getattr(self, option) is not None:
                _check_texts(self, option)
        if self.boxes is not None:
            check_choice('boxes', self.boxes, tuple(BOXES))
            if self.show in BOXES or self.show == 'image':
                raise ValueError(f'boxes has no effect on show={self.show!r}: it is for levels and explanations')

    @property
    def title(self) -> str:
        """The text above the column."""
        return self.name if self.name is not None else BOXES.get(self.show, self.show)


@dataclass(frozen=True)
class FigureSpec:
    """A figure: images as rows, pictures of them as columns.

    Args:
        rows: The images: keys, or mappings with the arguments of :class:`RowSpec`.
        columns: What is shown of each: words, or mappings with the arguments of :class:`ColumnSpec`.
        run: Folder of the run that columns without a run of their own are from.
        width: Width in mm: 88 is one column of many journals, 180 two.
        dpi: Resolution of the pictures, and of a PNG file, in pixels per inch, 50 to 2400.
        font: Font family, or several: a letter is taken from the first that has it.
        font_size: Size of names in points, at least 6. Ticks and labels are one point smaller, and at least 6.
        share: Which pictures share a range of values and a color bar: ``tile`` (none), ``row``, ``column`` or
            ``figure``. ``auto`` is ``row`` where all maps can be compared: the same level or kind of explanation, from
            the same config and reduction; otherwise ``column``.
        colorbar: Whether to draw color bars.
        labels: Text at boxes: ``full`` (class and score), ``class`` or ``none``.
        style: Options of :class:`mmdet_featviz.Style` that change the heat and which boxes are shown: ``normalize``,
            ``percentiles``, ``border``, ``colormap``, ``alpha``, ``blend``, ``interpolation``, ``score_thr``,
            ``classes``. Ranges are those of the whole image, also where it is cropped; that of an explanation is from
            zero to its largest value.

    Raises:
        TypeError, ValueError: If an argument has another type or value.
    """

    rows: Sequence[RowSpec | str | Mapping]
    columns: Sequence[ColumnSpec | str | Mapping]
    run: str | None = None
    width: float = 180
    dpi: int = 300
    font: Sequence[str] | str = 'DejaVu Sans'
    font_size: float = 7
    share: str = 'auto'
    colorbar: bool = True
    labels: str = 'full'
    style: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def assign(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        assign('rows', _parse_all('rows', self.rows, RowSpec, 'image'))
        assign('columns', _parse_all('columns', self.columns, ColumnSpec, 'show'))
        check_number('width', self.width, 20, 1000)
        check_number('dpi', check_whole_number('dpi', self.dpi, 50), 50, 2400)
        assign('font', check_names('font', self.font))
        check_fonts(self.font)
        check_number('font_size', self.font_size, SMALLEST_TEXT, 72)
        check_choice('share', self.share, ('auto', *SHARES))
        check_choice('labels', self.labels, LABELS)
        if not isinstance(self.colorbar, bool):
            raise TypeError(f'colorbar must be true or false, but is {self.colorbar!r}')
        if not isinstance(self.style, Mapping):
            raise TypeError(f'style must be options such as colormap: magma, but is {self.style!r}')
        _check_keys('style', self.style, STYLE)
        Style(**self.style)
        for column in self.columns:
            if column.run is None and self.run is None:
                raise ValueError(
                    f'no run is named for the column {column.title!r}: add run: FOLDER to it or to the figure'
                )


def parse_figure(spec: FigureSpec | Mapping | str | os.PathLike) -> FigureSpec:
    """Return the specification of a figure that is given as such, as a mapping, or as the path of a YAML file.

    Raises:
        OSError: If the file cannot be read.
        TypeError, ValueError: If it is no YAML, or holds something else than :class:`FigureSpec` takes.
    """
    if isinstance(spec, FigureSpec):
        return spec
    if not isinstance(spec, (str, os.PathLike)):
        return _parse('the figure', spec, FigureSpec)
    with open(spec, encoding='utf-8') as file:
        try:
            text = file.read()
            has_aliases = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
            content = None if has_aliases else yaml.safe_load(text)  # mmengine's loader would run what a file names
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f'{spec} is no YAML: {one_line(error)}') from error
    if has_aliases:  # a few lines of them can stand for more than the memory holds
        raise ValueError(f'{spec} has an alias such as *name: write out what it stands for')
    try:
        return _parse('the file', content, FigureSpec)
    except (TypeError, ValueError) as error:
        raise type(error)(f'{osp.basename(spec)}: {error}') from error


def _parse_all(argument: str, values: Any, kind: type, short: str) -> tuple:
    """Parse a list whose entries are specifications, mappings, or text that stands for one argument."""
    if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence) or not values:
        raise TypeError(f'{argument} must be a list with at least one entry, but is {values!r}')
    return tuple(
        value if isinstance(value, kind) else _parse(f'an entry of {argument}', _expand(value, short), kind)
        for value in values
    )


def _expand(value: Any, short: str) -> Any:
    return {short: value} if isinstance(value, str) else value


def _parse(place: str, value: Any, kind: type) -> Any:
    """Build a specification from a mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(f'{place} must have options such as {fields(kind)[0].name}, but is {value!r}')
    _check_keys(place, value, [option.name for option in fields(kind)])
    try:
        return kind(**value)
    except TypeError as error:
        needed = [option.name for option in fields(kind)[: 2 if kind is FigureSpec else 1]]
        missing = [name for name in needed if name not in value]
        if not missing:
            raise
        raise ValueError(f'{place} lacks {" and ".join(missing)}') from error


def _check_keys(place: str, value: Mapping, known: Sequence[str]) -> None:
    for key in value:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1) or known
            raise ValueError(f'{place} has an unknown option {key!r}: use {", ".join(close)}')


def _check_texts(spec: Any, *options: str) -> None:
    for option in options:
        value = getattr(spec, option)
        if not isinstance(value, str):
            raise TypeError(f'{option} must be text, but is {value!r} (in YAML, put it in quotes)')


def _check_corners(option: str, corners: Any) -> None:
    """Check left, top, right and bottom of a part of an image."""
    if corners is None:
        return
    if isinstance(corners, str) or not isinstance(corners, Sequence) or len(corners) != 4:
        raise TypeError(f'{option} must be four numbers: left, top, right, bottom in pixels, but is {corners!r}')
    for side in corners:
        check_number(option, side)
    left, top, right, bottom = corners
    if not (left < right and top < bottom):
        raise ValueError(f'{option}={list(corners)}: left, top, right, bottom; left and top are the smaller numbers')


def figure_of_options(runs: Sequence[str], images: Sequence[str], shows: Sequence[str], **options: Any) -> FigureSpec:
    """Return a figure with a column for each word, and for maps one for each run.

    Args:
        runs: Folders of the runs.
        images: Image keys.
        shows: What the columns show, as in :class:`ColumnSpec`.
        **options: Further arguments of :class:`FigureSpec`.
    """
    names = [osp.basename(osp.normpath(run)) for run in runs]
    names = names if len(set(names)) == len(names) else runs
    columns = []
    for show in shows:
        if len(runs) == 1 or show in ('image', 'gt'):
            columns.append(ColumnSpec(show, runs[0]))
        else:
            columns += [ColumnSpec(show, run, f'{name}\n{BOXES.get(show, show)}') for run, name in zip(runs, names)]
    return FigureSpec(images, columns, **options)
