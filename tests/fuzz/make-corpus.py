#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the hand-made inputs of tests/fuzz/corpus. Inputs that a fuzzer found stay beside them."""
import base64
import json
import pathlib
import struct

TOP = pathlib.Path(__file__).resolve().parent
VECTORS = json.loads((TOP.parent / "vectors" / "framing.json").read_text())

# Items of fuzz.h and fuzz-peer.h, in their order.
(CONTROL, AUTH, OTHER, DEADLINE, WAIT, WRITTEN, VALUE, IO_FAILED, PERSISTED, PERSIST_FAILED,
 CREDENTIAL, REFUSED, CANCEL, LINK_LOST, START, ANSWER, MESSAGE, OPCODE, TICK, CORRUPT) = range(20)

# A file of the store (docs/storage.md).
KEY_FILE = """[device]
Format=1
Address=A4:C1:38:00:00:01
Model=LYWSD03MMC
Firmware=2.1.1_0159
ProductId=1371
AuthVersion=2
Bound=yes
InfoTime=1700000000000000

[key 1]
State=current
Token=0102030405060708090a0b0c
BindKey=000102030405060708090a0b0c0d0e0f
AuthVersion=2
Origin=registration
Created=1700000000000000

[key 2]
State=old
Token=0c0b0a090807060504030201
AuthVersion=1
Origin=import
Created=1600000000000000
"""


def item(kind, data=b"", delta=1):
    return bytes([kind, delta, len(data)]) + data


def save(target, name, data):
    folder = TOP / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def peers(target, flags, good, extra):
    """A good run with each generation and size, and disturbed ones."""
    for explore in (0, 1):
        for peer in (0, 1, 2):
            head = bytes([flags | explore, peer])
            # Without management the exploration ends by time.
            wait = item(DEADLINE) if explore and peer == 1 else b""
            save(target, f"good-{flags:02x}-{explore}{peer}", head + wait + good)
    head = bytes([flags, 0])
    lost = bytes([flags, 4])
    for shift in (0, 3, 9):
        save(target, f"lost-{flags:02x}-{shift}",
             lost + struct.pack("<I", 1 << shift) + good + item(TICK, delta=101) * 2 + good + item(DEADLINE) * 4)
    for name, data in extra.items():
        save(target, name, head + data)


def info():
    peers("info", 0, item(ANSWER), {
        "wrong-length": item(MESSAGE, b"\0" + b"\1\0\0\0\0"),
        "raw-announce": item(AUTH, bytes.fromhex("000000000200")) + item(AUTH, bytes.fromhex("0200aabbcc"))
        + item(DEADLINE) * 4,
        "opcode": item(CONTROL, b"\xe0\0\0\0"),
        "cancel": item(CANCEL), "lost": item(LINK_LOST), "silence": item(DEADLINE)})


def login():
    good = item(ANSWER) * 3
    peers("login", 0, good, {
        "not-bound": item(OPCODE, b"\xe0"), "already": item(OPCODE, b"\xe2"),
        "refused": item(ANSWER) * 2 + item(OPCODE, b"\x23"),
        "wrong-token": item(ANSWER) + item(CORRUPT, b"\x0c\x55\x20"),
        "early": item(AUTH, bytes.fromhex("0000000d0100")) + good,
        "short-random": item(CORRUPT, b"\x0d\x11\x0f"),
        "cancel": item(ANSWER) + item(CANCEL), "silence": item(ANSWER) + item(DEADLINE) * 3})


def register():
    credential = item(CREDENTIAL, b"\x80\x80\x80\x50\x7f")
    v1 = item(ANSWER) * 5
    v2 = item(ANSWER) * 3 + credential + item(ANSWER) * 3
    peers("register", 0, v1, {
        "e1": item(ANSWER) + item(OPCODE, b"\xe1"), "e3": item(ANSWER) + item(OPCODE, b"\xe3"),
        "v1-refused": item(ANSWER) * 3 + item(OPCODE, b"\x12"),
        "v1-off-curve": item(ANSWER) + item(CORRUPT, b"\x03\x55\x40"),
        "v1-not-durable": item(ANSWER) * 2 + item(PERSIST_FAILED),
        "v1-cancel": item(ANSWER) * 2 + item(CANCEL)})
    peers("register", 4, v1, {})
    peers("register", 2 | 4, v2, {
        "v2-refused": item(ANSWER) * 3 + item(REFUSED),
        "v2-late": item(ANSWER) * 3 + item(DEADLINE),
        "v2-empty": item(ANSWER) * 3 + item(CREDENTIAL),
        "v2-device-refuses": item(ANSWER) * 3 + credential + item(OPCODE, b"\x12")})
    peers("register", 2, item(ANSWER) * 3 + credential + item(PERSISTED) + item(ANSWER) * 3, {})
    peers("register", 2 | 8, item(ANSWER), {})
    peers("register", 32, item(ANSWER) * 9, {
        "oob-wrong": item(ANSWER) * 2 + item(CORRUPT, b"\x0c\x11\x20") + item(CORRUPT, b"\x0d\x11\x10")})


def frame():
    # Sides alone: the vectors' own steps, by role.
    feed, send, expect, tick, deadline, explore, reset = range(7)
    for number, case in enumerate(VECTORS["transfers"]):
        mode = 0 if case["role"] == "host" else case["generation"]
        out = bytes([mode | (0x80 if case["dmtu"] > 18 else 0)])
        for step in case["steps"]:
            if step["do"] == "frame":
                out += item(feed, bytes.fromhex(step["in"]), 0)
            elif step["do"] == "time":
                out += item(deadline, b"", 0)
            elif step["do"] == "send":
                out += item(send, struct.pack("<BH", step["type"], len(step["payload"]) // 2), 0)
            else:
                out += item(expect, struct.pack("<BH", step["type"], step["max"]), 0)
        save("frame", f"vector-{number:02d}", out)
    save("frame", "explore-host", b"\x80" + item(explore) + item(feed, bytes.fromhex("0000040006f2"))
         + item(feed, b"\0\0\4\1" + b"\xf2" * 240))
    save("frame", "explore-device", b"\x82" + item(explore) + item(feed, bytes.fromhex("000005000616"))
         + item(feed, b"\0\0\5\1" + b"\x16" * 20) + item(tick) + item(reset))
    # Pairs: what happens to each frame in turn (0 nothing, 1 lost, 2 doubled, 3 changed).
    fates = {"good": b"", "lost": b"\0\0\0\1", "many-lost": b"\0\0" + b"\1\0\0" * 20, "doubled": b"\2" * 9,
             "changed": b"\0\0\x03\x0b\x2b"}
    for name, fate in fates.items():
        for mode in (0x40, 0x41, 0x42, 0x43, 0xc0, 0xc2):
            for size, explored in ((64, 0), (2049, 1), (15, 1)):
                save("frame", f"pair-{mode:02x}-{size}-{name}",
                     bytes([mode]) + struct.pack("<HB", size, explored) + fate)


def telink(size, manufacturer=0, text=b""):
    body = bytearray((i * 7 + (i >> 8) * 13) & 255 for i in range(size))
    body[0:2] = b"\x26\x80"
    body[6:12] = b"\x5d\x02KNLT"
    struct.pack_into("<HH", body, 0x12, manufacturer, 0x20A if manufacturer else 0)
    struct.pack_into("<I", body, 0x18, size)
    body[0x40:0x40 + len(text)] = text
    return bytes(body)


def image():
    tag = bytes.fromhex("000000004d49ef54464f544182562647" "28005b050001000000000000" "0105020101" "9f00" "030101")
    tag += b"\0" * (40 - len(tag))
    stock = telink(260, 0, b"mible-login-info 1.0.0_0130 ")
    save("image", "stock", b"\1" + stock)
    save("image", "custom", b"\1" + telink(260, 0x1141, b"github.com/pvvx V5.8"))
    save("image", "tuya", b"\1" + telink(260, 0, b"tuya"))
    save("image", "wrong-crc", b"\0" + stock)
    save("image", "tag", b"\0" + telink(256)[:256] + tag)
    save("image", "tag-and-pem", b"\0" + telink(256)[:256] + tag + b"-----BEGIN CERTIFICATE-----\nMIIB\n"
         b"-----END CERTIFICATE-----\n" + b"\x30\x06\x02\x01\x01\x02\x01\x01" + b"\xff" * 8)
    save("image", "zigbee", b"\0" + struct.pack("<IHHHHHIH", 0x0BEEF11E, 0x100, 56, 0, 0x1141, 0x203, 1, 2)
         + b"name".ljust(32, b"\0") + struct.pack("<IHI", 62 + 260, 0, 260) + stock)
    head = b"\x24\x01" + b"\0\0" + tag[4:] + b"\0" * 248 + b"\x12\x34"
    save("image", "envelope", b"\x23" + telink(280) + head + b"\1\2\3\4\5\6")
    save("image", "empty", b"\0")


def certificate():
    vectors = json.loads((TOP.parent / "vectors" / "registration_v2.json").read_text())
    ders = []

    def walk(node):
        if isinstance(node, dict):
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)
        elif isinstance(node, str) and node.startswith("3082") and len(node) > 400:
            try:
                ders.append(bytes.fromhex(node))
            except ValueError:
                pass

    walk(vectors)
    der = ders[0]
    text = base64.b64encode(der).decode()
    pem = "-----BEGIN CERTIFICATE-----\n"
    pem += "".join(text[i:i + 64] + "\n" for i in range(0, len(text), 64)) + "-----END CERTIFICATE-----\n"
    save("certificate", "der", b"\0" + der)
    save("certificate", "der-and-more", b"\0" + der + b"\0")
    save("certificate", "pem", b"\1" + pem.encode())
    save("certificate", "two-pem", b"\1" + pem.encode() * 2)
    save("certificate", "credential", b"\3" + der)
    save("certificate", "signature", b"\2" + bytes.fromhex("3045022100") + b"\x81" * 32 + b"\x02\x20" + b"\x11" * 32)
    save("certificate", "short-signature", b"\2" + bytes.fromhex("3006020101020101ffff"))
    save("certificate", "long-length", b"\2" + bytes.fromhex("30820006020101020101"))


def ota():
    good, all_good, code, notify = range(15, 19)
    for flags in (0, 1, 2, 3, 4, 6, 9):
        head = bytes([flags, 8]) + struct.pack("<H", 2100)
        start = item(WRITTEN) + item(DEADLINE) if flags & 2 else b""
        start += item(good) * 2 if flags & 4 else b""
        start += item(DEADLINE)
        save("ota", f"good-{flags}", head + start + item(all_good) + item(LINK_LOST))
        save("ota", f"lost-{flags}", head + start + item(good) * 3 + item(LINK_LOST))
        save("ota", f"silent-{flags}", head + start + item(good) + item(DEADLINE))
    head = bytes([1, 2]) + struct.pack("<H", 300)
    save("ota", "code", head + item(DEADLINE) + item(good) + item(code, b"\2"))
    save("ota", "notified", head + item(DEADLINE) + item(good) + item(notify, b"\6\xff\5"))
    save("ota", "no-drop", head + item(DEADLINE) + item(all_good) + item(CANCEL) + item(DEADLINE))
    save("ota", "io-failed", head + item(DEADLINE) + item(IO_FAILED, b"\x12\x2b"))
    save("ota", "cancel", head + item(DEADLINE) + item(CANCEL))
    save("ota", "one-byte", bytes([1, 0, 0, 0]) + item(DEADLINE) + item(all_good) + item(LINK_LOST))


def dfu():
    reply, fragment, control, data, good = range(15, 20)
    for flags in range(16):
        head = bytes([flags]) + struct.pack("<H", 5000)
        save("dfu", f"good-{flags:x}", head + item(good, b"\xff") + item(LINK_LOST))
        save("dfu", f"interrupted-{flags:x}", head + item(good, b"\4") + item(LINK_LOST))
    for flags in (0, 1, 3):
        head = bytes([flags]) + struct.pack("<H", 3000)
        cases = {
            "status": item(good, b"\0") + item(reply, b"\10\0\2"), "version": item(reply, b"\0\3\0"),
            "size": item(good, b"\0") + item(reply, b"\0\0\0"), "size-2": item(good, b"\0") + item(reply, b"\0\1\0"),
            "repeat": item(good, b"\3") + item(fragment, b"\5\0\0") * 4,
            "give-up": item(good, b"\2") + item(data, bytes.fromhex("00000103")) + item(fragment, b"\7\0\0"),
            "ahead": item(good, b"\2") + item(fragment, b"\0\1\0"), "behind": item(good, b"\4") + item(fragment, b"\0\0\0") * 2,
            "silence": item(good, b"\3") + item(DEADLINE) * 2, "raw": item(control, b"\1\5\1\0\0\2\0") + item(control, b"\2\3"),
            "lost": item(good, b"\2") + item(data, bytes.fromhex("000001050100")),
            "refused": item(good, b"\xff") + item(DEADLINE), "cancel": item(good, b"\1") + item(CANCEL)}
        for name, items in cases.items():
            save("dfu", f"{name}-{flags}", head + items)


def device():
    connect, disconnect, write, read, wait, fault, battery, run, run_fault = range(9)
    second = 131  # one second
    ota_raw = (item(write, b"\2\0\xff") + item(write, b"\2\1\xff")
               + item(write, b"\2" + bytes.fromhex("00002680000000005d024b4e4c54575e656c6eb9"))
               + item(read, b"\2") + item(write, b"\2" + bytes.fromhex("02ff0000ffff")))
    for mode in range(4):
        head = bytes([mode]) + item(connect, bytes([mode]))
        save("device", f"info-{mode}", head + item(run, b"\x80"))
        save("device", f"register-{mode}", head + item(run, b"\1") + item(disconnect) + item(connect) + item(run, b"\2"))
        save("device", f"login-{mode}", head + item(run, b"\x82") + item(run, b"\2"))
        save("device", f"wrong-token-{mode}", head + item(run, b"\3"))
        save("device", f"dfu-{mode}", head + item(run, b"\2") + item(run, b"\4") + item(wait, b"", 200) * 2 + item(connect))
        save("device", f"ota-{mode}", head + item(run, b"\2") + item(run, b"\x85") + item(wait, b"", 200) * 2 + item(connect))
        save("device", f"ota-raw-{mode}", head + item(run, b"\2") + ota_raw + item(wait, b"", second) + item(battery))
        save("device", f"raw-{mode}", head + item(write, b"\0\x15") + item(write, b"\1" + bytes.fromhex("000000030400"))
             + b"".join(item(write, bytes([1, n, 0]) + bytes(18)) for n in (1, 2, 3, 4)) + item(wait, b"", 255))
        save("device", f"read-{mode}", head + b"".join(item(read, bytes([n])) for n in range(14)))
        for kind in range(1, 6):
            save("device", f"fault-{mode}-{kind}", head + item(run_fault, bytes([1 if mode == 0 else 2, kind, 4 + kind]))
                 + item(connect) + item(run, b"\2"))
    for spec in ("drop@5", "double@>2", "corrupt@<3", "delay@4:900", "cut@6", "busy@11", "timeout@3", "cancel@11", "reboot@7",
                 "status@1:5"):
        name = "".join(c if c.isalnum() else "-" for c in spec)
        save("device", f"armed-{name}", b"\1" + item(connect) + item(fault, spec.encode()) + item(run, b"\2") + item(run, b"\5"))
    save("device", "config", b"\x80[A4:C1:38:00:00:01]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\nAuthVersion=1\nDid=blt.6.1fg3jsorosg00\n"
         b"Advert=pvvx\nInterval=2500\nRadio=30,4,10\nFaults=drop@5;cut@9\nBattery=50\nDfu=2\nBanks=2\nGeneration=1\nAtt=20\n")
    save("device", "config-models", b"\x80[A4:C1:38:00:00:02]\nModel=MJWSD05MMC\n[A4:C1:38:00:00:03]\nModel=CGDK2\nOnReject=restart\n")


def keys():
    token, bind_key = "0102030405060708090a0b0c", "000102030405060708090a0b0c0d0e0f"
    exported = {"version": 1, "devices": [{"address": "A4:C1:38:00:00:01", "model": "LYWSD03MMC", "did": "blt.6.1fg3jsorosg00", "keys": [
        {"token": token, "bind_key": bind_key, "origin": "registration", "created": "2024-02-29T12:00:00Z", "state": "current"},
        {"token": token[::-1], "bind_key": bind_key[::-1], "origin": "registration", "created": "2023-02-28T12:00:00Z", "state": "old"}]}]}
    cloud = {"result": {"list": [{"mac": "A4:C1:38:00:00:02", "token": token, "model": "miaomiaoce.sensor_ht.t2", "BLE_DATA": {"beaconkey": bind_key}},
                                 {"mac": "A4:C1:38:00:00:03", "token": token, "model": "yeelink.light.lamp1"}]}}
    texts = {
        "export": json.dumps(exported), "cloud": json.dumps(cloud),
        "nested": "[" * 10 + json.dumps(cloud) + "]" * 10, "too-deep": "[" * 40 + json.dumps(cloud) + "]" * 40,
        "extractor": f"NAME:     Kitchen\nID:       blt.6.1fg3jsorosg00\nBLE KEY:  {bind_key}\nMAC:      A4:C1:38:00:00:04\nTOKEN:    {token}\nMODEL:    miaomiaoce.sensor_ht.t2\n---------\n",
        "list": f"A4:C1:38:00:00:05 {token} {bind_key}\na4c138000006,{bind_key}\nA4:C1:38:00:00:07;{token}\n# nothing\n",
        "yaml": f"  - platform: pvvx_mithermometer\n    mac: \"A4:C1:38:00:00:08\"\n    encryption_key: \"{bind_key}\"\n",
        "short-token": f"A4:C1:38:00:00:05 {token[:-1]}\n", "wrong-address": json.dumps({"mac": "A4:C1:38", "token": token}),
        "not-json": "{\"mac\": ", "wrong-types": json.dumps({"mac": 5, "token": [token], "bind_key": None, "address": {}}), "nothing": "hello\n"}
    for name, text in texts.items():
        save("keys", name, b"\0" + text.encode())
    save("keys", "file", b"\1" + KEY_FILE.encode())
    save("keys", "file-cut-off", b"\1" + KEY_FILE.encode()[:150])
    save("keys", "file-empty", b"\1")


if __name__ == "__main__":
    info()
    login()
    register()
    frame()
    image()
    certificate()
    ota()
    dfu()
    device()
    keys()
