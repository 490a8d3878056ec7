/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-job-private.h"

#include <string.h>

#include "mi-bytes.h"
#include "mitherm-error.h"

/* One wait: @self is kept, and @next is called unless the job has ended meanwhile. */
static MithermJobStep
take_next (MithermJob *self)
{
  MithermJobStep next = self->next;

  self->next = NULL;
  g_clear_handle_id (&self->timer_source, g_source_remove);
  g_clear_object (&self->step_cancellable);
  return next;
}

static gboolean
on_step_limit (gpointer user_data)
{
  MithermJob *self = user_data;

  self->timer_source = 0;
  g_cancellable_cancel (self->step_cancellable);
  return G_SOURCE_REMOVE;
}

static void
on_job_cancelled (GCancellable *job, GCancellable *step)
{
  g_cancellable_cancel (step);
}

/* Cancelled with the job, or when @limit_ms (0: none) have passed. */
static GCancellable *
begin_limited (MithermJob *self, guint limit_ms)
{
  g_clear_object (&self->step_cancellable);
  self->step_cancellable = g_cancellable_new ();
  g_cancellable_connect (self->cancellable, G_CALLBACK (on_job_cancelled),
                         g_object_ref (self->step_cancellable), g_object_unref);
  g_clear_handle_id (&self->timer_source, g_source_remove);
  if (limit_ms > 0)
    self->timer_source = g_timeout_add (limit_ms, on_step_limit, self);
  return self->step_cancellable;
}

/* Connecting */

static void
on_progress (MiRunner *runner, guint32 done, guint32 total, gpointer user_data)
{
  MithermJob *self = user_data;

  if (self->phase == PHASE_OVER)
    return;
  mitherm_job_touch (self);
  if (self->kind->progress != NULL)
    self->kind->progress (self, done, total);
}

static const MiRunnerCallbacks runner_callbacks = {
  .persist = mitherm_job_persist,
  .credential = mitherm_job_need_credential,
  .progress = on_progress,
};

static void
on_connect_step (const char *step, gpointer user_data)
{
  MithermJob *self = user_data;

  if (self->phase != PHASE_RUNNING)
    return;
  /* Verifying stays verifying while it connects. */
  if (self->connect_until_us == 0)
    mitherm_job_set_state (self, step);
  else
    mitherm_job_touch (self);
}

static void
on_connected (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (MithermJob) self = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (MiLink) link = mitherm_radio_connect_finish (MITHERM_RADIO (source), result, &error);
  MithermJobStep next;

  if (self->phase == PHASE_OVER)
    {
      if (link != NULL)
        mi_link_disconnect (link);
      return;
    }
  next = take_next (self);
  if (link == NULL)
    {
      if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        {
          g_clear_error (&error);
          g_set_error_literal (&error, MITHERM_ERROR, MITHERM_ERROR_TIMEOUT,
                               "The thermometer could not be reached in time.");
        }
      mitherm_job_continue (self, next, error);
      return;
    }
  self->link = g_steal_pointer (&link);
  self->runner = mi_runner_new (self->link, &runner_callbacks, self);
  mitherm_job_continue (self, next, NULL);
}

void
mitherm_job_connect (MithermJob *self, MithermJobStep next)
{
  guint limit_ms = 0;
  gint64 left_us = self->connect_until_us - g_get_monotonic_time ();

  mitherm_job_drop_link (self);
  if (self->connect_until_us == 0)
    mitherm_job_set_state (self, "connecting");
  else
    limit_ms = (guint) (MAX (left_us, 1000) / 1000);
  self->next = next;
  mitherm_radio_connect_async (mitherm_manager_get_radio (self->manager),
                               mitherm_device_get_address (self->device), self->adapter,
                               on_connect_step, self, begin_limited (self, limit_ms), on_connected,
                               g_object_ref (self));
}

/* Disconnecting */

static void
on_settled (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (MithermJob) self = user_data;
  g_autoptr (GError) error = NULL;

  /* If the link is still up, the next connect finds out. */
  if (!mitherm_radio_settle_finish (MITHERM_RADIO (source), result, &error))
    g_debug ("settle: %s", error->message);
  if (self->phase != PHASE_OVER)
    mitherm_job_continue (self, take_next (self), NULL);
}

void
mitherm_job_disconnect (MithermJob *self, MithermJobStep next)
{
  mitherm_job_drop_link (self);
  self->next = next;
  mitherm_radio_settle_async (mitherm_manager_get_radio (self->manager),
                              mitherm_device_get_address (self->device), begin_limited (self, 0),
                              on_settled, g_object_ref (self));
}

gboolean
mitherm_job_is_transient (const GError *error)
{
  return g_error_matches (error, MI_ERROR, MI_ERROR_LINK_LOST)
         || g_error_matches (error, MI_ERROR, MI_ERROR_TIMEOUT)
         || g_error_matches (error, MI_ERROR, MI_ERROR_TRANSFER)
         || g_error_matches (error, MI_ERROR, MI_ERROR_IO);
}

void
mitherm_job_repeat (MithermJob *self, const GError *error, MithermJobStep step)
{
  if (!mitherm_job_is_transient (error) || self->repeats >= MITHERM_JOB_REPEATS_MAX)
    {
      mitherm_job_fail (self, error);
      return;
    }
  self->repeats++;
  g_debug ("%s: once more after: %s", mitherm_device_get_address (self->device), error->message);
  mitherm_job_disconnect (self, step);
}

static void
on_forgotten (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (MithermJob) self = user_data;
  g_autoptr (GError) error = NULL;

  /* With services of the old image the next connection only takes longer. */
  if (!mitherm_radio_forget_finish (MITHERM_RADIO (source), result, &error))
    g_debug ("forget: %s", error->message);
  if (self->phase != PHASE_OVER)
    mitherm_job_continue (self, take_next (self), NULL);
}

void
mitherm_job_forget_services (MithermJob *self, MithermJobStep next)
{
  self->next = next;
  mitherm_radio_forget_async (mitherm_manager_get_radio (self->manager),
                              mitherm_device_get_address (self->device), begin_limited (self, 0),
                              on_forgotten, g_object_ref (self));
}

static gboolean
on_pause_over (gpointer user_data)
{
  MithermJob *self = user_data;

  self->timer_source = 0;
  mitherm_job_continue (self, take_next (self), NULL);
  return G_SOURCE_REMOVE;
}

void
mitherm_job_pause (MithermJob *self, guint ms, MithermJobStep next)
{
  self->next = next;
  g_clear_handle_id (&self->timer_source, g_source_remove);
  self->timer_source = g_timeout_add (ms, on_pause_over, self);
}

/* Running a procedure */

static void
on_run (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (MithermJob) self = user_data;
  g_autoptr (GError) error = NULL;

  mi_runner_run_finish (MI_RUNNER (source), result, &error);
  self->in_run = FALSE;
  if (self->phase == PHASE_OVER)
    mitherm_job_drop_link (self);
  else
    mitherm_job_continue (self, take_next (self), error);
}

void
mitherm_job_run (MithermJob *self, MiProcedure *procedure, MithermJobStep next)
{
  g_clear_pointer (&self->procedure, mi_procedure_free);
  self->procedure = procedure;
  self->in_run = TRUE;
  self->next = next;
  mi_runner_run_async (self->runner, procedure, self->cancellable, on_run, g_object_ref (self));
}

/* Reading what the device says of itself */

typedef struct
{
  guint16 channel;
  gsize offset; /* of a char * in MithermReadout */
} Fact;

static const Fact facts[] = {
  { MI_CHANNEL_VERSION, G_STRUCT_OFFSET (MithermReadout, version) },
  { MI_CHANNEL_MODEL, G_STRUCT_OFFSET (MithermReadout, model) },
  { MI_CHANNEL_SERIAL, G_STRUCT_OFFSET (MithermReadout, serial) },
  { MI_CHANNEL_FIRMWARE, G_STRUCT_OFFSET (MithermReadout, firmware) },
  { MI_CHANNEL_HARDWARE, G_STRUCT_OFFSET (MithermReadout, hardware) },
  { MI_CHANNEL_SOFTWARE, G_STRUCT_OFFSET (MithermReadout, software) },
  { MI_CHANNEL_MANUFACTURER, G_STRUCT_OFFSET (MithermReadout, manufacturer) },
  { MI_CHANNEL_MEASUREMENT, 0 }, /* battery */
};

void
mitherm_readout_clear (MithermReadout *readout)
{
  for (gsize i = 0; i < G_N_ELEMENTS (facts) - 1; i++)
    g_free (G_STRUCT_MEMBER (char *, readout, facts[i].offset));
  memset (readout, 0, sizeof *readout);
}

/* Printable ASCII up to the first zero. */
static char *
clean_text (GBytes *value)
{
  gsize len;
  const char *data = g_bytes_get_data (value, &len);
  GString *text = g_string_new (NULL);

  for (gsize i = 0; i < len && data[i] != '\0'; i++)
    {
      if (g_ascii_isprint (data[i]))
        g_string_append_c (text, data[i]);
    }
  g_strstrip (text->str);
  return g_string_free (text, FALSE);
}

static guint
battery_of (GBytes *value)
{
  gsize len;
  const guint8 *data = g_bytes_get_data (value, &len);

  if (len == 6) /* XMWSDJ04MMC: temperature, humidity, mV, each u16 (protocol/gatt.md section 4) */
    return mi_get_u16 (data + 4);
  return len == 5 ? mi_get_u16 (data + 3) : 0;
}

static void
take_fact (MithermJob *self, const Fact *fact, GBytes *value)
{
  char **text;

  if (fact->channel == MI_CHANNEL_MEASUREMENT)
    {
      self->readout.battery_mv = battery_of (value);
      return;
    }
  text = &G_STRUCT_MEMBER (char *, &self->readout, fact->offset);
  g_free (*text);
  *text = clean_text (value);
}

/* Why nothing else can be read or written: @error then says so. */
static gboolean
is_link_lost (MiLink *link, GError **error)
{
  if (g_error_matches (*error, MI_ERROR, MI_ERROR_LINK_LOST))
    return TRUE;
  if (!mi_link_is_closed (link))
    return FALSE;
  g_clear_error (error);
  g_set_error_literal (error, MI_ERROR, MI_ERROR_LINK_LOST, "The link was lost on the way.");
  return TRUE;
}

static void read_next (MithermJob *self, MithermJobStep next);

static void
on_fact (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (MithermJob) self = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) value = mi_link_read_finish (MI_LINK (source), result, &error);
  MithermJobStep next;

  if (self->phase == PHASE_OVER)
    return;
  next = take_next (self);
  if (value != NULL)
    take_fact (self, &facts[self->read_index], value);
  else
    g_debug ("%04x: %s", facts[self->read_index].channel, error->message);
  if (is_link_lost (MI_LINK (source), &error))
    {
      mitherm_job_continue (self, next, error);
      return;
    }
  self->read_index++;
  mitherm_job_touch (self);
  read_next (self, next);
}

static void
read_next (MithermJob *self, MithermJobStep next)
{
  while (self->read_index < G_N_ELEMENTS (facts)
         && (mi_link_get_flags (self->link, facts[self->read_index].channel) & MI_LINK_READ) == 0)
    self->read_index++;
  if (self->read_index == G_N_ELEMENTS (facts))
    {
      mitherm_job_continue (self, next, NULL);
      return;
    }
  self->next = next;
  mi_link_read_async (self->link, facts[self->read_index].channel,
                      begin_limited (self, mitherm_job_timing.read_ms), on_fact,
                      g_object_ref (self));
}

void
mitherm_job_read_facts (MithermJob *self, MithermJobStep next)
{
  mitherm_readout_clear (&self->readout);
  self->readout.has_mi = mi_link_get_flags (self->link, MI_CHANNEL_CONTROL) != 0
                         && mi_link_get_flags (self->link, MI_CHANNEL_AUTH) != 0;
  self->readout.has_ota = mi_link_get_flags (self->link, MI_CHANNEL_OTA) != 0;
  self->readout.has_dfu = mi_link_get_flags (self->link, MI_CHANNEL_DFU_CONTROL) != 0
                          && mi_link_get_flags (self->link, MI_CHANNEL_DFU_DATA) != 0;
  self->read_index = 0;
  read_next (self, next);
}

/* One characteristic */

static void
on_value_read (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (MithermJob) self = user_data;
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) value = mi_link_read_finish (MI_LINK (source), result, &error);

  if (self->phase == PHASE_OVER)
    return;
  g_clear_pointer (&self->value, g_bytes_unref);
  self->value = g_steal_pointer (&value);
  if (self->value == NULL)
    is_link_lost (MI_LINK (source), &error);
  mitherm_job_continue (self, take_next (self), error);
}

void
mitherm_job_read (MithermJob *self, guint16 channel, MithermJobStep next)
{
  self->next = next;
  mi_link_read_async (self->link, channel, begin_limited (self, mitherm_job_timing.read_ms),
                      on_value_read, g_object_ref (self));
}

static void
on_value_written (GObject *source, GAsyncResult *result, gpointer user_data)
{
  g_autoptr (MithermJob) self = user_data;
  g_autoptr (GError) error = NULL;
  gboolean written = mi_link_write_request_finish (MI_LINK (source), result, &error);

  if (self->phase == PHASE_OVER)
    return;
  if (!written)
    is_link_lost (MI_LINK (source), &error);
  mitherm_job_continue (self, take_next (self), error);
}

void
mitherm_job_write (MithermJob *self, guint16 channel, const guint8 *data, gsize len,
                   MithermJobStep next)
{
  self->next = next;
  mi_link_write_request_async (self->link, channel, data, len,
                               begin_limited (self, mitherm_job_timing.read_ms), on_value_written,
                               g_object_ref (self));
}

static gboolean
is_given (const char *text)
{
  return text != NULL && *text != '\0';
}

const char *
mitherm_readout_get_version (const MithermReadout *readout)
{
  if (is_given (readout->version))
    return readout->version;
  /* Custom firmware answers V5.8 in 2A28; its 2A26 may be an address on the web. */
  if (mi_version_is_custom (readout->software))
    return readout->software;
  if (is_given (readout->firmware))
    return readout->firmware;
  return is_given (readout->software) ? readout->software : NULL;
}

gboolean
mitherm_readout_has_version (const MithermReadout *readout, MiModels *models, const MiModel *model,
                             const char *version)
{
  const char *answers[] = { readout->version, readout->firmware, readout->software };

  for (gsize i = 0; i < G_N_ELEMENTS (answers); i++)
    {
      g_autofree char *full = NULL;

      if (!is_given (answers[i]))
        continue;
      full = mi_models_normalise_version (models, model, answers[i]);
      if (mi_version_equal (answers[i], version) || mi_version_equal (full, version))
        return TRUE;
    }
  return FALSE;
}

void
mitherm_job_publish_readout (MithermJob *self)
{
  MiModels *models = mitherm_manager_get_models (self->manager);
  const MiModel *model = NULL;
  const char *version = mitherm_readout_get_version (&self->readout);
  g_autofree char *full = NULL;
  MithermFacts news = { 0 };

  if (is_given (self->readout.model))
    model = mi_models_find (models, self->readout.model);
  if (model == NULL)
    model = mitherm_device_get_model (self->device);
  if (version != NULL)
    full = mi_models_normalise_version (models, model, version);
  news.model = model != NULL ? (char *) mi_model_get_name (model) : NULL;
  news.hardware = self->readout.hardware;
  news.firmware = full;
  news.info_us = full != NULL ? g_get_real_time () : 0;
  mitherm_device_set_facts (self->device, &news);
  if (!self->readout.has_mi)
    mitherm_device_set_auth_version (self->device, 0);
}

/* Device info */

void
mitherm_job_take_info (MithermJob *self, const MiDeviceInfo *info)
{
  if (info == NULL)
    return;
  mitherm_device_set_auth_version (self->device, info->auth_version);
  mitherm_job_result_uint (self, "auth-version", info->auth_version);
  if (info->has_did)
    {
      g_autofree char *did = mi_did_to_text (info->did);

      mitherm_job_result_string (self, "did", did);
    }
  else
    mitherm_device_set_bound (self->device, MITHERM_BOUND_NO);
}

static void
on_info (MithermJob *self, const GError *error)
{
  MithermJobStep next = self->login_next;

  if (error == NULL)
    mitherm_job_take_info (self, mi_info_get_result (self->procedure));
  mitherm_job_continue (self, next, error);
}

void
mitherm_job_read_info (MithermJob *self, MithermJobStep next)
{
  self->login_next = next;
  mitherm_job_run (self, mi_info_new (mi_runner_get_sizes (self->runner), FALSE), on_info);
}
