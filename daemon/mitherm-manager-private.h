/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-dbus.h"
#include "mitherm-manager.h"

/* Between the manager itself and the methods of Manager1. */

/* Lets the methods of @skeleton be answered. */
void mitherm_manager_connect_calls (MithermManager *self, MithermDBusManager1 *skeleton);

void mitherm_manager_foreach_device (MithermManager *self, GFunc func, gpointer user_data);
/* (transfer none) (nullable): the thermometer at /org/mitherm/device/@node */
MithermDevice *mitherm_manager_find_node (MithermManager *self, const char *node);
/* (transfer none): made and put on the bus if it was not known */
MithermDevice *mitherm_manager_ensure_device (MithermManager *self, const char *address);
