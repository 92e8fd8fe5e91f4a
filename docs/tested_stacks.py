"""Write the row of a test run into the tables of tested stacks. `make test-oldest RECORD=1` runs this after the tests:

python docs/tested_stacks.py test-oldest work_dirs/tests/test-oldest.xml

The versions are those of the Python that runs it, the counts are those of the JUnit file that pytest wrote.
"""

import platform
import sys
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

PAGES = sorted(Path(__file__).parent.glob('*/tested_stacks.md'))
MODULES = ('torch', 'mmdet', 'mmcv', 'mmengine', 'numpy', 'cv2', 'PIL')


def versions():
    """Versions of Python and of the modules, without the build of torch (+cpu)."""
    return [platform.python_version(), *(import_module(name).__version__.partition('+')[0] for name in MODULES)]


def read_run(path):
    """Date of a run, and how many tests passed and were skipped.

    Raises:
        SystemExit: If a test failed, or none passed.
    """
    suite = ElementTree.parse(str(path)).getroot().find('testsuite')
    tests, failures, errors, skipped = (int(suite.get(name)) for name in ('tests', 'failures', 'errors', 'skipped'))
    passed = tests - failures - errors - skipped
    if failures or errors or not passed:
        raise SystemExit(f'{path}: {failures + errors} tests failed, {passed} passed: not a row of the table')
    return [suite.get('timestamp')[:10], str(passed), str(skipped)]


def with_row(page, name, cells):
    """The text of a page with the row of a run, in place of an earlier one; rows are sorted by the run's name."""
    row = f'| `make {name}` | {" | ".join(cells)} |'
    lines = page.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith('| ---')) + 1
    end = next((number for number in range(start, len(lines)) if not lines[number].startswith('|')), len(lines))
    others = [line for line in lines[start:end] if not line.startswith(f'| `make {name}` |')]
    return '\n'.join([*lines[:start], *sorted([*others, row]), *lines[end:]]) + '\n'


def main(name, path):
    cells = [*versions(), *read_run(path)]
    for page in PAGES:
        page.write_text(with_row(page.read_text(encoding='utf-8'), name, cells), encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
