"""The database behind MLflow, where it is a file or a server of SQL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

__all__ = ["sqlite_folder", "sqlite_uri", "try_once"]


def sqlite_uri(path: Path) -> str:
    """Return the address of a SQLite file, whatever its folders are called."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def sqlite_folder(uri: str | None) -> Path | None:
    """Return the folder of a SQLite address, which is made; None for another kind."""
    if uri is None or not uri.startswith("sqlite:///"):
        return None
    path, _, options = uri.removeprefix("sqlite:///").partition("?")
    if "/" in options:
        raise ValueError("the ? in the name of a folder ends its path; write %3F for it")
    folder = Path(unquote(path)).resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def try_once(uri: str) -> None:
    """Open a database, which MLflow itself tries for two minutes; an error is the caller's."""
    from mlflow.store.db.db_types import DATABASE_ENGINES
    from sqlalchemy import create_engine, inspect

    if uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES:
        engine = create_engine(uri)
        try:
            inspect(engine).get_table_names()
        finally:
            engine.dispose()
