"""Opens and seals ESP packets with scapy. Every figure comes from the command line, nothing from the datapath under test."""

import sys

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw
from scapy.utils import rdpcap

(task, cipher, key, spi, outer_from, outer_to, initial, esn, in_udp, from4, to4, from6, to6, packets, path) = sys.argv[1:]
spi, initial, esn, in_udp, packets = int(spi), int(initial), esn == "1", in_udp == "1", int(packets)


def ip(source, target):
    return IPv6(src=source, dst=target) if ":" in source else IP(src=source, dst=target)


def association(number):
    """The SA as it stands when the packet with this full sequence number is made."""
    return SecurityAssociation(
        ESP,
        spi=spi,
        seq_num=number & 0xFFFFFFFF,
        crypt_algo=cipher,
        crypt_key=bytes.fromhex(key),
        tunnel_header=ip(outer_from, outer_to),
        nat_t_header=UDP(sport=4500, dport=4500) if in_udp else None,
        esn_en=esn,
        esn=number >> 32,
    )


def seal():
    number = initial
    lines = []
    for source, target in ((from4, to4), (from6, to6)):
        for count in range(packets):
            number += 1
            inner = ip(source, target) / UDP(sport=5555, dport=9999) / Raw(b"packet %04d" % count)
            inner = inner.__class__(bytes(inner))
            sealed = association(number).encrypt(inner, seq_num=number & 0xFFFFFFFF, esn=number >> 32)
            if in_udp:
                # This release of scapy builds the UDP header before there is a payload.
                sealed[UDP].len = 8 + len(sealed[UDP].payload)
            lines.append(bytes(sealed).hex())
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def open_all():
    number = initial
    opened = []
    for frame in rdpcap(path):
        if ESP not in frame or frame[ESP].spi != spi:
            continue
        layer = frame[IPv6] if ":" in outer_from else frame[IP]
        if layer.src != outer_from:
            # Nobody listens on the other side: its ICMP errors quote the packets.
            continue
        number += 1
        assert frame[ESP].seq == number & 0xFFFFFFFF, (frame[ESP].seq, number)
        assert (UDP in frame) == in_udp
        assert layer.dst == outer_to
        inner = association(number).decrypt(layer.__class__(bytes(layer)), verify=True)
        if UDP in inner and inner[UDP].dport == 9999:
            opened.append((inner.src, inner.dst, bytes(inner[UDP].payload)))
    wanted = [(source, target, b"packet %04d" % count) for source, target in ((from4, to4), (from6, to6)) for count in range(packets)]
    assert opened == wanted, (len(opened), opened[:3])
    print("opened %d packets" % len(opened))


seal() if task == "seal" else open_all()
