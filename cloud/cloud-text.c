/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "cloud-text.h"

#include <string.h>

#define SHOWN_LEN 200

void
cloud_secret_free (CloudSecret *self)
{
  if (self == NULL)
    return;
  explicit_bzero (self, strlen (self));
  g_free (self);
}

/* The standard alphabet with padding, no blanks. */
static char *
normalise_base64 (const char *text)
{
  GString *out = g_string_sized_new (strlen (text) + 3);

  for (const char *c = text; *c != '\0'; c++)
    if (!g_ascii_isspace (*c))
      g_string_append_c (out, *c == '-' ? '+' : *c == '_' ? '/' : *c);
  if (out->len > 0 && out->str[out->len - 1] != '=')
    while (out->len % 4 != 0)
      g_string_append_c (out, '=');
  return g_string_free (out, FALSE);
}

guint8 *
cloud_base64_decode (const char *text, gsize *len)
{
  g_autoptr (CloudSecret) wanted = normalise_base64 (text);
  g_autoptr (CloudSecret) again = NULL;
  guint8 *bytes = g_base64_decode (wanted, len);

  /* The decoder skips what it does not know: only text that comes out again was base64. */
  again = g_base64_encode (bytes, *len);
  if (*len > 0 && strcmp (wanted, again) == 0)
    return bytes;
  explicit_bzero (bytes, *len);
  g_free (bytes);
  *len = 0;
  return NULL;
}

guint8 *
cloud_hex_decode (const char *text, gsize len)
{
  g_autofree guint8 *bytes = g_malloc (len + 1);

  if (strlen (text) != 2 * len)
    return NULL;
  for (gsize i = 0; i < len; i++)
    {
      int high = g_ascii_xdigit_value (text[2 * i]), low = g_ascii_xdigit_value (text[2 * i + 1]);

      if (high < 0 || low < 0)
        return NULL;
      bytes[i] = (guint8) (high << 4 | low);
    }
  return g_steal_pointer (&bytes);
}

char *
cloud_hex_encode (const guint8 *data, gsize len)
{
  static const char digits[] = "0123456789abcdef";
  char *text = g_malloc (2 * len + 1);

  for (gsize i = 0; i < len; i++)
    {
      text[2 * i] = digits[data[i] >> 4];
      text[2 * i + 1] = digits[data[i] & 15];
    }
  text[2 * len] = '\0';
  return text;
}

char *
cloud_text_for_people (const char *text)
{
  g_autofree char *valid = g_utf8_make_valid (text, -1);
  GString *out = g_string_new (NULL);

  for (const char *c = valid; *c != '\0' && out->len < SHOWN_LEN; c = g_utf8_next_char (c))
    {
      gunichar character = g_utf8_get_char (c);

      g_string_append_unichar (out, g_unichar_isprint (character) ? character : ' ');
    }
  return g_string_free (out, FALSE);
}
