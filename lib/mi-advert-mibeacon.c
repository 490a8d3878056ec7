/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-advert-private.h"

#include "mi-bytes.h"

#include <string.h>

/* MiBeacon (protocol/advertising.md section 3). */

/* Bits of the frame control and of the capability (sections 3.2 and 3.4). */
#define CONTROL_ENCRYPTED  (1 << 3)
#define CONTROL_MAC        (1 << 4)
#define CONTROL_CAPABILITY (1 << 5)
#define CONTROL_OBJECT     (1 << 6)
#define CONTROL_MESH       (1 << 7)
#define CONTROL_REGISTERED (1 << 8)
#define CONTROL_SOLICITED  (1 << 9)
#define CAPABILITY_IO      (1 << 5)
#define CAPABILITY_METHOD  (3 << 3)
#define METHOD_COMBO       (3 << 3)

#define HEADER_MIN  5
#define OBJECT_MIN  3
#define COUNTER_LEN 3
#define WIFI_LEN    2
/* What follows the cipher text: extended counter, then the tag or its first byte. */
#define TRAILER_LEN     (COUNTER_LEN + MI_ADVERT_TAG_LEN)
#define TRAILER_OLD_LEN (COUNTER_LEN + 1)

typedef struct
{
  guint16 id;
  guint8 len;
  guint8 type; /* MiValueType */
  guint8 kind;
  gint8 exponent;
} ObjectType;

/* Section 3.5; objects of several values, or with values of their own, are in add_special(). */
static const ObjectType object_types[] = {
  { 0x1004, 2, MI_VALUE_SIGNED, MI_READING_TEMPERATURE, -1 },
  { 0x1006, 2, MI_VALUE_UNSIGNED, MI_READING_HUMIDITY, -1 },
  { 0x100a, 1, MI_VALUE_UNSIGNED, MI_READING_BATTERY, 0 },
  { 0x4801, 4, MI_VALUE_FLOAT, MI_READING_TEMPERATURE, 0 },
  { 0x4802, 1, MI_VALUE_UNSIGNED, MI_READING_HUMIDITY, 0 },
  { 0x4803, 1, MI_VALUE_UNSIGNED, MI_READING_BATTERY, 0 },
  { 0x4c01, 4, MI_VALUE_FLOAT, MI_READING_TEMPERATURE, 0 },
  { 0x4c02, 1, MI_VALUE_UNSIGNED, MI_READING_HUMIDITY, 0 },
  { 0x4c03, 1, MI_VALUE_UNSIGNED, MI_READING_BATTERY, 0 },
  { 0x4c08, 4, MI_VALUE_FLOAT, MI_READING_HUMIDITY, 0 },
  { 0x4808, 4, MI_VALUE_FLOAT, MI_READING_HUMIDITY, 0 },
  { 0x5003, 1, MI_VALUE_UNSIGNED, MI_READING_BATTERY, 0 },
  { 0x5403, 1, MI_VALUE_UNSIGNED, MI_READING_BATTERY, 0 },
  { 0x4a01, 1, MI_VALUE_BOOLEAN, MI_READING_BATTERY_LOW, 0 },
  { 0x4e01, 1, MI_VALUE_BOOLEAN, MI_READING_BATTERY_LOW, 0 },
  { 0x000a, 2, MI_VALUE_SIGNED, MI_READING_TEMPERATURE, -2 },
  { 0x1007, 3, MI_VALUE_UNSIGNED, MI_READING_ILLUMINANCE, 0 },
  { 0x1008, 1, MI_VALUE_UNSIGNED, MI_READING_MOISTURE, 0 },
  { 0x1009, 2, MI_VALUE_UNSIGNED, MI_READING_CONDUCTIVITY, 0 },
  { 0x1010, 2, MI_VALUE_UNSIGNED, MI_READING_FORMALDEHYDE, -2 },
  { 0x20e1, 4, MI_VALUE_UNSIGNED, MI_READING_COUNT, 0 },
  { 0x4805, 4, MI_VALUE_FLOAT, MI_READING_ILLUMINANCE, 0 },
};

/* Where things stand in one frame. */
typedef struct
{
  const guint8 *mac; /* reversed, nullable */
  const guint8 *body;
  gsize body_len;
} Frame;

static void
add_special (MiAdvertDecoder *self, guint16 id, const guint8 *data, gsize len)
{
  if (id == 0x100d && len == 4)
    {
      mi_advert_add_value (self, MI_READING_TEMPERATURE, MI_VALUE_SIGNED, -1, data, 2);
      mi_advert_add_value (self, MI_READING_HUMIDITY, MI_VALUE_UNSIGNED, -1, data + 2, 2);
    }
  /* 0 open, 1 closed, 2 open for too long, 3 reset: no reading */
  else if (id == 0x1019 && len == 1 && data[0] <= 2)
    mi_advert_add (self, MI_READING_OPENING, data[0] != 1, 0, 1);
  /* 1 open, 2 closed */
  else if (id == 0x4804 && len == 1 && (data[0] == 1 || data[0] == 2))
    mi_advert_add (self, MI_READING_OPENING, data[0] == 1, 0, 1);
}

static void
add_object (MiAdvertDecoder *self, guint16 id, const guint8 *data, gsize len)
{
  mi_advert_add_object (self, id, data, len);
  for (guint i = 0; i < G_N_ELEMENTS (object_types); i++)
    {
      const ObjectType *type = &object_types[i];

      if (type->id != id)
        continue;
      if (type->len == len)
        mi_advert_add_value (self, type->kind, type->type, type->exponent, data, len);
      return;
    }
  add_special (self, id, data, len);
}

/* Takes @len bytes of out->plain apart. Returns: %FALSE if there is no complete object. */
static gboolean
read_objects (MiAdvertDecoder *self, gsize len)
{
  MiReader in = MI_READER (self->out->plain, len);

  self->out->fields |= MI_ADVERT_HAS_OBJECTS;
  while (!mi_reader_at_end (&in))
    {
      guint16 id = mi_reader_u16 (&in);
      guint8 object_len = mi_reader_u8 (&in);
      const guint8 *data = mi_reader_take (&in, object_len);

      if (data == NULL)
        {
          self->out->partial = TRUE;
          break;
        }
      add_object (self, id, data, object_len);
    }
  return self->out->n_objects > 0;
}

/* Section 3.8, first match wins. */
static MiBindState
get_bind_state (const MiAdvert *out, gboolean has_object)
{
  if ((out->version == 5 && out->registered) || out->encrypted)
    return MI_BIND_STATE_BOUND;
  if (out->version >= 4 && out->solicited)
    return MI_BIND_STATE_SOLICITING;
  if (out->version == 5 && (out->fields & MI_ADVERT_HAS_IO_CAPABILITY) != 0)
    return MI_BIND_STATE_UNBOUND;
  return has_object ? MI_BIND_STATE_PUBLIC : MI_BIND_STATE_UNKNOWN;
}

static void
set_frame_control (MiAdvert *out, guint16 control)
{
  out->frame_control = control;
  out->version = control >> 12;
  out->auth_mode = (control >> 10) & 3;
  out->registered = (control & CONTROL_REGISTERED) != 0;
  out->solicited = (control & CONTROL_SOLICITED) != 0;
  out->fields |= MI_ADVERT_HAS_VERSION | MI_ADVERT_HAS_FRAME_CONTROL;
}

/* Checks 1 to 5 of section 3.7. */
static MiAdvertError
read_header (MiAdvertDecoder *self, Frame *frame)
{
  MiAdvert *out = self->out;
  MiReader in = MI_READER (self->data, self->len);
  guint16 control = mi_reader_u16 (&in);

  if (self->len < HEADER_MIN)
    return MI_ADVERT_ERROR_TRUNCATED;
  if ((control & CONTROL_MESH) != 0)
    return MI_ADVERT_ERROR_MESH;
  set_frame_control (out, control);
  if (out->version < 2 || out->version > 5)
    return MI_ADVERT_ERROR_UNSUPPORTED_VERSION;
  out->product_id = mi_reader_u16 (&in);
  out->fields |= MI_ADVERT_HAS_PRODUCT_ID;
  mi_advert_set_packet_id (self, mi_reader_u8 (&in));
  if ((control & CONTROL_MAC) != 0)
    {
      frame->mac = mi_reader_take (&in, MI_ADVERT_MAC_LEN);
      if (frame->mac == NULL)
        return MI_ADVERT_ERROR_TRUNCATED;
      if (!mi_advert_is_from (self, frame->mac, TRUE))
        return MI_ADVERT_ERROR_MAC_MISMATCH;
      mi_advert_set_mac (self, frame->mac, TRUE);
    }
  if ((control & CONTROL_CAPABILITY) != 0)
    {
      out->capability = mi_reader_u8 (&in);
      out->fields |= MI_ADVERT_HAS_CAPABILITY;
      if ((out->capability & CAPABILITY_METHOD) == METHOD_COMBO)
        mi_reader_take (&in, WIFI_LEN);
      if ((out->capability & CAPABILITY_IO) != 0)
        {
          out->io_capability = mi_reader_u16 (&in);
          out->fields |= MI_ADVERT_HAS_IO_CAPABILITY;
        }
    }
  if (!mi_reader_ok (&in))
    return MI_ADVERT_ERROR_TRUNCATED;
  frame->body_len = mi_reader_left (&in);
  frame->body = mi_reader_take (&in, frame->body_len);
  return MI_ADVERT_ERROR_NONE;
}

static MiAdvertStatus
read_plain (MiAdvertDecoder *self, const Frame *frame)
{
  if (self->key != NULL)
    return mi_advert_refuse_with_header (self, MI_ADVERT_ERROR_DOWNGRADE);
  if (frame->body_len < OBJECT_MIN)
    return mi_advert_refuse_with_header (self, MI_ADVERT_ERROR_MALFORMED);
  mi_advert_set_plain (self, frame->body, frame->body_len);
  if (!read_objects (self, frame->body_len))
    return mi_advert_refuse_with_header (self, MI_ADVERT_ERROR_MALFORMED);
  return mi_advert_finish (self);
}

/* The MAC for the nonce, reversed: of the frame, or else the advertiser's. */
static void
get_nonce_mac (const MiAdvertDecoder *self, const Frame *frame, guint8 out[MI_ADVERT_MAC_LEN])
{
  if (frame->mac != NULL)
    memcpy (out, frame->mac, MI_ADVERT_MAC_LEN);
  else
    mi_advert_reverse_mac (out, self->address);
}

static MiAdvertStatus
read_encrypted (MiAdvertDecoder *self, const Frame *frame)
{
  gboolean has_mac = frame->mac != NULL || self->address != NULL;
  const guint8 *counter, *tag;
  guint8 nonce[12];
  MiAdvertError error;
  gsize len;

  if (frame->body_len < OBJECT_MIN + TRAILER_LEN)
    return mi_advert_refuse (self, MI_ADVERT_ERROR_TRUNCATED);
  error = mi_advert_check_key (self, has_mac, MI_ADVERT_KEY_LEN);
  if (error != MI_ADVERT_ERROR_NONE)
    return mi_advert_refuse_with_header (self, error);
  len = frame->body_len - TRAILER_LEN;
  counter = frame->body + len;
  tag = counter + COUNTER_LEN;
  get_nonce_mac (self, frame, nonce);
  memcpy (nonce + 6, self->data + 2, 3); /* product id, frame counter */
  memcpy (nonce + 9, counter, COUNTER_LEN);
  if (!mi_advert_open (self, nonce, sizeof nonce, TRUE, frame->body, len, tag))
    return mi_advert_refuse_with_header (self, MI_ADVERT_ERROR_AUTH_FAILED);
  mi_advert_set_counter (self, mi_get_u32 (nonce + 8)); /* frame counter, extended counter */
  if (!read_objects (self, len))
    return mi_advert_refuse_with_header (self, MI_ADVERT_ERROR_MALFORMED);
  return mi_advert_finish (self);
}

static MiAdvertStatus
read_encrypted_old (MiAdvertDecoder *self, const Frame *frame)
{
  gboolean has_mac = frame->mac != NULL || self->address != NULL;
  guint8 nonce[13], mac[MI_ADVERT_MAC_LEN];
  const guint8 *counter;
  MiAdvertError error;
  gsize len;

  if (frame->body_len < OBJECT_MIN + TRAILER_OLD_LEN)
    return mi_advert_refuse (self, MI_ADVERT_ERROR_TRUNCATED);
  error = mi_advert_check_key (self, has_mac, MI_ADVERT_KEY_OLD_LEN);
  if (error != MI_ADVERT_ERROR_NONE)
    return mi_advert_refuse_with_header (self, error);
  len = frame->body_len - TRAILER_OLD_LEN;
  counter = frame->body + len;
  get_nonce_mac (self, frame, mac);
  memcpy (nonce, self->data, HEADER_MIN);
  memcpy (nonce + 5, counter, COUNTER_LEN);
  memcpy (nonce + 8, mac, 5);
  /* One byte of tag is little: a whole list of objects is the other half of the proof. */
  if (!mi_advert_open_old (self, nonce, sizeof nonce, frame->body, len, counter[COUNTER_LEN])
      || !read_objects (self, len) || self->out->partial)
    return mi_advert_refuse_with_header (self, MI_ADVERT_ERROR_AUTH_FAILED);
  mi_advert_set_counter (self, mi_get_u32 (nonce + 4));
  return mi_advert_finish (self);
}

MiAdvertStatus
mi_advert_decode_mibeacon (MiAdvertDecoder *self)
{
  MiAdvert *out = self->out;
  Frame frame = { NULL, NULL, 0 };
  MiAdvertError error;
  gboolean has_object;

  out->format = MI_ADVERT_FORMAT_MIBEACON;
  error = read_header (self, &frame);
  if (error != MI_ADVERT_ERROR_NONE)
    return mi_advert_refuse (self, error);
  has_object = (out->frame_control & CONTROL_OBJECT) != 0;
  mi_advert_set_encrypted (self, has_object && (out->frame_control & CONTROL_ENCRYPTED) != 0);
  out->bind_state = get_bind_state (out, has_object);
  if (!has_object)
    return mi_advert_finish (self);
  if (!out->encrypted)
    return read_plain (self, &frame);
  return out->version >= 4 ? read_encrypted (self, &frame) : read_encrypted_old (self, &frame);
}
