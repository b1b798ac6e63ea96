"""TLS in a classroom: a certificate that is kept, and the address that students open."""

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from zephyr.tutor import self_signed
from zephyr.tutor.listen import ListenAddress, find_network_address
from zephyr.tutor.self_signed import make_certificate


def test_a_certificate_is_for_this_machine_and_is_kept(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path / "tls", "192.168.1.20")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)  # they belong together
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = set(map(str, names.get_values_for_type(x509.IPAddress)))
    assert addresses == {"127.0.0.1", "::1", "192.168.1.20"}
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = certificate.read_bytes()
    assert make_certificate(tmp_path / "tls", "192.168.1.20")[0].read_bytes() == before


@pytest.mark.parametrize("change", ["address", "end", "key"])
def test_a_certificate_is_made_anew_where_it_is_of_no_use(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change == "end":
        monkeypatch.setattr(self_signed, "VALID_DAYS", self_signed.MIN_DAYS_LEFT - 1)
    certificate, key = make_certificate(tmp_path, "192.168.1.20")
    before = certificate.read_bytes()
    if change == "key":
        key.unlink()
    address = "192.168.1.21" if change == "address" else "192.168.1.20"
    assert make_certificate(tmp_path, address)[0].read_bytes() != before


@pytest.mark.enable_socket
def test_students_open_an_address_of_the_network() -> None:
    """0.0.0.0 is where a server listens, and no address that a browser can open."""
    address = find_network_address()
    assert ListenAddress("0.0.0.0", 8000).url == f"http://{address}:8000"
    certificate = Path("c.pem")
    assert ListenAddress("::", 8000, tls_certificate=certificate).url == f"https://{address}:8000"
    assert ListenAddress("10.1.2.3", 80).url == "http://10.1.2.3:80"
    assert ListenAddress("fe80::1", 80).url == "http://[fe80::1]:80"
