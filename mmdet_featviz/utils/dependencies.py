"""The packages below this one: are they there, and of a version that works?

They are no requirements of the distribution, since two stacks carry the same module names (OpenMMLab's and OneDL's) and
a requirement on one would be installed over the other."""

from __future__ import annotations

import importlib.util
import re

MINIMUM = {'mmengine': (0, 7), 'mmcv': (2, 0), 'mmdet': (3, 0)}
TESTED_SET = 'mmengine==0.10.7 mmcv==2.1.0 mmdet==3.3.0'
REMEDY = f'install the tested set with: pip install --no-build-isolation {TESTED_SET}'


def check_dependencies() -> None:
    """Make sure that mmengine, mmcv with its compiled ops, and mmdet can be used.

    Raises:
        ImportError: If one is missing, too old, or does not go with another; says what to install.
    """
    for name, minimum in MINIMUM.items():
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'mmdet_featviz needs {name}, which is not installed; {REMEDY}')
        try:
            version = importlib.import_module(name).__version__
        except AssertionError as error:  # mmdet's own check of the other two
            raise ImportError(f'mmdet_featviz cannot use this {name}: {str(error).rstrip(".")}; {REMEDY}') from error
        if tuple(int(part) for part in re.findall(r'\d+', version)[:2]) < minimum:
            wanted = '.'.join(map(str, minimum))
            raise ImportError(f'mmdet_featviz needs {name} {wanted} or newer, but {version} is installed; {REMEDY}')
    if importlib.util.find_spec('mmcv._ext') is None:
        raise ImportError(
            'mmdet_featviz needs mmcv with its compiled ops, but this mmcv has none (mmcv-lite?): '
            f'run pip uninstall mmcv mmcv-lite, then {REMEDY}'
        )
