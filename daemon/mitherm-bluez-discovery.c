/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-bluez-private.h"

#define RETRY_MIN_S 1
#define RETRY_MAX_S 30
/* bluetoothd pauses a scan for some seconds itself; longer, and it has forgotten us. */
#define WATCH_LIMIT_S 20

static void
set_discovery (MithermAdapter *self, MithermDiscovery state)
{
  gboolean was_on = self->discovery == MITHERM_DISCOVERY_ON;

  self->discovery = state;
  if (was_on != (state == MITHERM_DISCOVERY_ON))
    mitherm_bluez_changed (self->bluez);
}

static void
call_adapter (MithermAdapter *self, const char *method, GVariant *arguments,
              GAsyncReadyCallback callback)
{
  g_dbus_connection_call (self->bluez->bus, self->bluez->owner, self->path, BLUEZ_ADAPTER_IFACE,
                          method, arguments, NULL, G_DBUS_CALL_FLAGS_NO_AUTO_START,
                          BLUEZ_CALL_LIMIT_MS, self->calls, callback, self);
}

static gboolean
on_retry (gpointer user_data)
{
  MithermAdapter *self = user_data;

  self->retry_id = 0;
  mitherm_discovery_update (self);
  return G_SOURCE_REMOVE;
}

static void
on_filter_set (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);

  /* Discovery works without, only with fewer reports. */
  if (reply == NULL && !g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    g_debug ("discovery filter: %s", error->message);
}

static void
set_filter (MithermAdapter *self)
{
  GVariantBuilder filter;

  /* UUIDs would compare lists of services only: a thermometer has none. */
  g_variant_builder_init (&filter, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&filter, "{sv}", "Transport", g_variant_new_string ("le"));
  g_variant_builder_add (&filter, "{sv}", "DuplicateData", g_variant_new_boolean (TRUE));
  /* Empty fits every device: else what fits no pattern of any other client is hidden from us. */
  g_variant_builder_add (&filter, "{sv}", "Pattern", g_variant_new_string (""));
  call_adapter (self, "SetDiscoveryFilter", g_variant_new ("(a{sv})", &filter), on_filter_set);
}

/*
 * Without discovery no filter stays: bluetoothd 5.66 ends the discovery of the only other client
 * when a client leaves that has a filter and no discovery.
 */
static void
clear_filter (MithermAdapter *self)
{
  call_adapter (self, "SetDiscoveryFilter", g_variant_new ("(a{sv})", NULL), on_filter_set);
}

/* A session of ours may be left over, or another client's call is on its way: clear, try again. */
static void
retry_later (MithermAdapter *self)
{
  guint pause_s = MIN (RETRY_MIN_S << MIN (self->failures, 5), RETRY_MAX_S);

  self->failures++;
  g_dbus_connection_call (self->bluez->bus, self->bluez->owner, self->path, BLUEZ_ADAPTER_IFACE,
                          "StopDiscovery", NULL, NULL, G_DBUS_CALL_FLAGS_NO_AUTO_START, -1, NULL,
                          NULL, NULL);
  clear_filter (self);
  if (self->retry_id == 0)
    self->retry_id = g_timeout_add_seconds (pause_s, on_retry, self);
}

static void
on_started (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  MithermAdapter *self = user_data;

  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  if (reply != NULL)
    {
      self->failures = 0;
      set_discovery (self, MITHERM_DISCOVERY_ON);
    }
  else
    {
      g_debug ("%s: starting discovery: %s", self->name, error->message);
      set_discovery (self, MITHERM_DISCOVERY_OFF);
      retry_later (self);
      mitherm_connect_on_quiet (self);
    }
  mitherm_discovery_update (self);
}

static void
on_stopped (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) reply
      = g_dbus_connection_call_finish (G_DBUS_CONNECTION (source), result, &error);
  MithermAdapter *self = user_data;

  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return;
  /* If our session is still there, the next start finds out. */
  if (reply == NULL)
    g_debug ("%s: stopping discovery: %s", self->name, error->message);
  clear_filter (self);
  set_discovery (self, MITHERM_DISCOVERY_OFF);
  mitherm_connect_on_quiet (self);
  mitherm_discovery_update (self);
}

static void
start (MithermAdapter *self)
{
  set_discovery (self, MITHERM_DISCOVERY_STARTING);
  set_filter (self);
  call_adapter (self, "StartDiscovery", NULL, on_started);
}

/* Jobs wait, or it was turned on a short while ago. */
static gboolean
is_full (MithermAdapter *self)
{
  return g_get_monotonic_time () < self->full_until_us || self->current != NULL
         || !g_queue_is_empty (&self->waiting);
}

static gboolean on_duty (gpointer user_data);

/* The next change between discovery and rest; none while that never comes. */
static void
arm_duty (MithermAdapter *self)
{
  const MithermDiscoverySettings *settings = &self->bluez->settings;
  guint on_s = MAX (settings->period_s * settings->duty / 100, 1);
  guint off_s = MAX (settings->period_s - MIN (on_s, settings->period_s), 1);
  gint64 left_us = self->full_until_us - g_get_monotonic_time ();

  if (!self->powered || !self->bluez->discovery_wanted || self->duty_id != 0)
    return;
  if (left_us > 0)
    self->duty_id = g_timeout_add_seconds ((guint) (left_us / G_USEC_PER_SEC) + 1, on_duty, self);
  else if (self->monitor != MITHERM_DISCOVERY_ON && settings->duty > 0 && settings->duty < 100)
    self->duty_id = g_timeout_add_seconds (self->resting ? off_s : on_s, on_duty, self);
}

static gboolean
on_duty (gpointer user_data)
{
  MithermAdapter *self = user_data;

  self->duty_id = 0;
  self->resting = !self->resting && !is_full (self) && self->bluez->settings.duty < 100;
  mitherm_discovery_update (self);
  return G_SOURCE_REMOVE;
}

void
mitherm_discovery_begin (MithermAdapter *self)
{
  g_clear_handle_id (&self->duty_id, g_source_remove);
  self->resting = FALSE;
  self->full_until_us
      = g_get_monotonic_time () + (gint64) self->bluez->settings.full_s * G_USEC_PER_SEC;
  mitherm_discovery_update (self);
}

gboolean
mitherm_discovery_is_listening (MithermAdapter *self)
{
  return self->discovery == MITHERM_DISCOVERY_ON
         || (self->powered && self->bluez->discovery_wanted
             && (self->monitor == MITHERM_DISCOVERY_ON
                 || (self->resting && self->bluez->settings.duty > 0)));
}

/* Passive scanning does it alone, once there was time to hear names, which only answers tell. */
static gboolean
is_active_turn (MithermAdapter *self)
{
  if (is_full (self))
    return TRUE;
  return self->monitor == MITHERM_DISCOVERY_OFF && !self->resting && self->bluez->settings.duty > 0;
}

void
mitherm_discovery_update (MithermAdapter *self)
{
  /* While one of our connections is open a scan would take its air time. */
  gboolean wanted;

  mitherm_monitor_update (self);
  arm_duty (self);
  wanted = self->powered && !self->quiet && self->bluez->owner != NULL
           && (self->scan
               || (self->bluez->discovery_wanted && self->links == 0 && is_active_turn (self)));
  if (!wanted)
    g_clear_handle_id (&self->retry_id, g_source_remove);
  /* Else a reply is on its way, and comes back here. */
  if (wanted && self->discovery == MITHERM_DISCOVERY_OFF && self->retry_id == 0)
    start (self);
  else if (!wanted && self->discovery == MITHERM_DISCOVERY_ON)
    {
      g_clear_handle_id (&self->watch_id, g_source_remove);
      set_discovery (self, MITHERM_DISCOVERY_STOPPING);
      call_adapter (self, "StopDiscovery", NULL, on_stopped);
    }
}

gboolean
mitherm_discovery_is_quiet (MithermAdapter *self)
{
  return self->discovery == MITHERM_DISCOVERY_OFF && self->monitor == MITHERM_DISCOVERY_OFF;
}

void
mitherm_discovery_reset (MithermAdapter *self)
{
  g_clear_handle_id (&self->retry_id, g_source_remove);
  g_clear_handle_id (&self->watch_id, g_source_remove);
  g_cancellable_cancel (self->calls);
  g_clear_object (&self->calls);
  self->calls = g_cancellable_new ();
  self->failures = 0;
  mitherm_monitor_reset (self);
  self->resting = FALSE;
  g_clear_handle_id (&self->duty_id, g_source_remove);
  set_discovery (self, MITHERM_DISCOVERY_OFF);
}

static gboolean
on_watch (gpointer user_data)
{
  MithermAdapter *self = user_data;

  self->watch_id = 0;
  if (self->discovery != MITHERM_DISCOVERY_ON)
    return G_SOURCE_REMOVE;
  g_debug ("%s: discovery has ended by itself, starting it again", self->name);
  set_discovery (self, MITHERM_DISCOVERY_OFF);
  retry_later (self);
  return G_SOURCE_REMOVE;
}

void
mitherm_discovery_observe (MithermAdapter *self, gboolean discovering)
{
  if (discovering)
    g_clear_handle_id (&self->watch_id, g_source_remove);
  else if (self->discovery == MITHERM_DISCOVERY_ON && self->watch_id == 0)
    self->watch_id = g_timeout_add_seconds (WATCH_LIMIT_S, on_watch, self);
}
