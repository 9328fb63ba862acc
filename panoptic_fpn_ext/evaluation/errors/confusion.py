"""Which classes are taken for which: in pixels and in segments, void included."""

import numpy as np
import numpy.typing as npt

from .causes import CAUSES, MATCHED
from .measured import UNLISTED, Measured

__all__ = ["count_pixels", "count_segments"]

_WRONG_CLASS = [code for code, name in enumerate(CAUSES) if name.startswith("wrong_class")]


def count_pixels(measured: Measured, matrix: npt.NDArray[np.int64]) -> None:
    """Add images to a matrix, int64 (C + 1, C + 1): pixels by class of the ground truth and of the prediction.

    The last index is void. Crowd counts as its class; pixels of ids that the ground truth's JSON does not list are
    left out.
    """
    listed = measured.gt.ids[measured.first] != UNLISTED
    of_gt, of_pred = measured.gt.listed[measured.first[listed]], measured.pred.listed[measured.second[listed]]
    np.add.at(matrix, (of_gt, of_pred), measured.pixels[listed].astype(np.int64))  # void is -1, the last index


def count_segments(
    rows: npt.NDArray[np.void], image: npt.NDArray[np.int64], num_categories: int
) -> npt.NDArray[np.int64]:
    """Segments by class of the ground truth and of the prediction, int64 (C + 1, C + 1); the last index is void.

    Matches stand on the diagonal, two segments that show one another's wrong class where their classes meet, other
    false negatives in the last column and other false positives in the last row. What has no part in PQ is left out.

    Args:
        rows: segments, ``SEGMENT_DTYPE`` (N,), of any number of images.
        image: which image each is of, (N,).
        num_categories: C.
    """
    matrix = np.zeros((num_categories + 1, num_categories + 1), np.int64)
    cause, predicted = rows["cause"], rows["predicted"]
    mutual = _mutual(rows, image)
    single = (cause < MATCHED) & ~mutual
    met = ~predicted & (mutual | (cause == MATCHED))
    np.add.at(matrix, (rows["category"][met], rows["other_category"][met]), 1)
    np.add.at(matrix, (rows["category"][single & ~predicted], -1), 1)
    np.add.at(matrix, (-1, rows["category"][single & predicted]), 1)
    return matrix


def _mutual(rows: npt.NDArray[np.void], image: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whose wrong class is shown by a segment whose wrong class it shows, bool (N,)."""
    wrong_class = np.isin(rows["cause"], _WRONG_CLASS)
    keys: dict[bool, dict[tuple[int, int, int], int]] = {False: {}, True: {}}
    for index in np.flatnonzero(wrong_class).tolist():
        own, other, predicted = int(rows["id"][index]), int(rows["other"][index]), bool(rows["predicted"][index])
        pair = (other, own) if predicted else (own, other)
        keys[predicted][int(image[index]), pair[0], pair[1]] = index
    result = np.zeros(len(rows), np.bool_)
    for key in keys[False].keys() & keys[True].keys():
        result[[keys[False][key], keys[True][key]]] = True
    return result
