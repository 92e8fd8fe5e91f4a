"""Regular files: a device or pipe, which a file from outside may name, is never read or written."""

import os.path as osp

import bucket  # noqa: F401  registers the file backend
import pytest
from mmengine import fileio

from mmdet_featviz.runs.box_features_file import load_box_features
from mmdet_featviz.runs.embeddings_file import load_embeddings
from mmdet_featviz.runs.explanation_files import load_explanation
from mmdet_featviz.runs.maps_file import load_snapshot
from mmdet_featviz.runs.storage import check_no_link, get_storage
from mmdet_featviz.utils.regular_files import read_file
from mmdet_featviz.visualization.images import ImageError, read_image
from mmdet_featviz.visualization.style import Style

DEVICE = '/dev/null'  # /dev/zero would fill the memory if it were read
pytestmark = pytest.mark.skipif(not osp.exists(DEVICE), reason='this system has no device files')


@pytest.fixture
def link(tmp_path):
    (tmp_path / 'link').symlink_to(DEVICE)
    return str(tmp_path / 'link')


def test_files_are_read_and_devices_are_not(tmp_path, link, monkeypatch):
    monkeypatch.setenv('BUCKET', '/')
    (tmp_path / 'file').write_bytes(b'content')
    (tmp_path / 'to_file').symlink_to(tmp_path / 'file')
    assert read_file(str(tmp_path / 'to_file')) == read_file(f'bucket://{tmp_path}/file') == b'content'
    for path in (DEVICE, link):
        with pytest.raises(OSError, match=f'{path} is a device or pipe: only regular files are read and written'):
            read_file(path)


def test_no_reader_reads_a_device(link, monkeypatch):
    monkeypatch.setattr(fileio, 'get', lambda path, **_: pytest.fail(f'{path} was read'))
    with pytest.raises(ImageError, match='cannot be read .* is a device or pipe'):
        read_image(link, (2, 2))
    for load in (load_snapshot, load_embeddings, load_box_features, lambda path: load_explanation(path, {}, Style())):
        with pytest.raises(ValueError, match='is a device or pipe'):
            load(link)


def test_the_folder_of_a_run_has_no_device(tmp_path, link):
    with pytest.raises(OSError, match='is a device or pipe'):
        get_storage(tmp_path).read('link')
    with pytest.raises(OSError, match='is a device or pipe'):
        check_no_link(DEVICE)
