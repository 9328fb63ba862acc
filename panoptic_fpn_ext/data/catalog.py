"""What detectron2's catalogs know of a data set."""

from detectron2.data import MetadataCatalog

from ..categories import PanopticCategories

__all__ = ["dataset_categories"]


def dataset_categories(name: str) -> PanopticCategories:
    """Categories and id spaces of a registered panoptic data set; for configs, which can only name data sets.

    Raises:
        ValueError: its metadata are not those of a panoptic data set.
    """
    return PanopticCategories.from_metadata(MetadataCatalog.get(name))
