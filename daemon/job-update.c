/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <string.h>

#include "mi-ota.h"
#include "mitherm-fit.h"
#include "mitherm-job-private.h"

/* An interrupted upload starts again from the beginning, this often for each image. */
#define ATTEMPTS_MAX 3
/* Below this every upload is a risk. */
#define BATTERY_MIN_MV 2500
/* Properties of the progress change at most this often. */
#define PROGRESS_US (250 * 1000)

typedef struct
{
  GPtrArray *images; /* MiImage, one for each hop */
  guint hop;
  guint attempts; /* of all hops */
  guint hop_attempts;
  char *expect;
  MithermUpdateOptions options;
  char *before;     /* version before the first hop */
  char *before_hop; /* version before this hop */
  gboolean same;    /* this hop's image has the version that ran before it */
  gboolean saw_drop;
  gboolean battery_noted;
  char *answered; /* what the thermometer answered last */
  guint32 total;
  guint32 done;
  gint64 upload_us; /* when the upload began */
  gint64 shown_us;  /* when the progress was shown */
} Update;

static void attempt (MithermJob *self, const GError *error);
static void hop_connected (MithermJob *self, const GError *error);
static void prepare (MithermJob *self);
static void retry (MithermJob *self, const GError *error);
static void verify (MithermJob *self, const GError *error);

static void
update_free (gpointer data)
{
  Update *update = data;

  g_ptr_array_unref (update->images);
  g_free (update->expect);
  g_free (update->before);
  g_free (update->before_hop);
  g_free (update->answered);
  g_free (update);
}

static MiImage *
hop_image (Update *update)
{
  return g_ptr_array_index (update->images, update->hop);
}

static gboolean
is_last (Update *update)
{
  return update->hop + 1 == update->images->len;
}

/* The version that proves this hop, NULL: any other than before. */
static const char *
hop_version (MithermJob *self)
{
  Update *update = self->data;
  const char *version = mi_models_get_image_version (mitherm_manager_get_models (self->manager),
                                                     hop_image (update));

  return version == NULL && is_last (update) ? update->expect : version;
}

/* Progress */

static void
show_progress (MithermJob *self)
{
  Update *update = self->data;
  gint64 spent_us = g_get_monotonic_time () - update->upload_us;
  double share = update->total > 0 ? (double) update->done / update->total : 0;

  mitherm_dbus_job1_set_bytes_done (self->skeleton, update->done);
  mitherm_dbus_job1_set_bytes_total (self->skeleton, update->total);
  mitherm_dbus_job1_set_progress (self->skeleton, (update->hop + share) / update->images->len);
  if (spent_us > PROGRESS_US)
    mitherm_dbus_job1_set_bytes_per_second (self->skeleton,
                                            update->done * (double) G_USEC_PER_SEC / spent_us);
}

static void
on_progress (MithermJob *self, guint32 done, guint32 total)
{
  Update *update = self->data;
  gint64 now_us = g_get_monotonic_time ();

  update->done = done;
  if (now_us - update->shown_us < PROGRESS_US && done < total)
    return;
  update->shown_us = now_us;
  show_progress (self);
}

static gboolean
is_committed (MithermJob *self)
{
  return self->ota_ended
         || (self->procedure != NULL && g_str_equal (mi_procedure_get_name (self->procedure), "ota")
             && mi_ota_end_sent (self->procedure));
}

/* After the reboot: the proof */

static void
hop_done (MithermJob *self, gboolean weak)
{
  Update *update = self->data;

  self->ota_ended = self->ota_started = FALSE;
  self->connect_until_us = 0;
  mitherm_job_result_string (self, "version-before", update->before);
  mitherm_job_result_string (self, "version", update->answered);
  mitherm_job_result_string (self, "proof", weak ? "weak" : "version");
  mitherm_job_result_uint (self, "attempts", update->attempts);
  if (is_last (update))
    {
      mitherm_job_done (self);
      return;
    }
  update->hop++;
  update->hop_attempts = 0;
  attempt (self, NULL);
}

static void
proof_info_read (MithermJob *self, const GError *error)
{
  Update *update = self->data;

  /* The version has been proven; what the new firmware says beyond is for next time. */
  if (error != NULL)
    g_debug ("device info after the update: %s", error->message);
  hop_done (self, update->same);
}

static void
hop_proven (MithermJob *self)
{
  Update *update = self->data;

  mitherm_job_publish_readout (self);
  if (self->readout.has_mi)
    mitherm_job_read_info (self, proof_info_read);
  else
    hop_done (self, update->same);
}

static void
not_updated (MithermJob *self, const char *version)
{
  Update *update = self->data;

  mitherm_job_publish_readout (self);
  mitherm_job_result_string (self, "version-before", update->before);
  mitherm_job_result_string (self, "version", update->answered);
  mitherm_job_result_uint (self, "attempts", update->attempts);
  mitherm_job_fail_new (self, MITHERM_ERROR_NOT_UPDATED,
                        "After the upload the thermometer answered version %s, not %s.",
                        update->answered, version != NULL ? version : "a new one");
}

static gboolean
is_as_before (MithermJob *self)
{
  Update *update = self->data;

  return update->before_hop != NULL
         && mitherm_readout_has_version (&self->readout, mitherm_manager_get_models (self->manager),
                                         mitherm_device_get_model (self->device),
                                         update->before_hop);
}

static void
on_verify_facts (MithermJob *self, const GError *error)
{
  Update *update = self->data;
  const char *version = hop_version (self);
  const char *answered = mitherm_readout_get_version (&self->readout);
  gboolean arrived;

  if (error != NULL || answered == NULL)
    {
      mitherm_job_disconnect (self, verify);
      return;
    }
  g_free (update->answered);
  update->answered
      = mi_models_normalise_version (mitherm_manager_get_models (self->manager),
                                     mitherm_device_get_model (self->device), answered);
  if (version != NULL)
    arrived
        = mitherm_readout_has_version (&self->readout, mitherm_manager_get_models (self->manager),
                                       mitherm_device_get_model (self->device), version);
  else
    arrived = !is_as_before (self);
  if (version == NULL && arrived)
    mitherm_job_note (self, "The image does not tell its version; the answered version changed.");
  /* Without the restart the same version proves nothing at all. */
  if (arrived && (!update->same || update->saw_drop))
    hop_proven (self);
  else
    not_updated (self, version);
}

static void
verify_connected (MithermJob *self, const GError *error)
{
  if (error == NULL)
    mitherm_job_read_facts (self, on_verify_facts);
  else
    mitherm_job_pause (self, mitherm_job_timing.pause_ms, verify);
}

static void
verify (MithermJob *self, const GError *error)
{
  if (g_get_monotonic_time () < self->connect_until_us)
    {
      mitherm_job_connect (self, verify_connected);
      return;
    }
  mitherm_job_fail_new (self, MITHERM_ERROR_TIMEOUT,
                        "The thermometer took the whole image, but did not tell its version within "
                        "%u s.",
                        mitherm_job_timing.reboot_ms / 1000);
}

static void
begin_verify (MithermJob *self, const GError *error)
{
  mitherm_job_set_state (self, "verifying");
  self->connect_until_us = g_get_monotonic_time () + (gint64) mitherm_job_timing.reboot_ms * 1000;
  verify (self, NULL);
}

static void
rebooted (MithermJob *self, const GError *error)
{
  mitherm_job_forget_services (self, begin_verify);
}

static void
look_later (MithermJob *self, const GError *error)
{
  mitherm_job_pause (self, mitherm_job_timing.look_ms, rebooted);
}

/* The upload */

/* A device restarts a few seconds after an upload that failed (protocol/ota-telink.md section 4).
 */
static void
retry (MithermJob *self, const GError *error)
{
  mitherm_job_pause (self, mitherm_job_timing.retry_ms, attempt);
}

static gboolean
is_interrupted (MithermJob *self, const GError *error)
{
  if (mi_ota_end_sent (self->procedure))
    return FALSE;
  return g_error_matches (error, MI_ERROR, MI_ERROR_LINK_LOST)
         || g_error_matches (error, MI_ERROR, MI_ERROR_TIMEOUT)
         || g_error_matches (error, MI_ERROR, MI_ERROR_IO)
         || g_error_matches (error, MI_ERROR, MI_ERROR_OTA);
}

static void
on_uploaded (MithermJob *self, const GError *error)
{
  Update *update = self->data;

  if (error != NULL)
    {
      self->ota_ended
          = mi_ota_end_sent (self->procedure) && !g_error_matches (error, MI_ERROR, MI_ERROR_OTA);
      if (is_interrupted (self, error) && update->hop_attempts < ATTEMPTS_MAX)
        {
          mitherm_job_note (self, "Attempt %u was interrupted after %u bytes: %s.",
                            update->hop_attempts, update->done, error->message);
          mitherm_job_disconnect (self, retry);
          return;
        }
      mitherm_job_result_uint (self, "attempts", update->attempts);
      mitherm_job_fail (self, error);
      return;
    }
  self->ota_ended = TRUE;
  update->done = update->total;
  show_progress (self);
  update->saw_drop = mi_ota_saw_drop (self->procedure);
  mitherm_job_set_state (self, "rebooting");
  if (!update->saw_drop)
    mitherm_job_note (self, "The link did not drop after the end of the upload.");
  mitherm_job_disconnect (self, update->saw_drop ? rebooted : look_later);
}

static void
begin_upload (MithermJob *self)
{
  Update *update = self->data;
  MiOtaOptions options = { .window = update->options.window };
  gsize len;
  const guint8 *data = g_bytes_get_data (mi_image_get_payload (hop_image (update)), &len);

  if (!self->readout.has_ota)
    {
      mitherm_job_fail_new (self, MITHERM_ERROR_UNSUPPORTED,
                            "The running firmware has no Telink update service.");
      return;
    }
  options.pipelined = !mitherm_manager_get_config (self->manager)->wait_for_reads;
  options.set_interval = mi_link_get_flags (self->link, MI_CHANNEL_INTERVAL) != 0;
  options.request = (mi_link_get_flags (self->link, MI_CHANNEL_OTA) & MI_LINK_WRITE_COMMAND) == 0;
  mitherm_job_set_state (self, "uploading");
  self->ota_started = TRUE;
  update->done = 0;
  update->total = (guint32) len;
  update->upload_us = update->shown_us = g_get_monotonic_time ();
  show_progress (self);
  mitherm_job_run (self, mi_ota_new (data, len, &options), on_uploaded);
}

/* Registration and login, where the running firmware wants them */

static void
on_ready (MithermJob *self, const GError *error)
{
  if (error != NULL)
    mitherm_job_fail (self, error);
  else
    begin_upload (self);
}

static void
on_update_registered (MithermJob *self, const GError *error)
{
  if (error != NULL)
    mitherm_job_fail (self, error);
  else
    mitherm_job_confirm (self, on_ready);
}

static void
register_connected (MithermJob *self, const GError *error)
{
  if (error != NULL)
    mitherm_job_fail (self, error);
  else
    mitherm_job_register (self, on_update_registered);
}

static void
register_again (MithermJob *self, const GError *error)
{
  mitherm_job_connect (self, register_connected);
}

static void
on_update_login (MithermJob *self, const GError *error)
{
  Update *update = self->data;

  if (error != NULL && update->options.activate
      && g_error_matches (error, MI_ERROR, MI_ERROR_NOT_BOUND))
    mitherm_job_disconnect (self, register_again); /* the protocol wants a new connection */
  else
    on_ready (self, error);
}

static void
unlock (MithermJob *self)
{
  Update *update = self->data;

  if (!self->readout.has_mi)
    begin_upload (self);
  else if (mitherm_job_can_login (self))
    mitherm_job_login (self, on_update_login);
  else if (!update->options.activate)
    mitherm_job_fail_new (self, MITHERM_ERROR_NO_KEYS,
                          "The running firmware wants a login, and no token of this thermometer is "
                          "stored.");
  else if (mitherm_device_get_facts (self->device)->bound == MITHERM_BOUND_YES)
    mitherm_job_fail_new (self, MITHERM_ERROR_ALREADY_BOUND,
                          "The thermometer is activated with keys that are not stored here.");
  else
    mitherm_job_register (self, on_update_registered);
}

/* Checks that need the thermometer's answers */

static gboolean
check_battery (MithermJob *self, GError **error)
{
  Update *update = self->data;
  const MiModel *model = mitherm_device_get_model (self->device);
  guint min_mv = MAX (BATTERY_MIN_MV, model != NULL ? mi_model_get_min_battery (model) : 0);
  guint mv = self->readout.battery_mv;

  if (mv == 0 && !update->battery_noted)
    mitherm_job_note (self, "The battery's voltage could not be read.");
  update->battery_noted = TRUE;
  if (mv != 0)
    mitherm_job_result_uint (self, "battery-mv", mv);
  if (mv == 0 || mv >= min_mv || (update->options.accept & MITHERM_RISK_BATTERY_LOW) != 0)
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BATTERY_LOW,
               "The battery has %u mV, an update wants %u.", mv, min_mv);
  return FALSE;
}

static void
remember_version (MithermJob *self)
{
  Update *update = self->data;
  const char *version = hop_version (self);

  if (update->hop_attempts > 1)
    return;
  g_free (update->before_hop);
  update->before_hop = g_strdup (mitherm_readout_get_version (&self->readout) != NULL
                                     ? mitherm_device_get_facts (self->device)->firmware
                                     : NULL);
  update->same
      = version != NULL
        && mitherm_readout_has_version (&self->readout, mitherm_manager_get_models (self->manager),
                                        mitherm_device_get_model (self->device), version);
  if (update->hop == 0)
    {
      g_free (update->before);
      update->before = g_strdup (update->before_hop);
    }
}

static void
on_hop_facts (MithermJob *self, const GError *error)
{
  Update *update = self->data;
  g_autoptr (GError) refusal = NULL;
  MithermTarget target = { .complete = TRUE };

  if (error != NULL)
    {
      /* Nothing has been sent yet; the radio's own retries are over, too. */
      if (update->hop_attempts < ATTEMPTS_MAX)
        mitherm_job_disconnect (self, attempt);
      else
        mitherm_job_fail (self, error);
      return;
    }
  mitherm_job_publish_readout (self);
  remember_version (self);
  target.model = mitherm_device_get_model (self->device);
  target.hardware = self->readout.hardware;
  target.running = update->before_hop;
  if (!mitherm_fit_check (mitherm_manager_get_models (self->manager), &target, hop_image (update),
                          is_last (update) ? update->expect : NULL, update->options.accept,
                          &refusal)
      || !check_battery (self, &refusal))
    {
      mitherm_job_fail (self, refusal);
      return;
    }
  unlock (self);
}

static void
hop_connected (MithermJob *self, const GError *error)
{
  Update *update = self->data;

  if (error == NULL)
    prepare (self);
  else if (update->hop_attempts > 1 && update->hop_attempts < ATTEMPTS_MAX)
    retry (self, NULL); /* what interrupted the upload may take a while */
  else
    mitherm_job_fail (self, error);
}

static void
prepare (MithermJob *self)
{
  mitherm_job_set_state (self, "info");
  mitherm_job_read_facts (self, on_hop_facts);
}

static void
attempt (MithermJob *self, const GError *error)
{
  Update *update = self->data;

  update->attempts++;
  update->hop_attempts++;
  self->ota_started = FALSE;
  mitherm_dbus_job1_set_hop (self->skeleton, update->hop + 1);
  if (self->link != NULL && !mi_link_is_closed (self->link))
    prepare (self);
  else
    mitherm_job_connect (self, hop_connected);
}

static const MithermJobKind update_kind = {
  .name = "update",
  .action = "update",
  .start = attempt,
  .free_data = update_free,
  .is_committed = is_committed,
  .progress = on_progress,
};

/* What can be refused before connecting */

static gboolean
check_options (const MithermUpdateOptions *options, GError **error)
{
  const char *transport = options->transport;

  if (options->window > MI_OTA_WINDOW_MAX)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                   "Option \"window\" is %u, taken are 1 to %d.", options->window,
                   MI_OTA_WINDOW_MAX);
      return FALSE;
    }
  if (g_strcmp0 (transport, "mible") == 0)
    {
      g_set_error_literal (error, MITHERM_ERROR, MITHERM_ERROR_UNSUPPORTED,
                           "The transport mible is not there yet.");
      return FALSE;
    }
  if (transport != NULL && !g_str_equal (transport, "auto") && !g_str_equal (transport, "telink"))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                   "Option \"transport\" is \"%s\", taken are auto, telink and mible.", transport);
      return FALSE;
    }
  return TRUE;
}

static gboolean
check_transport (MithermDevice *device, GError **error)
{
  const MiModel *model = mitherm_device_get_model (device);

  if (model == NULL || mitherm_device_is_custom (device)
      || mi_model_has_transport (model, "telink"))
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_UNSUPPORTED,
               "%s takes no update by Telink's protocol, and no other is there yet.",
               mi_model_get_name (model));
  return FALSE;
}

static gboolean
check_keys (MithermDevice *device, const MithermUpdateOptions *options, GError **error)
{
  const MithermFacts *facts = mitherm_device_get_facts (device);
  const MithermRecord *record = mitherm_device_get_record (device);

  if (options->activate || (record != NULL && record->keys->len > 0) || facts->product_id == 0
      || mitherm_device_is_custom (device) || mi_version_is_custom (facts->firmware))
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_NO_KEYS,
               "The firmware of %s wants a login, and no keys of it are stored. It is as before. "
               "Activate it, update with the option activate, or import its keys.",
               mitherm_device_get_address (device));
  return FALSE;
}

static gboolean
check_images (MithermDevice *device, GPtrArray *images, const MithermUpdateOptions *options,
              GError **error)
{
  MiModels *models = mitherm_manager_get_models (mitherm_device_get_manager (device));
  const MithermFacts *facts = mitherm_device_get_facts (device);
  MithermTarget target = {
    .model = mitherm_device_get_model (device),
    .hardware = facts->hardware,
    .running = facts->info_us != 0 ? facts->firmware : NULL,
  };

  for (guint i = 0; i < images->len; i++)
    {
      MiImage *image = g_ptr_array_index (images, i);
      const char *expect = i + 1 == images->len ? options->expect_version : NULL;

      if (!mitherm_fit_check_file (models, image, options->accept, error)
          || !mitherm_fit_check (models, &target, image, expect, options->accept, error))
        {
          if (images->len > 1)
            g_prefix_error (error, "Image %u of %u: ", i + 1, images->len);
          return FALSE;
        }
      target.running = mi_models_get_image_version (models, image);
    }
  return TRUE;
}

MithermJob *
mitherm_job_update_new (MithermDevice *device, GPtrArray *files,
                        const MithermUpdateOptions *options, GError **error)
{
  MithermManager *manager = mitherm_device_get_manager (device);
  g_autoptr (GPtrArray) images = g_ptr_array_new_with_free_func ((GDestroyNotify) mi_image_unref);
  MithermJob *self;
  Update *update;

  if (!check_options (options, error))
    return NULL;
  for (guint i = 0; i < files->len; i++)
    g_ptr_array_add (images, mitherm_manager_new_image (manager, g_ptr_array_index (files, i)));
  if (!check_images (device, images, options, error) || !check_transport (device, error)
      || !check_keys (device, options, error) || !mitherm_job_check_free (device, error))
    return NULL;
  update = g_new0 (Update, 1);
  update->images = g_steal_pointer (&images);
  update->options = *options;
  update->options.expect_version = update->options.transport = NULL;
  update->expect = g_strdup (options->expect_version);
  self = mitherm_job_new (device, &update_kind, update);
  mitherm_dbus_job1_set_hop (self->skeleton, 1);
  mitherm_dbus_job1_set_hops (self->skeleton, update->images->len);
  mitherm_job_submit (self);
  return self;
}
