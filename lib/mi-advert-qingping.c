/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-advert-private.h"

#include "mi-bytes.h"

/* Qingping, 0xFDCD (protocol/advertising.md section 7). Never encrypted. */

#define HEADER_LEN   8
#define BATTERY_MASK 0x7f
/* These carry another address than the one they send from. */
#define PRODUCT_CGDN1     0x0e
#define PRODUCT_CGDN1_NEW 0x24

typedef struct
{
  guint8 id;
  guint8 len;
  guint8 kind;
  guint8 type;
  gint8 exponent;
} ObjectType;

static const ObjectType object_types[] = {
  { 0x07, 2, MI_READING_PRESSURE, MI_VALUE_UNSIGNED, -1 },
  { 0x09, 4, MI_READING_ILLUMINANCE, MI_VALUE_UNSIGNED, 0 },
  { 0x0f, 1, MI_READING_PACKET_ID, MI_VALUE_UNSIGNED, 0 },
  { 0x11, 1, MI_READING_LIGHT, MI_VALUE_BOOLEAN, 0 },
  { 0x13, 2, MI_READING_CO2, MI_VALUE_UNSIGNED, 0 },
};

/* Objects of several values, or with values of their own. */
static void
add_special (MiAdvertDecoder *self, guint8 id, const guint8 *data, gsize len)
{
  if (id == 0x01 && len == 4)
    {
      mi_advert_add_value (self, MI_READING_TEMPERATURE, MI_VALUE_SIGNED, -1, data, 2);
      mi_advert_add_value (self, MI_READING_HUMIDITY, MI_VALUE_UNSIGNED, -1, data + 2, 2);
    }
  else if (id == 0x02 && len == 1)
    mi_advert_add (self, MI_READING_BATTERY, data[0] & BATTERY_MASK, 0, 1);
  /* 0 open, 1 closed, 2 open for too long */
  else if (id == 0x04 && len == 1 && data[0] <= 2)
    mi_advert_add (self, MI_READING_OPENING, data[0] != 1, 0, 1);
  else if (id == 0x08 && len == 4)
    {
      mi_advert_add_value (self, MI_READING_MOTION, MI_VALUE_BOOLEAN, 0, data, 1);
      mi_advert_add_value (self, MI_READING_ILLUMINANCE, MI_VALUE_UNSIGNED, 0, data + 1, 3);
    }
  else if (id == 0x12 && len == 4)
    {
      mi_advert_add_value (self, MI_READING_PM25, MI_VALUE_UNSIGNED, 0, data, 2);
      mi_advert_add_value (self, MI_READING_PM10, MI_VALUE_UNSIGNED, 0, data + 2, 2);
    }
}

static void
add_object (MiAdvertDecoder *self, guint8 id, const guint8 *data, gsize len)
{
  mi_advert_add_object (self, id, data, len);
  for (guint i = 0; i < G_N_ELEMENTS (object_types); i++)
    {
      const ObjectType *type = &object_types[i];

      if (type->id != id || type->len != len)
        continue;
      if (type->kind == MI_READING_PACKET_ID && self->seen[type->kind] == 0)
        mi_advert_set_packet_id (self, data[0]);
      mi_advert_add_value (self, type->kind, type->type, type->exponent, data, len);
      return;
    }
  add_special (self, id, data, len);
}

MiAdvertStatus
mi_advert_decode_qingping (MiAdvertDecoder *self)
{
  MiAdvert *out = self->out;
  MiReader in = MI_READER (self->data, self->len);
  guint8 product;

  out->format = MI_ADVERT_FORMAT_QINGPING;
  if (self->len < HEADER_LEN)
    return mi_advert_refuse (self, MI_ADVERT_ERROR_TRUNCATED);
  product = self->data[1];
  if (product != PRODUCT_CGDN1 && product != PRODUCT_CGDN1_NEW
      && !mi_advert_is_from (self, self->data + 2, TRUE))
    return mi_advert_refuse (self, MI_ADVERT_ERROR_MAC_MISMATCH);
  out->product_id = product;
  out->fields |= MI_ADVERT_HAS_PRODUCT_ID | MI_ADVERT_HAS_OBJECTS;
  mi_advert_set_mac (self, self->data + 2, TRUE);
  mi_advert_set_encrypted (self, FALSE);
  mi_advert_set_plain (self, self->data, self->len);
  in.data = out->plain;
  mi_reader_take (&in, HEADER_LEN);
  while (!mi_reader_at_end (&in))
    {
      guint8 id = mi_reader_u8 (&in);
      guint8 len = mi_reader_u8 (&in);
      const guint8 *data = mi_reader_take (&in, len);

      if (data == NULL)
        {
          out->partial = TRUE;
          break;
        }
      add_object (self, id, data, len);
    }
  return mi_advert_finish (self);
}
