# SPDX-License-Identifier: GPL-2.0-or-later
"""Scanning with real BlueZ: discovery and advertisement monitors, alone and next to another client."""

import pathlib
import signal
import struct
import subprocess
import threading
import time

import harness
from guest import ADDRESS, Guest, adapter_property, case, is_experimental, restart_bluetoothd

TOKEN, BIND_KEY = "00112233445566778899aabb", "ffeeddccbbaa99887766554433221100"
BOUND = (f"[{ADDRESS}]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\nToken={TOKEN}\nBindKey={BIND_KEY}\n"
         "Did=blt.3.129vtestaag00\nAdvert=mibeacon-encrypted\n")


def talker(form):
    return f"[{ADDRESS}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert={form}\n"


class Traffic:
    """What goes over the guest's system bus: (type, sender, destination, path, member)."""

    def __init__(self, guest):
        self.messages = []
        self.child = guest.spawn("traffic", ["stdbuf", "-oL", "dbus-monitor", "--system", "--profile"],
                                 stdout=subprocess.PIPE)
        threading.Thread(target=self._pump, daemon=True).start()
        guest.until(lambda: adapter_property("Address") and self.messages)

    def _pump(self):
        for line in self.child.stdout:
            words = line.rstrip("\n").split("\t") + [""] * 8
            if words[0] in ("sig", "mc", "mr", "err"):
                self.messages.append((words[0], words[3], words[4], words[5], words[7]))

    def count(self, member, since=0):
        return sum(message[4] == member for message in self.messages[since:])

    def measurements(self, since=0):
        node = "/org/mitherm/device/" + ADDRESS.replace(":", "_")
        return sum(path == node and member == "Measurement" for _, _, _, path, member in self.messages[since:])

    def has_measured(self, guest, number=2, limit=60):
        """Waits for so many measurements from now on."""
        since = len(self.messages)
        guest.until(lambda: self.measurements(since) >= number, limit)

    def calls_of(self, name, since=0):
        """Messages from or to this name that are no signals."""
        return [m for m in self.messages[since:] if m[0] != "sig" and name in m[1:3]]


def name_of_the_daemon():
    """Its unique name on the system bus, on which it talks to bluetoothd as well."""
    return subprocess.run(["busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                           "GetNameOwner", "s", "org.mitherm"],
                          capture_output=True, text=True, check=True, timeout=60).stdout.split('"')[1]


class Trace:
    """What the kernel tells the controller hci0 about scanning."""

    def __init__(self, guest):
        self.path = guest.dir / f"trace-{time.monotonic()}.btsnoop"
        self.child = guest.spawn("btmon", ["btmon", "-w", self.path], stdout=subprocess.DEVNULL)
        guest.until(lambda: self.path.exists() and self.path.stat().st_size > 16)

    def commands(self):
        """(opcode, parameters) of HCI commands, so far."""
        data, at = self.path.read_bytes(), 16
        while at + 24 <= len(data):
            length, flags = struct.unpack_from(">II", data, at + 4)
            packet = data[at + 24:at + 24 + length]
            at += 24 + length
            if flags == 2 and len(packet) == length and length >= 3:  # controller 0, command
                yield struct.unpack_from("<H", packet)[0], packet[3:]

    def scans(self):
        """Kind of each scan that was configured: "passive" or "active"."""
        kinds = []
        for opcode, parameters in self.commands():
            if opcode == 0x200b:
                kinds.append("active" if parameters[0] else "passive")
            elif opcode == 0x2041:
                kinds.append("active" if parameters[3] else "passive")
        return kinds

    def duplicates(self):
        """Whether the controller reports repetitions, for each scan that was started."""
        return [parameters[1] == 0 for opcode, parameters in self.commands()
                if opcode in (0x200c, 0x2042) and parameters[0]]


class Other:
    """Another client that scans: bluetoothctl, with a filter of its own."""

    def __init__(self, guest, *settings):
        self.child = guest.spawn("other", ["bluetoothctl"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.guest = guest
        self.say("select 00:AA:01:00:00:00", "menu scan", "clear", *settings, "back")
        self.insist("scan on")

    def say(self, *lines):
        for line in lines:
            time.sleep(0.8)  # it takes what comes in one piece for one line
            self.child.stdin.write(line + "\n")
            self.child.stdin.flush()

    def insist(self, line):
        """bluetoothd refuses while it starts or stops a scan for somebody else."""
        for _ in range(3):
            self.say(line)
            time.sleep(1)

    def stop_scanning(self):
        self.insist("scan off")

    def end(self):
        self.guest.stop(self.child)


def is_scanning():
    return adapter_property("Discovering") == "b true"


def is_listening(guest):
    return "true" in guest.gdbus("--object-path=/org/mitherm", "--method=org.freedesktop.DBus.Properties.Get",
                                 "org.mitherm.Manager1", "Discovering").out


def sensor(guest):
    return guest.ctl("--json", "info", ADDRESS).json()[0]["Sensor"]


class Scan(Guest):
    """A guest whose bluetoothd offers monitors, or not; the daemon starts with start()."""

    def __init__(self, devices, settings, passive):
        super().__init__(devices, f"[discovery]\n{settings}\n")
        self.auto = False
        self.passive = passive

    def __enter__(self):
        super().__enter__()
        try:
            if is_experimental() != self.passive:
                restart_bluetoothd(self, experimental=self.passive)
            self.start_sim()
            self.traffic = Traffic(self)
            self.trace = Trace(self)
        except BaseException:
            self.__exit__(AssertionError, None, None)
            raise
        return self

    def gdbus(self, *args, expect=0):
        command = ["gdbus", "call", "--system", "--dest=org.mitherm", *args]
        done = subprocess.run(command, capture_output=True, text=True, env=self.env, timeout=60, check=False)
        assert done.returncode == expect, f"{command}\n{done.stdout}{done.stderr}"
        return harness.Result(command, done.returncode, done.stdout, done.stderr)

    def set_discovery(self, on):
        self.gdbus("--object-path=/org/mitherm", "--method=org.mitherm.Manager1.SetDiscovery",
                   "{'enabled': <%s>}" % ("true" if on else "false"))

    def power(self, on):
        subprocess.run(["busctl", "set-property", "org.bluez", "/org/bluez/hci0", "org.bluez.Adapter1", "Powered",
                        "b", "true" if on else "false"], check=True, timeout=60)

    def has_measured(self, number=2, limit=60):
        self.traffic.has_measured(self, number, limit)


@case
def active_scanning_lives_with_another_client():
    with Scan(talker("pvvx"), "Full=1\nDuty=50\nPeriod=12", passive=False) as guest:  # rests that a slow guest sees
        guest.start_daemon()
        guest.known(ADDRESS)
        guest.has_measured()
        guest.until(lambda: not is_scanning())  # it rests
        assert is_listening(guest)
        for settings in (["transport le", "duplicate-data on"], ["pattern FF"]):  # the latter fits nothing
            other = Other(guest, *settings)
            since = guest.traffic.count("StopDiscovery")
            guest.until(lambda n=since: guest.traffic.count("StopDiscovery") > n)  # our turns go on
            guest.until(is_scanning)  # the other client's does not end with ours
            guest.has_measured()
            other.stop_scanning()
            guest.has_measured()
            guest.until(lambda: not is_scanning())
            other.end()
        assert guest.traffic.count("RegisterMonitor") == 0
        assert set(guest.trace.scans()) == {"active"}, guest.trace.scans()
        guest.ctl("info", "--read", ADDRESS)
        guest.has_measured()


@case
def our_end_leaves_the_scan_of_another_client():
    for settings, rests in (("Duty=100", False), ("Full=1\nDuty=1\nPeriod=100", True)):
        with Scan(talker("pvvx"), settings, passive=False) as guest:
            guest.start_daemon()
            guest.known(ADDRESS)
            other = Other(guest, "transport le")
            guest.until(lambda: guest.traffic.count("StartDiscovery") >= 2)
            if rests:
                guest.until(lambda: guest.traffic.count("StopDiscovery") >= 1)
            time.sleep(1)
            guest.stop_daemon()
            time.sleep(3)  # bluetoothd may look idle for a moment while it starts again
            guest.until(is_scanning, 15)
            other.end()
            guest.until(lambda: not is_scanning())


@case
def passive_scanning_measures_and_serves_jobs():
    with Scan(BOUND, "Full=0", passive=True) as guest:
        guest.start_daemon()
        guest.known(ADDRESS)
        guest.ctl("keys", "import", "-", data=f"{ADDRESS} {TOKEN} {BIND_KEY}\n")
        guest.has_measured()
        assert not is_scanning() and is_listening(guest)
        values = sensor(guest)
        assert values["Encrypted"] is True and values["Temperature"] is not None, values
        assert guest.traffic.count("StartDiscovery") == 0 and guest.traffic.count("RegisterMonitor") == 1
        assert set(guest.trace.scans()) == {"passive"}, guest.trace.scans()
        assert all(guest.trace.duplicates()), guest.trace.duplicates()
        assert guest.ctl("--json", "login", ADDRESS).json()[-1]["Result"]["keys"] == "current"
        guest.has_measured()
        assert guest.traffic.count("UnregisterMonitor") >= 1  # no scan while connected
        assert not is_scanning() and is_listening(guest)


@case
def no_advertisement_costs_a_call():
    with Scan(talker("pvvx"), "Full=0", passive=True) as guest:
        guest.start_daemon()
        guest.known(ADDRESS)
        guest.has_measured(4)  # bluetoothd tells once that it has found the device
        name = name_of_the_daemon()
        assert [m[1] for m in guest.traffic.messages if m[4] == "RegisterMonitor"] == [name]
        since = len(guest.traffic.messages)
        guest.has_measured(10)
        calls = guest.traffic.calls_of(name, since)
        assert calls == [], calls
        told = [m for m in guest.traffic.messages[:since] if m[4] == "DeviceFound"]
        assert len(told) <= 1, told


@case
def passive_scanning_lives_with_another_client():
    with Scan(talker("pvvx"), "Full=0", passive=True) as guest:
        guest.start_daemon()
        guest.known(ADDRESS)
        guest.has_measured()
        for settings in (["transport le", "duplicate-data on"], ["pattern FF"]):
            other = Other(guest, *settings)
            guest.until(is_scanning)
            guest.has_measured()
            if "transport le" in settings:
                assert guest.ctl("--json", "info", "--read", ADDRESS).json()[-1]["State"] == "done"
                guest.has_measured()
            guest.until(is_scanning)
            other.stop_scanning()
            guest.until(lambda: not is_scanning())
            guest.has_measured()
            other.end()


@case
def passive_scanning_comes_back():
    with Scan(talker("pvvx"), "Full=0", passive=True) as guest:
        guest.start_daemon()
        guest.known(ADDRESS)
        guest.has_measured()
        guest.set_discovery(False)
        guest.until(lambda: guest.traffic.count("UnregisterMonitor") == 1 and not is_listening(guest))
        guest.set_discovery(True)
        guest.has_measured()
        guest.power(False)
        guest.until(lambda: not is_listening(guest))
        guest.power(True)
        guest.has_measured()
        guest.stop(guest.sim)
        before = guest.traffic.count("RegisterMonitor")
        restart_bluetoothd(guest, experimental=True, sig=signal.SIGKILL)
        guest.start_sim()
        guest.until(lambda: guest.traffic.count("RegisterMonitor") > before)
        guest.has_measured()
        assert guest.traffic.count("StartDiscovery") == 0 and not is_scanning() and is_listening(guest)
        assert set(guest.trace.scans()) == {"passive"}, guest.trace.scans()


@case
def values_of_an_earlier_format_do_not_come_back():
    with Scan(talker("qingping"), "Full=0", passive=True) as guest:
        guest.start_daemon()
        guest.known(ADDRESS)
        guest.has_measured()
        assert sensor(guest)["Format"] == "qingping"
        guest.stop(guest.sim)
        pathlib.Path(guest.devices).write_text(talker("pvvx"))
        guest.start_sim()
        guest.until(lambda: sensor(guest)["Format"] == "pvvx")
        since = len(guest.traffic.messages)
        while guest.traffic.measurements(since) < 3:
            assert sensor(guest)["Format"] == "pvvx", sensor(guest)
            guest.traffic.has_measured(guest, 1)
