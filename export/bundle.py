"""Files as the bytes of one: a zip that any tool opens, and of which there is exactly one for the same files. Pure.

Nothing is compressed: weights hardly shrink, and what another zlib makes of them may differ.
"""

import io
import struct
import zipfile
from collections.abc import Mapping

from export.manifest import MANIFEST
from mekt import catalogue
from mekt.errors import ReleaseError

MOST_FILES = 128
# The first time that a zip can tell.
WRITTEN = (1980, 1, 1, 0, 0, 0)
PERMISSIONS = 0o644 << 16
UNIX = 3
# A file's local header (PKWARE APPNOTE 4.3.7): signature, what is fixed here, two sizes, lengths of
# two names.
LOCAL = struct.Struct("<4s14xIIHH")
LOCAL_SIGNATURE = b"PK\x03\x04"


def pack(files: Mapping[str, bytes]) -> bytes:
    """The bundle of these files by name: the manifest first, then by name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as bundle:
        for name in sorted(files, key=lambda name: (name != MANIFEST, name)):
            entry = zipfile.ZipInfo(name, WRITTEN)
            entry.create_system, entry.external_attr = UNIX, PERMISSIONS
            bundle.writestr(entry, files[name])
    return packed.getvalue()


def unpack(raw: bytes) -> dict[str, bytes]:
    """The files of a bundle by name.

    Raises:
        ReleaseError: for any bytes but those that `pack` gives.
    """
    files: dict[str, bytes] = {}
    at = 0
    while raw[at : at + 4] == LOCAL_SIGNATURE and len(raw) - at >= LOCAL.size and len(files) < MOST_FILES:
        _, size, _, name_bytes, _ = LOCAL.unpack_from(raw, at)
        name_at = at + LOCAL.size
        data_at = name_at + name_bytes
        at = data_at + size
        files[raw[name_at:data_at].decode("latin-1")] = raw[data_at:at]
    if not files:
        raise ReleaseError("not a release: it does not begin as one", catalogue.RELEASE_MISSING)
    # Names may still be such as no zip can have.
    if not all(name.isascii() and name.isprintable() for name in files) or pack(files) != raw:
        raise ReleaseError(
            "damaged: not the bytes that were written; take the file as it is, whoever packs it anew changes it",
            catalogue.RELEASE_DAMAGED,
        )
    return files
