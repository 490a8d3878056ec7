/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-private.h"

#define COMMAND_WAIT_US (60 * G_USEC_PER_SEC)
#define DUPLICATE_US    (120 * G_USEC_PER_SEC)
#define REASON_NOTHING  "nothing-to-install"
#define REASON_READING  "reading"
#define NOT_AUTHORIZED  "org.mitherm.Error.NotAuthorized"

typedef struct
{
  Bridge *bridge;
  char id[BRIDGE_ID_LEN + 1];
  BridgeCommand command;
} Call;

static const char *
command_name (BridgeCommand command)
{
  return command == BRIDGE_COMMAND_INSTALL ? "install" : "set clock";
}

/* What a command came to stays readable: an attribute of the problem, and below an update. */
static void
note_end (BridgeItem *item, BridgeCommand command, const char *message)
{
  g_autofree char *summary = NULL;

  bridge_set_text (&item->told.last_error, message);
  if (command != BRIDGE_COMMAND_INSTALL)
    return;
  if (*message != '\0')
    summary = g_strconcat ("The last update did not succeed: ", message, NULL);
  bridge_set_text (&item->told.summary, summary);
}

/* "": well. */
static const char *
outcome (const BridgeJob *job)
{
  if (job == NULL || !bridge_job_is_final (job))
    return "The job went away before it ended.";
  if (g_str_equal (job->state, "done"))
    return "";
  return job->message != NULL && *job->message != '\0' ? job->message : job->state;
}

void
bridge_command_end (BridgeItem *item, const BridgeJob *job)
{
  const char *message = outcome (job);

  if (*message != '\0')
    g_message ("%s: %s: %s", item->told.address, command_name (item->running), message);
  else
    g_message ("%s: %s: done", item->told.address, command_name (item->running));
  note_end (item, item->running, message);
  g_clear_pointer (&item->started, g_free);
  item->running = BRIDGE_COMMAND_NONE;
}

/* The same again, however often it is tried, is one line a minute. */
static void
fail_command (Bridge *self, BridgeItem *item, BridgeCommand command, const char *message)
{
  gint64 now = g_get_monotonic_time ();

  if (g_strcmp0 (item->complaint, message) != 0 || now - item->complaint_us >= BRIDGE_LOG_GAP_US)
    {
      g_message ("%s: %s: %s", item->told.address, command_name (command), message);
      bridge_set_text (&item->complaint, message);
      item->complaint_us = now;
    }
  note_end (item, command, message);
  bridge_told_refresh (self, item);
}

/* (transfer full): why a call failed. What nobody here may do is said in clear words. */
static char *
explain (BridgeCommand command, GError *error)
{
  const char *what = command == BRIDGE_COMMAND_INSTALL ? "Updates are not allowed"
                                                       : "Setting the clock is not allowed";
  g_autofree char *name = g_dbus_error_get_remote_error (error);
  gboolean by_daemon = g_strcmp0 (name, NOT_AUTHORIZED) == 0;

  g_dbus_error_strip_remote_error (error);
  if (by_daemon)
    return g_strdup_printf ("%s: %s", what, error->message);
  /* The bus speaks of match rules; who configured it wants to know what to look for. */
  if (g_error_matches (error, G_DBUS_ERROR, G_DBUS_ERROR_ACCESS_DENIED))
    return g_strdup_printf ("%s: the bus refuses them (in the Home Assistant app the option "
                            "allow_updates)",
                            what);
  return g_strdup (error->message);
}

static void
on_job_started (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autofree Call *call = data;
  g_autoptr (GError) error = NULL;
  g_autofree char *path = bridge_bus_call_job_finish (result, &error);
  g_autofree char *message = NULL;
  Bridge *self = call->bridge;
  BridgeItem *item;

  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  item = g_hash_table_lookup (self->by_id, call->id);
  if (item == NULL)
    return;
  item->calling = BRIDGE_COMMAND_NONE;
  if (path != NULL)
    {
      item->started = g_steal_pointer (&path);
      item->running = call->command;
      g_message ("%s: %s: started", item->told.address, command_name (call->command));
      note_end (item, call->command, "");
      bridge_told_refresh (self, item);
      return;
    }
  if (bridge_bus_never_arrived (error))
    {
      item->waits_until[call->command] = g_get_monotonic_time () + COMMAND_WAIT_US;
      bridge_told_refresh (self, item);
      return;
    }
  message = explain (call->command, error);
  fail_command (self, item, call->command, message);
}

static void
start_command (Bridge *self, BridgeItem *item, BridgeCommand command)
{
  Call *call = g_new0 (Call, 1);

  call->bridge = self;
  call->command = command;
  g_strlcpy (call->id, item->told.id, sizeof call->id);
  item->waits_until[command] = 0;
  item->calling = command;
  g_debug ("%s: %s", item->told.address, command_name (command));
  bridge_bus_call_job (self->bus, item->path,
                       command == BRIDGE_COMMAND_INSTALL ? "UpdateFromCatalog" : "SetClock",
                       g_variant_new ("(a{sv})", NULL), self->cancellable, on_job_started, call);
  bridge_told_refresh (self, item);
}

/* What is under way ends soon by itself and was not asked for here: a command may wait for it. */
static gboolean
is_only_read (Bridge *self, BridgeItem *item)
{
  BridgeJob *job = bridge_job_current (self, item);

  return item->calling == BRIDGE_COMMAND_NONE && item->started == NULL && job != NULL
         && g_strcmp0 (job->kind, "info") == 0;
}

static const char *
refusal (Bridge *self, BridgeItem *item, BridgeCommand command)
{
  if (bridge_job_is_busy (self, item))
    return is_only_read (self, item) ? REASON_READING : "busy";
  if (command == BRIDGE_COMMAND_INSTALL && *item->told.update_version == '\0')
    return REASON_NOTHING;
  return NULL;
}

void
bridge_command_run_waiting (Bridge *self, BridgeItem *item)
{
  for (BridgeCommand command = BRIDGE_COMMAND_INSTALL; command < BRIDGE_N_COMMANDS; command++)
    {
      const char *reason;

      if (item->waits_until[command] == 0)
        continue;
      reason = refusal (self, item, command);
      /* After its start the daemon may not know at once what thermometer it is. */
      if (g_strcmp0 (reason, REASON_NOTHING) == 0 || g_strcmp0 (reason, REASON_READING) == 0)
        continue;
      item->waits_until[command] = 0;
      if (reason == NULL)
        start_command (self, item, command);
      else
        bridge_ignore (self, reason);
    }
  bridge_told_refresh (self, item);
}

void
bridge_command_take (Bridge *self, BridgeItem *item, BridgeCommand command, BridgeArrival arrival)
{
  gint64 now = g_get_monotonic_time ();
  gboolean waits = item->waits_until[command] != 0;
  const char *reason = waits ? "busy" : NULL;

  /* The broker repeats what it does not know to have arrived before the connection was lost. */
  if (arrival == BRIDGE_ARRIVAL_KEPT && item->taken[command] != 0
      && now - item->taken[command] < DUPLICATE_US)
    reason = "duplicate";
  if (reason == NULL && bridge_bus_is_running (self->bus) && item->present)
    reason = refusal (self, item, command);
  if (reason != NULL && !g_str_equal (reason, REASON_READING))
    {
      bridge_ignore (self, reason);
      return;
    }
  item->taken[command] = now;
  if (reason == NULL && bridge_bus_is_running (self->bus) && item->present)
    {
      start_command (self, item, command);
      return;
    }
  g_message ("%s: %s: waits", item->told.address, command_name (command));
  item->waits_until[command] = now + COMMAND_WAIT_US;
  bridge_told_refresh (self, item);
}

static void
drop_old_commands (Bridge *self, BridgeItem *item, gint64 now)
{
  for (BridgeCommand command = BRIDGE_COMMAND_INSTALL; command < BRIDGE_N_COMMANDS; command++)
    if (item->waits_until[command] != 0 && item->waits_until[command] < now)
      {
        item->waits_until[command] = 0;
        fail_command (self, item, command,
                      "given up: the daemon or the thermometer did not come back");
      }
}

/* A job that nobody has ever seen must not block the thermometer for ever. */
static void
drop_lost_job (Bridge *self, BridgeItem *item, gint64 now)
{
  if (item->started != NULL && bridge_job_current (self, item) == NULL
      && now - item->taken[item->running] > COMMAND_WAIT_US)
    bridge_command_end (item, NULL);
}

void
bridge_command_expire (Bridge *self, BridgeItem *item, gint64 now)
{
  drop_old_commands (self, item, now);
  drop_lost_job (self, item, now);
}
