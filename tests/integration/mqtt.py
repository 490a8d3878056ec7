#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""mitherm-mqtt between a real mosquitto and the bus: mqtt.py NAME runs one case."""

import datetime
import json
import os
import pathlib
import pwd
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import cases
import harness
from cloud_service import make_authority
from harness import BUILD, TOP, World

A, B = "A4:C1:38:00:00:01", "A4:C1:38:00:00:02"
ID_A, ID_B = "a4c138000001", "a4c138000002"
BRIDGE_TOPIC = "mitherm/bridge/availability"
DEVICE, SENSOR, JOB = "org.mitherm.Device1", "org.mitherm.Sensor1", "org.mitherm.Job1"
JOB_PATH = "/org/mitherm/job/1"
# Some waits of the bridge are longer than a test likes: the birth's 10 s, the grace's 15 s.
LIMIT_S = 60
CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def path_of(address):
    return "/org/mitherm/device/" + address.replace(":", "_")


def topic(device, name):
    return f"mitherm/{device}/{name}"


def config_topic(device, prefix="homeassistant"):
    return f"{prefix}/device/mitherm_{device}/config"


class Desk(World):
    """A private bus with a puppet for a daemon, a broker and somebody who listens to it."""

    def __init__(self, devices=None, **options):
        super().__init__(devices, start=False, **options)
        self.mock = self.broker = self.bridge = self.listener = None
        # Memory that a sanitizer holds back would look like a leak; hundreds of thermometers are slow enough.
        self.env["ASAN_OPTIONS"] = ":".join([self.env.get("ASAN_OPTIONS", "detect_leaks=1"), "quarantine_size_mb=1",
                                             "fast_unwind_on_malloc=1"])
        self.broker_lines = ["allow_anonymous true"]
        self.client_args = []
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]

    # --- the broker ---

    def start_broker(self, listen=True):
        conf = self.dir / "mosquitto.conf"
        conf.write_text("\n".join([f"listener {self.port} 127.0.0.1", f"user {pwd.getpwuid(os.geteuid()).pw_name}",
                                   *self.broker_lines, ""]))
        self.broker = self.spawn("broker", [self.mosquitto(), "-c", conf], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL)

        def answers():
            assert self.broker.poll() is None, "mosquitto ended"
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            except OSError:
                return False
        self.until(answers)
        if listen:
            self.listen()

    @staticmethod
    def mosquitto():
        for path in ("/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"):
            if pathlib.Path(path).exists():
                return path
        raise AssertionError("mosquitto is not installed")

    def stop_broker(self):
        self.stop(self.broker)
        self.broker = None

    def listen(self):
        self.listener = self.spawn("listener", [
            "mosquitto_sub", *self.client(), "-t", "#", "-F", "%j", "-q", "1"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE)
        self.heard = harness.Lines(self.listener)
        self.publish("test/ready", "go")
        # Until the subscription stands, what is published is not heard.
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                self.heard.wait(lambda m: m["topic"] == "test/ready", limit=0.5)
                return
            except AssertionError:
                assert time.monotonic() < deadline, "the broker tells nothing"
                self.publish("test/ready", "go")

    def client(self):
        return ["-h", "127.0.0.1", "-p", str(self.port), *self.client_args]

    def publish(self, to, payload, *more):
        subprocess.run(["mosquitto_pub", *self.client(), "-t", to, "-m", payload, "-q", "1", *more], check=True,
                       timeout=60)

    def hear(self, wanted_topic, wanted=lambda payload: True, limit=LIMIT_S):
        """The next message on the topic whose payload (parsed, if JSON) is wanted."""
        def holds(message):
            return message["topic"] == wanted_topic and wanted(self.parse(message))
        return self.parse(self.heard.wait(holds, limit))

    @staticmethod
    def parse(message):
        text = message["payload"] or ""
        try:
            return json.loads(text)
        except ValueError:
            return text

    def retained(self):
        """Everything that a new subscriber is told, by topic."""
        command = ["mosquitto_sub", *self.client(), "-t", "#", "-F", "%j", "--retained-only", "-W", "1"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except subprocess.TimeoutExpired:  # its alarm came at a bad moment
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return {m["topic"]: self.parse(m) for m in map(json.loads, done.stdout.splitlines())}

    def becomes_retained(self, wanted_topic, value, limit=LIMIT_S):
        self.until(lambda: self.retained().get(wanted_topic) == value, limit)

    # --- the daemon's stand-in ---

    def start_mock(self):
        xml = sorted((TOP / "dbus").glob("org.mitherm.*.xml"))
        if "UpdateVersion" not in (TOP / "dbus" / f"{DEVICE}.xml").read_text():
            more = self.dir / "more.xml"
            more.write_text(f'<node><interface name="{DEVICE}"><property name="UpdateVersion" type="s" '
                            'access="read"/></interface></node>')
            xml.append(more)
        self.mock = self.spawn("mock", [BUILD / "tests" / "integration" / "mock-mitherm", self.bus, *xml],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.mock_lines = harness.Lines(self.mock)

    def tell(self, **line):
        self.mock.stdin.write(json.dumps(line) + "\n")
        self.mock.stdin.flush()

    def own(self):
        self.tell(do="own")
        self.mock_lines.wait(lambda line: line["event"] == "owned")

    def device(self, address=A, **properties):
        self.tell(do="set", path=path_of(address), interface=DEVICE, properties=properties)

    def add(self, address=A, **properties):
        """A thermometer with everything that the daemon would tell."""
        self.device(address, **{"Address": address, "Name": "LYWSD03MMC", "Model": "LYWSD03MMC", "Hardware": "B1.9",
                                "Firmware": "1.0.0_0130", "UpdateVersion": "", "HasKeys": True, "Rssi": -60,
                                "LastSeen": int(time.time() * 1e6), "Job": "/"} | properties)

    def sensor(self, address=A, **properties):
        self.tell(do="set", path=path_of(address), interface=SENSOR, properties=properties)

    def job(self, number=1, **properties):
        self.tell(do="set", path=f"/org/mitherm/job/{number}", interface=JOB, properties=properties)

    def start_job(self, address=A, kind="update", number=1):
        self.job(number, Kind=kind, Device=path_of(address), State="connecting", Progress=0.0, Error="",
                 ErrorMessage="")
        self.device(address, Job=f"/org/mitherm/job/{number}")

    def end_job(self, address=A, number=1, state="done", message=""):
        self.job(number, State=state, ErrorMessage=message, Progress=1.0)
        self.device(address, Job="/")

    def called(self, method, limit=LIMIT_S):
        return self.mock_lines.wait(lambda line: line["event"] == "call" and line["detail"] == method, limit)

    def calls_so_far(self):
        """All method calls until now, after a question that the mock answers in order."""
        self.tell(do="disown")
        self.own()
        return self.mock_calls()

    def mock_calls(self):
        """Method calls that have been told until now."""
        while not self.mock_lines.lines.empty():
            self.mock_lines.wait(lambda line: True)
        return [line["detail"] for line in self.mock_lines.seen if line["event"] == "call"]

    # --- the bridge ---

    def start_bridge(self, *broker_lines, prefix=None):
        conf = self.dir / "mqtt.conf"
        conf.write_text("\n".join(["[broker]", f"Port={self.port}", "Host=127.0.0.1", *broker_lines,
                                   *(["[discovery]", f"Prefix={prefix}"] if prefix else []), ""]))
        self.bridge = self.spawn("bridge", [BUILD / "bridge" / "mitherm-mqtt", f"--bus={self.bus}",
                                            f"--config={conf}", "--verbose"], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL)

    def log(self):
        path = self.dir / "bridge.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logged(self, text, limit=LIMIT_S):
        self.until(lambda: text in self.log(), limit)

    def memory(self):
        """KiB that the bridge holds now, without what only files back."""
        for line in pathlib.Path(f"/proc/{self.bridge.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
        raise AssertionError("no RssAnon")

    def install(self, device=ID_A):
        self.publish(topic(device, "update/set"), "install")

    def begin(self, *addresses, **properties):
        """Broker, daemon and bridge with these thermometers."""
        self.start_broker()
        self.start_mock()
        self.own()
        for address in addresses:
            self.add(address, **properties)
        self.start_bridge()
        # In any order: broker and bus are found at the same time.
        waited = {topic(address.replace(":", "").lower(), "state") for address in addresses} | {BRIDGE_TOPIC}
        while waited:
            waited.discard(self.heard.wait(lambda m: m["topic"] in waited)["topic"])


UPDATABLE = {"UpdateVersion": "2.1.1_0159"}


@case
def two_thermometers_are_discovered():
    with Desk() as desk:
        desk.begin(A)
        desk.add(B, Name="ATC_000002", Hardware="")
        desk.hear(config_topic(ID_B))
        desk.hear(topic(ID_B, "problem"))
        retained = desk.retained()
        for device, address in ((ID_A, A), (ID_B, B)):
            config = retained[config_topic(device)]
            assert config["dev"]["ids"] == [f"mitherm_{device}"], config
            assert config["dev"]["cns"] == [["bluetooth", address]], config
            assert config["o"]["name"] == "mitherm" and config["availability_mode"] == "all", config
            assert [a["topic"] for a in config["availability"]] == [BRIDGE_TOPIC, topic(device, "availability")]
            assert set(config["cmps"]) == {"temperature", "humidity", "battery", "voltage", "rssi", "last_seen",
                                           "firmware", "clock", "problem"}, config
            assert retained[topic(device, "availability")] == "online"
        assert retained[BRIDGE_TOPIC] == "online"
        assert retained[config_topic(ID_A)]["dev"]["name"] != retained[config_topic(ID_B)]["dev"]["name"]
        assert "hw" not in retained[config_topic(ID_B)]["dev"]


@case
def another_prefix_is_used():
    with Desk() as desk:
        desk.start_broker()
        desk.start_mock()
        desk.own()
        desk.add()
        desk.start_bridge(prefix="house/discovery/")
        desk.hear(config_topic(ID_A, "house/discovery"))
        assert config_topic(ID_A) not in desk.retained()


@case
def measurements_become_states():
    with Desk() as desk:
        desk.begin(A)
        desk.sensor(Temperature=21.3, Humidity=45.5, Battery=77, Voltage=2.9, KeyState="ok", Stale=False)
        state = desk.hear(topic(ID_A, "state"), lambda p: p and "temperature" in p)
        assert (state["temperature"], state["humidity"], state["battery"], state["voltage"]) == (21.3, 45.5, 77, 2.9)
        assert state["rssi"] == -60 and state["last_seen"].endswith("+00:00"), state
        desk.tell(do="signal", path=path_of(A), interface=SENSOR, name="Measurement",
                  values={"temperature": -4.25, "rssi": -71, "battery": 76})
        state = desk.hear(topic(ID_A, "state"), lambda p: p["temperature"] == -4.25)
        assert state["humidity"] == 45.5 and state["rssi"] == -71 and state["battery"] == 76, state
        assert desk.retained()[topic(ID_A, "state")] == state
        desk.sensor(Stale=True)
        state = desk.hear(topic(ID_A, "state"), lambda p: "temperature" not in p)
        assert "last_seen" in state and "humidity" not in state, state


@case
def states_come_at_most_once_a_second():
    with Desk() as desk:
        desk.begin(A)
        for i in range(200):
            desk.sensor(Temperature=i / 10, Humidity=50.0, Battery=77, Voltage=2.9, KeyState="ok", Stale=False)
        desk.hear(topic(ID_A, "state"), lambda p: p and p.get("temperature") == 19.9)
        times = [m["tst"] for m in desk.heard.seen if m["topic"] == topic(ID_A, "state")]
        assert len(times) <= 5, times


@case
def a_stolen_key_and_a_low_battery_are_problems():
    with Desk() as desk:
        desk.begin(A)
        assert desk.retained()[topic(ID_A, "problem")]["problem"] == "OFF"
        desk.sensor(Temperature=21.3, Humidity=45.5, Battery=77, Voltage=2.9, KeyState="mismatch", Stale=False)
        problem = desk.hear(topic(ID_A, "problem"), lambda p: p["problem"] == "ON")
        assert problem["key_mismatch"] is True and problem["low_battery"] is False, problem
        desk.sensor(KeyState="ok", Battery=9)
        problem = desk.hear(topic(ID_A, "problem"), lambda p: p["low_battery"])
        assert problem["problem"] == "ON" and problem["key_mismatch"] is False, problem
        desk.sensor(Battery=12)
        desk.sensor(Battery=90)
        assert desk.hear(topic(ID_A, "problem"), lambda p: not p["low_battery"])["problem"] == "OFF"


@case
def an_update_is_offered_run_once_and_shown():
    with Desk() as desk:
        desk.begin(A, **UPDATABLE)
        assert desk.retained()[topic(ID_A, "update")] == {
            "installed_version": "1.0.0_0130", "latest_version": "2.1.1_0159", "title": "LYWSD03MMC firmware",
            "release_summary": "", "in_progress": False, "update_percentage": None}
        desk.tell(do="answer", method="UpdateFromCatalog", path=JOB_PATH)
        for _ in range(3):
            desk.install()
        desk.called("UpdateFromCatalog")
        desk.hear(topic(ID_A, "update"), lambda p: p["in_progress"])
        desk.start_job()
        for i in range(101):
            desk.job(State="uploading", Progress=i / 100)
            time.sleep(0.025)
        desk.install()
        desk.hear(topic(ID_A, "update"), lambda p: p["update_percentage"] == 100)
        desk.logged("busy 1")
        desk.device(Firmware="2.1.1_0159", UpdateVersion="")
        desk.end_job()
        end = desk.hear(topic(ID_A, "update"), lambda p: not p["in_progress"])
        assert end["update_percentage"] is None and end["installed_version"] == "2.1.1_0159", end
        assert end["latest_version"] == "2.1.1_0159", end
        shown = [m for m in desk.heard.seen if m["topic"] == topic(ID_A, "update")]
        percents = [desk.parse(m)["update_percentage"] for m in shown]
        numbers = [p for p in percents if p is not None]
        assert numbers == sorted(numbers) and 2 <= len(numbers) <= 8, percents
        desk.install()
        desk.logged("nothing-to-install 1")
        assert desk.calls_so_far().count("UpdateFromCatalog") == 1
        assert desk.retained()[topic(ID_A, "update")] == end
        desk.stop(desk.bridge)
        last = [line for line in desk.log().splitlines() if "ignored messages" in line][-1]
        assert "busy 3" in last and "nothing-to-install 1" in last, last


@case
def a_refused_update_says_why():
    with Desk() as desk:
        desk.begin(A, **UPDATABLE)
        desk.tell(do="answer", method="UpdateFromCatalog", error="org.mitherm.Error.NoKeys")
        desk.install()
        problem = desk.hear(topic(ID_A, "problem"), lambda p: p["last_error"])
        assert problem["last_error"] == "the mock refuses", problem
        desk.becomes_retained(topic(ID_A, "update"), {
            "installed_version": "1.0.0_0130", "latest_version": "2.1.1_0159", "title": "LYWSD03MMC firmware",
            "release_summary": "The last update did not succeed: the mock refuses",
            "in_progress": False, "update_percentage": None})


@case
def a_failed_update_says_why():
    with Desk() as desk:
        desk.begin(A, **UPDATABLE)
        desk.tell(do="answer", method="UpdateFromCatalog", path=JOB_PATH)
        desk.install()
        desk.called("UpdateFromCatalog")
        desk.start_job()
        desk.hear(topic(ID_A, "update"), lambda p: p["in_progress"])
        desk.end_job(state="failed", message="The link was lost.")
        desk.hear(topic(ID_A, "update"), lambda p: not p["in_progress"])
        assert desk.hear(topic(ID_A, "problem"), lambda p: p["last_error"])["last_error"] == "The link was lost."
        desk.install()
        desk.called("UpdateFromCatalog")


@case
def a_job_that_goes_away_has_failed():
    """Whatever was told of it before: how far it was, or nothing at all."""
    for known in ({"State": "uploading", "Progress": 0.5}, {"Kind": "update"}):
        with Desk() as desk:
            desk.begin(A, **UPDATABLE)
            desk.tell(do="answer", method="UpdateFromCatalog", path=JOB_PATH)
            desk.job(**known)
            desk.install()
            desk.called("UpdateFromCatalog")
            desk.logged("install: started")
            desk.tell(do="remove", path=JOB_PATH)
            problem = desk.hear(topic(ID_A, "problem"), lambda p: p["last_error"])
            assert problem["last_error"] == "The job went away before it ended.", problem
            assert desk.retained()[topic(ID_A, "update")]["in_progress"] is False


@case
def a_daemon_without_catalogue_offers_nothing():
    with Desk() as desk:
        desk.start_broker()
        desk.start_mock()
        desk.own()
        desk.device(Address=A, Model="LYWSD03MMC", Firmware="1.0.0_0130", HasKeys=True, Job="/")
        desk.start_bridge()
        update = desk.hear(topic(ID_A, "update"), lambda p: p != "")
        assert update["installed_version"] == update["latest_version"] == "1.0.0_0130", update
        desk.install()
        desk.logged("nothing-to-install 1")


@case
def the_clock_is_set_by_a_press():
    with Desk() as desk:
        desk.begin(A, B)
        desk.tell(do="answer", method="SetClock", path=JOB_PATH)
        desk.publish(topic(ID_B, "clock/set"), "PRESS")
        assert desk.called("SetClock")["path"] == path_of(B)
        assert desk.retained()[topic(ID_B, "update")]["in_progress"] is False


@case
def everything_is_told_again_after_a_broker_restart():
    with Desk() as desk:
        desk.begin(A, **UPDATABLE)
        before = desk.retained()
        desk.stop_broker()
        desk.stop(desk.listener)
        desk.device(Firmware="1.0.0_0131")
        desk.start_broker()
        desk.hear(BRIDGE_TOPIC, lambda p: p == "online")
        after = desk.retained()
        assert set(after) == set(before), (before, after)
        assert after[topic(ID_A, "update")]["installed_version"] == "1.0.0_0131", after
        desk.tell(do="answer", method="UpdateFromCatalog", path=JOB_PATH)
        desk.install()
        desk.called("UpdateFromCatalog")
        assert desk.calls_so_far().count("UpdateFromCatalog") == 1


@case
def a_press_while_the_link_to_the_broker_is_cut_is_not_lost():
    with Desk() as desk:
        desk.begin(A, **UPDATABLE)
        desk.tell(do="answer", method="UpdateFromCatalog", path=JOB_PATH)
        # Stopped, the bridge answers nothing; the broker keeps the press for its session.
        desk.bridge.send_signal(signal.SIGSTOP)
        desk.install()
        desk.bridge.send_signal(signal.SIGCONT)
        desk.called("UpdateFromCatalog")
        assert desk.calls_so_far().count("UpdateFromCatalog") == 1


class Cable:
    """A TCP connection to the broker that can be cut."""

    def __init__(self, port):
        self.target, self.server, self.pairs = port, None, []
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        self.plug()

    def plug(self):
        self.server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, args=(self.server,), daemon=True).start()

    def accept(self, server):
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.target))
            self.pairs += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(a, b), daemon=True).start()

    @staticmethod
    def carry(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass

    def cut(self):
        for s in (self.server, *self.pairs):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
        self.pairs.clear()


@case
def a_press_while_the_connection_is_broken_runs_once():
    with Desk() as desk:
        desk.start_broker()
        desk.start_mock()
        desk.own()
        desk.add(**UPDATABLE)
        cable = Cable(desk.port)
        desk.start_bridge(f"Port={cable.port}")
        # From then on the bridge knows what was kept for an earlier one.
        desk.logged("connected to the broker")
        desk.tell(do="answer", method="UpdateFromCatalog", path=JOB_PATH)
        cable.cut()
        desk.hear(BRIDGE_TOPIC, lambda p: p == "offline")
        desk.install()
        desk.install()
        desk.device(Firmware="1.0.0_0131")
        cable.plug()
        desk.called("UpdateFromCatalog")
        desk.hear(BRIDGE_TOPIC, lambda p: p == "online")
        desk.start_job()
        desk.end_job(state="failed", message="The link was lost.")
        desk.hear(topic(ID_A, "problem"), lambda p: p["last_error"])
        # One that the broker kept is no second press, though the first has ended.
        cable.cut()
        desk.hear(BRIDGE_TOPIC, lambda p: p == "offline")
        desk.install()
        cable.plug()
        desk.logged("duplicate 1")
        cable.cut()
        assert desk.calls_so_far() == ["UpdateFromCatalog"]
        assert desk.retained()[topic(ID_A, "update")]["installed_version"] == "1.0.0_0131"


@case
def a_press_from_before_the_bridge_is_not_run():
    with Desk() as desk:
        desk.begin(A, **UPDATABLE)
        desk.stop(desk.bridge)
        desk.hear(BRIDGE_TOPIC, lambda p: p == "offline")
        desk.install()
        desk.start_bridge()
        desk.hear(BRIDGE_TOPIC, lambda p: p == "online")
        desk.logged("old 1")
        assert "UpdateFromCatalog" not in desk.calls_so_far()


@case
def a_daemon_restart_takes_nothing_away():
    with Desk() as desk:
        desk.begin(A, **UPDATABLE)
        before = desk.retained()
        desk.stop(desk.mock)
        desk.hear(topic(ID_A, "availability"), lambda p: p == "offline")
        desk.install()
        desk.hear(topic(ID_A, "update"), lambda p: p["in_progress"])
        desk.start_mock()
        desk.tell(do="answer", method="UpdateFromCatalog", path=JOB_PATH)
        desk.add(**UPDATABLE)
        desk.own()
        desk.called("UpdateFromCatalog")
        desk.start_job()
        desk.end_job()
        desk.hear(topic(ID_A, "availability"), lambda p: p == "online")
        desk.hear(topic(ID_A, "update"), lambda p: not p["in_progress"])
        assert set(desk.retained()) == set(before)
        assert desk.calls_so_far().count("UpdateFromCatalog") == 1


@case
def a_daemon_that_dies_before_it_has_told_everything_is_gone():
    with Desk() as desk:
        desk.start_broker()
        desk.start_mock()
        desk.tell(do="answer", method="GetManagedObjects", error="org.freedesktop.DBus.Error.Failed")
        desk.own()
        desk.start_bridge()
        desk.logged("does not tell its thermometers")
        desk.add(A)
        desk.add(B)
        for device in (ID_A, ID_B):
            desk.hear(topic(device, "availability"), lambda p: p == "online")
        desk.stop(desk.mock)
        for _ in range(2):
            desk.heard.wait(lambda m: m["topic"].endswith("/availability") and m["payload"] == "offline", LIMIT_S)
        # The next one knows only one of them.
        desk.start_mock()
        desk.add(A)
        desk.own()
        desk.hear(topic(ID_A, "availability"), lambda p: p == "online")
        assert desk.retained()[topic(ID_B, "availability")] == "offline"


@case
def a_daemon_that_does_not_tell_its_thermometers_is_one_line():
    with Desk() as desk:
        desk.start_mock()
        desk.tell(do="answer", method="GetManagedObjects", error="org.freedesktop.DBus.Error.AccessDenied")
        desk.own()
        desk.start_bridge()
        desk.until(lambda: len([line for line in desk.mock_calls() if line == "GetManagedObjects"]) >= 3)
        assert desk.log().count("does not tell its thermometers") == 1, desk.log()


@case
def a_daemon_that_dies_during_an_update_ends_it():
    with Desk() as desk:
        desk.begin(A, **UPDATABLE)
        desk.tell(do="answer", method="UpdateFromCatalog", path=JOB_PATH)
        desk.install()
        desk.called("UpdateFromCatalog")
        desk.start_job()
        desk.job(State="uploading", Progress=0.4)
        desk.hear(topic(ID_A, "update"), lambda p: p["update_percentage"] == 40)
        desk.stop(desk.mock)
        desk.hear(topic(ID_A, "update"), lambda p: not p["in_progress"])
        assert desk.retained()[topic(ID_A, "problem")]["last_error"]
        desk.start_mock()
        desk.add(**UPDATABLE)
        desk.own()
        desk.hear(topic(ID_A, "availability"), lambda p: p == "online")
        assert "UpdateFromCatalog" not in desk.calls_so_far()


def nothing_of(desk, device):
    return not [t for t in desk.retained() if device in t]


@case
def forgotten_thermometers_lose_their_entities():
    with Desk() as desk:
        desk.begin(A, B)
        desk.device(A, HasKeys=False)
        desk.hear(config_topic(ID_A), lambda p: p == "")
        desk.until(lambda: nothing_of(desk, ID_A))
        # Still heard, but not wanted.
        desk.device(A, LastSeen=int(time.time() * 1e6), Rssi=-50)
        desk.device(B, Rssi=-50, Firmware="1.0.0_0140")
        desk.hear(topic(ID_B, "update"), lambda p: p["installed_version"] == "1.0.0_0140")
        assert nothing_of(desk, ID_A)
        assert config_topic(ID_B) in desk.retained()
        desk.device(A, HasKeys=True)
        desk.hear(config_topic(ID_A), lambda p: p != "")


@case
def a_keyed_thermometer_that_leaves_the_bus_is_removed():
    with Desk() as desk:
        desk.begin(A, B)
        desk.tell(do="remove", path=path_of(A))
        desk.hear(topic(ID_A, "availability"), lambda p: p == "offline")
        desk.hear(config_topic(ID_A), lambda p: p == "")
        desk.until(lambda: nothing_of(desk, ID_A))
        assert config_topic(ID_B) in desk.retained()


@case
def an_unheard_thermometer_keeps_its_entities():
    with Desk() as desk:
        desk.begin(A, B, HasKeys=False)
        desk.tell(do="remove", path=path_of(A))
        desk.hear(topic(ID_A, "availability"), lambda p: p == "offline")
        desk.add(A, HasKeys=False)
        desk.hear(topic(ID_A, "availability"), lambda p: p == "online")
        assert config_topic(ID_A) in desk.retained()
    with Desk() as desk:
        desk.begin(A, LastSeen=int((time.time() - 3600) * 1e6))
        assert desk.retained()[topic(ID_A, "availability")] == "offline"


@case
def forgotten_while_the_bridge_was_away_is_removed():
    with Desk() as desk:
        desk.begin(A, B)
        desk.add("A4:C1:38:00:00:03", HasKeys=False)
        desk.hear(topic("a4c138000003", "problem"))
        desk.stop(desk.bridge)
        desk.tell(do="remove", path=path_of(A))
        desk.tell(do="remove", path=path_of("A4:C1:38:00:00:03"))
        desk.start_bridge()
        desk.hear(config_topic(ID_A), lambda p: p == "")
        desk.until(lambda: nothing_of(desk, ID_A))
        retained = desk.retained()
        assert config_topic(ID_B) in retained
        # Never had keys, is only not heard now.
        assert config_topic("a4c138000003") in retained
        assert retained[topic("a4c138000003", "availability")] == "offline"


@case
def a_clock_that_was_ahead_does_not_stay_ahead():
    with Desk() as desk:
        desk.begin(A, LastSeen=int((time.time() + 86400) * 1e6))
        now = int(time.time())
        desk.device(LastSeen=(now - 3600) * 1_000_000)
        seen = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(now - 3600))
        # A time alone comes within a minute; a change brings it along.
        desk.sensor(Temperature=21.0, Humidity=45.0, Battery=77, Voltage=2.9, KeyState="ok", Stale=True)
        desk.hear(topic(ID_A, "state"), lambda p: p.get("last_seen") == seen)
        desk.becomes_retained(topic(ID_A, "availability"), "offline")


@case
def a_thermometer_that_comes_back_without_values_has_none():
    with Desk() as desk:
        desk.begin(A, HasKeys=False)
        desk.sensor(Temperature=21.3, Humidity=45.5, Battery=77, Voltage=2.9, KeyState="ok", Stale=False)
        desk.hear(topic(ID_A, "state"), lambda p: "temperature" in p)
        desk.tell(do="remove", path=path_of(A))
        desk.hear(topic(ID_A, "availability"), lambda p: p == "offline")
        desk.add(A, HasKeys=False)
        desk.hear(topic(ID_A, "availability"), lambda p: p == "online")
        state = desk.hear(topic(ID_A, "state"), lambda p: "temperature" not in p)
        assert not {"humidity", "voltage", "battery"} & set(state), state
        desk.sensor(Temperature=20.5, Humidity=45.5, Battery=77, Voltage=2.9, KeyState="ok", Stale=False)
        desk.hear(topic(ID_A, "state"), lambda p: p.get("temperature") == 20.5)


@case
def a_birth_message_makes_it_tell_everything_again():
    with Desk() as desk:
        desk.begin(A)
        desk.sensor(Temperature=21.3, Humidity=45.5, Battery=77, Voltage=2.9, KeyState="ok", Stale=False)
        desk.hear(topic(ID_A, "state"), lambda p: "temperature" in p)
        desk.publish("homeassistant/status", "offline")
        desk.publish("homeassistant/status", "online")
        desk.publish("homeassistant/status", "online")
        desk.hear("homeassistant/status", lambda p: p == "online")
        seen = len(desk.heard.seen)
        for wanted in (config_topic(ID_A), topic(ID_A, "availability"), topic(ID_A, "update"),
                       topic(ID_A, "problem"), topic(ID_A, "state"), BRIDGE_TOPIC):
            desk.hear(wanted, lambda p: p != "", limit=30)
        names = [m["topic"] for m in desk.heard.seen[seen:]]
        assert names.count(config_topic(ID_A)) == 1, names
        assert names.index(config_topic(ID_A)) < names.index(topic(ID_A, "state")), names


@case
def a_wrong_password_is_told_and_tried_again():
    with Desk() as desk:
        passwords = desk.dir / "passwords"
        passwords.touch(0o600)
        subprocess.run(["mosquitto_passwd", "-b", passwords, "bridge", "s3cret:word"], check=True,
                       capture_output=True)
        desk.broker_lines = ["allow_anonymous false", f"password_file {passwords}"]
        desk.client_args = ["-u", "bridge", "-P", "s3cret:word"]
        user_file = desk.file("user", b"bridge:wr0ng\n")
        user_file.chmod(0o640)
        desk.start_broker()
        desk.start_mock()
        desk.own()
        desk.add()
        desk.start_bridge(f"UserFile={user_file}")
        desk.logged("user and password are wrong")
        assert desk.log().count("WARNING") == 1 and "wr0ng" not in desk.log(), desk.log()
        desk.stop(desk.bridge)
        user_file.write_text("bridge:s3cret:word\n")
        desk.start_bridge(f"UserFile={user_file}")
        desk.hear(config_topic(ID_A))
        desk.stop(desk.bridge)
        user_file.write_text("bridge\ns3cret:word\n")
        desk.start_bridge(f"UserFile={user_file}")
        desk.hear(BRIDGE_TOPIC, lambda p: p == "online")
        assert "s3cret" not in desk.log()


@case
def a_user_file_for_everybody_is_refused():
    with Desk() as desk:
        user_file = desk.file("user", b"bridge:secret\n")
        for mode, line, complaint in ((0o644, f"UserFile={user_file}", "everybody"),
                                      (0o600, f"UserFile={desk.dir}/none", "No such file"),
                                      (0o600, f"UserFile={desk.dir}", "must be a file"),
                                      (0o600, "Port=70000", "65535"), (0o600, "Hots=localhost", "Hots"),
                                      (0o600, f"CAFile={user_file}", "TLS")):
            user_file.chmod(mode)
            desk.start_bridge(line)
            desk.until(lambda: desk.bridge.poll() is not None)
            assert desk.bridge.returncode == 2 and complaint in desk.log(), (line, desk.log())
            desk.stop(desk.bridge)


@case
def tls_with_an_own_authority():
    with Desk() as desk:
        ca, server = make_authority(desk.dir, "broker")
        other, _ = make_authority(desk.dir, "other")
        key = desk.dir / "broker.key"
        key.write_bytes(server.read_bytes())
        desk.broker_lines += [f"certfile {server}", f"keyfile {key}"]
        desk.client_args = ["--cafile", str(ca)]
        desk.start_broker()
        desk.start_mock()
        desk.own()
        desk.add()
        desk.start_bridge("TLS=true", f"CAFile={other}")
        desk.logged("certificate verify failed")
        assert BRIDGE_TOPIC not in desk.retained()
        desk.stop(desk.bridge)
        desk.start_bridge("TLS=true", f"CAFile={ca}")
        desk.hear(config_topic(ID_A))
        desk.hear(topic(ID_A, "state"))
        desk.stop(desk.bridge)
        assert desk.retained()[BRIDGE_TOPIC] == "offline"


@case
def tls_checks_the_name_of_the_broker():
    with Desk() as desk:
        ca, server = make_authority(desk.dir, "broker", "DNS:elsewhere")
        key = desk.dir / "broker.key"
        key.write_bytes(server.read_bytes())
        desk.broker_lines += [f"certfile {server}", f"keyfile {key}"]
        desk.start_broker(listen=False)
        desk.start_bridge("TLS=true", f"CAFile={ca}")
        desk.logged("WARNING")
        assert "certificate" in desk.log() and "connected to" not in desk.log(), desk.log()


@case
def garbage_is_ignored_and_counted():
    with Desk() as desk:
        # The broker itself would drop the last, good message on a slow machine.
        desk.broker_lines.append("max_queued_messages 0")
        desk.begin(A, **UPDATABLE)
        memory = desk.memory()
        for name, payload in (("update/set", "INSTALL"), ("update/set", ""), ("update/set", "install\n"),
                              ("update/set", "{}"), ("clock/set", "press"), ("clock/set", "install")):
            desk.publish(topic(ID_A, name), payload)
        desk.publish("mitherm/zzz138000001/update/set", "install")
        desk.publish("mitherm/A4C138000001/update/set", "install")
        desk.publish("mitherm/a4c1380000011/update/set", "install")
        desk.publish(topic(ID_B, "update/set"), "install")
        (desk.dir / "big").write_bytes(b"x" * 60_000_000)
        subprocess.run(["mosquitto_pub", *desk.client(), "-t", topic(ID_A, "update/set"), "-f", desk.dir / "big"],
                       check=True, timeout=120)
        flood = "".join(f"garbage {i}\n" for i in range(20000))
        subprocess.run(["mosquitto_pub", *desk.client(), "-t", topic(ID_A, "clock/set"), "-l"], input=flood,
                       text=True, check=True, timeout=120)
        desk.publish(topic(ID_A, "update/set"), "install")
        desk.called("UpdateFromCatalog")
        assert desk.memory() < memory + 20_000, (memory, desk.memory())
        desk.stop(desk.bridge)
        lines = [line for line in desk.log().splitlines() if "ignored messages" in line]
        assert len(lines) <= 6, lines
        assert "wrong-topic 3" in lines[-1] and "unknown-thermometer 1" in lines[-1], lines
        assert "wrong-payload" in lines[-1], lines
        assert desk.calls_so_far() == ["UpdateFromCatalog"], desk.calls_so_far()


@case
def retained_commands_are_ignored():
    with Desk() as desk:
        desk.start_broker()
        desk.publish(topic(ID_A, "update/set"), "install", "-r")
        desk.publish(topic(ID_A, "clock/set"), "PRESS", "-r")
        desk.start_mock()
        desk.own()
        desk.add(**UPDATABLE)
        desk.start_bridge()
        desk.logged("retained 1")
        desk.stop(desk.bridge)
        assert "retained 2" in desk.log()
        assert desk.calls_so_far() == []


@case
def the_last_will_says_offline():
    with Desk() as desk:
        desk.begin(A)
        assert desk.retained()[BRIDGE_TOPIC] == "online"
        desk.bridge.kill()
        desk.hear(BRIDGE_TOPIC, lambda p: p == "offline")
        assert desk.retained()[BRIDGE_TOPIC] == "offline"
        desk.stop(desk.bridge)
        desk.start_bridge()
        desk.hear(BRIDGE_TOPIC, lambda p: p == "online")
        assert desk.stop(desk.bridge) == 0
        desk.hear(BRIDGE_TOPIC, lambda p: p == "offline")
        assert desk.retained()[BRIDGE_TOPIC] == "offline"


@case
def a_broker_that_comes_later_is_found():
    with Desk() as desk:
        desk.start_mock()
        desk.own()
        desk.add()
        desk.start_bridge()
        desk.logged("Connection refused; next try")
        desk.start_broker()
        desk.hear(config_topic(ID_A))
        assert desk.log().count("WARNING") == 1, desk.log()


class FalseBroker:
    """Answers each connection with the next of the given bytes."""

    def __init__(self, port, answers):
        self.socket = socket.create_server(("127.0.0.1", port))
        self.connections, self.answers = [], list(answers)

    def serve(self):
        for answer in self.answers:
            connection, _ = self.socket.accept()
            self.connections.append(connection)
            connection.recv(4096)
            try:
                connection.sendall(answer)
                if answer:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def close(self):
        for s in (*self.connections, self.socket):
            s.close()


CONNACK = b"\x20\x02\x00\x00"


def publish_packet(to, payload):
    body = len(to).to_bytes(2, "big") + to + payload
    assert len(body) < 128
    return b"\x30" + bytes([len(body)]) + body


@case
def a_broker_that_talks_nonsense_is_left_and_tried_again():
    with Desk() as desk:
        desk.start_mock()
        desk.own()
        desk.add(**UPDATABLE)
        liar = FalseBroker(desk.port, [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            # A message of 256 MB is announced, and never comes.
            CONNACK + b"\x30\xff\xff\xff\x7f" + bytes(100_000),
            # Messages that nobody subscribed to, and a topic with a zero and one that is no UTF-8.
            CONNACK + publish_packet(b"some/where", b"install") + publish_packet(b"", b"x")
            + publish_packet(b"mitherm/\0/update/set", b"install") + publish_packet(b"mitherm/\xff", b"install")])
        desk.start_bridge()
        liar.serve()
        assert desk.memory() < 100_000
        liar.close()
        desk.start_broker()
        desk.hear(config_topic(ID_A))
        assert desk.calls_so_far() == []
        assert desk.log().count("WARNING") <= 4, desk.log()


@case
def a_silent_broker_is_left():
    with Desk() as desk:
        desk.start_mock()
        desk.own()
        desk.add()
        silent = FalseBroker(desk.port, [b""])
        desk.start_bridge()
        silent.serve()
        desk.logged("WARNING", 90)
        silent.close()
        desk.start_broker()
        desk.hear(config_topic(ID_A))


@case
def the_real_daemon_may_be_restarted():
    with Desk(cases.BOUND) as desk:
        desk.start_sim()
        desk.start_daemon()
        desk.known(A)
        cases.give_keys(desk)
        desk.start_broker()
        desk.start_bridge()
        desk.becomes_retained(topic(ID_A, "availability"), "online")
        desk.stop_daemon()
        desk.hear(topic(ID_A, "availability"), lambda p: p == "offline")
        desk.start_daemon()
        desk.hear(topic(ID_A, "availability"), lambda p: p == "online")
        # That nothing happens can only be waited for: the bridge decides within 15 s what was forgotten.
        desk.logged("the daemon is there")
        time.sleep(17)
        assert config_topic(ID_A) in desk.retained()
        assert "" not in [desk.parse(m) for m in desk.heard.seen if m["topic"] == config_topic(ID_A)]


@case
def hundreds_of_thermometers_are_told():
    with Desk() as desk:
        desk.begin()
        for i in range(600):
            desk.add(f"A4:C1:38:00:{i >> 8:02X}:{i & 255:02X}", HasKeys=False)
        desk.logged("too-many-thermometers")
        desk.until(lambda: len([t for t in desk.retained() if t.startswith("homeassistant/")]) == 512)
        desk.until(lambda: len([t for t in desk.retained() if t.endswith("/state")]) == 512)
        # All of them at once are more than may be under way at a time: nothing is left out for that.
        desk.stop_broker()
        desk.stop(desk.listener)
        desk.start_broker()
        desk.becomes_retained(BRIDGE_TOPIC, "online")
        for end in ("/config", "/state", "/update", "/problem"):
            desk.until(lambda e=end: len([t for t in desk.retained() if t.endswith(e)]) == 512)
        assert len([t for t, p in desk.retained().items() if t.endswith("/availability") and p == "online"]) == 513


@case
def strangers_leave_room_and_nothing_behind():
    """Whoever passes by: no more than 512 at a time on the broker, and none in place of one's own."""
    def address(i):
        return f"A4:C1:38:00:{i >> 8:02X}:{i & 255:02X}"

    def configs():
        return {t for t in desk.retained() if t.startswith("homeassistant/")}

    def config_of(i):
        return config_topic(address(i).replace(":", "").lower())
    with Desk() as desk:
        desk.broker_lines.append("max_queued_messages 0")
        desk.begin()
        for i in range(512):
            desk.add(address(i), HasKeys=False)
        desk.until(lambda: len(configs()) == 512)
        desk.tell(do="remove", path=path_of(address(7)))
        desk.add(address(600), HasKeys=False)
        desk.hear(config_of(600), lambda p: p != "")
        desk.hear(config_of(7), lambda p: p == "")
        # One's own takes the place of a stranger who is there.
        desk.add(address(700))
        desk.hear(config_of(700), lambda p: p != "")
        desk.until(lambda: len(configs()) == 512)
        assert config_of(700) in configs()
        # Those of an earlier run stay only where there is room.
        desk.stop(desk.bridge)
        for i in range(100, 120):
            desk.tell(do="remove", path=path_of(address(i)))
            desk.add(address(1000 + i), HasKeys=False)
        desk.start_bridge()
        desk.until(lambda: len(configs()) == 512 and config_of(1119) in configs())
        assert not {config_of(i) for i in range(100, 120)} & configs()
        assert config_of(700) in configs()


@case
def the_real_daemon_is_understood():
    """Activated by import, heard by the simulated radio, then forgotten."""
    with Desk(cases.BOUND) as desk:
        desk.start_sim()
        desk.start_daemon()
        desk.known(A)
        cases.give_keys(desk)
        desk.start_broker()
        desk.start_bridge()
        config = desk.hear(config_topic(ID_A))
        assert config["dev"]["mdl"] == "LYWSD03MMC", config
        desk.becomes_retained(topic(ID_A, "availability"), "online")
        desk.ctl("info", "--read", A)
        desk.hear(topic(ID_A, "update"), lambda p: "0130" in p.get("installed_version", ""))
        desk.gdbus(f"--object-path={path_of(A)}", f"--method={DEVICE}.Forget", "{}")
        desk.hear(config_topic(ID_A), lambda p: p == "")
        desk.until(lambda: nothing_of(desk, ID_A))


class House(Desk):
    """A real daemon with simulated thermometers in place of the puppet."""

    def __enter__(self):
        super().__enter__()
        try:
            self.start_sim()
            self.start_daemon()
            self.start_broker()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def known_with_keys(self, **keys):
        self.known(A)
        cases.give_keys(self, **keys)
        self.ctl("info", "--read", A)

    def catalogue(self, *images):
        folder = self.dir / "firmware"
        folder.mkdir(exist_ok=True)
        for i, data in enumerate(images):
            (folder / f"{i}.bin").write_bytes(data)
        self.ctl("catalog", "add", folder)

    def jobs(self, kind):
        """All of this kind since the daemon's start; a finished one stays for a minute."""
        return [job for job in self.ctl("--json", "jobs").json() if job["Kind"] == kind]

    def shown(self, name="update", device=ID_A):
        """What was published there so far, in order."""
        return [self.parse(m) for m in self.heard.seen if m["topic"] == topic(device, name)]

    def wait_state(self, name, wanted, device=ID_A):
        """Retained now, or published in a while."""
        def holds():
            payload = self.retained().get(topic(device, name))
            return bool(payload) and wanted(payload)
        self.until(holds)
        return self.retained()[topic(device, name)]


SPEAKS = cases.BOUND + "Interval=100\n"
NEW_IMAGE = harness.image(8_004, text="1.0.0_0140")  # 10 s at 20 ms a block


@case
def real_values_are_those_of_the_daemon():
    devices = SPEAKS + f"[{B}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=100\nBattery=70\n"
    with House(devices) as house:
        house.known(A, B)
        cases.give_keys(house)
        house.start_bridge()
        for device, address in ((ID_A, A), (ID_B, B)):
            state = house.wait_state("state", lambda p: {"temperature", "humidity"} <= set(p), device)
            # Encrypted ones bring each value in a frame of its own, some of them only now and then.
            house.wait_state("state", lambda p: "battery" in p, device)
            config = house.retained()[config_topic(device)]
            assert config["dev"]["cns"] == [["bluetooth", address]] and config["o"]["name"] == "mitherm", config
            assert 20 <= state["temperature"] <= 24 and 43 <= state["humidity"] <= 54, state
            assert -100 <= state["rssi"] <= -20, state
            seen = datetime.datetime.fromisoformat(state["last_seen"])
            assert seen.tzinfo is not None, state
            assert abs((datetime.datetime.now(datetime.timezone.utc) - seen).total_seconds()) < 90, state
            assert house.retained()[topic(device, "availability")] == "online"
        state = house.retained()[topic(ID_B, "state")]
        sensor = house.info(B)["Sensor"]
        assert (state["battery"], state["voltage"]) == (70, 2.7), state
        assert (sensor["Battery"], sensor["Voltage"]) == (70, 2.7), sensor
        # Only the values that the thermometer sends.
        assert "voltage" not in house.retained()[topic(ID_A, "state")]


@case
def a_real_catalogue_is_offered_and_installed_with_progress():
    with House(SPEAKS + "Radio=20,1,0\n") as house:
        house.known_with_keys()
        house.start_bridge()
        house.wait_state("update", lambda p: "0130" in p["installed_version"]
                         and p["latest_version"] == p["installed_version"])
        house.catalogue(NEW_IMAGE)
        house.hear(topic(ID_A, "update"), lambda p: p["latest_version"] == "1.0.0_0140")
        for _ in range(3):
            house.install()
        house.hear(topic(ID_A, "update"), lambda p: p["in_progress"])
        end = house.hear(topic(ID_A, "update"), lambda p: not p["in_progress"])
        assert end == {"installed_version": "1.0.0_0140", "latest_version": "1.0.0_0140", "release_summary": "",
                       "title": "LYWSD03MMC firmware", "in_progress": False, "update_percentage": None}, end
        percents = [p["update_percentage"] for p in house.shown() if p["update_percentage"] is not None]
        assert percents == sorted(percents) and len(set(percents)) >= 3 and percents[-1] <= 100, percents
        times = [m["tst"] for m in house.heard.seen if m["topic"] == topic(ID_A, "update")
                 and house.parse(m)["update_percentage"] not in (None, *percents[:1])]
        assert len(times) == len(set(times)), times
        assert house.device_state(A)["version"] == "1.0.0_0140"
        assert len(house.jobs("update")) == 1, house.jobs("update")
        assert house.retained()[topic(ID_A, "problem")]["last_error"] == ""
        assert house.retained()[config_topic(ID_A)]["dev"]["sw"] == "1.0.0_0140"
        house.install()
        house.logged("nothing-to-install 1")


@case
def a_version_that_is_not_known_is_read():
    with House(SPEAKS + f"[{B}]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\nInterval=100\n") as house:
        house.known(A, B)
        house.catalogue(NEW_IMAGE)
        cases.give_keys(house)
        house.start_bridge()
        house.hear(topic(ID_A, "update"), lambda p: p.get("latest_version") == "1.0.0_0140")
        assert len(house.jobs("info")) == 1, house.jobs("info")
        # That one is nobody's.
        assert "installed_version" not in house.retained()[topic(ID_B, "update")]


@case
def a_press_while_a_version_is_read_waits_for_its_end():
    with Desk() as desk:
        desk.begin(A, **UPDATABLE)
        desk.start_job(kind="info")
        desk.tell(do="answer", method="SetClock", path="/org/mitherm/job/2")
        desk.publish(topic(ID_A, "clock/set"), "PRESS")
        desk.logged("set clock: waits")
        assert desk.calls_so_far() == []
        desk.end_job()
        desk.called("SetClock")
        assert desk.calls_so_far() == ["SetClock"]


@case
def a_real_update_that_fails_says_why():
    with House(SPEAKS) as house:
        house.known_with_keys(token="ff" * 12)
        house.catalogue(NEW_IMAGE)
        house.start_bridge()
        house.wait_state("update", lambda p: p["latest_version"] == "1.0.0_0140")
        house.install()
        end = house.hear(topic(ID_A, "update"), lambda p: p["release_summary"])
        problem = house.wait_state("problem", lambda p: p["last_error"])
        assert end["release_summary"] == "The last update did not succeed: " + problem["last_error"], end
        assert house.device_state(A)["version"] == "1.0.0_0130" and len(house.jobs("update")) == 1
        cases.give_keys(house)
        house.install()
        end = house.hear(topic(ID_A, "update"),
                         lambda p: p["installed_version"] == "1.0.0_0140" and not p["in_progress"])
        assert end["release_summary"] == "", end


@case
def a_real_clock_is_set_by_a_press():
    with House(SPEAKS) as house:
        house.known_with_keys()
        house.start_bridge()
        house.hear(topic(ID_A, "problem"))
        house.publish(topic(ID_A, "clock/set"), "PRESS")
        house.logged("set clock: done")
        assert len(house.jobs("clock")) == 1, house.jobs("clock")
        done = house.ctl("--json", "clock", A).json()[-1]
        assert abs(done["Result"]["before"] - time.time()) < 30, done


@case
def a_real_key_that_is_wrong_and_a_low_battery_are_problems():
    devices = SPEAKS + f"[{B}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=100\nBattery=5\n"
    with House(devices) as house:
        house.known(A, B)
        cases.give_keys(house, bind_key="0123456789abcdef0123456789abcdef")
        house.start_bridge()
        problem = house.wait_state("problem", lambda p: p["problem"] == "ON")
        assert problem["key_mismatch"] is True and problem["low_battery"] is False and problem["has_keys"], problem
        state = house.retained()[topic(ID_A, "state")]
        assert not {"temperature", "humidity", "battery", "voltage"} & set(state), state
        problem = house.wait_state("problem", lambda p: p["problem"] == "ON", ID_B)
        assert problem["key_mismatch"] is False and problem["low_battery"] is True, problem
        cases.give_keys(house)
        house.wait_state("problem", lambda p: p["problem"] == "OFF" and not p["key_mismatch"])
        house.wait_state("state", lambda p: "temperature" in p)


@case
def a_real_thermometer_that_is_forgotten_is_gone():
    with House(SPEAKS + f"[{B}]\nModel=LYWSD03MMC\nFirmware=V5.8\nAdvert=pvvx\nInterval=100\n") as house:
        house.known_with_keys()
        house.start_bridge()
        house.wait_state("state", lambda p: "temperature" in p)
        house.ctl("keys", "forget", A)
        house.hear(config_topic(ID_A), lambda p: p == "")
        house.until(lambda: nothing_of(house, ID_A))
        # It goes on speaking and stays away, also after Home Assistant's start.
        house.publish("homeassistant/status", "online")
        house.hear(config_topic(ID_B), limit=30)
        house.hear(BRIDGE_TOPIC)
        assert nothing_of(house, ID_A) and house.info(A)["LastSeen"]
        cases.give_keys(house)
        house.hear(config_topic(ID_A), lambda p: p != "")
        house.wait_state("problem", lambda p: p["has_keys"])


@case
def a_broker_restart_during_a_real_update_repeats_nothing():
    with House(SPEAKS + "Radio=20,1,0\n") as house:
        house.known_with_keys()
        house.catalogue(NEW_IMAGE)
        house.start_bridge()
        house.wait_state("update", lambda p: p["latest_version"] == "1.0.0_0140")
        house.install()
        house.hear(topic(ID_A, "update"), lambda p: (p["update_percentage"] or 0) > 0)
        house.stop_broker()
        house.stop(house.listener)
        house.start_broker()
        end = house.hear(topic(ID_A, "update"),
                         lambda p: p["installed_version"] == "1.0.0_0140" and not p["in_progress"])
        assert end["update_percentage"] is None and end["release_summary"] == "", end
        assert len(house.jobs("update")) == 1, house.jobs("update")
        assert house.device_state(A)["version"] == "1.0.0_0140"


@case
def a_press_while_the_real_daemon_restarts_runs_once():
    with House(SPEAKS) as house:
        house.known_with_keys()
        house.catalogue(NEW_IMAGE)
        house.start_bridge()
        house.wait_state("update", lambda p: p["latest_version"] == "1.0.0_0140")
        house.stop_daemon()
        house.hear(topic(ID_A, "availability"), lambda p: p == "offline")
        house.install()
        house.install()
        house.hear(topic(ID_A, "update"), lambda p: p["in_progress"])
        house.start_daemon()
        end = house.hear(topic(ID_A, "update"),
                         lambda p: p["installed_version"] == "1.0.0_0140" and not p["in_progress"])
        assert end["release_summary"] == "", end
        assert len(house.jobs("update")) == 1, house.jobs("update")
        assert "" not in [house.parse(m) for m in house.heard.seen if m["topic"] == config_topic(ID_A)]


@case
def a_real_daemon_that_is_killed_during_an_update_does_not_begin_again():
    with House(SPEAKS + "Radio=20,1,0\n") as house:
        house.known_with_keys()
        house.catalogue(NEW_IMAGE)
        house.start_bridge()
        house.wait_state("update", lambda p: p["latest_version"] == "1.0.0_0140")
        house.install()
        house.hear(topic(ID_A, "update"), lambda p: (p["update_percentage"] or 0) > 0)
        house.stop_daemon(signal.SIGKILL)
        end = house.hear(topic(ID_A, "update"), lambda p: not p["in_progress"])
        assert "did not succeed" in end["release_summary"], end
        house.start_daemon()
        house.hear(topic(ID_A, "availability"), lambda p: p == "online")
        assert house.jobs("update") == []
        house.install()
        house.hear(topic(ID_A, "update"), lambda p: p["installed_version"] == "1.0.0_0140" and not p["in_progress"])
        assert len(house.jobs("update")) == 1


@case
def a_retained_press_runs_once_however_often_the_bridge_comes_back():
    with House(SPEAKS) as house:
        house.known_with_keys()
        cable = Cable(house.port)
        house.start_bridge(f"Port={cable.port}")
        house.hear(topic(ID_A, "state"))
        house.publish(topic(ID_A, "clock/set"), "PRESS", "-r")
        house.logged("set clock: done")
        for i in (1, 2):
            cable.cut()
            house.hear(BRIDGE_TOPIC, lambda p: p == "offline")
            cable.plug()
            house.hear(BRIDGE_TOPIC, lambda p: p == "online")
            house.until(lambda n=i: house.log().count("connected to the broker") >= n)
        house.stop(house.bridge)
        assert "retained 2" in house.log(), house.log()
        house.start_bridge(f"Port={cable.port}")
        house.hear(BRIDGE_TOPIC, lambda p: p == "online")
        house.stop(house.bridge)
        assert len(house.jobs("clock")) == 1, house.jobs("clock")
        cable.cut()


# Further edges, with the puppet


@case
def the_rules_let_the_bridge_do_what_it_calls():
    """polkit's rules, against the actions that there are and those that the daemon asks for."""
    rules = (TOP / "dbus" / "org.mitherm.rules").read_text()
    actions = set(re.findall(r'<action id="([^"]+)">', (TOP / "dbus" / "org.mitherm.policy").read_text()))
    asked = dict(re.findall(r'{ "(\w+)", "([\w-]+)", \w+ }', (TOP / "daemon" / "mitherm-device.c").read_text()))
    sources = "".join(path.read_text() for path in (TOP / "bridge").glob("*.c"))
    called = set(re.findall(r'"(UpdateFromCatalog|SetClock)"', sources))
    assert called == {"UpdateFromCatalog", "SetClock"} and called <= set(asked), asked
    assert set(re.findall(r'"(org\.mitherm\.[a-z-]+)"', rules)) <= actions, rules
    own, = re.findall(r"\n  if \((.*?)subject.user === .mitherm-mqtt.\)", rules, re.S)
    own = own.rpartition("if (")[2]
    assert set(re.findall(r'"(org\.mitherm\.[a-z-]+)"', own)) == {f"org.mitherm.{asked[m]}" for m in called}, own


@case
def what_nobody_may_do_is_said_in_clear_words():
    with Desk() as desk:
        desk.begin(A, **UPDATABLE)
        for error, words in (("org.mitherm.Error.NotAuthorized", "the mock refuses"),
                             ("org.freedesktop.DBus.Error.AccessDenied", "allow_updates")):
            desk.tell(do="answer", method="UpdateFromCatalog", error=error)
            desk.install()
            update = desk.hear(topic(ID_A, "update"), lambda p, w=words: w in p["release_summary"])
            assert "Updates are not allowed: " in update["release_summary"] and not update["in_progress"], update
        desk.until(lambda: "Updates are not allowed" in desk.retained()[topic(ID_A, "problem")]["last_error"])
        for _ in range(200):
            desk.install()
        desk.stop(desk.bridge)
        lines = [line for line in desk.log().splitlines() if "not allowed" in line]
        assert len(lines) == 2, lines
        assert desk.retained()[topic(ID_A, "problem")]["problem"] == "OFF"


@case
def a_sensor_without_a_value_has_none():
    nothing = {"Humidity": 0.0, "Battery": 255, "Voltage": 0.0, "KeyState": "none", "Stale": False, "Updated": 0}
    with Desk() as desk:
        desk.begin(A, B)
        desk.sensor(A, Temperature=0.0, **nothing)
        desk.sensor(B, Temperature=0.0, **(nothing | {"Battery": 0}))
        desk.device(A, Firmware="1.0.0_0131")
        desk.device(B, Firmware="1.0.0_0131")
        for device in (ID_A, ID_B):
            desk.hear(topic(device, "update"), lambda p: p["installed_version"] == "1.0.0_0131")
        time.sleep(1.5)  # states come once a second
        for device in (ID_A, ID_B):
            state = desk.retained()[topic(device, "state")]
            assert set(state) == {"rssi", "last_seen"}, state
            problem = desk.retained()[topic(device, "problem")]
            assert problem["problem"] == "OFF", problem
        # The same numbers are values once there is a time to them; a voltage of none is still none.
        desk.sensor(B, Temperature=0.0, Humidity=0.0, Battery=0, Updated=int(time.time() * 1e6))
        state = desk.hear(topic(ID_B, "state"), lambda p: "temperature" in p)
        assert (state["temperature"], state["humidity"], state["battery"]) == (0, 0, 0), state
        assert "voltage" not in state, state


@case
def old_presses_in_any_number_are_old():
    """More of them than the broker sends at once, and of the highest quality of service."""
    with Desk() as desk:
        desk.broker_lines.append("max_queued_messages 0")
        desk.begin(A, **UPDATABLE)
        desk.stop(desk.bridge)
        desk.hear(BRIDGE_TOPIC, lambda p: p == "offline")
        subprocess.run(["mosquitto_pub", *desk.client(), "-t", topic(ID_A, "update/set"), "-q", "2", "-l"],
                       input="install\n" * 100, text=True, check=True, timeout=60)
        desk.start_bridge()
        desk.hear(BRIDGE_TOPIC, lambda p: p == "online")
        desk.publish(topic(ID_A, "clock/set"), "PRESS")
        desk.called("SetClock")
        desk.stop(desk.bridge)
        assert desk.calls_so_far() == ["SetClock"]
        assert "old 100" in desk.log(), desk.log()


REFUSES, ENDS = b"\x20\x02\x00\x05", CONNACK


@case
def a_broker_that_refuses_or_throws_out_is_tried_less_and_less_often():
    for answer, words in ((REFUSES, "user and password are wrong"), (ENDS, "connection was lost")):
        with Desk() as desk:
            desk.start_mock()
            desk.own()
            desk.add()
            liar = FalseBroker(desk.port, [answer] * 5)
            desk.start_bridge()
            begin = time.monotonic()
            liar.serve()
            assert time.monotonic() - begin >= 14  # 1 + 2 + 4 + 8 s of waits
            desk.logged(words)
            assert desk.log().count("WARNING") == 1 and "connected to" not in desk.log(), desk.log()
            assert desk.bridge.poll() is None
            liar.close()


@case
def a_broker_that_lets_in_twice_is_one_connection():
    """MQTT 3.1.1 section 3.2: CONNACK comes once; what follows it must not be begun again."""
    with Desk() as desk:
        desk.start_mock()
        desk.own()
        desk.add()
        liar = FalseBroker(desk.port, [CONNACK * 50])
        desk.start_bridge()
        liar.serve()
        desk.logged("next try")
        time.sleep(4)  # what waited for three quiet seconds after each of them would have come
        assert "connected to" not in desk.log(), desk.log()
        assert desk.log().count("the broker has let us in") == 1, desk.log()
        liar.close()


@case
def a_broker_that_throws_out_again_and_again_fills_no_queue():
    """What cannot be written stays with libmosquitto: it counts, and 1024 are the limit."""
    things, tries = 150, 4
    with Desk() as desk:
        desk.start_mock()
        desk.own()
        for i in range(things):
            desk.add(f"A4:C1:38:00:00:{i:02X}")
        desk.broker_lines.append("max_queued_messages 0")
        liar = FalseBroker(desk.port, [])
        desk.start_bridge()
        for _ in range(tries):
            connection, _ = liar.socket.accept()
            connection.recv(4096)
            desk.logged("the daemon is there")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(CONNACK)
            connection.close()  # with a reset: nothing can be written any more
        liar.close()
        desk.start_broker()
        desk.becomes_retained(BRIDGE_TOPIC, "online")
        desk.until(lambda: len([t for t in desk.retained() if t.endswith("/state")]) == things)
        told = desk.log().rpartition("received CONNACK")[2].count("sending PUBLISH")
        # Those that waited, everything once more, and what changes meanwhile.
        assert told <= 1024 + 5 * things + 100, told


@case
def a_refusal_ends_the_bridge_where_that_is_wanted():
    with Desk() as desk:
        liar = FalseBroker(desk.port, [REFUSES])
        conf = desk.file("mqtt.conf", f"[broker]\nHost=127.0.0.1\nPort={desk.port}\n".encode())
        desk.bridge = desk.spawn("bridge", [BUILD / "bridge" / "mitherm-mqtt", f"--bus={desk.bus}", f"--config={conf}",
                                            "--exit-when-refused"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        liar.serve()
        desk.until(lambda: desk.bridge.poll() is not None)
        assert desk.bridge.returncode == 3 and "user and password are wrong" in desk.log(), desk.log()
        liar.close()


if __name__ == "__main__":
    sys.exit(harness.main(CASES))
