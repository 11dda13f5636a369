"""A small file system of its own that a test can fill. Needs root, like the firewall tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CHUNK = bytes(64 * 1024)
# EXT4_IOC_SHUTDOWN in linux/fs/ext4/ext4.h, with EXT4_GOING_FLAGS_LOGFLUSH.
_SHUT_DOWN = """
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack("I", 1))
"""


@dataclass(frozen=True, kw_only=True)
class SmallDisk:
    """A mounted file system."""

    folder: Path
    image: Path | None = None  # the file that holds it; None: it lies in memory

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self) -> None:
        """Leave not a single block."""
        with self._ballast.open("ab", buffering=0) as ballast:
            size = len(_CHUNK)
            while size:
                try:
                    ballast.write(_CHUNK[:size])
                except OSError:
                    size //= 2

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        self.fill()
        try:
            yield
        finally:
            self.free()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold up everybody who writes, until the end. Only on a `loop_disk`."""
        _as_root("fsfreeze", "--freeze", str(self.folder))
        try:
            yield
        finally:
            _as_root("fsfreeze", "--unfreeze", str(self.folder))

    def fail(self) -> None:
        """Report a fault of the medium: the kernel takes no more writes. What was written before is
        safe. Only on a `loop_disk`."""
        _as_root("sync", "--file-system", str(self.folder))
        device = _as_root("findmnt", "--noheadings", "--output", "SOURCE", str(self.folder))
        trigger = f"/sys/fs/ext4/{Path(device.strip()).name}/trigger_fs_error"
        _as_root("sh", "-c", f"echo test >{trigger}")

    def die(self) -> None:
        """Answer each access with an I/O error, as after the loss of the device or of power: of
        what was written before, only what was synchronised is safe. Only on a `loop_disk`."""
        _as_root(sys.executable, "-c", _SHUT_DOWN, str(self.folder))

    def repair(self) -> None:
        """As an operator does, with nobody using it: check the file system and mount it again."""
        _as_root("umount", str(self.folder))
        _as_root("sh", "-c", f"e2fsck -p {self.image} || [ $? -le 1 ]")
        _mount(self.image, self.folder)


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[SmallDisk]:
    """Mount an empty file system at the folder, and unmount it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    _as_root("mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0711", "spawn", str(folder))
    try:
        yield SmallDisk(folder=folder)
    finally:
        _as_root("umount", "--lazy", str(folder))


@contextlib.contextmanager
def loop_disk(folder: Path, size_mib: int) -> Iterator[SmallDisk]:
    """Like `small_disk`, but ext4 on a file, below the folder: a disk that can hang."""
    image, mount_point = folder / "disk.ext4", folder / "disk"
    with image.open("wb") as file:
        file.truncate(size_mib * 1024**2)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, timeout=30)
    mount_point.mkdir()
    _mount(image, mount_point)
    try:
        mount_point.chmod(0o711)
        yield SmallDisk(folder=mount_point, image=image)
    finally:
        _as_root("umount", "--lazy", str(mount_point))


def _mount(image: Path | None, mount_point: Path) -> None:
    # A device of its own: `mount -o loop` takes the old one, with its fault, if any other mount
    # namespace still has that. Detached, it goes with its mount.
    device = _as_root("losetup", "--find", "--show", str(image)).strip()
    _as_root("mount", "-o", "errors=remount-ro", device, str(mount_point))
    _as_root("losetup", "--detach", device)


def _as_root(*argv: str) -> str:
    command = list(argv) if os.geteuid() == 0 else ["sudo", "-n", *argv]
    result = subprocess.run(command, check=True, timeout=30, stdout=subprocess.PIPE, text=True)
    return result.stdout
