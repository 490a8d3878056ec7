/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-image.h"

G_BEGIN_DECLS

/*
 * What is known about thermometers and firmware files: data in key files (models.d/NAME.conf), read
 * once at start. A file of the same name in the configuration folder replaces the one shipped.
 */

/* One model; lives as long as its MiModels. */
typedef struct _MiModel MiModel;
typedef struct _MiModels MiModels;

/**
 * mi_models_load:
 * @data_dir: folder that contains models.d/ (and rules.d/)
 * @conf_dir: (nullable): folder whose models.d/NAME.conf replaces @data_dir's file of that name
 * @problems: (out) (optional) (element-type utf8) (transfer full): one text per file or group that
 *   was skipped, with its path
 *
 * Never fails: what cannot be read is skipped and reported.
 */
MiModels *mi_models_load (const char *data_dir, const char *conf_dir, GPtrArray **problems);
/* Empty; add data with mi_models_add_key_file(). */
MiModels *mi_models_new (void);
void mi_models_free (MiModels *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiModels, mi_models_free)

/* Takes every group of @file that is sound; the others are reported as "ORIGIN: group: reason". */
void mi_models_add_key_file (MiModels *self, GKeyFile *file, const char *origin,
                             GPtrArray *problems);

/* (element-type MiModel) (transfer none) */
GPtrArray *mi_models_list (MiModels *self);
/* By the model's own name ("LYWSD03MMC"), which is what 2A24 answers where it answers. */
const MiModel *mi_models_find (MiModels *self, const char *model);
/* By an advertised name, exactly; NULL for names that several models or custom firmware use. */
const MiModel *mi_models_find_by_name (MiModels *self, const char *advertised);
/* The first model with this product id; models of one id differ only in what a look at 2A24 or the
 * user can tell. */
const MiModel *mi_models_find_by_product_id (MiModels *self, guint16 product_id);
/* By the model string of a tag ("miaomiaoce.sensor_ht.t2"). */
const MiModel *mi_models_find_by_model_string (MiModels *self, const char *model_string);
/* By the hardware id of custom firmware (protocol/image.md section 9). */
const MiModel *mi_models_find_by_hardware_id (MiModels *self, guint hardware_id);

const char *mi_model_get_name (const MiModel *self);
const char *const *mi_model_get_names (const MiModel *self);    /* advertised */
const char *const *mi_model_get_hardware (const MiModel *self); /* strings of 2A27 */
const char *mi_model_get_model_string (const MiModel *self);    /* (nullable) */
gboolean mi_model_has_product_id (const MiModel *self, guint16 product_id);
const guint16 *mi_model_get_product_ids (const MiModel *self, gsize *n);
/* In order of preference: "telink", "mible"; empty: no update over the air is known. */
const char *const *mi_model_get_transports (const MiModel *self);
gboolean mi_model_has_transport (const MiModel *self, const char *transport);
/* Largest upload in bytes (blocks * 16) over Telink OTA, 0: unknown. */
guint32 mi_model_get_limit (const MiModel *self);
guint mi_model_get_min_battery (const MiModel *self); /* mV */

/* What the running firmware demands. */
typedef enum
{
  MI_SIGNED_UNKNOWN,  /* needs the risk "unsigned" */
  MI_SIGNED_REQUIRED, /* only a validly signed image; else the risk "unsigned" */
  MI_SIGNED_NOT_REQUIRED,
} MiSigned;

/* "unknown", "required", "not-required": the values of Device1.Signed */
const char *mi_signed_to_string (MiSigned state);

/**
 * mi_models_get_signed:
 * @model: (nullable)
 * @running: (nullable): version as the device answered it ("2.1.1_0159", "0159", "V5.8")
 */
MiSigned mi_models_get_signed (MiModels *self, const MiModel *model, const char *running);

typedef enum
{
  MI_FIT_UNKNOWN, /* cannot be told: needs the risk "wrong-hardware" */
  MI_FIT_YES,
  MI_FIT_NO, /* refused; overridden only by the risk "wrong-hardware" */
} MiFit;

/**
 * mi_models_fit:
 * @model: (nullable): of the device
 * @hardware: (nullable): what the device answered in 2A27
 * @running: (nullable): the version that runs
 * @reason: (out) (optional) (transfer full): why, for people
 *
 * Whether @image is for the device. Trusted in this order: verified tag, 0x1141 image type, known
 * SHA-256, names inside the image (protocol/image.md section 9). Says nothing about size,
 * signature or soundness.
 */
MiFit mi_models_fit (MiModels *self, const MiModel *model, const char *hardware,
                     const char *running, MiImage *image, char **reason);

/* (transfer full): names of the models that @image is for, most trusted source only; maybe empty.
 */
char **mi_models_get_image_models (MiModels *self, MiImage *image);
/* (nullable): mi_image_get_version(), else that of a file known by SHA-256 */
const char *mi_models_get_image_version (MiModels *self, MiImage *image);
/* Whether the file is known (by SHA-256) to be a flash read-out, which no update file is. */
gboolean mi_models_image_is_readout (MiModels *self, MiImage *image);

/**
 * mi_models_image_is_offered:
 *
 * Whether a catalogue may offer the file of its own accord: sound, of a known kind and version, and
 * no flash read-out. Stock 2.1.1 without a trailer counts as one, as every update file of 2.1.1 is
 * signed.
 */
gboolean mi_models_image_is_offered (MiModels *self, MiImage *image);
/* (transfer floating): mi_image_describe() with version and models filled in */
GVariant *mi_models_describe_image (MiModels *self, MiImage *image);

/* Versions. */

/**
 * mi_version_equal:
 *
 * Whether two version texts name the same firmware: case-insensitive; `0130` (only the build)
 * matches `1.0.0_0130`, `V5.8` matches `v5.8` and `5.8`. NULL or empty equals nothing.
 */
gboolean mi_version_equal (const char *a, const char *b);

/* Whether it is a version of custom firmware: `V5.8`. */
gboolean mi_version_is_custom (const char *version);

/**
 * mi_version_compare:
 *
 * Numerically, part by part; parts that one of them lacks are not compared (`2.1.1` equals
 * `2.1.1_0159`). Versions with nothing but a build, and anything else that has no parts, are
 * not comparable.
 *
 * Returns: %FALSE if not comparable
 */
gboolean mi_version_compare (const char *a, const char *b, int *result);

/**
 * mi_models_normalise_version:
 *
 * Returns: (transfer full): the full version where @version is only a build that the data knows
 *   for @model (`0130` -> `1.0.0_0130`), else @version itself
 */
char *mi_models_normalise_version (MiModels *self, const MiModel *model, const char *version);

G_END_DECLS
