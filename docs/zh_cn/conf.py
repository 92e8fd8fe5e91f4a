"""Sphinx configuration of the Chinese pages: that of the English ones, in another language."""

import runpy
from pathlib import Path

_english = runpy.run_path(str(Path(__file__).resolve().parents[1] / 'en' / 'conf.py'))
globals().update({name: value for name, value in _english.items() if not name.startswith('_')})

language = 'zh_CN'
html_title = f'mmdet_featviz {_english["version"]} 文档'
