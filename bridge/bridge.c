/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-private.h"

#include <string.h>

#define BIRTH_TOPIC       "homeassistant/status"
#define BIRTH_WAIT_MAX_MS 10000
#define HOUSEKEEPING_S    5
#define REASON_UNKNOWN    "unknown-thermometer"

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
        bridge_forget_note_left (self, id, payload, len);
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
    bridge_ignore (self, reason);
  else
    bridge_command_take (self, item, command, arrival);
}

static void
on_connected (gpointer data)
{
  Bridge *self = data;

  self->settled = FALSE;
  publish_everything (self);
}

static void
refresh_all (Bridge *self)
{
  GHashTableIter iter;
  gpointer item;

  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, &item))
    bridge_told_refresh (self, item);
}

static void
on_drained (gpointer data)
{
  refresh_all (data);
  publish_online (data);
}

static void
on_settled (gpointer data)
{
  Bridge *self = data;

  self->settled = TRUE;
  bridge_forget_on_settled (self);
}

static void
on_refused (gpointer data)
{
  Bridge *self = data;

  if (self->refused != NULL)
    self->refused (self->refused_data);
}

/* --- the daemon ----------------------------------------------------------------------------- */

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
      bridge_told_on_gone (self, item);
    else if (item->present)
      {
        /* What a daemon before it has measured is nobody's knowledge any more. */
        if (!item->measured)
          bridge_told_on_sensor_gone (self, item);
        bridge_command_run_waiting (self, item);
      }
}

/* --- housekeeping --------------------------------------------------------------------------- */

static gboolean
on_housekeeping (gpointer data)
{
  Bridge *self = data;
  gint64 now = g_get_monotonic_time ();
  gboolean steady
      = bridge_bus_is_running (self->bus) && now - self->running_since >= BRIDGE_GRACE_US;
  GHashTableIter iter;
  BridgeItem *item;

  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, (gpointer *) &item))
    {
      bridge_command_expire (self, item, now);
      if (steady)
        bridge_forget_absent (self, item, now);
      /* Values of before it went away, and nobody has told any since it is back. */
      if (item->present && !item->measured)
        bridge_told_on_sensor_gone (self, item);
      bridge_told_refresh (self, item);
    }
  if (bridge_bus_is_running (self->bus) && bridge_mqtt_is_connected (self->mqtt))
    bridge_version_read (self, now);
  if (steady && self->settled)
    bridge_forget_judge_left (self);
  if (self->ignored_new > 0 && now - self->ignored_logged >= BRIDGE_LOG_GAP_US)
    bridge_ignore_log (self);
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
  .on_properties = bridge_told_on_properties,
  .on_removed = bridge_told_on_removed,
  .on_signal = bridge_told_on_signal,
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
  self->jobs = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, bridge_job_free);
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
    bridge_ignore_log (self);
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
