"""Videos and cameras, read and written frame by frame."""

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["VideoReader", "VideoWriter"]

_USUAL_RATE: Final = 25.0  # frames a second, where the source does not say
_MOST_RATE: Final = 240.0
_CODECS: Final = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".mov": "mp4v"}


class VideoReader:
    """Frames of a file, or of a camera until it ends or the program is interrupted.

    Attributes:
        name: the file's stem, or ``camera0``.
        rate: frames a second.
        num_frames: as the file says; None of a camera, or where it does not say.
    """

    def __init__(self, source: str) -> None:
        """
        Args:
            source: path of a file, or number of a camera.

        Raises:
            FileNotFoundError: there is no such file or camera.
            ValueError: OpenCV cannot read it.
        """
        is_camera = source.isdecimal() and not os.path.exists(source)
        if not is_camera and not os.path.isfile(source):
            raise FileNotFoundError(f"There is no video {source}: name a file, or a camera by its number, as 0.")
        self._capture = cv2.VideoCapture(int(source) if is_camera else source)
        if not self._capture.isOpened():
            if is_camera:
                raise FileNotFoundError(f"There is no camera {source}, or it is in use.")
            raise ValueError(f"{source} cannot be read: it is no video, broken, or of a codec that OpenCV lacks.")
        self.source = source
        self.name = f"camera{source}" if is_camera else os.path.splitext(os.path.basename(source))[0]
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if 0 < rate <= _MOST_RATE else _USUAL_RATE
        count = 0 if is_camera else int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.num_frames = count if count > 0 else None

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Frames, uint8 (H, W, 3) in BGR order."""
        while True:
            is_frame, frame = self._capture.read()
            if not is_frame:
                return
            yield np.asarray(frame, np.uint8)

    def close(self) -> None:
        """Let go of the file or camera."""
        self._capture.release()


class VideoWriter:
    """A video that has the size of its first frame; a context manager."""

    def __init__(self, path: str, rate: float) -> None:
        """``path``: its suffix, one of .mp4, .avi, .mkv and .mov, says the format; ``rate``: frames a second."""
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in _CODECS:
            raise ValueError(f"{path} has no suffix of a video that can be written: {', '.join(_CODECS)}.")
        self._path, self._rate, self._codec = path, rate, _CODECS[suffix]
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()

    def write(self, frame: npt.NDArray[np.uint8]) -> None:
        """Add a frame, uint8 (H, W, 3) in RGB order.

        Raises:
            OSError: the file cannot be written.
        """
        bgr = np.ascontiguousarray(frame[:, :, ::-1])
        if self._writer is None:
            self._size = (bgr.shape[1] // 2 * 2, bgr.shape[0] // 2 * 2)  # codecs want even sizes
            code = cv2.VideoWriter.fourcc(*self._codec)
            self._writer = cv2.VideoWriter(self._path, code, self._rate, self._size)
            if not self._writer.isOpened():
                raise OSError(f"Video {self._path} cannot be written.")
        if bgr.shape[1::-1] != self._size:
            bgr = np.asarray(cv2.resize(bgr, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        self._writer.write(bgr)
