"""What all tables share: their registry, the names of their constraints, and how a set of words becomes a condition."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from sqlalchemy import MetaData


def among(column: str, values: Iterable[StrEnum]) -> str:
    """That a column is one of these words; sorted, because a set's order changes from start to start and the text is compared with a migration's."""
    return f"{column} IN ({', '.join(sorted(repr(value.value) for value in values))})"


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
