"""What a kernel is specialised on, as JSON, and what of it two calls must share to take the same kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from attngen.artefact.document import IDENTIFIER, WORD, Doc
from attngen.emit.spec import DType
from attngen.pipeline import DTYPES, Specialisation
from attngen.planner.layout import Boxes, Shape
from attngen.store.key import plain

_DTYPES = tuple(DTYPES.values())
_WIDEST = 1 << 20
_AXIS = IDENTIFIER


def special_to_json(special: Specialisation) -> dict[str, Any]:
    """A specialisation as a JSON object; floats as hexadecimal text."""
    boxes = special.boxes
    return {
        "dtype": special.dtype,
        "head_dim": special.head_dim,
        "value_dim": special.value_dim,
        "tensors": [list(t) for t in special.tensors],
        "consts": [[name, plain(number)] for name, number in special.consts],
        "scale_positive": special.scale_positive,
        "boxes": None
        if boxes is None
        else {
            "shapes": [[s.axis, s.q, s.k, s.origin] for s in boxes.shapes],
            "cut": boxes.cut,
            "tight": boxes.tight,
        },
        "extents": [list(e) for e in special.extents],
        "exact": sorted(special.exact),
    }


def special_from_json(doc: Doc) -> Specialisation:
    """What `special_to_json` wrote. Raises ArtefactError."""
    doc.only(
        "dtype", "head_dim", "value_dim", "tensors", "consts", "scale_positive", "boxes", "extents", "exact"
    )
    boxes = doc.optional("boxes")
    return Specialisation(
        dtype=cast("DType", doc.field("dtype").one_of(*_DTYPES)),
        head_dim=doc.field("head_dim").integer(1, _WIDEST),
        value_dim=doc.field("value_dim").integer(1, _WIDEST),
        tensors=doc.field("tensors").tuple(_tensor),
        consts=doc.field("consts").tuple(_const),
        scale_positive=doc.field("scale_positive").boolean(),
        boxes=None if boxes is None else _boxes(boxes),
        extents=doc.field("extents").tuple(_extent),
        exact=frozenset(doc.field("exact").tuple(lambda name: name.text(IDENTIFIER))),
    )


def _parts(doc: Doc, count: int) -> list[Doc]:
    parts = list(doc.items())
    if len(parts) != count:
        raise doc.refuse(f"a list of {count}")
    return parts


def _tensor(doc: Doc) -> tuple[str, str, int]:
    name, dtype, rank = _parts(doc, 3)
    return name.text(IDENTIFIER), dtype.text(WORD), rank.integer(0, 16)


def _const(doc: Doc) -> tuple[str, int | float | bool]:
    name, number = _parts(doc, 2)
    return name.text(IDENTIFIER), number.number()


def _extent(doc: Doc) -> tuple[str, int]:
    name, extent = _parts(doc, 2)
    return name.text(IDENTIFIER), extent.integer(0, 2**31 - 1)


def _boxes(doc: Doc) -> Boxes:
    doc.only("shapes", "cut", "tight")
    return Boxes(doc.field("shapes").tuple(_shape), doc.field("cut").boolean(), doc.field("tight").boolean())


def _shape(doc: Doc) -> Shape:
    axis, q, k, origin = _parts(doc, 4)
    return Shape(axis.text(_AXIS), q.integer(1, _WIDEST), k.integer(1, _WIDEST), origin.integer(0, _WIDEST))


def without_boxes(special: Specialisation) -> Specialisation:
    """What calls of any grid share."""
    return replace(special, boxes=None)
