"""A mosquitto that lets nobody do more than the federation needs: its configuration and its access list, as files.

Who connects has a certificate of the federation's authority; its name is the user, and the user is the client, so
nobody takes another's place. What each may do is in the access list, and nothing else is possible.
"""

import os
import re
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from coordinator.authority import Authority
from mekt import catalogue
from mekt.credentials import tls_context
from mekt.errors import LinkError, SettingsError
from mekt.files import make_folder, write_atomically
from mekt.identity import CA, tls_settings, write_certificate, write_identity, write_private
from mekt.messages import KINDS, LARGEST_MESSAGE
from mekt.outgoing import PACKET_OVERHEAD_BYTES
from mekt.topics import ROOT

CONFIGURATION, ACCESS, REVOKED, PID = "mosquitto.conf", "access", "revoked.pem", "mosquitto.pid"
CERTIFICATE, KEY = "broker.pem", "broker.key"
USER = "mosquitto"
# Of what waits for a device that is away: chunks of a round, each CHUNK_BYTES at most.
QUEUED_MESSAGES, QUEUED_BYTES = 1000, 32 * 1024 * 1024
MOST_CONNECTIONS = 5000
SESSIONS_EXPIRE = "7d"
PUSH_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Fence:
    """Where the broker is to listen, the folder of its files, and the user that it becomes when root starts it."""

    folder: Path
    port: int = 8883
    hosts: tuple[str, ...] = ("localhost",)
    bind: str = ""
    user: str = USER

    def write(self, authority: Authority) -> None:
        """Write every file of the broker: the configuration, the access list, certificates and the revocations.

        Raises:
            SettingsError: when there is no such user.
            StateError: when the disk does not take them.
        """
        make_folder(self.folder)
        if os.geteuid() == 0:
            try:
                shutil.chown(self.folder, self.user)
            except LookupError as error:
                raise SettingsError(
                    f"broker config: there is no user {self.user} here; install mosquitto, or name another with --user",
                    catalogue.CHOICE_UNKNOWN,
                ) from error
        if not (self.folder / KEY).exists():
            credentials = authority.broker(self.hosts)
            write_certificate(self.folder / CERTIFICATE, credentials.certificate)
            write_private(self.folder / KEY, credentials.key)
        write_certificate(self.folder / CA, authority.ca)
        write_atomically(self.folder / ACCESS, access(authority).encode(), mode=0o600)
        write_atomically(self.folder / CONFIGURATION, self.configuration().encode())
        renew(self.folder, authority)

    def configuration(self) -> str:
        """The text of mosquitto.conf."""
        folder = self.folder.resolve()
        lines = [
            "# Written by `mekt broker config`; made anew by the next one.",
            f"listener {self.port}{' ' + self.bind if self.bind else ''}",
            "",
            "# Nobody without a certificate of the authority; its name is the user, and the user is the client id.",
            f"cafile {folder / CA}",
            f"certfile {folder / CERTIFICATE}",
            f"keyfile {folder / KEY}",
            f"crlfile {folder / REVOKED}",
            "tls_version tlsv1.2",
            "require_certificate true",
            "use_identity_as_username true",
            "use_username_as_clientid true",
            "allow_anonymous false",
            f"acl_file {folder / ACCESS}",
            "",
            "# Nobody can take more than a device needs.",
            f"max_connections {MOST_CONNECTIONS}",
            f"max_packet_size {LARGEST_MESSAGE + PACKET_OVERHEAD_BYTES}",
            "max_inflight_messages 100",
            f"max_queued_messages {QUEUED_MESSAGES}",
            f"max_queued_bytes {QUEUED_BYTES}",
            "max_keepalive 3600",
            "",
            "# Small messages go out at once.",
            "set_tcp_nodelay true",
            "",
            "# A restart forgets nothing; who is away for longer begins anew.",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_interval 10",
            f"persistent_client_expiration {SESSIONS_EXPIRE}",
            "",
            f"pid_file {folder / PID}",
            f"user {self.user}",
            "log_type error",
            "log_type warning",
            "log_type notice",
        ]
        return "\n".join(lines) + "\n"


def access(authority: Authority) -> str:
    """The text of the access list: who may publish and read what. `%u` stands for the name in a certificate."""
    federation = authority.federation
    root = f"{ROOT}/{federation}"
    up = [kind for kind, (_, _, directions) in KINDS.items() if "up" in directions]
    names = sorted({each.name for each in authority.certified() if each.revoked_s is None})
    lines = [
        "# Written by `mekt broker config`; made anew by the next one.",
        f"user coordinator:{federation}",
        f"topic read {root}/up/+/+",
        f"topic read {root}/enroll/+/request",
        f"topic write {root}/enroll/+/answer",
        f"topic write {root}/down/+/+",
        f"topic write {root}/round",
        f"topic write {root}/status",
    ]
    for name in names:
        if name.startswith("watch:"):
            lines += ["", f"user {name}", f"topic read {root}/status", f"topic read {root}/up/+/presence"]
    lines += ["", "# Every device, under the name in its certificate and no other."]
    lines += [f"pattern write {root}/up/%u/{kind}" for kind in up]
    lines += [f"pattern read {root}/down/%u/+", f"pattern read {root}/round"]
    lines += ["", "# Who has but a token: a request, and the answer to it."]
    lines += [f"pattern write {root}/enroll/%u/request", f"pattern read {root}/enroll/%u/answer"]
    return "\n".join(lines) + "\n"


def renew(folder: Path, authority: Authority) -> bool:
    """Write the revocations and the access list as they are now, and tell the broker; whether one runs.

    Raises:
        StateError: when the disk does not take them.
        LinkError: when a broker runs that cannot be told.
    """
    write_atomically(folder / REVOKED, authority.revocations())
    write_atomically(folder / ACCESS, access(authority).encode(), mode=0o600)
    if os.geteuid() == 0:
        # The broker reads them as the user whose folder it is.
        for path in folder.iterdir():
            os.chown(path, folder.stat().st_uid, -1)
    pid = 0
    try:
        pid = int((folder / PID).read_text())
        os.kill(pid, signal.SIGHUP)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return False
    except PermissionError as error:
        raise LinkError(
            f"the broker (process {pid}) belongs to another user and was not told; `systemctl reload mosquitto`, "
            "or run this as root",
            catalogue.BROKER_NOT_TOLD,
        ) from error
    return True


def expel(folder: Path, authority: Authority, device: str) -> None:
    """Tell the broker that `device` was revoked, and end the connection that it may have.

    A list of revocations stops new connections only. So somebody else connects under the device's name, with a
    certificate for a minute; the broker then ends the device's own connection, and its session with it.

    Raises:
        LinkError: when the broker cannot be told or reached.
        StateError: when the disk does not take the list.
    """
    if not renew(folder, authority):
        return
    credentials = authority.pusher(device)
    host, port = "127.0.0.1", _port(folder)
    with tempfile.TemporaryDirectory() as place:
        write_identity(Path(place), ca=authority.ca, certificate=credentials.certificate, key=credentials.key)
        context = tls_context(tls_settings(Path(place)))
        # It is this machine's broker, whatever names its certificate has.
        context.check_hostname = False
        v5 = MQTTProtocolVersion.MQTTv5
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device, protocol=v5, reconnect_on_failure=False)
        client.tls_set_context(context)
        client.connect(host, port, clean_start=True)
        ends_s = time.monotonic() + PUSH_S
        while not client.is_connected() and time.monotonic() < ends_s:
            client.loop(0.1)
        if not client.is_connected():
            raise LinkError(f"{host}:{port}: the broker does not answer; is it reloaded?", catalogue.BROKER_NOT_TOLD)
        client.disconnect()
        client.loop(0.1)


def _port(folder: Path) -> int:
    """Where the broker listens, as its configuration says."""
    found = re.search(r"^listener (\d+)", (folder / CONFIGURATION).read_text(), re.M)
    return int(found[1]) if found else 8883
