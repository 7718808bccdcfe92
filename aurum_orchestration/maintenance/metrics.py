"""The catalogue of every number the package measures or reports: name, unit, meaning.

docs/metrics.md is made from it: ``python -m aurum_orchestration.maintenance.metrics > docs/metrics.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Metric(NamedTuple):
    """What a number counts (``unit``) and what it says (``meaning``)."""

    unit: str
    meaning: str


HEALTH_METRICS: Mapping[str, Metric] = {
    "data_files": Metric("files", "Live data files of the current snapshot."),
    "data_bytes": Metric("bytes", "Size of the live data files on storage."),
    "rows": Metric(
        "rows",
        "Iceberg: rows in the live data files, those that delete files hide included. PostgreSQL: live rows, as the "
        "server counts them.",
    ),
    "avg_file_bytes": Metric("bytes", "`data_bytes` over `data_files`; 0 without files."),
    "small_files": Metric(
        "files",
        "Data files below three quarters of the target size, in partitions with at least `min_input_files` of them. "
        "An upper estimate unless `exact` is 1.",
    ),
    "small_bytes": Metric(
        "bytes", "Size of the files that a compaction would rewrite. Only where manifests were read."
    ),
    "excess_files": Metric(
        "files", "Files fewer after a compaction with the table's policy. An upper estimate unless `exact` is 1."
    ),
    "partitions": Metric(
        "partitions", "Partitions with live data files; partitions or chunks of a PostgreSQL table. Only where known."
    ),
    "delete_files": Metric("files", "Live delete files of all kinds, deletion vectors included."),
    "position_delete_rows": Metric("rows", "Entries in position delete files and deletion vectors."),
    "equality_delete_files": Metric("files", "Live equality delete files. Only where it is known."),
    "equality_delete_rows": Metric("rows", "Entries in equality delete files; each may hide many rows."),
    "snapshots": Metric("snapshots", "Snapshots that the table metadata lists."),
    "expirable_snapshots": Metric(
        "snapshots", "Snapshots that a retention with the table's policy would expire when it was measured."
    ),
    "oldest_snapshot_seconds": Metric("seconds", "Age of the oldest snapshot when it was measured."),
    "history_expired": Metric("0 or 1", "1 when snapshots before the oldest one were expired, else 0."),
    "manifests": Metric("files", "Manifests of the current snapshot. Only where it is known."),
    "manifest_bytes": Metric("bytes", "Size of these manifests. Only where it is known."),
    "excess_manifests": Metric(
        "files", "Manifests fewer after a rewrite near the table's commit.manifest.target-size-bytes. Only where known."
    ),
    "metadata_bytes": Metric("bytes", "Size of the current table metadata file, which every commit writes anew."),
    "format_version": Metric("version", "Version of the Iceberg format that the table has."),
    "seconds_since_commit": Metric("seconds", "Age of the current snapshot when it was measured."),
    "chunks": Metric("chunks", "Chunks of a TimescaleDB hypertable."),
    "compressed_chunks": Metric("chunks", "Chunks of a hypertable that are in the columnstore."),
    "rowstore_chunks": Metric(
        "chunks", "Chunks that are not, though older than the compaction policy's `chunks_older_than_days`."
    ),
    "continuous_aggregates": Metric("views", "Continuous aggregates of a hypertable, without those made of them."),
    "chunk_interval_seconds": Metric(
        "seconds", "How much time a new chunk of a hypertable holds. Not with an integer column."
    ),
    "native_jobs": Metric("jobs", "Jobs of TimescaleDB's own on a hypertable."),
    "native_job_failures": Metric("jobs", "Those of `native_jobs` whose last run failed."),
    "pages": Metric("pages", "SQLite: pages of the database."),
    "free_pages": Metric("pages", "SQLite: pages that hold nothing and that a vacuum gives back."),
    "free_bytes": Metric("bytes", "SQLite: size of `free_pages`."),
    "wal_bytes_kept": Metric("bytes", "SQLite: size of the write-ahead log beside the database."),
    "dead_tuples": Metric("rows", "Dead rows that are still stored, as the server counts them."),
    "dead_tuple_ratio": Metric("share", "`dead_tuples` over dead and live rows."),
    "table_bytes": Metric("bytes", "Size of the table with its TOAST, without indexes; of all partitions or chunks."),
    "index_bytes": Metric("bytes", "Size of its indexes."),
    "indexes": Metric("indexes", "Indexes of the table, of its partitions or chunks."),
    "table_bloat_bytes": Metric(
        "bytes", "Estimate of the space in the table that rows do not use. Only where analyzed."
    ),
    "table_bloat_ratio": Metric("share", "`table_bloat_bytes` over the size of what was estimated."),
    "index_bloat_bytes": Metric("bytes", "Estimate of the space in b-tree indexes that entries do not use."),
    "index_bloat_ratio": Metric("share", "`index_bloat_bytes` over the size of the indexes that were estimated."),
    "worst_index_bloat_bytes": Metric("bytes", "The same of the index that has most of it."),
    "worst_index_bloat_ratio": Metric("share", "Share of unused space in that index."),
    "xid_age": Metric("transactions", "Transactions since the oldest row that is not frozen."),
    "xid_age_share": Metric(
        "share", "`xid_age` over the table's autovacuum_freeze_max_age; at 1 a forced vacuum comes."
    ),
    "multixact_age": Metric("multixacts", "The same in multixact ids."),
    "seconds_since_vacuum": Metric(
        "seconds", "Age of the last vacuum, autovacuum included. Absent: never, or forgotten."
    ),
    "seconds_since_analyze": Metric(
        "seconds", "Age of the last ANALYZE, of whichever kind. Absent: never, or forgotten."
    ),
    "autovacuum_debt": Metric(
        "times", "`dead_tuples` over those at which autovacuum comes: threshold + factor x rows."
    ),
    "rows_changed_since_analyze": Metric("rows", "Rows inserted, updated or deleted since the last ANALYZE."),
    "analyze_debt": Metric("times", "The same over those at which autovacuum analyzes."),
    "invalid_indexes": Metric(
        "indexes", "Indexes that a killed CREATE or REINDEX CONCURRENTLY left; written, never read."
    ),
    "unused_index_bytes": Metric(
        "bytes", "Size of indexes that no query used since statistics began, constraints' apart."
    ),
    "is_materialized_view": Metric("0 or 1", "1 for a materialized view; absent for everything else."),
    "database_bytes": Metric("bytes", "Size of the database."),
    "connections": Metric("connections", "Clients connected to the database, us included."),
    "connections_share": Metric("share", "Clients of the whole server over max_connections."),
    "longest_transaction_seconds": Metric("seconds", "Age of the oldest transaction of a client in the database."),
    "wraparound_share": Metric(
        "share", "Age of the oldest transaction or multixact id over 2^31, where the server stops."
    ),
    "cache_hit_ratio": Metric("share", "Blocks found in shared buffers over blocks asked for, since statistics began."),
    "materialized_views": Metric("views", "Materialized views of the database."),
    "cleanup_groups": Metric("groups", "Rule groups that fleet.yaml has for `cleanup`; of a table, those about it."),
    "logs_groups": Metric("groups", "Rule groups that fleet.yaml has for `logs`; of a table, those about it."),
    "sessions_groups": Metric("groups", "Rule groups that fleet.yaml has for `sessions`; of a table, those about it."),
    "exact": Metric("0 or 1", "1 when manifests were read, 0 when file numbers are estimates from the summary."),
    "debt_score": Metric("points", "0 (nothing to win) to 100, from the numbers above: [planner.md](planner.md)."),
}
"""Numbers about a table (``TableHealth.metrics``), plus the score made of them."""

OPERATION_METRICS: Mapping[str, Metric] = {
    "files_rewritten": Metric("files", "Data files that the operation replaced."),
    "files_added": Metric("files", "Data files written in their place."),
    "bytes_rewritten": Metric("bytes", "Size of the replaced files."),
    "bytes_added": Metric("bytes", "Size of the files written."),
    "rows_rewritten": Metric("rows", "Rows in the replaced files."),
    "row_groups_copied": Metric("row groups", "Row groups taken over byte for byte, not decoded."),
    "bytes_copied": Metric("bytes", "Size of the row groups taken over byte for byte."),
    "delete_files_removed": Metric("files", "Delete files that left the table: no data file needs them any more."),
    "deleted_rows_folded": Metric("rows", "Rows that delete files hid and that the written files no longer have."),
    "files_deleted": Metric("files", "Files removed from storage."),
    "bytes_deleted": Metric("bytes", "Size of the files removed from storage."),
    "files_left": Metric("files", "Files that could not be removed or moved; the next vacuum tries again."),
    "rows_deleted": Metric(
        "rows", "Rows removed from the table; of files that leave as a whole also those that delete files hid already."
    ),
    "rows_processed": Metric("rows", "Rows that a rule group's operation took out of their tables; as `rows_deleted`."),
    "rows_archived": Metric("rows", "Rows copied to an archive table or into Parquet files before they were deleted."),
    "rows_left": Metric("rows", "Old rows that stay until the next run, because others had them locked."),
    "rows_cascaded": Metric("rows", "Rows of other tables that referred to old rows when the plan was made."),
    "rows_moved": Metric("rows", "Rows that went from the default partition into partitions of their own."),
    "batches": Metric("transactions", "Transactions that deleted rows, each complete on its own."),
    "wal_bytes": Metric("bytes", "Write-ahead log that the server wrote meanwhile, that of others included."),
    "partitions_created": Metric("partitions", "Partitions made ahead of their time, or for rows of the default one."),
    "partitions_detached": Metric("partitions", "Partitions that are old as a whole, taken out of their table."),
    "partitions_dropped": Metric("partitions", "Detached partitions dropped after their delay."),
    "files_removed": Metric(
        "files", "Data files taken out of main as a whole; on storage until their snapshots expire."
    ),
    "bytes_removed": Metric("bytes", "Size of the data files taken out of main."),
    "old_rows_left_at_most": Metric(
        "rows", "Rows of files that stay though some of them may be past their time: no more than these are left."
    ),
    "snapshots_expired": Metric("snapshots", "Snapshots taken out of the table's metadata."),
    "files_quarantined": Metric("files", "Orphan files set aside."),
    "bytes_quarantined": Metric("bytes", "Size of the orphan files set aside."),
    "files_restored": Metric("files", "Files put back from quarantine."),
    "bytes_restored": Metric("bytes", "Size of the files put back from quarantine."),
    "manifests_rewritten": Metric("files", "Manifests that the operation replaced."),
    "manifests_added": Metric("files", "Manifests written in their place."),
    "manifest_bytes_rewritten": Metric("bytes", "Size of the replaced manifests."),
    "manifest_bytes_added": Metric("bytes", "Size of the manifests written."),
    "entries": Metric("entries", "Live files listed in the manifests that were rewritten."),
    "refs_created": Metric("refs", "Branches and tags that the operation made."),
    "refs_removed": Metric("refs", "Branches and tags removed: past their own age, or replaced by newer backups."),
    "files_checked": Metric("files", "Data and delete files of the snapshot that were looked for and found."),
    "bytes_checked": Metric("bytes", "Size of these files."),
    "dead_tuples_removed": Metric("rows", "Dead rows whose space can be used again."),
    "dead_tuples_left": Metric("rows", "Dead rows that somebody may still see; the warning names who."),
    "bytes_freed": Metric("bytes", "Bytes that the table and its indexes take less on disk."),
    "xids_frozen": Metric("transactions", "By how much the age of the oldest row that is not frozen went down."),
    "indexes_rebuilt": Metric("indexes", "Indexes built anew beside the old ones."),
    "leftovers_dropped": Metric("objects", "What killed runs left in the database, dropped."),
    "views_refreshed": Metric("views", "Materialized views refreshed."),
    "tables_rewritten": Metric("tables", "Tables written anew, by pg_repack or VACUUM FULL."),
    "duplicate_index_bytes": Metric("bytes", "Size of indexes that another of the same definition makes needless."),
    "integrity_errors": Metric("errors", "SQLite: what its integrity check finds wrong."),
    "chunks_dropped": Metric("chunks", "Chunks of a hypertable dropped because all their rows were too old."),
    "chunks_analyzed": Metric("chunks", "Chunks of a hypertable whose statistics were collected anew."),
    "chunks_rewritten": Metric("chunks", "Chunks, or pairs, moved to the columnstore, merged or reordered."),
    "chunk_intervals_set": Metric("hypertables", "1 when the interval of new chunks was changed."),
    "tables_analyzed": Metric("tables", "Tables whose statistics were collected anew."),
    "bloat_bytes": Metric(
        "bytes", "Space in the table and its b-tree indexes that nothing uses: estimated, or `exact`ly."
    ),
    "reports": Metric("reports", "Reports made; each is in the detail of its step."),
    "backups_made": Metric("backups", "Backups of a database that were made, verified and published."),
    "backup_bytes": Metric("bytes", "Size of the backup as it lies there."),
    "backup_objects": Metric("objects", "Entries in the backup's table of contents."),
    "backups_removed": Metric("backups", "Older backups deleted, after the newer one was verified."),
    "columns": Metric("columns", "Primitive columns in the report, nested ones included."),
    "columns_counted": Metric("columns", "Columns whose distinct values were counted over all rows and stored."),
    "statistics_bytes": Metric("bytes", "Size of the statistics file written."),
    "statistics_taken_back": Metric("files", "Statistics files that an undo detached from their snapshot."),
    "reclaimable_bytes": Metric("bytes", "Bytes that can be won back, added up over the parts of the report."),
    "reclaimable_files": Metric("files", "Files fewer when they are."),
    "live_bytes": Metric("bytes", "Size of the live data and delete files and of the manifests that list them."),
    "snapshots_taken_back": Metric("snapshots", "Snapshots that an undo took off the main branch."),
    "specs_changed": Metric("specs", "Changes of the table's partition spec."),
    "groups": Metric("groups", "Groups of files rewritten, a commit each."),
    "groups_left": Metric("groups", "Planned groups that the operation left undone; the next run carries on."),
    "verify_seconds": Metric("seconds", "Trino: what its statements that prove a rewrite took."),
    "verify_bytes": Metric("bytes", "Trino: what these statements read."),
    "cpu_seconds": Metric("seconds", "Trino: CPU time of the statements that rewrite."),
    "commit_retries": Metric("commits", "Commits tried again, unchanged, because another writer was faster."),
    "conflicts_retried": Metric("plans", "Plans made anew because another writer touched what they rewrite."),
}
"""Numbers about one operation (``MaintenanceResult.metrics``)."""

METRICS: Mapping[str, Metric] = {**HEALTH_METRICS, **OPERATION_METRICS}
"""Every metric by name."""


def metrics_page() -> str:
    """The text of docs/metrics.md."""
    return "\n".join(
        [
            "# Metrics",
            "",
            "Every number that `aurum status`, `aurum run`, `aurum history` and the asset pages in Dagster show.",
            "A number that an engine cannot tell is absent, never 0.",
            "",
            "<!-- Made by `python -m aurum_orchestration.maintenance.metrics > docs/metrics.md`. Change it there. -->",
            "",
            "## Health of a table",
            "",
            *_rows(HEALTH_METRICS),
            "",
            "## What an operation did",
            "",
            *_rows(OPERATION_METRICS),
            "",
        ]
    )


def _rows(metrics: Mapping[str, Metric]) -> list[str]:
    rows = [f"| `{name}` | {metric.unit} | {metric.meaning} |" for name, metric in metrics.items()]
    return ["| Name | Unit | Meaning |", "|---|---|---|", *rows]


if __name__ == "__main__":
    print(metrics_page(), end="")
