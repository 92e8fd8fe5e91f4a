"""A report page in a headless Chromium."""

import base64
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_featviz.benchmarks.chromium import start_chromium as start


def start_chromium():
    """Start a headless Chromium; skips the test, with the reason, if there is none. Tests use the fixture `browser`."""
    try:
        return start()
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(str(error))


class Page:
    """A report in the browser."""

    def __init__(self, browser, report):
        self.browser = browser
        self.url = Path(report.page).as_uri()

    def open(self, settings='', size=(1300, 900)):
        """Open the page with the settings in its address, and wait until it is painted."""
        # A window cannot be as narrow as a phone, but its contents can.
        metrics = dict(width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
        self.browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
        self.browser.get('about:blank')
        self.browser.get_log('browser')
        self.browser.get(f'{self.url}#{settings}')
        return self.wait_until_painted()

    def wait(self, condition, *args):
        """Wait until a JavaScript expression is true; returns its value."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 30, 0.05).until(lambda _: self.js(f'return {condition}', *args))

    def wait_until_painted(self):
        self.wait("document.getElementById('pictures').dataset.painted > 0")
        return self

    def js(self, code, *args):
        """Run JavaScript; returns what it returns."""
        return self.browser.execute_script(code, *args)

    def find(self, selector):
        """The first element."""
        return self.browser.find_element('css selector', selector)

    def text(self, selector):
        """Text of the first element."""
        return self.js('return document.querySelector(arguments[0]).textContent', selector)

    def texts(self, selector):
        """Texts of all elements."""
        return self.js(
            'return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)', selector
        )

    def choose(self, name, value):
        """Choose an option of a list."""
        from selenium.webdriver.support.ui import Select

        index = (
            'return [...document.getElementById(arguments[0]).options].findIndex(({ value }) => value === arguments[1])'
        )
        Select(self.find(f'#{name}')).select_by_index(self.js(index, name, value))

    def drag(self, name, fraction):
        """Drag the thumb of a slider to a fraction of its range."""
        from selenium.webdriver import ActionChains

        slider = self.find(f'#{name}')
        width = slider.size['width']
        ActionChains(self.browser).drag_and_drop_by_offset(slider, 0, 0).perform()
        chain = ActionChains(self.browser).move_to_element(slider).click_and_hold()
        chain.move_by_offset(round((fraction - 0.5) * width), 0).release().perform()

    def press(self, *keys):
        """Press keys, one after the other."""
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def pixels(self, selector='.heat'):
        """Pixels of a canvas: (height, width, 4), RGBA."""
        width, height, data = self.js(
            'const canvas = document.querySelector(arguments[0]), {width, height} = canvas;'
            "const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;"
            "return [width, height, btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(''))];",
            selector,
        )
        return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)

    def screenshot(self, selector):
        """Picture of an element on the screen: (height, width, 3), BGR."""
        return cv2.imdecode(np.frombuffer(self.find(selector).screenshot_as_png, np.uint8), cv2.IMREAD_COLOR)

    def too_wide(self):
        """How far one has to scroll sideways, in pixels, and the elements that reach beyond the window."""
        return self.js(
            'const { scrollWidth, clientWidth } = document.documentElement;'
            "return [scrollWidth - clientWidth, [...document.body.querySelectorAll('*')].filter((one) => "
            'one.getBoundingClientRect().right > clientWidth + 0.5 '
            "&& !one.parentElement.closest('.scroll, .picture, #strip, #grid')).map((one) => one.outerHTML)]"
        )

    def open_details(self):
        """Show all that is folded up."""
        self.js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")

    @contextmanager
    def color_scheme(self, scheme):
        """Let the user prefer this scheme, ``light`` or ``dark``, for a while."""
        features = [dict(name='prefers-color-scheme', value=scheme)]
        self.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=features))
        try:
            yield
        finally:
            self.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[]))

    def barriers(self):
        """What axe-core finds against the rules of WCAG and good practice: (rule, elements)."""
        package = find_spec('axe_playwright_python')
        if package is None:
            pytest.skip('axe-playwright-python, which has axe-core, is not installed')
        self.js((Path(package.submodule_search_locations[0]) / 'axe.min.js').read_text(encoding='utf-8'))
        found = self.browser.execute_async_script(
            'axe.run().then(arguments[0], (error) => arguments[0](String(error)))'
        )
        assert len(found['passes']) > 20
        return [(one['id'], [node['html'] for node in one['nodes']]) for one in found['violations']]

    def names(self):
        """Names of the images in the gallery."""
        return self.texts('#grid li span')

    def download(self, folder, button, name):
        """The file that the browser saves after a click on a button."""
        from selenium.webdriver.support.ui import WebDriverWait

        behavior = dict(behavior='allow', downloadPath=str(folder))
        self.browser.execute_cdp_cmd('Browser.setDownloadBehavior', behavior)
        self.js('document.querySelector(arguments[0]).click()', button)
        WebDriverWait(self.browser, 30, 0.05).until(lambda _: (folder / name).exists())
        data = (folder / name).read_bytes()
        (folder / name).unlink()
        return data

    def errors(self):
        """Errors that the browser logged since the last call."""
        return [entry['message'] for entry in self.browser.get_log('browser') if entry['level'] == 'SEVERE']
