"""Dependencies: checks that mmengine, mmcv and mmdet are installed, in versions that work together.

They are not install requirements of this package: OpenMMLab's and OneDL's packages share their module names, and a
requirement on one would overwrite the other.
"""

from __future__ import annotations

import importlib.util
import re

MINIMUM = {'mmengine': (0, 7), 'mmcv': (2, 0), 'mmdet': (3, 0)}
TESTED_SET = 'mmengine==0.10.7 mmcv==2.1.0 mmdet==3.3.0'
REMEDY = f'install the tested set with: pip install --no-build-isolation {TESTED_SET}'


def check_dependencies() -> None:
    """Make sure that mmengine, mmcv with its compiled ops, and mmdet can be used.

    Raises:
        ImportError: If one of them is missing, too old, or incompatible with another; the message names the command
            that installs a working set.
    """
    for name, minimum in MINIMUM.items():
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'mmdet_featviz needs {name}, which is not installed; {REMEDY}')
        try:
            version = importlib.import_module(name).__version__
        except AssertionError as error:  # mmdet checks the versions of mmengine and mmcv
            raise ImportError(f'mmdet_featviz cannot use this {name}: {str(error).rstrip(".")}; {REMEDY}') from error
        if tuple(int(part) for part in re.findall(r'\d+', version)[:2]) < minimum:
            wanted = '.'.join(map(str, minimum))
            raise ImportError(f'mmdet_featviz needs {name} {wanted} or newer, but {version} is installed; {REMEDY}')
    if importlib.util.find_spec('mmcv._ext') is None:
        raise ImportError(
            'mmdet_featviz needs mmcv with its compiled ops, but this mmcv has none (mmcv-lite?): '
            f'run pip uninstall mmcv mmcv-lite, then {REMEDY}'
        )
