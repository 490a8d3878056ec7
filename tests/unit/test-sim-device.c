/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-tester.h"
#include "vectors.h"

#include <glib/gstdio.h>
#include <string.h>

#define LYWSD03MMC "Model=LYWSD03MMC\n"
#define BOUND                                                                                      \
  LYWSD03MMC "Token=3163fe01c9a233ebd7157a60\nBindKey=00112233445566778899aabbccddeeff\n"          \
             "Did=blt.3.129vtestaag00\n"
#define LIMIT_MS 30000

static const guint8 test_token[MI_TOKEN_LEN]
    = { 0x31, 0x63, 0xfe, 0x01, 0xc9, 0xa2, 0x33, 0xeb, 0xd7, 0x15, 0x7a, 0x60 };

/*
 * Faults of the vectors. A transcript has the host's lines as the host sent them and the device's
 * as the host received them.
 */
static const struct
{
  const char *file;
  const char *name;
  const char *fault;
} faults[] = {
  { "registration_v1", "fragment 2 of the host's key lost once", ">drop@7" },
  { "registration_v1", "fragment 2 of the device's key lost once", "<drop@7" },
  { "registration_v1", "corrupted DID ciphertext", ">corrupt@14" },
  { "registration_v1", "device's key is no curve point", "<corrupt@9" },
  { "registration_v1", "host's key is no curve point", ">corrupt@9" },
  { "registration_v2", "fragment 3 of the certificate lost once", ">drop@23" },
  { "login", "host confirmation changed on the way", ">corrupt@10" },
  { "login", "fragment of the device's confirmation lost", "<drop@7" },
  { "login", "device's 0x21 lost", "<drop@10" },
  { "framing", "length frame lost", "<drop@2" },
  { "framing", "reply lost", ">drop@3" },
};

static void
arm_fault (Tester *tester, const char *file, const char *name)
{
  for (gsize i = 0; i < G_N_ELEMENTS (faults); i++)
    if (g_str_equal (faults[i].file, file) && g_str_equal (faults[i].name, name))
      g_assert_true (sim_device_arm_fault (tester->device, faults[i].fault, NULL));
}

/* (transfer full): the lines of "wire" */
static GPtrArray *
get_wire (JsonObject *vector)
{
  JsonArray *array = json_object_get_array_member (vector, "wire");
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);

  for (guint i = 0; i < json_array_get_length (array); i++)
    g_ptr_array_add (lines, g_strdup (json_array_get_string_element (array, i)));
  return lines;
}

static void
replay (Tester *tester, GPtrArray *wire)
{
  tester_replay (tester, (const char *const *) (gpointer) wire->pdata, wire->len);
}

static gboolean
wire_has (GPtrArray *wire, const char *line)
{
  return g_ptr_array_find_with_equal_func (wire, line, g_str_equal, NULL);
}

/* What follows @line in the transcript: "< 0019 0100..." without its first 11 characters. */
static void
random_from_wire (Tester *tester, GPtrArray *wire, const char *announce)
{
  for (guint i = 0; i + 2 < wire->len; i++)
    if (g_str_equal (g_ptr_array_index (wire, i), announce))
      {
        const char *line = g_ptr_array_index (wire, i + 2);
        gsize len;
        g_autofree guint8 *data = vectors_hex (line + strlen ("< 0019 0100"), &len);

        tester_random (tester, data, len);
      }
}

static void
random_from_member (Tester *tester, JsonObject *object, const char *member)
{
  gsize len;
  g_autofree guint8 *data = vectors_bytes (object, member, &len);

  tester_random (tester, data, len);
}

/* Registration */

static char *
text_did (JsonObject *vector, const char *member)
{
  gsize len;
  g_autofree guint8 *did = vectors_bytes (vector, member, &len);

  return did != NULL ? mi_did_to_text (did) : NULL;
}

static char *
registration_config (JsonObject *vector, GPtrArray *wire, guint version, const char *root)
{
  const char *name = json_object_get_string_member (vector, "name");
  g_autofree char *did = text_did (vector, "device_did_before");
  GString *text = g_string_new (LYWSD03MMC);

  g_string_append_printf (text, "AuthVersion=%u\n", version);
  if (did != NULL)
    g_string_append_printf (text, "Did=%s\n", did);
  if (root != NULL)
    g_string_append_printf (text, "RootKey=%s\n", root);
  if (g_str_has_prefix (name, "OOB"))
    g_string_append (text, "IoCapability=1\n");
  if (wire_has (wire, "< 0010 e1000000"))
    g_string_append_printf (text, "ResetButton=true\nToken=%s\nBindKey=%s\n",
                            json_object_get_string_member (vector, "token"),
                            json_object_get_string_member (vector, "bind_key"));
  return g_string_free (text, FALSE);
}

static void
check_registration (Tester *tester, JsonObject *vector)
{
  gboolean registered = json_object_get_boolean_member (vector, "device_registered");
  gsize token_len, key_len, did_len;
  g_autofree guint8 *token = vectors_bytes (vector, "token", &token_len);
  g_autofree guint8 *key = vectors_bytes (vector, "bind_key", &key_len);
  g_autofree guint8 *did = vectors_bytes (vector, "device_did_after", &did_len);
  MiKeys keys;

  g_assert_cmpint (sim_device_get_keys (tester->device, &keys), ==, registered);
  if (registered)
    {
      g_assert_cmpmem (keys.token, sizeof keys.token, token, token_len);
      g_assert_cmpmem (keys.bind_key, sizeof keys.bind_key, key, key_len);
    }
  g_assert_cmpint (keys.has_did, ==, did != NULL);
  if (did != NULL)
    g_assert_cmpmem (keys.did, sizeof keys.did, did, did_len);
}

/* Said when nobody waits for it any more. */
static void
expect_verdict (Tester *tester, const char *line)
{
  g_autofree char *last = NULL;

  do
    {
      g_free (last);
      last = tester_next_line (tester, 1000);
      g_assert_nonnull (last);
    }
  while (!g_str_equal (last, line));
}

static void
replay_registration (JsonObject *vector, const char *file, guint version, const char *root)
{
  const char *name = json_object_get_string_member (vector, "name");
  g_autoptr (GPtrArray) wire = get_wire (vector);
  g_autofree char *config = registration_config (vector, wire, version, root);
  g_autoptr (Tester) tester = tester_new (config);

  random_from_member (tester, json_object_get_object_member (vector, "device_key"), "private");
  random_from_wire (tester, wire, "< 0019 0000000d0100");
  arm_fault (tester, file, name);
  tester_connect (tester, wire_has (wire, "< 0019 0000040006f2") ? 244 : 20);
  replay (tester, wire);
  if (g_str_has_prefix (name, "link lost before"))
    tester_expect (tester, "< 0019 00000100"); /* which the host did not live to see */
  else if (g_str_has_prefix (name, "link lost after"))
    expect_verdict (tester, "< 0010 11000000");
  else if (g_str_equal (g_ptr_array_index (wire, wire->len - 1), "> 0010 14000000"))
    expect_verdict (tester, "< 0010 12000000");
  tester_expect_silence (tester, LIMIT_MS);
  tester_disconnect (tester);
  check_registration (tester, vector);
}

static void
test_registration_v1 (gconstpointer data)
{
  replay_registration ((JsonObject *) data, "registration_v1", 1, NULL);
}

static void
test_registration_v2 (gconstpointer data)
{
  JsonObject *root = json_object_get_object_member (vectors_load ("registration_v2"), "root");

  replay_registration ((JsonObject *) data, "registration_v2", 2,
                       json_object_get_string_member (root, "public"));
}

/* Login */

static char *
login_config (JsonObject *vector, GPtrArray *wire)
{
  const char *token = json_object_has_member (vector, "device_token")
                          ? json_object_get_string_member (vector, "device_token")
                          : json_object_get_string_member (vector, "token");

  if (wire_has (wire, "< 0010 e0000000"))
    return g_strdup (LYWSD03MMC);
  return g_strdup_printf (LYWSD03MMC "Token=%s\n", token);
}

/* The transcript has the random as it arrived, with byte 3 inverted on the way. */
static void
undo_change (GPtrArray *wire, const char *random)
{
  guint changed = 0;

  for (guint i = 0; i < wire->len; i++)
    if (g_str_has_prefix (g_ptr_array_index (wire, i), "< 0019 01001558831c"))
      {
        g_free (g_ptr_array_index (wire, i));
        g_ptr_array_index (wire, i) = g_strconcat ("< 0019 0100", random, NULL);
        changed++;
      }
  g_assert_cmpuint (changed, ==, 1);
}

static void
check_login (Tester *tester, JsonObject *vector)
{
  gboolean logged_in = json_object_get_boolean_member (vector, "authorised");
  g_autofree char *text = sim_device_get_state_json (tester->device);
  g_autoptr (JsonNode) state = json_from_string (text, NULL);

  g_assert_cmpint (json_object_get_boolean_member (json_node_get_object (state), "logged_in"), ==,
                   logged_in);
}

static void
test_login (gconstpointer data)
{
  JsonObject *vector = (JsonObject *) data;
  const char *name = json_object_get_string_member (vector, "name");
  g_autoptr (GPtrArray) wire = get_wire (vector);
  g_autofree char *config = login_config (vector, wire);
  g_autoptr (Tester) tester = tester_new (config);

  random_from_member (tester, vector, "device_random");
  arm_fault (tester, "login", name);
  if (g_str_equal (name, "device random changed on the way"))
    undo_change (wire, json_object_get_string_member (vector, "device_random"));
  tester_connect (tester, wire_has (wire, "< 0019 0000040006f2") ? 244 : 20);
  replay (tester, wire);
  tester_tick (tester, 20);
  tester_expect_silence (tester, LIMIT_MS);
  check_login (tester, vector);
}

/* Exploration */

static void
test_exploration (gconstpointer data)
{
  JsonObject *vector = (JsonObject *) data;
  g_autoptr (GPtrArray) wire = get_wire (vector);
  gint64 own = json_object_get_int_member (vector, "device_att_payload");
  gint64 host = json_object_get_int_member (vector, "host_att_payload");
  g_autofree char *config = g_strdup_printf (LYWSD03MMC "Att=%d\n", (int) own);
  g_autoptr (Tester) tester = tester_new (config);
  gint64 dmtu
      = json_object_get_int_member (json_object_get_object_member (vector, "device"), "dmtu");

  arm_fault (tester, "framing", json_object_get_string_member (vector, "name"));
  /* the link carries the larger of both: what is checked is what they agree on */
  tester_connect (tester, (guint16) MAX (own, host));
  replay (tester, wire);
  tester_tick (tester, 400);
  tester_expect_silence (tester, LIMIT_MS);
  /* 4 bytes fit one frame at any size: simul is more than 1 now */
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "a2");
  tester_expect (tester, "< 0019 0000020001000000");
  g_assert_cmpint (dmtu, >=, 18);
}

/* Rules of the device's tables that no vector has */

static void
ask_info (Tester *tester, const char *info)
{
  g_autofree char *line = g_strconcat ("< 0019 0100", info, NULL);

  tester_write_hex (tester, MI_CHANNEL_CONTROL, "a2000000");
  tester_expect (tester, "< 0019 000000000100");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "00000101");
  tester_expect (tester, line);
  tester_write_hex (tester, MI_CHANNEL_AUTH, "00000100");
  tester_expect_silence (tester, 100);
}

static void
test_one_opcode_is_kept (void)
{
  g_autoptr (Tester) tester = tester_new (LYWSD03MMC);

  tester_connect (tester, 20);
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "a2");
  tester_expect (tester, "< 0019 000000000100");
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "24");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "00000101");
  tester_expect (tester, "< 0019 010001000000");
  tester_expect_silence (tester, 100);
  tester_write_hex (tester, MI_CHANNEL_AUTH, "00000100");
  tester_expect (tester, "< 0010 e0000000");
}

static void
test_login_ignores_opcodes (void)
{
  g_autoptr (Tester) tester = tester_new (BOUND);

  tester_connect (tester, 20);
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "24");
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "a2");
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "24");
  tester_expect_silence (tester, 1000);
  tester_settle (tester, LIMIT_MS); /* 30 s: idle again, in silence */
  tester_expect_silence (tester, 0);
  tester_login (tester, test_token);
}

static void
test_bad_point_is_swallowed (void)
{
  g_autoptr (Tester) tester = tester_new (LYWSD03MMC);

  tester_connect (tester, 20);
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "15");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "000000030400");
  tester_expect (tester, "< 0019 00000101");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "0100000000000000000000000000000000000001");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "0200000000000000000000000000000000000001");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "0300000000000000000000000000000000000001");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "040000000000000000000001");
  tester_expect (tester, "< 0019 00000100");
  tester_tick (tester, 100);
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "a2");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "000000000200");
  tester_expect_silence (tester, 29000);
  tester_tick (tester, LIMIT_MS);
  ask_info (tester, "01000000");
}

static void
test_gen1_ignores_exploration (void)
{
  g_autoptr (Tester) tester = tester_new (LYWSD03MMC "Generation=1\n");

  tester_connect (tester, 244);
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "a4");
  tester_expect_silence (tester, LIMIT_MS);
  ask_info (tester, "01000000");
}

static void
test_disconnect_forgets (void)
{
  g_autoptr (Tester) tester = tester_new (BOUND);

  tester_connect (tester, 20);
  tester_login (tester, test_token);
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "24");
  tester_expect (tester, "< 0010 e2000000");
  tester_disconnect (tester);
  tester_connect (tester, 20);
  tester_login (tester, test_token);
}

static void
test_version_3_says_so (void)
{
  g_autoptr (Tester) tester = tester_new (LYWSD03MMC "AuthVersion=3\n");

  tester_connect (tester, 20);
  ask_info (tester, "03000000");
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "15");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "000000030400");
  tester_expect_silence (tester, LIMIT_MS);
}

static void
test_no_mi_service (void)
{
  g_autoptr (Tester) tester = tester_new (LYWSD03MMC "AuthVersion=0\n");
  g_autoptr (GError) error = NULL;

  tester_connect (tester, 20);
  g_assert_false (sim_device_write (tester->device, 0, MI_CHANNEL_CONTROL, test_token, 4, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_IO);
}

/* Faults */

static void
test_busy_is_answered (void)
{
  g_autoptr (Tester) tester = tester_new (BOUND "Faults=busy@0b;cancel@11\n");

  tester_connect (tester, 20);
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "24");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "0000000b0100");
  tester_expect (tester, "< 0019 00000102");
  tester_write_hex (tester, MI_CHANNEL_AUTH, "0000000b0100");
  tester_expect (tester, "< 0019 00000104"); /* type 11 is 0b */
  tester_write_hex (tester, MI_CHANNEL_AUTH, "0000000b0100");
  tester_expect (tester, "< 0019 00000101");
}

static void
test_double_and_delay (void)
{
  g_autoptr (Tester) tester = tester_new (LYWSD03MMC "Faults=<double@1,<delay@2:700\n");
  gint64 start;

  tester_connect (tester, 20);
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "a2");
  tester_expect (tester, "< 0019 000000000100");
  tester_expect (tester, "< 0019 000000000100");
  start = tester->now;
  tester_write_hex (tester, MI_CHANNEL_AUTH, "00000101");
  tester_expect (tester, "< 0019 010001000000");
  g_assert_cmpint (tester->now, ==, start + 700);
}

static void
test_cut_counts_both_ways (void)
{
  g_autoptr (Tester) tester = tester_new (LYWSD03MMC "Faults=cut@2\n");

  tester_connect (tester, 20);
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "a2");
  g_assert_false (tester->dropped);
  tester_expect (tester, "< 0019 000000000100");
  g_assert_true (tester->dropped);
  g_assert_cmpuint (tester->reason, ==, 0x08);
  g_assert_false (sim_device_is_connected (tester->device));
  tester_connect (tester, 20);
  ask_info (tester, "01000000"); /* once */
}

static void
test_reboot_fault (void)
{
  g_autoptr (Tester) tester = tester_new (BOUND "Faults=>reboot@1\n");
  g_autoptr (GError) error = NULL;
  g_autofree char *events = NULL;

  tester_connect (tester, 20);
  tester_write_hex (tester, MI_CHANNEL_CONTROL, "24");
  g_assert_true (tester->dropped);
  g_assert_false (sim_device_connect (tester->device, tester->now, 20, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_LINK_LOST);
  tester_settle (tester, 5000);
  events = tester_events (tester);
  g_assert_cmpstr (events, ==, "disconnect reboot");
  tester_connect (tester, 20);
  tester_login (tester, test_token); /* the keys survive */
}

static void
test_bad_faults (void)
{
  static const char *const bad[]
      = { "",        "drop",     "drop@",    "drop@0",           "drop@x",      "drop@1:2",
          "fall@1",  "delay@1",  "delay@1:", "delay@:5",         "status@1",    "busy@10x",
          "busy@1f", "<>drop@1", "drop@-1",  "drop@99999999999", "status@1:256" };
  g_autoptr (Tester) tester = tester_new (LYWSD03MMC);

  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      g_autoptr (GError) error = NULL;

      g_assert_false (sim_device_arm_fault (tester->device, bad[i], &error));
      g_assert_error (error, MI_ERROR, MI_ERROR_INVALID_ARGUMENT);
    }
}

/* Configuration */

static void
test_bad_config (void)
{
  static const char *const bad[] = {
    "Firmware=1.0.0_0130\n",
    "Model=NOSUCH\n",
    LYWSD03MMC "Colour=red\n",
    LYWSD03MMC "AuthVersion=4\n",
    LYWSD03MMC "AuthVersion=x\n",
    LYWSD03MMC "Token=12\n",
    LYWSD03MMC "BindKey=zz112233445566778899aabbccddeeff\n",
    LYWSD03MMC "Did=123456789012345678901\n",
    LYWSD03MMC "RootKey=00\n",
    LYWSD03MMC "Enforce=maybe\n",
    LYWSD03MMC "OnReject=explode\n",
    LYWSD03MMC "Dfu=3\n",
    LYWSD03MMC "Banks=0x1\n",
    LYWSD03MMC "Banks=0;0x10000\n",
    LYWSD03MMC "Limit=0x34001\n",
    LYWSD03MMC "Generation=3\n",
    LYWSD03MMC "Att=19\n",
    LYWSD03MMC "Battery=101\n",
    LYWSD03MMC "Advert=smoke\n",
    LYWSD03MMC "Advert=pvvx-encrypted\n",
    LYWSD03MMC "Radio=30\n",
    LYWSD03MMC "Faults=drop@x\n",
    LYWSD03MMC "Interval=0\n",
  };

  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      g_autofree char *text = g_strconcat ("[A4:C1:38:00:00:01]\n", bad[i], NULL);
      g_autoptr (GKeyFile) file = g_key_file_new ();
      g_autoptr (SimDevice) device = NULL;
      g_autoptr (GError) error = NULL;

      g_assert_true (g_key_file_load_from_data (file, text, strlen (text), G_KEY_FILE_NONE, NULL));
      device = sim_device_new (file, "A4:C1:38:00:00:01", mi_crypto_random, NULL, &error);
      if (device != NULL)
        g_test_message ("taken: %s", bad[i]);
      g_assert_null (device);
      g_assert_error (error, MI_ERROR, MI_ERROR_INVALID_ARGUMENT);
    }
}

static void
assert_text (Tester *tester, guint16 channel, const char *expected)
{
  g_autofree char *text = tester_read_text (tester, channel);

  g_assert_cmpstr (text, ==, expected);
}

static void
test_device_information (void)
{
  g_autoptr (Tester) tester = tester_new (LYWSD03MMC "Hardware=B1.5\nSerial=F2.0\nBattery=40\n");
  g_autofree char *value = NULL;

  tester_connect (tester, 20);
  assert_text (tester, MI_CHANNEL_VERSION, "1.0.0_0130");
  assert_text (tester, MI_CHANNEL_MODEL, "LYWSD03MMC");
  assert_text (tester, MI_CHANNEL_FIRMWARE, "1.0.0_0130");
  assert_text (tester, MI_CHANNEL_SOFTWARE, "0130");
  assert_text (tester, MI_CHANNEL_HARDWARE, "B1.5");
  assert_text (tester, MI_CHANNEL_SERIAL, "F2.0");
  value = tester_read (tester, MI_CHANNEL_MEASUREMENT);
  g_assert_cmpuint (strlen (value), ==, 10);
  g_assert_cmpstr (value + 6, ==, "6009"); /* 2400 mV */
}

static void
test_time_goes_on (void)
{
  g_autoptr (Tester) tester = tester_new ("Model=LYWSD02MMC\n");
  g_autofree char *value = NULL;

  tester_connect (tester, 20);
  tester_write_hex (tester, MI_CHANNEL_TIME, "00f1536502");
  tester_tick (tester, 61000);
  value = tester_read (tester, MI_CHANNEL_TIME);
  g_assert_cmpstr (value, ==, "3df1536502");
}

static void
test_flash_file_keeps_keys (void)
{
  g_autofree char *folder = g_dir_make_tmp ("sim-device-XXXXXX", NULL);
  g_autofree char *path = g_build_filename (folder, "flash", NULL);
  g_autofree char *bound = g_strdup_printf (BOUND "FlashFile=%s\n", path);
  g_autofree char *plain = g_strdup_printf (LYWSD03MMC "FlashFile=%s\n", path);
  MiKeys keys;

  tester_free (tester_new (bound));
  {
    g_autoptr (Tester) tester = tester_new (plain);

    g_assert_true (sim_device_get_keys (tester->device, &keys));
    g_assert_cmpmem (keys.token, MI_TOKEN_LEN, test_token, MI_TOKEN_LEN);
    g_assert_true (keys.has_did);
    g_assert_cmpstr (sim_device_get_version (tester->device), ==, "1.0.0_0130");
  }
  g_assert_cmpint (g_unlink (path), ==, 0);
  g_assert_cmpint (g_rmdir (folder), ==, 0);
}

static void
add_vectors (const char *prefix, const char *file, const char *member, GTestDataFunc func)
{
  JsonArray *cases = json_object_get_array_member (vectors_load (file), member);

  for (guint i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *vector = json_array_get_object_element (cases, i);
      g_autofree char *path = vectors_path (prefix, json_object_get_string_member (vector, "name"));

      g_test_add_data_func (path, vector, func);
    }
}

static void
add_rules (void)
{
  g_test_add_func ("/sim/one-opcode-during-the-info-is-kept", test_one_opcode_is_kept);
  g_test_add_func ("/sim/a-login-ignores-other-opcodes-for-30-s", test_login_ignores_opcodes);
  g_test_add_func ("/sim/a-point-off-the-curve-is-followed-by-silence",
                   test_bad_point_is_swallowed);
  g_test_add_func ("/sim/generation-1-knows-no-exploration", test_gen1_ignores_exploration);
  g_test_add_func ("/sim/a-disconnection-ends-the-login", test_disconnect_forgets);
  g_test_add_func ("/sim/version-3-is-told-and-not-registered", test_version_3_says_so);
  g_test_add_func ("/sim/version-0-has-no-mi-service", test_no_mi_service);
  g_test_add_func ("/sim/fault/messages-are-refused-as-armed", test_busy_is_answered);
  g_test_add_func ("/sim/fault/packets-are-doubled-and-delayed", test_double_and_delay);
  g_test_add_func ("/sim/fault/a-cut-counts-packets-of-both-directions", test_cut_counts_both_ways);
  g_test_add_func ("/sim/fault/a-reboot-keeps-the-keys", test_reboot_fault);
  g_test_add_func ("/sim/fault/bad-specs-are-refused", test_bad_faults);
  g_test_add_func ("/sim/config/bad-values-are-refused", test_bad_config);
  g_test_add_func ("/sim/gatt/device-information-is-the-model-s", test_device_information);
  g_test_add_func ("/sim/gatt/the-time-that-was-set-goes-on", test_time_goes_on);
  g_test_add_func ("/sim/flash-file/keys-survive", test_flash_file_keeps_keys);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  add_vectors ("/sim/registration/v1", "registration_v1", "cases", test_registration_v1);
  add_vectors ("/sim/registration/v2", "registration_v2", "cases", test_registration_v2);
  add_vectors ("/sim/login", "login", "cases", test_login);
  add_vectors ("/sim/exploration", "framing", "management", test_exploration);
  add_rules ();
  return g_test_run ();
}
