"""Certificates for tests, signed by authorities of their own; made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@dataclass(frozen=True)
class Certificate:
    """PEM files of a certificate and of its key."""

    certificate: Path
    key: Path

    @property
    def both(self) -> Path:
        """A PEM file with the two of them."""
        file = self.certificate.with_suffix(".both.pem")
        file.write_text(self.key.read_text() + self.certificate.read_text())
        return file

    def issue(self, name: str, *addresses: str) -> Certificate:
        """What this authority signs: of a server at ``addresses`` (``IP:...``, ``DNS:...``), or of a user."""
        added = ("-addext", f"subjectAltName={','.join(addresses)}") if addresses else ()
        signed = ("-CA", str(self.certificate), "-CAkey", str(self.key))
        return _made(self.certificate.parent, name, *signed, *added, "-addext", "basicConstraints=CA:FALSE")


def authority(folder: Path, name: str) -> Certificate:
    """An authority that nobody knows."""
    return _made(folder, name, "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign")


def _made(folder: Path, name: str, *given: str) -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    files = ("-keyout", str(made.key), "-out", str(made.certificate))
    subprocess.run(
        ["openssl", "req", "-x509", *_EC, "-subj", f"/CN={name}", *files, *given], check=True, capture_output=True
    )
    return made
