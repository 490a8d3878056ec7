/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge.h"

#include "bridge-bus.h"
#include "bridge-item.h"

#include <math.h>
#include <string.h>

#define DEVICE_INTERFACE "org.mitherm.Device1"
#define SENSOR_INTERFACE "org.mitherm.Sensor1"
#define JOB_INTERFACE    "org.mitherm.Job1"
#define NO_JOB           "/"

#define BIRTH_TOPIC       "homeassistant/status"
#define BIRTH_WAIT_MAX_MS 10000
#define HOUSEKEEPING_S    5
/* A daemon that has just come back, or a job that just ended, may still be telling its objects. */
#define GRACE_US           (10 * G_USEC_PER_SEC)
#define HEARD_US           (15 * 60 * G_USEC_PER_SEC)
#define COMMAND_WAIT_US    (60 * G_USEC_PER_SEC)
#define DUPLICATE_US       (120 * G_USEC_PER_SEC)
#define IGNORED_LOG_GAP_US (60 * G_USEC_PER_SEC)
/* A version that could not be read. */
#define READ_AGAIN_US  (G_GINT64_CONSTANT (3600) * G_USEC_PER_SEC)
#define READ_GAP_US    (10 * G_USEC_PER_SEC)
#define MAX_ITEMS      512
#define MAX_LEFTOVERS  1024
#define REASON_UNKNOWN "unknown-thermometer"
#define REASON_NOTHING "nothing-to-install"
#define REASON_READING "reading"
#define NOT_AUTHORIZED "org.mitherm.Error.NotAuthorized"
#define RSSI_MIN       (-128)
#define RSSI_MAX       127

typedef struct
{
  char *device; /* path */
  char *kind;
  char *state;
  char *message;
  double progress;
} Job;

struct _Bridge
{
  const BridgeConfig *config;
  BridgeMqtt *mqtt;
  BridgeBus *bus;
  GHashTable *items;     /* path: BridgeItem */
  GHashTable *by_id;     /* id: BridgeItem, borrowed */
  GHashTable *jobs;      /* path: Job */
  GHashTable *leftovers; /* id: whether it had keys, of retained topics that we found */
  gboolean settled;
  gint64 running_since; /* monotonic */
  gint64 read_us;       /* when a version was last asked for */
  guint birth_id, housekeeping_id;
  char *birth_topic;
  GCancellable *cancellable;
  GHashTable *ignored;  /* static reason: count */
  gboolean online_told; /* the broker has taken that the bridge is there */
  GSourceFunc refused;
  gpointer refused_data;
  guint ignored_new;
  gint64 ignored_logged;
};

typedef struct
{
  Bridge *bridge;
  char id[BRIDGE_ID_LEN + 1];
  BridgeCommand command;
} Call;

static void run_waiting (Bridge *self, BridgeItem *item);

static void
job_free (gpointer data)
{
  Job *job = data;

  g_free (job->device);
  g_free (job->kind);
  g_free (job->state);
  g_free (job->message);
  g_free (job);
}

static const char *
command_name (BridgeCommand command)
{
  return command == BRIDGE_COMMAND_INSTALL ? "install" : "set clock";
}

/* --- what is ignored is counted ------------------------------------------------------------- */

static void
log_ignored (Bridge *self)
{
  g_autoptr (GString) text = g_string_new (NULL);
  GHashTableIter iter;
  gpointer reason, count;

  g_hash_table_iter_init (&iter, self->ignored);
  while (g_hash_table_iter_next (&iter, &reason, &count))
    g_string_append_printf (text, "%s%s %u", text->len > 0 ? ", " : "", (const char *) reason,
                            GPOINTER_TO_UINT (count));
  g_message ("ignored messages so far: %s", text->str);
  self->ignored_new = 0;
  self->ignored_logged = g_get_monotonic_time ();
}

/* @reason: static. A line for each new reason, then at most one a minute, whatever comes. */
static void
ignore (Bridge *self, const char *reason)
{
  guint count = GPOINTER_TO_UINT (g_hash_table_lookup (self->ignored, reason));

  g_hash_table_insert (self->ignored, (gpointer) reason,
                       GUINT_TO_POINTER (count < G_MAXUINT ? count + 1 : count));
  self->ignored_new++;
  if (count == 0 || g_get_monotonic_time () - self->ignored_logged >= IGNORED_LOG_GAP_US)
    log_ignored (self);
}

/* --- a thermometer's state from what the bus tells ------------------------------------------ */

static gboolean
is_final (const Job *job)
{
  return g_strcmp0 (job->state, "done") == 0 || g_strcmp0 (job->state, "failed") == 0
         || g_strcmp0 (job->state, "cancelled") == 0;
}

static Job *
current_job (Bridge *self, BridgeItem *item)
{
  const char *path = item->started != NULL ? item->started : item->job;

  return g_hash_table_lookup (self->jobs, path);
}

static gboolean
is_busy (Bridge *self, BridgeItem *item)
{
  Job *job = current_job (self, item);

  if (item->calling != BRIDGE_COMMAND_NONE || item->started != NULL)
    return TRUE;
  return !g_str_equal (item->job, NO_JOB) && (job == NULL || !is_final (job));
}

/* What is under way ends soon by itself and was not asked for here: a command may wait for it. */
static gboolean
is_only_read (Bridge *self, BridgeItem *item)
{
  Job *job = current_job (self, item);

  return item->calling == BRIDGE_COMMAND_NONE && item->started == NULL && job != NULL
         && g_strcmp0 (job->kind, "info") == 0;
}

/* Some speak so rarely that only the daemon can tell whether their values are old. */
static gboolean
heard_lately (BridgeItem *item)
{
  if (item->measured && !item->told.stale && !isnan (item->told.temperature))
    return TRUE;
  return item->told.last_seen > 0 && g_get_real_time () - item->told.last_seen < HEARD_US;
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

/* A job of ours is over. */
static void
end_started (BridgeItem *item, const Job *job)
{
  const char *message = "";

  if (job == NULL)
    message = "The job went away before it ended.";
  else if (!g_str_equal (job->state, "done"))
    message = job->message != NULL && *job->message != '\0' ? job->message : job->state;
  if (*message != '\0')
    g_message ("%s: %s: %s", item->told.address, command_name (item->running), message);
  else
    g_message ("%s: %s: done", item->told.address, command_name (item->running));
  note_end (item, item->running, message);
  g_clear_pointer (&item->started, g_free);
  item->running = BRIDGE_COMMAND_NONE;
}

/* Derives what depends on the job and on time, and tells the broker. */
static void
refresh (Bridge *self, BridgeItem *item)
{
  Job *job = current_job (self, item);
  gboolean running_update = FALSE;

  if (item->started != NULL && job != NULL && is_final (job))
    {
      end_started (item, job);
      job = current_job (self, item);
    }
  if (job != NULL && !is_final (job))
    running_update = g_strcmp0 (job->kind, "update") == 0;
  else if (job == NULL && item->started != NULL)
    running_update = item->running == BRIDGE_COMMAND_INSTALL;
  item->told.updating = running_update || item->calling == BRIDGE_COMMAND_INSTALL
                        || item->waits_until[BRIDGE_COMMAND_INSTALL] != 0;
  item->told.progress = running_update && job != NULL ? job->progress : -1;
  bridge_thermometer_judge_battery (&item->told);
  item->online
      = item->present && (heard_lately (item) || item->told.updating || is_busy (self, item));
  bridge_item_publish (item);
}

static void
refresh_all (Bridge *self)
{
  GHashTableIter iter;
  gpointer item;

  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, &item))
    refresh (self, item);
}

static void
take_text (GVariant *properties, const char *key, char **field)
{
  const char *text;

  if (g_variant_lookup (properties, key, "&s", &text))
    bridge_set_text (field, text);
}

/* NaN in all its forms becomes one, infinity is none of ours. */
static void
take_number (GVariant *properties, const char *key, double *field)
{
  double number;

  if (g_variant_lookup (properties, key, "d", &number))
    *field = isfinite (number) ? number : NAN;
}

static void
take_battery (GVariant *properties, const char *key, BridgeThermometer *told)
{
  guint8 battery;

  if (g_variant_lookup (properties, key, "y", &battery))
    told->battery = battery;
}

static void
take_rssi (GVariant *properties, const char *key, BridgeThermometer *told)
{
  gint16 rssi;

  if (g_variant_lookup (properties, key, "n", &rssi))
    told->rssi = CLAMP (rssi, RSSI_MIN, RSSI_MAX);
}

static void
take_seen (GVariant *properties, const char *key, BridgeThermometer *told)
{
  guint64 seen;

  if (g_variant_lookup (properties, key, "t", &seen) && seen <= G_MAXINT64
      && (gint64) seen > told->last_seen)
    told->last_seen = (gint64) seen;
}

static void
forget (Bridge *self, BridgeItem *item, const char *why)
{
  if (item->forgotten)
    return;
  g_message ("%s: %s: its entities are removed", item->told.address, why);
  item->forgotten = TRUE;
  bridge_set_text (&item->told.last_error, "");
  bridge_set_text (&item->told.summary, "");
  memset (item->waits_until, 0, sizeof item->waits_until);
  bridge_item_retract (item);
}

static void
take_keys (Bridge *self, BridgeItem *item, GVariant *properties)
{
  gboolean had_keys = item->told.has_keys;
  gboolean has_keys;

  if (!g_variant_lookup (properties, "HasKeys", "b", &has_keys))
    return;
  item->told.has_keys = has_keys;
  if (had_keys && !has_keys)
    forget (self, item, "the thermometer was forgotten");
  if (has_keys)
    item->forgotten = FALSE;
}

/* Room for one more: one that is not there any more and has no keys makes it. */
static gboolean
make_room (Bridge *self)
{
  GHashTableIter iter;
  BridgeItem *item;

  if (g_hash_table_size (self->items) < MAX_ITEMS)
    return TRUE;
  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, (gpointer *) &item))
    if (!item->present && !item->told.has_keys && !is_busy (self, item))
      {
        g_hash_table_remove (self->by_id, item->told.id);
        g_hash_table_iter_remove (&iter);
        return TRUE;
      }
  return FALSE;
}

static BridgeItem *
add_item (Bridge *self, const char *path, GVariant *properties)
{
  BridgeItem *item;
  const char *address;

  if (!g_variant_lookup (properties, "Address", "&s", &address))
    return NULL;
  if (!make_room (self))
    {
      ignore (self, "too-many-thermometers");
      return NULL;
    }
  item = bridge_item_new (address, path, self->mqtt, self->config->prefix);
  if (item == NULL || g_hash_table_contains (self->by_id, item->told.id))
    {
      g_clear_pointer (&item, bridge_item_free);
      ignore (self, "wrong-address");
      return NULL;
    }
  g_hash_table_insert (self->items, item->path, item);
  g_hash_table_insert (self->by_id, item->told.id, item);
  return item;
}

static void
on_device_properties (Bridge *self, const char *path, GVariant *properties)
{
  BridgeItem *item = g_hash_table_lookup (self->items, path);
  const char *job;

  if (item == NULL)
    item = add_item (self, path, properties);
  if (item == NULL)
    return;
  item->present = TRUE;
  take_text (properties, "Name", &item->told.name);
  take_text (properties, "Model", &item->told.model);
  take_text (properties, "Hardware", &item->told.hardware);
  take_text (properties, "Firmware", &item->told.firmware);
  take_text (properties, "UpdateVersion", &item->told.update_version);
  take_rssi (properties, "Rssi", &item->told);
  take_seen (properties, "LastSeen", &item->told);
  take_keys (self, item, properties);
  if (g_variant_lookup (properties, "Job", "&o", &job))
    bridge_set_text (&item->job, job);
  refresh (self, item);
  if (bridge_bus_is_running (self->bus))
    run_waiting (self, item);
}

static void
clear_readings (BridgeItem *item)
{
  item->told.temperature = item->told.humidity = item->told.voltage = NAN;
  item->told.battery = G_MAXUINT8;
}

static void
on_sensor_properties (Bridge *self, const char *path, GVariant *properties)
{
  BridgeItem *item = g_hash_table_lookup (self->items, path);
  guint64 updated;

  if (item == NULL)
    return;
  item->measured = TRUE;
  take_number (properties, "Temperature", &item->told.temperature);
  take_number (properties, "Humidity", &item->told.humidity);
  take_number (properties, "Voltage", &item->told.voltage);
  take_battery (properties, "Battery", &item->told);
  take_text (properties, "KeyState", &item->told.key_state);
  take_seen (properties, "Updated", &item->told);
  /* Whatever stands there before the first value is none. */
  if (g_variant_lookup (properties, "Updated", "t", &updated) && updated == 0)
    clear_readings (item);
  g_variant_lookup (properties, "Stale", "b", &item->told.stale);
  refresh (self, item);
}

static void
on_measurement (Bridge *self, BridgeItem *item, GVariant *values)
{
  item->measured = TRUE;
  take_number (values, "temperature", &item->told.temperature);
  take_number (values, "humidity", &item->told.humidity);
  take_number (values, "voltage", &item->told.voltage);
  take_battery (values, "battery", &item->told);
  take_rssi (values, "rssi", &item->told);
  take_seen (values, "time", &item->told);
  item->told.stale = FALSE;
  refresh (self, item);
}

static BridgeItem *
item_of_job (Bridge *self, const char *path, const Job *job)
{
  GHashTableIter iter;
  BridgeItem *item;

  if (job->device != NULL && (item = g_hash_table_lookup (self->items, job->device)) != NULL)
    return item;
  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, (gpointer *) &item))
    if (g_strcmp0 (item->started, path) == 0)
      return item;
  return NULL;
}

static void
on_job_properties (Bridge *self, const char *path, GVariant *properties)
{
  Job *job = g_hash_table_lookup (self->jobs, path);
  g_autofree char *device = NULL;
  BridgeItem *item;

  if (job == NULL)
    {
      job = g_new0 (Job, 1);
      g_hash_table_insert (self->jobs, g_strdup (path), job);
    }
  if (g_variant_lookup (properties, "Device", "o", &device))
    bridge_set_text (&job->device, device);
  take_text (properties, "Kind", &job->kind);
  take_text (properties, "State", &job->state);
  take_text (properties, "ErrorMessage", &job->message);
  take_number (properties, "Progress", &job->progress);
  item = item_of_job (self, path, job);
  if (item != NULL)
    refresh (self, item);
}

/* --- commands ------------------------------------------------------------------------------- */

/* The same again, however often it is tried, is one line a minute. */
static void
fail_command (Bridge *self, BridgeItem *item, BridgeCommand command, const char *message)
{
  gint64 now = g_get_monotonic_time ();

  if (g_strcmp0 (item->complaint, message) != 0 || now - item->complaint_us >= IGNORED_LOG_GAP_US)
    {
      g_message ("%s: %s: %s", item->told.address, command_name (command), message);
      bridge_set_text (&item->complaint, message);
      item->complaint_us = now;
    }
  note_end (item, command, message);
  refresh (self, item);
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
      refresh (self, item);
      return;
    }
  if (bridge_bus_never_arrived (error))
    {
      item->waits_until[call->command] = g_get_monotonic_time () + COMMAND_WAIT_US;
      refresh (self, item);
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
  refresh (self, item);
}

static const char *
refusal (Bridge *self, BridgeItem *item, BridgeCommand command)
{
  if (is_busy (self, item))
    return is_only_read (self, item) ? REASON_READING : "busy";
  if (command == BRIDGE_COMMAND_INSTALL && *item->told.update_version == '\0')
    return REASON_NOTHING;
  return NULL;
}

/* Runs what waited for the daemon or for the thermometer's return. */
static void
run_waiting (Bridge *self, BridgeItem *item)
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
        ignore (self, reason);
    }
  refresh (self, item);
}

static void
take_command (Bridge *self, BridgeItem *item, BridgeCommand command, BridgeArrival arrival)
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
      ignore (self, reason);
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
  refresh (self, item);
}

/* --- the broker ----------------------------------------------------------------------------- */

/* Behind the thermometers, so that nothing is shown before it is told. */
static void
publish_online (Bridge *self)
{
  if (!self->online_told)
    self->online_told = bridge_mqtt_publish (self->mqtt, BRIDGE_AVAILABILITY_TOPIC, "online", TRUE);
}

static void
publish_everything (Bridge *self)
{
  GHashTableIter iter;
  BridgeItem *item;

  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, (gpointer *) &item))
    if (item->forgotten)
      bridge_item_retract (item);
    else
      bridge_item_publish_again (item);
  self->online_told = FALSE;
  publish_online (self);
}

static gboolean
on_birth_over (gpointer data)
{
  Bridge *self = data;

  self->birth_id = 0;
  publish_everything (self);
  return G_SOURCE_REMOVE;
}

/* Home Assistant has started: all bridges wait at random, so that it is not flooded. */
static void
on_birth (Bridge *self, const void *payload, gsize len)
{
  static const char online[] = "online";

  if (len != sizeof online - 1 || memcmp (payload, online, len) != 0 || self->birth_id != 0)
    return;
  g_debug ("Home Assistant has started");
  self->birth_id
      = g_timeout_add ((guint) g_random_int_range (0, BIRTH_WAIT_MAX_MS + 1), on_birth_over, self);
}

static void
on_left_problem (Bridge *self, const char *id, const void *payload, gsize len)
{
  gboolean has_keys;

  if (len == 0 || g_hash_table_size (self->leftovers) >= MAX_LEFTOVERS
      || !bridge_problem_has_keys (payload, len, &has_keys))
    return;
  g_hash_table_insert (self->leftovers, g_strdup (id), GINT_TO_POINTER (has_keys));
}

static void
on_message (const char *topic, const void *payload, gsize len, BridgeArrival arrival, gpointer data)
{
  Bridge *self = data;
  char id[BRIDGE_ID_LEN + 1];
  const char *reason = NULL;
  BridgeCommand command;
  BridgeItem *item;

  if (g_str_equal (topic, self->birth_topic) || g_str_equal (topic, BIRTH_TOPIC))
    {
      if (arrival != BRIDGE_ARRIVAL_RETAINED)
        on_birth (self, payload, len);
      return;
    }
  if (bridge_problem_topic_parse (topic, id))
    {
      /* Our own come back as new ones. */
      if (arrival == BRIDGE_ARRIVAL_RETAINED)
        on_left_problem (self, id, payload, len);
      return;
    }
  command
      = bridge_command_parse (topic, payload, len, arrival == BRIDGE_ARRIVAL_RETAINED, id, &reason);
  if (command != BRIDGE_COMMAND_NONE && arrival == BRIDGE_ARRIVAL_OLD)
    reason = "old";
  item = reason == NULL ? g_hash_table_lookup (self->by_id, id) : NULL;
  if (reason == NULL && (item == NULL || item->forgotten))
    reason = REASON_UNKNOWN;
  if (reason != NULL)
    ignore (self, reason);
  else
    take_command (self, item, command, arrival);
}

static void
on_connected (gpointer data)
{
  Bridge *self = data;

  self->settled = FALSE;
  publish_everything (self);
}

static void
on_drained (gpointer data)
{
  refresh_all (data);
  publish_online (data);
}

static void
on_refused (gpointer data)
{
  Bridge *self = data;

  if (self->refused != NULL)
    self->refused (self->refused_data);
}

static void
publish_offline (Bridge *self, const char *id)
{
  g_autofree char *topic = bridge_topic (id, BRIDGE_TOPIC_AVAILABILITY);

  bridge_mqtt_publish (self->mqtt, topic, "offline", TRUE);
}

/*
 * Thermometers of an earlier run that are still on the broker. With keys they would be on the bus
 * now: they were forgotten meanwhile. The others may come back whenever they are heard.
 */
static void
judge_leftovers (Bridge *self)
{
  GHashTableIter iter;
  gpointer id, has_keys;

  g_hash_table_iter_init (&iter, self->leftovers);
  while (g_hash_table_iter_next (&iter, &id, &has_keys))
    {
      BridgeItem *item = g_hash_table_lookup (self->by_id, id);

      if (item != NULL && has_keys && !item->told.has_keys)
        forget (self, item, "the thermometer was forgotten meanwhile");
      else if (item == NULL && has_keys)
        {
          if (!bridge_item_retract_id (self->mqtt, self->config->prefix, id))
            continue;
          g_message ("%s was forgotten meanwhile: its entities are removed", (const char *) id);
        }
      else if (item == NULL)
        publish_offline (self, id);
      g_hash_table_iter_remove (&iter);
    }
}

static void
on_settled (gpointer data)
{
  Bridge *self = data;
  GHashTableIter iter;
  gpointer id;

  self->settled = TRUE;
  g_hash_table_iter_init (&iter, self->leftovers);
  while (g_hash_table_iter_next (&iter, &id, NULL))
    if (!g_hash_table_contains (self->by_id, id))
      publish_offline (self, id);
}

/* --- the daemon ----------------------------------------------------------------------------- */

static void
on_properties (const char *path, const char *interface, GVariant *properties, gpointer data)
{
  if (g_str_equal (interface, DEVICE_INTERFACE))
    on_device_properties (data, path, properties);
  else if (g_str_equal (interface, SENSOR_INTERFACE))
    on_sensor_properties (data, path, properties);
  else if (g_str_equal (interface, JOB_INTERFACE))
    on_job_properties (data, path, properties);
}

static void
on_item_gone (Bridge *self, BridgeItem *item)
{
  item->present = item->measured = FALSE;
  item->absent_since = g_get_monotonic_time ();
  bridge_set_text (&item->job, NO_JOB);
  if (item->started != NULL)
    end_started (item, g_hash_table_lookup (self->jobs, item->started));
  refresh (self, item);
}

static void
on_sensor_gone (Bridge *self, BridgeItem *item)
{
  item->measured = FALSE;
  clear_readings (item);
  bridge_set_text (&item->told.key_state, "none");
  refresh (self, item);
}

static void
on_job_gone (Bridge *self, const char *path)
{
  Job *job = g_hash_table_lookup (self->jobs, path);
  BridgeItem *item = job != NULL ? item_of_job (self, path, job) : NULL;

  if (item != NULL && g_strcmp0 (item->started, path) == 0)
    end_started (item, job);
  g_hash_table_remove (self->jobs, path);
  if (item != NULL)
    refresh (self, item);
}

static void
on_removed (const char *path, const char *const *interfaces, gpointer data)
{
  Bridge *self = data;
  BridgeItem *item = g_hash_table_lookup (self->items, path);

  if (g_strv_contains (interfaces, JOB_INTERFACE))
    on_job_gone (self, path);
  if (item != NULL && g_strv_contains (interfaces, DEVICE_INTERFACE))
    on_item_gone (self, item);
  else if (item != NULL && g_strv_contains (interfaces, SENSOR_INTERFACE))
    on_sensor_gone (self, item);
}

static void
on_signal (const char *path, const char *interface, const char *name, GVariant *parameters,
           gpointer data)
{
  Bridge *self = data;
  BridgeItem *item = g_hash_table_lookup (self->items, path);

  if (item != NULL && g_str_equal (interface, SENSOR_INTERFACE) && g_str_equal (name, "Measurement")
      && g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(a{sv})")))
    {
      g_autoptr (GVariant) values = g_variant_get_child_value (parameters, 0);

      on_measurement (self, item, values);
    }
}

static void
on_daemon (gboolean running, gpointer data)
{
  Bridge *self = data;
  GHashTableIter iter;
  BridgeItem *item;

  g_message (running ? "the daemon is there" : "the daemon is gone");
  self->running_since = g_get_monotonic_time ();
  if (!running)
    g_hash_table_remove_all (self->jobs);
  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, (gpointer *) &item))
    if (!running)
      on_item_gone (self, item);
    else if (item->present)
      {
        /* What a daemon before it has measured is nobody's knowledge any more. */
        if (!item->measured)
          on_sensor_gone (self, item);
        run_waiting (self, item);
      }
}

/* --- versions ------------------------------------------------------------------------------- */

static void
on_read_started (GObject *source, GAsyncResult *result, gpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = bridge_bus_call_job_finish (result, &error);

  if (path == NULL)
    g_debug ("a version cannot be read: %s", error->message);
}

/*
 * Without the installed version there is nothing that an update entity could show. Only of
 * thermometers that have keys here: those are somebody's who uses this daemon.
 */
static gboolean
wants_reading (Bridge *self, BridgeItem *item, gint64 now)
{
  return item->present && !item->forgotten && item->told.has_keys && *item->told.firmware == '\0'
         && heard_lately (item) && !is_busy (self, item)
         && (item->read_us == 0 || now - item->read_us >= READ_AGAIN_US);
}

/* One after the other, as each takes the radio for some seconds. */
static void
read_versions (Bridge *self, gint64 now)
{
  GHashTableIter iter;
  BridgeItem *item;

  if (self->read_us != 0 && now - self->read_us < READ_GAP_US)
    return;
  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, (gpointer *) &item))
    if (wants_reading (self, item, now))
      {
        self->read_us = item->read_us = now;
        bridge_bus_call_job (self->bus, item->path, "ReadInfo", NULL, self->cancellable,
                             on_read_started, NULL);
        return;
      }
}

/* --- housekeeping --------------------------------------------------------------------------- */

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
  if (item->started != NULL && current_job (self, item) == NULL
      && now - item->taken[item->running] > COMMAND_WAIT_US)
    end_started (item, NULL);
}

static gboolean
on_housekeeping (gpointer data)
{
  Bridge *self = data;
  gint64 now = g_get_monotonic_time ();
  gboolean steady = bridge_bus_is_running (self->bus) && now - self->running_since >= GRACE_US;
  GHashTableIter iter;
  BridgeItem *item;

  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, (gpointer *) &item))
    {
      drop_old_commands (self, item, now);
      drop_lost_job (self, item, now);
      /* With keys it would have stayed, also where nobody hears it. */
      if (steady && !item->present && item->told.has_keys && now - item->absent_since >= GRACE_US)
        {
          forget (self, item, "the thermometer is not with the daemon any more");
          item->told.has_keys = FALSE;
        }
      refresh (self, item);
    }
  if (bridge_bus_is_running (self->bus) && bridge_mqtt_is_connected (self->mqtt))
    read_versions (self, now);
  if (steady && self->settled)
    judge_leftovers (self);
  if (self->ignored_new > 0 && now - self->ignored_logged >= IGNORED_LOG_GAP_US)
    log_ignored (self);
  return G_SOURCE_CONTINUE;
}

/* --- life ----------------------------------------------------------------------------------- */

static const BridgeMqttCallbacks mqtt_callbacks = {
  .on_connected = on_connected,
  .on_settled = on_settled,
  .on_message = on_message,
  .on_drained = on_drained,
  .on_refused = on_refused,
};

static const BridgeBusCallbacks bus_callbacks = {
  .on_daemon = on_daemon,
  .on_properties = on_properties,
  .on_removed = on_removed,
  .on_signal = on_signal,
};

static void
subscribe (Bridge *self)
{
  /* QoS 1: what the broker repeats is known by how it comes. */
  bridge_mqtt_subscribe (self->mqtt, "mitherm/+/update/set", 1, FALSE);
  bridge_mqtt_subscribe (self->mqtt, "mitherm/+/clock/set", 1, FALSE);
  bridge_mqtt_subscribe (self->mqtt, BIRTH_TOPIC, 1, FALSE);
  if (!g_str_equal (self->birth_topic, BIRTH_TOPIC))
    bridge_mqtt_subscribe (self->mqtt, self->birth_topic, 1, FALSE);
  bridge_mqtt_subscribe (self->mqtt, "mitherm/+/problem", 1, TRUE);
}

Bridge *
bridge_new (const BridgeConfig *config, GDBusConnection *connection, GError **error)
{
  g_autoptr (Bridge) self = g_new0 (Bridge, 1);

  self->config = config;
  self->birth_topic = g_strconcat (config->prefix, "/status", NULL);
  self->items
      = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, (GDestroyNotify) bridge_item_free);
  self->by_id = g_hash_table_new (g_str_hash, g_str_equal);
  self->jobs = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, job_free);
  self->leftovers = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  self->ignored = g_hash_table_new (g_str_hash, g_str_equal);
  self->cancellable = g_cancellable_new ();
  self->mqtt = bridge_mqtt_new (config, BRIDGE_AVAILABILITY_TOPIC, &mqtt_callbacks, self, error);
  if (self->mqtt == NULL)
    return NULL;
  subscribe (self);
  self->bus = bridge_bus_new (connection, &bus_callbacks, self);
  self->housekeeping_id = g_timeout_add_seconds (HOUSEKEEPING_S, on_housekeeping, self);
  bridge_mqtt_start (self->mqtt);
  return g_steal_pointer (&self);
}

void
bridge_free (Bridge *self)
{
  g_clear_handle_id (&self->birth_id, g_source_remove);
  g_clear_handle_id (&self->housekeeping_id, g_source_remove);
  if (self->ignored_new > 0)
    log_ignored (self);
  g_cancellable_cancel (self->cancellable);
  g_clear_pointer (&self->bus, bridge_bus_free);
  g_hash_table_unref (self->by_id);
  g_hash_table_unref (self->items);
  g_hash_table_unref (self->jobs);
  g_hash_table_unref (self->leftovers);
  g_hash_table_unref (self->ignored);
  g_clear_pointer (&self->mqtt, bridge_mqtt_free);
  g_object_unref (self->cancellable);
  g_free (self->birth_topic);
  g_free (self);
}

void
bridge_on_refused (Bridge *self, GSourceFunc refused, gpointer data)
{
  self->refused = refused;
  self->refused_data = data;
}

void
bridge_stop (Bridge *self, GSourceFunc done, gpointer data)
{
  bridge_mqtt_publish (self->mqtt, BRIDGE_AVAILABILITY_TOPIC, "offline", TRUE);
  bridge_mqtt_stop (self->mqtt, done, data);
}
