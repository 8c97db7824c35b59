"""Certificates as the federation's authority makes and reads them: X.509, P-256, beginning in 1970 (pure)."""

import hashlib
import ipaddress
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mekt import catalogue
from mekt.errors import SettingsError
from mekt.token import check_host

# Certificates begin at the time that a board without a clock takes for now.
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# Of the name in a certificate (RFC 5280, appendix A.1: ub-common-name).
LONGEST_NAME = 64


def of_authority(key: ec.EllipticCurvePrivateKey, federation: str, ends_s: float) -> x509.Certificate:
    """The certificate that an authority signs for itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Mekt authority of {federation}"[:LONGEST_NAME])])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return (
        _builder(name, name, key.public_key(), ends_s)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def of_holder(
    authority: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    name: str,
    key: ec.EllipticCurvePublicKey,
    ends_s: float,
    hosts: tuple[str, ...] = (),
) -> x509.Certificate:
    """A certificate for the holder of a key: a client of the broker's, or with `hosts` the broker.

    Raises:
        SettingsError: when the name is too long, or a host is none.
    """
    check_name(name)
    ca, signer = authority
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(subject, ca.subject, key, ends_s)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(each) for each in hosts]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def serves(ca: x509.Certificate, certificate: bytes, key: bytes, hosts: tuple[str, ...], until_s: float) -> bool:
    """Whether these are, in PEM, a certificate and its key for a broker of these hosts that last longer than that."""
    try:
        broker, private = x509.load_pem_x509_certificate(certificate), load_pem_private_key(key, None)
        broker.verify_directly_issued_by(ca)
        names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        broker.public_key() == private.public_key()
        and list(names) == [_host(each) for each in hosts]
        and broker.not_valid_after_utc.timestamp() > until_s
    )


def check_name(name: str) -> None:
    """See that a certificate can have this name.

    Raises:
        SettingsError: when it is too long.
    """
    if len(name) > LONGEST_NAME:
        raise SettingsError(
            f"{name}: a certificate's name has at most {LONGEST_NAME} characters, this one {len(name)}; shorten it",
            catalogue.NAME_TOO_LONG,
        )


def requested_key(csr: bytes, device: str) -> ec.EllipticCurvePublicKey | None:
    """The key in a request under this name, P-256 and with its holder's signature; None when that is not what it is."""
    try:
        request = x509.load_der_x509_csr(csr)
        key, names = request.public_key(), request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        fits = request.is_signature_valid and [each.value for each in names] == [device]
    except Exception:  # a stranger's bytes: the library names many errors, and all mean the same here
        return None
    if not fits or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return None
    return key


def certified_key(der: bytes) -> bytes:
    """The hash of the key in a certificate of ours."""
    key = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key_sha256(key)


def key_sha256(key: ec.EllipticCurvePublicKey) -> bytes:
    """What a key is told by."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """A private key as text."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ends_s: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGINNING)
        .not_valid_after(datetime.fromtimestamp(ends_s, UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _host(text: str) -> x509.GeneralName:
    check_host(text)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
