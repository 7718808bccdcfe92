"""No commit without the lease: asked in the last moment before the catalog is, however the commit came about.

The flow asks before each unit, but writing a commit's manifests takes time, and a commit that another writer was
faster than is built again: a process that stood still meanwhile may have lost its lease to another run. After
this, only the catalog's own comparison is left, which refuses whatever was built on a state that is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from pyiceberg.table import Table


def fenced(table: Table, still_mine: Callable[[], None]) -> Table:
    """The table, whose every commit calls ``still_mine`` first; so do those of the same table loaded again from it.

    ``still_mine`` raises LeaseLostError when the commit must not take place.
    """
    catalog = copy(table.catalog)  # its connections are shared; other users of the original are not fenced
    commit = catalog.commit_table

    def commit_table(*arguments: Any, **named: Any) -> Any:
        still_mine()
        return commit(*arguments, **named)

    setattr(catalog, "commit_table", commit_table)  # noqa: B010 - a method that is replaced on one object
    table.catalog = catalog
    return table
