/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mitherm-job.h"

G_BEGIN_DECLS

/* The thermometer as far as it is known when an image is judged. NULL and unknown: not read yet. */
typedef struct
{
  const MiModel *model;
  const char *hardware;
  const char *running;   /* version */
  gboolean complete;     /* it has been asked: what is unknown now stays unknown */
  const char *transport; /* "telink", "mible"; NULL: not chosen yet */
  gsize size;            /* bytes of the upload; 0: the image's */
  gboolean envelope;     /* the upload has an envelope around the image: the device decides */
} MithermTarget;

/**
 * mitherm_fit_check_file:
 *
 * What can be said of a file alone: sound, large enough, no flash read-out. Errors:
 * MITHERM_ERROR_BAD_IMAGE.
 */
gboolean mitherm_fit_check_file (MiModels *models, MiImage *image, MithermRisk accept,
                                 GError **error);

/**
 * mitherm_fit_check:
 * @expect: (nullable): version that the caller expects
 *
 * Whether @image may go to @target: model, hardware and size, signature, version, downgrade. What
 * is not known yet is not judged before @target is complete. Errors: MITHERM_ERROR_WRONG_HARDWARE,
 * _BAD_IMAGE, _NOT_SIGNED.
 */
gboolean mitherm_fit_check (MiModels *models, const MithermTarget *target, MiImage *image,
                            const char *expect, MithermRisk accept, GError **error);

G_END_DECLS
