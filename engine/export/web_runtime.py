"""onnxruntime-web: what runs a model inside a web page.

It is fetched once, by npm, and kept in the cache folder; a copy at hand is taken from the folder that ``CTL_ORT_WEB``
names.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from engine.errors import BadExport, Note, messages, reason_of
from engine.outputs import filling
from engine.paths import cache_folder

PACKAGE = "onnxruntime-web@1.30.0"
SCRIPT, BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
DIGESTS = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    BINARY: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""SHA-256 of the files that are taken from the package."""
SECONDS = 300
"""What npm may take."""

messages(
    export_web="The page needs {package} (33 MB, once), which npm fetches, and that did not work here ({reason}). "
    "Install Node.js where the network is reachable, or let CTL_ORT_WEB name the package's folder dist.",
    no_npm="npm is not installed",
    export_web_other="{file} in {folder} is not that of {package}. Remove CTL_ORT_WEB, or let it name the folder dist "
    "of that version.",
)


def runtime() -> tuple[bytes, bytes]:
    """Return the runtime's script (a JavaScript module) and its WebAssembly binary.

    Raises BadExport: they are not at hand, and npm cannot fetch them.
    """
    chosen = os.environ.get("CTL_ORT_WEB", "").strip()
    if chosen:
        folder = Path(os.path.expanduser(chosen))
        for name in DIGESTS:
            if not intact(folder, name):
                raise BadExport("export_web_other", file=name, folder=folder.name, package=PACKAGE)
    else:
        folder = cache_folder() / PACKAGE
        if not all(intact(folder, name) for name in DIGESTS):
            fetch(folder)
    return (folder / SCRIPT).read_bytes(), (folder / BINARY).read_bytes()


def intact(folder: Path, name: str) -> bool:
    """Return whether a file of the runtime is there, and the one expected."""
    try:
        return hashlib.sha256((folder / name).read_bytes()).hexdigest() == DIGESTS[name]
    except OSError:
        return False


def fetch(folder: Path) -> None:
    """Let npm fetch the package, and keep the files that are needed. Raises BadExport."""
    npm = shutil.which("npm")
    if npm is None:
        raise BadExport("export_web", package=PACKAGE, reason=Note("no_npm"))
    command = [npm, "pack", PACKAGE, "--silent", "--ignore-scripts"]
    try:
        with tempfile.TemporaryDirectory() as work:
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=SECONDS, check=False)
            archives = list(Path(work).glob("*.tgz"))
            if done.returncode or not archives:
                raise OSError((done.stderr.strip() or "npm").splitlines()[-1])
            with tarfile.open(archives[0]) as packed, filling(folder) as fresh:
                for name in DIGESTS:
                    member = packed.extractfile(f"package/dist/{name}")
                    (fresh / name).write_bytes(member.read() if member else b"")
                    if not intact(fresh, name):
                        raise OSError(name)
    except (OSError, KeyError, tarfile.TarError, subprocess.SubprocessError) as error:
        raise BadExport("export_web", package=PACKAGE, reason=reason_of(error)) from error
