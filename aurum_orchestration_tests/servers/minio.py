"""MinIO, an S3-compatible server: built from its published Go module."""

from __future__ import annotations

from pathlib import Path

from aurum_orchestration.local.engines.cache import Engine, Tell, run

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
_NEEDS = "Go builds this engine: version 1.24 or newer, from your system's packages or the Go project."


def _make(folder: Path, tell: Tell) -> None:
    tell("go installs it: about 1 GB of sources, 2 to 4 minutes")
    run(
        ["go", "install", "-trimpath", "-ldflags=-s -w", f"github.com/minio/minio@{VERSION}"],
        needs=_NEEDS,
        env={"GOBIN": str(folder), "CGO_ENABLED": "0", "GOFLAGS": "-modcacherw"},
    )


ENGINE = Engine("s3", "MinIO (S3)", VERSION.rpartition("-")[2], "2 to 4 minutes with Go", _make)
