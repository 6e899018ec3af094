"""A file layer that serves files out of memory: a bit is flipped and put back without a system call."""

from __future__ import annotations

import errno
import os

from iqdb_core.errors import FileIOError
from iqdb_core.storage.files import FileSystem, OpenFile


class MemoryFiles(FileSystem):
    """Some files, for reading only. What is mapped is the memory itself, so later changes are seen.

    Attributes:
        images: what the files hold, by their paths. A test changes the bytes in place.
        sizes: how many bytes of an image there are; a path without one has all of its image.
    """

    def __init__(self, images: dict[str, bytearray]) -> None:
        self.images = images
        self.sizes: dict[str, int] = {}

    def resolve(self, path: str | os.PathLike[str]) -> str:
        return os.fspath(path)

    def exists(self, path: str) -> bool:
        return path in self.images

    def open_read(self, path: str) -> OpenFile:
        if path not in self.images:
            raise FileIOError(path, "open", OSError(errno.ENOENT, os.strerror(errno.ENOENT)))
        return OpenFile(1, path)

    def close(self, file: OpenFile) -> None:
        file.fd = -1

    def _image(self, path: str) -> memoryview:
        return memoryview(self.images[path])[: self.sizes.get(path)]

    def status(self, file: OpenFile) -> os.stat_result:
        return self._status(file.path)

    def status_at(self, path: str) -> os.stat_result | None:
        return self._status(path) if path in self.images else None

    def _status(self, path: str) -> os.stat_result:
        # mode, inode, device, links, user, group, size, times; the inode tells the files apart
        inode = list(self.images).index(path) + 1
        return os.stat_result((0o100644, inode, 1, 1, 0, 0, len(self._image(path)), 0, 0, 0))

    def map_read(self, file: OpenFile, size: int) -> memoryview:  # type: ignore[override]
        return self._image(file.path)[:size]

    def read(self, file: OpenFile, size: int, offset: int) -> bytes:
        return bytes(self._image(file.path)[offset : offset + size])

    def read_into(self, file: OpenFile, buffer: memoryview, offset: int) -> int:
        data = self._image(file.path)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)
