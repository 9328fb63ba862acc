"""CVAT for images 1.1: one XML with polygons, ellipses and masks, and their z-order."""

from __future__ import annotations

import os
from functools import partial
from xml.etree import ElementTree

from .files import ImageIndex
from .regions import Source, SourceImage
from .shapes import Names, Shape, ellipse_points, regions_of_shapes, result_name
from .splits import join_parts

__all__ = ["read_cvat"]


def read_cvat(annotations: str, images: str | None = None) -> Source:
    """CVAT for images 1.1: polygons, ellipses and masks, with their z-order.

    Args:
        annotations: the XML, or the folder with ``annotations.xml`` or with one XML a part of the dataset.
        images: folder of the images; ``images`` beside the XML if not given.

    Raises:
        ValueError: the file is no such XML.
    """
    if not os.path.isdir(annotations):
        return _read_xml(annotations, images)
    files = sorted(name for name in os.listdir(annotations) if name.endswith(".xml"))
    if not files:
        raise ValueError(f"There is no XML in {annotations}.")
    return join_parts({os.path.splitext(f)[0]: _read_xml(os.path.join(annotations, f), images) for f in files})


def _read_xml(path: str, images: str | None) -> Source:
    folder = os.path.dirname(os.path.abspath(path))
    index = ImageIndex([images] if images else [os.path.join(folder, "images"), folder])
    names = Names()
    found: list[SourceImage] = []
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "label" and element.findtext("name"):
                names.add(str(element.findtext("name")))
            elif element.tag == "image":
                found.append(_cvat_image(element, index, names))
                element.clear()
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {error.strerror}.") from error
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is no sound XML of CVAT for images 1.1 ({what}). Export it again.") from error
    if not found:
        raise ValueError(f"{path} lists no images: export the task as 'CVAT for images 1.1'.")
    return Source(names.categories, found, [path])


def _cvat_image(element: ElementTree.Element, index: ImageIndex, names: Names) -> SourceImage:
    name = element.attrib["name"]
    size = int(element.attrib["height"]), int(element.attrib["width"])
    shapes = [_cvat_shape(shape, names) for shape in element if shape.tag != "tag"]
    try:
        path = index.find(name)
    except ValueError as error:
        return SourceImage(name, result_name(name), problem=str(error))
    regions = partial(regions_of_shapes, shapes=shapes, ids=names.ids)
    return SourceImage(path, result_name(name), regions, size, element.get("subset") or None)


def _cvat_shape(element: ElementTree.Element, names: Names) -> Shape:
    data = element.attrib
    shape = Shape(label=names.add(data["label"]), kind=element.tag, z=float(data.get("z_order") or 0))
    group = int(data.get("group_id") or 0)
    if group:
        shape["group"] = group
    if element.tag == "polygon":
        shape["points"] = [float(v) for point in data["points"].split(";") for v in point.split(",")]
    elif element.tag == "ellipse":
        x, y, rx, ry = (float(data[key]) for key in ("cx", "cy", "rx", "ry"))
        shape |= {"kind": "polygon", "points": ellipse_points((x, y), (rx, ry), float(data.get("rotation") or 0))}
    elif element.tag == "mask":
        counts = [int(run) for run in data["rle"].split(",")]
        box = {"x": int(data["left"]), "y": int(data["top"]), "size": (int(data["height"]), int(data["width"]))}
        shape |= {"kind": "rows", "counts": counts, **box}
    return Shape(shape)
