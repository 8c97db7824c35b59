"""Every error that people can act on: a number, a sentence, a cause and a remedy, in code and in docs/errors.md.

A number is the exit code of the error's family times a hundred, plus what tells it apart there. Those that end in 00
stand for a whole family, where nothing more can be said. There is an entry for each thing that somebody has to do, not
for each place that raises. A number keeps its meaning for good, as people search for it; one that is no longer used
stays free. `mekt explain` shows them.
"""

import errno
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One error: what happened, what mostly leads to it, and what to do about it, in whole sentences."""

    number: int
    sentence: str
    cause: str
    remedy: str

    def __post_init__(self) -> None:
        assert 100 <= self.number < 6400, f"{self.number}: not a number of any exit code"
        assert self.sentence and self.cause and self.remedy, f"{self.number}: what happened, why, what to do?"

    @property
    def exit_code(self) -> int:
        """What a process ends with when nobody handles this error: that of the family."""
        return self.number // 100


# 1: Mekt itself

OWN_FAULT = Entry(
    100,
    "Mekt itself is at fault.",
    "Something came about that nobody thought of; the traceback says where.",
    "Start it again, which is safe: state is on disk before anything is acknowledged. Report the fault with the "
    "traceback and the last lines of the log.",
)
PART_ENDED = Entry(
    101,
    "A part of a federation on this machine was killed, or ended by a fault.",
    "Somebody ended its process, the kernel did so for want of memory, or Mekt is at fault.",
    "Read the log that the message names. A negative code is the number of the signal; with -9 and nothing in the "
    "log, free memory or ask for fewer devices.",
)
STANDS_STILL = Entry(
    102,
    "A federation whose parts were killed and started again does not go on.",
    "A part did not find its way back, or this machine is too busy to get anywhere.",
    "Try again when the machine has less to do. If it stands still again with the same `--seed`, report it with the "
    "logs that the message names.",
)

# 2: settings and arguments

SETTINGS = Entry(
    200,
    "A setting cannot work.",
    "The message names the file, the key, what was seen and what would be right.",
    "Correct what it names and start again.",
)
SETTINGS_FILE_MISSING = Entry(
    201,
    "The settings file is not there.",
    "The path is misspelt, or relative to another folder than the one that the message says was looked in.",
    "Name the file with `--config`, best by its whole path; in a container, see that it is mounted.",
)
SETTINGS_FILE_UNREADABLE = Entry(
    202,
    "The settings file cannot be read.",
    "It is a folder or far too large to be settings, or this user may not read it.",
    "Name the right file, or give the user that Mekt runs as the right to read it and its folder.",
)
SETTINGS_NOT_TOML = Entry(
    203,
    "The settings file is not TOML.",
    "Mostly text without quotes, `True` for `true`, a bracket that is not closed, or an encoding other than UTF-8.",
    "Correct the line and column that the message names.",
)
SETTING_UNKNOWN_KEY = Entry(
    204,
    "There is no setting of this name.",
    "It is spelt wrong, or stands in the wrong table.",
    "Correct it; `did you mean` names the nearest one that is known in that table.",
)
SETTING_WRONG_TYPE = Entry(
    205,
    "A setting is of the wrong type.",
    "A number or `true` in quotes, text without, or a single value where a list or a table belongs.",
    "Write it as the message expects it.",
)
SETTING_MISSING = Entry(
    206,
    "A setting that is needed is missing.",
    "It was left out, or stands in another table than the one that the message names.",
    "Add it; the message says of what type it is.",
)
SETTING_OUT_OF_BOUNDS = Entry(
    207,
    "A setting is out of its bounds.",
    "A number too small or too large, or text with characters that a name may not have.",
    "Choose a value within the limits that the message names.",
)
SETTINGS_CONTRADICT = Entry(
    208,
    "Settings do not go together.",
    "Each is well by itself, but not beside the others, such as a recording that is both learned from and tested on.",
    "Change the one that the message names, or its counterpart.",
)
SETTINGS_SEVERAL = Entry(
    209,
    "Several settings cannot work, for different reasons.",
    "Often one misspelt key, which is then unknown under its wrong name and missing under its right one.",
    "Correct them line by line, unknown keys first.",
)
ARGUMENTS_UNFIT = Entry(
    210,
    "The arguments of the command do not go together.",
    "One is missing, one too many, or out of its bounds beside the others.",
    "Give them as the message says; every command explains itself with `--help`.",
)
CHOICE_UNKNOWN = Entry(
    211,
    "There is nothing of this name or number to choose.",
    "It is misspelt, or of another version of Mekt.",
    "Choose one of those that the message or the command's list names: `mekt bench list`, `mekt explain`.",
)
RECORDING_NOT_FOUND = Entry(
    212,
    "A recording that the settings name is not there.",
    "The path is misspelt, or the file was not copied; relative paths start at the folder of the settings file.",
    "Correct the path, or bring the file to the folder that the message says was looked in.",
)
DATA_FOLDER_UNFIT = Entry(
    213,
    "The folder of recordings is not there, or does not have what is needed.",
    "`--data` or `MEKT_DATA` names another folder, or the set has not been fetched.",
    "Name the folder with `--data DIR` or `MEKT_DATA`; the README lists the sets. The demo simulates when neither "
    "is given.",
)
TOO_FEW_RECORDED = Entry(
    214,
    "The recordings are too few or too short for what is asked.",
    "They hold fewer windows than a proxy set needs, or fewer persons than there are to be devices.",
    "Name more or longer recordings, shorten the window or its stride, or ask for fewer devices.",
)
PROXY_TOO_LARGE = Entry(
    215,
    "The proxy set is too large to be sent.",
    "All windows of one modality go to the devices in one piece, and these are over its limit.",
    "Lower `proxy_windows`, or shorten the window.",
)
PROXY_OUT_OF_RANGE = Entry(
    216,
    "Values of the proxy set are too large to be sent.",
    "Windows travel as 16-bit floats, which end at 65504; the unit is too small, or a sensor gave nonsense.",
    "Record the modality in a larger unit, or leave the faulty recording out.",
)
NOTHING_LABELLED = Entry(
    217,
    "No window of the recordings has a label.",
    "They were recorded without labels, or with labels that mean nothing here.",
    "Name labelled recordings, or leave `labelled` and `test` out: the federation then learns encoders alone.",
)
PLAIN_TEXT_REFUSED = Entry(
    218,
    "The way to the broker would be open to everybody.",
    "The broker is on another machine and there is no `[broker.tls]`, so nothing would be encrypted.",
    "Add `[broker.tls]` with `ca`, or set `broker.plain_text_allowed = true` on a network that nobody else is on.",
)
PASSWORD_FILE_UNUSABLE = Entry(
    219,
    "The file with the broker's password cannot be used.",
    "It is not there, this user may not read it, or it is not UTF-8 text.",
    "Correct `broker.password_file`, its owner or its permissions, or write it anew.",
)
TLS_FILES_UNUSABLE = Entry(
    220,
    "The files for TLS cannot be used.",
    "One of `ca`, `certificate` and `key` is missing, not in PEM form, encrypted, or the key is not the certificate's.",
    "Correct the paths in `[broker.tls]`. A key must not have a password, as nobody is there to type it.",
)
NO_GPU = Entry(
    221,
    "There is no GPU that torch can use.",
    'The settings insist on `compute = "cuda"`, but torch was built without it or the driver is missing.',
    'Install the CUDA build of torch and the driver, or set `compute = "cpu"`.',
)
OUT_UNUSABLE = Entry(
    222,
    "The folder for the results cannot be used.",
    "It holds something already, which is never overwritten, cannot be made, or the broker's user may not enter it.",
    "Name another folder with `--out`, or remove what is there.",
)
TOKEN_UNUSABLE = Entry(
    223,
    "This is no token, or not a whole one.",
    "It was cut while it was copied, or another Mekt made it.",
    "Copy the whole line that `mekt enroll token` printed, or make a new one.",
)
SECRET_READABLE = Entry(
    224,
    "Others on this machine can read a secret.",
    "A key or password file was copied or made without regard to its permissions.",
    "`chmod 600` the file that the message names. If others may have read it, revoke it and enrol anew.",
)
KEY_UNUSABLE = Entry(
    225,
    "The coordinator's public key cannot be read.",
    "The file is not there, was cut, or is no such key.",
    "Correct the path in `[trust] coordinator`, or enrol the device anew.",
)
AUTHORITY_MISSING = Entry(
    226,
    "There is no authority in this folder.",
    "It was not made yet, or is in another folder.",
    "Make one with `mekt ca init`, or name the right folder with `--authority` or `[trust] authority`.",
)
NAME_TOO_LONG = Entry(
    240,
    "A name is too long for a certificate.",
    "With what says whose it is, it has at most 64 characters: that leaves 57 for a device, 52 for a federation.",
    "Choose a shorter name.",
)
CLOCK_UNSET = Entry(
    241,
    "The clock of the machine with the authority is not set.",
    "It has no battery clock and no network yet, so it thinks that it is 1970. What it certified would have expired.",
    "Set the clock, or wait until the network has set it, and give the command again.",
)
HOST_UNFIT = Entry(
    242,
    "This is no name or address of a machine.",
    "It has a space, a quote, or letters that are not ASCII.",
    "Write a name in its ASCII form (`xn--...`), or the address.",
)
BROKER_MISSING = Entry(
    243,
    "There are no files of a broker in this folder.",
    "They were not made yet, or are in another folder.",
    "Make them with `mekt broker config`, or name the right folder with `--broker` or `[trust] broker`.",
)
SECRET_THERE = Entry(
    244,
    "The file that a secret is to be written to is there already.",
    "It may hold a secret that somebody still needs, so it is never overwritten.",
    "Name another file with `--out`, or remove the one that is there.",
)
WINDOWS_KEY_UNUSABLE = Entry(
    249,
    "The key under which private windows are to be sealed cannot be used.",
    "The file of `windows.key_file`, or the service manager's credential, is missing, unreadable or too short.",
    "Name a file of 32 random bytes that only this user reads, or leave `windows.key_file` out.",
)

# 3: bytes of peers

WIRE = Entry(
    300,
    "Bytes from the network are no valid message.",
    "Another program, or another version of Mekt, writes to the federation's topics.",
    "Bring all sides to one version; give the federation a broker or an access list of its own.",
)
NOT_A_MESSAGE = Entry(
    301,
    "A message is not one of Mekt's, or not where it belongs.",
    "From one device, another version of Mekt runs there. From many, another program writes to `mekt/1/...`.",
    "Bring the device to the coordinator's version, or give the federation a broker or an access list of its own.",
)
WIRE_OF_ANOTHER_VERSION = Entry(
    302,
    "A message is of another version of the wire.",
    "Coordinator and device are of different releases of Mekt.",
    "Bring both to one release, the coordinator first.",
)
WIRE_TOO_LARGE = Entry(
    303,
    "A message or a blob is larger than its kind may be.",
    "The sender is not Mekt, is of another version, or follows a plan with a far larger proxy set.",
    "Bring the sender to the coordinator's version; if it is not a device, keep it away by an access list.",
)
KNOWLEDGE_UNFIT = Entry(
    304,
    "Knowledge cannot be learned from.",
    "Its arrays are of other sizes than the plan's, or not finite: the model has diverged, or a sensor gave nonsense.",
    "Look at the named device: its version and its sensors' units. If many devices diverge, lower `method.local_rate`.",
)
BLOB_DAMAGED = Entry(
    305,
    "A piece of a blob is damaged, was not asked for, or is not there.",
    "Messages were lost or repeated on the way, or memory or disk of the sender are failing.",
    "Nothing: it is asked for again. If it goes on, look at the sender's memory and disk.",
)
FEDERATION_FULL = Entry(
    306,
    "The federation has as many devices as it can have.",
    "More devices announce themselves than one coordinator takes, or something announces ever new names.",
    "Start another federation for the rest.",
)
SECURE_ROUND_FAILS = Entry(
    307,
    "A round under secure aggregation gives no sum.",
    "Too few devices are left in it, or a message is not what the protocol has at that point.",
    "Nothing for a single round: nobody's knowledge was seen, and the next one begins with new keys. If it goes on, "
    "give its steps more time (`step_s`), and look at the device that the message names.",
)

# 4: the broker and the way to it

LINK = Entry(
    400,
    "The broker cannot be reached, or does not take what it is given.",
    "The network, the broker or its configuration.",
    "Do what the message says; `mekt doctor` looks at the whole way to the broker, step by step.",
)
BROKER_UNREACHABLE = Entry(
    401,
    "The broker does not answer at its address.",
    "It does not run, listens to its own machine alone, or a firewall is between; or host or port are wrong.",
    "Start the broker; see that `[broker] host` and `port` are its address as seen from here. mosquitto 2 listens "
    "to other machines only with a `listener` line.",
)
HOST_UNKNOWN = Entry(
    402,
    "The name of the broker's machine is not known.",
    "`[broker] host` is misspelt, or this machine's name server does not answer or does not know it.",
    "Correct the name, mend the network, or write the address instead of the name.",
)
TLS_FAILED = Entry(
    403,
    "No encrypted connection to the broker comes about.",
    "The broker's certificate is signed by somebody else, made for another name, or out of date; the broker wants a "
    "certificate of this side; or no TLS is spoken on this port. On a board without a battery clock a good "
    'certificate can seem "not yet valid" until the time is set.',
    "`ca` must be the authority that signed the broker's certificate, and `host` the name in it; 8883 is the usual "
    "port. Set this machine's clock.",
)
LOGIN_UNANSWERED = Entry(
    404,
    "The broker does not answer the login.",
    "Something other than an MQTT broker listens there, one side uses TLS and the other does not, or the broker "
    "wants a certificate.",
    "Check the port, that both sides use TLS or neither, and this side's certificate.",
)
LOGIN_REFUSED = Entry(
    405,
    "The broker refuses the login.",
    "The user name or the content of `password_file` is wrong, the broker has no such user, or lets nobody in "
    "without one.",
    "Correct `[broker] username` and `password_file`, or add the user to the broker's; its log says more.",
)
PACKET_TOO_LARGE = Entry(
    406,
    "A message is larger than the broker carries.",
    "The broker's limit is below what Mekt sends at a time.",
    "Raise the broker's limit to at least 131072 bytes; in `mosquitto.conf` it is `max_packet_size`.",
)
TOO_MANY_WAITING = Entry(
    407,
    "Too many messages are waiting for the broker.",
    "It has been away, or too slow, for long.",
    "Bring the broker back. Nothing is lost: what matters is asked for again.",
)
FEDERATION_SILENT = Entry(
    408,
    "Nothing of this federation is on the broker.",
    "Its coordinator has not been started yet, the name is misspelt, or this login may not read its topics.",
    "Start the coordinator, or correct the federation's name; `mekt doctor` shows what may be read.",
)
PORT_IN_USE = Entry(
    409,
    "The port for a broker of one's own is in use.",
    "Another program, often a broker, listens on it.",
    "Choose another with `--port`, leave it out to get a free one, or end the program that has it.",
)
BROKER_ENDED = Entry(
    410,
    "The broker that was started here ended or does not answer.",
    "It does not understand its configuration, may not write to its folder, or this machine is too busy.",
    "Its log, which the message names, has the reason; try again when the machine has less to do.",
)
TOPIC_FORBIDDEN = Entry(
    411,
    "The broker does not let this login read or write a topic that it needs.",
    "The access list lacks the topic, or names it for another user.",
    "Allow in the broker's access list what the message names.",
)
BROKER_LACKS = Entry(
    412,
    "The broker is set up without something that Mekt needs.",
    "QoS 1, retained messages or subscriptions with wildcards are switched off.",
    "Allow them in the broker's configuration.",
)
ENROLMENT_REFUSED = Entry(
    413,
    "The coordinator refuses to enrol this device.",
    "The token was used or has expired, or it is another device's.",
    "Make a new token with `mekt enroll token`. If this device has not used the old one, revoke it: somebody else has.",
)
ENROLMENT_UNANSWERED = Entry(
    414,
    "The coordinator does not answer to a token.",
    "It is not running, or has no authority: `[trust] authority` is missing in its settings.",
    "Start the coordinator with its authority and enrol again; the token is still good.",
)
BROKER_NOT_TOLD = Entry(
    415,
    "The broker could not be told of what has changed.",
    "It belongs to another user than the one who runs Mekt, or does not answer.",
    "Reload it: `systemctl reload mosquitto`, or give the command again as root.",
)

# 5: sensors and recordings

SENSOR = Entry(
    500,
    "A sensor or a recording cannot be read.",
    "Its driver, its connection or its file, as the message says.",
    "Check the device or the path that the message names; `mekt sensors check` looks at every sensor.",
)
RECORDING_MISSING = Entry(
    501,
    "A recording is not there.",
    "The path is misspelt, or the set has not been fetched; the message names the folder that was looked in.",
    "Correct the path, or name another folder with `--data DIR` or `MEKT_DATA`.",
)
RECORDING_UNREADABLE = Entry(
    502,
    "This user may not read a recording.",
    "The file or its folder belongs to somebody else, or the disk does not give it.",
    "Mend owner and permissions, or the disk.",
)
RECORDING_DAMAGED = Entry(
    503,
    "A recording is damaged.",
    "It was copied or fetched in part, or changed since.",
    "Record, copy or fetch the file again.",
)
RECORDING_OF_UNKNOWN_LAYOUT = Entry(
    504,
    "A file is no recording of a known layout.",
    "It is of another program, or its arrays have other names.",
    "Name a recording in one of the layouts that the message lists, or convert it.",
)
MODALITY_MISSING = Entry(
    505,
    "A modality that is asked for is not there.",
    "The recording, sensor or release does not have it, or has it under another name.",
    "Ask for those that the message names, or use a source that has it.",
)
MODALITY_UNLIKE = Entry(
    506,
    "A modality is not of the kind that is expected.",
    "Its shape or unit differs from that of the plan, of the release or of the other recordings.",
    "Use the sensor that it was meant for, correct shape and unit in its settings, or leave it out.",
)
SENSOR_SILENT = Entry(
    507,
    "A source ended before it gave anything to work with.",
    "The recording is shorter than a window, all of it has holes, or the sensor is switched off.",
    "Record for longer and without holes, or look whether the sensor measures.",
)
MEMORY_TOO_SMALL = Entry(
    508,
    "The windows of a plan are too large for this device.",
    "Those that are made at once take more memory than they may, or `windows.least` more disk than `windows.size_mb`.",
    "Ask for shorter windows or a longer stride, or raise `windows.size_mb`.",
)
SOURCE_MISUSED = Entry(
    509,
    "A source or a store of windows was made or used in a way that cannot work.",
    "A program that uses Mekt's sensors gave them nothing to do, or a value out of its bounds.",
    "Correct the call as the message says; when Mekt itself made it, report it.",
)
WINDOWS_UNFIT = Entry(
    510,
    "Windows are not of the shape that they are needed in.",
    "They were cut by another window, stride or rate than that of the plan or of the release.",
    "Cut them by the window and rate in the release's manifest, or in the plan.",
)
NO_LABEL_OF_THE_RELEASE = Entry(
    511,
    "No window is labelled with a class of the release.",
    "The recordings have no labels, or those of another set.",
    "Name labelled recordings of the classes that the message lists.",
)
RECORDING_NOT_WRITTEN = Entry(
    512,
    "A recording cannot be written.",
    "The disk is full or read-only, or this user may not write there.",
    "Free space, or choose another folder.",
)
SENSOR_UNUSABLE = Entry(
    513,
    "A sensor's driver fails.",
    "It raises, crashes or hangs: a missing package, no right to use the device, a loose cable.",
    "Check driver and connection; give the user that Mekt runs as the right to use the device.",
)

# 6: releases

RELEASE = Entry(
    600,
    "A release cannot be used or made.",
    "The message says what is wrong with it.",
    "Copy it again from the coordinator's `state/releases`, or have it exported again.",
)
RELEASE_MISSING = Entry(
    601,
    "There is no release there.",
    "The path is misspelt, or names another file, or the folder that holds it.",
    "Name the file, which ends in `.zip`.",
)
RELEASE_UNREADABLE = Entry(
    602,
    "This user may not read a release.",
    "Its file belongs to somebody else, or the disk does not give it.",
    "Mend owner and permissions, or the disk.",
)
RELEASE_DAMAGED = Entry(
    603,
    "A release is damaged.",
    "It was copied in part, packed anew or changed: its bytes are not those that were written.",
    "Copy it again from the coordinator, as it is.",
)
RELEASE_TOO_NEW = Entry(
    604,
    "A release is of a newer Mekt.",
    "The coordinator has a newer version than this machine.",
    "Bring Mekt on this machine to the coordinator's version.",
)
RELEASE_DOES_NOT_RUN = Entry(
    605,
    "A release does not run.",
    "The onnxruntime here is too old for the models, or the models are not those that the manifest describes.",
    "Install a newer onnxruntime; if that does not help, have the release exported again.",
)
RELEASE_UNFAITHFUL = Entry(
    606,
    "Exported models do not compute what was trained.",
    "Weights are not finite, or the export does not know a layer well enough.",
    "Nothing was written, and the former release stays. Look for a model that has diverged; else report it with the "
    "numbers of the message.",
)
RELEASE_NOT_MADE = Entry(
    607,
    "What is to be released does not fit together.",
    "Encoders, classifiers, windows or plan are not of each other's sizes, or a layer is unknown to the export.",
    "When a program of yours exports, correct what the message names; else report it.",
)
RELEASE_IS_ANOTHER = Entry(
    608,
    "Another release is there already.",
    "A release is never overwritten, as wearables may be reading it.",
    "Name another file, or move the other release away.",
)
RELEASE_HAS_NO_CLASSIFIER = Entry(
    609,
    "The release has no classifier for these modalities.",
    "It was trained without labels, or without these modalities together.",
    "Ask for a set of modalities that the message lists, or give the coordinator labelled recordings.",
)
RELEASE_UNSIGNED = Entry(
    610,
    "The release is not signed by this device's coordinator.",
    "It is another federation's, was changed, or was made without an authority.",
    "Copy it again from the coordinator, whose settings name its authority under `[trust]`.",
)
RELEASE_REPLAYED = Entry(
    611,
    "The release is older than one that was used here before.",
    "Somebody put an old release in the place of a newer one.",
    "Take the newest one. To go back on purpose, remove the file beside the key that ends in `.newest-release`.",
)
RELEASE_UNKNOWN = Entry(
    612,
    "The coordinator has no release of this name.",
    "It is misspelt, its round is not over yet, or its export failed.",
    "Choose one that `mekt release list` names.",
)
ROLLOUT_UNDER_WAY = Entry(
    613,
    "A release is on its way to wearables, or there already.",
    "One release at a time is tried; the message names it.",
    "Wait for its end, which `mekt status` tells, or end it with `mekt release promote --now` or `mekt release stop`.",
)
NO_ROLLOUT = Entry(
    614,
    "There is no release that could be taken back.",
    "None was promoted, it was taken back already, or no other was on all wearables before it.",
    "See `mekt release list`; to bring wearables another one, promote it.",
)
RELEASE_WORSE = Entry(
    615,
    "The release finds some classes less often than the one that wearables run.",
    "Its classes changed places, labelled recordings lack some of them now, or learning has gone astray.",
    "See `mekt release diff`, and promote another; this one all the same with `mekt release promote --even-if-worse`.",
)

# 7: state on disk

STATE = Entry(
    700,
    "State cannot be kept or read.",
    "The disk, its permissions or another process, as the message says.",
    "Do what the message says and start again; nothing that was acknowledged is lost.",
)
STATE_IN_USE = Entry(
    701,
    "Another process uses the state folder.",
    "The same part runs already, or two parts are to share a folder.",
    "End the process that the message names, or name another state folder.",
)
DISK_FULL = Entry(
    702,
    "The disk is full.",
    "No room is left, or a quota or a limit on the size of files is reached.",
    "Free space or raise the limit, then start again; nothing that was acknowledged is lost.",
)
DISK_READ_ONLY = Entry(
    703,
    "The disk is read-only.",
    "It was mounted so, or the kernel made it so after errors: an SD card near its end.",
    "Mount it writable; after errors, copy the state folder to another disk and replace this one.",
)
DISK_FORBIDDEN = Entry(
    704,
    "This user may not read or write the state folder.",
    "It belongs to somebody else, mostly to root after a start as root.",
    "Give the folder and all within to the user that Mekt runs as, or name another state folder.",
)
DISK_FAULTY = Entry(
    705,
    "The disk does not do what it is asked.",
    "An error of the disk or of its file system, or a network disk that is away.",
    "Look at the kernel's log (`dmesg`), mend or replace the disk, and restore the state folder from a copy if need "
    "be.",
)
NOT_A_FOLDER = Entry(
    706,
    "The state folder cannot be made.",
    "A file of that name is in the way.",
    "Remove it, or name another state folder.",
)
NOT_LOCKABLE = Entry(
    707,
    "The state folder cannot be locked.",
    "It is on a network disk or a file system without locks, so that two processes could write to it at once.",
    "Choose a folder on a local disk.",
)
STATE_DAMAGED = Entry(
    708,
    "State on disk is damaged.",
    "A failing disk, or somebody else changed the file that the message names.",
    "Restore the file from a copy. Without one, start with an empty folder: a device learns from the start, a "
    "coordinator begins the federation anew.",
)
STATE_NEWER = Entry(
    709,
    "State on disk is of a newer Mekt.",
    "Mekt was downgraded.",
    "Install the newer version again, or start with an empty folder.",
)
STATE_OF_ANOTHER_PLAN = Entry(
    710,
    "State on disk belongs to another federation or plan.",
    "Modalities, windows, proxy set, seed or widths were changed since, or the folder is that of another federation.",
    "Restore those settings, or name another state folder.",
)
DELIVERY_GONE = Entry(
    711,
    "Knowledge that a device delivered is no longer on disk.",
    "A file was removed or damaged after it had been acknowledged.",
    "Start again: the coordinator collects it anew. Keep other programs out of the state folder.",
)
IDENTITY_DAMAGED = Entry(
    712,
    "A device's key cannot be used.",
    "The file was damaged, or is no key.",
    "Remove the identity's folder and enrol the device with a new token.",
)
AUTHORITY_THERE = Entry(
    713,
    "There is an authority in this folder already.",
    "`mekt ca init` was given twice.",
    "Use the one that is there: a new one would make every device's certificate worthless. Else name another folder.",
)
AUTHORITY_DAMAGED = Entry(
    714,
    "The authority's keys or its memory cannot be read.",
    "A file was removed or damaged, or is of another authority.",
    "Restore the folder from its copy. Without one, make a new authority and enrol every device anew.",
)

BUDGET_LOST = Entry(
    715,
    "How much of the privacy budget is spent cannot be read any more.",
    "The device's state is damaged. Begun anew, as without a budget, it would take what it has shown for unseen.",
    "Restore `device.sqlite` from a copy of its state folder. Remove the file only if what the device has shown so far "
    "shall not count, or if its private windows are others by now.",
)
AUDIT_BROKEN = Entry(
    720,
    "The log of what left a device has a gap.",
    "Entries were changed, removed or cut off, or the disk lost what it had said was kept.",
    "Keep a copy of `audit` and `audit.anchor` and find out who did it. The device goes on; to begin a log anew, move "
    "both out of its folder while it is stopped.",
)
AUDIT_MISSING = Entry(
    721,
    "There is no log of what left this device.",
    "It has not run yet, or of these settings' state folder only a part was copied.",
    "Name the settings of a device that has run, on the device or beside a copy of its state folder.",
)

# 8: what is installed

INSTALLATION = Entry(
    800,
    "Something is not installed.",
    "An optional package was not needed until now.",
    "Run the one line that the message holds.",
)
PACKAGE_MISSING = Entry(
    801,
    "A package is not installed.",
    "It belongs to an extra that was not installed, or is older than what is needed; or another environment's "
    "Python runs.",
    "In the folder of Mekt, run the line that the message holds; in a checkout, `make demo` and `make test` install "
    "what they need.",
)
NO_BROKER_PROGRAM = Entry(
    802,
    "There is no MQTT broker on this machine.",
    "Demo and tests start one of their own: mosquitto, or amqtt where it is not there.",
    "Run one of the lines that the message holds.",
)
PACKAGE_UNUSABLE = Entry(
    803,
    "A package is installed and does not work here.",
    "Its build is for another processor, a part of it is missing, or memory runs out while it is loaded.",
    "Do what `mekt doctor` says: install a library of the system's, or another build or version of the package; where "
    "a process was killed, free memory.",
)
PYTHON_UNFIT = Entry(
    804,
    "This Python cannot run Mekt.",
    "It is older than 3.11, or for a 32-bit system, for which there is no torch and no onnxruntime.",
    "Make an environment with Python 3.11 or later on a 64-bit operating system.",
)
OPENSSL_MISSING = Entry(
    805,
    "The program openssl is not there.",
    "A minimal image came without it.",
    "Install it: `apt-get install openssl`.",
)

ENTRIES: tuple[Entry, ...] = tuple(
    sorted((each for each in list(globals().values()) if isinstance(each, Entry)), key=lambda each: each.number)
)
BY_NUMBER: dict[int, Entry] = {each.number: each for each in ENTRIES}

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_IN_THE_WAY = frozenset({errno.ENOTDIR, errno.EEXIST, errno.EISDIR})
# What the command line puts behind the text of an error.
_MARK = re.compile(r" \(error (\d{3,4}), see: mekt explain \1\)$")


def of_disk(error: OSError) -> Entry:
    """What it means for state that the system refuses to read or write it."""
    if error.errno in _FULL:
        return DISK_FULL
    if error.errno == errno.EROFS:
        return DISK_READ_ONLY
    if error.errno in _FORBIDDEN:
        return DISK_FORBIDDEN
    return NOT_A_FOLDER if error.errno in _IN_THE_WAY else DISK_FAULTY


def marked(text: str, entry: Entry) -> str:
    """`text` as people see it at the end of a process: with the number, and the command that explains it."""
    return f"{text} (error {entry.number}, see: mekt explain {entry.number})"


def unmarked(text: str) -> tuple[str, Entry | None]:
    """The text and the entry of which `marked` made it; None where it was another's text."""
    found = _MARK.search(text)
    if found is None or (entry := BY_NUMBER.get(int(found[1]))) is None:
        return text, None
    return text[: found.start()], entry
