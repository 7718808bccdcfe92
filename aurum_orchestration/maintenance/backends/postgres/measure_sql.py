"""The statements that measure: all tables in one, the database in another.

The estimates of unused space follow the idea of ioguix's pgsql-bloat-estimation (table_bloat.sql and
btree_bloat.sql, BSD licence), written anew: a row is taken to be as wide as pg_statistic says its columns are on
average, with headers and alignment; what the rows would fill at the fill factor is compared with what is there.
Two things differ: sizes are those of the files now, not those of the last ANALYZE, and a b-tree with
duplicates is taken to keep each key once for many rows, as PostgreSQL has done since 13.

pg_relation_size waits for whoever holds a table exclusively, so for those the size of the last ANALYZE counts.
"""

from __future__ import annotations

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

_SIZED = """
WITH RECURSIVE wanted AS MATERIALIZED (
  SELECT w.ordinal, c.oid, c.relkind
    FROM unnest(%(schemas)s::text[], %(names)s::text[]) WITH ORDINALITY AS w(schema, name, ordinal)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
   WHERE c.relkind IN ('r', 'p', 'm')
),
-- a partitioned table is as its partitions are, a hypertable as its chunks
part(ordinal, oid, relkind) AS (
  SELECT ordinal, oid, relkind FROM wanted
  UNION ALL
  SELECT p.ordinal, i.inhrelid, c.relkind
    FROM part p
    JOIN pg_inherits i ON i.inhparent = p.oid
    JOIN pg_class c ON c.oid = i.inhrelid
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
rel AS MATERIALIZED (
  SELECT c.oid, c.relkind, c.relnatts, c.relfilenode, c.relpages, c.reltuples, c.reltoastrelid, c.reloptions,
         CASE WHEN c.relkind = 'p' THEN 0
              WHEN c.oid IN (SELECT relation FROM locked) THEN c.relpages * s.block
              ELSE pg_relation_size(c.oid) END AS heap_bytes,
         CASE WHEN c.reltoastrelid = 0 THEN 0
              WHEN c.oid IN (SELECT relation FROM locked) THEN t.relpages * s.block
              ELSE pg_relation_size(c.reltoastrelid) END AS toast_bytes,
         pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_dead_tuples(c.oid) AS dead,
         pg_stat_get_mod_since_analyze(c.oid) AS changed,
         pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
           + pg_stat_get_tuples_deleted(c.oid) AS written,
         pg_stat_get_vacuum_count(c.oid) + pg_stat_get_autovacuum_count(c.oid)
           + pg_stat_get_analyze_count(c.oid) + pg_stat_get_autoanalyze_count(c.oid) AS kept_up,
         greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)) AS vacuumed,
         greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)) AS analyzed,
         CASE WHEN c.relkind <> 'p' THEN greatest(age(c.relfrozenxid), age(nullif(t.relfrozenxid, '0'))) END AS xid_age,
         CASE WHEN c.relkind <> 'p'
              THEN greatest(mxid_age(c.relminmxid), mxid_age(nullif(t.relminmxid, '0'))) END AS multixact_age
    FROM (SELECT DISTINCT oid FROM part) p
    JOIN pg_class c USING (oid)
    LEFT JOIN pg_class t ON t.oid = c.reltoastrelid AND c.reltoastrelid <> 0
   CROSS JOIN setting s
),
known AS (
  SELECT oid FROM rel
   UNION ALL
  SELECT i.indexrelid FROM rel r JOIN pg_index i ON i.indrelid = r.oid WHERE i.indexprs IS NOT NULL
),
stat AS MATERIALIZED ({statistic}),
own AS MATERIALIZED (
  SELECT r.oid,
         max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_vacuum_threshold')::float8 AS vacuum_threshold,
         max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_vacuum_scale_factor')::float8 AS vacuum_factor,
         max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_analyze_threshold')::float8 AS analyze_threshold,
         max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_analyze_scale_factor')::float8 AS analyze_factor,
         max(o.option_value) FILTER (WHERE o.option_name = 'autovacuum_freeze_max_age')::float8 AS freeze_max_age,
         max(o.option_value) FILTER (WHERE o.option_name = 'fillfactor')::float8 AS fillfactor
    FROM rel r, pg_options_to_table(r.reloptions) o
   WHERE r.reloptions IS NOT NULL
   GROUP BY r.oid
),
-- how wide a row is: header of 23 bytes (and a bitmap for nulls), aligned to 8, plus its line pointer of 4
width AS MATERIALIZED (
  SELECT st.relid AS oid, count(*) AS columns, sum((1 - st.nulls) * st.width) AS data,
         max(st.nulls) > 0 AS nullable
    FROM stat st JOIN rel r ON r.oid = st.relid
   GROUP BY st.relid
),
tab AS MATERIALIZED (
  SELECT r.*, o.freeze_max_age AS own_freeze_max_age,
         -- statistics are lost with a crash or a copy; reltuples is not
         CASE WHEN r.live > 0 OR r.vacuumed IS NOT NULL OR r.analyzed IS NOT NULL THEN r.live
              ELSE greatest(r.reltuples, 0) END::float8 AS tuples,
         coalesce(o.vacuum_threshold, s.vacuum_threshold) AS vacuum_threshold,
         coalesce(o.vacuum_factor, s.vacuum_factor) AS vacuum_factor,
         coalesce(o.analyze_threshold, s.analyze_threshold) AS analyze_threshold,
         coalesce(o.analyze_factor, s.analyze_factor) AS analyze_factor,
         coalesce(o.freeze_max_age, s.freeze_max_age) AS freeze_limit,
         CASE WHEN w.columns > 0
              THEN 4 + 24 + CASE WHEN w.nullable THEN 8 * ceil(greatest(r.relnatts - 8, 0) / 64.0) ELSE 0 END
                   + 8 * ceil(w.data / 8) END AS row_bytes,
         coalesce(o.fillfactor, 100) / 100 AS fill
    FROM rel r
   CROSS JOIN setting s
    LEFT JOIN own o USING (oid)
    LEFT JOIN width w USING (oid)
),
bloat AS MATERIALIZED (
  SELECT t.oid,
         CASE WHEN t.row_bytes IS NOT NULL AND t.heap_bytes > 8 * s.block
              THEN greatest(0, t.heap_bytes - s.block
                     * ceil(t.tuples / greatest(1, floor((s.block - 24) * t.fill / t.row_bytes))))
         END AS bytes
    FROM tab t CROSS JOIN setting s
),
idx AS MATERIALIZED (
  SELECT i.indexrelid, c.relname AS name, i.indrelid, i.indkey, i.indnatts,
         i.indisvalid AND i.indisready AS valid, i.indisunique AS is_unique,
         c.reltuples, am.amname = 'btree' AS btree,
         CASE WHEN i.indrelid IN (SELECT relation FROM locked) OR i.indexrelid IN (SELECT relation FROM locked)
              THEN c.relpages * s.block ELSE pg_relation_size(i.indexrelid) END AS bytes,
         pg_stat_get_numscans(i.indexrelid) AS scans,
         CASE WHEN c.reloptions IS NULL THEN 0.9 ELSE
           coalesce((SELECT option_value::float8 / 100 FROM pg_options_to_table(c.reloptions)
                      WHERE option_name = 'fillfactor'), 0.9) END AS fill,
         i.indisunique OR i.indisprimary OR i.indisexclusion OR i.indisreplident OR i.indisclustered AS needed
    FROM rel r
    JOIN pg_index i ON i.indrelid = r.oid
    JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
    JOIN pg_am am ON am.oid = c.relam
   CROSS JOIN setting s
),
-- an entry: header of 8 bytes (and a bitmap for nulls), aligned, plus its line pointer of 4
entry AS MATERIALIZED (
  SELECT i.indexrelid, count(*) AS columns,
         4 + 8 + CASE WHEN max(st.nulls) > 0 THEN 8 ELSE 0 END + 8 * ceil(sum((1 - st.nulls) * st.width) / 8) AS bytes,
         min(CASE WHEN st.distincts < 0 THEN NULL ELSE nullif(st.distincts, 0) END) AS distincts
    FROM idx i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
    JOIN stat st ON st.relid = CASE WHEN k.attnum = 0 THEN i.indexrelid ELSE i.indrelid END
                AND st.attnum = CASE WHEN k.attnum = 0 THEN k.place ELSE k.attnum END
   WHERE i.btree
   GROUP BY i.indexrelid
),
sized AS MATERIALIZED (
  SELECT i.*,
         CASE WHEN e.columns = i.indnatts AND i.bytes > 8 * s.block
              THEN greatest(0, i.bytes - s.block * (1 + ceil(greatest(n.tuples, 0) * CASE
                     WHEN i.is_unique OR i.indnatts > 1 OR e.distincts IS NULL OR n.tuples <= e.distincts THEN e.bytes
                     ELSE 6 + e.bytes / least(n.tuples / e.distincts, 400) END
                     / ((s.block - 40) * i.fill)))) END AS bloat
    FROM idx i
   CROSS JOIN setting s
    JOIN tab t ON t.oid = i.indrelid
   CROSS JOIN LATERAL (SELECT CASE WHEN i.reltuples < 0 THEN t.tuples ELSE least(i.reltuples, t.tuples) END AS tuples) n
    LEFT JOIN entry e USING (indexrelid)
)
"""
"""Up to the size and the unused space of every table (``tab``, ``bloat``) and of every index (``sized``)."""

_TABLES = """,
indexes AS MATERIALIZED (
  SELECT indrelid AS oid, count(*) AS indexes, sum(bytes) AS bytes, count(*) FILTER (WHERE NOT valid) AS invalid,
         sum(bloat) AS bloat, sum(bytes) FILTER (WHERE bloat IS NOT NULL) AS judged_bytes,
         max(ARRAY[bloat, bloat / nullif(bytes, 0)]) FILTER (WHERE bloat IS NOT NULL) AS worst,
         coalesce(sum(bytes) FILTER (WHERE scans = 0 AND NOT needed AND valid), 0) AS unused
    FROM sized
   GROUP BY indrelid
),
added AS (
  SELECT p.ordinal,
         count(*) FILTER (WHERE t.relkind <> 'p') - 1 AS parts,
         bool_or(t.relkind = 'p') AS has_parts,
         sum(t.tuples) AS rows, sum(t.dead) AS dead_tuples,
         sum(t.heap_bytes + t.toast_bytes) AS table_bytes, sum(t.heap_bytes) AS heap_bytes,
         sum(i.bytes) AS index_bytes, sum(i.indexes) AS indexes,
         sum(b.bytes) AS table_bloat_bytes, sum(t.heap_bytes) FILTER (WHERE b.bytes IS NOT NULL) AS judged_bytes,
         sum(i.bloat) AS index_bloat_bytes, sum(i.judged_bytes) AS judged_index_bytes, max(i.worst) AS worst,
         max(t.xid_age) AS xid_age, max(t.xid_age / nullif(t.freeze_limit, 0)) AS xid_age_share,
         max(t.multixact_age) AS multixact_age,
         max(extract(epoch FROM now() - t.vacuumed)) AS unvacuumed,
         max(extract(epoch FROM now() - t.analyzed)) AS unanalyzed,
         max(t.dead / nullif(t.vacuum_threshold + t.vacuum_factor * t.tuples, 0)) AS autovacuum_debt,
         max(t.changed / nullif(t.analyze_threshold + t.analyze_factor * t.tuples, 0)) AS analyze_debt,
         sum(t.changed) AS changed, sum(i.invalid) AS invalid, sum(i.unused) AS unused,
         sum(t.written)::text || '.' || sum(t.kept_up)::text || '.' || sum(t.relfilenode::bigint)::text
           || '.' || coalesce(max(t.xid_age) / 10000000, 0)::text || '.' || coalesce(sum(i.indexes), 0)::text AS token
    FROM part p
    JOIN tab t USING (oid)
    LEFT JOIN bloat b USING (oid)
    LEFT JOIN indexes i USING (oid)
   GROUP BY p.ordinal
)
SELECT ordinal::int, token, has_parts,
       rows::float8, dead_tuples::float8, round((dead_tuples / nullif(rows + dead_tuples, 0))::numeric, 4)::float8,
       table_bytes::float8, coalesce(index_bytes, 0)::float8, coalesce(indexes, 0)::float8,
       table_bloat_bytes::float8, round((table_bloat_bytes / nullif(judged_bytes, 0))::numeric, 4)::float8,
       index_bloat_bytes::float8, round((index_bloat_bytes / nullif(judged_index_bytes, 0))::numeric, 4)::float8,
       worst[1]::float8, round(worst[2]::numeric, 4)::float8,
       xid_age::float8, round(xid_age_share::numeric, 4)::float8, multixact_age::float8,
       round(unvacuumed)::float8, round(unanalyzed)::float8,
       round(autovacuum_debt::numeric, 3)::float8, changed::float8, round(analyze_debt::numeric, 3)::float8,
       coalesce(invalid, 0)::float8, coalesce(unused, 0)::float8,
       CASE WHEN has_parts OR parts > 0 THEN parts + CASE WHEN has_parts THEN 1 ELSE 0 END END::float8
  FROM added
"""

_INDEXES = """
SELECT p.ordinal::int AS ordinal, z.indexrelid::bigint AS oid, n.nspname::text AS schema, z.name::text AS name,
       z.bytes::float8 AS bytes, z.bloat::float8 AS bloat_bytes, z.scans, z.valid, z.is_unique, z.needed
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


def tables_query(*, statistic: bool, few: bool = False) -> sql.Composed:
    """The statement over all tables: parameters ``schemas`` and ``names``.

    ``statistic``: pg_statistic may be read; ``few``: at most :data:`FEW` tables are asked for.
    """
    return sql.SQL(_SIZED + _TABLES).format(statistic=_statistics(statistic=statistic, few=few))


def indexes_query(*, statistic: bool, few: bool = False) -> sql.Composed:
    """The statement over all indexes of the tables, with the same parameters.

    Gives ``ordinal`` (the table's place in the question), ``oid``, ``schema``, ``name``, ``bytes``, ``bloat_bytes``
    (None where it is not estimated), ``scans``, ``valid``, ``is_unique`` and ``needed`` (by a constraint or the
    like), the most bloated first.
    """
    return sql.SQL(_SIZED + _INDEXES).format(statistic=_statistics(statistic=statistic, few=few))


def _statistics(*, statistic: bool, few: bool) -> sql.Composable:
    if not statistic:
        return sql.SQL(_STATS)
    return sql.SQL(_STATISTIC).format(only=sql.SQL(_ONLY if few else ""))
