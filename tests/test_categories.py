from itertools import permutations

import pytest
from detectron2.data import MetadataCatalog

from panoptic_fpn_ext.categories import PanopticCategories

CATEGORIES = [
    {"id": 7, "name": "road", "isthing": 0, "color": [128, 64, 128]},
    {"id": 26, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    {"id": 0, "name": "sky", "isthing": 0},
    {"id": 24, "name": "person", "isthing": 1},
]


def test_things_as_other():
    categories = PanopticCategories(CATEGORIES)
    assert (categories.num_things, categories.num_stuff, categories.num_sem_seg_classes) == (2, 2, 3)
    assert [categories.contiguous_id(i) for i in (24, 26)] == [0, 1]
    assert [categories.semantic_id(i) for i in (0, 7, 24, 26)] == [1, 2, 0, 0]
    assert categories.sem_seg_classes == ["things", "sky", "road"]
    assert categories.thing_sem_seg_ids == [0]


def test_all_classes():
    categories = PanopticCategories(CATEGORIES, "all_classes")
    assert categories.num_sem_seg_classes == 4
    assert [categories.semantic_id(i) for i in (0, 7, 24, 26)] == [0, 1, 2, 3]
    assert categories.thing_sem_seg_ids == [2, 3]


@pytest.mark.parametrize("space", ["things_as_other", "all_classes"])
def test_the_order_of_the_list_does_not_matter(space):
    expected = PanopticCategories(CATEGORIES, space)
    for rows in permutations(CATEGORIES):
        found = PanopticCategories(rows, space)
        assert found == expected
        assert found.metadata() == expected.metadata()
        assert found.rows == expected.rows == PanopticCategories(expected.rows, space).rows


def test_default_colors_are_those_of_the_ids():
    colors = {row["id"]: row["color"] for row in PanopticCategories(CATEGORIES).rows}
    assert colors == {0: [255, 255, 255], 7: [128, 64, 128], 24: [64, 64, 0], 26: [0, 0, 142]}
    assert PanopticCategories(CATEGORIES[3:]).rows[0]["color"] == colors[24]
    many = [{"id": i, "name": str(i), "isthing": 0} for i in range(2000)]
    assert len({tuple(row["color"]) for row in PanopticCategories(many).rows}) == 2000


def test_id_maps_of_others_are_kept():
    """As of a dataset that somebody registered with detectron2 in an order of their own."""
    listed = PanopticCategories(CATEGORIES, as_listed=True)
    metadata = MetadataCatalog.get("categories_of_others").set(**listed.metadata())
    found = PanopticCategories.from_metadata(metadata)
    MetadataCatalog.remove("categories_of_others")
    assert [found.contiguous_id(i) for i in (26, 24)] == [0, 1]
    assert [found.semantic_id(i) for i in (7, 0)] == [1, 2]
    assert found == listed != PanopticCategories(CATEGORIES)
    assert not found.same_ids(PanopticCategories(CATEGORIES))


@pytest.mark.parametrize("space", ["things_as_other", "all_classes"])
def test_every_id_comes_back(space):
    categories = PanopticCategories(CATEGORIES, space)
    for i in categories.dataset_ids:
        assert categories.dataset_id(categories.category_id(i), categories.isthing(i)) == i


@pytest.mark.parametrize("space", ["things_as_other", "all_classes"])
def test_metadata_round_trip(space):
    categories = PanopticCategories(CATEGORIES, space)
    metadata = MetadataCatalog.get("categories_round_trip").set(**categories.metadata())
    found = PanopticCategories.from_metadata(metadata)
    MetadataCatalog.remove("categories_round_trip")
    assert found.sem_seg_space == space
    for i in categories.dataset_ids:
        assert found.category_id(i) == categories.category_id(i)
        assert found.name(i) == categories.name(i)


def test_detectron2s_own_coco():
    metadata = MetadataCatalog.get("coco_2017_val_panoptic_separated")
    categories = PanopticCategories.from_metadata(metadata)
    assert (categories.num_things, categories.num_stuff, categories.sem_seg_space) == (80, 53, "things_as_other")
    for key in ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id", "stuff_classes"):
        assert categories.metadata()[key] == getattr(metadata, key)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "unique"),
        ([*CATEGORIES, CATEGORIES[0]], r"duplicates: \[7\]"),
        ([{"id": 1, "name": "car"}], "isthing"),
        ([{"id": 1, "name": "car", "isthing": 1, "color": [1, 2]}], "color"),
    ],
)
def test_bad_categories(rows, message):
    with pytest.raises(ValueError, match=message):
        PanopticCategories(rows)


def test_unknown_ids_name_what_exists():
    categories = PanopticCategories(CATEGORIES)
    with pytest.raises(KeyError, match="24, 26"):
        categories.contiguous_id(7)
    with pytest.raises(KeyError, match="99"):
        categories.semantic_id(99)
    with pytest.raises(KeyError, match="category_id 0"):
        categories.dataset_id(0, isthing=False)


def test_metadata_of_other_datasets_are_refused():
    with pytest.raises(ValueError, match="thing_classes"):
        PanopticCategories.from_metadata(MetadataCatalog.get("ade20k_sem_seg_val"))
