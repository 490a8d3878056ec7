# SPDX-License-Identifier: GPL-2.0-or-later
"""What Home Assistant's supervisor takes as an app's config.yaml, as far as its documentation tells."""

import re

TEXT, BOOL, LIST, MAP = str, bool, list, dict
ARCHES = {"aarch64", "amd64"}
ARCHES_OF_OLD = {"armhf", "armv7", "i386"}
# key: (type, values that it may have or None)
KEYS = {
    "name": (TEXT, None), "version": (TEXT, None), "slug": (TEXT, None), "description": (TEXT, None),
    "arch": (LIST, ARCHES), "machine": (LIST, None), "url": (TEXT, None),
    "startup": (TEXT, {"initialize", "system", "services", "application", "once"}),
    "boot": (TEXT, {"auto", "manual", "manual_only"}), "init": (BOOL, None),
    "stage": (TEXT, {"stable", "experimental", "deprecated"}), "ports": (MAP, None),
    "ports_description": (MAP, None), "watchdog": (TEXT, None), "webui": (TEXT, None), "ingress": (BOOL, None),
    "ingress_port": (int, None), "ingress_entry": (TEXT, None), "ingress_stream": (BOOL, None),
    "panel_icon": (TEXT, None), "panel_title": (TEXT, None), "panel_admin": (BOOL, None),
    "homeassistant": (TEXT, None), "host_network": (BOOL, None), "host_pid": (BOOL, None), "host_ipc": (BOOL, None),
    "host_uts": (BOOL, None), "host_dbus": (BOOL, None), "devices": (LIST, None), "udev": (BOOL, None),
    "tmpfs": (BOOL, None), "map": (LIST, None), "environment": (MAP, None),
    "privileged": (LIST, None), "apparmor": (BOOL, None), "full_access": (BOOL, None), "audio": (BOOL, None),
    "video": (BOOL, None), "gpio": (BOOL, None), "usb": (BOOL, None), "uart": (BOOL, None),
    "devicetree": (BOOL, None), "kernel_modules": (BOOL, None), "realtime": (BOOL, None),
    "hassio_api": (BOOL, None), "hassio_role": (TEXT, {"default", "homeassistant", "backup", "manager", "admin"}),
    "homeassistant_api": (BOOL, None), "stdin": (BOOL, None), "legacy": (BOOL, None), "docker_api": (BOOL, None),
    "auth_api": (BOOL, None), "services": (LIST, None), "discovery": (LIST, None), "backup_exclude": (LIST, None),
    "backup_pre": (TEXT, None), "backup_post": (TEXT, None), "backup": (TEXT, {"hot", "cold"}), "options": (MAP, None),
    "schema": (MAP, None), "image": (TEXT, None), "ulimits": (MAP, None), "timeout": (int, None),
    "journald": (BOOL, None), "breaking_versions": (LIST, None),
}
REQUIRED = ("name", "version", "slug", "description", "arch")
MAPPINGS = {"data", "config", "ssl", "addons", "backup", "share", "media", "homeassistant_config",
            "all_addon_configs", "addon_config"}
SERVICE = re.compile(r"(mqtt|mysql):(provide|want|need)")
ELEMENT = re.compile(
    r"(?:bool|email|url|port|device(?:\(subsystem=[a-z]+\))?|(?:str|password)(?:\(\d*,\d*\))?|int(?:\(-?\d*,-?\d*\))?"
    r"|float(?:\(-?[\d.]*,-?[\d.]*\))?|match\((?P<match>.*)\)|list\((?P<list>.+)\))(?P<optional>\?)?")


def check_element(name, element, depth=0):
    """Problems of one line of the schema."""
    if isinstance(element, dict) and depth < 2:
        return [p for key, value in element.items() for p in check_element(f"{name}.{key}", value, depth + 1)]
    if isinstance(element, list) and len(element) == 1 and depth < 2:
        return check_element(name, element[0], depth + 1)
    found = ELEMENT.fullmatch(element) if isinstance(element, str) else None
    if not found:
        return [f"schema: {name}: no type {element!r}"]
    if found["match"] is not None:
        try:
            re.compile(found["match"])
        except re.error as problem:
            return [f"schema: {name}: {problem}"]
    return []


def check_value(name, element, value):
    """Problems of an option's value."""
    found = ELEMENT.fullmatch(element)
    kind = element.partition("(")[0].rstrip("?")
    if kind == "bool":
        good = isinstance(value, bool)
    elif kind in ("int", "port"):
        good = isinstance(value, int) and not isinstance(value, bool)
    elif kind == "match":
        good = isinstance(value, str) and re.match(found["match"], value) is not None
    elif kind == "list":
        good = value in found["list"].split("|")
    else:
        good = isinstance(value, str)
    return [] if good else [f"options: {name}: {value!r} is no {element}"]


def check_options(schema, options, complete=True):
    """Problems of a set of options; complete: as the app gets it."""
    problems = [f"options: {name} is not in the schema" for name in options if name not in schema]
    for name, element in schema.items():
        if name in options:
            problems += check_value(name, element, options[name])
        elif complete and not element.endswith("?"):
            problems.append(f"options: {name} is missing")
    return problems


def check_config(config):
    """All problems of a config.yaml, as texts."""
    problems = [f"{key} is missing" for key in REQUIRED if key not in config]
    for key, value in config.items():
        if key not in KEYS:
            problems.append(f"there is no key {key}")
            continue
        kind, values = KEYS[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            problems.append(f"{key}: {value!r} is no {kind.__name__}")
        elif values is not None:
            for one in value if kind is LIST else [value]:
                if one in ARCHES_OF_OLD:
                    problems.append(f"{key}: {one} is not served any more")
                elif one not in values:
                    problems.append(f"{key}: {one!r} is none of {sorted(values)}")
    if problems:
        return problems
    if not re.fullmatch(r"[-_.A-Za-z0-9]+", config["slug"]):
        problems.append("slug: odd characters")
    if not re.fullmatch(r"\d+\.\d+\.\d+(?:[-.+][A-Za-z0-9.]+)?", config["version"]):
        problems.append("version: not one that is ordered")
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", config.get("url", "https://example.org/")):
        problems.append("url: no address")
    for service in config.get("services", []):
        if not SERVICE.fullmatch(service):
            problems.append(f"services: {service}")
    for entry in config.get("map", []):
        if not isinstance(entry, dict) or entry.get("type") not in MAPPINGS or set(entry) - {"type", "read_only", "path"} \
                or not isinstance(entry.get("read_only", True), bool):
            problems.append(f"map: {entry}")
    for name, element in config.get("schema", {}).items():
        problems += check_element(name, element)
    if not problems:
        problems += check_options(config.get("schema", {}), config.get("options", {}))
        for name, element in config.get("schema", {}).items():
            if isinstance(element, str) and element.endswith("?") and name in config.get("options", {}):
                problems.append(f"options: {name} may be absent and has a default all the same")
    return problems
