/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "advert-vectors.h"

#include "mi-advert.h"
#include "mi-bytes.h"
#include "mi-crypto-key.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Without arguments, or with GLib's: the vectors of the project and what they leave out. With a
 * file: its cases alone, as TAP whose names are the ids.
 */

#define SEED 20221

typedef struct
{
  AdvertCheck check;
  JsonObject *item;
} Case;

static const guint16 uuids[]
    = { MI_ADVERT_UUID_MIBEACON, MI_ADVERT_UUID_CUSTOM,  MI_ADVERT_UUID_BTHOME1,
        MI_ADVERT_UUID_BTHOME1E, MI_ADVERT_UUID_BTHOME2, MI_ADVERT_UUID_QINGPING };

/* Key and frame of an LYWSD03MMC (protocol/advertising.md section 3.6). */
static const guint8 address[6] = { 0xa4, 0xc1, 0x38, 0x02, 0x83, 0xf4 };
static const char key_hex[] = "e9ea895fac7cca6d30532432a516f3a8";
static const char frame_hex[] = "58585b0550f4830238c1a495ef58763c26000097e2abb5";

static JsonParser *vectors;

static MiAdvertKey *
new_key (const char *hex)
{
  gsize len = 0;
  g_autofree guint8 *bytes = mi_hex_decode_alloc (hex, &len);

  g_assert_nonnull (bytes);
  return mi_advert_key_new (bytes, len);
}

static MiAdvertStatus
decode_hex (guint16 uuid, const char *hex, MiAdvertKey *key, MiAdvert *out)
{
  gsize len = 0;
  g_autofree guint8 *bytes = mi_hex_decode_alloc (hex, &len);

  g_assert_nonnull (bytes);
  return mi_advert_decode (uuid, address, bytes, len, key, out);
}

static MiAdvertVerdict
filter_hex (MiAdvertFilter *filter, guint16 uuid, const char *hex, MiAdvertKey *key, double seconds)
{
  MiAdvert advert;
  gsize len = 0;
  g_autofree guint8 *bytes = mi_hex_decode_alloc (hex, &len);

  mi_advert_decode (uuid, address, bytes, len, key, &advert);
  return mi_advert_filter_check (filter, &advert, bytes, len, (gint64) (seconds * G_USEC_PER_SEC));
}

/* What holds for every result, whatever came in. */
static void
assert_sound (const MiAdvert *advert)
{
  g_assert_cmpuint (advert->n_readings, <=, MI_ADVERT_READINGS_MAX);
  g_assert_cmpuint (advert->n_objects, <=, MI_ADVERT_READINGS_MAX);
  g_assert_true ((advert->status == MI_ADVERT_STATUS_ERROR)
                 == (advert->error != MI_ADVERT_ERROR_NONE));
  if (advert->status == MI_ADVERT_STATUS_ERROR)
    g_assert_cmpuint (advert->n_readings + advert->n_rejected + advert->n_objects, ==, 0);
  for (guint i = 0; i < advert->n_objects; i++)
    g_assert_cmpuint (advert->objects[i].offset + advert->objects[i].len, <=, MI_ADVERT_DATA_MAX);
  for (guint i = 0; i < advert->n_readings; i++)
    {
      const MiReading *reading = &advert->readings[i];
      double value = mi_reading_get_double (reading);

      g_assert_cmpuint (reading->kind, <, MI_N_READINGS);
      g_assert_cmpuint (reading->ordinal, >=, 1);
      if (reading->kind == MI_READING_TEMPERATURE)
        g_assert_true (value >= -40 && value <= 125);
      if (reading->kind == MI_READING_HUMIDITY || reading->kind == MI_READING_BATTERY)
        g_assert_true (value >= 0 && value <= 100);
      if (mi_reading_kind_is_boolean (reading->kind))
        g_assert_true (reading->value == 0 || reading->value == 1);
    }
}

/* Decodes from a block of exactly @len bytes, so that a read outside is seen; twice, to compare. */
static void
decode_twice (guint16 uuid, const guint8 *from, const guint8 *data, gsize len, MiAdvertKey *key)
{
  g_autofree guint8 *exact = len > 0 ? g_memdup2 (data, len) : NULL;
  MiAdvert first, second;

  mi_advert_decode (uuid, from, exact, len, key, &first);
  assert_sound (&first);
  memset (&second, 0xff, sizeof second);
  mi_advert_decode (uuid, from, exact, len, key, &second);
  g_assert_cmpmem (&first, G_STRUCT_OFFSET (MiAdvert, readings), &second,
                   G_STRUCT_OFFSET (MiAdvert, readings));
  for (guint i = 0; i < first.n_readings; i++)
    g_assert_true (first.readings[i].value == second.readings[i].value
                   && first.readings[i].kind == second.readings[i].kind
                   && first.readings[i].exponent == second.readings[i].exponent);
  if (len <= MI_ADVERT_DATA_MAX)
    {
      MiAdvertFilter filter = { 0 };

      mi_advert_filter_check (&filter, &first, exact, len, 0);
    }
}

static void
test_random_bytes (void)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (SEED);
  g_autoptr (MiAdvertKey) key = new_key (key_hex);
  g_autoptr (MiAdvertKey) old_key = new_key ("b853075158487ca39a5b5ea9");
  guint8 data[300];

  for (guint i = 0; i < 60000; i++)
    {
      gsize len = g_rand_boolean (rand) ? g_rand_int_range (rand, 0, 40)
                                        : g_rand_int_range (rand, 0, sizeof data + 1);
      MiAdvertKey *keys[] = { NULL, key, old_key };

      for (gsize j = 0; j < len; j++)
        data[j] = (guint8) g_rand_int (rand);
      decode_twice (uuids[i % G_N_ELEMENTS (uuids)], g_rand_boolean (rand) ? address : NULL, data,
                    len, keys[g_rand_int_range (rand, 0, 3)]);
    }
}

/* Every vector cut at every place, and with every bit flipped: never more than an error. */
static void
test_damaged_vectors (void)
{
  JsonArray *list = json_object_get_array_member (
      json_node_get_object (json_parser_get_root (vectors)), "vectors");

  for (guint i = 0; i < json_array_get_length (list); i++)
    {
      JsonObject *item = json_array_get_object_element (list, i);
      g_autoptr (GByteArray) data = advert_get_hex (item, "service_data_hex");
      g_autoptr (GByteArray) key_data = advert_get_hex (item, "key_hex");
      g_autoptr (MiAdvertKey) key
          = key_data->len > 0 ? mi_advert_key_new (key_data->data, key_data->len) : NULL;
      guint16 uuid = (guint16) strtoul (json_object_get_string_member (item, "uuid"), NULL, 16);

      for (guint cut = 0; cut < data->len; cut++)
        decode_twice (uuid, NULL, data->data, cut, key);
      for (guint bit = 0; bit < data->len * 8; bit++)
        {
          data->data[bit / 8] ^= 1 << (bit % 8);
          decode_twice (uuid, NULL, data->data, data->len, key);
          data->data[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

static void
test_every_flipped_bit_is_noticed (void)
{
  g_autoptr (MiAdvertKey) key = new_key (key_hex);
  gsize len = 0;
  g_autofree guint8 *frame = mi_hex_decode_alloc (frame_hex, &len);
  MiAdvert advert;

  /* The frame control is not authenticated; all the rest is (section 3.2). */
  for (guint bit = 16; bit < len * 8; bit++)
    {
      frame[bit / 8] ^= 1 << (bit % 8);
      mi_advert_decode (MI_ADVERT_UUID_MIBEACON, address, frame, len, key, &advert);
      g_assert_cmpint (advert.status, ==, MI_ADVERT_STATUS_ERROR);
      g_assert_cmpint (advert.n_readings, ==, 0);
      frame[bit / 8] ^= 1 << (bit % 8);
    }
  g_assert_cmpint (mi_advert_decode (MI_ADVERT_UUID_MIBEACON, address, frame, len, key, &advert),
                   ==, MI_ADVERT_STATUS_OK);
}

static void
test_uniform_bytes (void)
{
  g_autoptr (MiAdvertKey) key = new_key (key_hex);
  guint8 data[1700];

  for (guint value = 0; value < 256; value += value == 0 ? 1 : 127)
    {
      memset (data, (int) value, sizeof data);
      for (guint u = 0; u < G_N_ELEMENTS (uuids); u++)
        for (gsize len = 0; len < sizeof data; len += len < 300 ? 1 : 100)
          {
            decode_twice (uuids[u], address, data, len, NULL);
            decode_twice (uuids[u], NULL, data, len, key);
          }
    }
}

static void
test_longer_than_any_element (void)
{
  guint8 data[MI_ADVERT_DATA_MAX + 1] = { 0x40 };
  MiAdvert advert;

  mi_advert_decode (MI_ADVERT_UUID_BTHOME2, address, data, sizeof data, NULL, &advert);
  g_assert_cmpint (advert.error, ==, MI_ADVERT_ERROR_UNSUPPORTED_FORMAT);
  mi_advert_decode (MI_ADVERT_UUID_BTHOME2, address, data, MI_ADVERT_DATA_MAX, NULL, &advert);
  g_assert_cmpint (advert.status, ==, MI_ADVERT_STATUS_EMPTY);
  g_assert_cmpint (advert.n_readings, ==, 127); /* packet ids of 00 00 */
  g_assert_cmpint (advert.n_objects, ==, 127);
  g_assert_cmpint (advert.readings[126].ordinal, ==, 127);
}

static void
test_split_random (void)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (SEED);

  for (guint i = 0; i < 20000; i++)
    {
      gsize len = g_rand_int_range (rand, 0, 80);
      g_autofree guint8 *data = g_malloc (len + 1);
      g_autofree guint8 *exact = NULL;
      MiAdvertElement element;
      gsize total = 0;

      for (gsize j = 0; j < len; j++)
        data[j]
            = g_rand_int_range (rand, 0, 3) == 0 ? 0x16 : (guint8) g_rand_int_range (rand, 0, 12);
      exact = g_memdup2 (data, len);
      for (MiAdvertSplit split = MI_ADVERT_SPLIT (exact, len);
           mi_advert_split_next (&split, &element);)
        {
          g_assert_true (element.data >= exact && element.data + element.len <= exact + len);
          total += element.len + 4;
        }
      g_assert_cmpuint (total, <=, len);
    }
}

/* 30 devices in turn: the library never holds more than its share, and every frame is read. */
static void
test_keys_take_turns (void)
{
  MiAdvertKey *keys[30];
  MiAdvert advert;

  for (guint i = 0; i < G_N_ELEMENTS (keys); i++)
    keys[i] = new_key (i % 2 == 0 ? key_hex : "e9ea895fac7cca6d30532432a516f3a9");
  for (guint round = 0; round < 3; round++)
    for (guint i = 0; i < G_N_ELEMENTS (keys); i++)
      {
        MiAdvertStatus status = decode_hex (MI_ADVERT_UUID_MIBEACON, frame_hex, keys[i], &advert);

        g_assert_cmpint (status, ==, i % 2 == 0 ? MI_ADVERT_STATUS_OK : MI_ADVERT_STATUS_ERROR);
        g_assert_cmpuint (mi_crypto_key_count_imported (), <=, MI_CRYPTO_KEYS_MAX);
      }
  g_assert_cmpuint (mi_crypto_key_count_imported (), ==, MI_CRYPTO_KEYS_MAX);
  for (guint i = 0; i < G_N_ELEMENTS (keys); i++)
    mi_advert_key_free (keys[i]);
  g_assert_cmpuint (mi_crypto_key_count_imported (), ==, 0);
}

/* One byte of tag and a whole object list: wrong keys of the old scheme are refused. */
static void
test_wrong_old_keys (void)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (SEED);
  const char *hex = "5830b603d28b98c54124f8c3491476757e00000099";
  guint accepted = 0;

  for (guint i = 0; i < 1000; i++)
    {
      guint8 bytes[12];
      g_autoptr (MiAdvertKey) key = NULL;
      gsize len = 0;
      g_autofree guint8 *frame = mi_hex_decode_alloc (hex, &len);
      MiAdvert advert;

      for (guint j = 0; j < sizeof bytes; j++)
        bytes[j] = (guint8) g_rand_int (rand);
      key = mi_advert_key_new (bytes, sizeof bytes);
      mi_advert_decode (MI_ADVERT_UUID_MIBEACON, NULL, frame, len, key, &advert);
      accepted += advert.status != MI_ADVERT_STATUS_ERROR;
      if (advert.status == MI_ADVERT_STATUS_ERROR)
        g_assert_cmpint (advert.error, ==, MI_ADVERT_ERROR_AUTH_FAILED);
    }
  g_assert_cmpuint (accepted, <=, 2);
}

static void
test_reasons (void)
{
  MiAdvert advert;

  /* 999.9 and -273.1 degrees, 100.1 %, an infinite illuminance */
  decode_hex (MI_ADVERT_UUID_MIBEACON,
              "50505b0550f4830238c1a4"
              "0410020f27"
              "04100255f5"
              "061002e903"
              "0548040000807f",
              NULL, &advert);
  g_assert_cmpint (advert.status, ==, MI_ADVERT_STATUS_EMPTY);
  g_assert_cmpint (advert.n_rejected, ==, 4);
  g_assert_cmpint (advert.rejected[0].reason, ==, MI_REJECT_TOO_HIGH);
  g_assert_cmpint (advert.rejected[0].reading.value, ==, 9999);
  g_assert_cmpint (advert.rejected[1].reason, ==, MI_REJECT_TOO_LOW);
  g_assert_cmpint (advert.rejected[1].reading.ordinal, ==, 2);
  g_assert_cmpint (advert.rejected[2].reason, ==, MI_REJECT_TOO_HIGH);
  g_assert_cmpint (advert.rejected[3].reason, ==, MI_REJECT_NOT_FINITE);
}

static void
test_limits_are_inclusive (void)
{
  MiAdvert advert;

  /* -40.00, 125.00, 100.00 %, 100 %, 300.00 and 1200.00 hPa; then one step further each */
  decode_hex (MI_ADVERT_UUID_BTHOME2,
              "400260f002d4300310270164"
              "04307500"
              "04c0d401",
              NULL, &advert);
  g_assert_cmpuint (advert.n_readings, ==, 6);
  g_assert_cmpuint (advert.n_rejected, ==, 0);
  decode_hex (MI_ADVERT_UUID_BTHOME2,
              "40025ff002d5300311270165"
              "042f7500"
              "04c1d401",
              NULL, &advert);
  g_assert_cmpuint (advert.n_readings, ==, 0);
  g_assert_cmpuint (advert.n_rejected, ==, 6);
}

static void
test_voltage_limit_is_of_custom_firmware (void)
{
  MiAdvert advert;

  /* 499 and 500 mV in a pvvx frame, 499 mV in BTHome */
  decode_hex (MI_ADVERT_UUID_CUSTOM, "f4830238c1a4a9066911f30158f70d", NULL, &advert);
  g_assert_null (mi_advert_find (&advert, MI_READING_VOLTAGE));
  g_assert_cmpint (advert.rejected[0].reason, ==, MI_REJECT_TOO_LOW);
  decode_hex (MI_ADVERT_UUID_CUSTOM, "f4830238c1a4a9066911f40158f70d", NULL, &advert);
  g_assert_nonnull (mi_advert_find (&advert, MI_READING_VOLTAGE));
  decode_hex (MI_ADVERT_UUID_BTHOME2, "400cf301", NULL, &advert);
  g_assert_nonnull (mi_advert_find (&advert, MI_READING_VOLTAGE));
}

static void
test_huge_float (void)
{
  MiAdvert advert;
  const MiReading *reading;
  double value;

  /* the largest single, 3.4028235e38 lux */
  decode_hex (MI_ADVERT_UUID_MIBEACON, "50505b0550f4830238c1a4054804ffff7f7f", NULL, &advert);
  g_assert_cmpint (advert.status, ==, MI_ADVERT_STATUS_OK);
  reading = mi_advert_find (&advert, MI_READING_ILLUMINANCE);
  value = mi_reading_get_double (reading);
  g_assert_true (value > 3.402823e38 && value < 3.402824e38);
  /* the same in degrees */
  decode_hex (MI_ADVERT_UUID_MIBEACON, "50505b0550f4830238c1a4014c04ffff7fff", NULL, &advert);
  g_assert_cmpint (advert.n_rejected, ==, 1);
  g_assert_cmpint (advert.rejected[0].reason, ==, MI_REJECT_TOO_LOW);
}

static void
test_values_are_exact (void)
{
  MiAdvert advert;
  const MiReading *reading;

  /* 23.4 as a single is 23.3999996 */
  decode_hex (MI_ADVERT_UUID_MIBEACON, "50505b0550f4830238c1a40148043333bb41", NULL, &advert);
  reading = mi_advert_find (&advert, MI_READING_TEMPERATURE);
  g_assert_cmpint (reading->value, ==, 2340);
  g_assert_cmpint (reading->exponent, ==, -2);
  g_assert_true (mi_reading_get_double (reading) == 23.4);
}

/* The nonce takes the advertiser's address where the frame has none. */
static void
test_no_address_no_nonce (void)
{
  g_autoptr (MiAdvertKey) key = new_key ("872ea1bb02ba9713e885cb054c537368");
  const char *hex = "4858594fef546f0e7450729321010038d74333";
  gsize len = 0;
  g_autofree guint8 *frame = mi_hex_decode_alloc (hex, &len);
  MiAdvert advert;

  mi_advert_decode (MI_ADVERT_UUID_MIBEACON, NULL, frame, len, key, &advert);
  g_assert_cmpint (advert.error, ==, MI_ADVERT_ERROR_NO_KEY);
}

/* Frames of the vector seq-bt2-restart: counters 5000, then 844. */
static void
test_strict_filter (void)
{
  g_autoptr (MiAdvertKey) key = new_key ("231d39c1d7cc1ab1aee224cd096db932");
  static const guint8 sender[6] = { 0x54, 0x48, 0xe6, 0x8f, 0x80, 0xa5 };
  static const char *const frames[] = { "41116b8813000058edda16", "41584c03000000f18ee0f5" };

  for (gint strict = 0; strict < 2; strict++)
    {
      MiAdvertFilter filter = { .strict = strict };
      MiAdvertVerdict verdict = MI_ADVERT_VERDICT_ERROR;

      for (guint i = 0; i < 2; i++)
        {
          MiAdvert advert;
          gsize len = 0;
          g_autofree guint8 *frame = mi_hex_decode_alloc (frames[i], &len);

          mi_advert_decode (MI_ADVERT_UUID_BTHOME2, sender, frame, len, key, &advert);
          verdict
              = mi_advert_filter_check (&filter, &advert, frame, len, i * 3600 * G_USEC_PER_SEC);
        }
      g_assert_cmpint (verdict, ==, strict ? MI_ADVERT_VERDICT_REPLAY : MI_ADVERT_VERDICT_ACCEPT);
    }
}

static void
test_three_failures_are_a_wrong_key (void)
{
  g_autoptr (MiAdvertKey) key = new_key (key_hex);
  g_autoptr (MiAdvertKey) other = new_key ("00112233445566778899aabbccddeeff");
  MiAdvertFilter filter = { 0 };

  for (guint i = 0; i < 3; i++)
    {
      g_assert_false (mi_advert_filter_is_wrong_key (&filter));
      g_assert_cmpint (filter_hex (&filter, MI_ADVERT_UUID_MIBEACON, frame_hex, other, i), ==,
                       MI_ADVERT_VERDICT_ERROR);
    }
  g_assert_true (mi_advert_filter_is_wrong_key (&filter));
  /* An idle frame proves nothing. */
  filter_hex (&filter, MI_ADVERT_UUID_MIBEACON, "30585b0502f4830238c1a408", other, 4);
  g_assert_true (mi_advert_filter_is_wrong_key (&filter));
  g_assert_cmpint (filter_hex (&filter, MI_ADVERT_UUID_MIBEACON, frame_hex, key, 5), ==,
                   MI_ADVERT_VERDICT_ACCEPT);
  g_assert_false (mi_advert_filter_is_wrong_key (&filter));
}

static void
test_new_key_starts_anew (void)
{
  g_autoptr (MiAdvertKey) key = new_key (key_hex);
  MiAdvertFilter filter = { .strict = TRUE };

  filter_hex (&filter, MI_ADVERT_UUID_MIBEACON, frame_hex, key, 0);
  g_assert_cmpint (filter_hex (&filter, MI_ADVERT_UUID_MIBEACON, frame_hex, key, 1), ==,
                   MI_ADVERT_VERDICT_DUPLICATE);
  mi_advert_filter_reset (&filter);
  g_assert_true (filter.strict);
  g_assert_cmpint (filter_hex (&filter, MI_ADVERT_UUID_MIBEACON, frame_hex, key, 2), ==,
                   MI_ADVERT_VERDICT_ACCEPT);
}

static void
test_sibling_does_not_prolong_a_packet_id (void)
{
  MiAdvertFilter filter = { 0 };
  const guint16 uuid = MI_ADVERT_UUID_BTHOME2;

  g_assert_cmpint (filter_hex (&filter, uuid, "400009015d", NULL, 0), ==, MI_ADVERT_VERDICT_ACCEPT);
  g_assert_cmpint (filter_hex (&filter, uuid, "400009015c", NULL, 50), ==,
                   MI_ADVERT_VERDICT_ACCEPT);
  g_assert_cmpint (filter_hex (&filter, uuid, "400009015c", NULL, 59), ==,
                   MI_ADVERT_VERDICT_DUPLICATE);
  g_assert_cmpint (filter_hex (&filter, uuid, "400009015c", NULL, 60), ==,
                   MI_ADVERT_VERDICT_ACCEPT);
  /* 64 steps back at once is late; after four seconds it is a new start. */
  g_assert_cmpint (filter_hex (&filter, uuid, "400049015c", NULL, 64), ==, MI_ADVERT_VERDICT_STALE);
  g_assert_cmpint (filter_hex (&filter, uuid, "400048015c", NULL, 64), ==,
                   MI_ADVERT_VERDICT_ACCEPT);
  g_assert_cmpint (filter_hex (&filter, uuid, "400009015c", NULL, 68.1), ==,
                   MI_ADVERT_VERDICT_ACCEPT);
}

static void
test_identify (void)
{
  static const struct
  {
    guint16 uuid;
    const char *hex, *name, *model;
    gboolean wanted, custom;
  } cases[] = {
    { 0xfe95, "30585b05015a81ed38c1a4280100", NULL, "LYWSD03MMC", TRUE, FALSE },
    { 0xfe95, "30585b05015a81ed38c1a4280100", "LYWSD03MMC", "LYWSD03MMC", TRUE, FALSE },
    { 0xfe95, "3030dd0301ffeeddccbbaa0d", NULL, NULL, FALSE, FALSE },
    { 0xfe95, "30585b", NULL, NULL, FALSE, FALSE },
    { 0x181a, "f4830238c1a4a9066911b60b58f70d", "ATC_0283F4", NULL, TRUE, TRUE },
    { 0x181a, "100b0aa1542cbca1fffff0caf0ca0201", "prst", NULL, FALSE, FALSE },
    { 0xfcd2, "4002c40903bf13", "DIY-sensor", NULL, TRUE, FALSE },
    { 0xfdcd, "080cbf6552342d580104f100ad01020125", NULL, "CGD1", TRUE, FALSE },
    { 0xfdcd, "080cbf", NULL, NULL, FALSE, FALSE },
    { 0x0000, "", "MJ_HT_V1", "LYWSDCGQ", TRUE, FALSE },
    { 0x0000, "", "LYWSD03MMC2", NULL, FALSE, FALSE },
    { 0x0000, "", NULL, NULL, FALSE, FALSE },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      gsize len = 0;
      g_autofree guint8 *data = mi_hex_decode_alloc (cases[i].hex, &len);
      MiAdvertIdentity identity;

      g_assert_true (mi_advert_identify (cases[i].uuid, data, len, cases[i].name, &identity)
                     == cases[i].wanted);
      g_assert_cmpstr (identity.model, ==, cases[i].model);
      g_assert_true (identity.custom_firmware == cases[i].custom);
    }
}

static void
run_case (gconstpointer data)
{
  const Case *self = data;
  g_autofree char *problem = self->check (self->item);

  if (problem != NULL)
    g_test_message ("%s", problem);
  g_assert_null (problem);
}

typedef void (*CaseFunc) (const Case *self, const char *id, gpointer user_data);

/* A case without an id goes by its place. */
static void
visit_case (const AdvertKind *kind, JsonNode *element, guint index, CaseFunc func,
            gpointer user_data)
{
  g_autofree char *place = g_strdup_printf ("%s[%u]", kind->list, index);
  Case self = { kind->check, NULL };
  const char *id = NULL;

  if (JSON_NODE_HOLDS_OBJECT (element))
    self.item = json_node_get_object (element);
  if (self.item != NULL)
    id = advert_get_text (self.item, "id");
  func (&self, id != NULL ? id : place, user_data);
}

/* Calls @func for each case of the file; one without an item stands for a list that is none. */
static void
foreach_case (JsonObject *root, CaseFunc func, gpointer user_data)
{
  for (guint i = 0; i < G_N_ELEMENTS (advert_kinds); i++)
    {
      JsonNode *node = json_object_get_member (root, advert_kinds[i].list);
      const Case none = { advert_kinds[i].check, NULL };
      JsonArray *list;

      if (node == NULL)
        continue;
      if (!JSON_NODE_HOLDS_ARRAY (node))
        {
          func (&none, advert_kinds[i].list, user_data);
          continue;
        }
      list = json_node_get_array (node);
      for (guint j = 0; j < json_array_get_length (list); j++)
        visit_case (&advert_kinds[i], json_array_get_element (list, j), j, func, user_data);
    }
}

static void
register_case (const Case *self, const char *id, gpointer user_data)
{
  g_autofree char *path = g_strdup_printf ("/advert/vectors/%s", id);

  g_assert_nonnull (self->item);
  g_test_add_data_func_full (path, g_memdup2 (self, sizeof *self), run_case, g_free);
}

/* Returns: (transfer full): keeps the cases alive */
static JsonParser *
register_file (const char *path)
{
  JsonParser *parser = json_parser_new ();
  g_autoptr (GError) error = NULL;

  if (!json_parser_load_from_file (parser, path, &error))
    g_error ("%s: set MITHERM_VECTORS to the folder of the vectors", error->message);
  foreach_case (json_node_get_object (json_parser_get_root (parser)), register_case, NULL);
  return parser;
}

typedef struct
{
  guint n;
  guint failed;
} Tally;

/* One line, in which nothing reads as a directive of TAP. */
static char *
tap_text (const char *text)
{
  GString *line = g_string_new (NULL);

  for (const char *c = text; *c != '\0'; c++)
    {
      if (*c == '#' || *c == '\\')
        g_string_append_c (line, '\\');
      g_string_append_c (line, g_ascii_iscntrl (*c) ? ' ' : *c);
    }
  return g_string_free (line, FALSE);
}

static void
report_case (const Case *self, const char *id, gpointer user_data)
{
  Tally *tally = user_data;
  g_autofree char *name = tap_text (id);
  g_autofree char *problem
      = self->item != NULL ? self->check (self->item) : g_strdup ("not what the schema has here");

  tally->n++;
  tally->failed += problem != NULL;
  printf ("%sok %u - %s\n", problem != NULL ? "not " : "", tally->n, name);
  if (problem != NULL)
    {
      g_autofree char *text = tap_text (problem);

      printf ("# %s\n", text);
    }
}

static int
bail_out (const char *why)
{
  g_autofree char *text = tap_text (why);

  printf ("Bail out! %s\n", text);
  return 1;
}

/* The cases of any file of the schema. Returns: exit status */
static int
check_file (const char *path)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) error = NULL;
  Tally tally = { 0 };
  JsonNode *root;

  if (!json_parser_load_from_file (parser, path, &error))
    return bail_out (error->message);
  root = json_parser_get_root (parser);
  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root))
    return bail_out ("the file is no JSON object");
  foreach_case (json_node_get_object (root), report_case, &tally);
  if (tally.n == 0)
    return bail_out ("the file has no vectors, adv_vectors or sequences");
  printf ("1..%u\n", tally.n);
  return tally.failed == 0 ? 0 : 1;
}

static void
add_tests (void)
{
  g_test_add_func ("/advert/random-bytes-are-survived", test_random_bytes);
  g_test_add_func ("/advert/cut-and-flipped-vectors-are-survived", test_damaged_vectors);
  g_test_add_func ("/advert/uniform-bytes-are-survived", test_uniform_bytes);
  g_test_add_func ("/advert/every-flipped-bit-is-noticed", test_every_flipped_bit_is_noticed);
  g_test_add_func ("/advert/longer-than-any-element-is-refused", test_longer_than_any_element);
  g_test_add_func ("/advert/random-elements-stay-inside", test_split_random);
  g_test_add_func ("/advert/keys/take-turns", test_keys_take_turns);
  g_test_add_func ("/advert/keys/wrong-old-ones-are-refused", test_wrong_old_keys);
  g_test_add_func ("/advert/keys/no-address-no-nonce", test_no_address_no_nonce);
  g_test_add_func ("/advert/plausible/reasons-are-told", test_reasons);
  g_test_add_func ("/advert/plausible/limits-are-inclusive", test_limits_are_inclusive);
  g_test_add_func ("/advert/plausible/voltage-limit-is-of-custom-firmware",
                   test_voltage_limit_is_of_custom_firmware);
  g_test_add_func ("/advert/values/huge-float-keeps-its-size", test_huge_float);
  g_test_add_func ("/advert/values/are-exact", test_values_are_exact);
  g_test_add_func ("/advert/filter/strict-never-goes-back", test_strict_filter);
  g_test_add_func ("/advert/filter/three-failures-are-a-wrong-key",
                   test_three_failures_are_a_wrong_key);
  g_test_add_func ("/advert/filter/new-key-starts-anew", test_new_key_starts_anew);
  g_test_add_func ("/advert/filter/sibling-does-not-prolong-a-packet-id",
                   test_sibling_does_not_prolong_a_packet_id);
  g_test_add_func ("/advert/identify/thermometers-are-told-from-others", test_identify);
}

int
main (int argc, char **argv)
{
  const char *folder = g_getenv ("MITHERM_VECTORS");
  g_autofree char *path = NULL, *more_path = NULL;
  g_autoptr (JsonParser) more = NULL;

  for (gint i = 1; i < argc; i++)
    if (argv[i][0] != '-' && !g_str_equal (argv[i - 1], "-p") && !g_str_equal (argv[i - 1], "-s"))
      return check_file (argv[i]);
  g_test_init (&argc, &argv, NULL);
  path = g_build_filename (folder != NULL ? folder : ".", "adverts.json", NULL);
  more_path = g_build_filename (folder != NULL ? folder : ".", "adverts-more.json", NULL);
  vectors = register_file (path);
  if (g_file_test (more_path, G_FILE_TEST_EXISTS)) /* a folder of somebody else has none */
    more = register_file (more_path);
  add_tests ();
  return g_test_run ();
}
