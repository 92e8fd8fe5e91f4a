"""Similarity of cells: cosines of principal components that a run saved, against float64, in Python and on the page."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from embedded_run import EmbeddedRun
from page_driver import Page
from report_pages import PLACEMENTS, read_data, write_report

from mmdet_featviz import similarity
from mmdet_featviz.report import cell_files
from mmdet_featviz.runs.reader import Run
from mmdet_featviz.structures.embedding import COSINE_ERROR
from mmdet_featviz.visualization.colors import get_colormap, quantize, to_unit


@pytest.fixture(scope='module')
def embedded(tmp_path_factory):
    return EmbeddedRun(tmp_path_factory.mktemp('embedded'))


@pytest.fixture(scope='module')
def page(browser, embedded):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_files, 'FILE_BYTES', 3000)  # two images each
        report = write_report(embedded.run)
    assert 'embeddings take 0.0 MB' in report.summary()
    return Page(browser, report)


def searched(page):
    """Wait for the list of similar cells."""
    page.wait("document.querySelector('#similar li') && document.querySelector('#similar p').textContent.endsWith(':')")


def test_similarity_is_the_cosine_of_sixteen_components(embedded):
    components = embedded.components()
    for number, (x, y, cell) in enumerate([(9, 57, (3, 0)), (93, 20, (2, 4))]):  # scaled by a half; flipped and moved
        seen = similarity(embedded.run.folder, f'street/{number}', 'neck_0', x, y)
        assert seen.cell == cell
        chosen = components[number][(slice(None), *cell)]
        for image, own in enumerate(components):
            cosines = np.tensordot(chosen, own, 1) / np.linalg.norm(own, axis=0) / np.linalg.norm(chosen)
            counts = embedded.grids[image].covers_image() & np.isfinite(cosines)
            if image == number:
                assert np.abs(seen.values - cosines)[counts].max() <= COSINE_ERROR
                assert seen.values[1, 2] == 0  # not finite
                np.testing.assert_array_equal(seen.heatmap, embedded.grids[image].heatmap(seen.values))
                continue
            (found,) = [one for one in seen.others if one.image == f'street/{image}']
            assert abs(found.cosine - cosines[counts].max()) <= COSINE_ERROR
            row, column = embedded.grids[image].nearest_cell(found.x, found.y)
            assert abs(found.cosine - cosines[row, column]) <= COSINE_ERROR
        assert [one.cosine for one in seen.others] == sorted((one.cosine for one in seen.others), reverse=True)
        assert similarity(embedded.run.folder, f'street/{number}', 'neck_0', x, y, most=1).others == seen.others[:1]


def test_what_cannot_be_compared(page, embedded, tmp_path):
    folder = shutil.copytree(embedded.run.folder, tmp_path / 'run')
    for image, level, x, match in (
        ('street/9', 'neck_0', 9, r"no embeddings of the image 'street/9', but of street/0"),
        ('street/0', 'neck_3', 9, "no level 'neck_3': choose from neck_0"),
        ('street/0', 'neck_0', 999, r'\(999, 57\) is outside the image'),
        ('street/2', 'neck_0', 1, r'the network did not see \(1, 57\)'),
    ):
        with pytest.raises(ValueError, match=match):
            similarity(folder, image, level, x, 57)
    (Path(folder) / 'street' / '1' / 'embeddings.npz').write_bytes(b'damaged')
    assert {one.image for one in similarity(folder, 'street/0', 'neck_0', 9, 57).others} == {
        'street/2',
        'street/3',
        'street/4',
    }
    with np.load(str(Path(folder) / 'street' / '2' / 'embeddings.npz')) as archive:  # as of another epoch
        arrays = {**archive, 'meta': np.array(str(archive['meta']).replace('"fit": "', '"fit": "other '))}
    np.savez(str(Path(folder) / 'street' / '2' / 'embeddings.npz'), **arrays)
    assert {one.image for one in similarity(folder, 'street/0', 'neck_0', 9, 57).others} == {'street/3', 'street/4'}
    report = write_report(Run(folder))
    assert '1 without similarity, embeddings not readable (street/1/maps.npz)' in report.summary()
    other = Page(page.browser, report)
    other.open('image=street/0&level=neck_0&similarity=1&at=9,57')
    searched(other)
    assert sorted(other.texts('#similar li span')) == ['3', '4']
    with pytest.raises(ValueError, match='street/1/embeddings.npz holds no maps of this package'):
        similarity(folder, 'street/1', 'neck_0', 60, 57)
    manifest = Path(folder) / 'manifest.jsonl'
    manifest.write_text(manifest.read_text().replace('embeddings.npz', 'others.npz'))
    with pytest.raises(ValueError, match=r"has no embeddings: run with save=\('embeddings',\)"):
        similarity(folder, 'street/0', 'neck_0', 9, 57)


@pytest.mark.parametrize('number', range(len(PLACEMENTS)), ids=PLACEMENTS)
def test_the_browser_shows_the_cosines_of_python(page, embedded, number):
    placement = list(PLACEMENTS.values())[number]
    page.open(f'image=street/{number}&level=neck_0&colormap=viridis&similarity=1&at=61,55&range=max')
    searched(page)
    expected = similarity(embedded.run.folder, f'street/{number}', 'neck_0', 61, 55)
    gray = quantize(to_unit(expected.heatmap, (-1.0, 1.0)))
    table = get_colormap('viridis')[:, 0, ::-1].astype(int)
    near = [
        np.abs(page.pixels()[..., :3] - table[np.clip(gray.astype(int) + step, 0, 255)]).max(2) for step in (-1, 0, 1)
    ]
    assert np.min(near, 0)[placement.seen].max() == 0  # the same color, or that beside it
    assert (near[1] == 0)[placement.seen].mean() > 0.99
    assert page.texts('.legend span') == ['-1', '1'] and page.text('.legend small') == 'cosine'
    shown = [(text[0], f'cosine {one.cosine:.2f}') for text, one in zip(map(_key, expected.others), expected.others)]
    assert [tuple(page.texts('#similar li span, #similar li small')[at : at + 2]) for at in range(0, 8, 2)] == shown
    assert len(read_data(embedded.run)['cells']['neck_0']['files']) > 1
    assert page.errors() == []


def _key(cell):
    return cell.image.split('/')[-1:]


def test_a_click_or_a_key_chooses_the_cell_and_a_result_opens_its_image_there(page, embedded):
    from selenium.webdriver.common.keys import Keys

    page.open('image=street/0&level=neck_0')
    assert not page.find('#similar').is_displayed()
    page.find('#similarity').click()
    page.wait("document.querySelector('#similar p').textContent.startsWith('Click on the picture')")
    assert 'Embeddings of all images at neck_0: 0.0 MB' in page.text('#similar p')
    page.find('.picture').click()  # in the middle
    searched(page)
    page.wait("location.hash.includes('at=65')")
    (best, *_) = similarity(embedded.run.folder, 'street/0', 'neck_0', 65, 45).others
    page.find('#similar button').click()
    page.wait('document.getElementById("name").textContent === arguments[0]', best.image)
    there = similarity(embedded.run.folder, best.image, 'neck_0', best.x, best.y).others[0]
    shows = "document.querySelector('#similar small').textContent === `cosine ${arguments[0]}`"
    page.wait(shows, f'{there.cosine:.2f}')
    page.js('history.back()')
    page.wait('document.getElementById("name").textContent === "street/0"')
    page.wait(shows, f'{best.cosine:.2f}')
    page.js("document.querySelector('.picture').focus()")
    page.js(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', shiftKey: true,"
        ' bubbles: true }))'
    )
    page.press(Keys.ENTER)  # at the mark, ten pixels to the right of the middle
    page.wait("location.hash.includes('at=75')")
    searched(page)
    page.press('s')
    page.wait("document.getElementById('similar').hidden")
    assert page.text('#pictures strong') == 'neck_0'
    page.wait("!location.hash.includes('at=')")
    page.open('image=street/2&level=neck_0&similarity=1&at=2,2')  # cropped away
    assert page.text('#similar p').startswith('There is no cell at this place.')
    assert page.errors() == []


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_narrow_page_with_similar_cells_has_no_barrier(page, scheme):
    with page.color_scheme(scheme):
        page.open('image=street/0&level=neck_0&similarity=1&at=61,55', (375, 900))
        searched(page)
        assert page.too_wide() == [0, []]
        assert page.barriers() == []


def test_one_file_has_the_same_cells(page, embedded, tmp_path):
    one = Page(page.browser, write_report(embedded.run, out_dir=str(tmp_path / 'page'), single_file=True))
    settings = 'image=street/0&level=neck_0&similarity=1&at=61,55'
    found = []
    for each in (page, one):
        each.open(settings)
        searched(each)
        found.append(each.texts('#similar li'))
    assert found[0] == found[1]
    assert one.errors() == []
