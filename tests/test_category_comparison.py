import pytest

from panoptic_fpn_ext.category_comparison import compare_categories, refuse_different_categories

ROWS = [{"id": 3, "name": "car", "isthing": 1}, {"id": 1, "name": "road", "isthing": 0}, {"id": 7, "name": "sky"}]


def test_order_and_other_fields_do_not_matter():
    assert not compare_categories(ROWS, [{**row, "color": [1, 2, 3]} for row in reversed(ROWS)])
    assert not compare_categories(ROWS, [{"id": row["id"], "isthing": row.get("isthing", 0)} for row in ROWS])


def test_what_differs():
    found = compare_categories(ROWS, [{**ROWS[0], "name": "bus"}, {"id": 2, "name": "road", "isthing": 0}])
    assert [row["id"] for row in found.only_first] == [1, 7] and [row["id"] for row in found.only_second] == [2]
    assert found.describe("A", "B").splitlines() == [
        "  only in A: 1 'road' (stuff), 7 'sky'",
        "  only in B: 2 'road' (stuff)",
        "  of A, in B: 3 'car' (thing) is 'bus' (thing) there",
        "  the same name with another id: 'road' 1 and 2",
    ]


def test_what_is_allowed_is_returned_and_not_named():
    kwargs = {"remedy": "Mend it.", "may_be_part": True}
    assert [row["id"] for row in refuse_different_categories(ROWS, "A", ROWS[:1], "B", **kwargs).only_first] == [1, 7]
    with pytest.raises(ValueError, match="differ") as error:
        refuse_different_categories(ROWS, "A", [{**ROWS[0], "isthing": 0}], "B", **kwargs)
    assert "road" not in str(error.value) and str(error.value).endswith("\nMend it.")
    with pytest.raises(ValueError, match="only in B: 7 'sky'"):
        refuse_different_categories(ROWS[:2], "A", ROWS, "B", **kwargs)
