/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "images.h"

#include "mi-bytes.h"
#include "mi-crypto.h"

#include <string.h>

void
images_fix_crc (GByteArray *image)
{
  guint32 size = mi_get_u32 (image->data + 0x18);

  g_assert_cmpuint (size, <=, image->len);
  mi_put_u32 (image->data + size - 4, mi_crc32 (0xffffffff, image->data, size - 4));
}

GByteArray *
images_build (gsize size, guint seed, guint16 manufacturer, guint16 type, guint32 version)
{
  GByteArray *image = g_byte_array_new ();
  gsize i;

  g_byte_array_set_size (image, (guint) size);
  for (i = 0; i < size; i++)
    image->data[i] = (guint8) (i * 7 + (i >> 8) * 13 + seed);
  memcpy (image->data, "\x26\x80", 2);
  mi_put_u32 (image->data + 0x02, version);
  memcpy (image->data + 0x06, "\x5d\x02", 2);
  memcpy (image->data + 0x08, "KNLT", 4);
  mi_put_u16 (image->data + 0x12, manufacturer);
  mi_put_u16 (image->data + 0x14, type);
  mi_put_u32 (image->data + 0x18, (guint32) size);
  images_fix_crc (image);
  return image;
}

GByteArray *
images_build_text (gsize size, guint16 manufacturer, guint type, ...)
{
  GByteArray *image = images_build (size, 21, manufacturer, (guint16) type, 0);
  gsize at = 0x40;
  const char *text;
  va_list args;

  va_start (args, type);
  while ((text = va_arg (args, const char *)) != NULL)
    {
      g_assert_cmpuint (at + strlen (text) + 2, <, size - 4);
      image->data[at++] = 0;
      memcpy (image->data + at, text, strlen (text) + 1);
      at += strlen (text) + 1;
    }
  va_end (args);
  images_fix_crc (image);
  return image;
}

GByteArray *
images_container (GByteArray *image, guint16 manufacturer, guint16 type)
{
  GByteArray *out = g_byte_array_new ();

  g_byte_array_set_size (out, 62);
  memset (out->data, 0, 62);
  mi_put_u32 (out->data, 0x0beef11e);
  mi_put_u16 (out->data + 0x04, 0x0100);
  mi_put_u16 (out->data + 0x06, 56);
  mi_put_u16 (out->data + 0x0a, manufacturer);
  mi_put_u16 (out->data + 0x0c, type);
  mi_put_u32 (out->data + 0x0e, 0x99993001);
  mi_put_u16 (out->data + 0x12, 2);
  memcpy (out->data + 0x14, "Telink OTA Sample Usage", 23);
  mi_put_u32 (out->data + 0x34, 62 + image->len);
  mi_put_u32 (out->data + 0x3a, image->len);
  g_byte_array_append (out, image->data, image->len);
  return out;
}

static void
append_integer (GByteArray *out, const guint8 *value)
{
  guint skip = 0, pad;
  guint8 head[2] = { 0x02 };

  while (skip < 31 && value[skip] == 0)
    skip++;
  pad = value[skip] >> 7;
  head[1] = (guint8) (32 - skip + pad);
  g_byte_array_append (out, head, 2);
  g_byte_array_append (out, (const guint8 *) "\0", pad);
  g_byte_array_append (out, value + skip, 32 - skip);
}

GByteArray *
images_signature_der (const guint8 signature[64])
{
  GByteArray *out = g_byte_array_new ();
  guint8 head[2] = { 0x30 };

  append_integer (out, signature);
  append_integer (out, signature + 32);
  head[1] = (guint8) out->len;
  return g_byte_array_prepend (out, head, 2);
}

GBytes *
images_bytes (GByteArray *image)
{
  return g_byte_array_free_to_bytes (image);
}
