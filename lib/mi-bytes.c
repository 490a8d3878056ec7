/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-bytes.h"

#include <string.h>

void
mi_put_u16 (guint8 *out, guint16 value)
{
  out[0] = value & 0xff;
  out[1] = value >> 8;
}

void
mi_put_u32 (guint8 *out, guint32 value)
{
  mi_put_u16 (out, value & 0xffff);
  mi_put_u16 (out + 2, value >> 16);
}

/* Two hex digits; -1 if they are none. */
static int
hex_byte (const char *digits)
{
  int high = g_ascii_xdigit_value (digits[0]);
  int low = high < 0 ? -1 : g_ascii_xdigit_value (digits[1]);

  return low < 0 ? -1 : high << 4 | low;
}

gboolean
mi_hex_decode (const char *hex, guint8 *out, gsize out_len)
{
  g_return_val_if_fail (hex != NULL, FALSE);

  for (gsize i = 0; i < out_len; i++)
    {
      int byte = hex_byte (hex + 2 * i);

      if (byte < 0)
        return FALSE;
      out[i] = (guint8) byte;
    }
  return hex[2 * out_len] == '\0';
}

guint8 *
mi_hex_decode_alloc (const char *hex, gsize *out_len)
{
  gsize digits;
  guint8 *out;

  g_return_val_if_fail (hex != NULL && out_len != NULL, NULL);

  *out_len = 0;
  digits = strlen (hex);
  if (digits % 2 != 0)
    return NULL;
  /* One byte more, so that an empty run is not NULL. */
  out = g_malloc (digits / 2 + 1);
  if (!mi_hex_decode (hex, out, digits / 2))
    {
      g_free (out);
      return NULL;
    }
  *out_len = digits / 2;
  return out;
}

char *
mi_hex_encode (const guint8 *data, gsize len)
{
  static const char digits[] = "0123456789abcdef";
  char *hex = g_malloc (2 * len + 1);

  for (gsize i = 0; i < len; i++)
    {
      hex[2 * i] = digits[data[i] >> 4];
      hex[2 * i + 1] = digits[data[i] & 0xf];
    }
  hex[2 * len] = '\0';
  return hex;
}

gboolean
mi_address_parse (const char *text, guint8 out[6])
{
  guint8 address[6];

  g_return_val_if_fail (text != NULL, FALSE);

  for (guint i = 0; i < 6; i++)
    {
      int byte = hex_byte (text + 3 * i);

      if (byte < 0 || text[3 * i + 2] != (i < 5 ? ':' : '\0'))
        return FALSE;
      address[i] = (guint8) byte;
    }
  memcpy (out, address, sizeof address);
  return TRUE;
}
