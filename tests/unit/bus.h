/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

/* (transfer full): one more client of a test's own bus */
GDBusConnection *bus_connect (GTestDBus *bus);
