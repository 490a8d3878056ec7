/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-private.h"

#include <math.h>

#define DEVICE_INTERFACE "org.mitherm.Device1"
#define JOB_INTERFACE    "org.mitherm.Job1"
#define HEARD_US         (15 * 60 * G_USEC_PER_SEC)
#define RSSI_MIN         (-128)
#define RSSI_MAX         127

/* Some speak so rarely that only the daemon can tell whether their values are old. */
gboolean
bridge_told_heard_lately (BridgeItem *item)
{
  if (item->measured && !item->told.stale && !isnan (item->told.temperature))
    return TRUE;
  return item->told.last_seen > 0 && g_get_real_time () - item->told.last_seen < HEARD_US;
}

/* Derives what depends on the job and on time, and tells the broker. */
void
bridge_told_refresh (Bridge *self, BridgeItem *item)
{
  BridgeJob *job = bridge_job_current (self, item);
  gboolean running_update = FALSE;

  if (item->started != NULL && job != NULL && bridge_job_is_final (job))
    {
      bridge_command_end (item, job);
      job = bridge_job_current (self, item);
    }
  if (job != NULL && !bridge_job_is_final (job))
    running_update = g_strcmp0 (job->kind, "update") == 0;
  else if (job == NULL && item->started != NULL)
    running_update = item->running == BRIDGE_COMMAND_INSTALL;
  item->told.updating = running_update || item->calling == BRIDGE_COMMAND_INSTALL
                        || item->waits_until[BRIDGE_COMMAND_INSTALL] != 0;
  item->told.progress = running_update && job != NULL ? job->progress : -1;
  bridge_thermometer_judge_battery (&item->told);
  item->online = item->present
                 && (bridge_told_heard_lately (item) || item->told.updating
                     || bridge_job_is_busy (self, item));
  bridge_item_publish (item);
}

void
bridge_told_take_text (GVariant *properties, const char *key, char **field)
{
  const char *text;

  if (g_variant_lookup (properties, key, "&s", &text))
    bridge_set_text (field, text);
}

/* NaN in all its forms becomes one, infinity is none of ours. */
void
bridge_told_take_number (GVariant *properties, const char *key, double *field)
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

/* The newest of all; but what was told by a clock that was ahead is not newer than any other. */
static void
take_seen (GVariant *properties, const char *key, BridgeThermometer *told)
{
  guint64 seen;

  if (g_variant_lookup (properties, key, "t", &seen) && seen <= G_MAXINT64
      && ((gint64) seen > told->last_seen || told->last_seen > g_get_real_time ()))
    told->last_seen = (gint64) seen;
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
    bridge_forget (self, item, "the thermometer was forgotten");
  if (has_keys)
    item->forgotten = FALSE;
}

/* (nullable): one without keys, which is not there any more or which is @present. */
static BridgeItem *
find_stranger (Bridge *self, gboolean present)
{
  GHashTableIter iter;
  BridgeItem *item;

  g_hash_table_iter_init (&iter, self->items);
  while (g_hash_table_iter_next (&iter, NULL, (gpointer *) &item))
    if (item->present == present && !item->told.has_keys && !bridge_job_is_busy (self, item))
      return item;
  return NULL;
}

/* Room for one more, if need be in place of a stranger: whoever has keys here comes first. */
static gboolean
make_room (Bridge *self, gboolean has_keys)
{
  BridgeItem *item;

  if (g_hash_table_size (self->items) < BRIDGE_MAX_ITEMS)
    return TRUE;
  item = find_stranger (self, FALSE);
  if (item == NULL && has_keys)
    item = find_stranger (self, TRUE);
  if (item == NULL)
    return FALSE;
  bridge_forget_replaced (self, item->told.id);
  g_hash_table_remove (self->by_id, item->told.id);
  g_hash_table_remove (self->items, item->path);
  return TRUE;
}

static BridgeItem *
add_item (Bridge *self, const char *path, GVariant *properties)
{
  BridgeItem *item;
  const char *address;
  gboolean has_keys = FALSE;

  if (!g_variant_lookup (properties, "Address", "&s", &address))
    return NULL;
  g_variant_lookup (properties, "HasKeys", "b", &has_keys);
  if (!make_room (self, has_keys))
    {
      bridge_ignore (self, "too-many-thermometers");
      return NULL;
    }
  item = bridge_item_new (address, path, self->mqtt, self->config->prefix);
  if (item == NULL || g_hash_table_contains (self->by_id, item->told.id))
    {
      g_clear_pointer (&item, bridge_item_free);
      bridge_ignore (self, "wrong-address");
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
  bridge_told_take_text (properties, "Name", &item->told.name);
  bridge_told_take_text (properties, "Model", &item->told.model);
  bridge_told_take_text (properties, "Hardware", &item->told.hardware);
  bridge_told_take_text (properties, "Firmware", &item->told.firmware);
  bridge_told_take_text (properties, "UpdateVersion", &item->told.update_version);
  take_rssi (properties, "Rssi", &item->told);
  take_seen (properties, "LastSeen", &item->told);
  take_keys (self, item, properties);
  if (g_variant_lookup (properties, "Job", "&o", &job))
    bridge_set_text (&item->job, job);
  bridge_told_refresh (self, item);
  if (bridge_bus_is_running (self->bus))
    bridge_command_run_waiting (self, item);
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
  bridge_told_take_number (properties, "Temperature", &item->told.temperature);
  bridge_told_take_number (properties, "Humidity", &item->told.humidity);
  bridge_told_take_number (properties, "Voltage", &item->told.voltage);
  take_battery (properties, "Battery", &item->told);
  bridge_told_take_text (properties, "KeyState", &item->told.key_state);
  take_seen (properties, "Updated", &item->told);
  /* Whatever stands there before the first value is none. */
  if (g_variant_lookup (properties, "Updated", "t", &updated) && updated == 0)
    clear_readings (item);
  g_variant_lookup (properties, "Stale", "b", &item->told.stale);
  bridge_told_refresh (self, item);
}

void
bridge_told_on_properties (const char *path, const char *interface, GVariant *properties,
                           gpointer data)
{
  if (g_str_equal (interface, DEVICE_INTERFACE))
    on_device_properties (data, path, properties);
  else if (g_str_equal (interface, BRIDGE_SENSOR_INTERFACE))
    on_sensor_properties (data, path, properties);
  else if (g_str_equal (interface, JOB_INTERFACE))
    bridge_job_on_properties (data, path, properties);
}

static void
on_measurement (Bridge *self, BridgeItem *item, GVariant *values)
{
  item->measured = TRUE;
  bridge_told_take_number (values, "temperature", &item->told.temperature);
  bridge_told_take_number (values, "humidity", &item->told.humidity);
  bridge_told_take_number (values, "voltage", &item->told.voltage);
  take_battery (values, "battery", &item->told);
  take_rssi (values, "rssi", &item->told);
  take_seen (values, "time", &item->told);
  item->told.stale = FALSE;
  bridge_told_refresh (self, item);
}

void
bridge_told_on_signal (const char *path, const char *interface, const char *name,
                       GVariant *parameters, gpointer data)
{
  Bridge *self = data;
  BridgeItem *item = g_hash_table_lookup (self->items, path);

  if (item != NULL && g_str_equal (interface, BRIDGE_SENSOR_INTERFACE)
      && g_str_equal (name, "Measurement")
      && g_variant_is_of_type (parameters, G_VARIANT_TYPE ("(a{sv})")))
    {
      g_autoptr (GVariant) values = g_variant_get_child_value (parameters, 0);

      on_measurement (self, item, values);
    }
}

void
bridge_told_on_gone (Bridge *self, BridgeItem *item)
{
  item->present = item->measured = FALSE;
  item->absent_since = g_get_monotonic_time ();
  bridge_set_text (&item->job, BRIDGE_NO_JOB);
  if (item->started != NULL)
    bridge_command_end (item, g_hash_table_lookup (self->jobs, item->started));
  bridge_told_refresh (self, item);
}

void
bridge_told_on_sensor_gone (Bridge *self, BridgeItem *item)
{
  item->measured = FALSE;
  clear_readings (item);
  bridge_set_text (&item->told.key_state, "none");
  bridge_told_refresh (self, item);
}

void
bridge_told_on_removed (const char *path, const char *const *interfaces, gpointer data)
{
  Bridge *self = data;
  BridgeItem *item = g_hash_table_lookup (self->items, path);

  if (g_strv_contains (interfaces, JOB_INTERFACE))
    bridge_job_on_gone (self, path);
  if (item != NULL && g_strv_contains (interfaces, DEVICE_INTERFACE))
    bridge_told_on_gone (self, item);
  else if (item != NULL && g_strv_contains (interfaces, BRIDGE_SENSOR_INTERFACE))
    bridge_told_on_sensor_gone (self, item);
}
