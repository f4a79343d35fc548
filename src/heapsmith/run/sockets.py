"""Who is at the other end of a connection from this machine."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path
from typing import Final

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def find_user_of_connection(address: str, port: int, tables: tuple[Path, ...] = _TABLES) -> int | None:
    """Find the user whose process holds the far end of a TCP connection.

    Args:
        address: The far end's address.
        port: The far end's port.
        tables: Where the kernel lists connections.

    Returns:
        The user id; None where the far end is on another machine, or the kernel does not say.
    """
    wanted = {f"{form}:{port:04X}" for form in _forms(address)}
    for table in tables:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 7 and fields[1] in wanted:
                return int(fields[7])
    return None


def _forms(address: str) -> list[str]:
    """An address as the kernel prints it: 32-bit words in the machine's order; IPv4 also as mapped into IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return []
    plain = [parsed.packed]
    if isinstance(parsed, ipaddress.IPv4Address):
        plain.append(b"\0" * 10 + b"\xff\xff" + parsed.packed)
    elif parsed.ipv4_mapped is not None:
        plain.append(parsed.ipv4_mapped.packed)
    return ["".join(f"{word:08X}" for (word,) in struct.iter_unpack("=I", raw)) for raw in plain]
