/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-image.h"

#include "mi-bytes.h"
#include "mi-crypto.h"

#include <string.h>

#define TELINK_MAGIC        0x544c4e4b /* "KNLT" at 0x08 */
#define TELINK_MAGIC_OFFSET 0x08
#define TELINK_HEADER_SIZE  0x1c
#define TELINK_CHECK_FLAG   0x5d
#define CRC_START           0xffffffff

#define ZIGBEE_MAGIC          0x0beef11e
#define ZIGBEE_HEADER_MIN     56
#define ZIGBEE_ELEMENT_HEADER 6

#define MANUFACTURER_STOCK  0
#define MANUFACTURER_CUSTOM 0x1141
#define MANUFACTURER_TUYA   0x1286
#define CUSTOM_TYPE         0x0200 /* + hardware id */

#define TAG_MAGIC_LEN 16
#define TAG_FIXED_LEN 28
#define TAG_MIN_LEN   32
#define CRC_LEN       4
#define BLOCK         16
#define MAX_PADDING   15

#define N_CERTIFICATES 2

/* protocol/image.md section 3 */
static const guint8 tag_magic[TAG_MAGIC_LEN] = {
  0x00, 0x00, 0x00, 0x00, 0x4d, 0x49, 0xef, 0x54, 0x46, 0x4f, 0x54, 0x41, 0x82, 0x56, 0x26, 0x47,
};

typedef enum
{
  TLV_NEW_VERSION = 1,
  TLV_OLD_VERSION = 2,
  TLV_SIGN_TYPE = 3,
  TLV_MODEL = 4,
  TLV_PRODUCT_ID = 5,
} TlvType;

struct _MiImage
{
  grefcount refs;
  GBytes *file;
  GBytes *payload;
  const guint8 *data; /* of the payload */
  gsize len;

  MiContainer container;
  MiZigbeeHeader zigbee;
  gboolean has_zigbee;
  MiImageHeader header;
  gboolean has_header;
  guint32 computed_crc;
  MiImageTag tag;
  gboolean has_tag;
  GPtrArray *certificates;
  gint padding;
  gsize fill; /* bytes after the signature that are more than padding, mostly FF */

  MiVerdict verdicts[MI_CHECK_COUNT];
  MiImageKind kind;
  MiImageKind body_kind;
  char *version;
  char sha256[65];
  char payload_sha256[65];
};

const char *
mi_image_kind_to_string (MiImageKind kind)
{
  static const char *const names[] = {
    [MI_IMAGE_UNKNOWN] = "unknown",
    [MI_IMAGE_STOCK] = "stock",
    [MI_IMAGE_STOCK_SIGNED] = "stock-signed",
    [MI_IMAGE_CUSTOM_PVVX] = "custom-pvvx",
    [MI_IMAGE_CUSTOM_ATC1441] = "custom-atc1441",
    [MI_IMAGE_TUYA] = "tuya",
    [MI_IMAGE_ENVELOPED] = "enveloped",
    [MI_IMAGE_DAMAGED] = "damaged",
  };

  g_return_val_if_fail (kind < G_N_ELEMENTS (names), "unknown");
  return names[kind];
}

const char *
mi_verdict_to_string (MiVerdict verdict)
{
  static const char *const names[] = { "absent", "valid", "invalid" };

  g_return_val_if_fail (verdict < G_N_ELEMENTS (names), "absent");
  return names[verdict];
}

/* Containers and headers. */

/* Walks the elements behind the header until the upgrade image (tag 0). */
static void
find_element (MiReader *in, MiZigbeeHeader *zigbee)
{
  while (mi_reader_left (in) >= ZIGBEE_ELEMENT_HEADER)
    {
      guint16 tag = mi_reader_u16 (in);
      guint32 length = mi_reader_u32 (in);

      if (tag == 0 || zigbee->image_offset == 0)
        {
          zigbee->element_tag = tag;
          zigbee->element_length = length;
          zigbee->image_offset = (guint32) in->pos;
        }
      if (tag == 0)
        return;
      mi_reader_take (in, length);
    }
}

static void
parse_zigbee (MiImage *self, const guint8 *file, gsize len)
{
  MiReader in = MI_READER (file, len);
  MiZigbeeHeader *zigbee = &self->zigbee;
  gsize end;

  if (len < ZIGBEE_HEADER_MIN + ZIGBEE_ELEMENT_HEADER)
    return;
  mi_reader_u32 (&in);
  zigbee->header_version = mi_reader_u16 (&in);
  zigbee->header_length = mi_reader_u16 (&in);
  zigbee->field_control = mi_reader_u16 (&in);
  zigbee->manufacturer = mi_reader_u16 (&in);
  zigbee->image_type = mi_reader_u16 (&in);
  zigbee->file_version = mi_reader_u32 (&in);
  zigbee->stack_version = mi_reader_u16 (&in);
  mi_reader_take (&in, 32); /* text */
  zigbee->total_size = mi_reader_u32 (&in);
  self->has_zigbee = TRUE;
  if (zigbee->header_length < ZIGBEE_HEADER_MIN || zigbee->header_length > len)
    return;
  in = (MiReader) MI_READER (file, len);
  mi_reader_take (&in, zigbee->header_length);
  find_element (&in, zigbee);
  if (zigbee->image_offset == 0)
    return;
  end = MIN (len, (gsize) zigbee->image_offset + zigbee->element_length);
  g_bytes_unref (self->payload);
  self->payload
      = g_bytes_new_from_bytes (self->file, zigbee->image_offset, end - zigbee->image_offset);
}

static void
parse_container (MiImage *self)
{
  gsize len;
  const guint8 *file = g_bytes_get_data (self->file, &len);

  self->payload = g_bytes_ref (self->file);
  if (len >= 4 && mi_get_u32 (file) == ZIGBEE_MAGIC)
    {
      self->container = MI_CONTAINER_ZIGBEE;
      parse_zigbee (self, file, len);
    }
  else if (len >= TELINK_MAGIC_OFFSET + 4
           && mi_get_u32 (file + TELINK_MAGIC_OFFSET) == TELINK_MAGIC)
    self->container = MI_CONTAINER_TELINK;
  self->data = g_bytes_get_data (self->payload, &self->len);
}

static void
parse_header (MiImage *self)
{
  MiImageHeader *header = &self->header;
  const guint8 *p = self->data;

  if (self->len < TELINK_HEADER_SIZE || mi_get_u32 (p + TELINK_MAGIC_OFFSET) != TELINK_MAGIC)
    return;
  self->has_header = TRUE;
  header->file_version = mi_get_u32 (p + 0x02);
  header->fw_check_flag = p[0x06] == TELINK_CHECK_FLAG;
  header->check_algorithm = p[0x07];
  header->manufacturer = mi_get_u16 (p + 0x12);
  header->image_type = mi_get_u16 (p + 0x14);
  header->header_size = mi_get_u32 (p + 0x18);
  header->trailing = (gint64) self->len - (gint64) header->header_size;
  header->crc_known = header->header_size >= MI_IMAGE_MIN_SIZE && header->trailing >= 0;
  if (!header->crc_known)
    return;
  /* Computed whatever 0x06 says: the device does the same. */
  self->computed_crc = mi_crc32 (CRC_START, p, header->header_size - CRC_LEN);
  header->crc = mi_get_u32 (p + header->header_size - CRC_LEN);
  header->crc_ok = header->crc == self->computed_crc;
}

/* The trailer. */

static void
read_version (MiReader *value, char *out, gsize out_len)
{
  guint8 major = mi_reader_u8 (value);
  guint8 minor = mi_reader_u8 (value);
  guint8 revision = mi_reader_u8 (value);
  guint16 build = mi_reader_u16 (value);

  g_snprintf (out, out_len, "%u.%u.%u_%04u", major, minor, revision, build);
}

static void
read_text (MiReader *value, char *out)
{
  gsize len = mi_reader_left (value);
  const guint8 *text = mi_reader_take (value, len);
  gsize i;

  for (i = 0; i < len; i++)
    out[i] = g_ascii_isprint (text[i]) ? (char) text[i] : '?';
  out[len] = '\0';
}

/* Returns: FALSE if the value has not the size that its type needs */
static gboolean
take_tlv (MiImageTag *tag, guint8 type, MiReader value)
{
  switch (type)
    {
    case TLV_NEW_VERSION:
      read_version (&value, tag->new_version, sizeof tag->new_version);
      return mi_reader_at_end (&value);
    case TLV_OLD_VERSION:
      read_version (&value, tag->old_version, sizeof tag->old_version);
      return mi_reader_at_end (&value);
    case TLV_SIGN_TYPE:
      tag->sign_type = mi_reader_u8 (&value);
      return mi_reader_at_end (&value);
    case TLV_MODEL:
      read_text (&value, tag->model);
      return TRUE;
    case TLV_PRODUCT_ID:
      tag->pid32 = mi_reader_u32 (&value);
      return mi_reader_at_end (&value);
    default:
      return TRUE;
    }
}

static gboolean
parse_tlvs (MiImageTag *tag, const guint8 *data, gsize len)
{
  MiReader in = MI_READER (data, len);

  while (mi_reader_left (&in) > 0)
    {
      guint8 type = mi_reader_u8 (&in);
      guint8 value_len = mi_reader_u8 (&in);
      const guint8 *value = mi_reader_take (&in, value_len);
      MiReader reader = MI_READER (value, value_len);

      if (value == NULL || !take_tlv (tag, type, reader))
        return FALSE;
    }
  return TRUE;
}

/* Fixed fields, TLVs and CRC of the tag whose magic is at @offset. */
static void
parse_tag (MiImage *self, gsize offset)
{
  MiImageTag *tag = &self->tag;
  MiReader in = MI_READER (self->data + offset, self->len - offset);

  self->has_tag = TRUE;
  tag->offset = (guint32) offset;
  tag->sign_type = -1;
  tag->pid32 = -1;
  mi_reader_take (&in, TAG_MAGIC_LEN);
  tag->tag_size = mi_reader_u16 (&in);
  tag->pid = mi_reader_u16 (&in);
  tag->firmware_size = mi_reader_u32 (&in);
  tag->cert_size = mi_reader_u16 (&in);
  tag->flag = mi_reader_u8 (&in);
  tag->reserved = mi_reader_u8 (&in);
  if (tag->tag_size < TAG_MIN_LEN || tag->tag_size > self->len - offset)
    return;
  tag->valid = parse_tlvs (tag, self->data + offset + TAG_FIXED_LEN,
                           tag->tag_size - TAG_FIXED_LEN - CRC_LEN)
               && tag->firmware_size == offset
               && tag->cert_size <= self->len - offset - tag->tag_size;
  tag->crc = mi_get_u32 (self->data + offset + tag->tag_size - CRC_LEN);
  tag->crc_ok = tag->crc == mi_crc32 (0, self->data, offset + tag->tag_size - CRC_LEN);
}

/*
 * Searched from the end, as devices do. Stock firmware itself holds the magic as a constant, so an
 * occurrence inside the body counts only if it says that it is there on purpose.
 */
static void
find_tag (MiImage *self)
{
  gsize offset;

  if (!self->has_header || self->len < TAG_MAGIC_LEN)
    return;
  for (offset = self->len - TAG_MAGIC_LEN + 1; offset-- > 0;)
    {
      const guint8 *p = self->data + offset;
      MiReader in = MI_READER (p, self->len - offset);

      if (p[4] != tag_magic[4] || memcmp (p, tag_magic, TAG_MAGIC_LEN) != 0)
        continue;
      mi_reader_take (&in, TAG_MAGIC_LEN + 4);
      if (offset >= self->header.header_size || mi_reader_u32 (&in) == offset)
        {
          parse_tag (self, offset);
          return;
        }
    }
}

static MiVerdict
verdict_of (gboolean ok)
{
  return ok ? MI_VERDICT_VALID : MI_VERDICT_INVALID;
}

static gboolean
verify_chain (MiImage *self, const guint8 *roots, gsize n_roots)
{
  MiCertificate *first, *second;
  guint8 key[64];
  gsize i;

  if (self->certificates->len != N_CERTIFICATES)
    return FALSE;
  first = g_ptr_array_index (self->certificates, 0);
  second = g_ptr_array_index (self->certificates, 1);
  mi_certificate_get_public (first, key);
  if (!mi_certificate_verify (second, key))
    return FALSE;
  for (i = 0; i < n_roots; i++)
    {
      if (mi_certificate_verify (first, roots + i * 64))
        return TRUE;
    }
  return FALSE;
}

static gboolean
verify_signature (MiImage *self, const guint8 signature[64])
{
  guint8 key[64];

  if (self->certificates->len == 0)
    return FALSE;
  mi_certificate_get_public (g_ptr_array_index (self->certificates, self->certificates->len - 1),
                             key);
  return mi_ecdsa_verify (key, self->data, (gsize) self->tag.offset + self->tag.tag_size,
                          signature);
}

static void
judge_padding (MiImage *self, const guint8 *rest, gsize len)
{
  gsize i, blank = 0;

  for (i = 0; i < len; i++)
    blank += rest[i] == 0xff;
  if (blank == len)
    self->padding = (gint) len;
  if (len > MAX_PADDING && blank > len / 2)
    self->fill = len;
  self->verdicts[MI_CHECK_PADDING] = verdict_of (blank == len && len <= MAX_PADDING);
}

static void
verify_trailer (MiImage *self, const guint8 *roots, gsize n_roots)
{
  const MiImageTag *tag = &self->tag;
  gsize certs = (gsize) tag->offset + tag->tag_size, at = certs + tag->cert_size, used = 0;
  GPtrArray *list;
  guint8 signature[64];

  self->verdicts[MI_CHECK_TAG] = verdict_of (tag->valid && tag->crc_ok);
  self->verdicts[MI_CHECK_CHAIN] = MI_VERDICT_INVALID;
  self->verdicts[MI_CHECK_SIGNATURE] = MI_VERDICT_INVALID;
  if (!tag->valid)
    return;
  list = mi_certificate_parse_pem (self->data + certs, tag->cert_size, NULL);
  if (list != NULL)
    {
      g_ptr_array_unref (self->certificates);
      self->certificates = list;
    }
  self->verdicts[MI_CHECK_CHAIN] = verdict_of (verify_chain (self, roots, n_roots));
  if (!mi_signature_from_der (self->data + at, self->len - at, signature, &used))
    return;
  self->verdicts[MI_CHECK_SIGNATURE] = verdict_of (verify_signature (self, signature));
  judge_padding (self, self->data + at + used, self->len - at - used);
}

/* What the body is. */

static gsize
body_len (MiImage *self)
{
  return self->has_header && self->header.crc_known ? self->header.header_size : self->len;
}

gboolean
mi_image_contains (MiImage *self, const char *text)
{
  /* An empty file has no address. */
  return self->len > 0 && memmem (self->data, body_len (self), text, strlen (text)) != NULL;
}

static MiImageKind
judge_body (MiImage *self)
{
  guint16 manufacturer = self->header.manufacturer;

  if (!self->has_header)
    return MI_IMAGE_UNKNOWN;
  if (manufacturer == MANUFACTURER_CUSTOM && mi_image_contains (self, "github.com/pvvx"))
    return MI_IMAGE_CUSTOM_PVVX;
  if (manufacturer == MANUFACTURER_STOCK && mi_image_contains (self, "mible-login-info"))
    return MI_IMAGE_STOCK;
  if (manufacturer == MANUFACTURER_TUYA || mi_image_contains (self, "tuya"))
    return MI_IMAGE_TUYA;
  if (manufacturer == MANUFACTURER_STOCK && mi_image_contains (self, "ATC_"))
    return MI_IMAGE_CUSTOM_ATC1441;
  return MI_IMAGE_UNKNOWN;
}

/* Bytes behind the image that no trailer explains. */
static gboolean
has_unexplained_rest (MiImage *self)
{
  gsize i, start = self->header.header_size;

  for (i = start; i < self->len; i++)
    {
      if (self->data[i] != self->data[start] || (self->data[i] != 0xff && self->data[i] != 0))
        return TRUE;
    }
  return FALSE;
}

static MiImageKind
judge_kind (MiImage *self)
{
  guint i;

  if (!self->has_header)
    return MI_IMAGE_UNKNOWN;
  if (!mi_image_check (self, NULL))
    return MI_IMAGE_DAMAGED;
  if (!self->has_tag)
    return has_unexplained_rest (self) ? MI_IMAGE_DAMAGED : self->body_kind;
  for (i = 0; i < MI_CHECK_COUNT && self->verdicts[i] == MI_VERDICT_VALID; i++)
    continue;
  if (i == MI_CHECK_COUNT)
    return MI_IMAGE_STOCK_SIGNED;
  /* An envelope is known by its fill: a damaged trailer has at most 15 bytes behind its end. */
  return self->fill > 0 ? MI_IMAGE_ENVELOPED : MI_IMAGE_DAMAGED;
}

/* The one text in the body that matches, NULL if none or several different ones do. */
static char *
find_only (MiImage *self, const char *pattern)
{
  g_autoptr (GRegex) regex = g_regex_new (pattern, G_REGEX_RAW | G_REGEX_OPTIMIZE, 0, NULL);
  g_autoptr (GMatchInfo) match = NULL;
  g_autofree char *found = NULL;

  g_return_val_if_fail (regex != NULL, NULL);
  g_regex_match_full (regex, (const char *) self->data, (gssize) body_len (self), 0, 0, &match,
                      NULL);
  while (g_match_info_matches (match))
    {
      g_autofree char *text = g_match_info_fetch (match, 0);

      if (found == NULL)
        found = g_steal_pointer (&text);
      else if (strcmp (found, text) != 0)
        return NULL;
      g_match_info_next (match, NULL);
    }
  return g_steal_pointer (&found);
}

static char *
find_version (MiImage *self)
{
  if (self->verdicts[MI_CHECK_TAG] == MI_VERDICT_VALID && self->tag.new_version[0] != '\0')
    return g_strdup (self->tag.new_version);
  if (self->body_kind == MI_IMAGE_STOCK)
    return find_only (self, "[0-9]+\\.[0-9]+\\.[0-9]+_[0-9]{4}");
  if (self->body_kind == MI_IMAGE_CUSTOM_PVVX)
    return find_only (self, "V[0-9]+\\.[0-9]+");
  return NULL;
}

static void
hash_hex (const guint8 *data, gsize len, char out[65])
{
  guint8 digest[32];
  g_autofree char *hex = NULL;

  if (!mi_crypto_sha256 (data, len, digest, NULL))
    return;
  hex = mi_hex_encode (digest, sizeof digest);
  g_strlcpy (out, hex, 65);
}

static void
judge (MiImage *self, const guint8 *roots, gsize n_roots)
{
  gsize file_len;
  const guint8 *file = g_bytes_get_data (self->file, &file_len);

  parse_container (self);
  parse_header (self);
  hash_hex (file, file_len, self->sha256);
  hash_hex (self->data, self->len, self->payload_sha256);
  if (self->has_header)
    self->verdicts[MI_CHECK_CRC] = verdict_of (self->header.crc_ok);
  find_tag (self);
  if (self->has_tag)
    verify_trailer (self, roots, n_roots);
  self->body_kind = judge_body (self);
  self->kind = judge_kind (self);
  if (self->kind == MI_IMAGE_STOCK_SIGNED && self->body_kind == MI_IMAGE_UNKNOWN)
    self->body_kind = MI_IMAGE_STOCK;
  self->version = find_version (self);
}

MiImage *
mi_image_new_with_roots (GBytes *file, const guint8 *roots, gsize n_roots)
{
  MiImage *self;

  g_return_val_if_fail (file != NULL, NULL);
  self = g_new0 (MiImage, 1);
  g_ref_count_init (&self->refs);
  self->file = g_bytes_ref (file);
  self->certificates = g_ptr_array_new_with_free_func ((GDestroyNotify) mi_certificate_free);
  self->padding = -1;
  judge (self, roots, n_roots);
  return self;
}

MiImage *
mi_image_new (GBytes *file, const guint8 root[64])
{
  return mi_image_new_with_roots (file, root != NULL ? root : mi_mijia_root, 1);
}

MiImage *
mi_image_ref (MiImage *self)
{
  g_ref_count_inc (&self->refs);
  return self;
}

void
mi_image_unref (MiImage *self)
{
  if (self == NULL || !g_ref_count_dec (&self->refs))
    return;
  g_bytes_unref (self->file);
  g_bytes_unref (self->payload);
  g_ptr_array_unref (self->certificates);
  g_free (self->version);
  g_free (self);
}

/* The check that comes before any upload. */

G_GNUC_PRINTF (2, 3)
static gboolean
bad_image (GError **error, const char *format, ...)
{
  va_list args;
  g_autofree char *text = NULL;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error_literal (error, MI_ERROR, MI_ERROR_BAD_IMAGE, text);
  return FALSE;
}

static gboolean
check_container (MiImage *self, GError **error)
{
  const MiZigbeeHeader *zigbee = &self->zigbee;
  gsize len = g_bytes_get_size (self->file);

  if (self->container != MI_CONTAINER_ZIGBEE)
    return TRUE;
  if (!self->has_zigbee)
    return bad_image (error, "zigbee container of %" G_GSIZE_FORMAT " bytes: its header needs %d",
                      len, ZIGBEE_HEADER_MIN + ZIGBEE_ELEMENT_HEADER);
  if (zigbee->total_size != len)
    return bad_image (error,
                      "zigbee container: it says %u bytes, the file has %" G_GSIZE_FORMAT "%s",
                      zigbee->total_size, len, len < zigbee->total_size ? " (truncated)" : "");
  if (zigbee->image_offset == 0 || zigbee->element_tag != 0)
    return bad_image (error, "zigbee container: no image behind its header of %u bytes",
                      zigbee->header_length);
  if (zigbee->element_length > len - zigbee->image_offset)
    return bad_image (error,
                      "zigbee container: image of %u bytes at %u, the file has %" G_GSIZE_FORMAT,
                      zigbee->element_length, zigbee->image_offset, len);
  return TRUE;
}

gboolean
mi_image_check (MiImage *self, GError **error)
{
  const MiImageHeader *header = &self->header;

  if (!check_container (self, error))
    return FALSE;
  if (self->len < MI_IMAGE_MIN_SIZE)
    return bad_image (error, "image of %" G_GSIZE_FORMAT " bytes is too short (at least %d)",
                      self->len, MI_IMAGE_MIN_SIZE);
  if (!self->has_header)
    return bad_image (error, "no telink image: 0x%08x instead of 0x%08x (KNLT) at offset 8",
                      mi_get_u32 (self->data + TELINK_MAGIC_OFFSET), TELINK_MAGIC);
  if (header->trailing < 0)
    return bad_image (error,
                      "size field says %u bytes, the image has %" G_GSIZE_FORMAT " (truncated)",
                      header->header_size, self->len);
  if (header->header_size < MI_IMAGE_MIN_SIZE || header->header_size % BLOCK != CRC_LEN)
    return bad_image (error, "size field says %u bytes, which is not 16*k + 4 from %d on",
                      header->header_size, MI_IMAGE_MIN_SIZE);
  if (!header->crc_ok)
    return bad_image (error, "crc is 0x%08x in the image, 0x%08x computed over its %u bytes",
                      header->crc, self->computed_crc, header->header_size - CRC_LEN);
  return TRUE;
}

/* Getters. */

MiImageKind
mi_image_get_kind (MiImage *self)
{
  return self->kind;
}

MiImageKind
mi_image_get_body_kind (MiImage *self)
{
  return self->body_kind;
}

gboolean
mi_image_is_signed (MiImage *self)
{
  return self->kind == MI_IMAGE_STOCK_SIGNED;
}

MiVerdict
mi_image_get_verdict (MiImage *self, MiImageCheck check)
{
  g_return_val_if_fail (check < MI_CHECK_COUNT, MI_VERDICT_ABSENT);
  return self->verdicts[check];
}

const char *
mi_image_get_version (MiImage *self)
{
  return self->version;
}

gint
mi_image_get_hardware_id (MiImage *self)
{
  if (!self->has_header || self->header.manufacturer != MANUFACTURER_CUSTOM
      || (self->header.image_type & 0xff00) != CUSTOM_TYPE)
    return -1;
  return self->header.image_type - CUSTOM_TYPE;
}

MiContainer
mi_image_get_container (MiImage *self)
{
  return self->container;
}

const MiImageHeader *
mi_image_get_header (MiImage *self)
{
  return self->has_header ? &self->header : NULL;
}

const MiZigbeeHeader *
mi_image_get_zigbee (MiImage *self)
{
  return self->has_zigbee ? &self->zigbee : NULL;
}

const MiImageTag *
mi_image_get_tag (MiImage *self)
{
  return self->has_tag ? &self->tag : NULL;
}

guint
mi_image_get_n_certificates (MiImage *self)
{
  return self->certificates->len;
}

MiCertificate *
mi_image_get_certificate (MiImage *self, guint index)
{
  g_return_val_if_fail (index < self->certificates->len, NULL);
  return g_ptr_array_index (self->certificates, index);
}

gint
mi_image_get_padding (MiImage *self)
{
  return self->padding;
}

gsize
mi_image_get_file_size (MiImage *self)
{
  return g_bytes_get_size (self->file);
}

const char *
mi_image_get_sha256 (MiImage *self)
{
  return self->sha256;
}

const char *
mi_image_get_payload_sha256 (MiImage *self)
{
  return self->payload_sha256;
}

GBytes *
mi_image_get_payload (MiImage *self)
{
  return self->payload;
}

guint32
mi_image_get_blocks (MiImage *self)
{
  return (guint32) ((self->len + BLOCK - 1) / BLOCK);
}

/* The facts as a{sv}. */

static void
put_u (GVariantDict *dict, const char *key, guint32 value)
{
  g_variant_dict_insert (dict, key, "u", value);
}

static void
put_b (GVariantDict *dict, const char *key, gboolean value)
{
  g_variant_dict_insert (dict, key, "b", value);
}

static void
put_s (GVariantDict *dict, const char *key, const char *value)
{
  if (value != NULL && value[0] != '\0')
    g_variant_dict_insert (dict, key, "s", value);
}

static GVariant *
describe_zigbee (const MiZigbeeHeader *zigbee)
{
  g_auto (GVariantDict) dict = G_VARIANT_DICT_INIT (NULL);

  put_u (&dict, "header_version", zigbee->header_version);
  put_u (&dict, "header_length", zigbee->header_length);
  put_u (&dict, "field_control", zigbee->field_control);
  put_u (&dict, "manufacturer", zigbee->manufacturer);
  put_u (&dict, "image_type", zigbee->image_type);
  put_u (&dict, "file_version", zigbee->file_version);
  put_u (&dict, "stack_version", zigbee->stack_version);
  put_u (&dict, "total_size", zigbee->total_size);
  put_u (&dict, "element_tag", zigbee->element_tag);
  put_u (&dict, "element_length", zigbee->element_length);
  put_u (&dict, "image_offset", zigbee->image_offset);
  return g_variant_dict_end (&dict);
}

static GVariant *
describe_tag (const MiImageTag *tag)
{
  g_auto (GVariantDict) dict = G_VARIANT_DICT_INIT (NULL);

  put_u (&dict, "offset", tag->offset);
  put_u (&dict, "tag_size", tag->tag_size);
  put_u (&dict, "pid", tag->pid);
  put_u (&dict, "firmware_size", tag->firmware_size);
  put_u (&dict, "cert_size", tag->cert_size);
  put_u (&dict, "flag", tag->flag);
  put_u (&dict, "reserved", tag->reserved);
  put_s (&dict, "new_version", tag->new_version);
  put_s (&dict, "old_version", tag->old_version);
  if (tag->sign_type >= 0)
    put_u (&dict, "sign_type", (guint32) tag->sign_type);
  put_s (&dict, "model", tag->model);
  if (tag->pid32 >= 0)
    put_u (&dict, "pid32", (guint32) tag->pid32);
  put_b (&dict, "valid", tag->valid);
  put_u (&dict, "crc", tag->crc);
  put_b (&dict, "crc_ok", tag->crc_ok);
  return g_variant_dict_end (&dict);
}

static GVariant *
describe_certificate (MiCertificate *certificate)
{
  g_auto (GVariantDict) dict = G_VARIANT_DICT_INIT (NULL);
  guint8 key[64];
  g_autofree char *hex = NULL;

  mi_certificate_get_public (certificate, key);
  hex = mi_hex_encode (key, sizeof key);
  g_variant_dict_insert (&dict, "subject", "s", mi_certificate_get_subject (certificate));
  g_variant_dict_insert (&dict, "issuer", "s", mi_certificate_get_issuer (certificate));
  g_variant_dict_insert (&dict, "serial", "s", mi_certificate_get_serial (certificate));
  g_variant_dict_insert (&dict, "sha256", "s", mi_certificate_get_sha256 (certificate));
  g_variant_dict_insert (&dict, "pub", "s", hex);
  return g_variant_dict_end (&dict);
}

static GVariant *
describe_verify (MiImage *self)
{
  g_auto (GVariantDict) dict = G_VARIANT_DICT_INIT (NULL);
  GVariantBuilder certs;
  guint i;

  g_variant_builder_init (&certs, G_VARIANT_TYPE ("aa{sv}"));
  for (i = 0; i < self->certificates->len; i++)
    g_variant_builder_add_value (&certs,
                                 describe_certificate (g_ptr_array_index (self->certificates, i)));
  put_b (&dict, "chain", self->verdicts[MI_CHECK_CHAIN] == MI_VERDICT_VALID);
  put_b (&dict, "signature", self->verdicts[MI_CHECK_SIGNATURE] == MI_VERDICT_VALID);
  g_variant_dict_insert_value (&dict, "certs", g_variant_builder_end (&certs));
  if (self->padding >= 0)
    put_u (&dict, "padding", (guint32) self->padding);
  return g_variant_dict_end (&dict);
}

static GVariant *
describe_verdict (MiImage *self)
{
  static const char *const names[MI_CHECK_COUNT] = {
    [MI_CHECK_CRC] = "crc",         [MI_CHECK_TAG] = "tag",
    [MI_CHECK_CHAIN] = "chain",     [MI_CHECK_SIGNATURE] = "signature",
    [MI_CHECK_PADDING] = "padding",
  };
  g_auto (GVariantDict) dict = G_VARIANT_DICT_INIT (NULL);
  guint i;

  for (i = 0; i < MI_CHECK_COUNT; i++)
    put_s (&dict, names[i], mi_verdict_to_string (self->verdicts[i]));
  return g_variant_dict_end (&dict);
}

static void
describe_header (MiImage *self, GVariantDict *dict)
{
  const MiImageHeader *header = &self->header;

  put_u (dict, "file_version", header->file_version);
  put_b (dict, "fw_check_flag", header->fw_check_flag);
  put_u (dict, "check_algorithm", header->check_algorithm);
  put_u (dict, "manufacturer", header->manufacturer);
  put_u (dict, "image_type", header->image_type);
  put_u (dict, "header_size", header->header_size);
  g_variant_dict_insert (dict, "trailing", "x", header->trailing);
  if (header->crc_known)
    {
      put_u (dict, "crc", header->crc);
      put_b (dict, "crc_ok", header->crc_ok);
    }
}

GVariant *
mi_image_describe (MiImage *self, const char *version, const char *const *models)
{
  static const char *const no_models[] = { NULL };
  g_auto (GVariantDict) dict = G_VARIANT_DICT_INIT (NULL);

  put_u (&dict, "file_size", (guint32) mi_image_get_file_size (self));
  put_s (&dict, "sha256", self->sha256);
  put_s (&dict, "sha256_image", self->payload_sha256);
  put_u (&dict, "image_size", (guint32) self->len);
  put_s (&dict, "kind", mi_image_kind_to_string (self->kind));
  if (self->container != MI_CONTAINER_NONE)
    put_s (&dict, "container", self->container == MI_CONTAINER_ZIGBEE ? "zigbee" : "telink");
  put_s (&dict, "version", version != NULL ? version : self->version);
  g_variant_dict_insert (&dict, "models", "^as", models != NULL ? models : no_models);
  if (mi_image_get_hardware_id (self) >= 0)
    put_u (&dict, "hardware_id", (guint32) mi_image_get_hardware_id (self));
  if (self->has_header)
    describe_header (self, &dict);
  if (self->has_zigbee)
    g_variant_dict_insert_value (&dict, "zigbee", describe_zigbee (&self->zigbee));
  if (self->has_tag)
    {
      g_variant_dict_insert_value (&dict, "tag", describe_tag (&self->tag));
      g_variant_dict_insert_value (&dict, "verify", describe_verify (self));
    }
  g_variant_dict_insert_value (&dict, "verdict", describe_verdict (self));
  return g_variant_dict_end (&dict);
}

/* Envelopes. */

#define ENVELOPE_RECORD        6
#define ENVELOPE_FIRMWARE_SIZE 0x14 /* of the tag's field */

static gboolean
bad_envelope (GError **error, const char *what, gsize number)
{
  return bad_image (error, "signature envelope: %s (%" G_GSIZE_FORMAT ")", what, number);
}

/* The coded fill that follows the signature (protocol/image.md section 8). */
static GByteArray *
decode_fill (MiReader *in, guint32 crc, GError **error)
{
  g_autoptr (GByteArray) fill = g_byte_array_new ();
  guint16 x0 = mi_reader_u16 (in);
  guint n = (crc ^ x0) & 0xffff;

  crc = (crc & 0xffff0000) | x0;
  g_byte_array_set_size (fill, n);
  if (n > 0)
    memset (fill->data, 0xff, n);
  while (mi_reader_left (in) > 0)
    {
      guint16 x = mi_reader_u16 (in);
      guint32 y = mi_reader_u32 (in);
      guint at = (crc ^ x) & 0xffff;

      if (!mi_reader_ok (in) || at + 4 > n)
        {
          bad_envelope (error, "a record lies outside the fill", at);
          return NULL;
        }
      crc = (crc & 0xffff0000) | x;
      mi_put_u32 (fill->data + at, crc ^ y);
      crc = y;
    }
  return g_steal_pointer (&fill);
}

/* @records: (out): what follows the head */
static gboolean
check_envelope (const guint8 *data, gsize len, gsize *head_len, MiReader *records, GError **error)
{
  MiReader in = MI_READER (data, len);
  gsize head = mi_reader_u16 (&in);

  if (head < TAG_MIN_LEN || head + 2 > len)
    return bad_envelope (error, "head length does not fit the file", head);
  if (memcmp (data + 4, tag_magic + 4, TAG_MAGIC_LEN - 4) != 0)
    return bad_envelope (error, "no tag magic at offset 4", len);
  if ((len - head - 2) % ENVELOPE_RECORD != 0)
    return bad_envelope (error, "records are not a multiple of 6 bytes", len - head - 2);
  *head_len = head;
  *records = (MiReader) MI_READER (data + head, len - head);
  return TRUE;
}

static gboolean
check_bare (GBytes *image, GError **error)
{
  g_autoptr (MiImage) parsed = mi_image_new (image, NULL);

  if (!mi_image_check (parsed, error))
    return FALSE;
  if (parsed->container != MI_CONTAINER_TELINK)
    return bad_image (error, "an envelope goes around the image, not around its container");
  if (parsed->has_tag)
    return bad_image (error, "the image already has a trailer at %u", parsed->tag.offset);
  return TRUE;
}

GBytes *
mi_image_apply_envelope (GBytes *image, GBytes *envelope, GError **error)
{
  static const guint8 zeros[4];
  gsize image_len, len, head_len = 0;
  const guint8 *body = g_bytes_get_data (image, &image_len);
  const guint8 *data = g_bytes_get_data (envelope, &len);
  g_autoptr (GByteArray) fill = NULL, out = NULL;
  MiReader records = MI_READER (NULL, 0);

  if (!check_envelope (data, len, &head_len, &records, error) || !check_bare (image, error))
    return NULL;
  fill = decode_fill (&records, mi_crc32 (CRC_START, data, head_len), error);
  if (fill == NULL)
    return NULL;
  out = g_byte_array_sized_new ((guint) (image_len + head_len + fill->len + BLOCK));
  g_byte_array_append (out, body, (guint) image_len);
  g_byte_array_append (out, zeros, sizeof zeros);
  g_byte_array_append (out, data + 4, (guint) head_len - 4);
  mi_put_u32 (out->data + image_len + ENVELOPE_FIRMWARE_SIZE, (guint32) image_len);
  g_byte_array_append (out, fill->data, fill->len);
  while (out->len % BLOCK != 0)
    g_byte_array_append (out, (const guint8 *) "\xff", 1);
  return g_byte_array_free_to_bytes (g_steal_pointer (&out));
}
