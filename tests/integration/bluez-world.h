/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi.h"
#include "mi-runner.h"
#include "mitherm-bluez.h"

#include <json-glib/json-glib.h>

G_BEGIN_DECLS

/*
 * A private bus, the simulator as org.bluez on it, and a MithermBluez: what the radio does with
 * the real D-Bus in between. Whatever does not come within its limit stops the test program.
 */

#define WORLD_A "A4:C1:38:00:00:01"
#define WORLD_B "A4:C1:38:00:00:02"
/* Sanitized programs on a loaded machine. */
#define WORLD_LIMIT_MS 60000

typedef struct
{
  GTestDBus *dbus;
  GSubprocess *sim;
  GDataInputStream *sim_out;
  GDBusConnection *bus;
  MithermRadio *radio;
  GHashTable *adverts; /* address -> number of advertisements */
  guint16 last_uuid;
  char *last_name;
  guint changes;
  GString *steps; /* "connecting;discovering;" of all connects */
} World;

/* @config: text of the devices file; @adapters: how many */
World *world_new (const char *config, guint adapters);
void world_free (World *world);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (World, world_free)

/* Sends one control line. Returns: (transfer full): the simulator's answer */
JsonNode *world_control (World *world, const char *line);
/* The same for lines that just have to work. */
void world_do (World *world, const char *line);
/* String @member of the state of @address, "" if it is null. */
char *world_state (World *world, const char *address, const char *member);

typedef gboolean (*WorldCondition) (World *world, gconstpointer data);
/* Runs the main loop until @condition holds. */
void world_until (World *world, WorldCondition condition, gconstpointer data);
/* Runs the main loop until *@flag is TRUE. */
void world_until_flag (World *world, gboolean *flag);

/* Waits until @address has been heard at least once more. */
void world_until_heard (World *world, const char *address);

/* A connect under way, or its result. */
typedef struct
{
  gboolean over;
  MiLink *link;
  GError *error;
  guint closed;
  gint64 took_us;
  GCancellable *cancellable;
} WorldLink;

WorldLink *world_connect_start (World *world, const char *address, const char *adapter);
/* Connects; @address must come up. */
WorldLink *world_connect (World *world, const char *address);
void world_link_free (WorldLink *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (WorldLink, world_link_free)
/* Disconnects and waits for "closed". */
void world_disconnect (World *world, WorldLink *self);

/* Reads @channel; text of the value, NULL with @error. */
char *world_read (World *world, MiLink *link, guint16 channel, GError **error);
void world_settle (World *world, const char *address);
void world_forget (World *world, const char *address);

/* Runs @procedure (transfer full) over @runner; its result. */
gboolean world_run (World *world, MiRunner *runner, MiProcedure *procedure, GError **error);

G_END_DECLS
