/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-advert-private.h"

#include "mi-bytes.h"

#include <string.h>

/* BTHome v1 and v2 (protocol/advertising.md sections 5 and 6). */

#define COUNTER_LEN 4
#define TRAILER_LEN (COUNTER_LEN + MI_ADVERT_TAG_LEN)

/* Device information of v2. */
#define INFO_ENCRYPTED     (1 << 0)
#define INFO_MAC           (1 << 1)
#define INFO_TRIGGER_BASED (1 << 2)

/* Control byte of a v1 object. */
#define V1_LEN_MASK     0x1f
#define V1_FORMAT_SHIFT 5
#define V1_UNSIGNED     0
#define V1_SIGNED       1
#define V1_VALUE_MAX    4

#define CIPHER_MIN_V1 3
#define CIPHER_MIN_V2 2

/* Length of text and raw objects: one byte of length, then as many bytes. */
#define LEN_PREFIXED 0xff

typedef struct
{
  guint8 len; /* 0: no such object */
  guint8 type;
  guint8 kind;
  gint8 exponent;
} ObjectType;

#define U(len, kind, exponent)                                                                     \
  {                                                                                                \
    len, MI_VALUE_UNSIGNED, MI_READING_##kind, exponent                                            \
  }
#define S(len, kind, exponent)                                                                     \
  {                                                                                                \
    len, MI_VALUE_SIGNED, MI_READING_##kind, exponent                                              \
  }
#define B(kind)                                                                                    \
  {                                                                                                \
    1, MI_VALUE_BOOLEAN, MI_READING_##kind, 0                                                      \
  }
#define RAW(len)                                                                                   \
  {                                                                                                \
    len, MI_VALUE_RAW, MI_READING_NONE, 0                                                          \
  }

/* clang-format off */
static const ObjectType object_types[256] = {
  [0x00] = U (1, PACKET_ID, 0),
  [0x01] = U (1, BATTERY, 0),
  [0x02] = S (2, TEMPERATURE, -2),
  [0x03] = U (2, HUMIDITY, -2),
  [0x04] = U (3, PRESSURE, -2),
  [0x05] = U (3, ILLUMINANCE, -2),
  [0x06] = U (2, MASS_KG, -2),
  [0x07] = U (2, MASS_LB, -2),
  [0x08] = S (2, DEWPOINT, -2),
  [0x09] = U (1, COUNT, 0),
  [0x0a] = U (3, ENERGY, -3),
  [0x0b] = U (3, POWER, -2),
  [0x0c] = U (2, VOLTAGE, 0),
  [0x0d] = U (2, PM25, 0),
  [0x0e] = U (2, PM10, 0),
  [0x0f] = B (GENERIC),
  [0x10] = B (POWER_ON),
  [0x11] = B (OPENING),
  [0x12] = U (2, CO2, 0),
  [0x13] = U (2, TVOC, 0),
  [0x14] = U (2, MOISTURE, -2),
  [0x15] = B (BATTERY_LOW),
  [0x16] = B (BATTERY_CHARGING),
  [0x17] = RAW (1), [0x18] = RAW (1), [0x19] = RAW (1), [0x1a] = RAW (1), [0x1b] = RAW (1),
  [0x1c] = RAW (1), [0x1d] = RAW (1),
  [0x1e] = B (LIGHT),
  [0x1f] = RAW (1), [0x20] = RAW (1),
  [0x21] = B (MOTION),
  [0x22] = RAW (1), [0x23] = RAW (1), [0x24] = RAW (1), [0x25] = RAW (1), [0x26] = RAW (1),
  [0x27] = RAW (1), [0x28] = RAW (1), [0x29] = RAW (1), [0x2a] = RAW (1), [0x2b] = RAW (1),
  [0x2c] = RAW (1),
  [0x2d] = B (WINDOW),
  [0x2e] = U (1, HUMIDITY, 0),
  [0x2f] = U (1, MOISTURE, 0),
  [0x3a] = U (1, BUTTON, 0),
  [0x3c] = RAW (2),
  [0x3d] = U (2, COUNT, 0),
  [0x3e] = U (4, COUNT, 0),
  [0x3f] = RAW (2), [0x40] = RAW (2), [0x41] = RAW (2), [0x42] = RAW (3), [0x43] = RAW (2),
  [0x44] = RAW (2),
  [0x45] = S (2, TEMPERATURE, -1),
  [0x46] = RAW (1), [0x47] = RAW (2), [0x48] = RAW (2), [0x49] = RAW (2),
  [0x4a] = U (2, VOLTAGE, 2),
  [0x4b] = RAW (3), [0x4c] = RAW (4),
  [0x4d] = U (4, ENERGY, -3),
  [0x4e] = RAW (4), [0x4f] = RAW (4),
  [0x50] = U (4, TIMESTAMP, 0),
  [0x51] = RAW (2), [0x52] = RAW (2), [0x53] = RAW (LEN_PREFIXED), [0x54] = RAW (LEN_PREFIXED),
  [0x55] = RAW (4),
  [0x56] = U (2, CONDUCTIVITY, 0),
  [0x57] = S (1, TEMPERATURE, 0),
  [0x58] = { 1, MI_VALUE_THIRTY_FIVE, MI_READING_TEMPERATURE, -2 },
  [0x59] = S (1, COUNT, 0),
  [0x5a] = S (2, COUNT, 0),
  [0x5b] = S (4, COUNT, 0),
  [0x5c] = S (4, POWER, -2),
  [0x5d] = RAW (2), [0x5e] = RAW (2), [0x5f] = RAW (2), [0x60] = RAW (1), [0x61] = RAW (2),
  [0x62] = RAW (4), [0x63] = RAW (4), [0x64] = RAW (1),
  [0xf0] = U (2, DEVICE_TYPE_ID, 0),
  [0xf1] = U (4, FIRMWARE_VERSION, 0),
  [0xf2] = U (3, FIRMWARE_VERSION, 0),
};
/* clang-format on */

static void
add_object (MiAdvertDecoder *self, guint8 id, MiValueType type, const guint8 *data, gsize len)
{
  const ObjectType *known = &object_types[id];

  mi_advert_add_object (self, id, data, len);
  if (known->len == 0 || known->kind == MI_READING_NONE || len == 0 || len > V1_VALUE_MAX)
    return;
  if (known->kind == MI_READING_PACKET_ID && type != MI_VALUE_RAW
      && self->seen[MI_READING_PACKET_ID] == 0)
    mi_advert_set_packet_id (self, data[0]);
  mi_advert_add_value (self, known->kind, type, known->exponent, data, len);
}

/* v2: the id tells the length. */
static void
read_objects_v2 (MiAdvertDecoder *self, gsize len)
{
  MiReader in = MI_READER (self->out->plain, len);

  self->out->fields |= MI_ADVERT_HAS_OBJECTS;
  while (!mi_reader_at_end (&in))
    {
      guint8 id = mi_reader_u8 (&in);
      const ObjectType *type = &object_types[id];
      gsize object_len = type->len == LEN_PREFIXED ? mi_reader_u8 (&in) : type->len;
      const guint8 *data = mi_reader_take (&in, object_len);

      /* What follows an unknown id cannot be told from its data. */
      if (data == NULL || type->len == 0)
        {
          self->out->partial = TRUE;
          break;
        }
      add_object (self, id, type->type, data, object_len);
    }
}

/* The type of a v1 value: its sign comes from the control byte, the rest from the table. */
static MiValueType
get_type_v1 (guint8 id, guint format)
{
  MiValueType type = object_types[id].type;

  if (format != V1_UNSIGNED && format != V1_SIGNED)
    return MI_VALUE_RAW;
  if (type == MI_VALUE_UNSIGNED || type == MI_VALUE_SIGNED)
    return format == V1_SIGNED ? MI_VALUE_SIGNED : MI_VALUE_UNSIGNED;
  if (type == MI_VALUE_THIRTY_FIVE && format == V1_UNSIGNED)
    return MI_VALUE_THIRTY_FIVE_UNSIGNED;
  return type;
}

/* v1: a control byte tells the length of id and data. */
static void
read_objects_v1 (MiAdvertDecoder *self, gsize len)
{
  MiReader in = MI_READER (self->out->plain, len);

  self->out->fields |= MI_ADVERT_HAS_OBJECTS;
  while (!mi_reader_at_end (&in))
    {
      guint8 control = mi_reader_u8 (&in);
      gsize object_len = control & V1_LEN_MASK;
      const guint8 *object;

      if (object_len == 0)
        continue;
      object = mi_reader_take (&in, object_len);
      if (object == NULL)
        {
          self->out->partial = TRUE;
          break;
        }
      add_object (self, object[0], get_type_v1 (object[0], control >> V1_FORMAT_SHIFT), object + 1,
                  object_len - 1);
    }
}

static void
set_version (MiAdvertDecoder *self, guint8 version)
{
  self->out->version = version;
  self->out->fields |= MI_ADVERT_HAS_VERSION;
}

/*
 * Decrypts @body, which ends with counter and tag. @nonce has its first @prefix_len bytes; the
 * counter is its rest.
 */
static MiAdvertError
open_body (MiAdvertDecoder *self, guint8 nonce[MI_ADVERT_NONCE_MAX], gsize prefix_len,
           gboolean with_aad, const guint8 *body, gsize cipher_len)
{
  const guint8 *counter = body + cipher_len;

  memcpy (nonce + prefix_len, counter, COUNTER_LEN);
  if (!mi_advert_open (self, nonce, prefix_len + COUNTER_LEN, with_aad, body, cipher_len,
                       counter + COUNTER_LEN))
    return MI_ADVERT_ERROR_AUTH_FAILED;
  mi_advert_set_counter (self, mi_get_u32 (counter));
  return MI_ADVERT_ERROR_NONE;
}

static MiAdvertStatus
read_encrypted_v1 (MiAdvertDecoder *self)
{
  guint8 nonce[MI_ADVERT_NONCE_MAX];
  MiAdvertError error;
  gsize cipher_len;

  if (self->len < CIPHER_MIN_V1 + TRAILER_LEN)
    return mi_advert_refuse (self, MI_ADVERT_ERROR_TRUNCATED);
  cipher_len = self->len - TRAILER_LEN;
  error = mi_advert_check_key (self, self->address != NULL, MI_ADVERT_KEY_LEN);
  if (error == MI_ADVERT_ERROR_NONE && self->address != NULL)
    {
      memcpy (nonce, self->address, MI_ADVERT_MAC_LEN);
      mi_put_u16 (nonce + MI_ADVERT_MAC_LEN, MI_ADVERT_UUID_BTHOME1E);
      error = open_body (self, nonce, MI_ADVERT_MAC_LEN + 2, TRUE, self->data, cipher_len);
    }
  if (error != MI_ADVERT_ERROR_NONE)
    return mi_advert_refuse_with_header (self, error);
  read_objects_v1 (self, cipher_len);
  return mi_advert_finish (self);
}

MiAdvertStatus
mi_advert_decode_bthome1 (MiAdvertDecoder *self)
{
  gboolean encrypted = self->out->uuid == MI_ADVERT_UUID_BTHOME1E;

  self->out->format = encrypted ? MI_ADVERT_FORMAT_BTHOME1_ENCRYPTED : MI_ADVERT_FORMAT_BTHOME1;
  set_version (self, 1);
  mi_advert_set_encrypted (self, encrypted);
  if (encrypted)
    return read_encrypted_v1 (self);
  if (self->len == 0)
    return mi_advert_refuse (self, MI_ADVERT_ERROR_TRUNCATED);
  if (self->key != NULL)
    return mi_advert_refuse_with_header (self, MI_ADVERT_ERROR_DOWNGRADE);
  mi_advert_set_plain (self, self->data, self->len);
  read_objects_v1 (self, self->len);
  return mi_advert_finish (self);
}

/* Reads the device information byte and the address; @in then stands on the body. */
static MiAdvertError
read_header_v2 (MiAdvertDecoder *self, MiReader *in)
{
  MiAdvert *out = self->out;
  guint8 info = mi_reader_u8 (in);
  const guint8 *mac;

  if (self->len == 0)
    return MI_ADVERT_ERROR_TRUNCATED;
  if (info >> 5 != 2)
    return MI_ADVERT_ERROR_UNSUPPORTED_VERSION;
  set_version (self, 2);
  mi_advert_set_encrypted (self, (info & INFO_ENCRYPTED) != 0);
  out->trigger_based = (info & INFO_TRIGGER_BASED) != 0;
  out->fields |= MI_ADVERT_HAS_TRIGGER_BASED;
  if ((info & INFO_MAC) == 0)
    return MI_ADVERT_ERROR_NONE;
  mac = mi_reader_take (in, MI_ADVERT_MAC_LEN);
  if (mac == NULL)
    return MI_ADVERT_ERROR_TRUNCATED;
  if (!mi_advert_is_from (self, mac, TRUE))
    return MI_ADVERT_ERROR_MAC_MISMATCH;
  mi_advert_set_mac (self, mac, TRUE);
  return MI_ADVERT_ERROR_NONE;
}

static MiAdvertStatus
read_encrypted_v2 (MiAdvertDecoder *self, const guint8 *body, gsize body_len)
{
  const guint8 *mac = self->out->fields & MI_ADVERT_HAS_MAC ? self->out->mac : self->address;
  guint8 nonce[MI_ADVERT_NONCE_MAX];
  MiAdvertError error;
  gsize cipher_len;

  if (body_len < CIPHER_MIN_V2 + TRAILER_LEN)
    return mi_advert_refuse (self, MI_ADVERT_ERROR_TRUNCATED);
  cipher_len = body_len - TRAILER_LEN;
  error = mi_advert_check_key (self, mac != NULL, MI_ADVERT_KEY_LEN);
  if (error == MI_ADVERT_ERROR_NONE && mac != NULL)
    {
      memcpy (nonce, mac, MI_ADVERT_MAC_LEN);
      mi_put_u16 (nonce + MI_ADVERT_MAC_LEN, MI_ADVERT_UUID_BTHOME2);
      nonce[MI_ADVERT_MAC_LEN + 2] = self->data[0];
      error = open_body (self, nonce, MI_ADVERT_MAC_LEN + 3, FALSE, body, cipher_len);
    }
  if (error != MI_ADVERT_ERROR_NONE)
    return mi_advert_refuse_with_header (self, error);
  read_objects_v2 (self, cipher_len);
  return mi_advert_finish (self);
}

MiAdvertStatus
mi_advert_decode_bthome2 (MiAdvertDecoder *self)
{
  MiReader in = MI_READER (self->data, self->len);
  const guint8 *body;
  gsize body_len;
  MiAdvertError error;

  self->out->format = MI_ADVERT_FORMAT_BTHOME2;
  error = read_header_v2 (self, &in);
  if (error != MI_ADVERT_ERROR_NONE)
    return mi_advert_refuse (self, error);
  body_len = mi_reader_left (&in);
  body = mi_reader_take (&in, body_len);
  if (self->out->encrypted)
    return read_encrypted_v2 (self, body, body_len);
  if (self->key != NULL)
    return mi_advert_refuse_with_header (self, MI_ADVERT_ERROR_DOWNGRADE);
  mi_advert_set_plain (self, body, body_len);
  read_objects_v2 (self, body_len);
  return mi_advert_finish (self);
}
