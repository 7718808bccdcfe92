"""What a backup would write, with which program, and which older ones it would replace."""

from __future__ import annotations

from datetime import UTC, datetime

from aurum_orchestration.errors import AccessDeniedError
from aurum_orchestration.maintenance.backends.backup_place import Place, refuse_secret
from aurum_orchestration.maintenance.backends.postgres.backup.tools import Tools, find_tools
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.horizon import long_transactions
from aurum_orchestration.maintenance.backends.postgres.table import Database
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.backup import BackupParameters
from aurum_orchestration.maintenance.planner.words import count, size

ENDINGS = {"custom": ".dump", "directory": "", "plain": ".sql"}

_RISK = (
    "None for rows: pg_dump reads one snapshot, under the lock that every SELECT takes. Rows that die meanwhile stay "
    "until it ends."
)
_UNREADABLE = """
SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT (has_schema_privilege(n.oid, 'USAGE')
            AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                 ELSE has_table_privilege(c.oid, 'SELECT') END)
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1 LIMIT 3
"""
_BLOCKERS = """
SELECT DISTINCT a.pid, a.usename::text AS "user", a.application_name AS application, c.relname::text AS name
  FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation
 WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND c.relkind IN ('r', 'p', 'm')
 ORDER BY 1 LIMIT 5
"""


def plan_backup(database: Database, parameters: BackupParameters) -> MaintenancePlan:
    """One dump, and the removal of older ones. No step where no path is set.

    Raises UnsupportedError without a pg_dump that is new enough, AccessDeniedError where the role may not read all.
    """
    given = parameters.model_dump()
    if parameters.path is None:
        told = "no path is set: the policy backup: {path: ...} says in which folder or bucket backups are to lie"
        return database.plan(OperationType.BACKUP, given, told, [])
    refuse_secret(parameters.path)
    tools = find_tools(database.server.major)
    if parameters.verify == "restore":
        database.server.refuse_writes("backup with verify: restore")
    with database.look("backup") as session:
        place = place_of(session, database, parameters)
        _require_readable(session, database)
        bytes_ = session.value("SELECT pg_database_size(current_database())")
        warnings = [*long_transactions(session), *_blockers(session)]
    name = place.new_name(datetime.now(UTC), ending(place, parameters))
    reason = f"a backup of {size(bytes_)} is due" if bytes_ else "a backup is due"
    steps = [_dump(place, parameters, tools, name, float(bytes_))]
    older = [one.name for one in place.kept()][parameters.keep_last - 1 :]
    if older:
        steps.append(
            PlanStep(
                number=2,
                action="prune",
                summary=f"Delete {count(len(older), 'older backup')} in {place.root}, once the new one is verified.",
                risk=f"The newest {parameters.keep_last} stay; only what backups of this database wrote is touched.",
                detail={"remove": older, "keep_last": parameters.keep_last},
            )
        )
    return database.plan(OperationType.BACKUP, given, reason, steps, warnings)


def place_of(session: Session, database: Database, parameters: BackupParameters) -> Place:
    """Where the backups of the database lie."""
    info = session.connection.info
    source = f"{info.host or 'localhost'}:{info.port}/{database.server.database}"
    return Place(parameters.path or "", parameters.file_name, database.server.database, source)


def ending(place: Place, parameters: BackupParameters) -> str:
    """What the name of a backup ends in: a folder becomes one tar where it cannot be renamed as a whole."""
    return ".tar" if parameters.format == "directory" and place.local is None else ENDINGS[parameters.format]


def dump_command(tools: Tools, parameters: BackupParameters, lock_timeout: float) -> list[str]:
    """The pg_dump, without connection, snapshot and file."""
    command = [tools["pg_dump"], "--no-password", f"--format={parameters.format}"]
    command += [f"--lock-wait-timeout={int(lock_timeout * 1000)}"]
    if parameters.format != "plain":
        command.append(f"--compress={parameters.compress}")
    if parameters.format == "directory":
        command.append(f"--jobs={parameters.jobs}")
    return command


def _dump(place: Place, parameters: BackupParameters, tools: Tools, name: str, bytes_: float) -> PlanStep:
    verified = (
        "restore it into a scratch database and compare row counts"
        if parameters.verify == "restore"
        else "read it whole"
    )
    return PlanStep(
        number=1,
        action="dump",
        summary=f"Dump the database to {place.root}/{name} with pg_dump {tools.major}, {verified}.",
        risk=_RISK,
        detail={
            "file": name,
            "path": place.root,
            "program": tools["pg_dump"],
            "format": parameters.format,
            "verify": parameters.verify,
            "database_bytes": bytes_,
        },
    )


def _require_readable(session: Session, database: Database) -> None:
    closed = [row[0] for row in session.tuples(_UNREADABLE)]
    if closed:
        raise AccessDeniedError(
            f"role {database.server.user} may not read {', '.join(closed)}: a backup without them would be none",
            table=str(database.id),
            operation=OperationType.BACKUP,
            hint=f"GRANT pg_read_all_data TO {database.server.user}; docs/postgres.md has the SQL for such a role.",
        )


def _blockers(session: Session) -> list[str]:
    return [
        f"pid {row.pid} (user {row.user}{f', {row.application}' if row.application else ''}) has {row.name} "
        "locked for itself"
        for row in session.rows(_BLOCKERS)
    ]
