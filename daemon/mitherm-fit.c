/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-fit.h"

#include "mitherm-error.h"

/* The web flasher takes no less either (protocol/ota-telink.md section 6). */
#define FILE_SIZE_MIN 1024
#define BLOCK_LEN     16
/* The smaller of the two banks there are, for models without data. */
#define LIMIT_DEFAULT 0x20000

static const struct
{
  const char *name;
  MithermRisk risk;
} risks[] = {
  { "wrong-hardware", MITHERM_RISK_WRONG_HARDWARE },
  { "unsigned", MITHERM_RISK_UNSIGNED },
  { "battery-low", MITHERM_RISK_BATTERY_LOW },
  { "unknown-version", MITHERM_RISK_UNKNOWN_VERSION },
  { "downgrade", MITHERM_RISK_DOWNGRADE },
};

gboolean
mitherm_risk_from_string (const char *name, MithermRisk *out)
{
  for (gsize i = 0; i < G_N_ELEMENTS (risks); i++)
    {
      if (g_str_equal (risks[i].name, name))
        {
          *out = risks[i].risk;
          return TRUE;
        }
    }
  return FALSE;
}

gboolean
mitherm_fit_check_file (MiModels *models, MiImage *image, MithermRisk accept, GError **error)
{
  g_autoptr (GError) reason = NULL;

  if (!mi_image_check (image, &reason))
    {
      g_set_error (
          error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE,
          "The file is no sound image: %s. The thermometer was not contacted. Take another "
          "image.",
          reason->message);
      return FALSE;
    }
  if (mi_image_get_file_size (image) < FILE_SIZE_MIN)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE,
                   "The image has %" G_GSIZE_FORMAT " bytes, fewer than %d; no firmware is that "
                   "small.",
                   mi_image_get_file_size (image), FILE_SIZE_MIN);
      return FALSE;
    }
  if (mi_models_image_is_readout (models, image))
    {
      g_set_error_literal (error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE,
                           "The file was read out of a thermometer's flash and lost its signature "
                           "there. Take the original image.");
      return FALSE;
    }
  if (mi_image_get_kind (image) == MI_IMAGE_DAMAGED && (accept & MITHERM_RISK_UNSIGNED) == 0)
    {
      g_set_error_literal (error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE,
                           "The image's trailer (tag, certificates, signature) is damaged. Take "
                           "another image, or accept the risk unsigned.");
      return FALSE;
    }
  return TRUE;
}

static gboolean
check_limit (const MithermTarget *target, MiImage *image, GError **error)
{
  gsize size = target->size != 0 ? target->size : (gsize) mi_image_get_blocks (image) * BLOCK_LEN;
  guint32 limit = target->model != NULL ? mi_model_get_limit (target->model) : 0;

  if (target->model == NULL && !target->complete)
    return TRUE;
  if (g_strcmp0 (target->transport, "mible") == 0) /* the device knows its bank and says so */
    return TRUE;
  if (limit == 0)
    limit = LIMIT_DEFAULT;
  if (size <= limit)
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE,
               "The image takes %" G_GSIZE_FORMAT
               " bytes, but %s has room for %u. Take a smaller image.",
               size, target->model != NULL ? mi_model_get_name (target->model) : "the thermometer",
               limit);
  return FALSE;
}

static gboolean
check_hardware (MiModels *models, const MithermTarget *target, MiImage *image, MithermRisk accept,
                GError **error)
{
  g_autofree char *reason = NULL;
  g_auto (GStrv) names = NULL;
  MiFit fit;

  if ((accept & MITHERM_RISK_WRONG_HARDWARE) != 0 || (target->model == NULL && !target->complete))
    return TRUE;
  fit = mi_models_fit (models, target->model, target->hardware, target->running, image, &reason);
  if (fit == MI_FIT_YES)
    return TRUE;
  names = mi_models_get_image_models (models, image);
  /* Asking the thermometer may tell more; unless the image itself says nothing. */
  if (fit == MI_FIT_UNKNOWN && !target->complete && names[0] != NULL)
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_WRONG_HARDWARE,
               "The image %s for this thermometer (%s): %s. Take another image, or accept the risk "
               "wrong-hardware.",
               fit == MI_FIT_NO ? "is not" : "is not known to be",
               target->model != NULL ? mi_model_get_name (target->model) : "of unknown model",
               reason != NULL ? reason : "no reason given");
  return FALSE;
}

#define WAYS                                                                                       \
  "Ways that exist: an image signed by the vendor (for custom firmware often as a first hop); a "  \
  "signature envelope (option envelope), which the thermometer itself judges; or to accept the "   \
  "risk unsigned: after a refusal the thermometer may be silent until its battery was out."

static gboolean
check_signature (MiModels *models, const MithermTarget *target, MiImage *image, MithermRisk accept,
                 GError **error)
{
  MiSigned state = mi_models_get_signed (models, target->model, target->running);
  gboolean mible = g_strcmp0 (target->transport, "mible") == 0;

  if (mi_image_is_signed (image) || target->envelope || (accept & MITHERM_RISK_UNSIGNED) != 0)
    return TRUE;
  if (mible) /* protocol/ota-mible.md: tag, certificates and signature are always checked */
    {
      g_set_error_literal (error, MITHERM_ERROR, MITHERM_ERROR_NOT_SIGNED,
                           "The image carries no valid signature, and by the transport mible the "
                           "thermometer takes signed images only. " WAYS);
      return FALSE;
    }
  if ((target->running == NULL && !target->complete) || state == MI_SIGNED_NOT_REQUIRED)
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_NOT_SIGNED,
               "The image carries no valid signature, and the running firmware (%s) %s. " WAYS,
               target->running != NULL ? target->running : "unknown",
               state == MI_SIGNED_REQUIRED ? "demands one" : "may demand one");
  return FALSE;
}

static gboolean
check_version (MiModels *models, MiImage *image, const char *expect, MithermRisk accept,
               GError **error)
{
  const char *version = mi_models_get_image_version (models, image);

  if (version == NULL && expect == NULL && (accept & MITHERM_RISK_UNKNOWN_VERSION) == 0)
    {
      g_set_error_literal (error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE,
                           "The image does not tell its version, so that success could not be "
                           "proven. Give expect-version, or accept the risk unknown-version.");
      return FALSE;
    }
  if (version != NULL && expect != NULL && !mi_version_equal (version, expect))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE,
                   "The image carries version %s, but %s is expected.", version, expect);
      return FALSE;
    }
  return TRUE;
}

/* Older of the same family. From stock to custom firmware and back is a change, no downgrade. */
static gboolean
check_downgrade (MiModels *models, const MithermTarget *target, MiImage *image, MithermRisk accept,
                 GError **error)
{
  const char *version = mi_models_get_image_version (models, image);
  g_autofree char *running = NULL;
  int order = 0;

  if (version == NULL || target->running == NULL || (accept & MITHERM_RISK_DOWNGRADE) != 0
      || mi_version_is_custom (version) != mi_version_is_custom (target->running))
    return TRUE;
  running = mi_models_normalise_version (models, target->model, target->running);
  if (!mi_version_compare (version, running, &order) || order >= 0)
    return TRUE;
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_BAD_IMAGE,
               "The image's version %s is older than the running %s. Take a newer image, or accept "
               "the risk downgrade.",
               version, running);
  return FALSE;
}

gboolean
mitherm_fit_check (MiModels *models, const MithermTarget *target, MiImage *image,
                   const char *expect, MithermRisk accept, GError **error)
{
  return check_limit (target, image, error) && check_hardware (models, target, image, accept, error)
         && check_signature (models, target, image, accept, error)
         && check_version (models, image, expect, accept, error)
         && check_downgrade (models, target, image, accept, error);
}
