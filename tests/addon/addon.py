#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The Home Assistant app, as far as it can be tried without a container engine: addon.py NAME runs one case."""

import contextlib
import copy
import json
import os
import pathlib
import pwd
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from xml.etree import ElementTree

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

import harness  # noqa: E402
import schema  # noqa: E402

TOP = harness.TOP
BUILD = harness.BUILD
ADDON = TOP / "addon"
APP = ADDON / "mitherm"
ROOTFS = APP / "rootfs"
SERVICES = ROOTFS / "etc/s6-overlay/s6-rc.d"
LIBRARY = ROOTFS / "usr/lib/mitherm-app"
CATALOG = ROOTFS / "etc/s6-overlay/scripts/mitherm-catalog"
SHEBANG = "#!/usr/bin/with-contenv bashio"
A = "A4:C1:38:00:00:01"
ONE = f"[{A}]\nModel=LYWSD03MMC\nFirmware=1.0.0_0130\n"
PASSWORD = "s3cret word#with=signs\\n"
CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


def load(path):
    import yaml  # late: a build without the tests does not need it
    return yaml.safe_load(path.read_text())


def run(*args, expect=0, **options):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, check=False, timeout=120, **options)
    assert expect is None or done.returncode == expect, f"{args}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def scripts():
    """What bash runs: programs and what they source."""
    return sorted([*SERVICES.glob("*/run"), *SERVICES.glob("*/finish"), *CATALOG.parent.iterdir(), *LIBRARY.glob("*.sh")])


# What the files say

@case
def the_config_follows_the_documented_schema():
    config = load(APP / "config.yaml")
    assert schema.check_config(config) == []
    assert config["host_dbus"] is True and config["init"] is False and config["services"] == ["mqtt:want"]
    # Nothing that lowers the rating, and no door.
    for key in ("ingress", "host_network", "privileged", "full_access", "ports", "docker_api", "hassio_api", "devices"):
        assert key not in config, key
    assert config["options"]["allow_updates"] is False


@case
def a_broken_config_is_found():
    """The checker itself: every one of these mistakes has to be seen."""
    good = load(APP / "config.yaml")
    for path, value in (
            (("slug",), "mi therm"), (("arch",), ["amd64", "armv7"]), (("arch",), ["riscv"]), (("init",), "no"),
            (("startup",), "early"), (("services",), ["mqtt:maybe"]), (("map",), [{"type": "home"}]), (("hostdbus",), True),
            (("url",), "mitherm"), (("version",), 1), (("version",), "next"), (("schema", "adapter"), "string"), (("schema", "firmware"), "match(()"),
            (("schema", "log_level"), "list()"), (("options", "log_level"), "loud"), (("options", "more"), 1),
            (("options", "allow_updates"), "yes"), (("options", "adapter"), "hci0")):
        bad = copy.deepcopy(good)
        inner = bad
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        assert schema.check_config(bad), f"{path} = {value!r} was not seen"
    for key in schema.REQUIRED:
        bad = copy.deepcopy(good)
        del bad[key]
        assert schema.check_config(bad), f"{key} was not missed"
    bad = copy.deepcopy(good)
    del bad["options"]["log_level"]
    assert schema.check_config(bad)


@case
def the_repository_is_complete():
    repository = load(ADDON / "repository.yaml")
    # The address is optional, and there is none yet that is ours.
    assert set(repository) == {"name", "maintainer"} and all(isinstance(v, str) for v in repository.values())
    for name in ("config.yaml", "Dockerfile", "apparmor.txt", "DOCS.md", "README.md", "CHANGELOG.md", "icon.png", "logo.png",
                 "translations/en.yaml"):
        assert (APP / name).is_file(), name
    # The supervisor takes every file of this name for an app.
    known = run("git", "-C", TOP, "ls-files", "--cached", "--others", "--exclude-standard", expect=None)
    listed = known.stdout.splitlines() if known.returncode == 0 else [str(p.relative_to(TOP)) for p in ADDON.rglob("*")]
    configs = [n for n in listed if re.search(r"(^|/)config\.(yaml|yml|json)$", n)]
    assert configs == ["addon/mitherm/config.yaml"], configs
    assert not [n for n in listed if n.startswith("addon/") and re.search(r"/build\.(yaml|yml|json)$", n)]


@case
def translations_name_every_option():
    options = set(load(APP / "config.yaml")["schema"])
    files = sorted((APP / "translations").iterdir())
    assert {f.name for f in files} >= {"en.yaml", "de.yaml"}
    for file in files:
        texts = load(file)
        assert set(texts) == {"configuration"} and set(texts["configuration"]) == options, file
        for name, text in texts["configuration"].items():
            assert set(text) == {"name", "description"} and all(isinstance(t, str) and t for t in text.values()), name
    documented = set(re.findall(r"^\| `(\w+)` \|", (APP / "DOCS.md").read_text(), re.M))
    assert documented == options, documented


@case
def pictures_have_their_sizes():
    for name, right in (("icon.png", lambda w, h: w == h == 128), ("logo.png", lambda w, h: (w, h) == (250, 100))):
        data = (APP / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND" and len(data) < 20000, name
        assert right(*struct.unpack(">II", data[16:24])), name


@case
def versions_agree():
    version = re.search(r"version: '([\d.]+)'", (TOP / "meson.build").read_text())[1]
    assert load(APP / "config.yaml")["version"] == version
    assert re.search(r"^ARG BUILD_VERSION=(.*)$", (APP / "Dockerfile").read_text(), re.M)[1] == version
    assert re.search(r"^## (.*)$", (APP / "CHANGELOG.md").read_text(), re.M)[1] == version


@case
def scripts_are_clean():
    found = scripts()
    assert len(found) >= 9, found
    run("shellcheck", "-x", "-P", TOP, ADDON / "stage", *found, *sorted((HERE / "fake").iterdir()),
        *sorted((HERE / "fake-bridge").iterdir()))
    for script in found:
        run("bash", "-n", script)
        text = script.read_text()
        if script.suffix != ".sh":
            assert text.startswith(SHEBANG + "\n"), script
            assert os.access(script, os.X_OK), script


@case
def services_follow_one_another():
    names = {p.name for p in SERVICES.iterdir()} - {"user"}
    assert names == {"mitherm-bus", "mithermd", "mitherm-catalog", "mitherm-mqtt"}
    assert {p.name for p in (SERVICES / "user/contents.d").iterdir()} == names
    for name in names:
        folder = SERVICES / name
        kind = (folder / "type").read_text()
        if kind == "oneshot\n":
            assert (folder / "up").read_text() == f"/{CATALOG.relative_to(ROOTFS)}\n" and os.access(CATALOG, os.X_OK)
        else:
            assert kind == "longrun\n" and (folder / "run").is_file() and (folder / "finish").is_file(), name
    after = {n: {p.name for p in (SERVICES / n / "dependencies.d").iterdir()} for n in names}
    assert after == {"mitherm-bus": {"base"}, "mithermd": {"mitherm-bus"}, "mitherm-catalog": {"mithermd"},
                     "mitherm-mqtt": {"mithermd"}}
    assert (SERVICES / "mitherm-bus/notification-fd").read_text() == "3\n"


def sbin(name):
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


@case
def the_apparmor_profile_is_sound():
    text = (APP / "apparmor.txt").read_text()
    profile = APP / "apparmor.txt"
    run(sbin("apparmor_parser"), "-QTK", profile)
    names = run(sbin("apparmor_parser"), "-N", profile).stdout.split()
    # The supervisor replaces the one profile that starts a line; it has to be the app.
    assert names == ["mitherm", "mitherm//mithermd", "mitherm//mithermqtt"], names
    assert re.findall(r"^profile (\S+)", text, re.M) == [load(APP / "config.yaml")["slug"]]
    bodies = dict(zip(("", "mithermd", "mithermqtt"), re.split(r"^  profile \w+ .*$", text, flags=re.M)))
    for name, body in bodies.items():
        assert re.search(r"^ +dbus,$", body, re.M), f"{name}: no D-Bus"
    assert "network" not in re.sub("#.*", "", bodies["mithermd"])
    assert "system_bus_socket" not in bodies["mithermqtt"] and "/data" not in bodies["mithermqtt"]
    # As installed from the folder /addons.
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as renamed:
        renamed.write(re.sub(r"^profile mitherm ", "profile local_mitherm ", text, flags=re.M))
        renamed.flush()
        run(sbin("apparmor_parser"), "-QTK", renamed.name)


# The image

def instructions(text):
    """[(instruction, its text)] of a Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    return [tuple(line.split(None, 1)) for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line.strip()]


def copied(lines):
    """What comes from the context."""
    for word, rest in lines:
        if word == "COPY" and "--from=" not in rest:
            yield from rest.split()[:-1]


@case
def the_dockerfile_names_what_exists():
    lines = instructions((APP / "Dockerfile").read_text())
    stages = [rest for word, rest in lines if word == "FROM"]
    assert lines[0] == ("ARG", "BASE_IMAGE=ghcr.io/home-assistant/base-debian:bookworm")
    assert stages == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]
    for source in copied(lines):
        assert (TOP / source).exists(), source
    label, = [rest for word, rest in lines if word == "LABEL"]
    for wanted in ('io.hass.type="app"', 'io.hass.version="${BUILD_VERSION}"', 'io.hass.arch="${BUILD_ARCH}"'):
        assert wanted in label, wanted
    runs = " ".join(rest for word, rest in lines if word == "RUN")
    options = re.findall(r"^option\('([\w-]+)'", (TOP / "meson_options.txt").read_text(), re.M)
    for option in re.findall(r"-D(\w+)=", runs):
        assert option in options, option
    for pattern in re.findall(r" /src/(\S+)", runs):
        if pattern != "--prefix=/usr":
            assert list(TOP.glob(pattern)), pattern
    ninja = re.search(r"ninja -C /build ([\w/ -]+?) &&", runs)[1].split()
    assert [p for p in re.findall(r" /build/(\S+)", runs)] == ninja
    for program in ninja:
        folder, name = program.split("/")
        assert re.search(rf"executable\('{name}'", (TOP / folder / "meson.build").read_text()), program


@case
def the_image_has_every_library():
    """On the Debian of the base image: what the programs load comes from packages that the image installs."""
    release = re.search(r"^VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text(), re.M)
    text = (APP / "Dockerfile").read_text()
    if not release or f"base-debian:{release[1]}" not in text:
        raise harness.Skip("this is not the Debian of the base image")
    wanted = set(re.findall(r"^ {8}([a-z][\w.+-]+) \\$", text.rpartition("FROM ")[2], re.M)) | {"libc6", "libgcc-s1"}
    programs = [p for p in (BUILD / "daemon/mithermd", BUILD / "cli/mithermctl", BUILD / "bridge/mitherm-mqtt") if p.is_file()]
    assert len(programs) >= 2
    for program in programs:
        for library in re.findall(r"NEEDED +(\S+)", run("objdump", "-p", program).stdout):
            # The image is built without systemd, polkit and sanitizers.
            if re.match(r"lib([aul]b?san|tsan|systemd|polkit|clang_rt|m\.so)", library):
                continue
            path = re.search(rf"^\s+{re.escape(library)} => (\S+)", run("ldd", program).stdout, re.M)[1]
            owners = run("dpkg-query", "-S", f"*/{library}").stdout
            assert {line.partition(":")[0] for line in owners.splitlines()} & wanted, f"{program.name}: {library} ({path})"


@case
def a_staged_repository_builds_alone():
    with tempfile.TemporaryDirectory(prefix="mitherm-") as parent:
        stage = pathlib.Path(parent) / "repository"
        run(ADDON / "stage", stage)
        assert load(stage / "repository.yaml") == load(ADDON / "repository.yaml")
        app = stage / "mitherm"
        configs = [p.relative_to(stage) for p in stage.rglob("config.yaml")]
        assert configs == [pathlib.Path("mitherm/config.yaml")], configs
        for name in ("Dockerfile", "apparmor.txt", "DOCS.md", "README.md", "icon.png", "translations/de.yaml", "meson.build"):
            assert (app / name).is_file(), name
        assert (app / "README.md").read_text().startswith("# Mi thermometers\n")
        for source in copied(instructions((app / "Dockerfile").read_text())):
            assert (app / source).exists(), source
        for folder in re.findall(r"^subdir\('(\w+)'\)", (TOP / "meson.build").read_text(), re.M):
            assert (app / folder / "meson.build").is_file(), folder
        assert os.access(app / SERVICES.relative_to(TOP) / "mithermd/run", os.X_OK)
        run(ADDON / "stage", stage, expect=1)


# The services, run with an answer of the supervisor that we make up

class App(harness.World):
    """The host (a bus with simulated BlueZ) and the app's services."""

    def __init__(self, devices=ONE, options=None, bridge=HERE / "fake-bridge"):
        super().__init__(devices, start=False)
        self.host = self.dir / "supervisor"
        self.run_dir, self.data = self.dir / "run", self.dir / "data"
        for folder in (self.host, self.data, self.dir / "config", self.dir / "ssl", self.dir / "results"):
            folder.mkdir()
        self.configure(**(options or {}))
        halt = self.dir / "halt"
        halt.write_text(f"#!/bin/sh\ntouch {self.dir}/halted\n")
        halt.chmod(0o755)
        self.bridge_dir = bridge
        self.services = {}

    def __enter__(self):
        super().__enter__()
        self.host_bus = self.bus
        try:
            self.start_sim()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.bus = f"unix:path={self.run_dir}/bus"
        self.env.update({
            "PATH": f"{HERE}/fake:{self.bridge_dir}:{BUILD}/daemon:{BUILD}/cli:{self.env['PATH']}",
            "FAKE_SUPERVISOR": str(self.host), "DBUS_SYSTEM_BUS_ADDRESS": self.host_bus,
            "MITHERM_APP": str(LIBRARY), "MITHERM_RUN": str(self.run_dir), "MITHERM_DATA": str(self.data),
            "MITHERM_CONFIG": str(self.dir / "config"), "MITHERM_SSL": str(self.dir / "ssl"),
            "MITHERM_HALT": str(self.dir / "halt"), "MITHERM_RESULTS": str(self.dir / "results"),
            "MITHERM_RETRY_S": "0.1", "MITHERM_PAUSE_S": "0", "MITHERM_REFUSED_S": "2"})
        return self

    def configure(self, **options):
        """The user's options; those that are not named have their defaults."""
        config = load(APP / "config.yaml")
        complete = {**config["options"], **options}
        assert schema.check_options(config["schema"], complete) == []
        (self.host / "options.json").write_text(json.dumps(complete))

    def broker(self, **data):
        """The supervisor's answer from now on."""
        answer = self.host / "answer.new"
        answer.write_text(json.dumps({"result": "ok", "data": data}))
        answer.rename(self.host / "mqtt.json")

    def script(self, path, *args):
        assert path.read_text().splitlines()[0] == SHEBANG
        return [HERE / "fake/with-contenv", "bashio", path, *args]

    def service(self, name, **options):
        self.services[name] = self.spawn(name, self.script(SERVICES / name / "run"), stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, **options)
        return self.services[name]

    def start_service_bus(self):
        """Returns when the bus says, as s6 hears it, that it is ready."""
        ours, theirs = os.pipe()
        saved = os.dup(3) if os.path.exists("/proc/self/fd/3") and theirs != 3 else None
        os.dup2(theirs, 3)
        os.set_inheritable(3, True)
        try:
            self.service("mitherm-bus", pass_fds=(3,))
        finally:
            if theirs != 3:
                os.close(theirs)
            os.close(3) if saved is None else (os.dup2(saved, 3), os.close(saved))
        with os.fdopen(ours) as ready:
            line = ready.readline()
        assert line.endswith("\n"), "the bus ended before it was ready"
        assert f"{self.run_dir}/bus" in line, line

    def start_daemon_service(self):
        self.service("mithermd")
        self.until(lambda: self.ctl("list", expect=None).code == 0)

    def start_app(self):
        self.start_service_bus()
        self.start_daemon_service()

    @contextlib.contextmanager
    def supervised(self, name):
        """Does what s6 does: run, and after each end finish, until the block ends."""
        over = threading.Event()

        def supervise():
            while not over.is_set():
                child = self.service(name)
                while child.poll() is None and not over.wait(0.05):
                    pass
                if child.poll() is None:
                    return
                self.children.remove(child)
                code = (256, -child.returncode) if child.returncode < 0 else (child.returncode, 0)
                self.ends.append(code[0])
                with open(self.dir / f"{name}.log", "a") as log:
                    subprocess.run([str(a) for a in self.script(SERVICES / name / "finish", *map(str, code))], stderr=log,
                                   env=self.env, check=True, timeout=60)
        self.ends = []
        thread = threading.Thread(target=supervise)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.stop_service(name)

    def start_mosquitto(self, **users):
        """A broker that wants these passwords; its port."""
        passwords = self.dir / "passwords"
        passwords.unlink(missing_ok=True)
        passwords.touch(0o600)
        for user, password in users.items():
            run("mosquitto_passwd", "-b", passwords, user, password)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        conf = self.file("mosquitto.conf", f"listener {port} 127.0.0.1\nuser {pwd.getpwuid(os.geteuid()).pw_name}\n"
                         f"allow_anonymous false\npassword_file {passwords}\n".encode())
        self.spawn("broker", [sbin("mosquitto"), "-c", conf], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        def listens():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False
        self.until(listens)
        return port

    @staticmethod
    def retained(port, user, password):
        done = run("timeout", "20", "mosquitto_sub", "-h", "127.0.0.1", "-p", port, "-u", user, "-P", password, "-t", "#",
                   "-F", "%j", "--retained-only", "-W", "1", expect=None)
        return {m["topic"]: m["payload"] for m in map(json.loads, done.stdout.splitlines())}

    def stop_service(self, name):
        return self.stop(self.services.pop(name))

    def log(self, name):
        return (self.dir / f"{name}.log").read_text()

    def mqtt_config(self):
        """Starts the MQTT service with the stand-in for the bridge; the configuration that it was given."""
        with contextlib.suppress(FileNotFoundError):
            (self.host / "bridge").unlink()
        self.service("mitherm-mqtt")
        self.until((self.host / "bridge").exists)
        args = (self.host / "bridge").read_text().splitlines()
        assert args == [f"--bus={self.bus}", f"--config={self.run_dir}/mqtt.conf", "--exit-when-refused"], args
        return self.read_config(self.run_dir / "mqtt.conf")

    @staticmethod
    def read_config(path):
        assert path.stat().st_mode & 0o777 == 0o600, oct(path.stat().st_mode)
        groups, group = {}, None
        for line in path.read_text().splitlines():
            if line.startswith("["):
                group = groups.setdefault(line.strip("[]"), {})
            elif line:
                key, value = line.split("=", 1)
                group[key] = value
        return groups

    def names_on_the_bus(self):
        done = run("gdbus", "call", f"--address={self.bus}", "--dest=org.freedesktop.DBus",
                   "--object-path=/org/freedesktop/DBus", "--method=org.freedesktop.DBus.ListNames")
        return set(re.findall(r"'([a-z][^']*)'", done.stdout))

    def request_name(self, name):
        return run("gdbus", "call", f"--address={self.bus}", "--dest=org.freedesktop.DBus",
                   "--object-path=/org/freedesktop/DBus", "--method=org.freedesktop.DBus.RequestName", name, "0", expect=None)


@case
def the_thermometer_is_listed_on_the_private_bus():
    with App() as app:
        app.start_app()
        app.known(A)
        assert app.info(A)["Model"] == "LYWSD03MMC"
        assert app.names_on_the_bus() == {"org.freedesktop.DBus", "org.mitherm"}
        # The host's bus has BlueZ and nothing of ours.
        names = run("gdbus", "call", f"--address={app.host_bus}", "--dest=org.freedesktop.DBus",
                    "--object-path=/org/freedesktop/DBus", "--method=org.freedesktop.DBus.ListNames").stdout
        assert "org.bluez" in names and "org.mitherm" not in names
        assert app.run_dir.stat().st_mode & 0o777 == 0o700
        assert app.stop_service("mithermd") == 0


@case
def the_bus_lets_nobody_own_another_name():
    with App() as app:
        app.start_service_bus()
        for name in ("org.mitherm.Other", "org.bluez", "com.example.Any"):
            done = app.request_name(name)
            assert done.returncode != 0 and "AccessDenied" in done.stderr, f"{name}: {done}"
        done = app.request_name("org.mitherm")
        assert done.returncode == 0 and "(uint32 1,)" in done.stdout, done


@case
def the_bus_starts_without_a_listener_for_readiness():
    with App() as app:
        app.service("mitherm-bus")
        app.until((app.run_dir / "bus").exists)
        app.start_daemon_service()


@case
def updates_are_refused_by_the_bus_unless_allowed():
    image = harness.custom_image()
    with App() as app:
        app.start_app()
        app.known(A)
        path = app.file("image.bin", image)
        result = app.ctl("update", "--activate", A, path, expect=None)
        assert result.code != 0 and ("AccessDenied" in result.err or "rejected" in result.err), result
        assert app.device_state(A)["version"] == "1.0.0_0130"
        # Everything else goes on.
        app.ctl("activate", A)
        assert "allow_updates" in app.log("mitherm-bus")
        app.stop_service("mithermd")
        app.stop_service("mitherm-bus")
        app.configure(allow_updates=True)
        app.start_app()
        app.known(A)
        app.ctl("update", A, path)
        assert app.device_state(A)["version"] == "V5.8"


UPDATES = {"org.mitherm.Device1.Update", "org.mitherm.Device1.UpdateFromCatalog"}


@case
def every_method_that_updates_is_refused_and_no_other():
    methods = [f"{interface.get('name')}.{method.get('name')}"
               for name in ("Manager1", "Device1")
               for interface in ElementTree.parse(TOP / f"dbus/org.mitherm.{name}.xml").iter("interface")
               for method in interface.iter("method")]
    assert UPDATES < set(methods) and len(methods) >= 15, methods
    # One that will be new has to be looked at here.
    assert [m for m in methods if "Update" in m] == sorted(UPDATES), methods
    with App() as app:
        app.start_app()
        app.known(A)
        owner = re.search(r"'(:[\d.]+)'", run(
            "gdbus", "call", f"--address={app.bus}", "--dest=org.freedesktop.DBus", "--object-path=/org/freedesktop/DBus",
            "--method=org.freedesktop.DBus.GetNameOwner", "org.mitherm").stdout)[1]
        for destination in ("org.mitherm", owner):
            for method in methods:
                path = "/org/mitherm" + ("" if "Manager1" in method else "/device/" + A.replace(":", "_"))
                done = run("dbus-send", f"--bus={app.bus}", "--print-reply", f"--dest={destination}", path, method, expect=None)
                assert ("AccessDenied" in done.stderr) is (method in UPDATES), f"{method}: {done}"
        image = app.file("image.bin", harness.image(text="1.0.0_0140"))
        app.until(lambda: all(job["State"] in ("done", "failed") for job in app.ctl("--json", "jobs").json()))
        app.ctl("activate", A)
        app.ctl("info", "--read", A)
        app.ctl("catalog", "add", image)
        assert app.info(A)["UpdateVersion"] == "1.0.0_0140"
        result = app.ctl("catalog", "update", A, expect=None)
        assert result.code != 0 and ("AccessDenied" in result.err or "rejected" in result.err), result
        assert app.device_state(A)["version"] == "1.0.0_0130"


@case
def the_daemon_reaches_the_agent_of_a_client():
    """Registrations of version 2 ask whoever started them: the private bus lets the question through."""
    devices = f"[{A}]\nModel=LYWSD03MMC\nFirmware=2.1.1_0159\nAuthVersion=2\n"
    with App(devices) as app:
        app.start_app()
        app.known(A)
        asked = app.dir / "asked"
        command = app.dir / "command"
        command.write_text(f"#!/bin/sh\ncat >{asked}\necho '{{\"error\":\"refused\",\"message\":\"not today\"}}'\n")
        command.chmod(0o755)
        result = app.ctl("activate", f"--credential-command={command}", A, expect=None)
        assert result.code == 1 and "not today" in result.err, result
        assert json.loads(asked.read_text())["address"] == A


@case
def keys_survive_in_data():
    with App() as app:
        app.start_app()
        app.known(A)
        app.ctl("activate", A)
        token = app.device_state(A)["token"]
        app.stop_service("mithermd")
        app.stop_service("mitherm-bus")
        files = [p for p in (app.data / "mitherm").rglob("*.conf")]
        assert any(token in p.read_text() for p in files), files
        for path in (app.data / "mitherm").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path
        shutil.rmtree(app.run_dir)
        app.start_app()
        app.known(A)
        assert app.info(A)["HasKeys"] is True
        app.ctl("login", A)
        for name in ("mithermd", "mitherm-bus"):
            assert token not in app.log(name).lower()


@case
def only_the_adapter_of_the_option_is_used():
    with App(options={"adapter": "hci7"}) as app:
        app.start_app()
        assert app.read_config(app.run_dir / "mithermd.conf") == {"radio": {"Adapters": "hci7"}}
        manager = app.gdbus("--object-path=/org/mitherm", "--method=org.freedesktop.DBus.Properties.Get",
                            "org.mitherm.Manager1", "Adapters").out
        assert "hci0" not in manager, manager
        app.stop_service("mithermd")
        app.configure()
        app.start_daemon_service()
        assert app.read_config(app.run_dir / "mithermd.conf") == {"radio": {}}
        app.known(A)


@case
def the_log_level_is_that_of_the_option():
    with App() as app:
        app.start_service_bus()
        expected = {"debug": True, "info": True, "warning": False, "error": False}
        for level, told in expected.items():
            app.configure(log_level=level)
            (app.dir / "mithermd.log").write_text("")
            app.start_daemon_service()
            app.stop_service("mithermd")
            assert ("thermometer(s)" in app.log("mithermd")) is told, f"{level}: {app.log('mithermd')}"


@case
def the_broker_is_that_of_the_supervisor():
    with App() as app:
        app.broker(host="core-mosquitto", port=1883, ssl=False, protocol="3.1.1", username="addons", password=PASSWORD)
        config = app.mqtt_config()
        user = app.run_dir / "mqtt.user"
        assert config == {"broker": {"Host": "core-mosquitto", "Port": "1883", "TLS": "false", "UserFile": str(user)},
                          "discovery": {"Prefix": "homeassistant"}}, config
        assert user.stat().st_mode & 0o777 == 0o600
        assert user.read_text() == f"addons\n{PASSWORD}\n"
        assert PASSWORD not in app.log("mitherm-mqtt") and "core-mosquitto" in app.log("mitherm-mqtt")
        environment = pathlib.Path(f"/proc/{app.services['mitherm-mqtt'].pid}/environ").read_bytes()
        assert PASSWORD.encode() not in environment


@case
def a_broker_that_is_not_there_yet_is_awaited():
    with App() as app:
        service = app.service("mitherm-mqtt")
        asked = app.host / "asked"
        app.until(lambda: asked.exists() and len(asked.read_text().splitlines()) >= 3)
        assert service.poll() is None and not (app.run_dir / "mqtt.conf").exists()
        # Told once, not at each try.
        assert app.log("mitherm-mqtt").count("no MQTT service") == 1, app.log("mitherm-mqtt")
        # An answer without content counts as none.
        app.broker()
        seen = len(asked.read_text().splitlines())
        app.until(lambda: len(asked.read_text().splitlines()) >= seen + 4)
        assert service.poll() is None and not (app.run_dir / "mqtt.conf").exists()
        app.broker(host="core-mosquitto", port=1883, ssl=False, username="addons", password=PASSWORD)
        app.until((app.host / "bridge").exists)
        assert app.read_config(app.run_dir / "mqtt.conf")["broker"]["Host"] == "core-mosquitto"


@case
def a_broker_without_credentials_needs_no_user_file():
    with App() as app:
        app.broker(host="192.168.1.5", port=1884, ssl=False, username="old", password="old")
        assert "UserFile" in app.mqtt_config()["broker"]
        app.stop_service("mitherm-mqtt")
        app.broker(host="192.168.1.5", port=1884, ssl=False)
        config = app.mqtt_config()
        assert config["broker"] == {"Host": "192.168.1.5", "Port": "1884", "TLS": "false"}, config
        assert not (app.run_dir / "mqtt.user").exists()


@case
def a_broker_with_tls_is_spoken_to_with_tls():
    with App(options={"ca_file": "home.crt"}) as app:
        app.broker(host="broker.home", port=8883, ssl=True, username="me", password=PASSWORD)
        app.service("mitherm-mqtt")
        app.until(lambda: "home.crt cannot be read" in app.log("mitherm-mqtt"))
        assert not (app.run_dir / "mqtt.conf").exists()
        (app.dir / "ssl/home.crt").write_text("")
        app.until((app.host / "bridge").exists)
        broker = app.read_config(app.run_dir / "mqtt.conf")["broker"]
        assert broker["TLS"] == "true" and broker["Port"] == "8883" and broker["CAFile"] == str(app.dir / "ssl/home.crt")
        app.stop_service("mitherm-mqtt")
        app.configure()
        broker = app.mqtt_config()["broker"]
        system = "/etc/ssl/certs/ca-certificates.crt"
        assert broker["TLS"] == "true" and broker.get("CAFile") == (system if os.path.exists(system) else None), broker


@case
def a_changed_password_counts_after_a_restart_of_the_bridge():
    with App() as app:
        app.broker(host="core-mosquitto", port=1883, ssl=False, username="addons", password="first")
        app.mqtt_config()
        app.stop_service("mitherm-mqtt")
        app.broker(host="core-mosquitto", port=1883, ssl=False, username="addons", password="second")
        app.mqtt_config()
        assert (app.run_dir / "mqtt.user").read_text() == "addons\nsecond\n"


@case
def an_answer_that_makes_no_sense_is_not_written():
    with App() as app:
        for answer in ({"host": "a\n[broker]\nHost=b", "port": 1883}, {"host": "a", "port": "x"}, {"host": "a"},
                       {"host": "a", "port": 1883, "username": "u\nv", "password": "p"}):
            (app.dir / "mitherm-mqtt.log").unlink(missing_ok=True)
            app.broker(**{"ssl": False, **answer})
            app.service("mitherm-mqtt")
            app.until(lambda: (app.dir / "mitherm-mqtt.log").exists() and "makes no sense" in app.log("mitherm-mqtt"))
            app.stop_service("mitherm-mqtt")
            for path in app.host.glob("cache.*"):
                path.unlink()
            assert not (app.run_dir / "mqtt.conf").exists(), answer


@case
def the_end_of_a_service_is_judged():
    """finish CODE SIGNAL, as s6 calls it."""
    halts = {("mitherm-bus", 1, 0), ("mitherm-bus", 256, 11), ("mithermd", 2, 0), ("mitherm-mqtt", 2, 0)}
    with App() as app:
        for name in ("mitherm-bus", "mithermd", "mitherm-mqtt"):
            for code, signal in ((0, 0), (256, 15), (1, 0), (2, 0), (256, 11)):
                (app.dir / "halted").unlink(missing_ok=True)
                (app.dir / "results/exitcode").unlink(missing_ok=True)
                done = run(*app.script(SERVICES / name / "finish", str(code), str(signal)), env=app.env)
                stopped = (app.dir / "halted").exists()
                assert stopped is ((name, code, signal) in halts or (name == "mitherm-bus" and code == 2)), (name, code, signal)
                if stopped:
                    wanted = 128 + signal if code == 256 else code
                    assert (app.dir / "results/exitcode").read_text() == f"{wanted}\n"
                    assert "FATAL" in done.stderr
                assert ("started again" in done.stderr) is (not stopped and code != 0 and signal != 15), done.stderr


@case
def a_daemon_that_was_killed_comes_back():
    with App() as app:
        app.start_app()
        app.known(A)
        app.services["mithermd"].kill()
        app.services["mithermd"].wait()
        app.children.remove(app.services["mithermd"])
        app.start_daemon_service()
        app.known(A)


@case
def a_missing_firmware_folder_stops_nothing():
    with App() as app:
        app.start_app()
        done = run(*app.script(CATALOG), env=app.env)
        assert "no firmware folder" in done.stderr, done.stderr


@case
def the_firmware_folder_is_told_to_the_daemon():
    with App() as app:
        app.start_app()
        folder = app.dir / "config/firmware"
        folder.mkdir()
        (folder / "custom.bin").write_bytes(harness.custom_image())
        calls = app.dir / "calls"
        wrapper = app.dir / "wrapper"
        wrapper.mkdir()
        (wrapper / "mithermctl").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{calls}\nexec {BUILD}/cli/mithermctl "$@"\n')
        (wrapper / "mithermctl").chmod(0o755)
        done = run(*app.script(CATALOG), env={**app.env, "PATH": f"{wrapper}:{app.env['PATH']}"})
        assert calls.read_text().splitlines()[-1] == f"--bus={app.bus} catalog add {folder}", calls.read_text()
        assert "was not read" not in done.stderr


def mqtt_text(data, at):
    length, = struct.unpack_from(">H", data, at)
    return data[at + 2:at + 2 + length], at + 2 + length


@case
def the_bridge_speaks_to_the_broker_of_the_supervisor():
    """The real program: its CONNECT carries the user and the password of the supervisor's answer."""
    with socket.create_server(("127.0.0.1", 0)) as server, App(bridge=BUILD / "bridge") as app:
        server.settimeout(harness.LIMIT_S)
        app.start_app()
        app.broker(host="127.0.0.1", port=server.getsockname()[1], ssl=False, username="addons", password=PASSWORD)
        app.service("mitherm-mqtt")
        connection, _ = server.accept()
        with connection:
            connection.settimeout(harness.LIMIT_S)
            packet = connection.recv(4096)
            assert packet[0] == 0x10, packet
            at = 2 if packet[1] < 0x80 else 3
            protocol, at = mqtt_text(packet, at)
            assert protocol == b"MQTT"
            level, flags = packet[at], packet[at + 1]
            assert flags & 0xC0 == 0xC0, hex(flags)
            at += 4
            if level == 5:
                at += 1 + packet[at]
            _, at = mqtt_text(packet, at)
            if flags & 4:
                if level == 5:
                    at += 1 + packet[at]
                _, at = mqtt_text(packet, at)
                _, at = mqtt_text(packet, at)
            user, at = mqtt_text(packet, at)
            password, at = mqtt_text(packet, at)
            assert (user, password) == (b"addons", PASSWORD.encode())
        assert PASSWORD not in app.log("mitherm-mqtt")


DISCOVERY = "homeassistant/device/mitherm_a4c138000001/config"


@case
def the_bridge_shows_a_thermometer_to_home_assistant():
    """All services, the real programs, a real broker: what Home Assistant would find."""
    devices = ONE + "Interval=100\n"
    with App(devices, bridge=BUILD / "bridge") as app:
        port = app.start_mosquitto(addons="word")
        app.broker(host="127.0.0.1", port=port, ssl=False, username="addons", password="word")
        folder = app.dir / "config/firmware"
        folder.mkdir()
        (folder / "new.bin").write_bytes(harness.image(text="1.0.0_0140"))
        app.start_app()
        run(*app.script(CATALOG), env=app.env)
        with app.supervised("mitherm-mqtt"):
            app.known(A)
            app.ctl("activate", A)
            app.ctl("info", "--read", A)

            def told(name):
                return app.retained(port, "addons", "word").get(name, "")
            app.until(lambda: "1.0.0_0140" in told("mitherm/a4c138000001/update"))
            config = json.loads(told(DISCOVERY))
            assert config["dev"]["mdl"] == "LYWSD03MMC" and "firmware" in config["cmps"], config
            app.until(lambda: "temperature" in told("mitherm/a4c138000001/state"))
            assert told("mitherm/bridge/availability") == "online"
            # Updates are off by default, and the entity says so.
            run("mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-u", "addons", "-P", "word", "-q", "1",
                "-t", "mitherm/a4c138000001/update/set", "-m", "install")
            app.until(lambda: "Updates are not allowed" in told("mitherm/a4c138000001/update"))
            assert "allow_updates" in json.loads(told("mitherm/a4c138000001/update"))["release_summary"]
            assert app.device_state(A)["version"] == "1.0.0_0130"
        assert told("mitherm/bridge/availability") == "offline"
        app.stop_service("mithermd")
        app.stop_service("mitherm-bus")
        app.configure(allow_updates=True)
        app.start_app()
        with app.supervised("mitherm-mqtt"):
            app.until(lambda: told("mitherm/bridge/availability") == "online")
            app.until(lambda: "1.0.0_0140" in told("mitherm/a4c138000001/update"))
            run("mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-u", "addons", "-P", "word", "-q", "1",
                "-t", "mitherm/a4c138000001/update/set", "-m", "install")
            app.until(lambda: '"installed_version":"1.0.0_0140"' in told("mitherm/a4c138000001/update"))
            assert app.device_state(A)["version"] == "1.0.0_0140"


@case
def the_bridge_gets_new_credentials_when_they_are_refused():
    with App(bridge=BUILD / "bridge") as app:
        port = app.start_mosquitto(addons="second")
        app.broker(host="127.0.0.1", port=port, ssl=False, username="addons", password="first")
        app.start_app()
        with app.supervised("mitherm-mqtt"):
            app.until(lambda: len(app.ends) >= 3)
            # 2 s, then 4 s: less and less often, and not many words.
            since = time.monotonic()
            app.until(lambda: len(app.ends) >= 4)
            assert time.monotonic() - since >= 6, app.log("mitherm-mqtt")
            assert set(app.ends) == {3}, app.ends
            assert len(app.log("mitherm-mqtt").splitlines()) <= 4 * 6, app.log("mitherm-mqtt")
            app.broker(host="127.0.0.1", port=port, ssl=False, username="addons", password="second")
            app.until(lambda: app.retained(port, "addons", "second").get("mitherm/bridge/availability") == "online", 10)
            app.until(lambda: DISCOVERY in app.retained(port, "addons", "second"))
            assert len(app.ends) == 4
        assert not (app.dir / "halted").exists()
        log = app.log("mitherm-mqtt")
        assert "refuses the user and the password" in log and "first" not in log and "second" not in log, log


if __name__ == "__main__":
    sys.exit(harness.main(CASES))
