"""Sphinx configuration of the English pages: `make docs`."""

from mmdet_featviz import __version__

project = 'mmdet_featviz'
author = 'mmdet_featviz contributors'
version = release = __version__
html_title = f'mmdet_featviz {__version__}'
language = 'en'

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.mathjax', 'sphinx.ext.napoleon']
myst_heading_anchors = 3
suppress_warnings = ['myst.header']  # the changelog starts each release with the same headings

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented_params'
napoleon_use_ivar = True
napoleon_use_rtype = False
# Types of other libraries, and words before a colon in the docstring of a property, which Napoleon takes for its type.
nitpick_ignore_regex = [(r'py:(class|exc)', r'(?!mmdet_featviz\.).*')]

html_theme = 'furo'
html_show_copyright = False
