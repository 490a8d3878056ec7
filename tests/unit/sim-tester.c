/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-tester.h"

#include <json-glib/json-glib.h>
#include <string.h>

#define BLOCK_LEN 16

static gboolean
draw (guint8 *out, gsize len, gpointer user_data)
{
  Tester *self = user_data;

  for (gsize i = 0; i < len; i++, self->drawn++)
    out[i] = self->drawn < self->random->len ? self->random->data[self->drawn]
                                             : (guint8) (self->drawn * 29 + 7);
  return TRUE;
}

Tester *
tester_new (const char *keys)
{
  Tester *self = g_new0 (Tester, 1);
  g_autofree char *text = g_strdup_printf ("[%s]\n%s", TESTER_ADDRESS, keys);
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (GError) error = NULL;

  g_key_file_load_from_data (file, text, strlen (text), G_KEY_FILE_NONE, &error);
  g_assert_no_error (error);
  self->random = g_byte_array_new ();
  self->lines = g_ptr_array_new_with_free_func (g_free);
  self->events = g_ptr_array_new_with_free_func (g_free);
  self->device = sim_device_new (file, TESTER_ADDRESS, draw, self, &error);
  g_assert_no_error (error);
  g_assert_nonnull (self->device);
  return self;
}

void
tester_free (Tester *self)
{
  if (self == NULL)
    return;
  sim_device_free (self->device);
  g_byte_array_unref (self->random);
  g_ptr_array_unref (self->lines);
  g_ptr_array_unref (self->events);
  g_free (self);
}

void
tester_random (Tester *self, const guint8 *data, gsize len)
{
  g_byte_array_append (self->random, data, (guint) len);
}

static void
collect (Tester *self)
{
  SimOutput output;

  while (sim_device_pop (self->device, &output))
    switch (output.kind)
      {
      case SIM_OUTPUT_NOTIFY:
        {
          g_autofree char *hex = mi_hex_encode (output.data, output.len);

          g_ptr_array_add (self->lines, g_strdup_printf ("< %04x %s", output.channel, hex));
        }
        break;
      case SIM_OUTPUT_EVENT:
        g_ptr_array_add (self->events, g_strdup (output.json));
        break;
      case SIM_OUTPUT_DISCONNECTED:
        self->dropped = TRUE;
        self->reason = output.reason;
        break;
      case SIM_OUTPUT_ADVERT:
      case SIM_OUTPUT_GATT:
      default:
        break;
      }
}

void
tester_connect (Tester *self, guint16 att)
{
  g_autoptr (GError) error = NULL;

  self->dropped = FALSE;
  sim_device_connect (self->device, self->now, att, &error);
  g_assert_no_error (error);
  collect (self);
}

void
tester_disconnect (Tester *self)
{
  sim_device_disconnect (self->device, self->now);
  collect (self);
}

void
tester_tick (Tester *self, gint64 ms)
{
  self->now += ms;
  sim_device_tick (self->device, self->now);
  collect (self);
}

void
tester_settle (Tester *self, gint64 limit_ms)
{
  gint64 end = self->now + limit_ms;

  for (;;)
    {
      gint64 deadline = sim_device_deadline (self->device);

      if (deadline < 0 || deadline > end)
        return;
      tester_tick (self, MAX (deadline - self->now, 0));
    }
}

void
tester_write (Tester *self, guint16 channel, const guint8 *data, gsize len)
{
  g_autoptr (GError) error = NULL;

  sim_device_write (self->device, self->now, channel, data, len, &error);
  g_assert_no_error (error);
  collect (self);
}

void
tester_write_hex (Tester *self, guint16 channel, const char *hex)
{
  gsize len;
  g_autofree guint8 *data = mi_hex_decode_alloc (hex, &len);

  g_assert_nonnull (data);
  tester_write (self, channel, data, len);
}

static gsize
read_bytes (Tester *self, guint16 channel, guint8 *out)
{
  g_autoptr (GError) error = NULL;
  gsize len = 0;

  sim_device_read (self->device, self->now, channel, out, &len, &error);
  g_assert_no_error (error);
  collect (self);
  return len;
}

char *
tester_read (Tester *self, guint16 channel)
{
  guint8 data[SIM_PACKET_MAX];

  return mi_hex_encode (data, read_bytes (self, channel, data));
}

char *
tester_read_text (Tester *self, guint16 channel)
{
  guint8 data[SIM_PACKET_MAX];
  gsize len = read_bytes (self, channel, data);

  return g_strndup ((const char *) data, len);
}

char *
tester_next_line (Tester *self, gint64 limit_ms)
{
  gint64 end = self->now + limit_ms;

  while (self->lines->len == 0)
    {
      gint64 deadline = sim_device_deadline (self->device);

      if (deadline < 0 || deadline > end)
        return NULL;
      tester_tick (self, MAX (deadline - self->now, 0));
    }
  return g_ptr_array_steal_index (self->lines, 0);
}

void
tester_expect (Tester *self, const char *line)
{
  g_autofree char *got = tester_next_line (self, 1000);

  g_assert_cmpstr (got, ==, line);
}

void
tester_expect_silence (Tester *self, gint64 limit_ms)
{
  g_autofree char *got = tester_next_line (self, limit_ms);

  g_assert_cmpstr (got, ==, NULL);
}

char *
tester_events (Tester *self)
{
  g_autoptr (GString) text = g_string_new (NULL);

  for (guint i = 0; i < self->events->len; i++)
    {
      g_autoptr (JsonNode) node = json_from_string (g_ptr_array_index (self->events, i), NULL);
      JsonObject *event = json_node_get_object (node);

      if (i > 0)
        g_string_append_c (text, ' ');
      g_string_append (text, json_object_get_string_member (event, "event"));
      if (json_object_has_member (event, "code"))
        g_string_append_printf (text, ":%d", (int) json_object_get_int_member (event, "code"));
      if (json_object_has_member (event, "status"))
        g_string_append_printf (text, ":%d", (int) json_object_get_int_member (event, "status"));
    }
  return g_string_free (g_steal_pointer (&text), FALSE);
}

/* "> 0010 a4" */
static void
play (Tester *self, const char *line)
{
  g_auto (GStrv) words = g_strsplit (line, " ", 3);
  guint8 channel[2];

  g_assert_cmpuint (g_strv_length (words), ==, 3);
  g_assert_true (mi_hex_decode (words[1], channel, sizeof channel));
  tester_write_hex (self, (guint16) (channel[0] << 8 | channel[1]), words[2]);
}

void
tester_replay (Tester *self, const char *const *wire, gsize n)
{
  for (gsize i = 0; i < n; i++)
    {
      if (wire[i][0] == '<')
        tester_expect (self, wire[i]);
      else
        {
          /* nothing may have been said that the transcript does not have */
          g_assert_cmpuint (self->lines->len, ==, 0);
          play (self, wire[i]);
        }
    }
}

/* Login without exploration, from the host's columns of protocol/login.md section 1. */

static void
say_confirm (Tester *self, const guint8 proof[32])
{
  g_autofree char *first = mi_hex_encode (proof, 18);
  g_autofree char *second = mi_hex_encode (proof + 18, 14);
  g_autofree char *one = g_strconcat ("0100", first, NULL);
  g_autofree char *two = g_strconcat ("0200", second, NULL);

  tester_write_hex (self, MI_CHANNEL_AUTH, "0000000a0200");
  tester_expect (self, "< 0019 00000101");
  tester_write_hex (self, MI_CHANNEL_AUTH, one);
  tester_write_hex (self, MI_CHANNEL_AUTH, two);
  tester_expect (self, "< 0019 00000100");
  tester_expect (self, "< 0010 21000000");
}

static void
take_random (Tester *self, guint8 random[MI_RANDOM_LEN])
{
  g_autofree char *fragment = NULL;

  tester_expect (self, "< 0019 0000000d0100");
  tester_write_hex (self, MI_CHANNEL_AUTH, "00000101");
  fragment = tester_next_line (self, 1000);
  g_assert_true (mi_hex_decode (fragment + strlen ("< 0019 0100"), random, MI_RANDOM_LEN));
  tester_write_hex (self, MI_CHANNEL_AUTH, "00000100");
}

static void
skip_confirm (Tester *self)
{
  tester_expect (self, "< 0019 0000000c0200");
  tester_write_hex (self, MI_CHANNEL_AUTH, "00000101");
  for (int i = 0; i < 2; i++)
    {
      g_autofree char *fragment = tester_next_line (self, 1000);

      g_assert_nonnull (fragment);
    }
  tester_write_hex (self, MI_CHANNEL_AUTH, "00000100");
}

void
tester_login (Tester *self, const guint8 token[MI_TOKEN_LEN])
{
  static const char info[] = "mible-login-info";
  guint8 both[2 * MI_RANDOM_LEN] = { 0 }; /* the host's random is zero */
  guint8 keys[64], proof[32];

  tester_write_hex (self, MI_CHANNEL_CONTROL, "24000000");
  tester_write_hex (self, MI_CHANNEL_AUTH, "0000000b0100");
  tester_expect (self, "< 0019 00000101");
  tester_write_hex (self, MI_CHANNEL_AUTH, "010000000000000000000000000000000000");
  tester_expect (self, "< 0019 00000100");
  take_random (self, both + MI_RANDOM_LEN);
  skip_confirm (self);
  g_assert_true (mi_crypto_hkdf_sha256 (token, MI_TOKEN_LEN, both, sizeof both,
                                        (const guint8 *) info, strlen (info), keys, sizeof keys,
                                        NULL));
  g_assert_true (mi_crypto_hmac_sha256 (keys + 16, 16, both, sizeof both, proof, NULL));
  say_confirm (self, proof);
}

/* Telink OTA */

void
tester_ota_start (Tester *self)
{
  tester_write_hex (self, MI_CHANNEL_OTA, "00ff");
  tester_write_hex (self, MI_CHANNEL_OTA, "01ff");
}

void
tester_ota_blocks (Tester *self, const guint8 *image, gsize len, guint first, guint last)
{
  for (guint i = first; i < last; i++)
    {
      guint8 packet[20];
      gsize n = MIN (BLOCK_LEN, len - i * BLOCK_LEN);

      memset (packet, 0xff, sizeof packet);
      mi_put_u16 (packet, (guint16) i);
      memcpy (packet + 2, image + i * BLOCK_LEN, n);
      mi_put_u16 (packet + 18, mi_crc16_modbus (packet, 18));
      tester_write (self, MI_CHANNEL_OTA, packet, sizeof packet);
    }
}

void
tester_ota_end (Tester *self, guint blocks)
{
  guint8 end[6] = { 0x02, 0xff };

  mi_put_u16 (end + 2, (guint16) (blocks - 1));
  mi_put_u16 (end + 4, (guint16) ~(blocks - 1));
  tester_write (self, MI_CHANNEL_OTA, end, sizeof end);
}
