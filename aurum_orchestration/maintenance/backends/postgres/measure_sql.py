"""The statements that measure: all tables in one, the database in another.

The estimates of unused space follow the idea of ioguix's pgsql-bloat-estimation (table_bloat.sql and
btree_bloat.sql, BSD licence), written anew: a row is taken to be as wide as pg_statistic says its columns are on
average, with headers and alignment; what the rows would fill at the fill factor is compared with what is there.
Two things differ: sizes are those of the files now, and a b-tree with duplicates is taken to keep each key once
for many rows, as PostgreSQL has done since 13.

To ask for the size of a file means to open the table, which costs more than all else here, and waits for whoever
holds it exclusively. So the size that the last VACUUM or ANALYZE found counts for those that are held, and for
those that have not changed by more than :data:`STEADY` since.
"""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

_STATISTIC = """
  SELECT s.starelid AS relid, s.staattnum AS attnum, s.stanullfrac AS nulls, s.stawidth AS width,
         s.stadistinct AS distincts
    FROM pg_statistic s
   WHERE NOT s.stainherit{only}
"""

_ONLY = " AND s.starelid = ANY (ARRAY(SELECT oid FROM known))"
"""For a few tables: measured, from some hundred on reading all of pg_statistic is faster."""

FEW = 200
"""So many tables are few."""

FOR_MANY = """
SELECT set_config('jit', 'off', false), set_config('work_mem', '64MB', false),
       set_config('enable_mergejoin', 'off', false),
       set_config('enable_nestloop', CASE WHEN %s * 10 > reltuples THEN 'off' ELSE 'on' END, false)
  FROM pg_class WHERE oid = 'pg_class'::regclass
"""
"""What a session is told before it measures many tables: their count is the parameter.

From a tenth of the catalog on, reading all of it once is faster than looking everything up, which the planner,
without statistics on the names it is given, does not see. To compile the statement would take longer than to run it.
"""

STEADY = 0.02
"""Share of a table's rows: where no more have changed since ANALYZE, its size is still the one it had then."""

_STATS = """
  SELECT a.attrelid AS relid, a.attnum, s.null_frac AS nulls, s.avg_width AS width, s.n_distinct AS distincts
    FROM pg_stats s
    JOIN pg_namespace n ON n.nspname = s.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.tablename
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = s.attname
   WHERE NOT s.inherited
"""
"""The same for a role that may not read pg_statistic: slower, and only for tables that it may read.

docs/postgres.md has the right that spares it.
"""

PARTS: LiteralString = "SELECT inhparent AS parent, inhrelid AS child, false AS store FROM pg_inherits"
STORES: LiteralString = """
 UNION ALL
SELECT relid::oid, compress_relid::oid, true
  FROM _timescaledb_catalog.compression_settings WHERE compress_relid IS NOT NULL
"""
"""What a table is made of; where TimescaleDB's catalog tells it, the columnstore of a chunk besides."""

_SIZED = """
WITH RECURSIVE wanted AS MATERIALIZED (
  SELECT w.ordinal, c.oid, c.relkind
    FROM unnest(%(schemas)s::text[], %(names)s::text[]) WITH ORDINALITY AS w(schema, name, ordinal)
    JOIN pg_namespace n ON n.nspname = w.schema::name
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name::name
   WHERE c.relkind IN ('r', 'p', 'm')
),
-- a partitioned table is as its partitions are, a hypertable as its chunks, a chunk as the table of its columnstore
part(ordinal, oid, relkind, store) AS (
  SELECT ordinal, oid, relkind, false FROM wanted
  UNION ALL
  SELECT p.ordinal, i.child, c.relkind, i.store
    FROM part p
    JOIN ({children}) i ON i.parent = p.oid
    JOIN pg_class c ON c.oid = i.child
   WHERE p.relkind = 'p' OR c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = '_timescaledb_internal')
),
locked AS MATERIALIZED (
  SELECT DISTINCT relation FROM pg_locks
   WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND relation IS NOT NULL
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
),
setting AS MATERIALIZED (
  SELECT current_setting('block_size')::float8 AS block,
         current_setting('autovacuum_vacuum_threshold')::float8 AS vacuum_threshold,
         current_setting('autovacuum_vacuum_scale_factor')::float8 AS vacuum_factor,
         current_setting('autovacuum_analyze_threshold')::float8 AS analyze_threshold,
         current_setting('autovacuum_analyze_scale_factor')::float8 AS analyze_factor,
         current_setting('autovacuum_freeze_max_age')::float8 AS freeze_max_age
),
told AS MATERIALIZED (
  SELECT c.oid, p.store, c.relkind, c.relnatts, c.relfilenode, c.relpages, c.reltuples, c.reltoastrelid, c.reloptions,
         t.relpages AS toast_pages,
         -- ANALYZE does not look at a toast table
         greatest(pg_stat_get_last_vacuum_time(t.oid), pg_stat_get_last_autovacuum_time(t.oid)) IS NOT NULL
           AND pg_stat_get_ins_since_vacuum(t.oid) + pg_stat_get_dead_tuples(t.oid) <= {steady} * t.reltuples
           AS toast_steady,
         pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_dead_tuples(c.oid) AS dead,
         pg_stat_get_mod_since_analyze(c.oid) AS changed,
         pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
           + pg_stat_get_tuples_deleted(c.oid) AS written,
         greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)) AS vacuumed,
         greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)) AS analyzed,
         CASE WHEN c.relkind <> 'p' THEN greatest(age(c.relfrozenxid), age(nullif(t.relfrozenxid, '0'))) END AS xid_age,
         CASE WHEN c.relkind <> 'p'
              THEN greatest(mxid_age(c.relminmxid), mxid_age(nullif(t.relminmxid, '0'))) END AS multixact_age
    FROM (SELECT oid, bool_or(store) AS store FROM part GROUP BY oid) p
    JOIN pg_class c USING (oid)
    LEFT JOIN pg_class t ON t.oid = c.reltoastrelid AND t.relkind = 't'
),
rel AS MATERIALIZED (
  SELECT r.*,
         CASE WHEN r.relkind = 'p' THEN 0
              WHEN r.steady OR r.oid IN (SELECT relation FROM locked) THEN r.relpages * s.block
              ELSE pg_relation_size(r.oid) END AS heap_bytes,
         CASE WHEN r.reltoastrelid = 0 THEN 0
              WHEN r.toast_steady OR r.oid IN (SELECT relation FROM locked) THEN r.toast_pages * s.block
              ELSE pg_relation_size(r.reltoastrelid) END AS toast_bytes
    FROM (SELECT told.*,
                 analyzed IS NOT NULL AND reltuples >= 0 AND changed + dead <= {steady} * reltuples AS steady
            FROM told) r
   CROSS JOIN setting s
),
own AS MATERIALIZED (
  SELECT r.oid,
         max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_vacuum_threshold')::float8 AS vacuum_threshold,
         max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_vacuum_scale_factor')::float8 AS vacuum_factor,
         max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_analyze_threshold')::float8 AS analyze_threshold,
         max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_analyze_scale_factor')::float8 AS analyze_factor,
         max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_freeze_max_age')::float8 AS freeze_max_age,
         max(o.option_value) FILTER (WHERE o.option_name = 'fillfactor')::float8 AS fillfactor,
         max(o.option_value) FILTER (WHERE o.option_name = 'vacuum_index_cleanup') AS index_cleanup
    FROM rel r, pg_options_to_table(r.reloptions) o
   WHERE r.reloptions IS NOT NULL
   GROUP BY r.oid
),
known AS (
  SELECT oid FROM rel
   UNION ALL
  SELECT i.indexrelid FROM rel r JOIN pg_index i ON i.indrelid = r.oid WHERE i.indexprs IS NOT NULL
),
stat AS MATERIALIZED ({statistic}),
-- how wide a row is: header of 23 bytes (and a bitmap for nulls), aligned to 8, plus its line pointer of 4
width AS (
  SELECT relid AS oid, sum((1 - nulls) * width) AS data, max(nulls) > 0 AS nullable FROM stat GROUP BY relid
),
tab AS MATERIALIZED (
  SELECT t.*,
         -- of compressed columns there are no statistics, so nothing says how wide the rows are
         CASE WHEN t.row_bytes IS NOT NULL AND t.heap_bytes > 8 * t.block AND NOT t.store
              THEN greatest(0, t.heap_bytes - t.block
                     * ceil(t.tuples / greatest(1, floor((t.block - 24) * t.fill / t.row_bytes))))
         END AS bloat
    FROM (
      SELECT r.*, s.block,
             -- statistics are lost with a crash or a copy; reltuples is not
             -- what was converted or truncated since the statistics has no page left
             CASE WHEN r.heap_bytes = 0 AND r.relkind <> 'p' AND r.oid NOT IN (SELECT relation FROM locked) THEN 0
                  WHEN r.live > 0 OR r.vacuumed IS NOT NULL OR r.analyzed IS NOT NULL THEN r.live
                  ELSE greatest(r.reltuples, 0) END::float8 AS tuples,
             coalesce(o.vacuum_threshold, s.vacuum_threshold) AS vacuum_threshold,
             coalesce(o.vacuum_factor, s.vacuum_factor) AS vacuum_factor,
             coalesce(o.analyze_threshold, s.analyze_threshold) AS analyze_threshold,
             coalesce(o.analyze_factor, s.analyze_factor) AS analyze_factor,
             coalesce(o.freeze_max_age, s.freeze_max_age) AS freeze_limit,
             r.steady AND o.index_cleanup IS NULL AS indexes_steady,
             4 + 24 + CASE WHEN w.nullable THEN 8 * ceil(greatest(r.relnatts - 8, 0) / 64.0::float8) ELSE 0 END
               + 8 * ceil(w.data / 8) AS row_bytes,
             coalesce(o.fillfactor, 100) / 100 AS fill
        FROM rel r
       CROSS JOIN setting s
        LEFT JOIN own o USING (oid)
        LEFT JOIN width w USING (oid)
    ) t
),
idx AS MATERIALIZED (
  SELECT i.indexrelid, i.indrelid, i.indkey, i.indnatts,
         i.indisvalid AND i.indisready AS valid, i.indisunique AS is_unique,
         c.relam = 403 AS btree, t.block,  -- 403 is that of every PostgreSQL
         CASE WHEN c.reltuples < 0 THEN t.tuples ELSE least(c.reltuples, t.tuples) END AS tuples,
         -- VACUUM (ANALYZE) does not always look at the indexes: then they have another count than the table
         CASE WHEN t.indexes_steady AND abs(c.reltuples - t.reltuples) <= {steady} * t.reltuples
                OR i.indrelid IN (SELECT relation FROM locked) OR i.indexrelid IN (SELECT relation FROM locked)
              THEN c.relpages * t.block ELSE pg_relation_size(i.indexrelid) END AS bytes,
         CASE WHEN c.reloptions IS NULL THEN 0.9::float8 ELSE
           coalesce((SELECT option_value::float8 / 100 FROM pg_options_to_table(c.reloptions)
                      WHERE option_name = 'fillfactor'), 0.9) END AS fill,
         i.indisunique OR i.indisprimary OR i.indisexclusion OR i.indisreplident OR i.indisclustered AS needed
    FROM tab t
    JOIN pg_index i ON i.indrelid = t.oid
    JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
),
-- an entry: header of 8 bytes (and a bitmap for nulls), aligned, plus its line pointer of 4
entry AS (
  SELECT k.indexrelid, count(*) AS columns,
         4 + 8 + CASE WHEN max(st.nulls) > 0 THEN 8 ELSE 0 END + 8 * ceil(sum((1 - st.nulls) * st.width) / 8) AS bytes,
         min(CASE WHEN st.distincts < 0 THEN NULL ELSE nullif(st.distincts, 0) END) AS distincts
    FROM (SELECT indexrelid, indrelid, unnest(indkey) AS attnum, generate_subscripts(indkey, 1) + 1 AS place
            FROM idx WHERE btree AND bytes > 8 * block) k
    JOIN stat st ON st.relid = CASE WHEN k.attnum = 0 THEN k.indexrelid ELSE k.indrelid END
                AND st.attnum = CASE WHEN k.attnum = 0 THEN k.place ELSE k.attnum END
   GROUP BY k.indexrelid
),
sized AS (
  SELECT i.*,
         CASE WHEN e.columns = i.indnatts
              THEN greatest(0, i.bytes - i.block * (1 + ceil(greatest(i.tuples, 0) * CASE
                     WHEN i.is_unique OR i.indnatts > 1 OR e.distincts IS NULL OR i.tuples <= e.distincts THEN e.bytes
                     ELSE 6 + e.bytes / least(i.tuples / e.distincts, 400) END
                     / ((i.block - 40) * i.fill)))) END AS bloat
    FROM idx i
    LEFT JOIN entry e USING (indexrelid)
)
"""
"""Up to the size and the unused space of every table (``tab``) and of every index (``sized``)."""

_TABLES = """,
indexes AS (
  SELECT indrelid AS oid, count(*)::float8 AS indexes, sum(bytes) AS bytes,
         (count(*) FILTER (WHERE NOT valid))::float8 AS invalid,
         sum(bloat) AS bloat, sum(bytes) FILTER (WHERE bloat IS NOT NULL) AS judged_bytes,
         max(ARRAY[bloat, bloat / bytes]) FILTER (WHERE bloat IS NOT NULL) AS worst,
         coalesce(sum(CASE WHEN valid AND NOT needed AND pg_stat_get_numscans(indexrelid) = 0 THEN bytes END), 0)
           AS unused
    FROM sized
   GROUP BY indrelid
),
added AS (
  SELECT p.ordinal,
         (count(*) FILTER (WHERE t.relkind <> 'p' AND NOT p.store) - 1)::float8 AS parts,
         bool_or(t.relkind = 'p') AS has_parts, bool_or(t.relkind = 'm') AS is_view,
         coalesce(sum(t.tuples) FILTER (WHERE NOT p.store), 0) AS rows, sum(t.dead::float8) AS dead_tuples,
         sum(t.heap_bytes + t.toast_bytes) AS table_bytes, sum(t.heap_bytes) AS heap_bytes,
         sum(i.bytes) AS index_bytes, sum(i.indexes) AS indexes,
         sum(t.bloat) AS table_bloat_bytes, sum(t.heap_bytes) FILTER (WHERE t.bloat IS NOT NULL) AS judged_bytes,
         sum(i.bloat) AS index_bloat_bytes, sum(i.judged_bytes) AS judged_index_bytes, max(i.worst) AS worst,
         max(t.xid_age) AS xid_age, max(t.xid_age / nullif(t.freeze_limit, 0)) AS xid_age_share,
         max(t.multixact_age) AS multixact_age,
         date_part('epoch', now() - min(t.vacuumed)) AS unvacuumed,
         date_part('epoch', now() - min(t.analyzed)) AS unanalyzed,
         max(t.dead / nullif(t.vacuum_threshold + t.vacuum_factor * t.tuples, 0)) AS autovacuum_debt,
         max(t.changed / nullif(t.analyze_threshold + t.analyze_factor * t.tuples, 0)) AS analyze_debt,
         sum(t.changed::float8) AS changed, sum(i.invalid) AS invalid, sum(i.unused) AS unused,
         sum(t.written::float8) AS written, max(t.vacuumed) AS vacuumed, max(t.analyzed) AS analyzed,
         sum(t.relfilenode::bigint::float8) AS files
    FROM part p
    JOIN tab t USING (oid)
    LEFT JOIN indexes i USING (oid)
   GROUP BY p.ordinal
)
SELECT ordinal::int,
       concat_ws('.', written, date_part('epoch', vacuumed), date_part('epoch', analyzed), files, xid_age / 10000000,
                 coalesce(indexes, 0)),
       has_parts,
       rows, dead_tuples, round(dead_tuples / nullif(rows + dead_tuples, 0) * 1e4) / 1e4,
       table_bytes, coalesce(index_bytes, 0), coalesce(indexes, 0),
       table_bloat_bytes, round(table_bloat_bytes / nullif(judged_bytes, 0) * 1e4) / 1e4,
       index_bloat_bytes, round(index_bloat_bytes / nullif(judged_index_bytes, 0) * 1e4) / 1e4,
       worst[1], round(worst[2] * 1e4) / 1e4,
       xid_age::float8, round(xid_age_share * 1e4) / 1e4, multixact_age::float8,
       round(unvacuumed), round(unanalyzed),
       round(autovacuum_debt * 1e3) / 1e3, changed, round(analyze_debt * 1e3) / 1e3,
       coalesce(invalid, 0), coalesce(unused, 0),
       CASE WHEN has_parts OR parts > 0 THEN parts + CASE WHEN has_parts THEN 1 ELSE 0 END END,
       CASE WHEN is_view THEN 1 END::float8
  FROM added
"""

_INDEXES = """
SELECT p.ordinal::int AS ordinal, z.indexrelid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name,
       z.bytes::float8 AS bytes, z.bloat::float8 AS bloat_bytes,
       pg_stat_get_numscans(z.indexrelid) AS scans, z.valid, z.is_unique, z.needed
  FROM sized z
  JOIN part p ON p.oid = z.indrelid
  JOIN pg_class c ON c.oid = z.indexrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY z.bloat DESC NULLS LAST, z.bytes DESC
"""

TABLE_METRICS = (
    "rows",
    "dead_tuples",
    "dead_tuple_ratio",
    "table_bytes",
    "index_bytes",
    "indexes",
    "table_bloat_bytes",
    "table_bloat_ratio",
    "index_bloat_bytes",
    "index_bloat_ratio",
    "worst_index_bloat_bytes",
    "worst_index_bloat_ratio",
    "xid_age",
    "xid_age_share",
    "multixact_age",
    "seconds_since_vacuum",
    "seconds_since_analyze",
    "autovacuum_debt",
    "rows_changed_since_analyze",
    "analyze_debt",
    "invalid_indexes",
    "unused_index_bytes",
    "partitions",
    "is_materialized_view",
)
"""What :func:`tables_query` gives after place in the question, state token and whether it is partitioned."""

DATABASE_METRICS = (
    "database_bytes",
    "connections",
    "connections_share",
    "longest_transaction_seconds",
    "xid_age",
    "multixact_age",
    "wraparound_share",
    "cache_hit_ratio",
    "materialized_views",
)
"""What :data:`DATABASE` gives after the state token, in order."""

DATABASE = """
SELECT d.xact_commit + d.xact_rollback || '.' || d.oid AS token,
       pg_database_size(d.datname)::float8,
       a.connections::float8,
       round(a.everywhere / nullif(current_setting('max_connections')::numeric, 0), 4)::float8,
       coalesce(a.longest, 0)::float8,
       age(p.datfrozenxid)::float8, mxid_age(p.datminmxid)::float8,
       round(greatest(age(p.datfrozenxid), mxid_age(p.datminmxid)) / 2147483647.0, 4)::float8,
       round(d.blks_hit / nullif(d.blks_hit + d.blks_read, 0)::numeric, 4)::float8,
       (SELECT count(*) FROM pg_class WHERE relkind = 'm')::float8
  FROM (SELECT datid AS oid, datname, xact_commit, xact_rollback, blks_hit, blks_read
          FROM pg_stat_database WHERE datname = current_database()) d
  JOIN pg_database p ON p.oid = d.oid
 CROSS JOIN (SELECT count(*) FILTER (WHERE datname = current_database()) AS connections,
                    count(*)::numeric AS everywhere,
                    round(max(extract(epoch FROM now() - xact_start)) FILTER (
                      WHERE datname = current_database() AND pid <> pg_backend_pid()))
                      AS longest
               FROM pg_stat_activity WHERE backend_type = 'client backend') a
"""


def tables_query(*, statistic: bool, few: bool = False, stores: bool = False) -> sql.Composed:
    """The statement over all tables: parameters ``schemas`` and ``names``.

    ``statistic``: pg_statistic may be read; ``few``: at most :data:`FEW` tables are asked for; ``stores``: the catalog
    tells TimescaleDB's columnstore.
    """
    return _composed(_SIZED + _TABLES, statistic=statistic, few=few, stores=stores)


def indexes_query(*, statistic: bool, few: bool = False, stores: bool = False) -> sql.Composed:
    """The statement over all indexes of the tables, with the same parameters.

    Gives ``ordinal`` (the table's place in the question), ``oid``, ``schema``, ``name``, ``bytes``, ``bloat_bytes``
    (None where it is not estimated), ``scans``, ``valid``, ``is_unique`` and ``needed`` (by a constraint or the
    like), the most bloated first.
    """
    return _composed(_SIZED + _INDEXES, statistic=statistic, few=few, stores=stores)


def _composed(query: LiteralString, *, statistic: bool, few: bool, stores: bool) -> sql.Composed:
    own = sql.SQL(_STATISTIC).format(only=sql.SQL(_ONLY if few else "")) if statistic else sql.SQL(_STATS)
    return sql.SQL(query).format(statistic=own, steady=sql.Literal(STEADY), children=children(stores=stores))


def children(*, stores: bool) -> sql.SQL:
    """The query of ``parent`` and ``child``: partitions, chunks, and with ``stores`` the ``store`` of a chunk."""
    return sql.SQL(PARTS + STORES if stores else PARTS)
