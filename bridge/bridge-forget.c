/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-private.h"

#include <string.h>

#define MAX_LEFTOVERS 1024

void
bridge_forget (Bridge *self, BridgeItem *item, const char *why)
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

void
bridge_forget_absent (Bridge *self, BridgeItem *item, gint64 now)
{
  /* With keys it would have stayed, also where nobody hears it. */
  if (item->present || !item->told.has_keys || now - item->absent_since < BRIDGE_GRACE_US)
    return;
  bridge_forget (self, item, "the thermometer is not with the daemon any more");
  item->told.has_keys = FALSE;
}

void
bridge_forget_note_left (Bridge *self, const char *id, const void *payload, gsize len)
{
  gboolean has_keys;

  if (len == 0 || g_hash_table_size (self->leftovers) >= MAX_LEFTOVERS
      || !bridge_problem_has_keys (payload, len, &has_keys))
    return;
  g_hash_table_insert (self->leftovers, g_strdup (id), GINT_TO_POINTER (has_keys));
}

static void
publish_offline (Bridge *self, const char *id)
{
  g_autofree char *topic = bridge_topic (id, BRIDGE_TOPIC_AVAILABILITY);

  bridge_mqtt_publish (self->mqtt, topic, "offline", TRUE);
}

void
bridge_forget_on_settled (Bridge *self)
{
  GHashTableIter iter;
  gpointer id;

  g_hash_table_iter_init (&iter, self->leftovers);
  while (g_hash_table_iter_next (&iter, &id, NULL))
    if (!g_hash_table_contains (self->by_id, id))
      publish_offline (self, id);
}

/*
 * Thermometers of an earlier run that are still on the broker. With keys they would be on the bus
 * now: they were forgotten meanwhile. The others may come back whenever they are heard.
 */
void
bridge_forget_judge_left (Bridge *self)
{
  GHashTableIter iter;
  gpointer id, has_keys;

  g_hash_table_iter_init (&iter, self->leftovers);
  while (g_hash_table_iter_next (&iter, &id, &has_keys))
    {
      BridgeItem *item = g_hash_table_lookup (self->by_id, id);

      if (item != NULL && has_keys && !item->told.has_keys)
        bridge_forget (self, item, "the thermometer was forgotten meanwhile");
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
