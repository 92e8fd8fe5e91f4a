"""Error tables: the detection errors that the evaluations of a run found, by image."""

from __future__ import annotations

import logging
import re
from typing import Sequence

from mmengine.logging import print_log

from mmdet_featviz.evaluation.error_records import ErrorRecord
from mmdet_featviz.evaluation.saved_errors import NO_ERRORS, read_errors
from mmdet_featviz.report.metric_history import order_by_time
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.runs.run_info import TEST
from mmdet_featviz.runs.storage import get_storage
from mmdet_featviz.structures.boxes import class_names
from mmdet_featviz.structures.snapshot import Snapshot

TABLE = re.compile(r'(?:(.+)/)?errors[^/]*\.csv', re.DOTALL)  # of the metric's prefix: errors.csv, errors_low.csv


class ErrorTables:
    """The errors of a run, one record per image and evaluation. A table that cannot be read counts as none.

    Args:
        run: The run.

    Attributes:
        unreadable: Names of the tables that cannot be read.
        latest: The records of the last evaluation that has a table; empty without one.
        evaluation: The folder of that evaluation; ``test`` for a test.
    """

    def __init__(self, run: Run) -> None:
        self.unreadable: list[str] = []
        self._records: dict[str, dict[str, ErrorRecord]] = {}  # by folder and image
        self.latest: list[ErrorRecord] = []
        self.evaluation = ''
        store, names = get_storage(run.root), class_names(run.info.get('dataset_meta'))
        tables = tables_by_folder(run.evaluation_files)
        for folder in order_by_time(folder or TEST for folder in tables):
            key = '' if folder == TEST else folder
            try:
                records = read_errors(store.read(tables[key]), names)
            except Exception as error:  # each file backend raises errors of its own
                message = f'{tables[key]} cannot be read: {error}. Its errors are not in the report.'
                print_log(message, 'current', logging.WARNING)
                self.unreadable.append(tables[key])
                continue
            self.latest, self.evaluation = records, folder
            self._records[key] = {record.image: record for record in reversed(records)}

    def of(self, snapshot: Snapshot) -> ErrorRecord | None:
        """The errors of an image in the evaluation that its pass belongs to; None if that has no table."""
        # An image saved in training is a crop, which nothing evaluated.
        return self.of_image(snapshot.folder, snapshot.path) if snapshot.is_file else None

    def of_image(self, folder: str, path: str | None) -> ErrorRecord | None:
        """The same for the image at a path in an evaluation, given by its folder; None for an array."""
        records = self._records.get(folder)
        return None if records is None or path is None else records.get(path) or ErrorRecord(path, NO_ERRORS)


def tables_by_folder(names: Sequence[str]) -> dict[str, str]:
    """The tables of errors among files of a run: {folder of the evaluation: name}.

    Of several metrics it is the shortest name, which is that without a prefix of its own.
    """
    matches = filter(None, map(TABLE.fullmatch, sorted(names, key=len, reverse=True)))
    return {match.group(1) or '': match.group() for match in matches}
