#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds up JUnit files: which tests failed, what was skipped, and last "N passed, N failed"."""

import sys
import xml.etree.ElementTree as ElementTree


def cases(path):
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        found = list(suite.iter("testcase"))
        for case in found:
            yield suite.get("name"), case
        # A program that died leaves an error without a case of its own.
        if not found and int(suite.get("errors", 0)) + int(suite.get("failures", 0)) > 0:
            yield suite.get("name"), None


def main():
    passed = failed = skipped = 0
    for path in sys.argv[1:]:
        for suite, case in cases(path):
            name = f"{suite} {case.get('name') if case is not None else '(died)'}"
            if case is None or case.find("failure") is not None or case.find("error") is not None:
                failed += 1
                print(f"FAILED: {name}")
            elif case.find("skipped") is not None:
                skipped += 1
            else:
                passed += 1
    if passed == 0:
        failed += 1
        print("FAILED: no test ran")
    print(f"{skipped} skipped")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
