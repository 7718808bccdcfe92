"""An asset of this project, downstream of a table that is maintained."""

import dagster as dg


@dg.asset(deps=[dg.AssetKey(["lake", "market", "trades"])])
def lit_streets() -> None:
    """Stands for what is made of the table; maintenance never starts it."""
