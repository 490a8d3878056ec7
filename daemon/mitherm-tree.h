/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-device.h"

G_BEGIN_DECLS

/*
 * Our objects on the bus: org.freedesktop.DBus.ObjectManager at /org/mitherm, and below it the
 * thermometers and jobs. All thermometers are one registration (a subtree of GDBus), because a
 * skeleton and its entries in GDBusObjectManagerServer cost 5 KB for each.
 */
typedef struct _MithermTree MithermTree;

/* (transfer none) (nullable): the thermometer at /org/mitherm/device/@node */
typedef MithermDevice *(*MithermTreeFindFunc) (const char *node, gpointer user_data);
/* Calls @func for every thermometer. */
typedef void (*MithermTreeForeachFunc) (GFunc func, gpointer func_data, gpointer user_data);

MithermTree *mitherm_tree_new (GDBusConnection *connection, MithermTreeFindFunc find,
                               MithermTreeForeachFunc foreach, gpointer user_data, GError **error);
void mitherm_tree_free (MithermTree *self);

/* Tells everybody that @device has come or goes. */
void mitherm_tree_add_device (MithermTree *self, MithermDevice *device);
/* Sensor1 of a thermometer that is on the bus has come. */
void mitherm_tree_add_sensor (MithermTree *self, MithermDevice *device);
void mitherm_tree_remove_device (MithermTree *self, MithermDevice *device);

/* Exports @skeleton (jobs) at @path. */
void mitherm_tree_add (MithermTree *self, const char *path, GDBusInterfaceSkeleton *skeleton);
void mitherm_tree_remove (MithermTree *self, const char *path);

G_END_DECLS
