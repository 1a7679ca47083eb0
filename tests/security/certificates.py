"""Certificates that are made for a test: an authority, and the files of what it has issued."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path

    from server.edge.certificates import Files


class Authority:
    """Issues certificates into files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = trustme.CA()
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "ca.pem"
        self._made.cert_pem.write_to_path(self.file)

    @property
    def pem(self) -> bytes:
        return self._made.cert_pem.bytes()

    def issue(self, name: str, *names: str, subject: str | None = None, expired: bool = False) -> tuple[Path, Path]:
        """The files of a certificate and its key, which replace those of the same name at once, one after the other."""
        until = datetime.now(UTC) - timedelta(days=1) if expired else None
        made = self._made.issue_cert(
            *(names or ("localhost", "127.0.0.1")),
            common_name=subject,
            not_before=datetime(2020, 1, 1, tzinfo=UTC),
            not_after=until,
        )
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        for path, content in (
            (cert, b"".join(pem.bytes() for pem in made.cert_chain_pems)),
            (key, made.private_key_pem.bytes()),
        ):
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.replace(path)
        return cert, key

    def files(self, *names: str, ask_clients: bool = False) -> Files:
        """Those of a server."""
        from server.edge.certificates import Files

        return Files(*self.issue("server", *names), self.file if ask_clients else None)

    def options(self, *names: str, ask_clients: bool = False) -> list[str]:
        """The same as options of a server's command line."""
        files = self.files(*names, ask_clients=ask_clients)
        asked = ["--tls-client-ca", str(files.client_ca)] if ask_clients else []
        return ["--tls-cert", str(files.cert), "--tls-key", str(files.key), *asked]

    def client(self) -> ssl.SSLContext:
        """Trusts what was issued here, and speaks HTTP/2."""
        context = ssl.create_default_context(cafile=self.file)
        context.set_alpn_protocols(["h2"])
        return context
