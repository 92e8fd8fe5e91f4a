"""Dependencies: checks that torch, mmengine, mmcv and mmdet are installed, in versions that work together.

They are not install requirements of this package: OpenMMLab's and OneDL's packages share their module names, and a
requirement on one would overwrite the other. mmcv is compiled for one version of torch, which has to come first.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

MINIMUM = {'torch': (1, 13), 'mmengine': (0, 7), 'mmcv': (2, 0), 'mmdet': (3, 0)}
TESTED_SET = 'mmengine==0.10.7 mmcv==2.1.0 mmdet==3.3.0'
REMEDY = f'install the tested set with: pip install --no-build-isolation {TESTED_SET}'
TORCH_REMEDY = "install it first, because mmcv is compiled for it: pip install 'torch>=1.13'"


def check_dependencies() -> None:
    """Make sure that torch, mmengine, mmcv with its compiled ops, and mmdet can be used.

    Raises:
        ImportError: If one of them is missing, too old, or incompatible with another; the message names the command
            that installs a working set.
    """
    for name, minimum in MINIMUM.items():
        remedy = TORCH_REMEDY if name == 'torch' else REMEDY
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'mmdet_featviz needs {name}, which is not installed; {remedy}')
        try:
            version = importlib.import_module(name).__version__
        except AssertionError as error:  # mmdet checks the versions of mmengine and mmcv
            raise ImportError(f'mmdet_featviz cannot use this {name}: {str(error).rstrip(".")}; {REMEDY}') from error
        if tuple(int(part) for part in re.findall(r'\d+', version)[:2]) < minimum:
            wanted = '.'.join(map(str, minimum))
            raise ImportError(f'mmdet_featviz needs {name} {wanted} or newer, but {version} is installed; {remedy}')
    if importlib.util.find_spec('mmcv._ext') is None:
        raise ImportError(
            'mmdet_featviz needs mmcv with its compiled ops, but this mmcv has none (mmcv-lite?): '
            f'run pip uninstall mmcv mmcv-lite, then {REMEDY}'
        )


def is_command() -> bool:
    """Whether this process is the command ``featviz``."""
    return Path(*sys.argv[:1]).stem == 'featviz'


def require(module: str, purpose: str, requirement: str | None = None) -> None:
    """Make sure that a module which only some tasks need is installed, before such a task begins.

    Args:
        module: Name of the module.
        purpose: What needs it: the subject of the message.
        requirement: What pip installs it by; by default the module's name.

    Raises:
        ImportError: If it is not installed; the message names the command that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'{purpose} needs {module}, which is not installed: run pip install {requirement or module}')
