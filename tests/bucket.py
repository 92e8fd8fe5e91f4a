"""A file backend like that of an object store; its bucket is the folder named by the environment variable BUCKET."""

import os
from pathlib import Path

from mmengine.fileio import BaseStorageBackend, register_backend


@register_backend('bucket', prefixes='bucket')
class BucketBackend(BaseStorageBackend):
    def _file(self, url):
        return Path(os.environ['BUCKET']) / url.partition('://')[2]

    def get(self, url):
        return memoryview(self._file(url).read_bytes())  # as in PetrelBackend

    def get_text(self, url, encoding='utf-8'):
        return self._file(url).read_text(encoding)

    def put(self, data, url):
        file = self._file(url)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f'{file.name}.{os.getpid()}')
        temporary.write_bytes(data)
        temporary.replace(file)

    def exists(self, url):
        return self._file(url).exists()

    def remove(self, url):
        self._file(url).unlink()

    def list_dir_or_file(self, url, list_dir=True, list_file=True, suffix=None, recursive=False):
        folder = self._file(url)
        for path in folder.rglob('*') if recursive else folder.glob('*'):
            if path.is_file():
                yield path.relative_to(folder).as_posix()
