"""Listen address of the server (host, port), its TLS files, and the class's password."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from zephyr.errors import ZephyrError

ALL_INTERFACES = ("0.0.0.0", "::")  # noqa: S104  # names, to be compared with
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PASSWORD_VARIABLE = "ZEPHYR_CLASS_PASSWORD"  # noqa: S105  # the name of a variable
MIN_PASSWORD_LENGTH = 8
"""Minimum length of the password, in characters."""


@dataclass(frozen=True)
class ListenAddress:
    """Listen address: host and port, with TLS files or behind a reverse proxy with TLS."""

    host: str = "127.0.0.1"
    port: int = 8000
    behind_proxy: bool = False
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is reachable from this machine only (loopback, no proxy)."""
        return self.host in LOOPBACK and not self.behind_proxy

    @property
    def url(self) -> str:
        """The address that others open: of this machine in its network, where it listens to all."""
        scheme = "https" if self.tls_certificate else "http"
        found = find_network_address() if self.host in ALL_INTERFACES else self.host
        host = f"[{found}]" if ":" in found else found
        return f"{scheme}://{host}:{self.port}"

    def read_password(self) -> str | None:
        """Reads the class's password from the environment; None if the server is open.

        Raises:
            ZephyrError: others can reach the server, and the password is missing or sent in clear.
        """
        password = os.environ.get(PASSWORD_VARIABLE)
        if password is not None and len(password) < MIN_PASSWORD_LENGTH:
            raise ZephyrError(
                f"{PASSWORD_VARIABLE} is too short",
                allowed=f"at least {MIN_PASSWORD_LENGTH} characters",
            )
        if self.is_local:
            return password
        where = "a proxy" if self.behind_proxy else self.host
        if password is None:
            raise ZephyrError(
                "a tutor that others can reach needs the password of the class",
                where=where,
                todo=f"set {PASSWORD_VARIABLE}, or leave out --host and --behind-proxy",
            )
        if not (self.behind_proxy or self.tls_certificate):
            raise ZephyrError(
                "the password of the class would be sent in clear",
                where=where,
                todo="give --tls-cert and --tls-key, or --behind-proxy where a proxy has TLS",
            )
        return password

    def bind(self) -> socket.socket:
        """Binds the listening socket.

        Raises:
            ZephyrError: the port is taken, or the address is not one of this machine.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        server_socket = socket.socket(family, socket.SOCK_STREAM)
        server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server_socket.bind((self.host, self.port))
        except OSError as error:
            server_socket.close()
            raise ZephyrError(
                "the tutor can't listen there",
                where=f"{self.host}, port {self.port}",
                found=error.strerror or str(error),
                todo="give another --port, or end what uses this one",
            ) from error
        return server_socket


def find_network_address() -> str:
    """The address (IPv4) of this machine in its network; that of the machine itself without one.

    A datagram socket that is connected picks the route; nothing is sent.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that documents are written with (RFC 5737)
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
