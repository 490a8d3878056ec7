#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds up test results: which failed, what was skipped, and last "N passed, N failed".

summary.py [NAME.junit.xml | --problem=TEXT]...: beside each file may lie NAME.json, meson's log with a
line a program. A problem counts as failed: something that could not be built, and the like.
"""

import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


class Count:
    def __init__(self):
        self.passed = self.skipped = 0
        self.failed = []

    def case(self, suite, case):
        if case.find("failure") is not None or case.find("error") is not None:
            self.failed.append(f"{suite} {case.get('name')}")
        elif case.find("skipped") is not None:
            self.skipped += 1
        else:
            self.passed += 1

    def junit(self, path):
        before = self.passed + self.skipped + len(self.failed)
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            self.failed.append(f"{path.name}: no result ({error})")
            return
        for suite in root.iter("testsuite"):
            for case in suite.iter("testcase"):
                self.case(suite.get("name"), case)
        if self.passed + self.skipped + len(self.failed) == before:
            self.failed.append(f"{path.name}: no test in it")

    def programs(self, path, known):
        """A program that died or was too slow may have told of no failed case. known: what failed in it."""
        for line in path.read_text().splitlines():
            program = json.loads(line)
            name = program["name"].split(" / ")[-1]
            if program["result"] not in ("OK", "SKIP") and not any(name in failure for failure in known):
                self.failed.append(f"{program['name']} ({program['result']})")


def main():
    count = Count()
    for name in sys.argv[1:]:
        if name.startswith("--problem="):
            count.failed.append(name.removeprefix("--problem="))
            continue
        already = len(count.failed)
        count.junit(pathlib.Path(name))
        log = pathlib.Path(name.removesuffix(".junit.xml") + ".json")
        if log.exists():
            count.programs(log, count.failed[already:])
    if count.passed == 0:
        count.failed.append("no test passed")
    for failure in count.failed:
        print(f"FAILED: {failure}")
    print(f"{count.skipped} skipped")
    print(f"{count.passed} passed, {len(count.failed)} failed")
    return 1 if count.failed else 0


sys.exit(main())
