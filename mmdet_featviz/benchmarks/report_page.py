"""Report page benchmark: how fast the page of many images opens, scrolls and turns, and the memory of its tab."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from mmdet_featviz.benchmarks.chromium import heap_bytes, start_chromium, tab_bytes
from mmdet_featviz.benchmarks.page_run import write_page_run
from mmdet_featviz.report.builder import Report

MEGABYTE = 1e6
TURNS = 200  # images that are opened one after the other
FRAMES = 300  # while the list scrolls
SPEED = 60  # pixels of each
# Keeps when the large picture has its image and its heat, in milliseconds since the navigation began.
NOTE_DRAWN = """
    (function look() {
      const image = document.querySelector('#pictures .picture img');
      const isDrawn = image && image.complete && image.naturalWidth
        && document.getElementById('pictures').dataset.painted > 0;
      if (isDrawn) window.drawnAt = performance.now();
      else requestAnimationFrame(look);
    })();
"""
# Milliseconds between frames while the list of images scrolls.
SCROLL = """
    const [frames, speed, done] = arguments, grid = document.getElementById('grid'), times = [];
    requestAnimationFrame(function step(now) {
      times.push(now);
      grid.scrollTop += speed;
      if (times.length <= frames) requestAnimationFrame(step);
      else done(times.slice(1).map((time, place) => time - times[place]));
    });
"""
# Milliseconds from a click on "next image" until the heat is painted, again and again.
TURN = """
    const [turns, done] = arguments, times = [];
    const name = () => document.getElementById('name').textContent;
    const place = document.getElementById('pictures');
    (function turn() {
      if (times.length === turns) { done(times); return; }
      const began = performance.now();
      const painted = new MutationObserver(() => {
        painted.disconnect();
        times.push(performance.now() - began);
        requestAnimationFrame(turn);
      });
      painted.observe(place, { childList: true });
      document.getElementById('next').click();
    })();
"""


def measure_page(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure the report page of a run with errors in a headless Chromium.

    Args:
        args: Options of the command line: `memory_images` is used.

    Returns:
        ``figures``: times in milliseconds, and megabytes of the tab.
    """
    images = args.memory_images
    with tempfile.TemporaryDirectory() as folder:
        report = Report(write_page_run(Path(folder), images))
        report.write()
        browser = start_chromium()
        try:
            browser.set_window_size(1440, 900)
            browser.set_script_timeout(600)
            browser.execute_cdp_cmd('Page.addScriptToEvaluateOnNewDocument', dict(source=NOTE_DRAWN))
            browser.get(Path(report.page).resolve().as_uri())
            figures = {'page: first image drawn, ms': _drawn_at(browser)}
            figures['page: heap, MB'] = heap_bytes(browser) / MEGABYTE
            figures['page: process of the tab, MB'] = tab_bytes(browser) / MEGABYTE
            deltas = browser.execute_async_script(SCROLL, min(FRAMES, images), SPEED)
            figures['page: frame while scrolling, median ms'] = median(deltas)
            figures['page: frame while scrolling, longest ms'] = max(deltas)
            turns = browser.execute_async_script(TURN, min(TURNS, images - 1))
            figures['page: next image, median ms'] = median(turns)
            figures['page: next image, longest ms'] = max(turns)
            figures[f'page: heap after {len(turns)} images, MB'] = heap_bytes(browser) / MEGABYTE
            figures[f'page: process of the tab after {len(turns)} images, MB'] = tab_bytes(browser) / MEGABYTE
        finally:
            browser.quit()
    return dict(figures=figures)


def _drawn_at(browser) -> float:
    """Wait until the first image is drawn; returns when."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 120, 0.1).until(lambda _: browser.execute_script('return window.drawnAt'))
