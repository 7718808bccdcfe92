"""The role of docs/postgres.md: everything works with it, and nothing of it is there in vain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from aurum_orchestration_tests.integration.postgres.support import TRADES, Pg, opened

DOCS = Path(__file__).parents[3] / "docs" / "postgres.md"
MAINTAIN = 17


@pytest.fixture
def role(pg: Pg) -> Iterator[Pg]:
    """The database as a role that was made with the SQL of the docs sees it."""
    pg.script(
        "CREATE TABLE audit_log (id bigserial PRIMARY KEY, created_at timestamptz NOT NULL);"
        "INSERT INTO audit_log (created_at) SELECT now() - g * interval '1 day' FROM generate_series(1, 200) g;"
        "CREATE MATERIALIZED VIEW curves AS SELECT curve, count(*) AS n FROM trades GROUP BY 1"
    )
    name = f"role_{pg.name}"
    found = re.search(r"```sql\n(CREATE ROLE aurum.*?)```", DOCS.read_text(), re.DOTALL)
    assert found, "docs/postgres.md has the role"
    text = re.sub(r"^--.*\n", "", found[1], flags=re.MULTILINE)
    text = re.sub(r"\baurum\b", name, text).replace("DATABASE market", f"DATABASE {pg.name}")
    owner = f"owner_{pg.name}"
    if pg.major < MAINTAIN:  # what the docs say of versions before
        text, without = re.subn(r"GRANT pg_maintain TO \w+;\n", f"GRANT {owner} TO {name};\n", text)
        assert without == 1
    try:
        pg.sql(f"CREATE ROLE {owner}", f"GRANT CREATE ON SCHEMA public TO {owner}")
        for name_of_table in ("trades", "audit_log", "curves"):
            pg.sql(f"ALTER TABLE {name_of_table} OWNER TO {owner}")
        pg.script(text.replace(";\n", ";"))
        yield Pg(psycopg.conninfo.make_conninfo(pg.dsn, user=name), pg.name, pg.home)
    finally:
        pg.sql(f"DROP OWNED BY {name}", f"DROP OWNED BY {owner} CASCADE", f"DROP ROLE {name}, {owner}")


def test_the_role_of_the_docs_can_do_all_of_it(pg: Pg, role: Pg, tmp_path: Path) -> None:
    pg.sql("DELETE FROM trades WHERE id % 2 = 0", "ANALYZE")
    database = f"pg.{role.name}"
    groups = "    logs:\n      - {title: Audit Logs, table: public.audit_log, time_column: created_at, age_days: 90}\n"
    done = {
        "vacuum": role.run("vacuum"),
        "reindex": role.run("reindex", scope="table"),
        "views": role.run("views", database, allow_plain=True),
        "stats": role.run("stats"),
        "bloat": role.run("bloat"),
        "logs": role.run("logs", database, extra=groups),
        "backup": role.run("backup", database, path=str(tmp_path / "backups"), verify="restore"),
    }
    assert {name: (one.status, one.problem) for name, one in done.items()} == dict.fromkeys(done, ("completed", None))
    assert done["logs"].metrics["rows_deleted"] == 111
    assert done["vacuum"].metrics["dead_tuples_removed"] > 0
    with opened(role.backend()) as backend:
        told = {one.check: one for one in backend.checkup(backend.discover([]))}
    assert told["rights"].status == "ok"
    assert role.health(TRADES)[0].problem is None
