/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-job.h"

#include <string.h>

#include "mi-crypto.h"
#include "mitherm-error.h"
#include "mitherm-job-private.h"
#include "mitherm-log.h"

#define JOB_PATH_PREFIX "/org/mitherm/job/"

MithermJobTiming mitherm_job_timing = {
  .retry_ms = 5 * 1000,
  .read_ms = 6 * 1000,
  .step_ms = 120 * 1000,
  .reboot_ms = 60 * 1000,
  .pause_ms = 1500,
  .look_ms = 10 * 1000,
  .linger_ms = MITHERM_JOB_LINGER_S * 1000,
  .passive_ms = 11 * 60 * 1000, /* encrypted objects come every 10 minutes at least */
};

G_DEFINE_FINAL_TYPE (MithermJob, mitherm_job, G_TYPE_OBJECT)

static void
mitherm_job_finalize (GObject *object)
{
  MithermJob *self = MITHERM_JOB (object);

  g_clear_handle_id (&self->watch_source, g_source_remove);
  g_clear_handle_id (&self->timer_source, g_source_remove);
  g_clear_handle_id (&self->linger_source, g_source_remove);
  /* The procedure borrows from the runner and from the job's data. */
  g_clear_pointer (&self->procedure, mi_procedure_free);
  g_clear_object (&self->runner);
  g_clear_object (&self->link);
  g_clear_pointer (&self->login_sets, g_ptr_array_unref);
  if (self->data != NULL && self->kind->free_data != NULL)
    self->kind->free_data (self->data);
  mitherm_readout_clear (&self->readout);
  g_clear_pointer (&self->value, g_bytes_unref);
  g_variant_dict_clear (&self->result);
  g_clear_pointer (&self->result_variant, g_variant_unref);
  g_ptr_array_unref (self->notes);
  g_clear_error (&self->error);
  g_clear_error (&self->storage_error);
  g_clear_error (&self->credential_error);
  g_clear_object (&self->credential_cancellable);
  mi_keys_clear (&self->credential_keys);
  g_free (self->caller);
  g_clear_object (&self->step_cancellable);
  g_clear_object (&self->cancellable);
  g_clear_object (&self->skeleton);
  g_clear_object (&self->device);
  g_clear_object (&self->manager);
  g_free (self->adapter);
  g_free (self->path);
  G_OBJECT_CLASS (mitherm_job_parent_class)->finalize (object);
}

static void
mitherm_job_class_init (MithermJobClass *klass)
{
  G_OBJECT_CLASS (klass)->finalize = mitherm_job_finalize;
}

static void
mitherm_job_init (MithermJob *self)
{
  self->cancellable = g_cancellable_new ();
  self->notes = g_ptr_array_new_with_free_func (g_free);
  g_variant_dict_init (&self->result, NULL);
}

/* Properties and results */

void
mitherm_job_touch (MithermJob *self)
{
  self->news_us = g_get_monotonic_time ();
}

void
mitherm_job_set_state (MithermJob *self, const char *state)
{
  mitherm_job_touch (self);
  mitherm_dbus_job1_set_state (self->skeleton, state);
}

void
mitherm_job_set_limit (MithermJob *self, guint seconds)
{
  self->deadline_us = g_get_monotonic_time () + (gint64) seconds * G_USEC_PER_SEC;
}

void
mitherm_job_note (MithermJob *self, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  g_ptr_array_add (self->notes, g_strdup_vprintf (format, args));
  va_end (args);
}

void
mitherm_job_result_string (MithermJob *self, const char *key, const char *value)
{
  if (value != NULL && *value != '\0')
    g_variant_dict_insert (&self->result, key, "s", value);
}

void
mitherm_job_result_uint (MithermJob *self, const char *key, guint value)
{
  g_variant_dict_insert (&self->result, key, "u", value);
}

void
mitherm_job_result_flag (MithermJob *self, const char *key, gboolean value)
{
  g_variant_dict_insert (&self->result, key, "b", value);
}

void
mitherm_job_result_strings (MithermJob *self, const char *key, GPtrArray *values)
{
  g_variant_dict_insert_value (&self->result, key,
                               g_variant_new_strv ((const char *const *) values->pdata,
                                                   (gssize) values->len));
}

static void
close_result (MithermJob *self)
{
  if (self->notes->len > 0)
    g_variant_dict_insert_value (&self->result, "notes",
                                 g_variant_new_strv ((const char *const *) self->notes->pdata,
                                                     self->notes->len));
  self->result_variant = g_variant_ref_sink (g_variant_dict_end (&self->result));
  g_variant_dict_init (&self->result, NULL);
  mitherm_dbus_job1_set_result (self->skeleton, self->result_variant);
}

/* The end */

static gboolean
on_linger (gpointer user_data)
{
  MithermJob *self = user_data;

  self->linger_source = 0;
  mitherm_manager_drop_job (self->manager, self);
  return G_SOURCE_REMOVE;
}

static void
on_released (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (MithermJob) self = user_data;
  g_autoptr (GError) error = NULL;

  if (!mitherm_radio_settle_finish (MITHERM_RADIO (source), result, &error))
    g_debug ("%s: the link may still be up: %s", mitherm_device_get_address (self->device),
             error->message);
  mitherm_manager_release (self->manager, self);
}

void
mitherm_job_drop_link (MithermJob *self)
{
  if (self->link != NULL)
    mi_link_disconnect (self->link);
  g_clear_object (&self->link);
  if (self->in_run) /* its callback comes back here */
    return;
  g_clear_pointer (&self->procedure, mi_procedure_free);
  g_clear_object (&self->runner);
}

/* The adapter is free for the next job when the link has gone. */
static void
release_radio (MithermJob *self)
{
  mitherm_job_drop_link (self);
  mitherm_radio_settle_async (mitherm_manager_get_radio (self->manager),
                              mitherm_device_get_address (self->device), NULL, on_released,
                              g_object_ref (self));
}

static const char *
end_state (const GError *error)
{
  if (error == NULL)
    return "done";
  return error->code == MITHERM_ERROR_CANCELLED ? "cancelled" : "failed";
}

static void
finish (MithermJob *self, const GError *error)
{
  gboolean held = self->phase == PHASE_RUNNING || self->phase == PHASE_CLOSING;
  g_autofree char *message = NULL;
  const char *name = "";

  self->phase = PHASE_OVER;
  g_clear_handle_id (&self->watch_source, g_source_remove);
  g_clear_handle_id (&self->timer_source, g_source_remove);
  mitherm_device_set_listener (self->device, NULL, NULL);
  if (error != NULL)
    {
      self->error = mitherm_error_translate (error);
      message = mitherm_job_explain (self, self->error);
      name = mitherm_error_name ((MithermError) self->error->code);
      mitherm_dbus_job1_set_error (self->skeleton, name);
      mitherm_dbus_job1_set_error_message (self->skeleton, message);
    }
  else
    mitherm_dbus_job1_set_progress (self->skeleton, 1.0);
  mitherm_dbus_job1_set_state (self->skeleton, end_state (self->error));
  close_result (self);
  mitherm_manager_job_ended (self->manager, self);
  g_dbus_interface_skeleton_flush (G_DBUS_INTERFACE_SKELETON (self->skeleton));
  mitherm_dbus_job1_emit_finished (self->skeleton, name, self->result_variant);
  mitherm_log_job (mitherm_device_get_address (self->device), self->path, self->kind->name,
                   error == NULL ? "done" : name, message);
  self->linger_source = g_timeout_add (mitherm_job_timing.linger_ms, on_linger, self);
  if (held)
    release_radio (self);
}

void
mitherm_job_fail (MithermJob *self, const GError *error)
{
  g_autoptr (GError) copy = g_error_copy (error);

  if (self->phase == PHASE_OVER)
    return;
  g_cancellable_cancel (self->cancellable);
  finish (self, copy);
}

void
mitherm_job_fail_new (MithermJob *self, MithermError code, const char *format, ...)
{
  g_autoptr (GError) error = NULL;
  va_list args;

  va_start (args, format);
  error = g_error_new_valist (MITHERM_ERROR, (int) code, format, args);
  va_end (args);
  mitherm_job_fail (self, error);
}

static void
on_closed (MithermJob *self, const GError *error)
{
  finish (self, NULL);
}

void
mitherm_job_done (MithermJob *self)
{
  self->phase = PHASE_CLOSING;
  mitherm_job_disconnect (self, on_closed);
}

void
mitherm_job_continue (MithermJob *self, MithermJobStep next, const GError *error)
{
  if (self->phase == PHASE_OVER || next == NULL)
    return;
  mitherm_job_touch (self);
  next (self, error);
}

gboolean
mitherm_job_cancel (MithermJob *self, GError **error)
{
  g_autoptr (GError) cancelled = NULL;

  if (self->phase == PHASE_OVER)
    return TRUE;
  if (self->kind->is_committed != NULL && self->kind->is_committed (self))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BUSY,
                   "The image is complete and the thermometer is about to start it; it is too late "
                   "to cancel. Wait for the end of the job.");
      return FALSE;
    }
  cancelled
      = g_error_new_literal (MITHERM_ERROR, MITHERM_ERROR_CANCELLED, "The job was cancelled.");
  mitherm_job_fail (self, cancelled);
  return TRUE;
}

/* The beginning */

static gboolean
on_watch (gpointer user_data)
{
  MithermJob *self = user_data;
  gint64 now_us = g_get_monotonic_time ();

  if (self->deadline_us != 0 && now_us >= self->deadline_us)
    {
      self->watch_source = 0;
      mitherm_job_fail_new (self, MITHERM_ERROR_TIMEOUT,
                            "The time limit of the whole job has passed (it was %s).",
                            mitherm_job_get_state (self));
      return G_SOURCE_REMOVE;
    }
  if (self->phase != PHASE_QUEUED && !self->patient
      && now_us - self->news_us >= (gint64) mitherm_job_timing.step_ms * 1000)
    {
      self->watch_source = 0;
      mitherm_job_fail_new (self, MITHERM_ERROR_TIMEOUT, "Nothing happened for %u s (it was %s).",
                            mitherm_job_timing.step_ms / 1000, mitherm_job_get_state (self));
      return G_SOURCE_REMOVE;
    }
  return G_SOURCE_CONTINUE;
}

void
mitherm_job_start (MithermJob *self, const char *adapter)
{
  g_return_if_fail (self->phase == PHASE_QUEUED);
  self->phase = PHASE_RUNNING;
  self->adapter = g_strdup (adapter);
  mitherm_job_touch (self);
  mitherm_log_job (mitherm_device_get_address (self->device), self->path, self->kind->name,
                   "started", adapter);
  self->kind->start (self, NULL);
}

static void
cancel_authorized (GDBusMethodInvocation *invocation, GObject *object)
{
  MithermJob *self = MITHERM_JOB (object);
  GError *error = NULL;

  if (!mitherm_job_cancel (self, &error))
    g_dbus_method_invocation_take_error (invocation, error);
  else
    g_dbus_method_invocation_return_value (invocation, NULL);
}

static gboolean
on_cancel (MithermDBusJob1 *skeleton, GDBusMethodInvocation *invocation, gpointer user_data)
{
  MithermJob *self = user_data;

  if (self->kind->action == NULL)
    cancel_authorized (invocation, G_OBJECT (self));
  else
    mitherm_manager_authorize (self->manager, invocation, self->kind->action, cancel_authorized,
                               G_OBJECT (self));
  return TRUE;
}

static void
make_skeleton (MithermJob *self)
{
  MithermDBusJob1 *skeleton = mitherm_dbus_job1_skeleton_new ();

  self->skeleton = skeleton;
  mitherm_dbus_job1_set_kind (skeleton, self->kind->name);
  mitherm_dbus_job1_set_device (skeleton, mitherm_device_get_path (self->device));
  mitherm_dbus_job1_set_state (skeleton, "queued");
  mitherm_dbus_job1_set_error (skeleton, "");
  mitherm_dbus_job1_set_error_message (skeleton, "");
  mitherm_dbus_job1_set_result (skeleton, g_variant_new_array (G_VARIANT_TYPE ("{sv}"), NULL, 0));
  g_signal_connect_object (skeleton, "handle-cancel", G_CALLBACK (on_cancel), self, 0);
}

gboolean
mitherm_job_check_free (MithermDevice *device, GError **error)
{
  MithermJob *job = mitherm_device_get_job (device);

  if (!mitherm_device_check_known (device, error))
    return FALSE;
  if (job == NULL)
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BUSY,
               "%s has a job already (%s, %s). Wait for its end or cancel it.",
               mitherm_device_get_address (device), mitherm_job_get_kind (job),
               mitherm_job_get_state (job));
  return FALSE;
}

MithermJob *
mitherm_job_new (MithermDevice *device, const MithermJobKind *kind, gpointer data)
{
  MithermJob *self = g_object_new (MITHERM_TYPE_JOB, NULL);

  self->manager = g_object_ref (mitherm_device_get_manager (device));
  self->device = g_object_ref (device);
  self->kind = kind;
  self->data = data;
  self->path = g_strdup_printf (JOB_PATH_PREFIX "%u", mitherm_manager_next_number (self->manager));
  make_skeleton (self);
  return self;
}

void
mitherm_job_submit (MithermJob *self)
{
  guint watch_ms = CLAMP (mitherm_job_timing.step_ms / 8, 20, 1000);

  self->watch_source = g_timeout_add (watch_ms, on_watch, self);
  mitherm_manager_export_job (self->manager, self->path,
                              G_DBUS_INTERFACE_SKELETON (self->skeleton));
  mitherm_device_set_job (self->device, self);
  mitherm_manager_queue (self->manager, self);
}

void
mitherm_job_abandon (MithermJob *self)
{
  g_clear_handle_id (&self->linger_source, g_source_remove);
  if (self->phase == PHASE_OVER)
    return;
  self->phase = PHASE_OVER;
  g_cancellable_cancel (self->cancellable);
  g_clear_handle_id (&self->watch_source, g_source_remove);
  g_clear_handle_id (&self->timer_source, g_source_remove);
  if (self->link != NULL)
    mi_link_disconnect (self->link);
}

void
mitherm_job_set_caller (MithermJob *self, const char *caller)
{
  g_free (self->caller);
  self->caller = g_strdup (caller);
}

/* Getters */

const char *
mitherm_job_get_path (MithermJob *self)
{
  return self->path;
}

const char *
mitherm_job_get_kind (MithermJob *self)
{
  return self->kind->name;
}

const char *
mitherm_job_get_state (MithermJob *self)
{
  return mitherm_dbus_job1_get_state (self->skeleton);
}

MithermDevice *
mitherm_job_get_device (MithermJob *self)
{
  return self->device;
}

const char *
mitherm_job_get_adapter (MithermJob *self)
{
  return self->adapter;
}

gboolean
mitherm_job_is_passive (MithermJob *self)
{
  return self->kind->passive;
}

gboolean
mitherm_job_is_over (MithermJob *self)
{
  return self->phase == PHASE_OVER;
}

const GError *
mitherm_job_get_error (MithermJob *self)
{
  return self->error;
}

GVariant *
mitherm_job_get_result (MithermJob *self)
{
  return self->result_variant;
}

double
mitherm_job_get_progress (MithermJob *self)
{
  return mitherm_dbus_job1_get_progress (self->skeleton);
}
