/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-item.h"

#include <string.h>

/* At most that often, where something has changed. */
#define CHANGE_GAP_US (1 * G_USEC_PER_SEC)
/* New times and signal strengths alone are no news: each one would be a row in a database. */
#define SEEN_GAP_US (60 * G_USEC_PER_SEC)

BridgeItem *
bridge_item_new (const char *address, const char *path, BridgeMqtt *mqtt, const char *prefix)
{
  BridgeItem *self = g_new0 (BridgeItem, 1);

  if (!bridge_thermometer_init (&self->told, address))
    {
      g_free (self);
      return NULL;
    }
  self->path = g_strdup (path);
  self->job = g_strdup ("/");
  self->mqtt = mqtt;
  self->prefix = prefix;
  return self;
}

static void
forget_sent (BridgeItem *self)
{
  g_clear_handle_id (&self->flush_id, g_source_remove);
  g_clear_pointer (&self->config_sent, g_free);
  g_clear_pointer (&self->versions_sent, g_free);
  for (guint i = 0; i < BRIDGE_N_TOPICS; i++)
    {
      g_clear_pointer (&self->sent[i], g_free);
      self->sent_us[i] = 0;
    }
}

void
bridge_item_free (BridgeItem *self)
{
  forget_sent (self);
  bridge_thermometer_clear (&self->told);
  g_free (self->path);
  g_free (self->job);
  g_free (self->started);
  g_free (self->complaint);
  g_free (self);
}

static gboolean
on_flush (gpointer data)
{
  BridgeItem *self = data;

  self->flush_id = 0;
  bridge_item_publish (self);
  return G_SOURCE_REMOVE;
}

static void
flush_later (BridgeItem *self, gint64 at_us)
{
  gint64 wait_ms = (at_us - g_get_monotonic_time ()) / 1000 + 1;

  if (self->flush_id != 0 && self->flush_at <= at_us)
    return;
  g_clear_handle_id (&self->flush_id, g_source_remove);
  self->flush_at = at_us;
  self->flush_id = g_timeout_add ((guint) MAX (wait_ms, 1), on_flush, self);
}

/* (transfer full) @payload. TRUE: it is with the broker, also when it was before. */
static gboolean
publish (BridgeItem *self, BridgeTopic which, char *payload)
{
  g_autofree char *owned = payload;
  g_autofree char *topic = NULL;

  if (g_strcmp0 (self->sent[which], payload) == 0)
    return TRUE;
  topic = bridge_topic (self->told.id, which);
  if (!bridge_mqtt_publish (self->mqtt, topic, payload, TRUE))
    return FALSE;
  g_free (self->sent[which]);
  self->sent[which] = g_steal_pointer (&owned);
  self->sent_us[which] = g_get_monotonic_time ();
  return TRUE;
}

static void
publish_config (BridgeItem *self)
{
  g_autofree char *payload = bridge_payload_discovery (&self->told);
  /* By far the longest of all, and hardly ever changed. */
  g_autofree char *sum = g_compute_checksum_for_string (G_CHECKSUM_SHA256, payload, -1);
  g_autofree char *topic = NULL;

  if (g_strcmp0 (self->config_sent, sum) == 0)
    return;
  topic = bridge_config_topic (self->prefix, self->told.id);
  if (!bridge_mqtt_publish (self->mqtt, topic, payload, TRUE))
    return;
  g_free (self->config_sent);
  self->config_sent = g_steal_pointer (&sum);
}

static gboolean
same_number (double a, double b)
{
  return a == b || (a != a && b != b);
}

static gboolean
readings_are_news (const BridgeItem *self)
{
  const BridgeThermometer *now = &self->told, *sent = &self->readings_sent;

  return self->sent[BRIDGE_TOPIC_STATE] == NULL || now->stale != sent->stale
         || now->battery != sent->battery || !same_number (now->temperature, sent->temperature)
         || !same_number (now->humidity, sent->humidity)
         || !same_number (now->voltage, sent->voltage);
}

static void
publish_state (BridgeItem *self)
{
  gint64 due = self->sent_us[BRIDGE_TOPIC_STATE]
               + (readings_are_news (self) ? CHANGE_GAP_US : SEEN_GAP_US);
  g_autofree char *payload = bridge_payload_state (&self->told);

  if (g_strcmp0 (self->sent[BRIDGE_TOPIC_STATE], payload) == 0)
    return;
  if (self->sent[BRIDGE_TOPIC_STATE] != NULL && g_get_monotonic_time () < due)
    {
      flush_later (self, due);
      return;
    }
  if (!publish (self, BRIDGE_TOPIC_STATE, g_steal_pointer (&payload)))
    return;
  self->readings_sent.temperature = self->told.temperature;
  self->readings_sent.humidity = self->told.humidity;
  self->readings_sent.voltage = self->told.voltage;
  self->readings_sent.battery = self->told.battery;
  self->readings_sent.stale = self->told.stale;
}

static void
publish_update (BridgeItem *self)
{
  g_autofree char *payload = bridge_payload_update (&self->told);
  g_autofree char *versions = g_strdup_printf ("%s\n%s\n%s", self->told.firmware,
                                               self->told.update_version, self->told.summary);
  gint64 due = self->sent_us[BRIDGE_TOPIC_UPDATE] + CHANGE_GAP_US;
  /* Beginning and end are told at once, percentages in their turn. */
  gboolean percent_only = self->sent[BRIDGE_TOPIC_UPDATE] != NULL
                          && self->updating_sent == self->told.updating
                          && g_strcmp0 (self->versions_sent, versions) == 0;

  if (g_strcmp0 (self->sent[BRIDGE_TOPIC_UPDATE], payload) == 0)
    return;
  if (percent_only && g_get_monotonic_time () < due)
    {
      flush_later (self, due);
      return;
    }
  if (!publish (self, BRIDGE_TOPIC_UPDATE, g_steal_pointer (&payload)))
    return;
  self->updating_sent = self->told.updating;
  g_free (self->versions_sent);
  self->versions_sent = g_steal_pointer (&versions);
}

void
bridge_item_publish (BridgeItem *self)
{
  if (!bridge_mqtt_is_connected (self->mqtt))
    return;
  if (self->forgotten)
    {
      if (!self->retracted)
        self->retracted = bridge_item_retract_id (self->mqtt, self->prefix, self->told.id);
      return;
    }
  publish_config (self);
  publish (self, BRIDGE_TOPIC_AVAILABILITY, g_strdup (self->online ? "online" : "offline"));
  publish_update (self);
  publish (self, BRIDGE_TOPIC_PROBLEM, bridge_payload_problem (&self->told));
  publish_state (self);
}

void
bridge_item_publish_again (BridgeItem *self)
{
  forget_sent (self);
  bridge_item_publish (self);
}

gboolean
bridge_item_retract_id (BridgeMqtt *mqtt, const char *prefix, const char *id)
{
  g_autofree char *config = bridge_config_topic (prefix, id);
  gboolean all = bridge_mqtt_publish (mqtt, config, "", TRUE);

  for (BridgeTopic i = 0; i < BRIDGE_N_TOPICS; i++)
    {
      g_autofree char *topic = bridge_topic (id, i);

      all &= bridge_mqtt_publish (mqtt, topic, "", TRUE);
    }
  return all;
}

void
bridge_item_retract (BridgeItem *self)
{
  forget_sent (self);
  self->retracted = FALSE;
  bridge_item_publish (self);
}
