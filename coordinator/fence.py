"""A mosquitto that lets nobody do more than the federation needs: its configuration and its access list, as files.

Who connects has a certificate of the federation's authority; its name is the user, and the user is the client, so
nobody takes another's place. What each may do is in the access list, and nothing else is possible.

The folder is the broker's own where root starts it. So what is in it is only believed as far as a broker that somebody
has broken into may be: no link in it is followed, nothing but mosquitto gets a signal.
"""

import os
import pwd
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from coordinator.authority import LOOKER, Authority
from coordinator.certificates import LONGEST_NAME
from coordinator.lending import lent
from mekt import catalogue
from mekt.credentials import tls_context
from mekt.errors import LinkError, SettingsError
from mekt.files import make_folder, write_atomically
from mekt.identity import CA, pem
from mekt.messages import KINDS, LARGEST_MESSAGE
from mekt.outgoing import PACKET_OVERHEAD_BYTES
from mekt.topics import APPLICANT, ROOT

CONFIGURATION, ACCESS, REVOKED, PID = "mosquitto.conf", "access", "revoked.pem", "mosquitto.pid"
CERTIFICATE, KEY = "broker.pem", "broker.key"
USER = PROGRAM = "mosquitto"
# Of what is read of a broker's files.
LARGEST_FILE_BYTES = 65_536
# Of what waits for a device that is away: chunks of a round, each CHUNK_BYTES at most.
QUEUED_MESSAGES, QUEUED_BYTES = 1000, 32 * 1024 * 1024
MOST_CONNECTIONS = 5000
PUSH_S = START_S = 10.0


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
            LinkError: when a broker runs that cannot be told.
            SettingsError: when there is no such user, or it cannot come to the folder, or a host is none.
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
            _check_way(self.folder, self.user)
        if not authority.serves(_read(self.folder / CERTIFICATE), _read(self.folder / KEY), self.hosts):
            credentials = authority.broker(self.hosts)
            _give(self.folder / CERTIFICATE, pem(credentials.certificate))
            _give(self.folder / KEY, credentials.key, 0o600)
        _give(self.folder / CA, pem(authority.ca))
        _give(self.folder / CONFIGURATION, self.configuration().encode())
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
            "# A restart forgets nothing. Sessions do not expire, `mekt device revoke` ends them: a mosquitto 2 that",
            "# reads its files anew crashes over sessions that do.",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_interval 10",
            "",
            f"pid_file {folder / PID}",
            f"user {self.user}",
            "log_type error",
            "log_type warning",
            "log_type notice",
        ]
        return "\n".join(lines) + "\n"


def _check_way(folder: Path, user: str) -> None:
    """Refuse a folder that its own user cannot come to."""
    known = pwd.getpwnam(user)
    groups = os.getgrouplist(user, known.pw_gid)
    for each in reversed(folder.resolve().parents):
        seen = each.stat()
        shift = 6 if seen.st_uid == known.pw_uid else 3 if seen.st_gid in groups else 0
        if known.pw_uid != 0 and not (seen.st_mode >> shift) & 1:
            raise SettingsError(
                f"broker config: {user}, who the broker becomes, may not enter {each}; name a folder elsewhere with "
                "--out, such as /etc/mekt/broker",
                catalogue.OUT_UNUSABLE,
            )


def access(authority: Authority) -> str:
    """The text of the access list: who may publish and read what. `%u` stands for the name in a certificate."""
    federation = authority.federation
    root = f"{ROOT}/{federation}"
    up = [kind for kind, (_, _, directions) in KINDS.items() if "up" in directions]
    names = {each.name for each in authority.certified() if each.revoked_s is None}
    lines = [
        "# Written by `mekt broker config`; made anew by the next one.",
        f"user coordinator:{federation}",
        f"topic read {root}/up/+/+",
        f"topic read {root}/enroll/+/request",
        f"topic write {root}/enroll/+/answer",
        f"topic write {root}/down/+/+",
        f"topic write {root}/round",
        f"topic write {root}/status",
        f"topic write {root}/rollout",
    ]
    for name in sorted({LOOKER, *names}):
        if name.startswith("watch:"):
            lines += ["", f"user {name}", f"topic read {root}/status", f"topic read {root}/up/+/presence"]
    lines += ["", "# Every device, under the name in its certificate and no other."]
    lines += [f"pattern write {root}/up/%u/{kind}" for kind in up]
    lines += [f"pattern read {root}/{what}" for what in ("down/%u/+", "round", "rollout")]
    lines += ["", "# Who has but a token: a request, and the answer to it."]
    lines += [f"pattern write {root}/enroll/%u/request", f"pattern read {root}/enroll/%u/answer"]
    return "\n".join(lines) + "\n"


def renew(folder: Path, authority: Authority) -> bool:
    """Write the revocations and the access list as they are now, and tell the broker; whether one runs.

    Raises:
        LinkError: when a broker runs that cannot be told.
        SettingsError: when there is no such folder.
        StateError: when the disk does not take it.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder}: there are no files of a broker; name their folder", catalogue.BROKER_MISSING)
    # Else a list from before a revocation could be written over the one from after it, by another process.
    with authority.unchanging():
        _give(folder / REVOKED, authority.revocations())
        _give(folder / ACCESS, access(authority).encode(), 0o600)
    pid = _running(folder)
    if pid is None:
        return False
    try:
        _wait_until_it_can_be_told(pid)
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise LinkError(
            f"the broker (process {pid}) belongs to another user and was not told; `systemctl reload mosquitto`, "
            "or run this as root",
            catalogue.BROKER_NOT_TOLD,
        ) from error
    return True


def _running(folder: Path) -> int | None:
    """The process of the mosquitto that says that it is at work on these files; None where it has ended."""
    try:
        pid = int(_read(folder / PID)[:16])
        # Numbers are given again, and a broker that was killed leaves its own behind.
        return pid if pid > 0 and Path(f"/proc/{pid}/comm").read_text().strip() == PROGRAM else None
    except (OSError, ValueError):
        return None


def _wait_until_it_can_be_told(pid: int) -> None:
    """Wait while a mosquitto starts: it says its process before it listens to signals, and this one would end it.

    Raises:
        LinkError: when it does not come to that.
        ProcessLookupError: when it has ended.
    """
    ends_s = time.monotonic() + START_S
    while True:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError as error:
            raise ProcessLookupError from error
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.M)
        if caught and int(caught[1], 16) >> (signal.SIGHUP - 1) & 1:
            return
        if time.monotonic() > ends_s:
            raise LinkError(
                f"the broker (process {pid}) does not come to its work, and was not told; end it, then start it again",
                catalogue.BROKER_NOT_TOLD,
            )
        time.sleep(0.01)


def _give(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file for the broker: it reads them as the user whose folder it is."""
    write_atomically(path, data, mode, owner=path.parent.stat().st_uid if os.geteuid() == 0 else None)


def _read(path: Path) -> bytes:
    """What is in a plain file, or nothing."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
            return file.read(LARGEST_FILE_BYTES)
    except OSError:
        return b""


def expel(folder: Path, authority: Authority, name: str) -> bool:
    """Tell the broker that `name` was revoked, and end the connection that its holder may have; whether one runs.

    A list of revocations stops new connections only. So somebody else connects under the same name, with a certificate
    for a minute; the broker then ends the holder's own connection, and its session with it. The same goes for who has
    but a token for this name.

    Raises:
        LinkError: when the broker cannot be told or reached.
        SettingsError: when there is no such folder.
        StateError: when the disk does not take the list.
    """
    if not renew(folder, authority):
        return False
    for each in (name, APPLICANT + name):
        if len(each) <= LONGEST_NAME:
            _push_out(each, folder, authority)
    return True


def _push_out(name: str, folder: Path, authority: Authority) -> None:
    credentials = authority.pusher(name)
    host, port = "127.0.0.1", _port(folder)
    with lent(authority, credentials) as files:
        context = tls_context(files)
    # It is this machine's broker, whatever names its certificate has.
    context.check_hostname = False
    v5 = MQTTProtocolVersion.MQTTv5
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=v5, reconnect_on_failure=False)
    client.tls_set_context(context)
    try:
        client.connect(host, port, clean_start=True)
        ends_s = time.monotonic() + PUSH_S
        while not client.is_connected() and time.monotonic() < ends_s:
            client.loop(0.1)
        if not client.is_connected():
            raise TimeoutError("it does not answer")
    except OSError as error:
        raise LinkError(
            f"{host}:{port}: the broker knows that {name} was revoked, but a connection that it had goes on ({error}); "
            "restart the broker",
            catalogue.BROKER_NOT_TOLD,
        ) from error
    client.disconnect()
    client.loop(0.1)


def _port(folder: Path) -> int:
    """Where the broker listens, as its configuration says."""
    found = re.search(rb"^listener (\d{1,5})\b", _read(folder / CONFIGURATION), re.M)
    return int(found[1]) if found else 8883
