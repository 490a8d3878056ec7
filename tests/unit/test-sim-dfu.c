/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-tester.h"
#include "vectors.h"

#include <string.h>

#define TOKEN      "000102030405060708090a0b"
#define LINK_MS    10000
#define PLAIN_LEN  4100u /* the image without its trailer */
#define RESUME_AT  5
#define CHANGED_AT 200u
#define SMALL      512u
#define LARGE      2048u

/*
 * A host in the test's own words (protocol/ota-mible.md section 3): announces only, as the vectors'
 * host does, and writes down every line of both sides.
 */
typedef struct
{
  Tester *tester;
  GPtrArray *wire;
  guint8 *image;
  gsize len;
  guint protocol;
  gsize dmtu;
  gsize fragment_size;
  guint written;
} Host;

static void
say (Host *host, guint16 channel, const guint8 *data, gsize len)
{
  g_autofree char *hex = mi_hex_encode (data, len);

  g_ptr_array_add (host->wire, g_strdup_printf ("> %04x %s", channel, hex));
  tester_write (host->tester, channel, data, len);
}

static void
command (Host *host, const char *hex)
{
  gsize len;
  g_autofree guint8 *data = vectors_hex (hex, &len);

  say (host, MI_CHANNEL_DFU_CONTROL, data, len);
}

/* Returns: (transfer none): the device's next line */
static const char *
hear (Host *host)
{
  char *line = tester_next_line (host->tester, 2000);

  g_assert_nonnull (line);
  g_ptr_array_add (host->wire, line);
  return line;
}

static void
expect (Host *host, const char *line)
{
  g_assert_cmpstr (hear (host), ==, line);
}

static void
send_frame (Host *host, const guint8 *message, gsize len, guint sn)
{
  gsize at = (sn - 1) * host->dmtu;
  gsize n = MIN (host->dmtu, len - at);
  guint8 frame[512];

  mi_put_u16 (frame, (guint16) sn);
  memcpy (frame + 2, message + at, n);
  say (host, MI_CHANNEL_DFU_DATA, frame, 2 + n);
}

/* One message; what the device asks for is sent again. */
static void
send_message (Host *host, const guint8 *message, gsize len)
{
  guint count = (guint) ((len + host->dmtu - 1) / host->dmtu);
  guint8 announce[6] = { 0 };

  mi_put_u16 (announce + 4, (guint16) count);
  say (host, MI_CHANNEL_DFU_DATA, announce, sizeof announce);
  expect (host, "< 0018 00000101");
  for (guint sn = 1; sn <= count; sn++)
    send_frame (host, message, len, sn);
  for (const char *line = hear (host); !g_str_equal (line, "< 0018 00000100"); line = hear (host))
    {
      guint8 lost[2];

      g_assert_true (g_str_has_prefix (line, "< 0018 00000105"));
      g_assert_true (mi_hex_decode (line + strlen ("< 0018 00000105"), lost, sizeof lost));
      send_frame (host, message, len, mi_get_u16 (lost));
    }
}

static void
send_fragment (Host *host, guint index)
{
  gsize at = (index - 1) * host->fragment_size;
  gsize n = MIN (host->fragment_size, host->len - at);
  g_autofree char *event = g_strdup_printf ("< 0017 020300%02x%02x", index & 0xff, index >> 8);
  guint8 message[2050];

  mi_put_u16 (message, (guint16) index);
  memcpy (message + 2, host->image + at, n);
  send_message (host, message, n + 2);
  expect (host, event);
  host->written++;
}

static guint
fragments (Host *host)
{
  return (guint) ((host->len + host->fragment_size - 1) / host->fragment_size);
}

/* Commands 1 to 3. Returns: the fragment to begin with */
static guint
begin (Host *host)
{
  g_autofree char *version = g_strdup_printf ("< 0017 0105010000%02x00", host->protocol);
  g_autofree char *size
      = g_strdup_printf ("< 0017 0105020000%02x%02x", (guint) host->fragment_size & 0xff,
                         (guint) host->fragment_size >> 8);
  guint8 result[6] = { 0 };
  guint32 index;
  const char *line;

  command (host, "010000");
  expect (host, version);
  command (host, "020000");
  expect (host, size);
  command (host, "030000");
  line = hear (host);
  if (host->protocol == 1)
    {
      g_assert_cmpstr (line, ==, "< 0017 01050300000000");
      return 1;
    }
  g_assert_true (g_str_has_prefix (line, "< 0017 0109030000"));
  g_assert_true (mi_hex_decode (line + strlen ("< 0017 0109030000"), result, sizeof result));
  index = mi_get_u16 (result);
  if (index == 0 || index >= fragments (host)
      || ~mi_crc32 (0xffffffff, host->image, index * host->fragment_size)
             != mi_get_u32 (result + 2))
    return 1;
  return index + 1;
}

static void
upload (Host *host, guint first)
{
  for (guint i = first; i <= fragments (host); i++)
    send_fragment (host, i);
}

/* A connection ready for command 1; larger frames if @att says so. */
static void
log_in (Host *host, guint16 att)
{
  guint8 token[MI_TOKEN_LEN];
  g_autofree char *line = NULL;

  g_assert_true (mi_hex_decode (TOKEN, token, sizeof token));
  tester_connect (host->tester, att);
  tester_login (host->tester, token);
  host->dmtu = 18;
  host->fragment_size = SMALL;
  if (att == 20)
    return;
  tester_write_hex (host->tester, MI_CHANNEL_CONTROL, "a4");
  tester_expect (host->tester, "< 0019 0000040006f2");
  tester_write_hex (host->tester, MI_CHANNEL_AUTH, "0000050006f2");
  line = tester_next_line (host->tester, 100);
  line[0] = '>';
  line[11] = '0';
  line[12] = '5'; /* the same bytes, as a reply */
  tester_replay (host->tester, (const char *const[]){ line }, 1);
  host->dmtu = 242;
  host->fragment_size = LARGE;
}

static Host *
host_new (guint protocol, const char *more)
{
  JsonObject *vectors = vectors_load ("ota_mible");
  JsonObject *root = json_object_get_object_member (vectors, "root");
  g_autofree char *config
      = g_strdup_printf ("Model=LYWSD02MMC\nToken=" TOKEN
                         "\nBindKey=00112233445566778899aabbccddeeff\nDfu=%u\n"
                         "ImageRootKey=%s\n%s",
                         protocol, json_object_get_string_member (root, "public"), more);
  Host *host = g_new0 (Host, 1);

  host->tester = tester_new (config);
  host->wire = g_ptr_array_new_with_free_func (g_free);
  host->protocol = protocol;
  host->image = vectors_bytes (vectors, "image", &host->len);
  return host;
}

static void
host_free (Host *host)
{
  tester_free (host->tester);
  g_ptr_array_unref (host->wire);
  g_free (host->image);
  g_free (host);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Host, host_free)

/* --- Vectors --- */

static const char *
more_config (const char *name)
{
  return g_str_equal (name, "wrong product id") ? "ProductId=2542\n" : "";
}

static void
prepare (Host *host, const char *name)
{
  if (g_str_equal (name, "no tag"))
    host->len = PLAIN_LEN;
  else if (g_str_equal (name, "changed image"))
    host->image[CHANGED_AT] ^= 1;
  log_in (host, g_str_has_suffix (name, "244-byte frames") ? 244 : 20);
  if (g_str_has_suffix (name, "transfer lost"))
    /* chunk 7 of fragment 2: 10 packets of the login, 3 commands, 30 of fragment 1, announce */
    g_assert_true (sim_device_arm_fault (host->tester->device, ">drop@51", NULL));
}

/* What the second connection finds: five fragments stored, the record at four. */
static void
lose_the_link (Host *host)
{
  g_assert_cmpuint (begin (host), ==, 1);
  for (guint i = 1; i <= RESUME_AT; i++)
    send_fragment (host, i);
  tester_disconnect (host->tester);
  g_ptr_array_set_size (host->wire, 0);
  host->written = 0;
  log_in (host, 20);
}

static void
check_wire (Host *host, JsonObject *vector)
{
  g_autofree char *text = NULL;
  g_autofree char *hash = NULL;

  g_assert_cmpint (host->wire->len, ==, json_object_get_int_member (vector, "wire_lines"));
  g_ptr_array_add (host->wire, NULL);
  text = g_strjoinv ("\n", (char **) host->wire->pdata);
  hash = g_compute_checksum_for_string (G_CHECKSUM_SHA256, text, -1);
  g_assert_cmpstr (hash, ==, json_object_get_string_member (vector, "wire_sha256"));
}

/* Status of the verification: the vectors' "dfu-verify". */
static guint
expected_status (JsonObject *vector)
{
  JsonArray *events = json_object_get_array_member (vector, "device_events");

  for (guint i = 0; i < json_array_get_length (events); i++)
    {
      JsonArray *event = json_array_get_array_element (events, i);

      if (g_str_equal (json_array_get_string_element (event, 0), "dfu-verify"))
        return (guint) json_array_get_int_element (event, 1);
    }
  g_assert_not_reached ();
}

static void
test_vector (gconstpointer data)
{
  JsonObject *vector = (JsonObject *) data;
  const char *name = json_object_get_string_member (vector, "name");
  g_autoptr (Host) host
      = host_new ((guint) json_object_get_int_member (vector, "protocol"), more_config (name));
  guint status = expected_status (vector);
  g_autofree char *verdict = g_strdup_printf ("< 0017 01030400%02x", status);
  g_autofree char *expected
      = g_strdup_printf (status == 0 ? "dfu-end:%u reboot" : "dfu-end:%u", status);
  g_autofree char *events = NULL;

  prepare (host, name);
  if (g_str_has_suffix (name, "resumed after a lost link"))
    lose_the_link (host);
  upload (host, begin (host));
  g_ptr_array_set_size (host->tester->events, 0);
  command (host, "04000400000000");
  expect (host, verdict);
  g_assert_cmpint (host->written, ==, json_object_get_int_member (vector, "fragments_written"));
  check_wire (host, vector);
  tester_disconnect (host->tester);
  tester_settle (host->tester, LINK_MS);
  events = tester_events (host->tester);
  g_assert_cmpstr (events, ==, expected);
  g_assert_cmpstr (sim_device_get_version (host->tester->device), ==, "2.0.1_0021");
  g_assert_cmpuint (sim_device_get_running (host->tester->device), ==, status == 0 ? 0x40000 : 0);
}

/* --- What no vector has --- */

static void
test_needs_a_login (void)
{
  g_autoptr (Host) host = host_new (2, "");
  g_autoptr (GError) error = NULL;
  static const guint8 version[] = { 1, 0, 0 };

  tester_connect (host->tester, 20);
  g_assert_false (sim_device_write (host->tester->device, 0, MI_CHANNEL_DFU_CONTROL, version,
                                    sizeof version, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_IO);
  tester_write_hex (host->tester, MI_CHANNEL_DFU_DATA, "000000001d00");
  tester_expect_silence (host->tester, 1000);
}

static void
test_malformed_commands_are_ignored (void)
{
  g_autoptr (Host) host = host_new (2, "");

  log_in (host, 20);
  command (host, "0100");
  command (host, "010001");
  command (host, "01000000");
  tester_expect_silence (host->tester, 1000);
  command (host, "090000");
  expect (host, "< 0017 0103090001");
  command (host, "04000100");
  expect (host, "< 0017 0103040003");
}

static void
test_low_battery_is_told (void)
{
  g_autoptr (Host) host = host_new (2, "Battery=10\n");

  log_in (host, 20);
  command (host, "020000");
  expect (host, "< 0017 0103020008");
}

/* A host that does not wait loses answers. */
static void
test_events_are_queued (void)
{
  g_autoptr (Host) two = host_new (2, "");
  g_autoptr (Host) one = host_new (1, "");

  log_in (two, 20);
  command (two, "010000");
  command (two, "030000");
  expect (two, "< 0017 01050100000200");
  tester_expect_silence (two->tester, 1000);
  log_in (one, 20);
  command (one, "010000");
  command (one, "030000");
  command (one, "030000");
  expect (one, "< 0017 01050100000100");
  expect (one, "< 0017 01050300000000");
  tester_expect_silence (one->tester, 1000);
}

static void
test_switch_waits_for_the_delay (void)
{
  g_autoptr (Host) host = host_new (2, "");

  log_in (host, 20);
  upload (host, begin (host));
  command (host, "04000405000000");
  expect (host, "< 0017 0103040000");
  tester_tick (host->tester, 60000);
  g_assert_cmpuint (sim_device_get_running (host->tester->device), ==, 0);
  tester_disconnect (host->tester);
  tester_tick (host->tester, 4900);
  g_assert_cmpuint (sim_device_get_running (host->tester->device), ==, 0);
  tester_tick (host->tester, 1200);
  g_assert_cmpuint (sim_device_get_running (host->tester->device), ==, 0x40000);
}

static void
test_failed_fragment_is_repeated (void)
{
  g_autoptr (Host) host = host_new (2, "Faults=status@4:5\n"); /* the first fragment's */
  guint8 message[514] = { 1, 0 };

  log_in (host, 20);
  g_assert_cmpuint (begin (host), ==, 1);
  memcpy (message + 2, host->image, SMALL);
  send_message (host, message, sizeof message);
  expect (host, "< 0017 0203050100");
  upload (host, 1);
  command (host, "04000400000000");
  expect (host, "< 0017 0103040000");
}

/* A status that a fault made is meant: 3 commands, 11 fragments, then the verification. */
static void
test_failed_verification_switches_nothing (void)
{
  g_autoptr (Host) host = host_new (2, "Faults=status@15:2\n");

  log_in (host, 20);
  upload (host, begin (host));
  command (host, "04000400000000");
  expect (host, "< 0017 0103040002");
  tester_disconnect (host->tester);
  tester_settle (host->tester, LINK_MS);
  g_assert_cmpuint (sim_device_get_running (host->tester->device), ==, 0);
}

static void
test_power_cut_leaves_the_old_firmware (void)
{
  g_autoptr (Host) host = host_new (2, "");

  log_in (host, 20);
  upload (host, begin (host));
  sim_device_battery (host->tester->device, host->tester->now);
  tester_settle (host->tester, LINK_MS);
  g_assert_cmpuint (sim_device_get_running (host->tester->device), ==, 0);
}

int
main (int argc, char **argv)
{
  JsonArray *cases;

  g_test_init (&argc, &argv, NULL);
  cases = json_object_get_array_member (vectors_load ("ota_mible"), "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *vector = json_array_get_object_element (cases, i);
      g_autofree char *path
          = vectors_path ("/sim/dfu", json_object_get_string_member (vector, "name"));

      g_test_add_data_func (path, vector, test_vector);
    }
  g_test_add_func ("/sim/dfu/nothing-goes-without-a-login", test_needs_a_login);
  g_test_add_func ("/sim/dfu/malformed-commands-are-ignored", test_malformed_commands_are_ignored);
  g_test_add_func ("/sim/dfu/a-low-battery-is-told", test_low_battery_is_told);
  g_test_add_func ("/sim/dfu/commands-beyond-the-queue-are-lost", test_events_are_queued);
  g_test_add_func ("/sim/dfu/the-switch-waits-for-the-delay", test_switch_waits_for_the_delay);
  g_test_add_func ("/sim/dfu/a-refused-fragment-can-be-repeated", test_failed_fragment_is_repeated);
  g_test_add_func ("/sim/dfu/a-failed-verification-switches-nothing",
                   test_failed_verification_switches_nothing);
  g_test_add_func ("/sim/dfu/a-power-cut-leaves-the-old-firmware",
                   test_power_cut_leaves_the_old_firmware);
  return g_test_run ();
}
