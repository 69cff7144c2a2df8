# SPDX-License-Identifier: MIT
"""A small DNS server for tests, run as a process of its own: ``python dns_server.py``.

Reads a zone in the usual text form from standard input, up to its end or a line ``%%``, prints its port
(UDP and TCP, on 127.0.0.1), and then the name and type of each question. Each zone that follows
takes the place of the one before. Names under
``silent.`` get no answer, names under ``large.`` get a truncated one over UDP, and names
under ``broken.`` get SERVFAIL.
"""

from __future__ import annotations

import socketserver
import struct
import sys
import threading

import dns.flags
import dns.message
import dns.name
import dns.node
import dns.rcode
import dns.zone


def read_zone() -> dns.zone.Zone | None:
    """Return the next zone that standard input holds, if there is another one."""
    lines: list[str] = []
    while (line := sys.stdin.readline()) and line != "%%\n":
        lines.append(line)
    if not lines and not line:
        return None
    return dns.zone.from_text("".join(lines), origin=dns.name.root, relativize=False, check_origin=False)


def answer(zone: dns.zone.Zone, wire: bytes, *, over_udp: bool) -> bytes | None:
    query = dns.message.from_wire(wire)
    (question,) = query.question
    print(question.name, question.rdtype.name, "UDP" if over_udp else "TCP", flush=True)
    labels = {label.lower() for label in question.name.labels}
    if b"silent" in labels:
        return None
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    if b"broken" in labels:
        response.set_rcode(dns.rcode.SERVFAIL)
    elif over_udp and b"large" in labels:
        response.flags |= dns.flags.TC
    elif zone.get_node(question.name) is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    else:
        rrset = zone.get_rrset(question.name, question.rdtype)
        if rrset is not None:
            response.answer.append(rrset)
    return response.to_wire()


def main() -> None:
    zones = [read_zone()]

    def read_zones() -> None:
        while (zone := read_zone()) is not None:
            zones.append(zone)

    class Udp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            reply = answer(zones[-1], data, over_udp=True)
            if reply is not None:
                sock.sendto(reply, self.client_address)

    class Tcp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            (size,) = struct.unpack("!H", self.rfile.read(2))
            reply = answer(zones[-1], self.rfile.read(size), over_udp=False)
            if reply is not None:
                self.wfile.write(struct.pack("!H", len(reply)) + reply)

    while True:  # until a port is free for both
        tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tcp)
        try:
            udp = socketserver.ThreadingUDPServer(tcp.server_address, Udp)
            break
        except OSError:
            tcp.server_close()
    threading.Thread(target=tcp.serve_forever, daemon=True).start()
    threading.Thread(target=read_zones, daemon=True).start()
    print(udp.server_address[1], flush=True)
    udp.serve_forever()


if __name__ == "__main__":
    main()
