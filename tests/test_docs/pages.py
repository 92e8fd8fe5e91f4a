"""Pages of the documentation, and what is in them: fenced blocks, commands, links."""

import ast
import re
import shlex
from dataclasses import dataclass

from conftest import ROOT

FENCE = re.compile(r'^```(\w+)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\]\(([^)\s]+)\)')
SHELL = ('shell', 'bash', 'console', 'sh')


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page that it begins in."""

    language: str
    text: str
    line: int

    @property
    def is_shell(self):
        return self.language in SHELL

    @property
    def commands(self):
        """The commands of a shell block, split into words; comments are dropped, continued lines joined."""
        lines = self.text.replace('\\\n', ' ').splitlines()
        return [words for words in (shlex.split(line, comments=True) for line in lines) if words]

    @property
    def is_config(self):
        """Whether a Python block is a config of mmengine: nothing but assignments of values."""
        values = (ast.Assign, ast.keyword, ast.Dict, ast.List, ast.Tuple, ast.Constant, ast.Name, ast.expr_context)
        parts = [part for node in ast.parse(self.text).body for part in ast.walk(node)]
        calls = [part for part in parts if isinstance(part, ast.Call)]
        plain = all(isinstance(part, (*values, ast.Call)) for part in parts)
        return plain and all(getattr(call.func, 'id', None) == 'dict' for call in calls)

    @property
    def meaning(self):
        """What remains if comments and layout are taken away: equal in all languages of a page."""
        return self.commands if self.is_shell else ast.dump(ast.parse(self.text))


def english_pages():
    """Paths of the pages below the repository, the README first."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'docs' / 'en').rglob('*.md'))
    return ['README.md', *found]


def chinese_pages():
    """The same of the Chinese pages; none while docs/zh_cn does not exist."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'docs' / 'zh_cn').rglob('*.md'))
    return ['README_zh-CN.md', *found] if found else []


def chinese_page(page):
    """Path of the Chinese version of an English page."""
    return 'README_zh-CN.md' if page == 'README.md' else page.replace('docs/en/', 'docs/zh_cn/', 1)


def read_page(page):
    return (ROOT / page).read_text(encoding='utf-8')


def runnable_blocks(page):
    """The shell and Python blocks of a page, from top to bottom."""
    text = read_page(page)
    blocks = [Block(found[1], found[2], text[: found.start()].count('\n') + 1) for found in FENCE.finditer(text)]
    return [block for block in blocks if block.is_shell or block.language == 'python']


def links(page):
    """Targets of the links and pictures of a page, without those in fenced blocks and without URLs."""
    prose = re.sub(r'^```.*?^```$', '', read_page(page), flags=re.MULTILINE | re.DOTALL)
    return [target for target in LINK.findall(prose) if '://' not in target]


def heading_anchors(page):
    """Anchors of the headings of a page, as GitHub and MyST make them."""
    titles = re.findall(r'^#+ (.*)$', re.sub(r'```.*?```', '', read_page(page), flags=re.DOTALL), re.MULTILINE)
    return [re.sub(r'[^\w\- ]', '', title.lower()).strip().replace(' ', '-') for title in titles]
