# SPDX-License-Identifier: GPL-2.0-or-later
"""A private bus with simulated thermometers, the daemon and the command line on it."""

import json
import os
import pathlib
import queue
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MITHERM_BUILD", TOP / "build"))
FIRMWARE = pathlib.Path(os.environ.get("MITHERM_FIRMWARE", TOP / "firmware"))
# Sanitized programs on a loaded machine: limits of waits, never sleeps.
LIMIT_S = 60
# BlueZ takes 2 s for its Disconnect, at the end of each job; a case that is about that says so in sim_args.
DISCONNECT_MS = 200


class Skip(Exception):
    """The test cannot run here; says why."""


def short_folder(prefix):
    """A new folder whose path leaves room for a socket's name: the kernel takes 107 bytes."""
    place = tempfile.gettempdir()
    return pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=place if len(os.fsencode(place)) < 60 else "/tmp"))


def terminal():
    """The two ends of a new terminal."""
    try:
        return os.openpty()
    except OSError as error:
        raise Skip(f"there are no terminals here: {error}") from None


def clean_environment():
    """Ours without what changes the behaviour or the output of our programs."""
    unwanted = ("DBUS_", "MITHERM_", "G_MESSAGES_DEBUG", "NOTIFY_SOCKET", "WATCHDOG_", "LC_", "LANGUAGE",
                "STATE_DIRECTORY")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)} | {"LANG": "C.UTF-8"}


def crc32(data):
    """CRC-32 as Telink images carry it: no final inversion (protocol/image.md section 1)."""
    import zlib
    return zlib.crc32(data) ^ 0xFFFFFFFF


def image(size=4100, seed=21, text="1.0.0_0131", stock=True, manufacturer=0, kind=0, version=0):
    """A sound synthetic image that carries a version (protocol/image.md section 1)."""
    body = bytearray((i * 7 + (i >> 8) * 13 + seed) & 255 for i in range(size))
    body[0:2] = b"\x26\x80"
    body[2:6] = struct.pack("<I", version)
    body[6:8] = b"\x5d\x02"
    body[8:12] = b"KNLT"
    struct.pack_into("<HH", body, 0x12, manufacturer, kind)
    struct.pack_into("<I", body, 0x18, size)
    at = 0x100
    for part in ([b"mible-login-info", b"LYWSD03MMC"] if stock else [b"github.com/pvvx"]) + [text.encode()]:
        body[at:at + len(part) + 2] = b"\0" + part + b"\0"
        at += len(part) + 2
    struct.pack_into("<I", body, size - 4, crc32(body[:-4]))
    return bytes(body)


def custom_image(size=4100, seed=22, text="V5.8", hardware=10):
    return image(size, seed, text, stock=False, manufacturer=0x1141, kind=0x0200 + hardware,
                 version=0x99993001)


def firmware(name):
    path = FIRMWARE / name
    if not path.exists():
        raise Skip(f"firmware file {name} is not there (set MITHERM_FIRMWARE)")
    return path


class Lines:
    """A child's JSON lines, readable with a limit."""

    def __init__(self, child):
        self.child = child
        self.lines = queue.Queue()
        self.seen = []
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self):
        for line in self.child.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def wait(self, wanted, limit=LIMIT_S):
        """The next line for which wanted(line) holds."""
        until = time.monotonic() + limit
        while True:
            try:
                text = self.lines.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not seen within {limit} s; last lines: {self.seen[-5:]}") from None
            if text is None:
                raise AssertionError(f"the simulator ended; last lines: {self.seen[-5:]}")
            try:
                line = json.loads(text)
            except ValueError:
                raise AssertionError(f"no JSON from the simulator: {text!r}") from None
            self.seen.append(line)
            if wanted(line):
                return line


class Result:
    def __init__(self, command, code, out, err):
        self.command, self.code, self.out, self.err = command, code, out, err

    def __str__(self):
        return f"$ {' '.join(self.command)}\n[{self.code}]\n{self.out}{self.err}"

    def json(self):
        return [json.loads(line) for line in self.out.splitlines()]


class World:
    """Everything a test needs; `with World(devices) as world`."""

    def __init__(self, devices, sim_args=(), daemon_args=(), start=True):
        self.dir = short_folder("mitherm-")
        self.state = self.dir / "state"
        self.children = []
        self.devices = self.dir / "devices.conf"
        if devices is not None:
            self.devices.write_text(devices)
        self.sim_args, self.daemon_args = list(sim_args), list(daemon_args)
        self.sim = self.daemon = self.bus_process = None
        self.auto = start
        self.quiet = False
        self.env = clean_environment()

    def __enter__(self):
        try:
            self.start_bus()
            if self.auto:
                self.start_sim()
                self.start_daemon()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind, value, trace):
        for child in reversed(self.children):
            self.stop(child)
        if kind is not None and kind is not Skip:
            for log in sorted(self.dir.glob("*.log")):
                print(f"--- {log.name}")
                print("\n".join(log.read_text(errors="replace").splitlines()[-60:]))
        broken = [] if kind is not None else self.sanitizer_reports()
        shutil.rmtree(self.dir, ignore_errors=True)
        if broken:
            raise AssertionError("\n".join(broken))

    def sanitizer_reports(self):
        """A program that a sanitizer or a critical warning stopped fails every test."""
        bad = ("AddressSanitizer", "LeakSanitizer", "runtime error:", "CRITICAL", "core dumped")
        return [line for log in self.dir.glob("*.log") for line in log.read_text(errors="replace").splitlines()
                if any(word in line for word in bad)]

    def spawn(self, name, args, **options):
        log = open(self.dir / f"{name}.log", "ab")
        child = subprocess.Popen([str(a) for a in args], stderr=log, text=True, env=self.env, **options)
        log.close()
        self.children.append(child)
        return child

    def stop(self, child, sig=signal.SIGTERM):
        """Stops a child; a program of ours that does not end is killed and counts as a failure."""
        if child not in self.children:
            return None
        self.children.remove(child)
        if child.poll() is None:
            ours = BUILD in pathlib.Path(child.args[0]).parents
            child.send_signal(sig)
            try:
                child.wait(LIMIT_S if ours else 5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                if ours:  # mosquitto_sub may miss a signal while it connects again
                    raise AssertionError(f"{child.args[0]} did not end") from None
        for pipe in (child.stdin, child.stdout):
            if pipe:
                pipe.close()
        return child.returncode

    def start_bus(self):
        self.bus_process = self.spawn("bus", [
            "dbus-daemon", f"--config-file={TOP}/dbus/private-bus.conf",
            f"--address=unix:path={self.dir}/bus", "--print-address", "--nofork", "--nopidfile"],
            stdout=subprocess.PIPE)
        self.bus = self.bus_process.stdout.readline().strip()
        assert self.bus, "dbus-daemon did not start"

    def start_sim(self):
        self.sim = self.spawn("sim", [
            BUILD / "sim" / "mitherm-sim", "--fake-bluez", f"--bus={self.bus}", "--control",
            *([f"--devices={self.devices}"] if self.devices.exists() else []), "--seed=7",
            f"--disconnect-delay={DISCONNECT_MS}", *self.sim_args], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lines = Lines(self.sim)
        self.lines.wait(lambda line: line.get("event") == "ready")

    def start_daemon(self, *more):
        self.daemon = self.spawn("daemon", [
            BUILD / "daemon" / "mithermd", f"--bus={self.bus}", f"--bluez-bus={self.bus}",
            f"--state-dir={self.state}", *([] if self.quiet else ["--verbose"]), *self.daemon_args, *more], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, restore_signals=False)

        def owned():
            if self.daemon.poll() is not None:
                raise AssertionError(f"mithermd ended with {self.daemon.returncode}")
            return self.ctl("list", expect=None).code == 0
        self.until(owned)

    def stop_daemon(self, sig=signal.SIGTERM):
        code = self.stop(self.daemon, sig)
        self.daemon = None
        return code

    def until(self, holds, limit=LIMIT_S):
        until, pause = time.monotonic() + limit, 0.02
        while not holds():
            assert time.monotonic() < until, f"does not hold within {limit} s"
            time.sleep(pause)
            pause = min(1.5 * pause, 0.25)

    def control(self, **line):
        self.sim.stdin.write(json.dumps(line) + "\n")
        self.sim.stdin.flush()

    def device_state(self, address):
        """The simulated thermometer's own view."""
        self.control(device=address, do="state")
        return self.lines.wait(lambda line: line.get("device") == address and "state" in line)["state"]

    def wait_event(self, address, event):
        def wanted(line):
            if line.get("device") != address:
                return False
            return line.get("event") == event or any(e.get("event") == event for e in line.get("events") or [])
        return self.lines.wait(wanted)

    def command(self, *args):
        return [str(BUILD / "cli" / "mithermctl"), f"--bus={self.bus}", *[str(a) for a in args]]

    def ctl(self, *args, expect=0, data=None):
        """Runs mithermctl to its end. expect: its exit status, None: any."""
        command = self.command(*args)
        done = subprocess.run(command, capture_output=True, text=True, env=self.env, timeout=300, input=data,
                              check=False)
        result = Result(command, done.returncode, done.stdout, done.stderr)
        assert expect is None or done.returncode == expect, f"expected exit status {expect}\n{result}"
        assert "Sanitizer" not in done.stderr, str(result)
        return result

    def ctl_start(self, *args):
        child = subprocess.Popen(self.command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env=self.env)
        self.children.append(child)
        return child

    def known(self, *addresses):
        """Waits until the daemon knows these thermometers."""
        def all_known():
            listed = {d["Address"] for d in self.ctl("--json", "list").json()[0]}
            return set(addresses) <= listed
        self.until(all_known)

    def info(self, address):
        return self.ctl("--json", "info", address).json()[0]

    def file(self, name, data):
        path = self.dir / name
        path.write_bytes(data)
        return path

    def gdbus(self, *args, expect=0):
        command = ["gdbus", "call", f"--address={self.bus}", "--dest=org.mitherm", *args]
        done = subprocess.run(command, capture_output=True, text=True, env=self.env, timeout=60, check=False)
        result = Result(command, done.returncode, done.stdout, done.stderr)
        assert expect is None or done.returncode == expect, str(result)
        return result

    def key_files(self):
        return sorted((self.state / "keys").glob("*.conf")) if (self.state / "keys").is_dir() else []


def main(cases):
    """Runs the case named on the command line."""
    import sys
    name = sys.argv[1]
    if name == "--list":
        print("\n".join(cases))
        return 0
    try:
        cases[name]()
    except Skip as reason:
        print(f"SKIP: {reason}")
        return 77
    return 0
