/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "bridge-bus.h"
#include "bridge-item.h"
#include "bridge-mqtt.h"
#include "bridge.h"

G_BEGIN_DECLS

/*
 * Shared by bridge.c and its parts only:
 *
 *   bridge.c          the object, and what comes from the broker and from the daemon as a whole
 *   bridge-told.c     properties and signals of thermometers, and what is told of them
 *   bridge-job.c      the daemon's jobs, and which one a thermometer is busy with
 *   bridge-command.c  commands from the broker: taken, kept waiting, started, ended
 *   bridge-version.c  has versions read that nobody knows
 *   bridge-forget.c   thermometers whose entities are removed
 *   bridge-ignore.c   counts what is ignored
 *
 * They stand on bridge-item (what was told of one thermometer), bridge-mqtt (the connection to the
 * broker) and bridge-bus (the daemon's objects), and these on bridge-payload and bridge-config.
 * Everything runs in the default main context.
 */

#define BRIDGE_SENSOR_INTERFACE "org.mitherm.Sensor1"
#define BRIDGE_NO_JOB           "/"
#define BRIDGE_MAX_ITEMS        512

/* A daemon that has just come back, or a job that just ended, may still be telling its objects. */
#define BRIDGE_GRACE_US (10 * G_USEC_PER_SEC)
/* What comes again and again is one line a minute in the log. */
#define BRIDGE_LOG_GAP_US (60 * G_USEC_PER_SEC)

/* One Job1 of the daemon, as far as it was told: any text may be NULL. */
typedef struct
{
  char *device; /* path */
  char *kind;
  char *state;
  char *message;
  double progress;
} BridgeJob;

struct _Bridge
{
  const BridgeConfig *config; /* borrowed */
  BridgeMqtt *mqtt;
  BridgeBus *bus;
  GHashTable *items;         /* path: BridgeItem */
  GHashTable *by_id;         /* id: BridgeItem, borrowed */
  GHashTable *jobs;          /* path: BridgeJob */
  GCancellable *cancellable; /* of all method calls */

  GSourceFunc refused; /* nullable */
  gpointer refused_data;
  char *birth_topic;
  guint birth_id; /* a birth message was heard, its random wait runs */
  guint housekeeping_id;
  gboolean online_told;  /* the broker has taken that the bridge is there */
  gboolean settled;      /* the broker has told what it had retained */
  gint64 running_since;  /* the daemon came or went, monotonic */
  GHashTable *leftovers; /* bridge-forget.c: id: what is left of it on the broker */
  gint64 read_us;        /* bridge-version.c: when a version was last asked for */
  GHashTable *ignored;   /* bridge-ignore.c: static reason: count */
  guint ignored_new;     /* since the last line in the log */
  gint64 ignored_logged; /* when that was, monotonic */
};

/* --- bridge-told.c -------------------------------------------------------------------------- */

/* Derives what depends on jobs and on time, and tells the broker what has changed. */
void bridge_told_refresh (Bridge *self, BridgeItem *item);

/* Values are there that the daemon does not call stale, or an advertisement came a while ago. */
gboolean bridge_told_heard_lately (BridgeItem *item);

/* Callbacks of BridgeBus; @data: the Bridge. */
void bridge_told_on_properties (const char *path, const char *interface, GVariant *properties,
                                gpointer data);
void bridge_told_on_removed (const char *path, const char *const *interfaces, gpointer data);
void bridge_told_on_signal (const char *path, const char *interface, const char *name,
                            GVariant *parameters, gpointer data);

/* The thermometer is not on the bus any more, or only its Sensor1 is not. */
void bridge_told_on_gone (Bridge *self, BridgeItem *item);
void bridge_told_on_sensor_gone (Bridge *self, BridgeItem *item);

/* Takes a property of type s or d, if it is there; what is no finite number becomes NaN. */
void bridge_told_take_text (GVariant *properties, const char *key, char **field);
void bridge_told_take_number (GVariant *properties, const char *key, double *field);

/* --- bridge-job.c --------------------------------------------------------------------------- */

void bridge_job_free (gpointer job);

/* It does not run any more, however it ended. */
gboolean bridge_job_is_final (const BridgeJob *job);

/* (nullable): the job that our command started, else the one that the daemon names. */
BridgeJob *bridge_job_current (Bridge *self, BridgeItem *item);

/* A job, or a call that starts one, is under way. */
gboolean bridge_job_is_busy (Bridge *self, BridgeItem *item);

void bridge_job_on_properties (Bridge *self, const char *path, GVariant *properties);
void bridge_job_on_gone (Bridge *self, const char *path);

/* --- bridge-command.c ----------------------------------------------------------------------- */

/* Starts a command of a known thermometer, keeps it waiting, or ignores it. */
void bridge_command_take (Bridge *self, BridgeItem *item, BridgeCommand command,
                          BridgeArrival arrival);

/* Starts what waited for the daemon or for the thermometer's return. */
void bridge_command_run_waiting (Bridge *self, BridgeItem *item);

/* The job of a command of ours is over. @job: NULL, if it was never seen. */
void bridge_command_end (BridgeItem *item, const BridgeJob *job);

/* Gives up what has waited for too long. */
void bridge_command_expire (Bridge *self, BridgeItem *item, gint64 now);

/* --- bridge-version.c ----------------------------------------------------------------------- */

/* Asks for one version that is not known, if it is time for that. */
void bridge_version_read (Bridge *self, gint64 now);

/* --- bridge-forget.c ------------------------------------------------------------------------ */

/* Removes the thermometer's entities. @why: for the log. */
void bridge_forget (Bridge *self, BridgeItem *item, const char *why);

/* The daemon has been there for a while, and the thermometer is not: forgets one with keys. */
void bridge_forget_absent (Bridge *self, BridgeItem *item, gint64 now);

/* Another thermometer takes its place; what is on the broker is removed, if it stays away. */
void bridge_forget_replaced (Bridge *self, const char *id);

/* A retained problem message: one of an earlier run, or of another bridge. */
void bridge_forget_note_left (Bridge *self, const char *id, const void *payload, gsize len);

/* All of these have come: those of thermometers that are not there now are offline. */
void bridge_forget_on_settled (Bridge *self);

/* The daemon has been there for a while: what it does not know any more was forgotten. */
void bridge_forget_judge_left (Bridge *self);

/* --- bridge-ignore.c ------------------------------------------------------------------------ */

/* @reason: static. A line for each new reason, then at most one a minute, whatever comes. */
void bridge_ignore (Bridge *self, const char *reason);
void bridge_ignore_log (Bridge *self);

G_END_DECLS
