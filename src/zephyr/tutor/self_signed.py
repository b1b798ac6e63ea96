"""A self-signed certificate: TLS in a classroom, on a machine without a domain name.

Nobody vouches for it, so that browsers warn of it once; what students write is encrypted all the
same. It is kept in the store, so that a warning that was accepted stays so.
"""

import datetime
import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING

from zephyr.runs.store import write_atomically

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

VALID_DAYS = 180
MIN_DAYS_LEFT = 14
"""A certificate with fewer days left is replaced."""


def make_certificate(folder: Path, address: str) -> tuple[Path, Path]:
    """The certificate and key of this machine at an address (IP), kept in a folder.

    They are made anew where they are missing, are about to end, or name another address.
    """
    certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
    if key_path.is_file() and certificate_path.is_file():
        from cryptography import x509

        kept = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        if _names(kept, address) and _days_left(kept) >= MIN_DAYS_LEFT:
            return certificate_path, key_path
    certificate, key = _sign(address)
    folder.mkdir(parents=True, exist_ok=True)
    key_path.unlink(missing_ok=True)
    descriptor = os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    write_atomically(certificate_path, certificate.decode())
    return certificate_path, key_path


def _names(certificate: "Certificate", address: str) -> bool:
    """Whether a certificate is for an address."""
    from cryptography import x509

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return ipaddress.ip_address(address) in names.get_values_for_type(x509.IPAddress)


def _days_left(certificate: "Certificate") -> int:
    return (certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days


def _sign(address: str) -> tuple[bytes, bytes]:
    """A new certificate for localhost and an address, and its key (ECDSA on P-256), both as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Zephyr tutor")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = {ipaddress.ip_address(text) for text in ("127.0.0.1", "::1", address)}
    names = [x509.DNSName("localhost"), *map(x509.IPAddress, sorted(addresses, key=str))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(pem), private
