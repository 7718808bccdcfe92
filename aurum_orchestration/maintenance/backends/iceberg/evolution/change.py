"""A partition spec to be committed: the updates, and the table as it will be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyiceberg.exceptions import ValidationError
from pyiceberg.table import Table
from pyiceberg.table.update import AssertCurrentSchemaId, TableRequirement, TableUpdate, update_table_metadata
from pyiceberg.table.update.spec import UpdateSpec

from aurum_orchestration.errors import RequestError
from aurum_orchestration.maintenance.backends.iceberg.evolution.terms import Asked, change_of
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters


@dataclass(frozen=True)
class Evolution:
    """``updates`` under ``requirements`` make of ``before`` the table ``after``, which is not committed yet.

    Without updates the spec is there already, and both are the same.
    """

    before: Table
    after: Table
    updates: Sequence[TableUpdate] = ()
    requirements: Sequence[TableRequirement] = ()


def evolution_of(table: Table, parameters: PartitionEvolutionParameters) -> Evolution:
    """What the parameters ask of a table. Raises RequestError for a spec that cannot be."""
    metadata = table.metadata
    former = {field.name for spec in metadata.specs().values() for field in spec.fields}
    asked = Asked(parameters.spec, parameters.add or (), parameters.remove or ())
    change = change_of(metadata.spec(), metadata.schema(), asked, former)
    if not change.remove and not change.add:
        return Evolution(table, table)
    update = UpdateSpec(table.transaction())
    try:
        for name in change.remove:
            update.remove_field(name)
        for term in change.add:
            update.add_field(term.column, term.transform, term.name)
        # sent by our own commit, which reads back when in doubt
        updates, requirements = update._commit()
    except (ValueError, ValidationError) as error:
        raise RequestError(f"this spec cannot be: {error}", hint='Give the field a name: "day(ts) as NAME".') from error
    if not updates:
        return Evolution(table, table)
    made = update_table_metadata(metadata, updates)
    after = Table(table.name(), made, table.metadata_location, table.io, table.catalog)
    schema = AssertCurrentSchemaId(current_schema_id=metadata.current_schema_id)
    return Evolution(table, after, updates, (*requirements, schema))
