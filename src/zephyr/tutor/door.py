"""Where the tutor listens, and how what is said is kept secret on the way."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from zephyr.errors import ZephyrError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PASSWORD = "ZEPHYR_CLASS_PASSWORD"  # noqa: S105  # the name of a variable
SHORTEST = 8
"""Characters that the password of a class has at least."""


@dataclass(frozen=True)
class Door:
    """An address, and how it is guarded."""

    host: str = "127.0.0.1"
    port: int = 8000
    behind_proxy: bool = False
    certificate: Path | None = None
    key: Path | None = None

    @property
    def local(self) -> bool:
        """Whether nobody but this machine reaches it."""
        return self.host in LOOPBACK and not self.behind_proxy

    @property
    def address(self) -> str:
        scheme = "https" if self.certificate else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    def password(self) -> str | None:
        """The class's password; None where the server is open.

        Raises:
            ZephyrError: others can reach it, and there is none, or it would be sent in clear.
        """
        given = os.environ.get(PASSWORD)
        if given is not None and len(given) < SHORTEST:
            raise ZephyrError(f"{PASSWORD} is too short", allowed=f"at least {SHORTEST} characters")
        if self.local:
            return given
        where = "a proxy" if self.behind_proxy else self.host
        if given is None:
            raise ZephyrError(
                "a tutor that others can reach needs the password of the class",
                where=where,
                todo=f"set {PASSWORD}, or leave out --host and --behind-proxy",
            )
        if not (self.behind_proxy or self.certificate):
            raise ZephyrError(
                "the password of the class would be sent in clear",
                where=where,
                todo="give --tls-cert and --tls-key, or --behind-proxy where a proxy has TLS",
            )
        return given

    def bind(self) -> socket.socket:
        """The socket to listen on.

        Raises:
            ZephyrError: the port is taken, or the address is not one of this machine.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.host, self.port))
        except OSError as error:
            listening.close()
            raise ZephyrError(
                "the tutor can't listen there",
                where=f"{self.host}, port {self.port}",
                found=error.strerror or str(error),
                todo="give another --port, or end what uses this one",
            ) from error
        return listening
