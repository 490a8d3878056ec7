/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-advert.h"

#include "mi-advert-private.h"
#include "mi-bytes.h"
#include "mi-crypto.h"

#include <math.h>
#include <string.h>

/* Additional data of every format but BTHome v2 (protocol/advertising.md section 3.6). */
static const guint8 aad[] = { 0x11 };

typedef struct
{
  gboolean limited;
  gint min, max; /* in the unit of the kind, section 10 */
} Limits;

static const Limits limits[MI_N_READINGS] = {
  [MI_READING_TEMPERATURE] = { TRUE, -40, 125 }, [MI_READING_DEWPOINT] = { TRUE, -100, 125 },
  [MI_READING_HUMIDITY] = { TRUE, 0, 100 },      [MI_READING_MOISTURE] = { TRUE, 0, 100 },
  [MI_READING_BATTERY] = { TRUE, 0, 100 },       [MI_READING_PRESSURE] = { TRUE, 300, 1200 },
};

MiAdvertStatus
mi_advert_refuse (MiAdvertDecoder *self, MiAdvertError error)
{
  MiAdvert *out = self->out;
  guint16 uuid = out->uuid;
  guint8 format = out->format;

  memset (out, 0, G_STRUCT_OFFSET (MiAdvert, readings));
  out->uuid = uuid;
  out->format = error == MI_ADVERT_ERROR_UNSUPPORTED_FORMAT ? MI_ADVERT_FORMAT_NONE : format;
  return mi_advert_refuse_with_header (self, error);
}

MiAdvertStatus
mi_advert_refuse_with_header (MiAdvertDecoder *self, MiAdvertError error)
{
  MiAdvert *out = self->out;

  out->status = MI_ADVERT_STATUS_ERROR;
  out->error = error;
  out->fields &= ~MI_ADVERT_HAS_OBJECTS;
  out->n_readings = out->n_rejected = out->n_objects = 0;
  out->partial = FALSE;
  return out->status;
}

MiAdvertStatus
mi_advert_finish (MiAdvertDecoder *self)
{
  self->out->status = self->usable ? MI_ADVERT_STATUS_OK : MI_ADVERT_STATUS_EMPTY;
  return self->out->status;
}

void
mi_advert_reverse_mac (guint8 out[MI_ADVERT_MAC_LEN], const guint8 *mac)
{
  for (guint i = 0; i < MI_ADVERT_MAC_LEN; i++)
    out[i] = mac[MI_ADVERT_MAC_LEN - 1 - i];
}

gboolean
mi_advert_is_from (const MiAdvertDecoder *self, const guint8 *mac, gboolean reversed)
{
  guint8 display[MI_ADVERT_MAC_LEN];

  if (self->address == NULL)
    return TRUE;
  if (!reversed)
    return memcmp (mac, self->address, MI_ADVERT_MAC_LEN) == 0;
  mi_advert_reverse_mac (display, mac);
  return memcmp (display, self->address, MI_ADVERT_MAC_LEN) == 0;
}

void
mi_advert_set_mac (MiAdvertDecoder *self, const guint8 *mac, gboolean reversed)
{
  if (reversed)
    mi_advert_reverse_mac (self->out->mac, mac);
  else
    memcpy (self->out->mac, mac, MI_ADVERT_MAC_LEN);
  self->out->fields |= MI_ADVERT_HAS_MAC;
}

void
mi_advert_set_encrypted (MiAdvertDecoder *self, gboolean encrypted)
{
  self->out->encrypted = encrypted;
  self->out->fields |= MI_ADVERT_HAS_ENCRYPTED;
}

void
mi_advert_set_packet_id (MiAdvertDecoder *self, guint8 packet_id)
{
  self->out->packet_id = packet_id;
  self->out->fields |= MI_ADVERT_HAS_PACKET_ID;
}

void
mi_advert_set_counter (MiAdvertDecoder *self, guint32 counter)
{
  self->out->counter = counter;
  self->out->fields |= MI_ADVERT_HAS_COUNTER;
}

MiAdvertError
mi_advert_check_key (const MiAdvertDecoder *self, gboolean has_mac, gsize wanted)
{
  if (self->key == NULL || !has_mac)
    return MI_ADVERT_ERROR_NO_KEY;
  return self->key->len == wanted ? MI_ADVERT_ERROR_NONE : MI_ADVERT_ERROR_BAD_KEY;
}

gboolean
mi_advert_open (MiAdvertDecoder *self, const guint8 *nonce, gsize nonce_len, gboolean with_aad,
                const guint8 *cipher, gsize len, const guint8 *tag)
{
  guint8 sealed[MI_ADVERT_DATA_MAX + MI_ADVERT_TAG_LEN];

  if (len > MI_ADVERT_DATA_MAX)
    return FALSE;
  memcpy (sealed, cipher, len);
  memcpy (sealed + len, tag, MI_ADVERT_TAG_LEN);
  return mi_crypto_key_open (self->key->aes, nonce, nonce_len, aad, with_aad ? sizeof aad : 0,
                             sealed, len + MI_ADVERT_TAG_LEN, self->out->plain);
}

gboolean
mi_advert_open_old (MiAdvertDecoder *self, const guint8 *nonce, gsize nonce_len,
                    const guint8 *cipher, gsize len, guint8 tag_byte)
{
  guint8 plain[MI_ADVERT_DATA_MAX + 16];
  gboolean right;

  if (len > MI_ADVERT_DATA_MAX)
    return FALSE;
  right = mi_crypto_key_open_tag_byte (self->key->aes, nonce, nonce_len, aad, sizeof aad, cipher,
                                       len, tag_byte, plain);
  memcpy (self->out->plain, plain, len);
  return right;
}

void
mi_advert_set_plain (MiAdvertDecoder *self, const guint8 *data, gsize len)
{
  if (len > 0)
    memcpy (self->out->plain, data, len);
}

void
mi_advert_add_object (MiAdvertDecoder *self, guint16 id, const guint8 *data, gsize len)
{
  MiAdvert *out = self->out;
  MiAdvertObject *object;

  /* Each object takes two bytes or more of at most MI_ADVERT_DATA_MAX: there is always room. */
  if (out->n_objects == MI_ADVERT_READINGS_MAX)
    return;
  object = &out->objects[out->n_objects++];
  object->id = id;
  object->offset = (guint8) (data - out->plain);
  object->len = (guint8) len;
}

static void
reject (MiAdvertDecoder *self, const MiReading *reading, MiRejectReason reason)
{
  MiAdvert *out = self->out;

  if (out->n_rejected == MI_ADVERT_REJECTED_MAX)
    return;
  out->rejected[out->n_rejected].reading = *reading;
  out->rejected[out->n_rejected].reason = reason;
  out->n_rejected++;
}

static void
keep (MiAdvertDecoder *self, const MiReading *reading)
{
  MiAdvert *out = self->out;

  if (out->n_readings == MI_ADVERT_READINGS_MAX)
    return;
  out->readings[out->n_readings++] = *reading;
  if (reading->kind < MI_READING_PACKET_ID)
    self->usable = TRUE;
}

static MiReading
new_reading (MiAdvertDecoder *self, guint kind, gint64 value, gint exponent, guint raw_len)
{
  MiReading reading
      = { value, (gint8) exponent, (guint8) kind, ++self->seen[kind], (guint8) raw_len };

  return reading;
}

/* A limit in the unit of @exponent. Finer than 0.001 no format is. */
static gint64
scale_limit (gint limit, gint exponent)
{
  static const gint powers[] = { 1, 10, 100, 1000 };

  return (gint64) limit * powers[CLAMP (-exponent, 0, 3)];
}

void
mi_advert_add (MiAdvertDecoder *self, guint kind, gint64 value, gint exponent, guint raw_len)
{
  MiReading reading = new_reading (self, kind, value, exponent, raw_len);
  const Limits *limit = &limits[kind];

  if (limit->limited && value < scale_limit (limit->min, exponent))
    reject (self, &reading, MI_REJECT_TOO_LOW);
  else if (limit->limited && value > scale_limit (limit->max, exponent))
    reject (self, &reading, MI_REJECT_TOO_HIGH);
  else
    keep (self, &reading);
}

void
mi_advert_add_within (MiAdvertDecoder *self, guint kind, gint64 value, gint64 min, gint64 max)
{
  MiReading reading = new_reading (self, kind, value, 0, 2);

  if (value < min)
    reject (self, &reading, MI_REJECT_TOO_LOW);
  else if (value > max)
    reject (self, &reading, MI_REJECT_TOO_HIGH);
  else
    keep (self, &reading);
}

/* IEEE single, rounded to 0.01, halves away from zero; beyond 10^16 with the exponent it needs. */
static void
add_float (MiAdvertDecoder *self, guint kind, guint32 bits)
{
  gint exponent = -2;
  float single;
  double scaled;

  memcpy (&single, &bits, sizeof single);
  if (!isfinite (single))
    {
      MiReading reading = new_reading (self, kind, 0, 0, sizeof single);

      reject (self, &reading, MI_REJECT_NOT_FINITE);
      return;
    }
  scaled = (double) single * 100.0; /* exact: 24 bits times 7 bits */
  while (scaled > 1e18 || scaled < -1e18)
    {
      scaled /= 10.0;
      exponent++;
    }
  /* Above 2^52 there are no fractions left, and adding one half could step over. */
  if (scaled > -4503599627370496.0 && scaled < 4503599627370496.0)
    scaled += scaled < 0 ? -0.5 : 0.5;
  mi_advert_add (self, kind, (gint64) scaled, exponent, sizeof single);
}

void
mi_advert_add_value (MiAdvertDecoder *self, guint kind, MiValueType type, gint exponent,
                     const guint8 *data, gsize len)
{
  guint32 bits = 0;
  gint64 value;

  if (len == 0 || len > sizeof bits)
    return;
  for (gsize i = 0; i < len; i++)
    bits |= (guint32) data[i] << (8 * i);
  value = bits;
  if ((type == MI_VALUE_SIGNED || type == MI_VALUE_THIRTY_FIVE) && (data[len - 1] & 0x80) != 0)
    value -= G_GINT64_CONSTANT (1) << (8 * len);
  if (type == MI_VALUE_FLOAT && len == sizeof bits)
    add_float (self, kind, bits);
  else if (type == MI_VALUE_BOOLEAN)
    mi_advert_add (self, kind, value != 0, 0, len);
  else if (type == MI_VALUE_THIRTY_FIVE || type == MI_VALUE_THIRTY_FIVE_UNSIGNED)
    mi_advert_add (self, kind, value * 35, exponent, len);
  else if (type != MI_VALUE_RAW)
    mi_advert_add (self, kind, value, exponent, len);
}

MiAdvertStatus
mi_advert_decode (guint16 uuid, const guint8 *address, const guint8 *data, gsize len,
                  MiAdvertKey *key, MiAdvert *out)
{
  MiAdvertDecoder self = { address, data, len, key, { 0 }, FALSE, out };

  memset (out, 0, G_STRUCT_OFFSET (MiAdvert, readings));
  out->uuid = uuid;
  if (len > MI_ADVERT_DATA_MAX || (data == NULL && len > 0))
    return mi_advert_refuse (&self, MI_ADVERT_ERROR_UNSUPPORTED_FORMAT);
  switch (uuid)
    {
    case MI_ADVERT_UUID_MIBEACON:
      return mi_advert_decode_mibeacon (&self);
    case MI_ADVERT_UUID_CUSTOM:
      return mi_advert_decode_custom (&self);
    case MI_ADVERT_UUID_BTHOME1:
    case MI_ADVERT_UUID_BTHOME1E:
      return mi_advert_decode_bthome1 (&self);
    case MI_ADVERT_UUID_BTHOME2:
      return mi_advert_decode_bthome2 (&self);
    case MI_ADVERT_UUID_QINGPING:
      return mi_advert_decode_qingping (&self);
    default:
      return mi_advert_refuse (&self, MI_ADVERT_ERROR_UNSUPPORTED_FORMAT);
    }
}

/* protocol/advertising.md section 3.6: the AES key of a v2 or v3 key. */
static void
expand_old_key (guint8 out[MI_ADVERT_KEY_LEN], const guint8 key[MI_ADVERT_KEY_OLD_LEN])
{
  static const guint8 middle[] = { 0x8d, 0x3d, 0x3c, 0x97 };

  memcpy (out, key, 6);
  memcpy (out + 6, middle, sizeof middle);
  memcpy (out + 10, key + 6, 6);
}

MiAdvertKey *
mi_advert_key_new (const guint8 *key, gsize len)
{
  MiAdvertKey *self = g_new0 (MiAdvertKey, 1);
  guint8 expanded[MI_ADVERT_KEY_LEN];

  self->len = len;
  if (len == MI_ADVERT_KEY_LEN)
    self->aes = mi_crypto_key_new (key, MI_CRYPTO_KEY_TAG4);
  else if (len == MI_ADVERT_KEY_OLD_LEN)
    {
      expand_old_key (expanded, key);
      self->aes = mi_crypto_key_new (expanded, MI_CRYPTO_KEY_TAG_BYTE);
      mi_crypto_wipe (expanded, sizeof expanded);
    }
  return self;
}

void
mi_advert_key_free (MiAdvertKey *self)
{
  if (self == NULL)
    return;
  mi_crypto_key_free (self->aes);
  g_free (self);
}

const MiReading *
mi_advert_find (const MiAdvert *self, MiReadingKind kind)
{
  for (guint i = 0; i < self->n_readings; i++)
    if (self->readings[i].kind == kind)
      return &self->readings[i];
  return NULL;
}

double
mi_reading_get_double (const MiReading *self)
{
  double power = 1.0;

  for (gint i = ABS (self->exponent); i > 0; i--)
    power *= 10.0;
  /* Dividing by a power of ten rounds once, so 234 / 10 is the double that 23.4 is. */
  return self->exponent < 0 ? (double) self->value / power : (double) self->value * power;
}

gboolean
mi_advert_split_next (MiAdvertSplit *self, MiAdvertElement *out)
{
  enum
  {
    SERVICE_DATA_16 = 0x16,
    MANUFACTURER = 0xff
  };

  while (self->pos < self->len)
    {
      gsize element_len = self->data[self->pos];
      const guint8 *element;
      guint8 type;

      if (element_len == 0 || element_len > self->len - self->pos - 1)
        {
          self->truncated = element_len != 0;
          self->pos = self->len;
          return FALSE;
        }
      element = self->data + self->pos + 1;
      self->pos += 1 + element_len;
      type = element[0];
      if (type != SERVICE_DATA_16 && type != MANUFACTURER)
        continue;
      if (element_len < 3)
        {
          self->short_service_data |= type == SERVICE_DATA_16;
          continue;
        }
      out->uuid = mi_get_u16 (element + 1);
      if (type == MANUFACTURER && out->uuid != MI_ADVERT_COMPANY_XIAOMI)
        continue;
      out->manufacturer = type == MANUFACTURER;
      out->data = element + 3;
      out->len = (guint8) (element_len - 3);
      return TRUE;
    }
  return FALSE;
}
