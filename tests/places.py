"""Folders that the tests read."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# Folder of the real images, see README.md; tests that need them are skipped where it is absent.
REAL_IMAGES = Path(os.environ.get("PANOPTIC_FPN_EXT_IMAGES", REPOSITORY.parent / "shared" / "data"))
