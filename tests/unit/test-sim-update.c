/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "images.h"
#include "sim-tester.h"
#include "vectors.h"

#include <glib/gstdio.h>
#include <string.h>

/* Devices of the vectors: no Mi service, so that an upload needs no login. */
#define OPEN       "Model=LYWSD03MMC\nAuthVersion=0\n"
#define BANK1      0x20000u
#define IMAGE_LEN  4100u
#define HASHED_LEN 4112u
#define BLOCKS     257u
#define LINK_MS    10000

/* --- Telink OTA: the vectors --- */

typedef struct
{
  Tester *tester;
  GByteArray *image;
  guint8 *file; /* what is uploaded */
  gsize len;
  guint blocks;
} Upload;

static void
upload_all (Upload *upload)
{
  tester_ota_start (upload->tester);
  tester_ota_blocks (upload->tester, upload->file, upload->len, 0, upload->blocks);
  tester_ota_end (upload->tester, upload->blocks);
}

static void
play_good (Upload *u)
{
  upload_all (u);
  tester_settle (u->tester, LINK_MS);
}

static void
play_repeated (Upload *u)
{
  tester_ota_start (u->tester);
  tester_ota_blocks (u->tester, u->file, u->len, 0, 5);
  tester_ota_blocks (u->tester, u->file, u->len, 4, u->blocks);
  tester_ota_end (u->tester, u->blocks);
}

static void
play_missing (Upload *u)
{
  tester_ota_start (u->tester);
  tester_ota_blocks (u->tester, u->file, u->len, 0, 3);
  tester_ota_blocks (u->tester, u->file, u->len, 4, 5);
}

static void
play_bad_crc16 (Upload *u)
{
  tester_ota_start (u->tester);
  tester_ota_blocks (u->tester, u->file, u->len, 0, 3);
  tester_write_hex (u->tester, MI_CHANNEL_OTA, "0300000000000000000000000000000000000000");
}

static void
play_short_block (Upload *u)
{
  tester_ota_start (u->tester);
  tester_ota_blocks (u->tester, u->file, u->len, 0, 3);
  tester_write_hex (u->tester, MI_CHANNEL_OTA, "03000000000000000000000000000000000000");
}

static void
play_other_last (Upload *u)
{
  tester_ota_start (u->tester);
  tester_ota_blocks (u->tester, u->file, u->len, 0, u->blocks);
  tester_ota_end (u->tester, u->blocks - 1);
}

static void
play_broken_complement (Upload *u)
{
  tester_ota_start (u->tester);
  tester_ota_blocks (u->tester, u->file, u->len, 0, u->blocks);
  tester_write_hex (u->tester, MI_CHANNEL_OTA, "02ff00000000");
}

static void
play_short_end (Upload *u)
{
  tester_ota_start (u->tester);
  tester_ota_blocks (u->tester, u->file, u->len, 0, u->blocks);
  tester_write_hex (u->tester, MI_CHANNEL_OTA, "02ff");
}

static void
play_last_missing (Upload *u)
{
  tester_ota_start (u->tester);
  tester_ota_blocks (u->tester, u->file, u->len, 0, u->blocks - 1);
  tester_ota_end (u->tester, u->blocks);
}

static void
play_bad_crc32 (Upload *u)
{
  u->file[0x200] ^= 1;
  upload_all (u);
}

static void
play_timer (Upload *u)
{
  tester_ota_start (u->tester);
  tester_ota_blocks (u->tester, u->file, u->len, 0, 8);
  tester_tick (u->tester, 30000);
}

static void
play_link_lost (Upload *u)
{
  tester_ota_start (u->tester);
  tester_ota_blocks (u->tester, u->file, u->len, 0, 98);
  tester_disconnect (u->tester);
}

static void
play_again (Upload *u)
{
  play_link_lost (u);
  tester_settle (u->tester, LINK_MS);
  tester_connect (u->tester, 20);
  upload_all (u);
}

static void
play_no_start (Upload *u)
{
  tester_ota_blocks (u->tester, u->file, u->len, 0, u->blocks);
  tester_ota_end (u->tester, u->blocks);
}

typedef enum
{
  FILE_PLAIN,
  FILE_SIGNED,
} FileKind;

static const struct
{
  const char *name;
  void (*play) (Upload *upload);
  FileKind kind;
  const char *config;
} scripts[] = {
  { "good update", play_good, FILE_PLAIN, NULL },
  { "block repeated", play_repeated, FILE_PLAIN, NULL },
  { "block missing", play_missing, FILE_PLAIN, NULL },
  { "CRC-16 wrong", play_bad_crc16, FILE_PLAIN, NULL },
  { "block of 19 bytes", play_short_block, FILE_PLAIN, NULL },
  { "end with another last index", play_other_last, FILE_PLAIN, NULL },
  { "end with a broken complement: index not checked", play_broken_complement, FILE_PLAIN, NULL },
  { "end of 2 bytes", play_short_end, FILE_PLAIN, NULL },
  { "last block missing", play_last_missing, FILE_PLAIN, NULL },
  { "image CRC-32 wrong", play_bad_crc32, FILE_PLAIN, NULL },
  { "packet timer", play_timer, FILE_PLAIN, NULL },
  { "link lost in the middle", play_link_lost, FILE_PLAIN, NULL },
  { "started again after a lost link", play_again, FILE_PLAIN, NULL },
  { "no start command", play_no_start, FILE_PLAIN, NULL },
  { "image with trailing signature", upload_all, FILE_SIGNED, NULL },
  { "image with trailing signature, device that counts blocks by the header", upload_all,
    FILE_SIGNED, "CountsBlocks=true\n" },
  { "signed image, device that checks signatures", upload_all, FILE_SIGNED, "Enforce=true\n" },
  { "unsigned image, device that checks signatures", upload_all, FILE_PLAIN, "Enforce=true\n" },
};

/* The trailer of the signed image in image.json, for another body: new CRC and new signature. */
static void
sign (GByteArray *file)
{
  JsonObject *vectors = vectors_load ("image");
  JsonArray *synthetic = json_object_get_array_member (vectors, "synthetic");
  JsonObject *vector = NULL;
  g_autofree guint8 *key = NULL;
  g_autofree guint8 *example = NULL;
  g_autoptr (GByteArray) der = NULL;
  guint8 signature[64];
  gsize key_len, len, tag_len, certificates_len;

  for (guint i = 0; i < json_array_get_length (synthetic) && vector == NULL; i++)
    {
      vector = json_array_get_object_element (synthetic, i);
      if (!g_str_equal (json_object_get_string_member (vector, "name"), "signed"))
        vector = NULL;
    }
  example = vectors_bytes (vector, "data", &len);
  key = vectors_bytes (json_object_get_object_member (vectors, "signer"), "private", &key_len);
  tag_len = mi_get_u16 (example + IMAGE_LEN + 16);
  certificates_len = mi_get_u16 (example + IMAGE_LEN + 24);
  g_byte_array_append (file, example + IMAGE_LEN, (guint) tag_len);
  mi_put_u32 (file->data + file->len - 4, mi_crc32 (0, file->data, file->len - 4));
  g_assert_true (mi_ecdsa_sign (key, file->data, file->len, signature, NULL));
  g_byte_array_append (file, example + IMAGE_LEN + tag_len, (guint) certificates_len);
  der = images_signature_der (signature);
  g_byte_array_append (file, der->data, der->len);
  while (file->len % 16 != 0)
    g_byte_array_append (file, (const guint8 *) "\xff", 1);
}

static char *
image_root (void)
{
  JsonObject *root = json_object_get_object_member (vectors_load ("image"), "root");

  return g_strdup_printf ("ImageRootKey=%s\n", json_object_get_string_member (root, "public"));
}

static void
upload_init (Upload *upload, const char *config, FileKind kind)
{
  g_autofree char *root = image_root ();
  g_autofree char *text = g_strconcat (OPEN, root, config, NULL);
  g_autoptr (GByteArray) running = images_build (IMAGE_LEN, 11, 0, 0, 0);

  upload->image = images_build (IMAGE_LEN, 13, 0, 0, 0);
  if (kind == FILE_SIGNED)
    sign (upload->image);
  upload->file = upload->image->data;
  upload->len = upload->image->len;
  upload->blocks = (upload->image->len + 15) / 16;
  upload->tester = tester_new (text);
  sim_device_set_image (upload->tester->device, running->data, running->len);
  tester_connect (upload->tester, 20);
}

static void
upload_clear (Upload *upload)
{
  tester_free (upload->tester);
  g_byte_array_unref (upload->image);
}

/* The vectors' names of the device's events, as ours; a restart beyond their end is not theirs. */
static char *
expected_events (JsonObject *vector)
{
  JsonArray *events = json_object_get_array_member (vector, "events");
  g_autoptr (GString) text = g_string_new (NULL);

  for (guint i = 0; i < json_array_get_length (events); i++)
    {
      JsonArray *event = json_array_get_array_element (events, i);
      const char *name = json_array_get_string_element (event, 0);

      if (i > 0)
        g_string_append_c (text, ' ');
      if (g_str_equal (name, "ota-result"))
        g_string_append_printf (text, "ota-end:%d", (int) json_array_get_int_element (event, 1));
      else
        g_string_append (text, g_str_equal (name, "ota-frozen") ? "frozen" : name);
    }
  return g_string_free (g_steal_pointer (&text), FALSE);
}

static void
check_flags (Tester *tester, JsonObject *vector)
{
  JsonObject *flags = json_object_get_object_member (vector, "boot_flags");
  gsize size;
  const guint8 *flash = sim_device_get_flash (tester->device, &size);
  g_autofree char *bank0 = mi_hex_encode (flash + 8, 4);
  g_autofree char *bank1 = mi_hex_encode (flash + BANK1 + 8, 4);
  g_autofree char *hash
      = g_compute_checksum_for_data (G_CHECKSUM_SHA256, flash + BANK1, HASHED_LEN);

  g_assert_cmpstr (bank0, ==, json_object_get_string_member (flags, "bank0"));
  g_assert_cmpstr (bank1, ==, json_object_get_string_member (flags, "bank1"));
  g_assert_cmpstr (hash, ==, json_object_get_string_member (vector, "bank1_sha256"));
}

static char *
events_without_links (Tester *tester)
{
  g_autofree char *events = tester_events (tester);
  g_auto (GStrv) words = g_strsplit (events, " disconnect", -1);

  return g_strjoinv ("", words);
}

static void
test_ota_vector (gconstpointer data)
{
  JsonObject *vector = (JsonObject *) data;
  const char *name = json_object_get_string_member (vector, "name");
  g_autofree char *expected = expected_events (vector);
  g_autofree char *events = NULL;
  Upload upload = { 0 };
  gsize i = 0;

  while (i < G_N_ELEMENTS (scripts) && !g_str_equal (scripts[i].name, name))
    i++;
  g_assert_cmpuint (i, <, G_N_ELEMENTS (scripts));
  upload_init (&upload, scripts[i].config, scripts[i].kind);
  scripts[i].play (&upload);
  events = events_without_links (upload.tester);
  g_assert_cmpstr (events, ==, expected);
  check_flags (upload.tester, vector);
  /* and what the device really boots, whatever happened */
  sim_device_battery (upload.tester->device, upload.tester->now);
  tester_settle (upload.tester, LINK_MS);
  g_assert_cmpint (sim_device_get_running (upload.tester->device), ==,
                   json_object_get_int_member (vector, "boots"));
  upload_clear (&upload);
}

/* --- Telink OTA: what no vector has --- */

static GByteArray *
stock_image (const char *version)
{
  return images_build_text (IMAGE_LEN, 0, 0, version, "mible-login-info", NULL);
}

static void
update (Tester *tester, GByteArray *image)
{
  guint blocks = (image->len + 15) / 16;

  tester_connect (tester, 20);
  tester_ota_start (tester);
  tester_ota_blocks (tester, image->data, image->len, 0, blocks);
  tester_ota_end (tester, blocks);
  tester_settle (tester, LINK_MS);
}

static void
assert_read (Tester *tester, guint16 channel, const char *expected)
{
  g_autofree char *text = tester_read_text (tester, channel);

  g_assert_cmpstr (text, ==, expected);
}

static void
test_banks_alternate (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=MHO-C122\n");
  g_autoptr (GByteArray) first = images_build (IMAGE_LEN, 1, 0, 0, 0);
  g_autoptr (GByteArray) second = images_build (IMAGE_LEN, 2, 0, 0, 0);

  update (tester, first);
  g_assert_cmpuint (sim_device_get_running (tester->device), ==, BANK1);
  update (tester, second);
  g_assert_cmpuint (sim_device_get_running (tester->device), ==, 0);
}

static void
test_large_device_uses_the_upper_bank (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=MJWSD05MMC\nAuthVersion=0\n");
  g_autoptr (GByteArray) image = images_build (140004, 1, 0, 0, 0);

  update (tester, image);
  g_assert_cmpuint (sim_device_get_running (tester->device), ==, 0x40000);
}

static void
test_restart_takes_its_time (void)
{
  g_autoptr (Tester) tester = tester_new (OPEN);
  g_autoptr (GByteArray) image = stock_image ("1.0.0_0131");
  g_autoptr (GError) error = NULL;

  tester_connect (tester, 20);
  tester_ota_start (tester);
  tester_ota_blocks (tester, image->data, image->len, 0, BLOCKS);
  tester_ota_end (tester, BLOCKS);
  tester_tick (tester, 1900);
  g_assert_true (sim_device_is_connected (tester->device));
  tester_tick (tester, 200);
  g_assert_false (sim_device_is_connected (tester->device));
  g_assert_cmpuint (tester->reason, ==, 0x13);
  g_assert_false (sim_device_connect (tester->device, tester->now, 20, &error));
  tester_tick (tester, 1900); /* 4 s after the end at most */
  tester_connect (tester, 20);
  assert_read (tester, MI_CHANNEL_FIRMWARE, "1.0.0_0131");
}

static void
test_stock_wants_a_login (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=LYWSD03MMC\n"
                                          "Token=000102030405060708090a0b\n");
  static const guint8 token[MI_TOKEN_LEN] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 };
  g_autoptr (GByteArray) image = stock_image ("1.0.0_0131");
  g_autofree char *events = NULL;

  update (tester, image);
  events = tester_events (tester);
  g_assert_cmpstr (events, ==, "");
  tester_login (tester, token);
  tester_ota_start (tester);
  tester_ota_blocks (tester, image->data, image->len, 0, BLOCKS);
  tester_ota_end (tester, BLOCKS);
  tester_settle (tester, LINK_MS);
  g_assert_cmpstr (sim_device_get_version (tester->device), ==, "1.0.0_0131");
}

static void
test_code_is_read_back (void)
{
  g_autoptr (Tester) tester = tester_new (OPEN "Faults=status@2:3\n");
  g_autoptr (GByteArray) image = stock_image ("1.0.0_0131");
  g_autofree char *first = NULL, *second = NULL, *third = NULL, *events = NULL;

  tester_connect (tester, 20);
  tester_ota_start (tester);
  tester_ota_blocks (tester, image->data, image->len, 0, 8);
  first = tester_read (tester, MI_CHANNEL_OTA);
  second = tester_read (tester, MI_CHANNEL_OTA);
  third = tester_read (tester, MI_CHANNEL_OTA);
  events = tester_events (tester);
  g_assert_cmpstr (first, ==, "00");
  g_assert_cmpstr (second, ==, "03");
  g_assert_cmpstr (third, ==, "03");
  g_assert_cmpstr (events, ==, "ota-start ota-end:3");
}

static void
test_too_large_fails_to_write (void)
{
  g_autoptr (Tester) tester = tester_new (OPEN "Limit=0x2000\n");
  g_autoptr (GByteArray) image = images_build (0x2004, 1, 0, 0, 0);
  g_autofree char *events = NULL, *later = NULL;

  tester_connect (tester, 20);
  tester_ota_start (tester);
  tester_ota_blocks (tester, image->data, image->len, 0, 0x200);
  events = tester_events (tester);
  g_assert_cmpstr (events, ==, "ota-start");
  tester_ota_blocks (tester, image->data, image->len, 0x200, 0x201);
  later = tester_events (tester);
  g_assert_cmpstr (later, ==, "ota-start ota-end:3");
}

/* Whatever the moment of the power cut, the old firmware is there and the next update works. */
static void
test_power_cut_everywhere (void)
{
  g_autoptr (GByteArray) image = stock_image ("1.0.0_0131");

  for (guint packet = 1; packet <= BLOCKS + 3; packet++)
    {
      g_autofree char *config = g_strdup_printf (OPEN "Faults=>reboot@%u\n", packet);
      g_autoptr (Tester) tester = tester_new (config);

      tester_connect (tester, 20);
      for (guint i = 0; i < BLOCKS + 3 && sim_device_is_connected (tester->device); i++)
        {
          if (i < 2)
            tester_write_hex (tester, MI_CHANNEL_OTA, i == 0 ? "00ff" : "01ff");
          else if (i < BLOCKS + 2)
            tester_ota_blocks (tester, image->data, image->len, i - 2, i - 1);
          else
            tester_ota_end (tester, BLOCKS);
        }
      g_assert_true (tester->dropped);
      tester_settle (tester, LINK_MS);
      g_assert_cmpstr (sim_device_get_version (tester->device), ==, "1.0.0_0130");
      update (tester, image);
      g_assert_cmpstr (sim_device_get_version (tester->device), ==, "1.0.0_0131");
    }
}

static void
test_freeze_ends_with_the_battery (void)
{
  g_autoptr (Tester) tester = tester_new (OPEN "Enforce=true\n");
  g_autoptr (GByteArray) image = stock_image ("1.0.0_0131");
  g_autoptr (GError) error = NULL;
  SimAdvert advert;

  update (tester, image);
  g_assert_true (tester->dropped); /* by the supervision timeout */
  g_assert_cmpuint (tester->reason, ==, 0x08);
  g_assert_false (sim_device_get_advert (tester->device, tester->now, &advert));
  g_assert_false (sim_device_connect (tester->device, tester->now, 20, &error));
  sim_device_battery (tester->device, tester->now);
  tester_settle (tester, LINK_MS);
  tester_connect (tester, 20);
  assert_read (tester, MI_CHANNEL_FIRMWARE, "1.0.0_0130");
}

static void
test_reject_may_restart (void)
{
  g_autoptr (Tester) tester = tester_new (OPEN "Enforce=true\nOnReject=restart\n");
  g_autoptr (GByteArray) image = stock_image ("1.0.0_0131");

  update (tester, image);
  g_assert_cmpuint (tester->reason, ==, 0x13);
  tester_connect (tester, 20);
  assert_read (tester, MI_CHANNEL_FIRMWARE, "1.0.0_0130");
}

static void
test_other_product_is_refused (void)
{
  g_autofree char *root = image_root ();
  g_autofree char *config
      = g_strconcat (OPEN, root, "Enforce=true\nOnReject=restart\nProductId=0387\n", NULL);
  g_autoptr (Tester) tester = tester_new (config);
  g_autoptr (GByteArray) image = images_build (IMAGE_LEN, 13, 0, 0, 0);

  sign (image);
  update (tester, image);
  g_assert_cmpuint (sim_device_get_running (tester->device), ==, 0);
}

/* An envelope's trailer has a valid chain and a signature over other bytes. */
static void
test_envelope (void)
{
  g_autofree char *root = image_root ();

  for (int accepted = 0; accepted < 2; accepted++)
    {
      g_autofree char *config = g_strconcat (OPEN, root, "Enforce=true\nOnReject=restart\n",
                                             accepted ? "AcceptEnvelope=true\n" : NULL, NULL);
      g_autoptr (Tester) tester = tester_new (config);
      g_autoptr (GByteArray) image = images_build (IMAGE_LEN, 13, 0, 0, 0);

      sign (image);
      image->data[0x200] ^= 1;
      images_fix_crc (image);
      update (tester, image);
      g_assert_cmpuint (sim_device_get_running (tester->device), ==, accepted ? BANK1 : 0);
    }
}

/* --- What a device is after booting (contract) --- */

static guint
auth_version (Tester *tester)
{
  g_autofree char *text = sim_device_get_state_json (tester->device);
  g_autoptr (JsonNode) state = json_from_string (text, NULL);

  return (guint) json_object_get_int_member (json_node_get_object (state), "auth_version");
}

static void
test_boots_old_stock (void)
{
  g_autoptr (Tester) tester = tester_new (OPEN);
  g_autoptr (GByteArray) image = stock_image ("1.0.0_0131");

  update (tester, image);
  g_assert_cmpuint (auth_version (tester), ==, 1);
  tester_connect (tester, 20);
  assert_read (tester, MI_CHANNEL_VERSION, "1.0.0_0131");
  assert_read (tester, MI_CHANNEL_SOFTWARE, "0131");
}

static void
test_boots_signed_stock (void)
{
  g_autofree char *root = image_root ();
  g_autofree char *config = g_strconcat (OPEN, root, NULL);
  g_autoptr (Tester) tester = tester_new (config);
  g_autoptr (GByteArray) image = images_build (IMAGE_LEN, 13, 0, 0, 0);

  sign (image);
  update (tester, image);
  g_assert_cmpstr (sim_device_get_version (tester->device), ==, "2.1.1_0159");
}

/* 2.1.1 enforces although the firmware before it did not. */
static void
test_new_stock_enforces (void)
{
  g_autoptr (Tester) tester = tester_new (OPEN "Token=000102030405060708090a0b\n");
  static const guint8 token[MI_TOKEN_LEN] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 };
  g_autoptr (GByteArray) image = stock_image ("2.1.1_0159");
  g_autofree char *events = NULL;

  update (tester, image);
  g_assert_cmpuint (auth_version (tester), ==, 2);
  tester_connect (tester, 20);
  tester_login (tester, token);
  tester_ota_start (tester);
  tester_ota_blocks (tester, image->data, image->len, 0, BLOCKS);
  tester_ota_end (tester, BLOCKS);
  events = events_without_links (tester);
  g_assert_cmpstr (events, ==, "ota-start ota-end:0 reboot login ota-start frozen");
}

static gboolean
has_channel (Tester *tester, guint16 channel)
{
  guint n;
  const SimCharacteristic *table = sim_device_get_gatt (tester->device, &n);

  for (guint i = 0; i < n; i++)
    if (table[i].channel == channel)
      return TRUE;
  return FALSE;
}

static void
test_boots_custom_and_back (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=LYWSD03MMC\nToken=000102030405060708090a0b\n"
                                          "BindKey=00112233445566778899aabbccddeeff\n");
  static const guint8 token[MI_TOKEN_LEN] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 };
  g_autoptr (GByteArray) custom
      = images_build_text (IMAGE_LEN, IMAGES_CUSTOM, 0x020a, "github.com/pvvx", "V5.8", NULL);
  g_autoptr (GByteArray) stock = stock_image ("1.0.0_0130");
  SimAdvert advert;

  tester_connect (tester, 20);
  tester_login (tester, token);
  tester_ota_start (tester);
  tester_ota_blocks (tester, custom->data, custom->len, 0, BLOCKS);
  tester_ota_end (tester, BLOCKS);
  tester_settle (tester, LINK_MS);
  g_assert_false (has_channel (tester, MI_CHANNEL_CONTROL));
  g_assert_true (has_channel (tester, MI_CHANNEL_EXTENDED));
  g_assert_true (sim_device_get_advert (tester->device, tester->now, &advert));
  g_assert_cmpstr (advert.name, ==, "ATC_000001");
  g_assert_cmphex (advert.uuid, ==, 0x181a);
  tester_connect (tester, 20);
  assert_read (tester, MI_CHANNEL_SOFTWARE, "V5.8");
  tester_disconnect (tester);
  update (tester, stock);
  g_assert_true (has_channel (tester, MI_CHANNEL_CONTROL));
  tester_connect (tester, 20);
  tester_login (tester, token); /* registered keys survive */
}

static void
test_unknown_image_changes_the_answer (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=MHO-C122\n");
  g_autoptr (GByteArray) image = images_build (IMAGE_LEN, 1, 0, 0, 0);

  update (tester, image);
  g_assert_true (g_str_has_prefix (sim_device_get_version (tester->device), "unknown-"));
  g_assert_cmpuint (auth_version (tester), ==, 0); /* as before */
}

/* Only the models data know what this is. */
static void
test_known_image_has_its_version (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=MHO-C122\n");
  g_autoptr (GByteArray) image = images_build (IMAGE_LEN, 1, 0, 0, 0);
  g_autofree char *hash = g_compute_checksum_for_data (G_CHECKSUM_SHA256, image->data, image->len);
  g_autofree char *text
      = g_strdup_printf ("[image known]\nSha256=%s\nVersion=3.4.5_0006\nModels=MHO-C122\n", hash);
  g_autoptr (GPtrArray) problems = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (MiModels) models = mi_models_new ();

  g_assert_true (g_key_file_load_from_data (file, text, strlen (text), G_KEY_FILE_NONE, NULL));
  mi_models_add_key_file (models, file, "test", problems);
  g_assert_cmpuint (problems->len, ==, 0);
  sim_device_set_models (tester->device, models);
  update (tester, image);
  g_assert_cmpstr (sim_device_get_version (tester->device), ==, "3.4.5_0006");
  sim_device_set_models (tester->device, NULL);
}

static void
test_state_is_in_the_flash_file (void)
{
  g_autofree char *folder = g_dir_make_tmp ("sim-update-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (folder, "flash", NULL);
  g_autofree char *config = g_strdup_printf (OPEN "FlashFile=%s\n", path);
  g_autoptr (GByteArray) image = images_build (IMAGE_LEN, 1, 0, 0, 0);
  g_autoptr (Tester) again = NULL;
  g_autofree char *version = NULL;

  {
    g_autoptr (Tester) tester = tester_new (config);

    update (tester, image);
    version = g_strdup (sim_device_get_version (tester->device));
  }
  again = tester_new (config);
  g_assert_cmpuint (sim_device_get_running (again->device), ==, BANK1);
  g_assert_cmpstr (sim_device_get_version (again->device), ==, version);
  g_unlink (path);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
}

/* --- Extended OTA of custom firmware (protocol/ota-telink.md section 8) --- */

static void
test_extended (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=LYWSD03MMC\nFirmware=V5.8\n");
  g_autoptr (GByteArray) image = images_build (140004, 1, 0, 0, 0);
  guint blocks = (image->len + 15) / 16;
  g_autofree char *last = NULL;
  guint erased = 0;

  tester_connect (tester, 20);
  tester_write_hex (tester, MI_CHANNEL_EXTENDED, "730000040001000000");
  tester_expect (tester, "< 1f1f 73fe0000040001000000"); /* 1 KiB is too small */
  tester_write_hex (tester, MI_CHANNEL_EXTENDED, "73000004008c000000");
  tester_expect (tester, "< 1f1f 7302000004008c000000");
  for (;;)
    {
      last = tester_next_line (tester, 1000);
      g_assert_nonnull (last);
      if (!g_str_has_prefix (last, "< 1f1f 7304"))
        break;
      erased++;
      g_clear_pointer (&last, g_free);
    }
  g_assert_cmpstr (last, ==, "< 1f1f 7303000004008c000000");
  g_assert_cmpuint (erased, ==, 36);
  tester_ota_start (tester);
  tester_ota_blocks (tester, image->data, image->len, 0, blocks);
  tester_ota_end (tester, blocks);
  tester_settle (tester, LINK_MS);
  g_assert_cmpuint (sim_device_get_running (tester->device), ==, 0x40000);
}

int
main (int argc, char **argv)
{
  JsonObject *device;
  JsonArray *cases;

  g_test_init (&argc, &argv, NULL);
  device = json_object_get_object_member (vectors_load ("ota_telink"), "device");
  cases = json_object_get_array_member (device, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *vector = json_array_get_object_element (cases, i);
      g_autofree char *path
          = vectors_path ("/sim/ota", json_object_get_string_member (vector, "name"));

      g_test_add_data_func (path, vector, test_ota_vector);
    }
  g_test_add_func ("/sim/ota/banks-alternate", test_banks_alternate);
  g_test_add_func ("/sim/ota/large-images-go-to-0x40000", test_large_device_uses_the_upper_bank);
  g_test_add_func ("/sim/ota/the-link-drops-after-2-s-and-returns-by-4",
                   test_restart_takes_its_time);
  g_test_add_func ("/sim/ota/stock-firmware-ignores-it-without-a-login", test_stock_wants_a_login);
  g_test_add_func ("/sim/ota/a-code-is-read-back", test_code_is_read_back);
  g_test_add_func ("/sim/ota/what-passes-the-bank-is-not-written", test_too_large_fails_to_write);
  g_test_add_func ("/sim/ota/a-power-cut-anywhere-leaves-the-old-firmware",
                   test_power_cut_everywhere);
  g_test_add_func ("/sim/ota/an-unsigned-image-freezes-until-the-battery-was-out",
                   test_freeze_ends_with_the_battery);
  g_test_add_func ("/sim/ota/an-unsigned-image-may-restart", test_reject_may_restart);
  g_test_add_func ("/sim/ota/an-image-signed-for-another-product-is-refused",
                   test_other_product_is_refused);
  g_test_add_func ("/sim/ota/an-envelope-is-taken-only-where-it-is-told", test_envelope);
  g_test_add_func ("/sim/ota/prepared-area-takes-larger-images", test_extended);
  g_test_add_func ("/sim/boot/old-stock-is-version-1", test_boots_old_stock);
  g_test_add_func ("/sim/boot/a-tag-names-the-version", test_boots_signed_stock);
  g_test_add_func ("/sim/boot/new-stock-is-version-2-and-enforces", test_new_stock_enforces);
  g_test_add_func ("/sim/boot/custom-has-no-mi-service", test_boots_custom_and_back);
  g_test_add_func ("/sim/boot/an-unknown-image-changes-the-answer",
                   test_unknown_image_changes_the_answer);
  g_test_add_func ("/sim/boot/a-known-image-has-its-version", test_known_image_has_its_version);
  g_test_add_func ("/sim/boot/the-flash-file-remembers", test_state_is_in_the_flash_file);
  return g_test_run ();
}
