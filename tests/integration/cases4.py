#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Measurements, scanning, clock and catalogue on simulated thermometers: cases4.py NAME runs one case."""

import ast
import fcntl
import hashlib
import json
import math
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import harness
from harness import World, custom_image, image

A = "A4:C1:38:00:00:01"
B = "A4:C1:38:00:00:02"
TOKEN = "00112233445566778899aabb"
BIND_KEY = "ffeeddccbbaa99887766554433221100"
OTHER_KEY = "0123456789abcdef0123456789abcdef"
BOUND = f"[{A}]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\nToken={TOKEN}\nBindKey={BIND_KEY}\nDid=blt.3.129vtestaag00\n"
VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors" / "adverts.json"
CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def node(address):
    return "/org/mitherm/device/" + address.replace(":", "_")


def sensor(world, address=A):
    """Sensor1's properties by name, or None while there are none."""
    out = world.ctl("--json", "info", address).json()[0]
    return out.get("Sensor")


def keys(*pairs):
    return json.dumps({"version": 1, "devices": [
        {"address": address, "model": "LYWSD03MMC", "did": "", "keys": [
            {"token": TOKEN, "bind_key": key, "origin": "import", "created": "2026-01-01T00:00:00Z",
             "state": "current"}]} for address, key in pairs]})


def give_keys(world, *pairs):
    world.ctl("keys", "import", "-", data=keys(*pairs))


def configured(devices, config, **options):
    """A world whose daemon has a configuration file; enter it, then call start_with()."""
    world = World(devices, start=False, **options)
    (world.dir / "mithermd.conf").write_text(config)
    world.daemon_args.append(f"--config={world.dir}/mithermd.conf")
    return world


def start(world):
    world.start_sim()
    world.start_daemon()


class Signals:
    """What the daemon signals, each with the time when it was read."""

    def __init__(self, world):
        self.lines = []
        self.child = world.spawn("monitor", ["stdbuf", "-oL", "gdbus", "monitor", f"--address={world.bus}",
                                             "--dest=org.mitherm"], stdout=subprocess.PIPE)
        threading.Thread(target=self._pump, daemon=True).start()
        world.until(lambda: any("is owned by" in line for _, line in self.lines))

    def _pump(self):
        for line in self.child.stdout:
            self.lines.append((time.monotonic(), line))

    def of(self, address, what):
        return [(t, line) for t, line in list(self.lines) if line.startswith(node(address) + ":") and what in line]

    def measurements(self, address):
        return self.of(address, "Sensor1.Measurement")

    def changes(self, address, interface=""):
        return self.of(address, f"PropertiesChanged ('org.mitherm.{interface}")


def silent(*addresses):
    """Thermometers that say nothing by themselves but their name."""
    return "".join(f"[{address}]\nModel=LYWSD03MMC\nAdvert=none\nInterval=200\n" for address in addresses)


def forge(world, address, uuid, data):
    world.control(do="advert", device=address, uuid=uuid, data=data)
    world.lines.wait(lambda line: "ok" in line or "error" in line)


def vectors(wanted):
    found = {}
    for vector in json.loads(VECTORS.read_text())["vectors"]:
        expected = vector["expected"]
        if expected.get("status") != "ok" or len(vector.get("key_hex", "")) not in (0, 32):
            continue
        if wanted(vector) and "temperature_c" in expected:
            found.setdefault(vector["mac"], vector)  # one for each thermometer
    return list(found.values())


def shows(world, vector):
    expected, values = vector["expected"], sensor(world, vector["mac"])
    if values is None or values["Updated"] == 0:
        return False
    assert math.isclose(values["Temperature"], expected["temperature_c"], abs_tol=0.005), (vector["id"], values)
    for name, key, scale in (("Humidity", "humidity_pct", 1), ("Battery", "battery_pct", 1),
                             ("Voltage", "voltage_mv", 1000)):
        if key in expected:
            assert math.isclose(values[name], expected[key] / scale, abs_tol=0.005), (vector["id"], values)
        else:
            assert values[name] is None, (vector["id"], values)
    assert values["Encrypted"] is expected.get("encrypted", False), (vector["id"], values)
    return True


@case
def plain_advertisements_show_their_values():
    chosen = vectors(lambda v: "key_hex" not in v)
    assert len({v["format"] for v in chosen}) >= 5, chosen
    with World(silent(*[v["mac"] for v in chosen])) as world:
        world.known(*[v["mac"] for v in chosen])
        for vector in chosen:
            forge(world, vector["mac"], vector["uuid"], vector["service_data_hex"])
            world.until(lambda v=vector: shows(world, v), 10)


@case
def encrypted_advertisements_show_their_values():
    chosen = [vector for form in ("mibeacon", "pvvx-enc", "atc1441-enc", "bthome1-enc", "bthome2-enc")
              for vector in vectors(lambda v, f=form: "key_hex" in v and v["format"] == f)[:3]]
    chosen = list({v["mac"]: v for v in reversed(chosen)}.values())
    assert len(chosen) >= 6, chosen
    with World(silent(*[v["mac"] for v in chosen])) as world:
        world.known(*[v["mac"] for v in chosen])
        give_keys(world, *[(v["mac"], v["key_hex"]) for v in chosen])
        for vector in chosen:
            forge(world, vector["mac"], vector["uuid"], vector["service_data_hex"])
            world.until(lambda v=vector: shows(world, v), 10)
            assert sensor(world, vector["mac"])["KeyState"] == "ok", vector["id"]


FORMATS = {"mibeacon": "mibeacon", "mibeacon-encrypted": "mibeacon", "atc1441": "atc1441", "pvvx": "pvvx",
           "atc1441-encrypted": "atc1441-encrypted", "pvvx-encrypted": "pvvx-encrypted", "bthome1": "bthome1",
           "bthome1-encrypted": "bthome1-encrypted", "bthome": "bthome2", "bthome-encrypted": "bthome2",
           "qingping": "qingping"}


@case
def every_format_of_the_simulator_is_read():
    addresses = {name: f"A4:C1:38:00:01:{i:02X}" for i, name in enumerate(FORMATS)}
    devices = "".join(f"[{address}]\nModel=LYWSD03MMC\nAdvert={name}\nInterval=100\nBattery=70\n"
                      + (f"Token={TOKEN}\nBindKey={BIND_KEY}\n" if "encrypted" in name else "")
                      for name, address in addresses.items())
    with World(devices) as world:
        world.known(*addresses.values())
        give_keys(world, *[(address, BIND_KEY) for name, address in addresses.items() if "encrypted" in name])

        def complete(name):
            values = sensor(world, addresses[name])
            return values is not None and None not in (values["Temperature"], values["Humidity"], values["Battery"])
        for name, format_name in FORMATS.items():
            world.until(lambda n=name: complete(n), 30)
            values = sensor(world, addresses[name])
            # Half degrees and whole percent in one of the formats.
            assert 20.0 <= values["Temperature"] <= 23.5 and 43.5 <= values["Humidity"] <= 53, (name, values)
            assert values["Battery"] == 70 and values["Format"] == format_name, (name, values)
            assert values["Encrypted"] is ("encrypted" in name), (name, values)
            assert values["KeyState"] == ("ok" if "encrypted" in name else "none"), (name, values)
            assert values["Stale"] is False and not set(values["Dropped"]) - {"no_key"}, (name, values)
            assert abs(values["Updated"] / 1e6 - time.time()) < 30, (name, values)
        assert math.isclose(sensor(world, addresses["pvvx"])["Voltage"], 2.7), sensor(world, addresses["pvvx"])


@case
def a_key_changed_by_somebody_else_is_a_mismatch():
    with World(BOUND + "Interval=100\n") as world:
        world.known(A)
        give_keys(world, (A, BIND_KEY))
        # Each kind of value comes in a frame of its own.
        world.until(lambda: (sensor(world) or {}).get("Temperature") is not None)
        before = sensor(world)
        assert before["KeyState"] == "ok", before
        # Another daemon, with its own API bus, registers it anew.
        other = World(None, start=False)
        with other:
            daemon = other.spawn("daemon", [harness.BUILD / "daemon" / "mithermd", f"--bus={other.bus}",
                                            f"--bluez-bus={world.bus}", f"--state-dir={other.state}"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            other.until(lambda: other.ctl("list", expect=None).code == 0)
            other.ctl("activate", "--force", "--wait=30", A)
            out = other.file("keys.json", b"")
            other.ctl("keys", "export", out)
            new = json.loads(out.read_text())["devices"][0]["keys"][0]["bind_key"]
            other.stop(daemon)
        assert new != BIND_KEY
        world.until(lambda: sensor(world)["KeyState"] == "mismatch")
        after = sensor(world)
        assert after["Dropped"]["auth_failed"] >= 3, after
        assert after["Temperature"] is not None and after["Updated"] >= before["Updated"], after
        log = (world.dir / "daemon.log").read_text()
        assert log.count("does not open its advertisements") == 1 and new not in log, log[-2000:]
        give_keys(world, (A, new))
        world.until(lambda: sensor(world)["KeyState"] == "ok")
        world.ctl("keys", "forget", A)
        world.until(lambda: sensor(world)["KeyState"] == "none" and "no_key" in sensor(world)["Dropped"])


@case
def a_mismatch_is_over_when_the_keys_are_forgotten():
    with World(silent(A)) as world:
        world.known(A)
        give_keys(world, (A, OTHER_KEY))
        for i in range(4):
            forge(world, A, "181a", f"{i:02x}" + "00" * 10)
        world.until(lambda: (sensor(world) or {}).get("KeyState") == "mismatch")
        signals = Signals(world)
        world.ctl("keys", "forget", A)
        assert sensor(world)["KeyState"] == "none"
        world.until(lambda: any("'KeyState': <'none'>" in line for _, line in signals.changes(A, "Sensor1")), 5)


@case
def replayed_advertisements_are_dropped_and_counted():
    with World(BOUND + "Interval=100\n") as world:
        world.known(A)
        give_keys(world, (A, BIND_KEY))
        world.until(lambda: (sensor(world) or {}).get("KeyState") == "ok")
        out = world.ctl("--json", "info", A).json()[0]
        assert "replay" not in out["Sensor"]["Dropped"], out
        child = world.spawn("dump", ["stdbuf", "-oL", "gdbus", "monitor", f"--address={world.bus}", "--dest=org.bluez"],
                            stdout=subprocess.PIPE)
        frame = None
        for line in child.stdout:  # an encrypted one with an object: 5858...
            found = re.search(r"ServiceData.*?\[byte (0x58, 0x58[^\]]*)\]", line)
            if found:
                frame = "".join(byte.strip()[2:] for byte in found[1].split(","))
                break
        assert frame
        time.sleep(1)  # the thermometer's counter goes on meanwhile
        before = sensor(world)
        signals = Signals(world)
        for _ in range(5):
            forge(world, A, "fe95", frame)
        world.until(lambda: sensor(world)["Dropped"].get("replay", 0) >= 5)
        assert sensor(world)["KeyState"] == "ok" and before["Updated"] <= sensor(world)["Updated"]
        assert signals.lines


HOSTILE = [
    ("fe95", "5858", "truncated"),
    ("fe95", "58585b0501f4830238c1a495ef58763c26000097e2abb5", "mac_mismatch"),
    ("fe95", "50705b0501010000" + "38c1a4" + "0410", "unsupported_version"),
    ("fe95", "50305b0501010000" + "38c1a4" + "0410ff", "malformed"),
    ("fe95", "d0305b0501010000" + "38c1a4", "mesh"),
    ("181a", "a4c13800", "unsupported_format"),
    ("fcd2", "80", "unsupported_version"),
    ("fcd2", "40" + "02ff7f" * 80, "implausible"),
    ("fdcd", "0801" + "010000" + "38c1a5" + "0104", "mac_mismatch"),
]


@case
def hostile_advertisements_are_counted_and_change_no_value():
    with World(silent(A)) as world:
        world.known(A)
        forge(world, A, "fcd2", "4002c4090313" + "15")  # 25.00 degrees, 53.95 %
        world.until(lambda: sensor(world) is not None)
        good = sensor(world)
        assert good["Temperature"] == 25.0 and good["Humidity"] == 53.95 and good["Dropped"] == {}, good
        size = (world.dir / "daemon.log").stat().st_size
        for i, (uuid, data, reason) in enumerate(HOSTILE):
            already = sensor(world)["Dropped"].get(reason, 0)  # BlueZ repeats what other UUIDs had
            for _ in range(50):
                forge(world, A, uuid, data)
            world.until(lambda r=reason, n=already: sensor(world)["Dropped"].get(r, 0) >= n + 50, 10)
            now = sensor(world)
            assert (now["Temperature"], now["Humidity"]) == (25.0, 53.95), (HOSTILE[i], now)
        text = (world.dir / "daemon.log").read_text()[size:]
        assert len(text.splitlines()) < 20, text  # 450 of them must not make 450 lines
        assert "Dropped" in world.ctl("info", A).out


@case
def a_flood_of_bad_frames_is_counted_and_neither_logged_nor_believed():
    owner, key = "A4:C1:38:02:83:F4", "e9ea895fac7cca6d30532432a516f3a8"
    good = ["58585b0550f4830238c1a495ef58763c26000097e2abb5", "58585b0551f4830238c1a40300e76ff92600000bf76fb9"]
    others = [f"A4:C1:38:00:04:{i:02X}" for i in range(40)]

    def altered(i):  # another cipher text each time
        return good[0][:22] + f"{i ^ 0x95ef58:06x}" + good[0][28:]
    with World(silent(owner, *others)) as world:
        world.known(owner, *others)
        give_keys(world, (owner, key))
        forge(world, owner, "fe95", good[0])
        world.until(lambda: (sensor(world, owner) or {}).get("KeyState") == "ok")
        before, log = sensor(world, owner), world.dir / "daemon.log"
        assert before["Humidity"] == 46.7 and before["Dropped"] == {}, before
        size = log.stat().st_size
        for i in range(4000):
            world.control(do="advert", device=owner, uuid="fe95", data=altered(i))
            world.control(do="advert", device=others[i % len(others)], uuid="fcd2", data=f"80{i:04x}")
        world.until(lambda: sensor(world, owner)["Dropped"].get("auth_failed", 0) >= 4000, 120)
        world.until(lambda: sum(sensor(world, a)["Dropped"]["unsupported_version"] for a in others) >= 4000, 60)
        after = sensor(world, owner)
        assert after["KeyState"] == "mismatch" and set(after["Dropped"]) == {"auth_failed"}, after
        assert all(after[name] == before[name] for name in ("Temperature", "Humidity", "Battery", "Updated")), after
        forge(world, owner, "fe95", good[1])  # one from the thermometer itself is enough
        world.until(lambda: sensor(world, owner)["KeyState"] == "ok")
        assert sensor(world, owner)["Updated"] > before["Updated"]
        lines = log.read_text()[size:].splitlines()
        assert len(lines) <= 3, lines[:20]


@case
def a_bad_frame_that_bluez_keeps_is_no_key_mismatch():
    owner, key = "A4:C1:38:02:83:F4", "e9ea895fac7cca6d30532432a516f3a8"
    with World(silent(owner)) as world:
        world.known(owner)
        give_keys(world, (owner, key))
        forge(world, owner, "fe95", "58585b0550f4830238c1a495ef58763c26000097e2abb5")
        world.until(lambda: (sensor(world, owner) or {}).get("KeyState") == "ok")
        forge(world, owner, "fcd2", "41a47266c95f730011223378237214")
        # It is told again with each report that has nothing new.
        world.until(lambda: sensor(world, owner)["Dropped"].get("auth_failed", 0) >= 10)
        assert sensor(world, owner)["KeyState"] == "ok", sensor(world, owner)


@case
def more_keys_than_are_kept_ready_give_right_values():
    addresses = {f"A4:C1:38:00:05:{i:02X}": f"{i:02x}" * 16 for i in range(40)}
    devices = "".join(f"[{address}]\nModel=LYWSD03MMC\nAdvert=bthome-encrypted\nInterval=200\nToken={TOKEN}\n"
                      f"BindKey={key}\nBattery={i + 10}\n" for i, (address, key) in enumerate(addresses.items()))
    with World(devices) as world:
        world.known(*addresses)
        give_keys(world, *addresses.items())
        since = time.time() * 1e6

        def is_right(i, address):
            values = sensor(world, address) or {}
            return values.get("Updated", 0) > since and values["Battery"] == i + 10 and values["KeyState"] == "ok" \
                and not set(values["Dropped"]) - {"no_key"}
        for _ in range(2):
            since = time.time() * 1e6
            for i, address in enumerate(addresses):
                world.until(lambda i=i, a=address: is_right(i, a), 30)


@case
def plain_frames_are_refused_while_a_key_is_stored_unless_custom_firmware_was_read():
    with World(f"[{A}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=100\n") as world:
        world.known(A)
        give_keys(world, (A, BIND_KEY))
        world.until(lambda: (sensor(world) or {}).get("Dropped", {}).get("downgrade", 0) > 0)
        world.ctl("info", "--read", A)
        since = time.time() * 1e6
        world.until(lambda: sensor(world)["Updated"] > since)
        assert sensor(world)["Temperature"] is not None


@case
def values_become_stale_and_fresh_again():
    devices = f"[{A}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=200\n"
    with configured(devices, "[sensor]\nStaleAfter=3\n") as world:
        start(world)
        world.known(A)
        world.until(lambda: (sensor(world) or {}).get("Temperature") is not None)
        time.sleep(4)  # speaking all the time it never gets there
        assert sensor(world)["Stale"] is False
        world.stop(world.sim)
        world.until(lambda: sensor(world)["Stale"] is True, 15)
        assert sensor(world)["Temperature"] is not None
        world.start_sim()
        world.until(lambda: sensor(world)["Stale"] is False, 30)


@case
def staleness_heeds_the_usual_gap_of_each():
    often, seldom, rare, event = (f"A4:C1:38:00:03:0{i}" for i in range(4))
    with configured(silent(often, seldom, rare, event), "[sensor]\nStaleAfter=10\n") as world:
        start(world)
        world.known(often, seldom, rare, event)
        begin, count = time.monotonic(), 0

        def speak(at, *addresses):
            nonlocal count
            time.sleep(max(0, begin + at - time.monotonic()))
            for address in addresses:
                count += 1
                info = "44" if address == event else "40"  # sends on events only
                forge(world, address, "fcd2", f"{info}00{count:02x}02c409")

        speak(0, often, seldom, rare, event)
        speak(0.5, often)
        world.until(lambda: all(sensor(world, a) for a in (often, seldom, rare, event)), 5)
        signals = Signals(world)

        def went_stale(address):
            return [t - begin for t, line in signals.changes(address, "Sensor1") if "'Stale': <true>" in line]
        speak(7, seldom)  # its limit is three times 7 s from now on
        speak(7.3, often)
        speak(7.6, often)  # due 17.6, though the one before it in line is not
        speak(13, rare)  # it was stale, but its limit is three times 13 s from now on
        time.sleep(max(0, begin + 33 - time.monotonic()))
        assert len(went_stale(often)) == 1 and 17.5 <= went_stale(often)[0] < 20.8, went_stale(often)
        assert len(went_stale(seldom)) == 1 and 27.9 <= went_stale(seldom)[0] < 32, went_stale(seldom)
        assert len(went_stale(rare)) == 1 and 9.9 <= went_stale(rare)[0] < 13, went_stale(rare)
        assert sensor(world, rare)["Stale"] is False and sensor(world, often)["Stale"] is True
        assert went_stale(event) == [] and sensor(world, event)["Stale"] is False


@case
def properties_change_once_a_second_and_every_measurement_is_signalled():
    devices = "".join(f"[{a}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=50\n" for a in (A, B))
    with World(devices) as world:
        world.known(A, B)
        world.until(lambda: sensor(world, A) is not None and sensor(world, B) is not None)
        signals = Signals(world)
        time.sleep(6)
        for address in (A, B):
            measured, changed = signals.measurements(address), signals.changes(address)
            duration = signals.lines[-1][0] - measured[0][0]
            assert len(measured) >= 0.8 * duration / 0.05, (len(measured), duration)
            assert 2 <= len(signals.changes(address, "Sensor1")), len(changed)
            assert 1 <= len(signals.changes(address, "Device1")), len(changed)
            assert len(changed) <= duration + 2, (len(changed), duration)  # one at each end, and what is read late
            times = [t for t, _ in changed]
            assert min(b - a for a, b in zip(times, times[1:])) > 0.7, times  # a loaded machine reads late


@case
def a_stranger_that_flips_what_is_advertised_neither_floods_nor_writes():
    with World(silent(A)) as world:
        world.known(A)
        give_keys(world, (A, BIND_KEY))
        signals = Signals(world)
        time.sleep(1.5)
        begin, saved = time.monotonic(), set()
        # MiBeacon without object, of an LYWSD03MMC and an LYWSD02 in turn
        for i in range(100):
            forge(world, A, "fe95", ("00305b05" if i % 2 else "00305b04") + f"{i:02x}")
            saved.add(world.key_files()[0].stat().st_mtime_ns)
            time.sleep(0.03)
        world.until(lambda: world.info(A)["ProductId"] == 0x055B)
        time.sleep(1.5)
        changed = [t for t, _ in signals.changes(A) if t > begin]
        assert len(changed) <= time.monotonic() - begin + 1, changed
        products = [line for _, line in signals.changes(A, "Device1") if "'ProductId'" in line]
        assert "<uint16 1371>" in products[-1], products
        assert len(saved) <= 2, len(saved)


@case
def many_thermometers_share_the_changes_of_properties():
    addresses = [f"A4:C1:38:00:02:{i:02X}" for i in range(150)]
    devices = "".join(f"[{a}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=1000\n" for a in addresses)
    with World(devices) as world:
        world.known(*addresses)
        world.until(lambda: all(sensor(world, a) is not None for a in addresses))
        signals = Signals(world)
        start = time.monotonic()
        world.until(lambda: all(signals.changes(a, "Sensor1") for a in addresses))
        changed = [t for a in addresses for t, _ in signals.changes(a) if t > start]
        # A burst of each second, and those that were read late.
        assert len(changed) <= 50 * (time.monotonic() - start + 2), (len(changed), time.monotonic() - start)


@case
def repeated_advertisements_are_signalled_once():
    with World(silent(A)) as world:
        world.known(A)
        signals = Signals(world)
        frame = json.loads(VECTORS.read_text())
        frame = [v for v in frame["vectors"] if v["id"] == "bt2-pid-thb"][0]["service_data_hex"]
        for _ in range(20):
            forge(world, A, "fcd2", frame)
        forge(world, A, "fcd2", "4002c40903bf13")  # no packet id: its bytes tell
        forge(world, A, "fcd2", "4002c40903bf13")
        world.until(lambda: len(signals.measurements(A)) == 2, 10)
        time.sleep(1)
        assert len(signals.measurements(A)) == 2, signals.measurements(A)
        assert "'temperature': <25.0>" in signals.measurements(A)[1][1], signals.measurements(A)
        assert "replay" not in sensor(world)["Dropped"], sensor(world)


def monitor_lines(world, wanted, limit=20):
    """Lines of mithermctl monitor in a pipe, up to the first for which wanted(line) holds."""
    child = world.ctl_start("monitor")
    lines, until = [], time.monotonic() + limit
    timer = threading.Timer(limit, child.terminate)
    timer.start()
    for text in child.stdout:
        lines.append(json.loads(text))
        if wanted(lines[-1]):
            break
        assert time.monotonic() < until, lines[-5:]
    timer.cancel()
    assert world.stop(child) == 0
    assert lines and wanted(lines[-1]), lines[-5:]
    return lines


@case
def monitor_prints_json_lines_in_a_pipe():
    with World(silent(B) + f"[{A}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=200\n") as world:
        world.known(A, B)
        lines = monitor_lines(world, lambda line: line["event"] == "measurement")
        assert {line["address"] for line in lines if line["event"] == "added"} >= {A, B}, lines
        last = lines[-1]
        assert last["address"] == A and last["object"] == node(A), last
        assert 20 <= last["temperature"] <= 24 and 43 <= last["humidity"] <= 54 and last["battery"] == 100, last
        assert last["format"] == "pvvx" and last["encrypted"] is False and last["rssi"] == -60, last
        assert abs(last["time"] / 1e6 - time.time()) < 20, last
        added = [line for line in lines if line["event"] == "added" and line["address"] == A]
        assert {line["interface"] for line in added} == {"org.mitherm.Device1", "org.mitherm.Sensor1"}, added


@case
def monitor_tells_what_was_not_heard_as_null():
    with World(silent(A)) as world:
        world.known(A)
        later = threading.Timer(2, forge, (world, A, "181a", "00" * 11))  # encrypted, and there is no key
        later.start()
        added = monitor_lines(world, lambda line: line.get("interface") == "org.mitherm.Sensor1")[-1]
        values = {name: added["properties"][name] for name in ("Temperature", "Humidity", "Battery", "Voltage")}
        assert set(values.values()) == {None}, values
        assert added["properties"]["Dropped"] == {"no_key": 1}, added


@case
def monitor_shows_a_live_table_on_a_terminal():
    with World(silent(B) + f"[{A}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=200\n") as world:
        world.known(A, B)
        main_end, end = harness.terminal()
        child = subprocess.Popen(world.command("monitor"), stdout=end, stderr=subprocess.PIPE, env=world.env)
        world.children.append(child)
        os.close(end)
        text = ""
        until = time.monotonic() + 20
        while text.count("ADDRESS") < 3 and time.monotonic() < until:
            text += os.read(main_end, 4096).decode()
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
        os.close(main_end)
        assert text.count("ADDRESS") >= 3, text  # drawn again and again
        row = [line for line in text.split("\n") if A in line][-1]
        assert re.search(r"2\d\.\d °C +\d\d\.\d % +100 % +3\.00 V", row), row
        assert re.search(B + r" +LYWSD03MMC +- ", text), text
        assert "{" not in text, text


@case
def monitor_heeds_the_size_of_the_terminal_and_leaves_it_as_it_was():
    devices = silent(*[f"A4:C1:38:00:06:{i:02X}" for i in range(12)])
    with World(devices) as world:
        world.until(lambda: len(world.ctl("--json", "list").json()[0]) == 12)
        main_end, end = harness.terminal()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 8, 40, 0, 0))
        child = subprocess.Popen(world.command("monitor"), stdout=end, stderr=subprocess.PIPE, env=world.env)
        world.children.append(child)
        text = ""

        def read_until(*wanted):
            nonlocal text
            text = ""
            while not all(w in text for w in wanted):
                text += os.read(main_end, 4096).decode()
        read_until("... and 6 more")
        assert "\x1b[?7l" in text and "\x1b[?25l" in text, text  # lines are cut, not continued
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        child.send_signal(signal.SIGWINCH)
        read_until("A4:C1:38:00:06:0B")
        world.stop_daemon()
        read_until("waiting for the daemon")
        world.start_daemon()
        read_until("A4:C1:38:00:06:00", "A4:C1:38:00:06:0B")
        child.send_signal(signal.SIGTERM)
        read_until("\x1b[?7h", "\x1b[?25h")
        assert child.wait(20) == 0
        os.close(end)
        os.close(main_end)


@case
def monitor_ends_when_nobody_reads_any_more():
    with World(silent(A)) as world:
        world.known(A)
        main_end, end = harness.terminal()
        table = subprocess.Popen(world.command("monitor"), stdin=subprocess.DEVNULL, stdout=end, env=world.env,
                                 stderr=subprocess.PIPE)
        world.children.append(table)
        os.close(end)
        os.read(main_end, 4096)
        os.close(main_end)
        assert table.wait(20) == 0
        lines = world.ctl_start("monitor")
        assert json.loads(lines.stdout.readline())["event"] == "added"
        lines.stdout.close()
        assert lines.wait(20) == 0 and lines.stderr.read() == ""


@case
def list_and_info_show_values_and_their_age():
    with World(silent(B) + f"[{A}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=200\n") as world:
        world.known(A, B)
        world.until(lambda: sensor(world) is not None)
        rows = world.ctl("list").out.splitlines()
        assert re.search(r"TEMP +HUMIDITY +BATTERY +AGE", rows[0]), rows
        assert re.search(r"2\d\.\d °C +\d\d\.\d % +100 % +(now|\d+ s ago)", rows[1]), rows
        assert re.search(r"no +- +- +- +- ", rows[2]), rows
        listed = {d["Address"]: d for d in world.ctl("--json", "list").json()[0]}
        assert listed[A]["Sensor"]["Battery"] == 100 and "Sensor" not in listed[B], listed
        text = world.ctl("info", A).out
        assert "Sensor:" in text and "Temperature: 2" in text and "Dropped: -" in text, text
        assert "Battery: 100" in text and re.search(r"Updated: (now|\d+ s ago)$", text, re.M), text
        assert re.search(r"LastSeen: (now|\d+ s ago)$", text, re.M), text


def clock_of(world, address=A):
    """What the simulated clock says, read by a plain client of org.bluez."""
    done = world.ctl("--json", "clock", address).json()[-1]
    return done["Result"]["before"]


@case
def clock_of_a_thermometer_is_set_and_goes_on():
    with World(f"[{A}]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\n") as world:
        world.known(A)
        done = world.ctl("--json", "clock", "--time=2026-01-31T12:00:00Z", "--zone=+02:00", A).json()[-1]
        assert done["State"] == "done" and done["Kind"] == "clock", done
        assert done["Result"]["time"] == 1769860800 and done["Result"]["zone"] == "+02:00", done
        assert done["Result"]["before"] < 10**8, done  # seconds since it was switched on
        assert 1769860800 <= clock_of(world) < 1769860800 + 60  # and now it is set to now
        assert abs(clock_of(world) - time.time()) < 10


@case
def clock_with_a_zone_is_set_to_it():
    with World(f"[{A}]\nModel=LYWSD02\n") as world:
        world.known(A)
        done = world.ctl("--json", "clock", "--time=1800000000", "--zone=Asia/Kolkata", A).json()[-1]
        assert done["State"] == "done" and done["Result"]["zone"] == "+05:30", done
        # Five bytes have no room for half an hour: the time has it.
        assert 1800001800 <= clock_of(world) < 1800001800 + 60
        done = world.ctl("--json", "clock", "--time=1800000000", "--zone=America/New_York", A).json()[-1]
        assert done["Result"]["zone"] == "-05:00", done
        assert 1800000000 <= clock_of(world) < 1800000000 + 60


class PlainClient:
    """Another client of org.bluez, connected to a thermometer; for one characteristic."""

    def __init__(self, world, uuid, address=A):
        self.world, self.device = world, f"/org/bluez/hci0/dev_{address.replace(':', '_')}"
        self.call(self.device, "org.bluez.Device1.Connect")
        found = []

        def resolved():
            text = self.call("/", "org.freedesktop.DBus.ObjectManager.GetManagedObjects")
            for part in text.split("org.bluez.GattCharacteristic1")[1:]:
                if f"'UUID': <'{uuid}" in part.split("}")[0]:
                    before = text[:text.index(part)]
                    found.append(re.findall(r"'?(/org/bluez/[\w/]+/char[0-9a-f]+)'?: \{", before)[-1])
            return found
        world.until(resolved)
        self.path = found[0]

    def call(self, path, method, *args):
        return subprocess.run(["gdbus", "call", f"--address={self.world.bus}", "--dest=org.bluez",
                               f"--object-path={path}", f"--method={method}", *args], capture_output=True, text=True,
                              check=True, timeout=60).stdout

    def write(self, data):
        self.call(self.path, "org.bluez.GattCharacteristic1.WriteValue", str(list(data)), "{}")

    def read(self):
        text = self.call(self.path, "org.bluez.GattCharacteristic1.ReadValue", "{}")
        if text.startswith("(b"):  # so are bytes printed that end with their only zero
            return ast.literal_eval(text.strip())[0] + b"\0"
        return bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", text))

    def close(self):
        self.call(self.device, "org.bluez.Device1.Disconnect")


@case
def clock_with_quarters_of_an_hour_gets_the_whole_zone():
    clock = "ebe0ccb7-7a0a-4b0c-8a1a-6ff2997da3a6"
    with World(f"[{A}]\nModel=LYWSD02\n") as world:
        world.known(A)
        client = PlainClient(world, clock)
        client.write(bytes(6))  # such a firmware has six bytes
        assert len(client.read()) == 6
        client.close()
        for zone, hours, quarters in (("Asia/Kathmandu", 5, 3), ("-03:30", -3, -2), ("+02:00", 2, 0)):
            done = world.ctl("--json", "clock", "--time=1800000000", f"--zone={zone}", A).json()[-1]
            assert done["State"] == "done", done
            client = PlainClient(world, clock)
            value = client.read()
            client.close()
            assert 1800000000 <= int.from_bytes(value[:4], "little") < 1800000000 + 60, value
            assert value[4:] == bytes([hours & 0xff, quarters & 0xff]), (zone, value)


@case
def clock_refuses_what_is_no_time_and_what_has_no_clock():
    with World(f"[{A}]\nModel=LYWSD03MMC\nFirmware=V5.8\n") as world:
        world.known(A)
        assert "Unsupported" in world.ctl("clock", A, expect=4).err
        assert "Atlantis" in world.ctl("clock", "--zone=Europe/Atlantis", A, expect=2).err
        world.ctl("clock", "--time=tomorrow", A, expect=2)
        world.ctl("clock", "--time=9999999999", A, expect=2)
        world.ctl("clock", "--time=-5", A, expect=2)


@case
def a_zone_is_no_path_that_the_daemon_opens():
    with World(f"[{A}]\nModel=LYWSD03MMC\n") as world:
        world.known(A)
        os.mkfifo(world.dir / "zone")
        for zone in (world.dir / "zone", "/etc/passwd", "Europe/../../../../etc/passwd", "zone.tab", "leapseconds", "\x1b[2J"):
            assert "no time zone" in world.ctl("clock", f"--zone={zone}", A, expect=2).err, zone
        for zone in ("America/Argentina/Buenos_Aires", "Etc/GMT+1", "-03:30", "UTC"):
            world.ctl("clock", f"--zone={zone}", A)


def folder(world, **files):
    path = world.dir / "firmware"
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / name.replace("__", ".")).write_bytes(data)
    return path


@case
def catalogue_offers_what_is_newer_and_updates_from_it():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world, (A, BIND_KEY))
        world.ctl("info", "--read", A)
        assert world.info(A)["UpdateVersion"] == ""
        path = folder(world, old__bin=image(text="1.0.0_0109"), new__bin=image(text="1.0.0_0131"),
                      newer__bin=image(8196, text="1.0.0_0140"), ATC__bin=custom_image(text="V5.8"),
                      notes__txt=b"nothing", damaged__bin=image(text="1.0.0_0150")[:-1] + b"?")
        out = world.ctl("--json", "catalog", "add", path).json()
        results = {line["name"]: line for line in out}
        assert {n for n, r in results.items() if r["added"]} == {"old.bin", "new.bin", "newer.bin", "ATC.bin"}, out
        assert "reason" in results["damaged.bin"] and "reason" in results["notes.txt"], out
        for name in ("newer.bin", "ATC.bin"):
            assert results[name]["sha256"] == hashlib.sha256((path / name).read_bytes()).hexdigest(), out
            assert results[name]["models"] == ["LYWSD03MMC"], out
        listed = {f["version"]: f for f in world.ctl("--json", "catalog", "list").json()[0]}
        assert set(listed) == {"1.0.0_0109", "1.0.0_0131", "1.0.0_0140", "V5.8"}, listed
        assert world.info(A)["UpdateVersion"] == "1.0.0_0140"
        world.stop_daemon()  # it is kept
        world.start_daemon()
        world.known(A)
        assert world.info(A)["UpdateVersion"] == "1.0.0_0140"
        assert all(not line["added"] for line in world.ctl("--json", "catalog", "add", path).json())
        done = world.ctl("--json", "catalog", "update", A).json()[-1]
        assert done["State"] == "done" and done["Result"]["version"] == "1.0.0_0140", done
        assert world.device_state(A)["version"] == "1.0.0_0140"
        assert world.info(A)["UpdateVersion"] == ""
        assert "nothing newer" in world.ctl("catalog", "update", A, expect=3).err
        done = world.ctl("--json", "catalog", "update", "--version=V5.8", A).json()[-1]
        assert done["State"] == "done" and done["Result"]["version"] == "V5.8", done
        assert "V9.9" in world.ctl("catalog", "update", "--version=V9.9", A, expect=3).err
        world.ctl("catalog", "remove", listed["V5.8"]["sha256"][:12])
        assert "V5.8" not in world.ctl("catalog", "list").out
        world.ctl("catalog", "remove", listed["V5.8"]["sha256"], expect=3)


@case
def catalogue_update_has_the_options_of_update():
    with World(BOUND) as world:
        world.known(A)
        give_keys(world, (A, BIND_KEY))
        world.ctl("info", "--read", A)
        world.ctl("catalog", "add", world.file("a.bin", image(text="1.0.0_0140")))
        for wrong in ("--window=-1", "--window=999999", "--transport=pigeon"):
            world.ctl("catalog", "update", wrong, A, expect=2)
        job = world.ctl("catalog", "update", "--window=16", "--transport=telink", "--detach", A).out.strip()
        assert "/org/mitherm/job/" in job, job
        world.until(lambda: world.device_state(A)["version"] == "1.0.0_0140")


@case
def catalogue_heeds_an_index_and_distrusts_it():
    with World(f"[{A}]\nModel=LYWSD03MMC\nFirmware=V5.7\n") as world:
        world.known(A)
        world.ctl("info", "--read", A)
        index = {"version": 0x58, "betaver": 0x59, "custom": ["bin/ATC_v58.bin", "?", "?", "x/ATC_v58.bin", "bin/ATC_old.bin"],
                 "original": ["bin/Original/Original.bin", "bin/Original/liar.bin", "bin/absent.bin"]}
        path = folder(world, firmware__json=json.dumps(index).encode(), ATC_v58__bin=custom_image(text="V5.8"),
                      ATC_old__bin=custom_image(text="V5.6"), Original__bin=image(text="1.0.0_0130"),
                      liar__bin=custom_image(text="V5.9"))
        results = {line["name"]: line for line in world.ctl("--json", "catalog", "add", path / "firmware.json").json()}
        assert {n for n, r in results.items() if r["added"]} == {"ATC_v58.bin", "Original.bin"}, results
        assert results["ATC_v58.bin"]["hardware-ids"] == [0, 3], results
        assert "version" in results["ATC_old.bin"]["reason"] and "kind" in results["liar.bin"]["reason"], results
        assert world.info(A)["UpdateVersion"] == "V5.8"
        broken = world.file("firmware.json", b"{ not json")
        image_file = world.file("a.bin", image())
        result = world.ctl("catalog", "add", image_file.parent, expect=2)
        assert "InvalidArgs" in result.err, result
        broken.unlink()


@case
def catalogue_takes_nothing_beside_a_damaged_index():
    with World(f"[{A}]\nModel=LYWSD03MMC\n") as world:
        world.known(A)
        path = folder(world, good__bin=image())
        for index in (b"", b" \n", b"[]", b"{", b'{"custom":' + b"[" * 1000000):
            (path / "firmware.json").write_bytes(index)
            assert "InvalidArgs" in world.ctl("catalog", "add", path, expect=2).err, index[:20]
        (path / "firmware.json").unlink()
        assert "there is no" in world.ctl("catalog", "add", path / "firmware.json", expect=2).err
        assert world.ctl("--json", "catalog", "list").json()[0] == []
        assert world.daemon.poll() is None


@case
def files_that_are_none_are_refused_at_once():
    commands = (["image"], ["catalog", "add"], ["keys", "import"], ["plan", A], ["update", A])
    with World(f"[{A}]\nModel=LYWSD03MMC\n") as world:
        world.known(A)
        fifo, large = world.dir / "fifo", world.file("large.bin", bytes(2 << 20))
        os.mkfifo(fifo)
        for command in commands:
            for path in (fifo, world.dir / "absent", "/dev/zero"):
                world.ctl(*command, path, expect=2)
            expected = 2 if command == ["keys", "import"] else 4
            world.ctl(*command, large, expect=expected)
            if command == ["catalog", "add"]:
                continue
            with open("/dev/zero", "rb") as endless:
                done = subprocess.run(world.command(*command, "-"), stdin=endless, capture_output=True, env=world.env,
                                      timeout=20, check=False)
            assert done.returncode == expected, done


@case
def catalogue_uses_no_file_that_was_changed_on_disk():
    with World(f"[{A}]\nModel=LYWSD03MMC\nFirmware=V5.7\n") as world:
        world.known(A)
        world.ctl("info", "--read", A)
        world.ctl("catalog", "add", world.file("c.bin", custom_image(text="V5.8")))
        assert world.info(A)["UpdateVersion"] == "V5.8"
        stored, = (world.state / "catalog").glob("*.bin")
        assert stored.stat().st_mode & 0o777 == 0o600
        stored.write_bytes(custom_image(text="V5.8", seed=1))
        assert "Storage" in world.ctl("catalog", "update", A, expect=1).err
        world.stop_daemon()
        (world.state / "catalog" / "index.conf").write_text("[x]\n\0rubbish\n")
        world.start_daemon()
        assert world.ctl("--json", "catalog", "list").json()[0] == []


@case
def catalogue_of_real_files_offers_no_read_out():
    index = harness.firmware("firmware.json")
    with World(BOUND) as world:
        world.known(A)
        give_keys(world, (A, BIND_KEY))
        world.ctl("info", "--read", A)
        out = world.ctl("--json", "catalog", "add", index).json()
        added = {line["name"]: line for line in out if line["added"]}
        assert added["ATC_v58.bin"]["version"] == "V5.8" and 10 in added["ATC_v58.bin"]["hardware-ids"], out
        assert world.info(A)["UpdateVersion"].startswith("2.1.1"), world.info(A)
        for name in added:
            if "2.1.1" in name:
                assert added[name]["kind"] == "stock-signed", added[name]


TALKER = f"[{A}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=200\n"


def bus_property(world, name, path, interface, prop):
    out = world.gdbus(f"--object-path={path}", "--method=org.freedesktop.DBus.Properties.Get", interface, prop).out \
        if name == "org.mitherm" else subprocess.run(
            ["gdbus", "call", f"--address={world.bus}", f"--dest={name}", f"--object-path={path}",
             "--method=org.freedesktop.DBus.Properties.Get", interface, prop],
            capture_output=True, text=True, check=True, timeout=60).stdout
    return "true" in out


def scanning(world):
    return bus_property(world, "org.bluez", "/org/bluez/hci0", "org.bluez.Adapter1", "Discovering")


def listening(world):
    return bus_property(world, "org.mitherm", "/org/mitherm", "org.mitherm.Manager1", "Discovering")


def is_heard(world, address=A, limit=20):
    since = time.time() * 1e6
    world.until(lambda: ((sensor(world, address) or {}).get("Updated") or 0) > since, limit)


@case
def passive_scanning_hears_without_discovery():
    with configured(TALKER, "[discovery]\nFull=0\n", sim_args=["--monitors"]) as world:
        start(world)
        world.known(A)
        is_heard(world)
        assert not scanning(world) and listening(world)
        assert world.info(A)["Name"] == "", world.info(A)  # nobody asked for it
        world.ctl("info", "--read", A)  # jobs discover what they need
        is_heard(world)
        world.until(lambda: not scanning(world), 10)
        for enabled in ("false", "true"):  # bluetoothd releases a monitor that is taken back
            world.gdbus("--object-path=/org/mitherm", "--method=org.mitherm.Manager1.SetDiscovery",
                        "{'enabled': <%s>}" % enabled)
            world.until(lambda e=enabled: listening(world) == (e == "true"), 10)
        is_heard(world)
        assert not scanning(world)
        world.control(do="bluez", what="power-off", adapter="hci0")
        world.until(lambda: not listening(world), 10)
        world.control(do="bluez", what="power-on", adapter="hci0")
        is_heard(world)
        world.control(do="bluez", what="restart")
        is_heard(world, limit=40)
        assert not scanning(world) and listening(world)


@case
def passive_scanning_follows_a_time_of_discovery_and_can_be_refused():
    with configured(TALKER, "[discovery]\nFull=4\n", sim_args=["--monitors"]) as world:
        start(world)
        assert scanning(world)
        world.known(A)
        world.until(lambda: world.info(A)["Name"] == "ATC_000001", 10)
        world.until(lambda: not scanning(world), 20)
        is_heard(world)
        assert listening(world)
    with configured(TALKER, "[discovery]\nFull=0\nPassive=false\n", sim_args=["--monitors"]) as world:
        start(world)
        world.until(lambda: scanning(world), 10)


@case
def discovery_rests_after_a_while_and_goes_on():
    with configured(TALKER, "[discovery]\nFull=2\nDuty=50\nPeriod=4\n") as world:
        start(world)
        assert scanning(world)
        seen, until = [], time.monotonic() + 14
        while time.monotonic() < until:
            seen.append(scanning(world))
            assert listening(world)
            time.sleep(0.2)
        turns = sum(a != b for a, b in zip(seen, seen[1:]))
        assert 3 <= turns <= 10 and 0.25 <= sum(seen) / len(seen) <= 0.8, seen
        is_heard(world)
        assert world.ctl("--json", "info", "--read", A).json()[-1]["State"] == "done"


@case
def another_program_that_scans_disturbs_nothing():
    with configured(TALKER, "[discovery]\nFull=2\nDuty=50\nPeriod=4\n") as world:
        start(world)
        world.known(A)
        is_heard(world)
        other = World(None, start=False)
        with other:
            daemon = other.spawn("daemon", [harness.BUILD / "daemon" / "mithermd", f"--bus={other.bus}",
                                            f"--bluez-bus={world.bus}", f"--state-dir={other.state}"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            other.until(lambda: other.ctl("list", expect=None).code == 0)
            other.known(A)
            for _ in range(3):
                is_heard(world)
                is_heard(other)
            world.ctl("info", "--read", A)
            is_heard(other)
            other.stop(daemon)
        is_heard(world)


def written(pid):
    return int(re.search(r"^write_bytes: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text(), re.M)[1])


def nothing_is_written(seconds):
    addresses = [f"A4:C1:38:00:02:{i:02X}" for i in range(20)]
    devices = "".join(f"[{a}]\nModel=LYWSD03MMC\nAdvert=mibeacon-encrypted\nInterval=100\nToken={TOKEN}\n"
                      f"BindKey={BIND_KEY}\n" for a in addresses)
    with World(devices) as world:
        world.known(*addresses)
        give_keys(world, *[(a, BIND_KEY) for a in addresses])
        world.until(lambda: all((sensor(world, a) or {}).get("KeyState") == "ok" for a in addresses))
        time.sleep(2)
        log, before = (world.dir / "daemon.log").stat().st_size, written(world.daemon.pid)
        heard = sensor(world, addresses[0])["Updated"]
        time.sleep(seconds)
        assert written(world.daemon.pid) == before
        assert (world.dir / "daemon.log").stat().st_size == log, (world.dir / "daemon.log").read_text()[-2000:]
        assert sensor(world, addresses[0])["Updated"] > heard + 1e6 * (seconds - 5)


@case
def nothing_is_written_while_nothing_changes():
    nothing_is_written(10)


@case
def nothing_is_written_in_ten_minutes():
    nothing_is_written(600)


if __name__ == "__main__":
    sys.exit(harness.main(CASES))
