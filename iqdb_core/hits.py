"""`Hit`: one result of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqdb_core.types import id_from_json, id_to_json, validate_id, validate_metadata

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from iqdb_core.types import Metadata, MetadataValue, VectorId

    class MetadataSource(Protocol):
        """Whatever can say the metadata of a row: a snapshot or the delta."""

        def metadata_at(self, row: int) -> dict[str, MetadataValue] | None:
            """Return the metadata of the record in `row`, or None when it has none."""


class Hit:
    """A record that a search found.

    Attributes:
        id: the record's id.
        distance: its distance from the query, smaller is nearer; computed in float64.
        metadata: the record's metadata, or None. It is decoded when first asked for, as of the moment
            of the search, and can still be asked for after the database was changed or closed.
    """

    __slots__ = ("_metadata", "_row", "_source", "distance", "id")

    id: VectorId
    distance: float

    def __init__(self, id: VectorId, distance: float, metadata: Metadata | None = None) -> None:
        self.id = validate_id(id)
        self.distance = float(distance)
        self._metadata = validate_metadata(metadata)
        self._source: MetadataSource | None = None
        self._row = -1

    @property
    def metadata(self) -> dict[str, MetadataValue] | None:
        """The record's metadata, or None when it has none."""
        source = self._source
        if source is not None:
            # The value is stored before the source is dropped, so that a second thread finds either.
            self._metadata = source.metadata_at(self._row)
            self._source = None
        return self._metadata

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that go through JSON: keys `id`, `distance` and `metadata`.

        An id of bytes is `{"hex": "00ff"}`, and a float that JSON lacks is `{"float": "nan"}`, "inf" or
        "-inf".
        """
        from iqdb_core.json_values import float_to_json, metadata_to_json

        return {
            "id": id_to_json(self.id),
            "distance": float_to_json(self.distance),
            "metadata": metadata_to_json(self.metadata),
        }

    @classmethod
    def from_dict(cls, value: object) -> Hit:
        """Return the hit that `to_dict` described; `metadata` may be missing.

        Raises:
            InvalidParameterError: it is no dict with these keys, or the distance is no number.
            InvalidIdError, InvalidMetadataError: the id or the metadata is not acceptable.
        """
        from iqdb_core.errors import InvalidParameterError
        from iqdb_core.json_values import float_from_json, metadata_from_json

        if not isinstance(value, dict) or {*value, "metadata"} != {"id", "distance", "metadata"}:
            raise InvalidParameterError("Hit", value, "a dict with the keys id, distance and metadata")
        try:
            distance = float_from_json(value["distance"])
        except (ValueError, OverflowError):
            raise InvalidParameterError("Hit.distance", value["distance"], "a number") from None
        return cls(id_from_json(value["id"]), distance, metadata_from_json(value.get("metadata")))

    def __repr__(self) -> str:
        return f"Hit(id={self.id!r}, distance={self.distance!r}, metadata={self.metadata!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hit):
            return NotImplemented
        same = type(self.id) is type(other.id) and self.id == other.id and self.distance == other.distance
        return same and self.metadata == other.metadata

    def __hash__(self) -> int:
        return hash((self.id, self.distance))

    def __reduce__(self) -> tuple[Any, ...]:
        return Hit, (self.id, self.distance, self.metadata)


def make_hit(record_id: VectorId, distance: float, source: MetadataSource, row: int) -> Hit:
    """Return a hit whose id is known to be valid and whose metadata waits in `source`."""
    # Ten of these a search: attributes are set without the checks, and the calls, of `__init__`.
    hit = _new(Hit)
    hit.id = record_id
    hit.distance = distance
    hit._source = source  # noqa: SLF001 - the constructor of this module
    hit._row = row  # noqa: SLF001
    return hit


class SharedHits:
    """The hits of one search, of which any number of callers get copies of their own.

    Metadata is decoded once for all of them, and copied.
    """

    __slots__ = ("_hits",)

    def __init__(self, hits: Sequence[Hit]) -> None:
        """Take over hits that nobody else has."""
        self._hits = hits

    def copies(self) -> list[Hit]:
        """Return new hits equal to those kept."""
        return [make_hit(hit.id, hit.distance, self, row) for row, hit in enumerate(self._hits)]

    def metadata_at(self, row: int) -> dict[str, MetadataValue] | None:
        """Return a copy of the metadata of one of the hits."""
        metadata = self._hits[row].metadata
        return None if metadata is None else dict(metadata)


_new = object.__new__
