/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-advert-private.h"

#include "mi-bytes.h"

#include <string.h>

/* 0x181A, atc1441 and pvvx custom firmware (protocol/advertising.md section 4). */

enum
{
  ATC1441_ENCRYPTED_LEN = 8,
  PVVX_ENCRYPTED_LEN = 11,
  ATC1441_LEN = 13,
  PVVX_SHORT_LEN = 14, /* without flags */
  PVVX_LEN = 15,
};

#define FLAG_OPENING        (1 << 0)
#define FLAG_TRIGGER_OUTPUT (1 << 1)
#define VOLTAGE_MIN_MV      500
#define VOLTAGE_MAX_MV      5000
#define AD_TYPE             0x16
/* Length byte of the AD element: type and UUID stand before the service data. */
#define AD_OVERHEAD 3

static void
set_trigger_output (MiAdvert *out, gboolean on)
{
  out->trigger_output = on;
  out->fields |= MI_ADVERT_HAS_TRIGGER_OUTPUT;
}

static void
set_flags (MiAdvert *out, guint8 flags)
{
  out->trigger_flags = flags;
  out->opening = (flags & FLAG_OPENING) != 0;
  out->fields |= MI_ADVERT_HAS_OPENING;
  set_trigger_output (out, (flags & FLAG_TRIGGER_OUTPUT) != 0);
}

static void
add_voltage (MiAdvertDecoder *self, guint16 millivolts)
{
  mi_advert_add_within (self, MI_READING_VOLTAGE, millivolts, VOLTAGE_MIN_MV, VOLTAGE_MAX_MV);
}

/* The only big-endian frame of all. */
static MiAdvertStatus
read_atc1441 (MiAdvertDecoder *self)
{
  const guint8 *data = self->data;
  gint16 temperature = (gint16) (data[6] << 8 | data[7]);

  mi_advert_set_packet_id (self, data[12]);
  mi_advert_add (self, MI_READING_TEMPERATURE, temperature, -1, 2);
  mi_advert_add (self, MI_READING_HUMIDITY, data[8], 0, 1);
  mi_advert_add (self, MI_READING_BATTERY, data[9], 0, 1);
  add_voltage (self, data[10] << 8 | data[11]);
  return mi_advert_finish (self);
}

static MiAdvertStatus
read_pvvx (MiAdvertDecoder *self)
{
  const guint8 *data = self->data;

  mi_advert_set_packet_id (self, data[13]);
  mi_advert_add (self, MI_READING_TEMPERATURE, (gint16) mi_get_u16 (data + 6), -2, 2);
  mi_advert_add (self, MI_READING_HUMIDITY, mi_get_u16 (data + 8), -2, 2);
  add_voltage (self, mi_get_u16 (data + 10));
  mi_advert_add (self, MI_READING_BATTERY, data[12], 0, 1);
  if (self->len == PVVX_LEN)
    set_flags (self->out, data[14]);
  return mi_advert_finish (self);
}

static MiAdvertStatus
read_plain (MiAdvertDecoder *self)
{
  gboolean pvvx = self->len != ATC1441_LEN;

  self->out->format = pvvx ? MI_ADVERT_FORMAT_PVVX : MI_ADVERT_FORMAT_ATC1441;
  if (!mi_advert_is_from (self, self->data, pvvx))
    return mi_advert_refuse (self, MI_ADVERT_ERROR_MAC_MISMATCH);
  mi_advert_set_encrypted (self, FALSE);
  if (self->key != NULL)
    return mi_advert_refuse_with_header (self, MI_ADVERT_ERROR_DOWNGRADE);
  mi_advert_set_mac (self, self->data, pvvx);
  return pvvx ? read_pvvx (self) : read_atc1441 (self);
}

/* Section 4.3. The temperature byte is unsigned: half degrees above -40. */
static void
read_atc1441_encrypted (MiAdvertDecoder *self)
{
  const guint8 *plain = self->out->plain;

  mi_advert_add (self, MI_READING_TEMPERATURE, plain[0] * 5 - 400, -1, 1);
  mi_advert_add (self, MI_READING_HUMIDITY, plain[1] * 5, -1, 1);
  mi_advert_add (self, MI_READING_BATTERY, plain[2] & 0x7f, 0, 1);
  set_trigger_output (self->out, (plain[2] & 0x80) != 0);
}

static void
read_pvvx_encrypted (MiAdvertDecoder *self)
{
  const guint8 *plain = self->out->plain;

  mi_advert_add (self, MI_READING_TEMPERATURE, (gint16) mi_get_u16 (plain), -2, 2);
  mi_advert_add (self, MI_READING_HUMIDITY, mi_get_u16 (plain + 2), -2, 2);
  mi_advert_add (self, MI_READING_BATTERY, plain[4], 0, 1);
  set_flags (self->out, plain[5]);
}

static MiAdvertStatus
read_encrypted (MiAdvertDecoder *self)
{
  gboolean pvvx = self->len == PVVX_ENCRYPTED_LEN;
  gsize cipher_len = self->len - 1 - MI_ADVERT_TAG_LEN;
  guint8 nonce[11];
  MiAdvertError error;

  /* An old plaintext form of pvvx has the same length: never call it a wrong key. */
  if (pvvx && self->address != NULL && mi_advert_is_from (self, self->data, TRUE))
    return mi_advert_refuse (self, MI_ADVERT_ERROR_UNSUPPORTED_FORMAT);
  self->out->format = pvvx ? MI_ADVERT_FORMAT_PVVX_ENCRYPTED : MI_ADVERT_FORMAT_ATC1441_ENCRYPTED;
  mi_advert_set_encrypted (self, TRUE);
  mi_advert_set_packet_id (self, self->data[0]);
  error = mi_advert_check_key (self, self->address != NULL, MI_ADVERT_KEY_LEN);
  if (error != MI_ADVERT_ERROR_NONE)
    return mi_advert_refuse_with_header (self, error);
  mi_advert_reverse_mac (nonce, self->address);
  nonce[6] = (guint8) (self->len + AD_OVERHEAD);
  nonce[7] = AD_TYPE;
  mi_put_u16 (nonce + 8, MI_ADVERT_UUID_CUSTOM);
  nonce[10] = self->data[0];
  if (!mi_advert_open (self, nonce, sizeof nonce, TRUE, self->data + 1, cipher_len,
                       self->data + 1 + cipher_len))
    return mi_advert_refuse_with_header (self, MI_ADVERT_ERROR_AUTH_FAILED);
  if (pvvx)
    read_pvvx_encrypted (self);
  else
    read_atc1441_encrypted (self);
  return mi_advert_finish (self);
}

MiAdvertStatus
mi_advert_decode_custom (MiAdvertDecoder *self)
{
  switch (self->len)
    {
    case ATC1441_LEN:
    case PVVX_SHORT_LEN:
    case PVVX_LEN:
      return read_plain (self);
    case ATC1441_ENCRYPTED_LEN:
    case PVVX_ENCRYPTED_LEN:
      return read_encrypted (self);
    default:
      return mi_advert_refuse (self, MI_ADVERT_ERROR_UNSUPPORTED_FORMAT);
    }
}
