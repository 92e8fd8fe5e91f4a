"""Chromium: a headless browser for report pages on disk, and the memory of its tab."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet_featviz.utils.dependencies import require

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

NAMES = 'chromium', 'chromium-browser', 'google-chrome'


def start_chromium() -> Chrome:
    """Start a headless Chromium; end it with its method ``quit``.

    Raises:
        ImportError: If selenium is not installed.
        FileNotFoundError: If there is no Chromium, or no driver of it.
    """
    require('selenium', 'a browser')
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    browser = next(filter(None, map(shutil.which, NAMES)), None)
    driver = shutil.which('chromedriver')
    if browser is None or driver is None:
        raise FileNotFoundError('no Chromium with chromedriver (Debian: apt-get install chromium chromium-driver)')
    options = ChromeOptions()
    options.binary_location = browser
    # Only our own pages are opened; containers have no sandbox and little shared memory.
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--force-device-scale-factor=1'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    return Chrome(options=options, service=Service(driver))


def heap_bytes(browser: Chrome) -> int:
    """Bytes that the scripts of the page hold, after garbage is collected."""
    browser.execute_cdp_cmd('HeapProfiler.collectGarbage', {})
    browser.execute_cdp_cmd('Performance.enable', {})
    metrics = browser.execute_cdp_cmd('Performance.getMetrics', {})['metrics']
    return next(int(one['value']) for one in metrics if one['name'] == 'JSHeapUsedSize')


def tab_bytes(browser: Chrome) -> int:
    """Resident bytes of the largest process of the browser that renders a page; Linux only."""
    parents, renderers = {}, {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            status = dict(line.split(':', 1) for line in (folder / 'status').read_text().splitlines())
            command = (folder / 'cmdline').read_bytes()
        except OSError:  # it has ended
            continue
        parents[int(folder.name)] = int(status['PPid'])
        if b'--type=renderer' in command:
            renderers[int(folder.name)] = int(status['VmRSS'].split()[0]) * 1024

    def is_ours(process: int) -> bool:
        while process not in (0, browser.service.process.pid):
            process = parents.get(process, 0)
        return process != 0

    return max(size for process, size in renderers.items() if is_ours(process))
