/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mi-procedure-private.h"
#include "mi-register.h"
#include "mi-runner.h"
#include "sim-device.h"

#include <string.h>

/* Longest wait for anything here, on a slow machine. */
#define LIMIT_MS 20000

/* -- A link in memory ------------------------------------------------------------------------ */

#define TEST_TYPE_LINK (test_link_get_type ())
G_DECLARE_FINAL_TYPE (TestLink, test_link, TEST, LINK, GObject)

struct _TestLink
{
  GObject parent_instance;

  GString *log;    /* what was asked of the link, and what the tests add */
  SimDevice *sim;  /* nullable: the other end */
  guint sim_timer; /* its next tick */
  guint16 absent;  /* a channel that does not exist */
  guint16 broken;  /* a channel at which writes fail */
  gboolean mute;   /* subscriptions and reads are not answered */
  MiError error;   /* how writes and reads fail, 0: reads work */
  gboolean closed;
  GQueue reads; /* of GTask, unanswered */
  MiLinkNotifyFunc notify;
  MiLinkClosedFunc closed_func;
  gpointer user_data;
};

static void test_link_link_init (MiLinkInterface *iface);
static void pump_sim (TestLink *self);

G_DEFINE_FINAL_TYPE_WITH_CODE (TestLink, test_link, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (MI_TYPE_LINK, test_link_link_init))

static void
close_link (TestLink *self)
{
  if (self->closed)
    return;
  self->closed = TRUE;
  if (self->closed_func != NULL)
    self->closed_func (MI_LINK (self), self->user_data);
}

static MiLinkFlags
link_get_flags (MiLink *link, guint16 channel)
{
  if (channel == TEST_LINK (link)->absent)
    return 0;
  return MI_LINK_READ | MI_LINK_WRITE | MI_LINK_WRITE_COMMAND | MI_LINK_NOTIFY;
}

static guint16
link_get_att_payload (MiLink *link)
{
  return 20;
}

static gint64
now_ms (void)
{
  return g_get_monotonic_time () / 1000;
}

static gboolean
on_sim_idle (gpointer user_data)
{
  TestLink *self = user_data;

  self->sim_timer = 0;
  sim_device_tick (self->sim, now_ms ());
  pump_sim (self);
  return G_SOURCE_REMOVE;
}

/* Notifications come from the main loop, never from inside a write. */
static void
pump_sim_soon (TestLink *self, gint64 delay_ms)
{
  g_clear_handle_id (&self->sim_timer, g_source_remove);
  self->sim_timer = g_timeout_add ((guint) MAX (delay_ms, 0), on_sim_idle, self);
}

static void
pump_sim (TestLink *self)
{
  SimOutput output;

  /* The end of a run may let go of the link. */
  g_object_ref (self);
  while (!self->closed && sim_device_pop (self->sim, &output))
    {
      if (output.kind == SIM_OUTPUT_NOTIFY && self->notify != NULL)
        {
          g_autofree guint8 *data = g_memdup2 (output.data, output.len);

          self->notify (MI_LINK (self), output.channel, data, output.len, self->user_data);
        }
      else if (output.kind == SIM_OUTPUT_DISCONNECTED)
        close_link (self);
    }
  if (self->sim_timer == 0 && sim_device_deadline (self->sim) >= 0)
    pump_sim_soon (self, sim_device_deadline (self->sim) - now_ms ());
  g_object_unref (self);
}

static gboolean
link_write (MiLink *link, guint16 channel, const guint8 *data, gsize len, GError **error)
{
  TestLink *self = TEST_LINK (link);

  if (channel == self->broken)
    {
      g_set_error_literal (error, MI_ERROR, (int) self->error, "the radio said no");
      return FALSE;
    }
  g_string_append_printf (self->log, "write %04x %02x;", channel, data[0]);
  if (self->sim != NULL)
    {
      g_assert_true (sim_device_write (self->sim, now_ms (), channel, data, len, NULL));
      pump_sim_soon (self, 0);
    }
  return TRUE;
}

static void
link_write_request_async (MiLink *link, guint16 channel, const guint8 *data, gsize len,
                          GCancellable *cancellable, GAsyncReadyCallback callback,
                          gpointer user_data)
{
  TestLink *self = TEST_LINK (link);
  g_autoptr (GTask) task = g_task_new (self, cancellable, callback, user_data);

  g_string_append_printf (self->log, "request %04x %02x;", channel, data[0]);
  g_task_return_boolean (task, TRUE);
}

static gboolean
link_write_request_finish (MiLink *link, GAsyncResult *result, GError **error)
{
  return g_task_propagate_boolean (G_TASK (result), error);
}

static void
answer_read (TestLink *self)
{
  g_autoptr (GTask) task = g_queue_pop_head (&self->reads);
  guint8 value[] = { 0x5a };

  if (self->error != 0)
    g_task_return_new_error (task, MI_ERROR, (int) self->error, "the radio said no");
  else
    g_task_return_pointer (task, g_bytes_new (value, sizeof value), (GDestroyNotify) g_bytes_unref);
}

static void
link_read_async (MiLink *link, guint16 channel, GCancellable *cancellable,
                 GAsyncReadyCallback callback, gpointer user_data)
{
  TestLink *self = TEST_LINK (link);

  g_string_append_printf (self->log, "read %04x;", channel);
  g_queue_push_tail (&self->reads, g_task_new (self, cancellable, callback, user_data));
  if (!self->mute)
    answer_read (self);
}

static GBytes *
link_read_finish (MiLink *link, GAsyncResult *result, GError **error)
{
  return g_task_propagate_pointer (G_TASK (result), error);
}

static void
link_subscribe_async (MiLink *link, guint16 channel, GCancellable *cancellable,
                      GAsyncReadyCallback callback, gpointer user_data)
{
  TestLink *self = TEST_LINK (link);
  g_autoptr (GTask) task = g_task_new (self, cancellable, callback, user_data);

  g_string_append_printf (self->log, "subscribe %04x;", channel);
  if (!self->mute)
    g_task_return_boolean (task, TRUE);
  else
    g_queue_push_tail (&self->reads, g_steal_pointer (&task));
}

static gboolean
link_subscribe_finish (MiLink *link, GAsyncResult *result, GError **error)
{
  return g_task_propagate_boolean (G_TASK (result), error);
}

static void
link_set_callbacks (MiLink *link, MiLinkNotifyFunc notify, MiLinkClosedFunc closed,
                    gpointer user_data)
{
  TestLink *self = TEST_LINK (link);

  self->notify = notify;
  self->closed_func = closed;
  self->user_data = user_data;
}

static gboolean
on_close_idle (gpointer user_data)
{
  close_link (user_data);
  return G_SOURCE_REMOVE;
}

static void
link_disconnect (MiLink *link)
{
  g_string_append (TEST_LINK (link)->log, "disconnect;");
  g_idle_add_full (G_PRIORITY_DEFAULT_IDLE, on_close_idle, g_object_ref (link), g_object_unref);
}

static gboolean
link_is_closed (MiLink *link)
{
  return TEST_LINK (link)->closed;
}

static void
test_link_link_init (MiLinkInterface *iface)
{
  iface->get_flags = link_get_flags;
  iface->get_att_payload = link_get_att_payload;
  iface->write = link_write;
  iface->write_request_async = link_write_request_async;
  iface->write_request_finish = link_write_request_finish;
  iface->read_async = link_read_async;
  iface->read_finish = link_read_finish;
  iface->subscribe_async = link_subscribe_async;
  iface->subscribe_finish = link_subscribe_finish;
  iface->set_callbacks = link_set_callbacks;
  iface->disconnect = link_disconnect;
  iface->is_closed = link_is_closed;
}

static void
test_link_finalize (GObject *object)
{
  TestLink *self = TEST_LINK (object);

  g_clear_handle_id (&self->sim_timer, g_source_remove);
  g_clear_pointer (&self->sim, sim_device_free);
  g_queue_clear_full (&self->reads, g_object_unref);
  g_string_free (self->log, TRUE);
  G_OBJECT_CLASS (test_link_parent_class)->finalize (object);
}

static void
test_link_class_init (TestLinkClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = test_link_finalize;
}

static void
test_link_init (TestLink *self)
{
  self->log = g_string_new (NULL);
  g_queue_init (&self->reads);
}

/* -- A procedure that does what the test says ------------------------------------------------- */

typedef struct _Script Script;
/* Returns FALSE + @error to fail. */
typedef gboolean (*ScriptFunc) (Script *self, const MiEvent *event, MiEffects *effects,
                                GError **error);

struct _Script
{
  MiProcedure base;
  ScriptFunc func;
  GString *log;
  gint64 deadline_ms;
  gboolean inside;
  guint timers;
  gint64 timer_at_ms;
  guint persisted;
  MiKeys keys;
  guint8 certificate[3];
  gpointer data;
};

static gboolean
script_dispatch (MiProcedure *procedure, const MiEvent *event, MiEffects *effects, GError **error)
{
  static const char *const names[]
      = { "start",     "received",       "written",    "value",   "io-failed", "timer",
          "persisted", "persist-failed", "credential", "refused", "cancel",    "lost" };
  Script *self = (Script *) procedure;
  gboolean ok = FALSE;

  /* Nobody steps from inside a step. */
  g_assert_false (self->inside);
  self->inside = TRUE;
  g_string_append_printf (self->log, "(%s);", names[event->kind]);
  ok = self->func (self, event, effects, error);
  self->inside = FALSE;
  return ok;
}

static gint64
script_deadline (MiProcedure *procedure)
{
  return ((Script *) procedure)->deadline_ms;
}

static const MiState script_states[] = { { "scripted", NULL, 0 } };

static const MiProcedureClass script_class = { .name = "script",
                                               .size = sizeof (Script),
                                               .states = script_states,
                                               .dispatch = script_dispatch,
                                               .deadline = script_deadline };
/* The same under a name that needs notifications. */
static const MiProcedureClass login_class = { .name = "login",
                                              .size = sizeof (Script),
                                              .states = script_states,
                                              .dispatch = script_dispatch,
                                              .deadline = script_deadline };

/* -- The bench -------------------------------------------------------------------------------- */

typedef struct
{
  TestLink *link;
  MiRunner *runner;
  Script *script;
  GCancellable *cancellable;
  GString *trace;
  gboolean over, done;
  GError *error;
  gboolean answer_persist, cancel_at_progress;
} Bench;

static void
on_persist (MiRunner *runner, const MiKeys *keys, MiKeyState state, gpointer user_data)
{
  Bench *bench = user_data;

  g_string_append (bench->link->log, "persist;");
  if (bench->answer_persist)
    mi_runner_persisted (runner, TRUE);
}

static void
on_credential (MiRunner *runner, const MiKeys *keys, guint limit_ms, gpointer user_data)
{
  guint8 certificate[] = { 1, 2, 3 };
  MiCredential credential = { .utc = 7, .certificate = certificate, .certificate_len = 3 };

  g_assert_cmpuint (limit_ms, >, 0);
  mi_runner_credential (runner, &credential);
  /* Borrowed for the call only. */
  memset (certificate, 0, sizeof certificate);
}

static void
on_progress (MiRunner *runner, guint32 done, guint32 total, gpointer user_data)
{
  Bench *bench = user_data;

  g_string_append_printf (bench->link->log, "progress %u/%u;", done, total);
  if (bench->cancel_at_progress)
    g_cancellable_cancel (bench->cancellable);
}

static void
on_trace (MiRunner *runner, const char *line, gpointer user_data)
{
  g_string_append_printf (((Bench *) user_data)->trace, "%s\n", line);
}

static Bench *
bench_new (const MiProcedureClass *klass, ScriptFunc func)
{
  static const MiRunnerCallbacks callbacks = { on_persist, on_credential, on_progress, on_trace };
  Bench *bench = g_new0 (Bench, 1);

  bench->link = g_object_new (TEST_TYPE_LINK, NULL);
  bench->runner = mi_runner_new (MI_LINK (bench->link), &callbacks, bench);
  bench->cancellable = g_cancellable_new ();
  bench->trace = g_string_new (NULL);
  if (klass != NULL)
    bench->script = mi_procedure_alloc (klass, 0);
  if (klass != NULL)
    {
      bench->script->func = func;
      bench->script->log = bench->link->log;
      bench->script->deadline_ms = -1;
      bench->script->data = bench;
    }
  return bench;
}

static void
bench_free (Bench *bench)
{
  if (bench->script != NULL)
    mi_procedure_free (&bench->script->base);
  /* Whatever is still on its way comes back, to nobody. */
  bench->link->error = MI_ERROR_IO;
  while (!g_queue_is_empty (&bench->link->reads))
    answer_read (bench->link);
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_assert_finalize_object (bench->runner);
  g_object_unref (bench->link);
  g_object_unref (bench->cancellable);
  g_string_free (bench->trace, TRUE);
  g_clear_error (&bench->error);
  g_free (bench);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Bench, bench_free)

static void
on_run_ready (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Bench *bench = user_data;

  bench->done = mi_runner_run_finish (MI_RUNNER (source), result, &bench->error);
  bench->over = TRUE;
}

static void
bench_start (Bench *bench, MiProcedure *procedure)
{
  bench->over = FALSE;
  g_clear_error (&bench->error);
  mi_runner_run_async (bench->runner, procedure, bench->cancellable, on_run_ready, bench);
}

static gboolean
on_limit (gpointer user_data)
{
  g_error ("waited for more than %d ms", LIMIT_MS);
  return G_SOURCE_REMOVE;
}

static void
bench_wait (Bench *bench)
{
  guint limit = g_timeout_add (LIMIT_MS, on_limit, NULL);

  while (!bench->over)
    g_main_context_iteration (NULL, TRUE);
  g_source_remove (limit);
}

static void
bench_run (Bench *bench)
{
  bench_start (bench, &bench->script->base);
  bench_wait (bench);
}

/* -- Scripts ----------------------------------------------------------------------------------- */

static void
add_write (MiEffects *effects, guint16 channel, guint8 byte)
{
  mi_effects_write (effects, channel, &byte, 1);
}

/* Waits for anything that is not START, and takes CANCEL and LINK_LOST as the others do. */
static gboolean
end_script (Script *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  const MiInput in = { .kind = MI_INPUT_EVENT, .event = event };

  if (event->kind == MI_EVENT_RECEIVED || event->kind == MI_EVENT_VALUE)
    {
      mi_procedure_done (&self->base, effects);
      return TRUE;
    }
  if (event->kind == MI_EVENT_START)
    return TRUE;
  return mi_procedure_default (&self->base, &in, error);
}

static gboolean
many_effects (Script *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  MiEffect *effect = NULL;

  if (event->kind != MI_EVENT_START)
    {
      mi_procedure_done (&self->base, effects);
      return TRUE;
    }
  add_write (effects, MI_CHANNEL_CONTROL, 1);
  effect = mi_effects_add (effects, MI_EFFECT_PROGRESS, 0);
  effect->done = 1;
  effect->total = 2;
  add_write (effects, MI_CHANNEL_AUTH, 2);
  effect = mi_effects_add (effects, MI_EFFECT_PERSIST, 0);
  effect->keys = &self->keys;
  add_write (effects, MI_CHANNEL_CONTROL, 3);
  return TRUE;
}

static void
test_order (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, many_effects);

  bench->answer_persist = TRUE;
  memset (&bench->script->keys, 0xc3, sizeof bench->script->keys);
  bench_run (bench);
  g_assert_true (bench->done);
  g_assert_cmpstr (bench->link->log->str, ==,
                   "(start);write 0010 01;progress 1/2;write 0019 02;persist;write 0010 03;"
                   "(persisted);");
  /* Keys are never traced. */
  g_assert_nonnull (strstr (bench->trace->str, " persist\n"));
  g_assert_nonnull (strstr (bench->trace->str, " > 0019 02\n"));
  g_assert_null (strstr (bench->trace->str, "c3c3"));
}

static void
test_subscribes (void)
{
  g_autoptr (Bench) bench = bench_new (&login_class, end_script);
  const guint8 data[] = { 9 };

  bench_start (bench, &bench->script->base);
  while (strstr (bench->link->log->str, "start") == NULL)
    g_main_context_iteration (NULL, TRUE);
  g_assert_cmpstr (bench->link->log->str, ==, "subscribe 0010;subscribe 0019;(start);");
  bench->link->notify (MI_LINK (bench->link), MI_CHANNEL_AUTH, data, 1, bench->link->user_data);
  bench_wait (bench);
  g_assert_true (bench->done);

  /* Once per connection. */
  bench->script->base.finished = FALSE;
  g_string_truncate (bench->link->log, 0);
  bench_start (bench, &bench->script->base);
  g_assert_cmpstr (bench->link->log->str, ==, "(start);");
  bench->link->notify (MI_LINK (bench->link), MI_CHANNEL_AUTH, data, 1, bench->link->user_data);
  bench_wait (bench);
  g_assert_true (bench->done);
}

static void
test_missing_characteristic (void)
{
  g_autoptr (Bench) bench = bench_new (&login_class, end_script);

  bench->link->absent = MI_CHANNEL_AUTH;
  bench_run (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_UNSUPPORTED);
  g_assert_null (strstr (bench->link->log->str, "start"));
}

static gboolean
wait_for_timer (Script *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  if (event->kind == MI_EVENT_START)
    self->deadline_ms = event->now_ms + 30;
  else if (event->kind == MI_EVENT_TIMER)
    {
      self->timers++;
      self->timer_at_ms = event->now_ms;
      mi_procedure_done (&self->base, effects);
    }
  return TRUE;
}

static void
test_timer (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, wait_for_timer);

  bench_run (bench);
  g_assert_true (bench->done);
  g_assert_cmpuint (bench->script->timers, ==, 1);
  g_assert_cmpint (bench->script->timer_at_ms, >=, bench->script->deadline_ms);
}

static void
test_cancel (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, end_script);

  bench_start (bench, &bench->script->base);
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_cancellable_cancel (bench->cancellable);
  /* Not from inside the cancelling, but with the next turn of the loop. */
  g_assert_null (strstr (bench->link->log->str, "cancel"));
  g_main_context_iteration (NULL, FALSE);
  g_assert_nonnull (strstr (bench->link->log->str, "(cancel);disconnect;"));
  bench_wait (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_CANCELLED);
}

static gboolean
report_progress (Script *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  if (event->kind == MI_EVENT_START)
    {
      mi_effects_add (effects, MI_EFFECT_PROGRESS, 0);
      self->deadline_ms = event->now_ms + 10 * LIMIT_MS;
      return TRUE;
    }
  return end_script (self, event, effects, error);
}

static void
test_cancel_inside (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, report_progress);

  bench->cancel_at_progress = TRUE;
  bench_run (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_CANCELLED);
}

static void
test_cancel_before (void)
{
  g_autoptr (Bench) bench = bench_new (&login_class, end_script);

  g_cancellable_cancel (bench->cancellable);
  bench_run (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_CANCELLED);
  g_assert_null (strstr (bench->link->log->str, "start"));
}

static void
test_cancel_subscribing (void)
{
  g_autoptr (Bench) bench = bench_new (&login_class, end_script);

  bench->link->mute = TRUE;
  bench_start (bench, &bench->script->base);
  g_cancellable_cancel (bench->cancellable);
  bench_wait (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_CANCELLED);
}

static void
test_lost (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, end_script);

  bench_start (bench, &bench->script->base);
  close_link (bench->link);
  bench_wait (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_LINK_LOST);

  /* A run over a dead connection ends, too. */
  bench->script->base.finished = FALSE;
  bench_run (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_LINK_LOST);
}

static void
test_lost_subscribing (void)
{
  g_autoptr (Bench) bench = bench_new (&login_class, end_script);

  bench->link->mute = TRUE;
  bench_start (bench, &bench->script->base);
  close_link (bench->link);
  bench_wait (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_LINK_LOST);
}

static gboolean
write_three (Script *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  if (event->kind != MI_EVENT_START)
    return end_script (self, event, effects, error);
  add_write (effects, MI_CHANNEL_CONTROL, 1);
  add_write (effects, MI_CHANNEL_AUTH, 2);
  add_write (effects, MI_CHANNEL_CONTROL, 3);
  return TRUE;
}

static void
test_write_fails (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, write_three);

  bench->link->broken = MI_CHANNEL_AUTH;
  bench->link->error = MI_ERROR_IO;
  bench_run (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_IO);
  g_assert_nonnull (strstr (bench->error->message, "the radio said no"));
  g_assert_cmpstr (bench->link->log->str, ==, "(start);write 0010 01;(io-failed);disconnect;");
}

static void
test_write_finds_lost_link (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, write_three);

  bench->link->broken = MI_CHANNEL_AUTH;
  bench->link->error = MI_ERROR_LINK_LOST;
  bench_run (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_LINK_LOST);
}

static gboolean
read_one (Script *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  if (event->kind != MI_EVENT_START)
    {
      if (event->kind == MI_EVENT_VALUE)
        g_assert_cmpmem (event->data, event->len, "\x5a", 1);
      return end_script (self, event, effects, error);
    }
  mi_effects_add (effects, MI_EFFECT_READ, MI_CHANNEL_OTA);
  add_write (effects, MI_CHANNEL_OTA, 4);
  return TRUE;
}

static void
test_read (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, read_one);

  bench_run (bench);
  g_assert_true (bench->done);
  /* What comes after the read in the step does not wait for its answer. */
  g_assert_cmpstr (bench->link->log->str, ==, "(start);read 2b12;write 2b12 04;(value);");
}

static void
test_read_fails (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, read_one);

  bench->link->error = MI_ERROR_IO;
  bench_run (bench);
  g_assert_error (bench->error, MI_ERROR, MI_ERROR_IO);
}

static gboolean
request_one (Script *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  guint8 byte = 5;

  if (event->kind == MI_EVENT_START)
    {
      mi_effects_write (effects, MI_CHANNEL_OTA, &byte, 1);
      effects->items[0].kind = MI_EFFECT_WRITE_REQUEST;
      return TRUE;
    }
  g_assert_cmpint (event->kind, ==, MI_EVENT_WRITTEN);
  mi_procedure_done (&self->base, effects);
  return TRUE;
}

static void
test_write_request (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, request_one);

  bench_run (bench);
  g_assert_true (bench->done);
  g_assert_cmpstr (bench->link->log->str, ==, "(start);request 2b12 05;(written);");
}

/* An answer to a question of the first run must not reach the second. */
static void
test_late_answer (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, read_one);
  const guint8 data[] = { 9 };

  bench->link->mute = TRUE;
  bench_start (bench, &bench->script->base);
  bench->link->notify (MI_LINK (bench->link), MI_CHANNEL_AUTH, data, 1, bench->link->user_data);
  bench_wait (bench);
  g_assert_true (bench->done);

  bench->script->base.finished = FALSE;
  bench->script->func = end_script;
  bench_start (bench, &bench->script->base);
  g_string_truncate (bench->link->log, 0);
  answer_read (bench->link);
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_assert_cmpstr (bench->link->log->str, ==, "");
  g_assert_false (bench->over);
  g_cancellable_cancel (bench->cancellable);
  bench_wait (bench);
}

static gboolean
want_credential (Script *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  MiEffect *effect = NULL;

  if (event->kind == MI_EVENT_START)
    {
      effect = mi_effects_add (effects, MI_EFFECT_NEED_CREDENTIAL, 0);
      effect->keys = &self->keys;
      effect->deadline_ms = event->now_ms + 1000;
      return TRUE;
    }
  g_assert_cmpint (event->kind, ==, MI_EVENT_CREDENTIAL);
  g_assert_cmpmem (event->credential->certificate, event->credential->certificate_len,
                   "\x01\x02\x03", 3);
  g_assert_cmpuint (event->credential->utc, ==, 7);
  mi_procedure_done (&self->base, effects);
  return TRUE;
}

static void
test_credential (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, want_credential);

  bench_run (bench);
  g_assert_true (bench->done);
  /* Nothing waits any more: ignored. */
  mi_runner_credential (bench->runner, NULL);
  mi_runner_persisted (bench->runner, TRUE);
}

static gboolean
disconnect_and_wait (Script *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  if (event->kind == MI_EVENT_START)
    mi_effects_add (effects, MI_EFFECT_DISCONNECT, 0);
  else if (event->kind == MI_EVENT_LINK_LOST)
    mi_procedure_done (&self->base, effects);
  return TRUE;
}

static void
test_disconnect (void)
{
  g_autoptr (Bench) bench = bench_new (&script_class, disconnect_and_wait);

  bench_run (bench);
  g_assert_true (bench->done);
  g_assert_cmpstr (bench->link->log->str, ==, "(start);disconnect;(lost);");
}

/* -- The real procedures against the simulator --------------------------------------------------
 */

static gboolean
get_random (guint8 *out, gsize len, gpointer user_data)
{
  GRand *rand = user_data;

  for (gsize i = 0; i < len; i++)
    out[i] = (guint8) g_rand_int_range (rand, 0, 256);
  return TRUE;
}

static TestLink *
connect_simulator (Bench *bench, GRand *rand)
{
  g_autoptr (GKeyFile) config = g_key_file_new ();
  g_autoptr (GError) error = NULL;

  g_key_file_set_string (config, "A4:C1:38:00:00:01", "Model", "LYWSD03MMC");
  g_key_file_set_string (config, "A4:C1:38:00:00:01", "Firmware", "1.0.0_0130");
  bench->link->sim = sim_device_new (config, "A4:C1:38:00:00:01", get_random, rand, &error);
  g_assert_no_error (error);
  g_assert_true (sim_device_connect (bench->link->sim, now_ms (), 20, &error));
  return bench->link;
}

static void
test_simulator (void)
{
  g_autoptr (Bench) bench = bench_new (NULL, NULL);
  g_autoptr (GRand) rand = g_rand_new_with_seed (5);
  g_autoptr (MiProcedure) procedure = NULL;
  TestLink *link = connect_simulator (bench, rand);
  MiRegisterOptions options
      = { .sizes = mi_runner_get_sizes (bench->runner), .random = get_random, .random_data = rand };
  MiKeys keys;

  bench->answer_persist = TRUE;
  procedure = mi_register_new (&options);
  bench_start (bench, procedure);
  bench_wait (bench);
  g_assert_no_error (bench->error);
  g_assert_true (sim_device_get_keys (link->sim, &keys));
  mi_keys_clear (&keys);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/runner/effects-are-carried-out-in-order", test_order);
  g_test_add_func ("/runner/subscribes-before-the-start-and-once", test_subscribes);
  g_test_add_func ("/runner/missing-characteristic-is-unsupported", test_missing_characteristic);
  g_test_add_func ("/runner/timer-fires-once-at-the-deadline", test_timer);
  g_test_add_func ("/runner/cancel-ends-with-the-next-turn-of-the-loop", test_cancel);
  g_test_add_func ("/runner/cancel-from-inside-a-step-is-not-lost", test_cancel_inside);
  g_test_add_func ("/runner/cancelled-before-the-start-never-starts", test_cancel_before);
  g_test_add_func ("/runner/cancel-while-subscribing", test_cancel_subscribing);
  g_test_add_func ("/runner/link-lost-ends-the-run", test_lost);
  g_test_add_func ("/runner/link-lost-while-subscribing", test_lost_subscribing);
  g_test_add_func ("/runner/failed-write-ends-its-step", test_write_fails);
  g_test_add_func ("/runner/failed-write-may-be-a-lost-link", test_write_finds_lost_link);
  g_test_add_func ("/runner/read-does-not-hold-up-later-effects", test_read);
  g_test_add_func ("/runner/failed-read-is-an-io-error", test_read_fails);
  g_test_add_func ("/runner/write-request-is-confirmed", test_write_request);
  g_test_add_func ("/runner/late-answer-does-not-reach-the-next-run", test_late_answer);
  g_test_add_func ("/runner/credential-is-copied", test_credential);
  g_test_add_func ("/runner/disconnect-is-followed-by-link-lost", test_disconnect);
  g_test_add_func ("/runner/registers-a-simulated-thermometer", test_simulator);
  return g_test_run ();
}
