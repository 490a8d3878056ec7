# SPDX-License-Identifier: GPL-2.0-or-later
"""What every case in the guest needs: the harness on the guest's system bus, and its bluetoothd."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
import harness  # noqa: E402

# hci1 of the virtual controllers; a public address of our own choice is not possible there.
ADDRESS = "00:AA:01:01:00:01"
PLAIN = f"[{ADDRESS}]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\n"
CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


class Guest(harness.World):
    """The same harness on the guest's system bus."""

    def __init__(self, devices, config=""):
        super().__init__(devices)
        self.bus = "system"
        self.config = self.dir / "mithermd.conf"
        self.config.write_text("[radio]\nAdapters=hci0\n" + config)

    def start_bus(self):
        policy = pathlib.Path("/etc/dbus-1/system.d/org.mitherm.conf")
        if not policy.exists():
            shutil.copy(harness.TOP / "dbus" / "org.mitherm.conf", policy)
            time.sleep(2)

    def start_sim(self):
        self.sim = self.spawn("sim", [harness.BUILD / "sim" / "mitherm-sim", "--bluez=hci1", "--bus=system",
                                      "--control", f"--devices={self.devices}", "--seed=7"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lines = harness.Lines(self.sim)
        self.lines.wait(lambda line: line.get("event") == "ready")

    def start_daemon(self, *more):
        self.daemon = self.spawn("daemon", [harness.BUILD / "daemon" / "mithermd", f"--state-dir={self.state}",
                                            f"--config={self.config}", "--verbose", *more],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.until(lambda: self.ctl("list", expect=None).code == 0)


def adapter_property(name, adapter="hci0"):
    """A property of bluetoothd's adapter as busctl shows it, "" while there is none."""
    return subprocess.run(["busctl", "get-property", "org.bluez", f"/org/bluez/{adapter}", "org.bluez.Adapter1", name],
                          capture_output=True, text=True, check=False).stdout.strip()


PID_FILE = pathlib.Path("/run/bluetoothd.pid")


def bluetoothd_command():
    """How the running bluetoothd was started; None when it has ended by itself."""
    words = pathlib.Path(f"/proc/{PID_FILE.read_text().strip()}/cmdline")
    return words.read_bytes().decode().split("\0")[:-1] or None if words.exists() else None


COMMAND = [word for word in bluetoothd_command() or [] if word != "-E"]


def restart_bluetoothd(guest, *, experimental, sig=signal.SIGTERM):
    """Ends bluetoothd and starts it again, with or without its option -E."""
    if bluetoothd_command():
        os.kill(int(PID_FILE.read_text()), sig)
    guest.until(lambda: adapter_property("Powered") == "")
    log = open(pathlib.Path(os.environ.get("OUT", "/tmp")) / "bluetoothd.log", "ab")
    child = subprocess.Popen(COMMAND + (["-E"] if experimental else []), stdin=subprocess.DEVNULL, stdout=log,
                             stderr=log)
    log.close()
    PID_FILE.write_text(str(child.pid))
    guest.until(lambda: all(adapter_property("Powered", name) == "b true" for name in ("hci0", "hci1")))


def breakage():
    """What has ended in the guest by itself, "" if nothing: BlueZ and its kernel have faults of their own that both
    sides on one machine bring out (use after free of an advertisement, of an L2CAP channel)."""
    if not bluetoothd_command():
        return "bluetoothd ended by itself"
    told = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout
    return "the kernel has a fault" if "kernel BUG" in told or "Oops:" in told else ""


def is_experimental():
    return "-E" in (bluetoothd_command() or [])
