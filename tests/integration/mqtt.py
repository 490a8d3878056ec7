#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""mitherm-mqtt between a real mosquitto and the bus: mqtt.py NAME runs one case."""

import json
import os
import pathlib
import pwd
import signal
import socket
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
        done = subprocess.run(["mosquitto_sub", *self.client(), "-t", "#", "-F", "%j", "--retained-only", "-W", "1"],
                              capture_output=True, text=True, timeout=60, check=False)
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
            "in_progress": False, "update_percentage": None}
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
        desk.hear(topic(ID_A, "state"))
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


if __name__ == "__main__":
    sys.exit(harness.main(CASES))
