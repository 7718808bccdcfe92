"""What time it is where a table's files lie: a machine whose clock is ahead takes what is young for old."""

from __future__ import annotations

import time
import uuid

from pyiceberg.table import Table

from aurum_orchestration.errors import ConfigurationError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.vacuum.places import Place, place_of

CLOCKS_AGREE = 300.0
"""Seconds by which this machine's clock and the storage's may differ without a word."""


def seconds_ahead(place: Place) -> float:
    """By how much this machine's clock is ahead of the place's. Writes a file of no bytes, and deletes it."""
    probe = f"{place.root}/metadata/aurum-clock-{uuid.uuid4()}"
    written = place.write(probe, b"")
    ahead = time.time() - written.modified
    for _ in place.delete([probe]):
        pass
    return ahead


def refuse_clock_ahead(table: Table) -> None:
    """Raise ConfigurationError when this machine's clock is ahead of the storage's: ages cannot be told."""
    try:
        place = place_of(table.io, table.metadata.location)
    except UnsupportedError:  # a storage that cannot be asked
        return
    if (ahead := seconds_ahead(place)) > CLOCKS_AGREE:
        raise ConfigurationError(
            f"this machine's clock is {ahead:,.0f} s ahead of that of {place.root}: what is too old cannot be told",
            hint="Set this machine's clock, e.g. by NTP.",
        )
