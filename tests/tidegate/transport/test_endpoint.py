"""What a client says of a server that it cannot talk to: TLS on one side alone, a proxy between, no address at all."""

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

import tidegate
from tests.security.certificates import Authority
from tests.tidegate.fake_server import Behaviour, FakeServer, FakeServicer
from tidegate.v1.tidegate_pb2_grpc import add_TidegateServicer_to_server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -subj /CN=localhost -addext"
    subprocess.run([*command.split(), "subjectAltName=DNS:localhost"], cwd=folder, check=True, capture_output=True)
    return (folder / "key").read_bytes(), (folder / "cert").read_bytes()


@pytest.fixture
def tls_server(certificate: tuple[bytes, bytes]) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    add_TidegateServicer_to_server(FakeServicer(Behaviour()), server)
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([certificate]))
    server.start()
    yield f"localhost:{port}"
    server.stop(0).wait()


def test_a_client_without_tls_says_that_the_port_speaks_tls(tls_server: str) -> None:
    words = f"the server at {tls_server} speaks TLS: connect to https://"
    with tidegate.connect(tls_server, timeout=120) as client:
        with pytest.raises(tidegate.ConnectionLost, match=words):
            client.models()
        with pytest.raises(tidegate.ConnectionLost, match=words):
            client.sequence("toy")


async def test_asyncio_says_that_the_port_speaks_tls(tls_server: str) -> None:
    async with tidegate.AsyncClient(tls_server, timeout=120) as client:
        with pytest.raises(tidegate.ConnectionLost, match="speaks TLS"):
            await client.models()


def test_a_client_with_tls_says_that_the_port_speaks_none(server: FakeServer, certificate: tuple[bytes, bytes]) -> None:
    credentials = grpc.ssl_channel_credentials(certificate[1])
    words = "does not speak TLS: connect without https:// and credentials"
    with (
        tidegate.connect(server.address, credentials=credentials, timeout=120) as client,
        pytest.raises(tidegate.ConnectionLost, match=words),
    ):
        client.models()


def test_a_certificate_that_is_not_trusted_is_said_to_be_so(tls_server: str, certificate: tuple[bytes, bytes]) -> None:
    with tidegate.connect(tls_server, credentials=grpc.ssl_channel_credentials(certificate[1]), timeout=120) as client:
        assert client.models()
    words = "a certificate that these credentials do not trust"
    with (
        tidegate.connect(tls_server, credentials=grpc.ssl_channel_credentials(), timeout=120) as client,
        pytest.raises(tidegate.ConnectionLost, match=words),
    ):
        client.models()


@pytest.fixture
def proxy() -> Iterator[str]:
    """One that lets nobody through."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("variable", ["http_proxy", "grpc_proxy"])
def test_a_client_behind_a_proxy_names_it(
    server: FakeServer, proxy: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, f"http://user:secret@{proxy}")
    with tidegate.connect(server.address, timeout=120) as client, pytest.raises(tidegate.ConnectionLost) as error:
        client.models()
    assert f"by way of the proxy {proxy} of {variable}; no_proxy=127.0.0.1 leaves it out" in str(error.value)
    with tidegate.connect(server.address, timeout=120, options=[("grpc.enable_http_proxy", 0)]) as client:
        assert client.models()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with tidegate.connect(server.address, timeout=120) as client:
        assert client.models()
    words = r"answers at 127\.0\.0\.1:1 \("
    with (
        tidegate.connect("127.0.0.1:1", timeout=120) as client,
        pytest.raises(tidegate.ConnectionLost, match=words),
    ):
        client.models()


@pytest.mark.parametrize(
    ("address", "kind", "words"),
    [
        ("localhost", ValueError, "the address 'localhost' names no port: HOST:PORT or https://HOST:PORT was expected"),
        ("http://localhost:1", ValueError, "begins with http://, which must be left out: HOST:PORT or"),
        ("::1:50051", ValueError, "is IPv6, which stands in brackets, like '[::1]:50051'"),
        ("https://fe80::1:50051", ValueError, "is IPv6, which stands in brackets"),
        ("localhost:", ValueError, "'localhost:' is not valid"),
        ("localhost:70000", ValueError, "is not valid"),
        ("", ValueError, "is not valid"),
        ("https://localhost:50051/path", ValueError, "is not valid"),
        ("https://user:secret@localhost:1", ValueError, "the address 'https://...@localhost:1' is not valid"),
        (50051, TypeError, "the address 50051 is no text: HOST:PORT or https://HOST:PORT was expected"),
        (None, TypeError, "the address None is no text"),
    ],
)
def test_what_can_be_no_address_is_said_at_once(address: object, kind: type[Exception], words: str) -> None:
    for connect in (tidegate.connect, tidegate.AsyncClient):
        with pytest.raises(kind, match=re.escape(words)):
            connect(address)


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("https://here", "here:443"),
        ("https://here:50051", "here:50051"),
        ("https://here:50051/", "here:50051"),
        ("https://[::1]", "[::1]:443"),
        ("https://[2001:db8::1]:1", "[2001:db8::1]:1"),
    ],
)
def test_https_is_tls_at_443_unless_a_port_is_named(address: str, target: str) -> None:
    with tidegate.connect(address) as client:
        assert client.address == address
        assert client._endpoint.target == target
        assert client._endpoint.credentials is not None


def test_a_certificate_that_has_expired_is_said_to_be_so(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("old", expired=True)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())]))
    server.start()
    address = f"https://localhost:{port}"
    words = f"the certificate of the server at {address} has expired"
    with (
        tidegate.connect(address, ca=authority.file, timeout=120) as client,
        pytest.raises(tidegate.ConnectionLost, match=words),
    ):
        client.models()
    server.stop(0).wait()


@pytest.mark.parametrize("address", ["localhost:1", "[::1]:50051", "unix:/tmp/it", "dns:///it:50051", "ipv4:1.2.3.4:5"])
def test_what_grpc_knows_as_an_address_is_one(address: str) -> None:
    with tidegate.connect(address) as client:
        assert client.address == address
