/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/*
 * Timers for thousands of virtual devices on one main loop source: a heap, so that starting and
 * stopping one costs O(log n) and the loop looks at one ready time only.
 */
typedef struct _SimSchedule SimSchedule;
typedef struct _SimTimer SimTimer;
typedef void (*SimTimerFunc) (gpointer user_data);

/* Lives inside its owner; stop it before the owner is freed. All fields are private. */
struct _SimTimer
{
  SimTimerFunc func;
  gpointer user_data;
  gint64 due_ms;
  guint64 order; /* timers with the same due time run in the order they were started */
  gsize slot;    /* 1-based place in the heap, 0: not running */
};

/* The virtual devices' clock: monotonic, in ms. */
gint64 sim_now_ms (void);

/* Timers run on the thread-default main context of the caller. */
SimSchedule *sim_schedule_new (void);
void sim_schedule_free (SimSchedule *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (SimSchedule, sim_schedule_free)

void sim_timer_init (SimTimer *timer, SimTimerFunc func, gpointer user_data);
/* Starts @timer, or moves it when it runs. @func is called once, when @due_ms has come. */
void sim_timer_start (SimSchedule *self, SimTimer *timer, gint64 due_ms);
void sim_timer_stop (SimSchedule *self, SimTimer *timer);
gboolean sim_timer_is_running (const SimTimer *timer);

G_END_DECLS
