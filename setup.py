import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / 'mmdet_featviz'


def add_mim_files():
    """Put configs and tools into the package, where mim and mmengine look for them.

    Links keep an editable install up to date; where links are not to be had (Windows), and in a source distribution,
    which carries copies already, the files themselves lie there.
    """
    target = PACKAGE / '.mim'
    target.mkdir(exist_ok=True)
    for name in ('configs', 'tools', 'model-index.yml'):
        source, link = ROOT / name, target / name
        if link.exists():
            continue
        if link.is_symlink():  # it points nowhere
            link.unlink()
        try:
            os.symlink(Path('..', '..', name), link, target_is_directory=source.is_dir())
        except OSError:
            (shutil.copytree if source.is_dir() else shutil.copy)(source, link)


def requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


add_mim_files()
setup(
    name='mmdet-featviz',
    version=re.search(r"'(.+)'", (PACKAGE / 'version.py').read_text(encoding='utf-8')).group(1),
    description='Heatmaps of what an mmdetection detector responds to, drawn while it runs',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='object detection, feature map, heatmap, visualization, mmdetection',
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Visualization',
    ],
    packages=find_packages(include=['mmdet_featviz*']),
    # An editable install is this folder on sys.path. The import hook that it is otherwise comes too late where a script
    # runs beside a clone, whose folder Python takes for a package of the same name.
    options={'editable_wheel': {'mode': 'compat'}},
    entry_points={'console_scripts': ['featviz = mmdet_featviz.cli:main']},
    include_package_data=True,
    python_requires='>=3.8',
    install_requires=requirements('runtime'),
    extras_require={
        'mim': requirements('mminstall'),
        'coverage': requirements('coverage'),
        'video': requirements('video'),
        'umap': requirements('umap'),
        'tests': requirements('tests') + requirements('coverage'),
    },
)
