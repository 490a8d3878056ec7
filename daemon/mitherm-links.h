/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

/*
 * Queues whose links are parts of their members: nothing is allocated, and leaving takes no search.
 * A link is in one queue at most.
 */

static inline gboolean
mitherm_links_contain (GQueue *queue, GList *link)
{
  return link->prev != NULL || link->next != NULL || queue->head == link;
}

/* Does nothing if @link is not there. */
static inline void
mitherm_links_remove (GQueue *queue, GList *link)
{
  if (mitherm_links_contain (queue, link))
    g_queue_unlink (queue, link);
}
