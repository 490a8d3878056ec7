/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-private.h"

#include <string.h>

#define MAX_LEFTOVERS 1024

/* What is known of a thermometer that is on the broker and may have nothing to do there. */
typedef enum
{
  LEFT_NOT,
  LEFT_WITHOUT_KEYS, /* its retained problem says so */
  LEFT_WITH_KEYS,
  LEFT_REPLACED, /* another one took its place */
} Left;

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

static void
note_left (Bridge *self, const char *id, Left left)
{
  if (g_hash_table_size (self->leftovers) < MAX_LEFTOVERS
      || g_hash_table_contains (self->leftovers, id))
    g_hash_table_insert (self->leftovers, g_strdup (id), GINT_TO_POINTER (left));
}

void
bridge_forget_replaced (Bridge *self, const char *id)
{
  note_left (self, id, LEFT_REPLACED);
}

void
bridge_forget_note_left (Bridge *self, const char *id, const void *payload, gsize len)
{
  gpointer left = g_hash_table_lookup (self->leftovers, id);
  gboolean has_keys;

  if (GPOINTER_TO_INT (left) != LEFT_REPLACED && bridge_problem_has_keys (payload, len, &has_keys))
    note_left (self, id, has_keys ? LEFT_WITH_KEYS : LEFT_WITHOUT_KEYS);
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

/* FALSE: the broker did not take all of it. */
static gboolean
retract_left (Bridge *self, const char *id, Left left)
{
  if (!bridge_item_retract_id (self->mqtt, self->config->prefix, id))
    return FALSE;
  if (left == LEFT_WITH_KEYS)
    g_message ("%s was forgotten meanwhile: its entities are removed", id);
  else
    g_debug ("%s is one too many: its entities are removed", id);
  return TRUE;
}

/*
 * Thermometers of an earlier run that are still on the broker. With keys they would be on the bus
 * now: they were forgotten meanwhile. The others may come back whenever they are heard; but those
 * who pass by must not become more with each run.
 */
void
bridge_forget_judge_left (Bridge *self)
{
  guint n = g_hash_table_size (self->items);
  GHashTableIter iter;
  gpointer id, left;

  g_hash_table_iter_init (&iter, self->leftovers);
  while (g_hash_table_iter_next (&iter, &id, &left))
    {
      BridgeItem *item = g_hash_table_lookup (self->by_id, id);
      Left kind = GPOINTER_TO_INT (left);

      if (item != NULL && kind == LEFT_WITH_KEYS && !item->told.has_keys)
        bridge_forget (self, item, "the thermometer was forgotten meanwhile");
      else if (item == NULL && kind == LEFT_WITHOUT_KEYS && n++ < BRIDGE_MAX_ITEMS)
        publish_offline (self, id);
      else if (item == NULL && !retract_left (self, id, kind))
        continue;
      g_hash_table_iter_remove (&iter);
    }
}
