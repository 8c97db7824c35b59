"""Certificates for the tests, made with openssl: an authority, another one, and what the first one signed."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Papers:
    """Paths of PEM files in one folder."""

    folder: Path
    ca: str
    other_ca: str
    server: str
    server_key: str
    device: str
    device_key: str

    def sign(self, name: str, extra: str, *, authority: str = "ca") -> tuple[str, str]:
        """A certificate by this name that the authority signed, and its key."""
        (self.folder / "extra").write_text(extra)
        openssl(self.folder, "req", *NEW_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            self.folder,
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", "extra", "-out", f"{name}.pem"),
        )
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")


def papers_in(folder: Path) -> Papers:
    """All of them, made anew in this folder."""
    for name in ("ca", "other"):
        words = ("-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl(folder, "req", "-x509", *NEW_KEY, "-subj", f"/CN={name}", *words)
    files = ("ca.pem", "other.pem", "server.pem", "server.key", "device.pem", "device.key")
    papers = Papers(folder, *(str(folder / name) for name in files))
    papers.sign("server", "subjectAltName=IP:127.0.0.1")
    papers.sign("device", "subjectAltName=DNS:device")
    return papers


def openssl(folder: Path, *words: str) -> None:
    """Run openssl there."""
    subprocess.run(["openssl", *words], check=True, cwd=folder, stderr=subprocess.DEVNULL)
