/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-tester.h"

#include <string.h>

#define KEY   "00112233445566778899aabbccddeeff"
#define BOUND "Token=3163fe01c9a233ebd7157a60\nBindKey=" KEY "\n"

static char *
advert_at (Tester *tester, gint64 now_ms, SimAdvert *out)
{
  g_assert_true (sim_device_get_advert (tester->device, now_ms, out));
  return mi_hex_encode (out->data, out->len);
}

/* protocol/advertising.md section 3.8: what units out of the box send, whatever the time. */
static void
test_unbound (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=LYWSD03MMC\nRssi=-71\n");
  SimAdvert advert;

  for (gint64 now = 0; now < 10000; now += 1000)
    {
      g_autofree char *hex = advert_at (tester, now, &advert);

      g_assert_cmpstr (hex, ==, "30585b050101000038c1a4280100");
    }
  g_assert_cmphex (advert.uuid, ==, 0xfe95);
  g_assert_cmpstr (advert.name, ==, "LYWSD03MMC");
  g_assert_cmpint (advert.rssi, ==, -71);
  g_assert_true (advert.connectable);
}

static void
test_bound_alternates (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=LYWSD03MMC\n" BOUND);
  guint idle = 0, sealed = 0;
  int last = -1;

  for (gint64 now = 0; now < 20000; now += 1000)
    {
      SimAdvert advert;
      g_autofree char *hex = advert_at (tester, now, &advert);
      gboolean is_idle = g_str_has_prefix (hex, "30585b05");

      g_assert_cmpint (advert.data[4], >, last); /* one counter for both */
      last = advert.data[4];
      g_assert_true (is_idle || g_str_has_prefix (hex, "58585b05"));
      if (is_idle)
        g_assert_true (g_str_has_suffix (hex, "38c1a408"));
      idle += is_idle;
      sealed += !is_idle;
    }
  g_assert_cmpuint (idle, ==, 10);
  g_assert_cmpuint (sealed, ==, 10);
}

static void
test_registered_bit (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=MJWSD06MMC\nResetButton=true\n" BOUND);
  SimAdvert advert;
  guint seen = 0;

  for (gint64 now = 0; now < 4000; now += 1000)
    {
      g_autofree char *hex = advert_at (tester, now, &advert);

      seen += g_str_has_prefix (hex, "1059b555"); /* 0x5910, idle */
    }
  g_assert_cmpuint (seen, ==, 2);
}

static void
test_silent_while_connected (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=LYWSD03MMC\n");
  SimAdvert advert;

  tester_connect (tester, 20);
  g_assert_false (sim_device_get_advert (tester->device, 0, &advert));
  tester_disconnect (tester);
  g_assert_true (sim_device_get_advert (tester->device, 0, &advert));
}

/* Counters go on after a restart, never back (section 3.9). */
static void
test_counter_survives (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=LYWSD03MMC\nAdvert=bthome-encrypted\n" BOUND);
  SimAdvert advert;
  guint32 before, after;

  g_assert_true (sim_device_get_advert (tester->device, 700000, &advert));
  before = mi_get_u32 (advert.data + advert.len - 8);
  sim_device_battery (tester->device, 700000);
  sim_device_tick (tester->device, 705000);
  g_assert_true (sim_device_get_advert (tester->device, 705000, &advert));
  after = mi_get_u32 (advert.data + advert.len - 8);
  g_assert_cmpuint (before, >, 500);
  g_assert_cmpuint (after, >, before);
}

/* Every format decodes to the values that the device reads out over GATT. */

typedef struct
{
  const char *name;
  guint16 uuid;
  MiAdvertFormat format;
  gboolean sealed;
} Format;

static const Format formats[] = {
  { "mibeacon", 0xfe95, MI_ADVERT_FORMAT_MIBEACON, FALSE },
  { "mibeacon-encrypted", 0xfe95, MI_ADVERT_FORMAT_MIBEACON, TRUE },
  { "atc1441", 0x181a, MI_ADVERT_FORMAT_ATC1441, FALSE },
  { "atc1441-encrypted", 0x181a, MI_ADVERT_FORMAT_ATC1441_ENCRYPTED, TRUE },
  { "pvvx", 0x181a, MI_ADVERT_FORMAT_PVVX, FALSE },
  { "pvvx-encrypted", 0x181a, MI_ADVERT_FORMAT_PVVX_ENCRYPTED, TRUE },
  { "bthome1", 0x181c, MI_ADVERT_FORMAT_BTHOME1, FALSE },
  { "bthome1-encrypted", 0x181e, MI_ADVERT_FORMAT_BTHOME1_ENCRYPTED, TRUE },
  { "bthome", 0xfcd2, MI_ADVERT_FORMAT_BTHOME2, FALSE },
  { "bthome-encrypted", 0xfcd2, MI_ADVERT_FORMAT_BTHOME2, TRUE },
  { "qingping", 0xfdcd, MI_ADVERT_FORMAT_QINGPING, FALSE },
};

/* In hundredths; 0: the reading is not in this frame. */
static gint64
hundredths (const MiAdvert *advert, MiReadingKind kind)
{
  for (guint i = 0; i < advert->n_readings; i++)
    {
      const MiReading *reading = &advert->readings[i];
      gint64 value = reading->value;

      if (reading->kind != kind)
        continue;
      for (int exponent = reading->exponent; exponent < -2; exponent++)
        value /= 10;
      for (int exponent = reading->exponent; exponent > -2; exponent--)
        value *= 10;
      return value;
    }
  return 0;
}

/* The same moment by characteristic ccc1. */
static void
read_values (Tester *tester, gint64 *temperature, gint64 *humidity)
{
  g_autofree char *hex = NULL;
  guint8 value[5];

  tester_connect (tester, 20);
  hex = tester_read (tester, MI_CHANNEL_MEASUREMENT);
  g_assert_true (mi_hex_decode (hex, value, sizeof value));
  *temperature = (gint16) mi_get_u16 (value);
  *humidity = value[2] * 100;
  tester_disconnect (tester);
}

static void
test_decodes (gconstpointer data)
{
  const Format *format = data;
  g_autofree char *config
      = g_strdup_printf ("Model=LYWSD03MMC\nBattery=87\n" BOUND "Advert=%s\n", format->name);
  g_autoptr (Tester) tester = tester_new (config);
  g_autofree MiAdvert *decoded = g_new (MiAdvert, 1);
  g_autoptr (MiAdvertKey) key = NULL;
  guint8 address[6], bytes[MI_BIND_KEY_LEN];
  guint temperatures = 0, humidities = 0, batteries = 0;

  g_assert_true (mi_hex_decode (KEY, bytes, sizeof bytes));
  g_assert_true (mi_address_parse (TESTER_ADDRESS, address));
  key = format->sealed ? mi_advert_key_new (bytes, sizeof bytes) : NULL;
  for (guint i = 0; i < 100; i++)
    {
      gint64 temperature, humidity, got;
      SimAdvert advert;

      tester_tick (tester, 1000);
      g_assert_true (sim_device_get_advert (tester->device, tester->now, &advert));
      g_assert_cmphex (advert.uuid, ==, format->uuid);
      mi_advert_decode (advert.uuid, address, advert.data, advert.len, key, decoded);
      g_assert_cmpint (decoded->status, !=, MI_ADVERT_STATUS_ERROR);
      g_assert_cmpint (decoded->format, ==, format->format);
      read_values (tester, &temperature, &humidity);
      got = hundredths (decoded, MI_READING_TEMPERATURE);
      temperatures += got != 0;
      if (got != 0)
        g_assert_cmpint (ABS (got - temperature), <=, 50);
      got = hundredths (decoded, MI_READING_HUMIDITY);
      humidities += got != 0;
      if (got != 0)
        g_assert_cmpint (ABS (got - humidity), <=, 100);
      got = hundredths (decoded, MI_READING_BATTERY);
      batteries += got != 0;
      if (got != 0)
        g_assert_cmpint (got, ==, 8700);
    }
  g_assert_cmpuint (temperatures, >, 10);
  g_assert_cmpuint (humidities, >, 10);
  g_assert_cmpuint (batteries, >, 3);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/sim-advert/out-of-the-box-it-asks-to-be-bound", test_unbound);
  g_test_add_func ("/sim-advert/bound-it-alternates-idle-and-objects", test_bound_alternates);
  g_test_add_func ("/sim-advert/models-with-a-button-say-registered", test_registered_bit);
  g_test_add_func ("/sim-advert/connected-it-is-silent", test_silent_while_connected);
  g_test_add_func ("/sim-advert/the-counter-goes-on-after-a-restart", test_counter_survives);
  for (gsize i = 0; i < G_N_ELEMENTS (formats); i++)
    {
      g_autofree char *path = g_strconcat ("/sim-advert/decodes/", formats[i].name, NULL);

      g_test_add_data_func (path, &formats[i], test_decodes);
    }
  return g_test_run ();
}
