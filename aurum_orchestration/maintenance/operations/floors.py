"""Floors: values below which data could be lost, to be lowered only on purpose and with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator


@dataclass(frozen=True)
class Floor:
    """Marks a field (``Annotated[float, Floor(3, "day")]``): no value below ``least`` without an override.

    ``unit`` is the unit's name for one of it.
    """

    least: float
    unit: str


class FlooredParameters(BaseModel):
    """Mixin of parameters with floors. The override and its reason are parameters too, so plans record both."""

    override_floor: bool = Field(
        default=False, description="True: values below the floor hold. Needs override_reason; both are recorded."
    )
    override_reason: str | None = Field(default=None, description="Why a value below the floor is safe here.")

    @model_validator(mode="after")
    def _enforce_floors(self) -> Self:
        told = [message for _, message, _ in below_floor(type(self), self.model_dump())]
        if told:
            raise ValueError("; ".join(told))
        return self


def below_floor(model: type[BaseModel], given: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Of the keys given, those below their floor without an override: (key, what is wrong, what to do).

    The override has to stand among the same keys: it holds where it was written, nowhere else.
    """
    overridden = given.get("override_floor") is True and bool((given.get("override_reason") or "").strip())
    for key, field in model.model_fields.items():
        floor = next((mark for mark in field.metadata if isinstance(mark, Floor)), None)
        value = given.get(key)
        if floor is not None and value is not None and not value >= floor.least and not overridden:
            yield (
                key,
                f"{key} is {value:g}, below the floor of {floor.least:g} {floor.unit}{'' if floor.least == 1 else 's'}",
                "To go below it on purpose write override_floor: true and an override_reason at the same place.",
            )
