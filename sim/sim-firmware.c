/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-private.h"

#include <stdio.h>
#include <string.h>

/* The image of the factory: as small as real flash tools take it, 16 * k + 4. */
#define FACTORY_SIZE    4100
#define FACTORY_SEED    11
#define TEXT_AT         0x40
#define IMAGE_SIZE_MIN  0x24
#define IDENTITY_PREFIX 8 /* bytes of the image's hash in the record */
#define IDENTITY_HEAD   (2 + IDENTITY_PREFIX)

void
sim_firmware_clear (SimFirmware *self)
{
  g_clear_pointer (&self->version, g_free);
  g_clear_pointer (&self->answer, g_free);
}

static gboolean
is_custom_version (const char *version)
{
  return g_ascii_toupper (version[0]) == 'V' && g_ascii_isdigit (version[1]);
}

static gboolean
is_signing_version (const char *version)
{
  guint major = 0, minor = 0, revision = 0;

  if (sscanf (version, "%3u.%3u.%3u", &major, &minor, &revision) != 3)
    return FALSE;
  return major * 1000000 + minor * 1000 + revision >= 2001001;
}

/* What a stock firmware of this version demands (contract of the models: protocol/gatt.md 7, 9). */
static void
apply_stock_version (SimFirmware *self, const SimModel *model, const char *version)
{
  gboolean signing = is_signing_version (version);

  self->auth_version = signing && !model->auth_fixed ? 2 : model->auth_version;
  self->enforce = signing && !model->not_enforced;
}

void
sim_firmware_from_config (SimFirmware *self, const SimConfig *config)
{
  const char *version = config->firmware != NULL ? config->firmware : "";

  sim_firmware_clear (self);
  self->answer = g_strdup (version);
  self->version = g_strdup (version);
  self->auth_version = 0;
  self->enforce = FALSE;
  self->body = is_custom_version (version) ? MI_IMAGE_CUSTOM_PVVX : MI_IMAGE_STOCK;
  if (self->body == MI_IMAGE_STOCK)
    apply_stock_version (self, config->model, version);
}

gboolean
sim_firmware_is_custom (const SimDevice *self)
{
  return self->firmware.body == MI_IMAGE_CUSTOM_PVVX
         || self->firmware.body == MI_IMAGE_CUSTOM_ATC1441;
}

/* A version in an image of no known kind, which may be a test's. */
static char *
find_version (const guint8 *image, gsize len)
{
  g_autoptr (GRegex) regex
      = g_regex_new ("[0-9]+\\.[0-9]+\\.[0-9]+_[0-9]{4}", G_REGEX_RAW, 0, NULL);
  g_autoptr (GMatchInfo) match = NULL;

  if (!g_regex_match_full (regex, (const char *) image, (gssize) len, 0, 0, &match, NULL))
    return NULL;
  return g_match_info_fetch (match, 0);
}

static GBytes *
read_image (SimDevice *self, guint32 bank, gsize len)
{
  guint8 *copy = sim_flash_dup (self->flash, bank, len);

  if (len > SIM_IMAGE_MARK)
    copy[SIM_IMAGE_MARK] = 0x4b;
  return g_bytes_new_take (copy, len);
}

/* Facts that outlive the image they belong to: of an unknown image nothing but these is known. */
static void
store_identity (SimDevice *self, const guint8 prefix[IDENTITY_PREFIX])
{
  const SimFirmware *firmware = &self->firmware;
  guint8 record[IDENTITY_HEAD + 24] = { (guint8) firmware->auth_version, firmware->enforce != 0 };
  gsize len = MIN (strlen (firmware->answer), sizeof record - IDENTITY_HEAD);

  memcpy (record + 2, prefix, IDENTITY_PREFIX);
  memcpy (record + IDENTITY_HEAD, firmware->answer, len);
  sim_flash_put_record (self->flash, SIM_RECORD_IDENTITY, record, IDENTITY_HEAD + len);
}

typedef enum
{
  IDENTITY_NONE,  /* the factory's first start */
  IDENTITY_OTHER, /* of another image: a new one was installed */
  IDENTITY_SAME,
} Identity;

static Identity
load_identity (SimDevice *self, const guint8 prefix[IDENTITY_PREFIX])
{
  SimFirmware *firmware = &self->firmware;
  guint8 record[SIM_RECORD_MAX];
  gsize len = sim_flash_get_record (self->flash, SIM_RECORD_IDENTITY, record);

  if (len < IDENTITY_HEAD)
    return IDENTITY_NONE;
  firmware->auth_version = record[0];
  firmware->enforce = record[1] != 0;
  if (memcmp (record + 2, prefix, IDENTITY_PREFIX) != 0)
    return IDENTITY_OTHER;
  g_free (firmware->answer);
  firmware->answer = g_strndup ((const char *) record + IDENTITY_HEAD, len - IDENTITY_HEAD);
  return IDENTITY_SAME;
}

/* A firmware that was not there before: the device becomes what the image is. */
static void
become (SimDevice *self, const char *sha256)
{
  SimFirmware *firmware = &self->firmware;

  g_free (firmware->answer);
  firmware->answer = firmware->version != NULL ? g_strdup (firmware->version)
                                               : g_strdup_printf ("unknown-%.8s", sha256);
  switch (firmware->body)
    {
    case MI_IMAGE_STOCK:
      apply_stock_version (firmware, self->config.model, firmware->answer);
      break;
    case MI_IMAGE_CUSTOM_PVVX:
    case MI_IMAGE_CUSTOM_ATC1441:
    case MI_IMAGE_TUYA:
      firmware->auth_version = 0;
      firmware->enforce = FALSE;
      break;
    case MI_IMAGE_UNKNOWN: /* as before */
    case MI_IMAGE_STOCK_SIGNED:
    case MI_IMAGE_ENVELOPED:
    case MI_IMAGE_DAMAGED:
    default:
      break;
    }
}

/* Bytes of the running image without the fill of its last block, which a flash read-out hides. */
static gsize
measure_image (SimDevice *self)
{
  guint32 limit = sim_device_bank_limit (self, self->running);
  gsize len = sim_flash_get_written (self->flash, self->running, limit);
  g_autofree guint8 *copy = sim_flash_dup (self->flash, self->running, limit);
  guint32 size = mi_get_u32 (copy + SIM_IMAGE_SIZE);

  while (len > size && copy[len - 1] == 0xff)
    len--;
  return len < size && size <= limit ? size : len;
}

/* Looks at the running image. @prefix gets the beginning of its hash. Returns: (transfer full) */
static MiImage *
inspect (SimDevice *self, guint8 prefix[IDENTITY_PREFIX])
{
  gsize len = measure_image (self);
  g_autoptr (GBytes) file = read_image (self, self->running, len);
  MiImage *image = mi_image_new (file, self->config.image_root);
  g_autofree char *hash = g_strndup (mi_image_get_sha256 (image), 2 * IDENTITY_PREFIX);

  mi_hex_decode (hash, prefix, IDENTITY_PREFIX);
  self->firmware.body = mi_image_get_body_kind (image);
  g_free (self->firmware.version);
  self->firmware.version = g_strdup (mi_image_get_version (image));
  if (self->firmware.version == NULL && self->models != NULL)
    self->firmware.version = g_strdup (mi_models_get_image_version (self->models, image));
  if (self->firmware.version == NULL && self->firmware.body == MI_IMAGE_UNKNOWN)
    self->firmware.version = find_version (g_bytes_get_data (file, NULL), len);
  return image;
}

void
sim_firmware_boot (SimDevice *self)
{
  guint8 prefix[IDENTITY_PREFIX] = { 0 };
  g_autoptr (MiImage) image = inspect (self, prefix);

  switch (load_identity (self, prefix))
    {
    case IDENTITY_SAME:
      return;
    case IDENTITY_OTHER:
      become (self, mi_image_get_sha256 (image));
      break;
    case IDENTITY_NONE:
    default:
      break;
    }
  store_identity (self, prefix);
}

void
sim_firmware_installed (SimDevice *self)
{
  guint8 prefix[IDENTITY_PREFIX] = { 0 };
  g_autoptr (MiImage) image = inspect (self, prefix);

  if (self->firmware.body != MI_IMAGE_UNKNOWN)
    become (self, mi_image_get_sha256 (image));
  store_identity (self, prefix);
}

/* The factory's image */

static void
put_text (guint8 *image, gsize *at, const char *text)
{
  gsize len = strlen (text);

  image[(*at)++] = '\0';
  memcpy (image + *at, text, len);
  *at += len;
  image[(*at)++] = '\0';
}

/* protocol/image.md section 1, "Synthetic images" */
static void
fill_pattern (guint8 *image, gsize size, guint8 seed)
{
  for (gsize i = 0; i < size; i++)
    image[i] = (guint8) (i * 7 + (i >> 8) * 13 + seed);
}

static void
put_header (guint8 *image, gsize size, guint16 manufacturer, guint16 type)
{
  static const guint8 head[] = { 0x26, 0x80, 0, 0, 0, 0, 0x5d, 0x02, 0x4b, 0x4e, 0x4c, 0x54 };

  memcpy (image, head, sizeof head);
  mi_put_u16 (image + 0x12, manufacturer);
  mi_put_u16 (image + 0x14, type);
  mi_put_u32 (image + SIM_IMAGE_SIZE, (guint32) size);
  mi_put_u32 (image + size - 4, mi_crc32 (0xffffffff, image, size - 4));
}

GBytes *
sim_firmware_build (const SimConfig *config)
{
  gboolean custom = is_custom_version (config->firmware);
  guint8 *image = g_malloc (FACTORY_SIZE);
  gsize at = TEXT_AT;

  fill_pattern (image, FACTORY_SIZE, FACTORY_SEED);
  put_text (image, &at, config->firmware);
  put_text (image, &at, custom ? "github.com/pvvx" : "mible-login-info");
  put_text (image, &at, config->model->name);
  put_header (image, FACTORY_SIZE, custom ? 0x1141 : 0, custom ? 0x020a : 0);
  return g_bytes_new_take (image, FACTORY_SIZE);
}

/* Verification */

SimTrust
sim_firmware_verify (SimDevice *self, guint32 bank, gsize len)
{
  g_autoptr (GBytes) file = read_image (self, bank, len);
  g_autoptr (MiImage) image = mi_image_new (file, self->config.image_root);
  const MiImageTag *tag = mi_image_get_tag (image);

  if (tag == NULL || !tag->valid)
    return SIM_TRUST_UNSIGNED;
  if (tag->pid != self->config.product_id
      || mi_image_get_verdict (image, MI_CHECK_CHAIN) != MI_VERDICT_VALID)
    return SIM_TRUST_REFUSED;
  if (mi_image_get_verdict (image, MI_CHECK_SIGNATURE) == MI_VERDICT_VALID)
    return SIM_TRUST_SIGNED;
  return self->config.accept_envelope ? SIM_TRUST_SIGNED : SIM_TRUST_REFUSED;
}
