/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <string.h>

#include "mi-dfu.h"
#include "mi-ota.h"
#include "mitherm-fit.h"
#include "mitherm-job-private.h"
#include "mitherm-plan.h"

/* An interrupted upload starts again from the beginning, this often for each image. */
#define ATTEMPTS_MAX 3
/* Below this every upload is a risk. */
#define BATTERY_MIN_MV 2500
/* How long the old version may still answer after a verified mible update. */
#define SWITCH_US (10 * G_USEC_PER_SEC)
/* Properties of the progress change at most this often. */
#define PROGRESS_US (250 * 1000)

typedef struct
{
  GPtrArray *images;   /* MiImage, one for each hop; those to come may change places */
  GBytes *envelope;    /* (nullable): around the last one */
  GBytes *upload;      /* what this hop sends */
  GPtrArray *versions; /* answered after each hop */
  guint hop;
  guint attempts; /* of all hops */
  guint hop_attempts;
  gboolean hop_known; /* what ran before this hop has been read, and its image chosen */
  char *expect;
  char *transport;  /* wanted, NULL: the best there is */
  const char *used; /* "telink", "mible": of this hop */
  MithermUpdateOptions options;
  char *before;     /* version before the first hop */
  char *before_hop; /* version before this hop */
  gboolean same;    /* this hop's image has the version that ran before it */
  gboolean saw_drop;
  gboolean device_decides; /* nobody but the thermometer can judge this hop's upload */
  guint min_battery_mv;
  gint64 switch_until_us; /* the old version may answer until then */
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
  g_ptr_array_unref (update->versions);
  g_clear_pointer (&update->envelope, g_bytes_unref);
  g_clear_pointer (&update->upload, g_bytes_unref);
  g_free (update->expect);
  g_free (update->transport);
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

/* Whether the command that lets a mible device verify and switch has been sent. */
static gboolean
is_switching (MiProcedure *procedure)
{
  const char *state = mi_procedure_get_state_name (procedure);

  return g_str_equal (state, "verify") || g_str_equal (state, "disconnect");
}

static gboolean
is_end_sent (MiProcedure *procedure)
{
  const char *name = mi_procedure_get_name (procedure);

  if (g_str_equal (name, "ota"))
    return mi_ota_end_sent (procedure);
  return g_str_equal (name, "dfu") && is_switching (procedure);
}

static gboolean
is_committed (MithermJob *self)
{
  return self->ota_ended || (self->procedure != NULL && is_end_sent (self->procedure));
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
  g_ptr_array_add (update->versions, g_strdup (update->answered));
  mitherm_job_result_strings (self, "versions", update->versions);
  if (is_last (update))
    {
      mitherm_job_done (self);
      return;
    }
  update->hop++;
  update->hop_attempts = 0;
  update->hop_known = FALSE;
  update->switch_until_us = 0;
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
                        "After the upload the thermometer answered version %s, not %s.%s",
                        update->answered, version != NULL ? version : "a new one",
                        update->device_decides
                            ? " It decides itself about images without a valid signature, and has "
                              "refused this one."
                            : "");
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
switch_later (MithermJob *self, const GError *error)
{
  mitherm_job_pause (self, mitherm_job_timing.pause_ms, verify);
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
  if (!arrived && g_get_monotonic_time () < update->switch_until_us)
    {
      mitherm_job_disconnect (self, switch_later);
      return;
    }
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
  if (is_end_sent (self->procedure))
    return FALSE;
  return mitherm_job_is_transient (error) || g_error_matches (error, MI_ERROR, MI_ERROR_OTA);
}

static void
upload_failed (MithermJob *self, const GError *error)
{
  Update *update = self->data;

  if (is_interrupted (self, error) && update->hop_attempts < ATTEMPTS_MAX)
    {
      mitherm_job_note (self, "Attempt %u was interrupted after %u bytes: %s.",
                        update->hop_attempts, update->done, error->message);
      mitherm_job_disconnect (self, retry);
      return;
    }
  mitherm_job_result_uint (self, "attempts", update->attempts);
  mitherm_job_fail (self, error);
}

/* The image is complete: the thermometer restarts. */
static void
upload_ended (MithermJob *self)
{
  Update *update = self->data;

  self->ota_ended = TRUE;
  update->done = update->total;
  show_progress (self);
  mitherm_job_set_state (self, "rebooting");
  if (!update->saw_drop)
    mitherm_job_note (self, "The link did not drop after the end of the upload.");
  mitherm_job_disconnect (self, update->saw_drop ? rebooted : look_later);
}

static void
on_uploaded (MithermJob *self, const GError *error)
{
  Update *update = self->data;

  if (error != NULL)
    {
      self->ota_ended
          = mi_ota_end_sent (self->procedure) && !g_error_matches (error, MI_ERROR, MI_ERROR_OTA);
      upload_failed (self, error);
      return;
    }
  update->saw_drop = mi_ota_saw_drop (self->procedure);
  upload_ended (self);
}

/* (transfer full): a status of the device in the names of our errors */
static GError *
dfu_error (MithermJob *self, const GError *error)
{
  guint8 status = mi_dfu_get_status (self->procedure);
  const char *text = mi_dfu_status_text (mi_dfu_get_protocol (self->procedure), status);
  MithermError code = MITHERM_ERROR_PROTOCOL;

  if (!g_error_matches (error, MI_ERROR, MI_ERROR_DFU))
    return g_error_copy (error);
  if (status == 8)
    code = MITHERM_ERROR_BATTERY_LOW;
  else if (status == 2 || status == 6 || status == 9)
    code = MITHERM_ERROR_BAD_IMAGE;
  return g_error_new (MITHERM_ERROR, (int) code, "The thermometer refused the update: %s (%s).",
                      text, error->message);
}

static void
on_dfu_ended (MithermJob *self, const GError *error)
{
  Update *update = self->data;
  gboolean refused = error != NULL && g_error_matches (error, MI_ERROR, MI_ERROR_DFU);
  g_autoptr (GError) told = error != NULL ? dfu_error (self, error) : NULL;

  if (error != NULL && (refused || !is_switching (self->procedure)))
    {
      upload_failed (self, told);
      return;
    }
  /* We end the link ourselves; what got lost with it is told by the version. */
  if (error != NULL)
    mitherm_job_note (self, "The end of the verification was not heard: %s.", error->message);
  update->saw_drop = TRUE;
  update->switch_until_us = g_get_monotonic_time () + SWITCH_US;
  upload_ended (self);
}

static void
run_telink (MithermJob *self, const guint8 *data, gsize len)
{
  Update *update = self->data;
  MiOtaOptions options = { .window = update->options.window };

  options.pipelined = !mitherm_manager_get_config (self->manager)->wait_for_reads;
  options.set_interval = mi_link_get_flags (self->link, MI_CHANNEL_INTERVAL) != 0;
  options.request = (mi_link_get_flags (self->link, MI_CHANNEL_OTA) & MI_LINK_WRITE_COMMAND) == 0;
  mitherm_job_run (self, mi_ota_new (data, len, &options), on_uploaded);
}

static void
begin_upload (MithermJob *self)
{
  Update *update = self->data;
  gsize len;
  const guint8 *data = g_bytes_get_data (update->upload, &len);

  mitherm_job_set_state (self, "uploading");
  mitherm_job_result_string (self, "transport", update->used);
  self->ota_started = TRUE;
  update->done = 0;
  update->total = (guint32) len;
  update->upload_us = update->shown_us = g_get_monotonic_time ();
  show_progress (self);
  if (g_str_equal (update->used, "telink"))
    run_telink (self, data, len);
  else
    mitherm_job_run (self, mi_dfu_new (mi_runner_get_sizes (self->runner), data, len, 0),
                     on_dfu_ended);
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
  guint min_mv = MAX (MAX (BATTERY_MIN_MV, update->min_battery_mv),
                      model != NULL ? mi_model_get_min_battery (model) : 0);
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

  if (update->hop_known)
    return;
  g_free (update->before_hop);
  update->before_hop = g_strdup (mitherm_readout_get_version (&self->readout) != NULL
                                     ? mitherm_device_get_facts (self->device)->firmware
                                     : NULL);
  if (update->hop == 0)
    {
      g_free (update->before);
      update->before = g_strdup (update->before_hop);
    }
}

static void
remember_image (MithermJob *self)
{
  Update *update = self->data;
  const char *version = hop_version (self);

  if (!update->hop_known)
    update->same
        = version != NULL
          && mitherm_readout_has_version (&self->readout,
                                          mitherm_manager_get_models (self->manager),
                                          mitherm_device_get_model (self->device), version);
}

/* @target: as the hop before leaves it */
static gboolean
check_image (MithermManager *manager, MithermTarget *target, MiImage *image, gboolean last,
             const MithermUpdateOptions *options, GError **error)
{
  MiModels *models = mitherm_manager_get_models (manager);
  GBytes *envelope = last ? options->envelope : NULL;
  g_autoptr (GBytes) wrapped = NULL;
  g_autoptr (GError) problem = NULL;
  guint min_battery_mv = 0;

  if (!mitherm_fit_check_file (models, image, options->accept, error))
    return FALSE;
  target->envelope = envelope != NULL;
  target->size = 0;
  if (envelope != NULL)
    {
      wrapped = mi_image_apply_envelope (mi_image_get_payload (image), envelope, &problem);
      if (wrapped == NULL)
        {
          g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE,
                       "The envelope does not go around the image: %s. Take another envelope, or "
                       "an image without one.",
                       problem->message);
          return FALSE;
        }
      target->size = (g_bytes_get_size (wrapped) + 15) / 16 * 16;
    }
  return mitherm_fit_check (models, target, image, last ? options->expect_version : NULL,
                            options->accept, error)
         && mitherm_plan_check_rules (manager, target, image, options->accept, &min_battery_mv,
                                      NULL, error);
}

/*
 * Every hop of @plan, each from what the one before leaves. While the running version is not known
 * the order may still change, and each image is judged for itself.
 */
static gboolean
check_chain (MithermManager *manager, const MithermTarget *start, MiPlan *plan, GPtrArray *images,
             const MithermUpdateOptions *options, GError **error)
{
  MithermTarget target = *start;

  for (guint i = 0; i < plan->hops->len; i++)
    {
      const MiPlanHop *hop = g_ptr_array_index (plan->hops, i);
      MiImage *image = g_ptr_array_index (images, hop->image);

      if (!check_image (manager, &target, image, i + 1 == plan->hops->len, options, error))
        {
          if (images->len > 1)
            g_prefix_error (error, "Image for hop %u of %u: ", i + 1, images->len);
          return FALSE;
        }
      target.complete = FALSE;
      if (start->running != NULL)
        target.running = mi_models_get_image_version (mitherm_manager_get_models (manager), image);
    }
  return mitherm_plan_check_order (plan, error);
}

/* Which image comes next is known for sure only now that the running version is; and whether all
 * can come. */
static gboolean
choose_image (MithermJob *self, const MithermTarget *target, GError **error)
{
  Update *update = self->data;
  g_autoptr (GPtrArray) left = g_ptr_array_new ();
  g_autoptr (MiPlan) plan = NULL;
  MithermUpdateOptions options = update->options;
  MiImage *next;

  for (guint i = update->hop; i < update->images->len; i++)
    g_ptr_array_add (left, g_ptr_array_index (update->images, i));
  plan = mitherm_plan_new (self->manager, target, left, update->envelope, update->expect);
  options.expect_version = update->expect;
  options.envelope = update->envelope;
  if (!check_chain (self->manager, target, plan, left, &options, error))
    return FALSE;
  next = g_ptr_array_steal_index (
      update->images, update->hop + ((MiPlanHop *) g_ptr_array_index (plan->hops, 0))->image);
  g_ptr_array_insert (update->images, (gint) update->hop, next);
  return TRUE;
}

static gboolean
has_transport (MithermJob *self, const char *name)
{
  if (g_str_equal (name, "telink"))
    return self->readout.has_ota;
  return g_str_equal (name, "mible") && self->readout.has_dfu && self->readout.has_mi;
}

/* What is asked for; else what the device offers, in the order of its model. */
static gboolean
choose_transport (MithermJob *self, GError **error)
{
  static const char *const usual[] = { "telink", "mible", NULL };
  Update *update = self->data;
  const MiModel *model = mitherm_device_get_model (self->device);
  const char *const wanted[] = { update->transport, NULL };
  const char *const *orders[] = { model != NULL ? mi_model_get_transports (model) : usual, usual };

  if (update->transport != NULL)
    orders[0] = orders[1] = wanted;
  for (gsize i = 0; i < G_N_ELEMENTS (orders); i++)
    {
      for (const char *const *name = orders[i]; name != NULL && *name != NULL; name++)
        {
          if (has_transport (self, *name))
            {
              update->used = g_intern_string (*name);
              return TRUE;
            }
        }
    }
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_UNSUPPORTED,
               "The running firmware has no update service%s%s.",
               update->transport != NULL ? " for the transport " : "",
               update->transport != NULL ? update->transport : "");
  return FALSE;
}

static gboolean
make_upload (MithermJob *self, GError **error)
{
  Update *update = self->data;
  GBytes *payload = mi_image_get_payload (hop_image (update));

  g_clear_pointer (&update->upload, g_bytes_unref);
  if (update->envelope == NULL || !is_last (update))
    update->upload = g_bytes_ref (payload);
  else
    update->upload = mi_image_apply_envelope (payload, update->envelope, error);
  return update->upload != NULL;
}

/* The risks of a hop that only the thermometer can judge. */
static void
tell_decision (MithermJob *self, const MithermTarget *target)
{
  Update *update = self->data;
  MiSigned state = mi_models_get_signed (mitherm_manager_get_models (self->manager), target->model,
                                         target->running);

  update->device_decides = !mi_image_is_signed (hop_image (update))
                           && (state != MI_SIGNED_NOT_REQUIRED || target->envelope
                               || g_str_equal (update->used, "mible"));
  if (!update->device_decides || update->hop_known)
    return;
  mitherm_job_result_flag (self, "device-decides", TRUE);
  mitherm_job_note (self,
                    "The thermometer itself decides about this image%s; only the version read "
                    "back counts.",
                    target->envelope ? " in its envelope" : "");
}

/* Everything that must hold before the first byte is sent. */
static gboolean
check_hop (MithermJob *self, GError **error)
{
  Update *update = self->data;
  MithermManager *manager = self->manager;
  g_autoptr (GPtrArray) notes = g_ptr_array_new_with_free_func (g_free);
  MithermTarget target = {
    .model = mitherm_device_get_model (self->device),
    .hardware = self->readout.hardware,
    .running = update->before_hop,
    .complete = TRUE,
  };

  update->min_battery_mv = 0;
  if (!choose_transport (self, error))
    return FALSE;
  target.transport = update->used;
  if ((!update->hop_known && !choose_image (self, &target, error)) || !make_upload (self, error))
    return FALSE;
  remember_image (self);
  target.size = (g_bytes_get_size (update->upload) + 15) / 16 * 16;
  target.envelope = update->envelope != NULL && is_last (update);
  if (!mitherm_fit_check (mitherm_manager_get_models (manager), &target, hop_image (update),
                          is_last (update) ? update->expect : NULL, update->options.accept, error)
      || !mitherm_plan_check_rules (manager, &target, hop_image (update), update->options.accept,
                                    &update->min_battery_mv, update->hop_known ? NULL : notes,
                                    error)
      || !check_battery (self, error))
    return FALSE;
  for (guint i = 0; i < notes->len; i++)
    mitherm_job_note (self, "%s", (const char *) g_ptr_array_index (notes, i));
  tell_decision (self, &target);
  update->hop_known = TRUE;
  return TRUE;
}

static void
on_hop_facts (MithermJob *self, const GError *error)
{
  Update *update = self->data;
  g_autoptr (GError) refusal = NULL;

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
  if (!check_hop (self, &refusal))
    {
      mitherm_job_fail (self, refusal);
      return;
    }
  self->login_explores = g_str_equal (update->used, "mible");
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
  if (transport != NULL && !g_str_equal (transport, "auto") && !g_str_equal (transport, "telink")
      && !g_str_equal (transport, "mible"))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                   "Option \"transport\" is \"%s\", taken are auto, telink and mible.", transport);
      return FALSE;
    }
  return TRUE;
}

/* NULL: as long as it has not been asked, it may be either. */
static const char *
expected_transport (MithermDevice *device, const MithermUpdateOptions *options)
{
  const MiModel *model = mitherm_device_get_model (device);

  if (g_strcmp0 (options->transport, "mible") == 0)
    return "mible";
  if (model == NULL || mitherm_device_is_custom (device)
      || mi_model_has_transport (model, "telink"))
    return NULL;
  return mi_model_has_transport (model, "mible") ? "mible" : NULL;
}

static gboolean
check_transport (MithermDevice *device, GError **error)
{
  const MiModel *model = mitherm_device_get_model (device);

  if (model == NULL || mitherm_device_is_custom (device)
      || mi_model_get_transports (model)[0] != NULL)
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_UNSUPPORTED,
               "No way to update %s over the air is known. It is as before.",
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

/* Puts @images into the order of the plan and checks each. */
static gboolean
check_images (MithermDevice *device, GPtrArray *images, const MithermUpdateOptions *options,
              GError **error)
{
  MithermManager *manager = mitherm_device_get_manager (device);
  g_autoptr (MiPlan) plan = NULL;
  g_autoptr (GPtrArray) ordered = g_ptr_array_new ();
  MithermTarget target;

  mitherm_plan_get_target (device, &target);
  plan = mitherm_plan_new (manager, &target, images, options->envelope, options->expect_version);
  target.transport = expected_transport (device, options);
  if (!check_chain (manager, &target, plan, images, options, error))
    return FALSE;
  for (guint i = 0; i < plan->hops->len; i++)
    {
      const MiPlanHop *hop = g_ptr_array_index (plan->hops, i);

      g_ptr_array_add (ordered, g_ptr_array_index (images, hop->image));
    }
  for (guint i = 0; i < images->len; i++)
    images->pdata[i] = ordered->pdata[i];
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
  update->versions = g_ptr_array_new_with_free_func (g_free);
  update->options = *options;
  update->options.expect_version = update->options.transport = NULL;
  update->options.envelope = NULL;
  if (options->envelope != NULL)
    update->envelope = g_bytes_ref (options->envelope);
  if (options->transport != NULL && !g_str_equal (options->transport, "auto"))
    update->transport = g_strdup (options->transport);
  update->expect = g_strdup (options->expect_version);
  self = mitherm_job_new (device, &update_kind, update);
  mitherm_dbus_job1_set_hop (self->skeleton, 1);
  mitherm_dbus_job1_set_hops (self->skeleton, update->images->len);
  mitherm_job_submit (self);
  return self;
}
