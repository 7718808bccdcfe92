"""OpenSSH's server with SFTP, from the system's packages: one key lets the user of the tests in."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.servers.process import running

_NAME = "sshd"
_SETTINGS = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {home}/.ssh/id_ed25519.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""


@contextmanager
def sftp(home: Path) -> Iterator[str]:
    """URL of an empty folder; the key is put into ``home``. Skips the test where the program is not there."""
    program = shutil.which(_NAME, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing("sftp", f"{_NAME} is not installed: apt-get install openssh-server gives it")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # it wants an empty folder there
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix=f"aurum-{_NAME}-"))
    (home / ".ssh").mkdir(parents=True)
    for key in (folder / "host", home / ".ssh" / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    settings = folder / "sshd_config"
    settings.write_text(_SETTINGS.format(port=port, folder=folder, home=home))
    try:
        with running([program, "-D", "-e", "-f", settings], lambda: _listens(port), folder=folder):
            (folder / "data").mkdir()
            yield f"sftp://{getpass.getuser()}@127.0.0.1:{port}{folder}/data"
    except ProvisioningError as error:
        missing("sftp", str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
