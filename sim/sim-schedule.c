/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-schedule.h"

struct _SimSchedule
{
  GSource *source;
  GPtrArray *heap; /* of SimTimer, the earliest first */
  guint64 last_order;
};

gint64
sim_now_ms (void)
{
  return g_get_monotonic_time () / 1000;
}

static gboolean
is_earlier (const SimTimer *a, const SimTimer *b)
{
  if (a->due_ms != b->due_ms)
    return a->due_ms < b->due_ms;
  return a->order < b->order;
}

static SimTimer *
heap_at (SimSchedule *self, gsize slot)
{
  return self->heap->pdata[slot - 1];
}

static void
heap_put (SimSchedule *self, gsize slot, SimTimer *timer)
{
  self->heap->pdata[slot - 1] = timer;
  timer->slot = slot;
}

static void
sift_up (SimSchedule *self, gsize slot)
{
  SimTimer *timer = heap_at (self, slot);

  while (slot > 1 && is_earlier (timer, heap_at (self, slot / 2)))
    {
      heap_put (self, slot, heap_at (self, slot / 2));
      slot /= 2;
    }
  heap_put (self, slot, timer);
}

static void
sift_down (SimSchedule *self, gsize slot)
{
  SimTimer *timer = heap_at (self, slot);
  gsize n = self->heap->len;

  while (slot * 2 <= n)
    {
      gsize child = slot * 2;

      if (child < n && is_earlier (heap_at (self, child + 1), heap_at (self, child)))
        child++;
      if (!is_earlier (heap_at (self, child), timer))
        break;
      heap_put (self, slot, heap_at (self, child));
      slot = child;
    }
  heap_put (self, slot, timer);
}

static void
update_ready_time (SimSchedule *self)
{
  gint64 ready = self->heap->len > 0 ? heap_at (self, 1)->due_ms * 1000 : -1;

  if (g_source_get_ready_time (self->source) != ready)
    g_source_set_ready_time (self->source, ready);
}

static void
heap_remove (SimSchedule *self, SimTimer *timer)
{
  gsize slot = timer->slot;
  SimTimer *last = heap_at (self, self->heap->len);

  g_ptr_array_set_size (self->heap, (gint) self->heap->len - 1);
  timer->slot = 0;
  if (last == timer)
    return;
  heap_put (self, slot, last);
  sift_up (self, slot);
  sift_down (self, last->slot);
}

static gboolean
run_due_timers (gpointer user_data)
{
  SimSchedule *self = user_data;
  gint64 now = sim_now_ms ();
  guint64 newest = self->last_order;

  /* What a timer starts while it runs waits for the next round, so that the loop sees other events.
   */
  while (self->heap->len > 0)
    {
      SimTimer *timer = heap_at (self, 1);

      if (timer->due_ms > now || timer->order > newest)
        break;
      heap_remove (self, timer);
      timer->func (timer->user_data);
    }
  update_ready_time (self);
  return G_SOURCE_CONTINUE;
}

static gboolean
on_source_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  return callback (user_data);
}

SimSchedule *
sim_schedule_new (void)
{
  static GSourceFuncs funcs = { .dispatch = on_source_dispatch };
  SimSchedule *self = g_new0 (SimSchedule, 1);

  self->heap = g_ptr_array_new ();
  self->source = g_source_new (&funcs, sizeof (GSource));
  g_source_set_static_name (self->source, "sim-schedule");
  g_source_set_callback (self->source, run_due_timers, self, NULL);
  g_source_attach (self->source, g_main_context_get_thread_default ());
  return self;
}

void
sim_schedule_free (SimSchedule *self)
{
  if (self == NULL)
    return;
  g_source_destroy (self->source);
  g_source_unref (self->source);
  g_ptr_array_unref (self->heap);
  g_free (self);
}

void
sim_timer_init (SimTimer *timer, SimTimerFunc func, gpointer user_data)
{
  *timer = (SimTimer){ .func = func, .user_data = user_data };
}

void
sim_timer_start (SimSchedule *self, SimTimer *timer, gint64 due_ms)
{
  if (timer->slot != 0)
    heap_remove (self, timer);
  timer->due_ms = due_ms;
  timer->order = ++self->last_order;
  g_ptr_array_add (self->heap, timer);
  heap_put (self, self->heap->len, timer);
  sift_up (self, timer->slot);
  update_ready_time (self);
}

void
sim_timer_stop (SimSchedule *self, SimTimer *timer)
{
  if (timer->slot == 0)
    return;
  heap_remove (self, timer);
  update_ready_time (self);
}

gboolean
sim_timer_is_running (const SimTimer *timer)
{
  return timer->slot != 0;
}
