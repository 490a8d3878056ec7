/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-runner.h"

#include "mi-bytes.h"

/* A subscription that is not confirmed by then has failed. */
#define SUBSCRIBE_LIMIT_MS 10000
#define CHANNELS_MAX       4

/* Which notifications a procedure needs before its first opcode (protocol/gatt.md section 1). */
typedef struct
{
  const char *procedure;
  guint16 channels[2];
} Needs;

static const Needs needs[] = {
  { "info", { MI_CHANNEL_CONTROL, MI_CHANNEL_AUTH } },
  { "register", { MI_CHANNEL_CONTROL, MI_CHANNEL_AUTH } },
  { "login", { MI_CHANNEL_CONTROL, MI_CHANNEL_AUTH } },
  { "dfu", { MI_CHANNEL_DFU_CONTROL, MI_CHANNEL_DFU_DATA } },
};

/* An event that came while a step was being carried out, with its own copy of everything. */
typedef struct
{
  MiEvent event;
  MiCredential credential;
} QueuedEvent;

struct _MiRunner
{
  GObject parent_instance;

  MiLink *link;
  MiRunnerCallbacks callbacks;
  gpointer user_data;
  MiSizes sizes;
  guint16 subscribed[CHANNELS_MAX];
  guint n_subscribed;
  /* The one timer, and what wakes the loop for a cancellation. */
  GSource *timer;
  gint64 deadline_ms, armed_ms; /* when TIMER is wanted, and when the timer fires; -1: never */

  GTask *task; /* not NULL: a run is going on */
  MiProcedure *procedure;
  const Needs *needs;
  guint next_need;
  gboolean started;  /* START has been delivered */
  gboolean stepping; /* a step is being carried out: events are queued */
  GQueue events;
  guint run; /* number of the run, so that late answers find out that they are late */
  GCancellable *operations;
  gulong cancel_id;
  int cancel_pending; /* atomic: the cancellable may be cancelled in any thread */
  gboolean waits_persisted, waits_credential;
  gint64 start_ms;
  char *io_detail; /* text of the last failed operation */
  gboolean write_broken;
  gboolean done;
  GError *failure;
  MiEffects *effects; /* too large for an instance */
};

G_DEFINE_FINAL_TYPE (MiRunner, mi_runner, G_TYPE_OBJECT)

static void deliver (MiRunner *self, const MiEvent *event);
static void subscribe_next (MiRunner *self);

static gint64
now_ms (void)
{
  return g_get_monotonic_time () / 1000;
}

static void
arm_timer (MiRunner *self, gint64 at_ms)
{
  self->armed_ms = at_ms;
  g_source_set_ready_time (self->timer, at_ms >= 0 ? at_ms * 1000 : -1);
}

/*
 * Moves the deadline. A later one leaves the timer alone, which then finds out for itself: each
 * change wakes the main loop once more, and during an upload the deadline moves with every answer.
 */
static void
set_deadline (MiRunner *self, gint64 deadline_ms)
{
  self->deadline_ms = deadline_ms;
  if (deadline_ms >= 0 && (self->armed_ms < 0 || deadline_ms < self->armed_ms))
    arm_timer (self, deadline_ms);
  /* A cancellation that came during the step must not be overwritten. */
  if (g_atomic_int_get (&self->cancel_pending))
    g_source_set_ready_time (self->timer, 0);
}

/* -- Trace ---------------------------------------------------------------------------------- */

static const char *const event_names[] = {
  [MI_EVENT_START] = "start",           [MI_EVENT_RECEIVED] = "<",
  [MI_EVENT_WRITTEN] = "written",       [MI_EVENT_VALUE] = "value",
  [MI_EVENT_IO_FAILED] = "io-failed",   [MI_EVENT_TIMER] = "timer",
  [MI_EVENT_PERSISTED] = "persisted",   [MI_EVENT_PERSIST_FAILED] = "persist-failed",
  [MI_EVENT_CREDENTIAL] = "credential", [MI_EVENT_CREDENTIAL_REFUSED] = "credential-refused",
  [MI_EVENT_CANCEL] = "cancel",         [MI_EVENT_LINK_LOST] = "link-lost",
};

static const char *const effect_names[] = {
  [MI_EFFECT_WRITE] = ">",
  [MI_EFFECT_WRITE_REQUEST] = "write-request",
  [MI_EFFECT_READ] = "read",
  [MI_EFFECT_PERSIST] = "persist",
  [MI_EFFECT_NEED_CREDENTIAL] = "need-credential",
  [MI_EFFECT_PROGRESS] = "progress",
  [MI_EFFECT_DISCONNECT] = "disconnect",
  [MI_EFFECT_DONE] = "done",
  [MI_EFFECT_FAILED] = "failed",
};

static void
trace (MiRunner *self, const char *name, guint16 channel, const guint8 *data, gsize len)
{
  g_autoptr (GString) line = NULL;

  if (self->callbacks.trace == NULL)
    return;
  line = g_string_new (NULL);
  g_string_append_printf (line, "%" G_GINT64_FORMAT " %s", now_ms () - self->start_ms, name);
  if (channel != 0)
    g_string_append_printf (line, " %04x", channel);
  if (data != NULL && len > 0)
    {
      g_autofree char *hex = mi_hex_encode (data, len);

      g_string_append_printf (line, " %s", hex);
    }
  self->callbacks.trace (self, line->str, self->user_data);
}

static void
trace_effect (MiRunner *self, const MiEffect *effect)
{
  /* Keys are secrets: the name has to do. */
  if (effect->kind == MI_EFFECT_PERSIST || effect->kind == MI_EFFECT_NEED_CREDENTIAL)
    trace (self, effect_names[effect->kind], 0, NULL, 0);
  else
    trace (self, effect_names[effect->kind], effect->channel, effect->data, effect->len);
}

/* -- The end of a run ----------------------------------------------------------------------- */

static void
queued_event_free (gpointer data)
{
  QueuedEvent *queued = data;

  g_free ((gpointer) queued->event.data);
  g_free ((gpointer) queued->credential.certificate);
  g_free (queued);
}

/* Ends the run with @error (transfer full), or well when that is NULL. */
static void
finish_run (MiRunner *self, GError *error)
{
  g_autoptr (GTask) task = g_steal_pointer (&self->task);

  self->procedure = NULL;
  self->run++;
  arm_timer (self, -1);
  if (self->cancel_id != 0)
    g_cancellable_disconnect (g_task_get_cancellable (task), self->cancel_id);
  self->cancel_id = 0;
  g_cancellable_cancel (self->operations);
  g_clear_object (&self->operations);
  g_queue_clear_full (&self->events, queued_event_free);
  g_clear_pointer (&self->io_detail, g_free);

  if (error == NULL)
    {
      g_task_return_boolean (task, TRUE);
      return;
    }
  /* The device may be in the middle of something: only a new connection starts clean. */
  mi_link_disconnect (self->link);
  g_task_return_error (task, error);
}

/* -- Effects -------------------------------------------------------------------------------- */

typedef struct
{
  MiRunner *runner;
  guint run;
  guint16 channel;
} Operation;

static Operation *
operation_new (MiRunner *self, guint16 channel)
{
  Operation *operation = g_new0 (Operation, 1);

  operation->runner = g_object_ref (self);
  operation->run = self->run;
  operation->channel = channel;
  return operation;
}

static void
operation_free (Operation *operation)
{
  g_object_unref (operation->runner);
  g_free (operation);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Operation, operation_free)

static void
deliver_failure (MiRunner *self, guint16 channel, const GError *error)
{
  MiEvent event = { .kind = MI_EVENT_IO_FAILED, .channel = channel };

  if (g_error_matches (error, MI_ERROR, MI_ERROR_LINK_LOST))
    event.kind = MI_EVENT_LINK_LOST;
  g_free (self->io_detail);
  self->io_detail = g_strdup (error->message);
  deliver (self, &event);
}

static void
on_read_ready (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (Operation) operation = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) value = mi_link_read_finish (MI_LINK (source), result, &error);
  MiRunner *self = operation->runner;
  MiEvent event = { .kind = MI_EVENT_VALUE, .channel = operation->channel };

  if (operation->run != self->run)
    return;
  if (value == NULL)
    {
      deliver_failure (self, operation->channel, error);
      return;
    }
  event.data = g_bytes_get_data (value, &event.len);
  deliver (self, &event);
}

static void
on_write_request_ready (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (Operation) operation = user_data;
  g_autoptr (GError) error = NULL;
  MiRunner *self = operation->runner;
  MiEvent event = { .kind = MI_EVENT_WRITTEN, .channel = operation->channel };
  gboolean written = mi_link_write_request_finish (MI_LINK (source), result, &error);

  if (operation->run != self->run)
    return;
  if (written)
    deliver (self, &event);
  else
    deliver_failure (self, operation->channel, error);
}

static void
carry_out_io (MiRunner *self, const MiEffect *effect)
{
  g_autoptr (GError) error = NULL;

  /* After a write that went nowhere the rest of its step would only puzzle the device. */
  if (self->write_broken)
    return;
  if (effect->kind == MI_EFFECT_READ)
    mi_link_read_async (self->link, effect->channel, self->operations, on_read_ready,
                        operation_new (self, effect->channel));
  else if (effect->kind == MI_EFFECT_WRITE_REQUEST)
    mi_link_write_request_async (self->link, effect->channel, effect->data, effect->len,
                                 self->operations, on_write_request_ready,
                                 operation_new (self, effect->channel));
  else if (!mi_link_write (self->link, effect->channel, effect->data, effect->len, &error))
    {
      self->write_broken = TRUE;
      deliver_failure (self, effect->channel, error);
    }
}

static void
carry_out_persist (MiRunner *self, const MiEffect *effect)
{
  self->waits_persisted = TRUE;
  if (self->callbacks.persist != NULL)
    self->callbacks.persist (self, effect->keys, effect->key_state, self->user_data);
  else
    mi_runner_persisted (self, FALSE);
}

static void
carry_out_credential (MiRunner *self, const MiEffect *effect)
{
  gint64 limit_ms = CLAMP (effect->deadline_ms - now_ms (), 0, G_MAXINT);

  self->waits_credential = TRUE;
  if (self->callbacks.credential != NULL)
    self->callbacks.credential (self, effect->keys, (guint) limit_ms, self->user_data);
  else
    mi_runner_credential (self, NULL);
}

static void
carry_out (MiRunner *self, const MiEffect *effect)
{
  trace_effect (self, effect);
  switch (effect->kind)
    {
    case MI_EFFECT_WRITE:
    case MI_EFFECT_WRITE_REQUEST:
    case MI_EFFECT_READ:
      carry_out_io (self, effect);
      break;
    case MI_EFFECT_PERSIST:
      carry_out_persist (self, effect);
      break;
    case MI_EFFECT_NEED_CREDENTIAL:
      carry_out_credential (self, effect);
      break;
    case MI_EFFECT_PROGRESS:
      if (self->callbacks.progress != NULL)
        self->callbacks.progress (self, effect->done, effect->total, self->user_data);
      break;
    case MI_EFFECT_DISCONNECT:
      mi_link_disconnect (self->link);
      break;
    case MI_EFFECT_DONE:
      self->done = TRUE;
      break;
    case MI_EFFECT_FAILED:
      g_clear_error (&self->failure);
      self->failure = g_error_copy (effect->error);
      break;
    }
}

/* -- Events --------------------------------------------------------------------------------- */

static void
step (MiRunner *self, MiEvent *event)
{
  event->now_ms = now_ms ();
  /* A credential's bytes stay out, as the keys do. */
  trace (self, event_names[event->kind], event->channel, event->data, event->len);

  self->stepping = TRUE;
  self->write_broken = FALSE;
  mi_procedure_step (self->procedure, event, self->effects);
  for (guint i = 0; i < self->effects->n; i++)
    carry_out (self, &self->effects->items[i]);
  self->stepping = FALSE;
  if (self->failure != NULL && self->io_detail != NULL
      && (event->kind == MI_EVENT_IO_FAILED || event->kind == MI_EVENT_LINK_LOST))
    {
      g_autoptr (GError) bare = g_steal_pointer (&self->failure);

      self->failure
          = g_error_new (bare->domain, bare->code, "%s: %s", bare->message, self->io_detail);
    }
}

static void
queue_event (MiRunner *self, const MiEvent *event)
{
  QueuedEvent *queued = g_new0 (QueuedEvent, 1);

  queued->event = *event;
  queued->event.data = event->len > 0 ? g_memdup2 (event->data, event->len) : NULL;
  if (event->credential != NULL)
    {
      queued->credential = *event->credential;
      queued->credential.certificate
          = g_memdup2 (event->credential->certificate, event->credential->certificate_len);
      queued->event.credential = &queued->credential;
    }
  g_queue_push_tail (&self->events, queued);
}

static gboolean
is_over (MiRunner *self)
{
  return self->done || self->failure != NULL;
}

static void
step_queued (MiRunner *self)
{
  QueuedEvent *queued = NULL;

  while (!is_over (self) && (queued = g_queue_pop_head (&self->events)) != NULL)
    {
      step (self, &queued->event);
      queued_event_free (queued);
    }
}

/*
 * Gives one event to the procedure, and then those that carrying out its effects has brought.
 * Copies nothing unless a step is going on.
 */
static void
deliver (MiRunner *self, const MiEvent *event)
{
  g_autoptr (MiRunner) keep G_GNUC_UNUSED = g_object_ref (self);
  MiEvent now = *event;

  if (self->task == NULL || !self->started)
    return;
  if (self->stepping)
    {
      queue_event (self, event);
      return;
    }
  step (self, &now);
  step_queued (self);

  if (is_over (self))
    finish_run (self, g_steal_pointer (&self->failure));
  else
    set_deadline (self, self->effects->deadline_ms);
}

static void
on_notify (MiLink *link, guint16 channel, const guint8 *data, gsize len, gpointer user_data)
{
  MiEvent event = { .kind = MI_EVENT_RECEIVED, .channel = channel, .data = data, .len = len };

  deliver (user_data, &event);
}

static void
on_closed (MiLink *link, gpointer user_data)
{
  MiRunner *self = user_data;
  MiEvent event = { .kind = MI_EVENT_LINK_LOST };

  if (self->task != NULL && !self->started)
    finish_run (self, g_error_new_literal (MI_ERROR, MI_ERROR_LINK_LOST,
                                           "connection lost while subscribing"));
  else
    deliver (self, &event);
}

static gboolean
on_timer (GSource *source, GSourceFunc callback, gpointer user_data)
{
  MiRunner *self = user_data;
  gboolean cancelled = g_atomic_int_compare_and_exchange (&self->cancel_pending, TRUE, FALSE);
  MiEvent event = { .kind = cancelled ? MI_EVENT_CANCEL : MI_EVENT_TIMER };

  arm_timer (self, -1);
  if (self->task == NULL)
    return G_SOURCE_CONTINUE;
  if (!cancelled && (self->deadline_ms < 0 || now_ms () < self->deadline_ms))
    {
      set_deadline (self, self->deadline_ms);
      return G_SOURCE_CONTINUE;
    }
  if (self->started)
    deliver (self, &event);
  else if (cancelled)
    finish_run (self, g_error_new_literal (MI_ERROR, MI_ERROR_CANCELLED, "cancelled"));
  else
    finish_run (self,
                g_error_new_literal (MI_ERROR, MI_ERROR_TIMEOUT, "no answer to the subscription"));
  return G_SOURCE_CONTINUE;
}

/* Any thread, and perhaps from inside a step: leaves the rest to the main loop. */
static void
on_cancelled (GCancellable *cancellable, gpointer user_data)
{
  MiRunner *self = user_data;

  g_atomic_int_set (&self->cancel_pending, TRUE);
  g_source_set_ready_time (self->timer, 0);
}

/* -- Subscriptions and start ---------------------------------------------------------------- */

static gboolean
is_subscribed (MiRunner *self, guint16 channel)
{
  for (guint i = 0; i < self->n_subscribed; i++)
    if (self->subscribed[i] == channel)
      return TRUE;
  return FALSE;
}

static void
on_subscribe_ready (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (Operation) operation = user_data;
  g_autoptr (GError) error = NULL;
  MiRunner *self = operation->runner;
  gboolean subscribed = mi_link_subscribe_finish (MI_LINK (source), result, &error);

  if (subscribed && self->n_subscribed < CHANNELS_MAX && !is_subscribed (self, operation->channel))
    self->subscribed[self->n_subscribed++] = operation->channel;
  if (operation->run != self->run)
    return;
  if (subscribed)
    {
      subscribe_next (self);
      return;
    }
  g_prefix_error (&error, "subscribing to %04x: ", operation->channel);
  finish_run (self, g_steal_pointer (&error));
}

static void
subscribe_next (MiRunner *self)
{
  MiEvent start = { .kind = MI_EVENT_START };
  guint16 channel = 0;

  while (self->needs != NULL && self->next_need < G_N_ELEMENTS (self->needs->channels))
    {
      channel = self->needs->channels[self->next_need++];
      if (is_subscribed (self, channel))
        continue;
      if (mi_link_get_flags (self->link, channel) == 0)
        {
          finish_run (self, g_error_new (MI_ERROR, MI_ERROR_UNSUPPORTED,
                                         "the device has no characteristic %04x", channel));
          return;
        }
      mi_link_subscribe_async (self->link, channel, self->operations, on_subscribe_ready,
                               operation_new (self, channel));
      return;
    }
  self->started = TRUE;
  deliver (self, &start);
}

static const Needs *
find_needs (const char *name)
{
  for (gsize i = 0; i < G_N_ELEMENTS (needs); i++)
    if (g_str_equal (needs[i].procedure, name))
      return &needs[i];
  return NULL;
}

void
mi_runner_run_async (MiRunner *self, MiProcedure *procedure, GCancellable *cancellable,
                     GAsyncReadyCallback callback, gpointer user_data)
{
  g_autoptr (MiRunner) keep G_GNUC_UNUSED = NULL;

  g_return_if_fail (MI_IS_RUNNER (self));
  g_return_if_fail (procedure != NULL);
  g_return_if_fail (self->task == NULL);

  keep = g_object_ref (self);
  self->task = g_task_new (self, cancellable, callback, user_data);
  g_task_set_source_tag (self->task, mi_runner_run_async);
  /* The procedure says how it ended: a cancel after the point of no return ends well. */
  g_task_set_check_cancellable (self->task, FALSE);
  self->procedure = procedure;
  self->needs = find_needs (mi_procedure_get_name (procedure));
  self->next_need = 0;
  self->started = FALSE;
  self->done = FALSE;
  self->waits_persisted = FALSE;
  self->waits_credential = FALSE;
  self->start_ms = now_ms ();
  self->operations = g_cancellable_new ();
  g_atomic_int_set (&self->cancel_pending, FALSE);

  if (mi_link_is_closed (self->link))
    {
      finish_run (self,
                  g_error_new_literal (MI_ERROR, MI_ERROR_LINK_LOST, "the connection is closed"));
      return;
    }
  set_deadline (self, now_ms () + SUBSCRIBE_LIMIT_MS);
  if (cancellable != NULL)
    self->cancel_id = g_cancellable_connect (cancellable, G_CALLBACK (on_cancelled), self, NULL);
  if (!g_atomic_int_get (&self->cancel_pending))
    subscribe_next (self);
}

gboolean
mi_runner_run_finish (MiRunner *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (MI_IS_RUNNER (self), FALSE);
  g_return_val_if_fail (g_task_is_valid (result, self), FALSE);

  return g_task_propagate_boolean (G_TASK (result), error);
}

/* -- Answers -------------------------------------------------------------------------------- */

void
mi_runner_persisted (MiRunner *self, gboolean durable)
{
  MiEvent event = { .kind = durable ? MI_EVENT_PERSISTED : MI_EVENT_PERSIST_FAILED };

  g_return_if_fail (MI_IS_RUNNER (self));

  if (!self->waits_persisted)
    return;
  self->waits_persisted = FALSE;
  deliver (self, &event);
}

void
mi_runner_credential (MiRunner *self, const MiCredential *credential)
{
  MiEvent event = { .kind = credential != NULL ? MI_EVENT_CREDENTIAL : MI_EVENT_CREDENTIAL_REFUSED,
                    .credential = credential };

  g_return_if_fail (MI_IS_RUNNER (self));

  if (!self->waits_credential)
    return;
  self->waits_credential = FALSE;
  deliver (self, &event);
}

/* -- The object ----------------------------------------------------------------------------- */

MiRunner *
mi_runner_new (MiLink *link, const MiRunnerCallbacks *callbacks, gpointer user_data)
{
  MiRunner *self = NULL;

  g_return_val_if_fail (MI_IS_LINK (link), NULL);

  self = g_object_new (MI_TYPE_RUNNER, NULL);
  self->link = g_object_ref (link);
  if (callbacks != NULL)
    self->callbacks = *callbacks;
  self->user_data = user_data;
  self->sizes = (MiSizes) MI_SIZES_INIT (mi_link_get_att_payload (link));
  mi_link_set_callbacks (link, on_notify, on_closed, self);
  return self;
}

MiSizes *
mi_runner_get_sizes (MiRunner *self)
{
  g_return_val_if_fail (MI_IS_RUNNER (self), NULL);

  return &self->sizes;
}

MiLink *
mi_runner_get_link (MiRunner *self)
{
  g_return_val_if_fail (MI_IS_RUNNER (self), NULL);

  return self->link;
}

static void
mi_runner_dispose (GObject *object)
{
  MiRunner *self = MI_RUNNER (object);

  if (self->link != NULL)
    mi_link_set_callbacks (self->link, NULL, NULL, NULL);
  g_clear_object (&self->link);
  if (self->timer != NULL)
    g_source_destroy (self->timer);
  g_clear_pointer (&self->timer, g_source_unref);
  G_OBJECT_CLASS (mi_runner_parent_class)->dispose (object);
}

static void
mi_runner_finalize (GObject *object)
{
  MiRunner *self = MI_RUNNER (object);

  /* Payloads of the last step may be secret. */
  explicit_bzero (self->effects, sizeof *self->effects);
  g_free (self->effects);
  g_queue_clear_full (&self->events, queued_event_free);
  g_clear_error (&self->failure);
  g_free (self->io_detail);
  G_OBJECT_CLASS (mi_runner_parent_class)->finalize (object);
}

static void
mi_runner_class_init (MiRunnerClass *klass)
{
  G_OBJECT_CLASS (klass)->dispose = mi_runner_dispose;
  G_OBJECT_CLASS (klass)->finalize = mi_runner_finalize;
}

static void
mi_runner_init (MiRunner *self)
{
  static GSourceFuncs timer_funcs = { .dispatch = on_timer };

  self->effects = g_new0 (MiEffects, 1);
  self->deadline_ms = -1;
  self->armed_ms = -1;
  g_queue_init (&self->events);
  self->timer = g_source_new (&timer_funcs, sizeof (GSource));
  g_source_set_static_name (self->timer, "mi-runner");
  /* A dispatch function without callback gets the callback's data: that is the runner. */
  g_source_set_callback (self->timer, NULL, self, NULL);
  g_source_attach (self->timer, g_main_context_get_thread_default ());
}
