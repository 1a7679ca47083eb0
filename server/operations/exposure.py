"""Whether the settings of TLS are whole, and let no strangers in unknowingly: asked before anything listens."""

import errno
import os
import socket
from ipaddress import ip_address

from server.settings import Settings

_ANYWAY = "or --insecure, which lets everybody who can reach it use it"


def check(settings: Settings) -> None:
    """Raises OSError: a setting lacks another, or the server would listen on a network in clear, or for everybody."""
    if settings.has_tls != (settings.tls_key != "none"):
        raise OSError("--tls-cert and --tls-key belong together: one of them was not given")
    if settings.tls_client_ca != "none" and not settings.has_tls:
        raise OSError("--tls-client-ca is for TLS, which needs --tls-cert and --tls-key")
    if settings.insecure or is_here(settings.host):
        return
    where = f"{settings.host} can be reached from other machines"
    if not settings.has_tls:
        raise OSError(f"{where}, and all would be sent in clear: give --tls-cert and --tls-key, {_ANYWAY}")
    if settings.tls_client_ca == "none" and settings.tokens == "none":
        raise OSError(f"{where}, and everybody could use the server: give --tokens, or --tls-client-ca, {_ANYWAY}")


def refused(where: str, error: OSError) -> OSError:
    """That an address cannot be listened on, with the reason."""
    number = error.errno or errno.EADDRINUSE  # grpc gives none
    known = os.strerror(number) if number > 0 else error.strerror  # below 0: what looking a name up came to
    why = "another program listens there already" if number == errno.EADDRINUSE else known
    return OSError(f"cannot listen on {where}: {why}")


def is_here(host: str) -> bool:
    """Whether only this machine can reach it; a name is looked up. Raises OSError: the name is unknown."""
    if host.startswith("unix:"):
        return True
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise OSError(f"cannot listen on {host}: it is no address of this machine ({error.strerror})") from error
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
