"""The main operations through Trino on an object store: Trino writes there itself, PyIceberg and the store judge."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pyiceberg.transforms import IdentityTransform

from aurum_orchestration_tests.integration.iceberg.support import spec_of
from aurum_orchestration_tests.integration.trino.upkeep import BELOW, referred_to, shared
from aurum_orchestration_tests.servers.object_store import ObjectStore
from aurum_orchestration_tests.servers.trino import TrinoServer


async def test_compaction_statistics_expiry_and_orphans(
    trino: TrinoServer, s3: ObjectStore, bucket: str, tmp_path: Path
) -> None:
    with trino.on(s3, bucket) as server, shared(server, tmp_path) as lake:
        files = ([{"id": 10 * number + row, "hub": f"h {number % 2}"} for row in range(3)] for number in range(6))
        lake.make("t", *files, spec=spec_of((3, IdentityTransform(), "of_hub")))
        lake.sql("DELETE FROM {t}.t WHERE id = 11")
        before = lake.ids()

        done = await lake.run("compaction", min_input_files=2)
        assert done.status == "completed", done.problem
        assert (done.metrics["files_rewritten"], done.metrics["files_added"]) == (6, 2)
        assert done.verification is not None
        assert done.verification.ok
        assert lake.sql('SELECT operation FROM {t}."t$snapshots" ORDER BY committed_at DESC LIMIT 1') == [("replace",)]
        assert (await lake.run("stats", ndv=True)).status == "completed"

        stray = f"{lake.table().location().removeprefix('s3://')}/data/stray 1%2F.parquet"
        s3.client().put_object(Bucket=bucket, Key=stray.partition("/")[2], Body=b"PAR1")
        expired = await lake.run("retention", retention_days=0, retain_last=1, **BELOW)
        assert expired.status == "completed", expired.problem
        assert expired.metrics["snapshots_expired"] == 7
        assert expired.metrics["files_deleted"] >= 7
        await asyncio.sleep(1.1)  # S3 keeps whole seconds
        cleaned = await lake.run("vacuum", older_than_days=0, **BELOW)
        assert cleaned.status == "completed", cleaned.problem
        assert stray not in s3.objects(bucket)
        assert set(s3.objects(bucket)) == referred_to(lake.table())
        assert lake.ids() == before
        assert sorted(lake.table().scan().to_arrow()["id"].to_pylist()) == before
