"""An authority, certificates of every kind of validity, and a broker that asks for them."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mekt.broker import Broker
from mekt.login import TlsSettings


@dataclass(frozen=True)
class Papers:
    """Paths by name in a folder with an authority, another one, and certificates of the first one."""

    folder: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    def tls(self, *, ca: str = "ca.pem", own: str | None = "device") -> TlsSettings:
        return TlsSettings(
            ca=self[ca],
            certificate=None if own is None else self[f"{own}.pem"],
            key=None if own is None else self[f"{own}.key"],
        )


AUTHORITY = """
[ca]
default_ca = a
[a]
database = index
serial = serial
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
policy = p
unique_subject = no
[p]
commonName = supplied
"""
# From when to when, and for which name; the last two years of the first century and of certificates' two-digit years.
CERTIFICATES = {
    "server": ("20000101000000Z", "20490101000000Z", "IP:127.0.0.1"),
    "device": ("20000101000000Z", "20490101000000Z", "DNS:device"),
    "renewed": ("20000101000000Z", "20490101000000Z", "DNS:device"),
    "late": ("20480101000000Z", "20990101000000Z", "IP:127.0.0.1"),
    "past": ("20000101000000Z", "20010101000000Z", "IP:127.0.0.1"),
    "other-name": ("20000101000000Z", "20490101000000Z", "DNS:elsewhere.example"),
}


def papers_in(folder: Path) -> Papers:
    """Certificates as the table above has them, and the keys that go with them."""

    def openssl(*words: str) -> None:
        subprocess.run(
            ["openssl", *words], check=True, cwd=folder, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        subject = ("-subj", f"/CN={name}", "-days", "20000")
        openssl("req", "-x509", *key, *subject, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    (folder / "authority").write_text(AUTHORITY)
    (folder / "serial").write_text("01\n")
    (folder / "index").touch()
    for name, (begin, end, who) in CERTIFICATES.items():
        (folder / "extra").write_text(f"subjectAltName={who}")
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        dates = ("-startdate", begin, "-enddate", end)
        openssl(
            *("ca", "-batch", "-config", "authority", "-notext", *dates),
            *("-extfile", "extra", "-in", f"{name}.csr", "-out", f"{name}.pem"),
        )
    return Papers(folder)


@contextlib.contextmanager
def tls_broker(folder: Path, papers: Papers, server: str = "server") -> Iterator[Broker]:
    lines = (
        *(f"cafile {papers['ca.pem']}", f"certfile {papers[server + '.pem']}", f"keyfile {papers[server + '.key']}"),
        *("require_certificate true", "use_identity_as_username true"),
    )
    with Broker(folder, kind="mosquitto", more=lines) as running:
        yield running
