/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-news.h"

#include "mitherm-links.h"

#define TURN_MS 1000

struct _MithermNews
{
  GPtrArray *soon; /* devices that have changed */
  GQueue later;    /* devices, the one that waits for longest first */
  guint soon_source;
  guint later_source;
};

MithermNews *
mitherm_news_new (void)
{
  MithermNews *self = g_new0 (MithermNews, 1);

  self->soon = g_ptr_array_new_with_free_func (g_object_unref);
  g_queue_init (&self->later);
  return self;
}

void
mitherm_news_stop (MithermNews *self)
{
  g_clear_handle_id (&self->soon_source, g_source_remove);
  g_clear_handle_id (&self->later_source, g_source_remove);
  g_ptr_array_set_size (self->soon, 0);
  while (g_queue_pop_head_link (&self->later) != NULL)
    ; /* the links are parts of the devices */
}

void
mitherm_news_free (MithermNews *self)
{
  mitherm_news_stop (self);
  g_ptr_array_unref (self->soon);
  g_free (self);
}

static gboolean
on_soon (gpointer user_data)
{
  MithermNews *self = user_data;

  self->soon_source = 0;
  for (guint i = 0; i < self->soon->len; i++)
    mitherm_device_emit (g_ptr_array_index (self->soon, i));
  g_ptr_array_set_size (self->soon, 0);
  return G_SOURCE_REMOVE;
}

void
mitherm_news_soon (MithermNews *self, MithermDevice *device)
{
  g_ptr_array_add (self->soon, g_object_ref (device));
  if (self->soon_source == 0)
    self->soon_source = g_idle_add (on_soon, self);
}

/* Who has more to tell waits for the next turn, behind all others. */
static gboolean
tell (MithermNews *self, MithermDevice *device)
{
  gboolean told = mitherm_device_flush (device);

  if (mitherm_device_has_news (device))
    g_queue_push_tail_link (&self->later, mitherm_device_get_news_link (device));
  return told;
}

static gboolean
on_turn (gpointer user_data)
{
  MithermNews *self = user_data;
  guint left = self->later.length, told = 0;

  if (left == 0)
    {
      self->later_source = 0;
      return G_SOURCE_REMOVE;
    }
  for (; left > 0 && told < MITHERM_NEWS_PER_SECOND; left--)
    told += tell (self, g_queue_pop_head_link (&self->later)->data) ? 1 : 0;
  return G_SOURCE_CONTINUE;
}

void
mitherm_news_later (MithermNews *self, MithermDevice *device)
{
  GList *link = mitherm_device_get_news_link (device);

  if (mitherm_links_contain (&self->later, link))
    return;
  if (self->later_source != 0)
    {
      g_queue_push_tail_link (&self->later, link);
      return;
    }
  /* Nothing was signalled in the last second. */
  self->later_source = g_timeout_add (TURN_MS, on_turn, self);
  tell (self, device);
}

void
mitherm_news_forget (MithermNews *self, MithermDevice *device)
{
  mitherm_links_remove (&self->later, mitherm_device_get_news_link (device));
}
