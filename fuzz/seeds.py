# SPDX-License-Identifier: MIT
"""Write the corpus: recordings of two real Perl nodes, cut up, and other interesting inputs.

Run it after a change, from the repository: ``python -m fuzz.seeds``. What a fuzzer found is put into the
folders by hand, and stays there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.vocabulary import DIRECTORY, SPAWN
from fuzz.node_requests import FENCED, FORBIDDEN, FREE, KEPT, VICTIM, WITNESS
from fuzz.targets import CORPUS, TARGETS
from tests.support.recordings import RECORDINGS

_PROOF = b"hmac_sha3_512;" + b"0" * 128 + b";msgpack\n"

GREETINGS = {
    "ours": b"\x00aemp;1;a%3bb;hmac_sha3_512;msgpack,json;provider=aemp_gevent-0;uniq=u;heartbeat=1.5;tls=1.0\nnonce\n",
    "proof": b"\x0c" + _PROOF,
    "proof-in-tls": b"\x2d" + _PROOF.replace(b"hmac", b"tls"),
    "data-too-early": b"\x04" + _PROOF + b"\x91\xa0",
    "dataconn": b"\x00aemp-dataconn;1;x;y;z\nnonce\n",
    "http": b"\x00GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "hello": b"\x01\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "byte-by-byte": b"\x18aemp;1;x;tls_sha3_512;cbor\r\nn\r\nx;y;z\r\n",
}

VALUES: list[list[Any]] = [
    [],
    [""],
    ["p", None, True, False, 0, -1, 2**63, -(2**63), 2**64 - 1, 1.5, 1e300, math.inf, ""],
    ["p", "text ä € 😀 \ud7ff", '\x00\x1f"\\/', {"k": {"k": [[[]]]}}, [{}, []]],
    ["7", *range(30)],
    ["p", "x" * 300, [1.0] * 20],
]

LITERALS = {
    "json": [
        b'["\\u00e4\\ud83d\\ude00\\/"] [1e5,-0.0,1E-2]',
        b'[7,"x"][7.5][""]',
        b"[" * 600 + b"]" * 600,
        b'["x",1] nonsense',
    ],
    "msgpack": [b"\x92\xa1x\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\x91" * 600 + b"\xc0", b"\xdd\x7f\xff\xff\xff"],
    "cbor": [
        bytes.fromhex("9f6178ff"),
        bytes.fromhex("8261787f616162ff"),
        bytes.fromhex("8241ff42e4f6"),
        bytes.fromhex("8261789bffffffffffffffff"),
        bytes.fromhex("8361 78f97e00fa7f800000".replace(" ", "")),
        bytes.fromhex("826178c11a514b67b0"),
    ],
}

SLAVE = f"slave/s@{FREE}"

ASKED: list[list[Any]] = [
    ["mon1", KEPT],
    ["mon0", KEPT],
    ["kil0", KEPT, "reason"],
    ["kil1", KEPT, "reason"],
    ["kil1", "none"],
    [SPAWN, "new", FORBIDDEN, 1],
    [SPAWN, "new", "os.getcwd"],
    [FORBIDDEN, 1],
    ["snd", f"{WITNESS}#p", "x"],
    ["snd", WITNESS, "kil1", "x"],
    ["snd", VICTIM, "snd", VICTIM, "mon1", KEPT],
    ["relay", f"{FREE}#p", "x"],
    ["lookup", KEPT, f"{FREE}#r"],
    ["can", "time", f"{FREE}#r"],
    ["time", f"{WITNESS}#r"],
    ["info", f"{FREE}#r"],
    ["eval", "1 + 1", f"{FREE}#r"],
    ["eval", "__import__('sys').modules['fuzz.node_requests'].forbidden()"],
    ["devnull", 1],
    ["inspect", "links", f"{FREE}#r"],
    ["log", "DEBUG", f"{WITNESS}#r"],
    ["bye"],
    ["idle"],
    ["stay"],
    ["after", "nonce", 5],
    ["refused", "text"],
    ["call", {"reply": f"{FREE}#r", "left": 5.0, "chain": [f"{FREE}#c"]}, KEPT, "tag", 1],
    ["via", SLAVE, VICTIM, ["", "via_up", SLAVE, "uniq", "word", ""]],
    ["via", SLAVE, VICTIM, [KEPT, "x"]],
    ["via", SLAVE, VICTIM, ["", "via_down", SLAVE, "reason"]],
    ["via", f"slave/t@{VICTIM}", FREE, []],
    ["g_slave", {"f": {"k": 1}, "'l": {FREE: ["127.0.0.1:9"]}}],
    ["g_slave"],
    ["g_global"],
    ["g_set", {"f": {"k": 2}, "'g": {FREE: None}}, FREE],
    ["g_upd", "f", {"k": 3}, ["j"]],
    ["g_upd", "f", None, ["k"], FENCED],
    ["g_find", WITNESS],
    ["g_found", WITNESS, ["127.0.0.1:9"]],
    ["g_db_family", "f", "1"],
    ["g_db_keys", "f", "1"],
    ["g_db_values", "f", 1],
    ["g_reply", 1, {}],
    ["g_mon1", "f"],
    ["g_mon0", "f"],
    ["g_chg1", "f", {"k": 1}],
    ["g_chg2", "f", {"k": 1}, []],
]


def seeds() -> dict[str, dict[str, bytes]]:
    """Return the files of each target."""
    made: dict[str, dict[str, bytes]] = {name: {} for name in TARGETS}
    made["greeting"] |= GREETINGS
    for recording in RECORDINGS.values():
        for letter, side in (("a", recording.a), ("b", recording.b)):
            name = f"{recording.name}-{letter}"
            if not recording.is_readable:
                made["greeting"][name] = b"\x01" + b"\n".join(side.lines) + b"\n"
                continue
            made["greeting"][name] = b"\x00" + b"\n".join((*side.lines, side.auth_line)) + b"\n"
            made[side.framing][name] = b"\x06" + side.packets[:1500]
            asked = [sent.packet for sent in recording.exchange() if sent.sender == letter and sent.packet[:1] == [""]]
            made["requests"][name] = b"\x00" + b"".join(map(FRAMINGS["json"].encoder(), asked))[:3000]
    for framing in ("json", "msgpack", "cbor"):
        encode = FRAMINGS[framing].encoder()
        carried = [[value for value in packet if framing != "json" or value != math.inf] for packet in VALUES]
        for number, values in enumerate(carried):
            made[framing][f"values-{number}"] = b"\x14" + encode(values)
        for number, text in enumerate(LITERALS[framing]):
            made[framing][f"literal-{number}"] = b"\x14" + text
        made[framing]["many"] = b"\x01" + b"".join(encode(["p", number]) for number in range(20))
    encode = FRAMINGS["msgpack"].encoder()
    for number, values in enumerate(VALUES):
        made["fragments"][f"values-{number}"] = b"\x08" + encode(values)
    made["fragments"] |= {
        "whole": b"\xfe" + encode(["p", "x" * 20]),
        "within-another": b"\xfe" + encode([None, encode(["p"])]),
        "low-limits": b"\x11" + encode(["p", *range(15)]),
        "too-long": b"\x11" + encode(["p", "x" * 400]),
    }
    missing = DIRECTORY - {request[0] for request in ASKED}
    if missing:
        raise LookupError(f"there is nothing of {missing}")
    for number, request in enumerate(ASKED):
        framing, flag = ("msgpack", 2) if number % 3 == 0 else ("json", 0)
        packet = FRAMINGS[framing].encoder()(["", *request])
        name = "".join(letter if letter.isalnum() else "-" for letter in str(request[0]))
        made["requests"][f"{number:02}-{name}"] = bytes([flag | (number % 2)]) + packet
    offer = b"\x04aemp;1;127.0.0.1:5;tls_sha3_512;msgpack;tls=1.0\n"
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    made["requests"] |= {
        "stranger-client": offer + b"!nonce\n" + hello,
        "stranger-server": offer + b"~nonce\n" + hello,
        "stranger-long": offer + b"!nonce\n" + b"\x16\x03\x01\x40\x00\x01\x00\xff\x00" + bytes(10_000),
        "stranger-proof": offer.replace(b";tls=1.0", b"").replace(b"tls", b"hmac") + b"n\n" + _PROOF + b"\x90",
    }
    made["requests"]["all"] = b"\x02" + b"".join(
        FRAMINGS["msgpack"].encoder()(["", *request])
        for request in ASKED
        if request[0] not in ("bye", "refused", "after")
    )
    return made


def main() -> None:
    """Write them."""
    for target, files in seeds().items():
        folder: Path = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
