/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/*
 * A plain client of org.bluez on a private bus with mitherm-sim behind it. It knows nothing of
 * mitherm: what it sees is what any program sees. Calls block; signals are collected while it
 * waits.
 */
typedef struct
{
  GSubprocess *bus;
  char *address;
  char *devices_file; /* nullable */
  GSubprocess *sim;
  GDataInputStream *lines;
  GDBusConnection *connection;
  guint subscription;
  GPtrArray *signals; /* of Signal */
} World;

typedef struct
{
  char *path;
  char *interface; /* for PropertiesChanged: whose properties */
  char *name;
  GVariant *parameters;
} Signal;

#define WORLD_DEVICE  "/org/bluez/hci0/dev_A4_C1_38_00_00_01"
#define WORLD_ADAPTER "/org/bluez/hci0"

/* @devices: text of a devices file; NULL: one thermometer of --count=1. Ends after "ready". */
World *world_new (const char *devices);
void world_free (World *world);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (World, world_free)

GDBusConnection *world_connect (World *world);
/* Sends a control line and checks that it was taken. */
void world_order (World *world, const char *line);

/* Calls org.bluez. Returns: (transfer full): the answer; fails the test on an error */
GVariant *world_call (World *world, const char *path, const char *interface, const char *method,
                      GVariant *parameters);
/* The call must fail, with error @name ("org.bluez.Error.Failed") and @text where not NULL. */
void world_call_fails (World *world, const char *path, const char *interface, const char *method,
                       GVariant *parameters, const char *name, const char *text);
/* (transfer full) (nullable): a property, NULL when the object lacks it */
GVariant *world_get (World *world, const char *path, const char *interface, const char *property);
gboolean world_get_boolean (World *world, const char *path, const char *interface,
                            const char *property);

/* Takes what comes in for so long. */
void world_spin (World *world, guint ms);
/* Waits for the next change of @property at @path that was not taken yet, at most 15 s.
 * Returns: (transfer full): the value */
GVariant *world_wait_change (World *world, const char *path, const char *property);
/* Forgets the signals so far. */
void world_forget (World *world);
/* How many times @property of @path changed since then. */
guint world_count_changes (World *world, const char *path, const char *property);
gboolean world_saw (World *world, const char *signal, const char *path);

/* Finds the thermometer, stops scanning, connects, waits for its services. */
void world_find (World *world);
void world_join (World *world);
/* (transfer full) (nullable): path of the characteristic whose UUID has @part, NULL: none */
char *world_chrc (World *world, const char *part);

/* Reads a value. Returns: (transfer full) */
GBytes *world_read (World *world, const char *chrc);
GVariant *world_write_args (const guint8 *data, gsize len, const char *type);
/* Returns: a socket, from AcquireWrite or AcquireNotify; @mtu nullable */
int world_acquire (World *world, const char *chrc, const char *method, guint16 *mtu);
GVariant *world_no_options (void);

G_END_DECLS
