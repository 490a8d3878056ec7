/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "drive.h"

#include "mi-auth-private.h"
#include "mi-bytes.h"
#include "mi-crypto.h"
#include "mi-info.h"
#include "mi-login.h"

#include <string.h>

static JsonObject *vectors;

static JsonArray *
wire_of (JsonObject *vector)
{
  return json_object_get_array_member (vector, "wire");
}

static const char *
line_of (JsonArray *wire, guint i)
{
  return json_array_get_string_element (wire, i);
}

static JsonObject *
find_case (const char *name)
{
  JsonArray *cases = json_object_get_array_member (vectors, "cases");

  for (guint i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *vector = json_array_get_object_element (cases, i);

      if (g_str_equal (json_object_get_string_member (vector, "name"), name))
        return vector;
    }
  g_error ("no case %s", name);
}

typedef struct
{
  MiSizes sizes;
  guint8 token[MI_TOKEN_LEN];
  GByteArray *random;
  Drive *drive;
} Fixture;

/* A host as in @vector: exploring if its wire does, with its random bytes. */
static void
fixture_init (Fixture *self, JsonObject *vector)
{
  JsonArray *wire = wire_of (vector);
  gboolean explore = strcmp (line_of (wire, 0), "> 0010 a4") == 0;
  guint16 att = explore && strstr (line_of (wire, 1), "f2") != NULL ? 244 : 20;
  guint8 random[MI_RANDOM_LEN];

  self->sizes = (MiSizes) MI_SIZES_INIT (att);
  drive_hex (vector, "token", self->token, sizeof self->token);
  drive_hex (vector, "app_random", random, sizeof random);
  self->random = g_byte_array_new ();
  g_byte_array_append (self->random, random, sizeof random);
  g_byte_array_append (self->random, random, sizeof random);
  self->drive
      = drive_new (mi_login_new (&self->sizes, self->token, drive_random, self->random, explore));
}

static void
fixture_clear (Fixture *self)
{
  drive_free (self->drive);
  g_byte_array_unref (self->random);
}

static void
check_session (JsonObject *vector, MiProcedure *procedure)
{
  MiSession session;
  guint8 expected[16];

  g_assert_true (mi_login_get_session (procedure, &session));
  drive_hex (vector, "dev_key", expected, 16);
  g_assert_cmpmem (session.dev_key, 16, expected, 16);
  drive_hex (vector, "app_key", expected, 16);
  g_assert_cmpmem (session.app_key, 16, expected, 16);
  drive_hex (vector, "dev_iv", expected, 4);
  g_assert_cmpmem (session.dev_iv, 4, expected, 4);
  drive_hex (vector, "app_iv", expected, 4);
  g_assert_cmpmem (session.app_iv, 4, expected, 4);
}

static MiError
error_named (const char *name)
{
  static const struct
  {
    const char *name;
    MiError error;
  } table[] = {
    { "not-registered", MI_ERROR_NOT_BOUND },
    { "wrong-token", MI_ERROR_WRONG_TOKEN },
    { "login-refused", MI_ERROR_LOGIN_REFUSED },
    { "timeout", MI_ERROR_TIMEOUT },
  };

  for (guint i = 0; i < G_N_ELEMENTS (table); i++)
    if (g_str_equal (table[i].name, name))
      return table[i].error;
  g_error ("unknown error %s", name);
}

/* Where the first login of a wire with two of them ends. */
static JsonArray *
first_login (JsonArray *wire)
{
  JsonArray *part = json_array_new ();

  for (guint i = 0; i < json_array_get_length (wire); i++)
    {
      if (i > 10 && g_str_equal (line_of (wire, i), "> 0010 24000000"))
        break;
      json_array_add_string_element (part, line_of (wire, i));
    }
  return part;
}

static void
test_vector (gconstpointer data)
{
  JsonObject *vector = (JsonObject *) data;
  JsonObject *outcome = json_object_get_object_member (vector, "outcome");
  const char *name = json_object_get_string_member (vector, "name");
  Fixture f;

  fixture_init (&f, vector);
  if (g_str_has_prefix (name, "host that never uses single frames"))
    mi_frame_set_announce_only (((MiAuth *) f.drive->procedure)->frame, TRUE);
  drive_event (f.drive, MI_EVENT_START);
  if (g_str_equal (name, "login twice on one connection"))
    {
      g_autoptr (JsonArray) first = first_login (wire_of (vector));

      drive_replay (f.drive, first, 0);
      drive_assert_done (f.drive);
      check_session (vector, f.drive->procedure);
      drive_next (f.drive, mi_login_new (&f.sizes, f.token, drive_random, f.random, FALSE));
      drive_event (f.drive, MI_EVENT_START);
      drive_replay (f.drive, wire_of (vector), json_array_get_length (first));
    }
  else
    drive_replay (f.drive, wire_of (vector), 0);
  if (g_str_equal (json_object_get_string_member (outcome, "result"), "done"))
    {
      JsonObject *value = json_object_get_object_member (outcome, "value");
      gboolean already = json_object_get_boolean_member (value, "already");

      drive_assert_done (f.drive);
      g_assert_true (mi_login_was_already (f.drive->procedure) == already);
      if (!already)
        check_session (vector, f.drive->procedure);
    }
  else
    {
      MiSession session;

      drive_wait_end (f.drive, 15000);
      drive_assert_failed (f.drive, error_named (json_object_get_string_member (outcome, "error")));
      g_assert_false (mi_login_get_session (f.drive->procedure, &session));
    }
  fixture_clear (&f);
}

/* --- deviations --------------------------------------------------------------------------- */

/* Plays the first @n lines of the happy case. */
static void
play (Fixture *f, guint n)
{
  JsonObject *vector = find_case ("segmented, 20-byte frames");
  g_autoptr (JsonArray) part = json_array_new ();

  for (guint i = 0; i < n; i++)
    json_array_add_string_element (part, line_of (wire_of (vector), i));
  fixture_init (f, vector);
  drive_event (f->drive, MI_EVENT_START);
  for (guint i = 0; i < n; i++)
    {
      const char *line = line_of (part, i);

      if (line[0] == '<')
        drive_receive (f->drive, (guint16) g_ascii_strtoull (line + 2, NULL, 16), line + 7);
      g_assert_cmpstr (g_ptr_array_index (f->drive->lines, i), ==, line);
    }
}

#define N_LINES 20

static gboolean
is_device_line (guint i)
{
  return line_of (wire_of (find_case ("segmented, 20-byte frames")), i)[0] == '<';
}

static void
test_silence (void)
{
  for (guint n = 0; n < N_LINES - 1; n++)
    {
      Fixture f;

      if (!is_device_line (n + 1))
        continue;
      play (&f, n + 1);
      drive_wait_end (f.drive, 15000);
      g_assert_true (f.drive->failed);
      g_assert_true (f.drive->error == MI_ERROR_TIMEOUT || f.drive->error == MI_ERROR_TRANSFER);
      fixture_clear (&f);
    }
}

static void
each_cut (MiEventKind kind, MiError error)
{
  for (guint n = 1; n < N_LINES; n++)
    {
      Fixture f;
      guint lines;

      if (!is_device_line (n - 1) && n > 2)
        continue;
      play (&f, n);
      lines = f.drive->lines->len;
      drive_event (f.drive, kind);
      drive_assert_failed (f.drive, error);
      g_assert_cmpuint (f.drive->lines->len, ==, lines);
      fixture_clear (&f);
    }
}

static void
test_cancel (void)
{
  each_cut (MI_EVENT_CANCEL, MI_ERROR_CANCELLED);
}

static void
test_link_lost (void)
{
  each_cut (MI_EVENT_LINK_LOST, MI_ERROR_LINK_LOST);
}

static void
each_opcode (const char *opcode, MiError error)
{
  for (guint n = 3; n < N_LINES; n++)
    {
      Fixture f;

      if (!is_device_line (n - 1))
        continue;
      play (&f, n);
      drive_receive (f.drive, MI_CHANNEL_CONTROL, opcode);
      drive_assert_failed (f.drive, error);
      fixture_clear (&f);
    }
}

static void
test_not_bound_any_time (void)
{
  each_opcode ("e0000000", MI_ERROR_NOT_BOUND);
}

static void
test_garbage_opcode (void)
{
  each_opcode ("77000000", MI_ERROR_PROTOCOL);
  each_opcode ("1100000000", MI_ERROR_PROTOCOL);
  each_opcode ("", MI_ERROR_PROTOCOL);
}

static void
test_malformed_frames (void)
{
  static const char *const frames[]
      = { "",           "00",           "0000", "000000",   "00000900",
          "0000000d01", "0000000d0000", "0700", "07000102", "00000105" };
  JsonObject *vector = find_case ("segmented, 20-byte frames");
  Fixture f;

  /* In between, every one of them changes nothing. */
  fixture_init (&f, vector);
  drive_event (f.drive, MI_EVENT_START);
  for (guint i = 0; i < N_LINES; i++)
    {
      const char *line = line_of (wire_of (vector), i);

      if (line[0] != '<')
        continue;
      for (guint k = 0; k < G_N_ELEMENTS (frames); k++)
        {
          gsize len = strlen (frames[k]) / 2;
          guint8 data[16];

          g_assert_true (mi_hex_decode (frames[k], data, len));
          drive_channel_event (f.drive, MI_EVENT_RECEIVED, MI_CHANNEL_AUTH, data, len);
        }
      drive_receive (f.drive, (guint16) g_ascii_strtoull (line + 2, NULL, 16), line + 7);
    }
  drive_assert_done (f.drive);
  fixture_clear (&f);
}

static void
test_oversize_announce (void)
{
  Fixture f;

  play (&f, 5);
  drive_receive (f.drive, MI_CHANNEL_AUTH, "0000000d0200");
  drive_assert_failed (f.drive, MI_ERROR_TRANSFER);
  fixture_clear (&f);
}

static void
test_short_random (void)
{
  Fixture f;

  play (&f, 7);
  drive_receive (f.drive, MI_CHANNEL_AUTH, "0100aabb");
  drive_assert_failed (f.drive, MI_ERROR_PROTOCOL);
  fixture_clear (&f);
}

static void
test_no_random (void)
{
  JsonObject *vector = find_case ("segmented, 20-byte frames");
  Fixture f;

  fixture_init (&f, vector);
  g_byte_array_set_size (f.random, 3);
  drive_event (f.drive, MI_EVENT_START);
  drive_assert_failed (f.drive, MI_ERROR_CRYPTO);
  fixture_clear (&f);
}

/* 21 before the acknowledgement of our confirmation (line 18) counts when that comes, or after
 * 400 ms. */
static void
test_opcode_overtakes (void)
{
  Fixture f;
  gint64 start;

  play (&f, 18);
  drive_receive (f.drive, MI_CHANNEL_CONTROL, "21000000");
  g_assert_false (f.drive->done);
  drive_receive (f.drive, MI_CHANNEL_AUTH, "00000100");
  drive_assert_done (f.drive);
  fixture_clear (&f);

  play (&f, 18);
  start = f.drive->now_ms;
  drive_receive (f.drive, MI_CHANNEL_CONTROL, "21000000");
  drive_wait_end (f.drive, 400);
  g_assert_cmpint (f.drive->now_ms - start, >=, 400);
  drive_assert_done (f.drive);
  fixture_clear (&f);

  play (&f, 18);
  drive_receive (f.drive, MI_CHANNEL_CONTROL, "23000000");
  g_assert_false (f.drive->failed);
  drive_receive (f.drive, MI_CHANNEL_AUTH, "00000100");
  drive_assert_failed (f.drive, MI_ERROR_LOGIN_REFUSED);
  fixture_clear (&f);
}

static void
test_verdict_too_early (void)
{
  Fixture f;

  play (&f, 14);
  g_assert_cmpstr (g_ptr_array_index (f.drive->lines, 14), ==, "> 0019 0000000a0200");
  fixture_clear (&f);
  play (&f, 9); /* the device has not confirmed anything */
  drive_receive (f.drive, MI_CHANNEL_CONTROL, "21000000");
  drive_assert_failed (f.drive, MI_ERROR_PROTOCOL);
  fixture_clear (&f);
}

static void
test_explore_unanswered (void)
{
  JsonObject *vector = find_case ("segmented, 20-byte frames");
  Fixture f;
  gint64 start;

  fixture_init (&f, vector);
  drive_next (f.drive, mi_login_new (&f.sizes, f.token, drive_random, f.random, TRUE));
  start = f.drive->now_ms;
  drive_event (f.drive, MI_EVENT_START);
  g_assert_cmpuint (f.drive->lines->len, ==, 1);
  g_assert_cmpstr (g_ptr_array_index (f.drive->lines, 0), ==, "> 0010 a4");
  while (f.drive->lines->len == 1 && drive_tick (f.drive))
    ;
  g_assert_cmpint (f.drive->now_ms - start, ==, 1000);
  g_assert_cmpstr (g_ptr_array_index (f.drive->lines, 1), ==, "> 0010 24000000");
  g_assert_cmpstr (g_ptr_array_index (f.drive->lines, 2), ==, "> 0019 0000000b0100");
  g_assert_cmpuint (f.sizes.dmtu, ==, 18);
  g_assert_true (f.sizes.explored);
  /* and not again on this connection */
  drive_next (f.drive, mi_login_new (&f.sizes, f.token, drive_random, f.random, TRUE));
  drive_event (f.drive, MI_EVENT_START);
  g_assert_cmpstr (g_ptr_array_index (f.drive->lines, 3), ==, "> 0010 24000000");
  fixture_clear (&f);
}

static void
test_inert (void)
{
  Fixture f;

  play (&f, 20);
  drive_assert_done (f.drive);
  drive_event (f.drive, MI_EVENT_CANCEL);
  drive_event (f.drive, MI_EVENT_LINK_LOST);
  drive_receive (f.drive, MI_CHANNEL_CONTROL, "21000000");
  g_assert_cmpuint (f.drive->effects.n, ==, 0);
  g_assert_cmpint (f.drive->effects.deadline_ms, ==, -1);
  g_assert_cmpuint (f.drive->terminal, ==, 1);
  fixture_clear (&f);
}

/* --- session ------------------------------------------------------------------------------ */

static void
derive_first (MiSession *session)
{
  JsonObject *vector = find_case ("segmented, 20-byte frames");
  g_autoptr (GError) error = NULL;
  guint8 token[MI_TOKEN_LEN], app[MI_RANDOM_LEN], device[MI_RANDOM_LEN];

  drive_hex (vector, "token", token, sizeof token);
  drive_hex (vector, "app_random", app, sizeof app);
  drive_hex (vector, "device_random", device, sizeof device);
  mi_session_derive (session, token, app, device, &error);
  g_assert_no_error (error);
}

static void
test_session (void)
{
  JsonArray *messages = json_object_get_array_member (vectors, "session");
  g_autoptr (GError) error = NULL;
  MiSession session;

  derive_first (&session);
  for (guint i = 0; i < json_array_get_length (messages); i++)
    {
      JsonObject *message = json_array_get_object_element (messages, i);
      gsize plain_len, sealed_len;
      g_autofree guint8 *plain
          = mi_hex_decode_alloc (json_object_get_string_member (message, "plain"), &plain_len);
      g_autofree guint8 *sealed
          = mi_hex_decode_alloc (json_object_get_string_member (message, "sealed"), &sealed_len);
      guint8 out[64];

      g_assert_cmpuint (sealed_len, ==, plain_len + 6);
      if (g_str_equal (json_object_get_string_member (message, "dir"), ">"))
        {
          mi_session_seal (&session, plain, plain_len, out, &error);
          g_assert_no_error (error);
          g_assert_cmpmem (out, sealed_len, sealed, sealed_len);
          continue;
        }
      sealed[5] ^= 1; /* a wrong tag changes nothing */
      g_assert_false (mi_session_open (&session, sealed, sealed_len, out, NULL));
      g_assert_cmpuint (session.received, ==, 0);
      sealed[5] ^= 1;
      mi_session_open (&session, sealed, sealed_len, out, &error);
      g_assert_no_error (error);
      g_assert_cmpmem (out, plain_len, plain, plain_len);
      /* a replay */
      g_assert_false (mi_session_open (&session, sealed, sealed_len, out, NULL));
      g_assert_false (mi_session_open (&session, sealed, 5, out, NULL));
      g_assert_false (mi_session_open (&session, sealed, 0, out, NULL));
    }
}

/* The device's side, with the keys swapped, sends across the rollover of the lower 16 bits. */
static void
test_session_rollover (void)
{
  g_autoptr (GError) error = NULL;
  MiSession host, device;
  guint8 sealed[7], plain[1];

  derive_first (&host);
  device = host;
  memcpy (device.app_key, host.dev_key, 16);
  memcpy (device.app_iv, host.dev_iv, 4);
  host.received = device.sent = 0xfffd;
  for (guint i = 0; i < 5; i++)
    {
      const guint8 byte = (guint8) i;

      g_assert_true (mi_session_seal (&device, &byte, 1, sealed, &error));
      g_assert_true (mi_session_open (&host, sealed, sizeof sealed, plain, &error));
      g_assert_no_error (error);
      g_assert_cmpuint (plain[0], ==, i);
    }
  g_assert_cmpuint (host.received, ==, 0x10002);
}

/* --- device info ---------------------------------------------------------------------------- */

static void
test_did_text (void)
{
  guint8 did[MI_DID_LEN];
  static const guint8 right[MI_DID_LEN] = "blt.3.1";
  g_autofree char *text = NULL;
  g_autofree char *other = NULL;

  g_assert_true (mi_did_from_text ("blt.6.1fg3jsorosg00", did));
  g_assert_cmpuint (did[0], ==, 0);
  g_assert_cmpmem (did + 1, 19, "blt.6.1fg3jsorosg00", 19);
  text = mi_did_to_text (did);
  g_assert_cmpstr (text, ==, "blt.6.1fg3jsorosg00");
  other = mi_did_to_text (right);
  g_assert_cmpstr (other, ==, "blt.3.1");
  g_assert_false (mi_did_from_text ("", did));
  g_assert_false (mi_did_from_text ("123456789012345678901", did));
}

static void
test_info (void)
{
  static const struct
  {
    const char *message; /* as one fragment or two */
    guint16 version;
    gboolean has_did;
  } table[] = {
    { "0100"
      "0000",
      1, FALSE },
    { "0200"
      "0000"
      "00626c742e312e317064733635743339343830"
      "31",
      2, TRUE },
    { "0300"
      "0100"
      "ffff",
      3, FALSE },
  };

  for (guint i = 0; i < G_N_ELEMENTS (table); i++)
    {
      MiSizes sizes = MI_SIZES_INIT (20);
      g_autoptr (Drive) drive = drive_new (mi_info_new (&sizes, FALSE));
      gsize n = strlen (table[i].message) / 2;
      g_autofree char *one = g_strdup_printf ("0100%.36s", table[i].message);
      const MiDeviceInfo *info;

      drive_event (drive, MI_EVENT_START);
      g_assert_cmpstr (g_ptr_array_index (drive->lines, 0), ==, "> 0010 a2000000");
      drive_receive (drive, MI_CHANNEL_AUTH, n > 18 ? "000000000200" : "000000000100");
      drive_receive (drive, MI_CHANNEL_AUTH, one);
      if (n > 18)
        {
          g_autofree char *two = g_strdup_printf ("0200%s", table[i].message + 36);

          drive_receive (drive, MI_CHANNEL_AUTH, two);
        }
      drive_assert_done (drive);
      info = mi_info_get_result (drive->procedure);
      g_assert_cmpuint (info->auth_version, ==, table[i].version);
      g_assert_true (info->has_did == table[i].has_did);
    }
}

static void
test_info_too_short (void)
{
  MiSizes sizes = MI_SIZES_INIT (20);
  g_autoptr (Drive) drive = drive_new (mi_info_new (&sizes, FALSE));

  drive_event (drive, MI_EVENT_START);
  drive_receive (drive, MI_CHANNEL_AUTH, "000000000100");
  drive_receive (drive, MI_CHANNEL_AUTH, "0100010000");
  drive_assert_failed (drive, MI_ERROR_PROTOCOL);
}

static void
test_info_silence (void)
{
  MiSizes sizes = MI_SIZES_INIT (20);
  g_autoptr (Drive) drive = drive_new (mi_info_new (&sizes, TRUE));

  drive_event (drive, MI_EVENT_START);
  drive_wait_end (drive, 11000);
  drive_assert_failed (drive, MI_ERROR_TIMEOUT);
}

int
main (int argc, char **argv)
{
  JsonArray *cases;

  g_test_init (&argc, &argv, NULL);
  vectors = vectors_load ("login");
  cases = json_object_get_array_member (vectors, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *vector = json_array_get_object_element (cases, i);
      g_autofree char *path
          = vectors_path ("/login/vector", json_object_get_string_member (vector, "name"));

      g_test_add_data_func (path, vector, test_vector);
    }
  g_test_add_func ("/login/silence-in-each-state-ends", test_silence);
  g_test_add_func ("/login/cancel-in-each-state-ends-at-once", test_cancel);
  g_test_add_func ("/login/link-lost-in-each-state", test_link_lost);
  g_test_add_func ("/login/e0-in-each-state-is-not-bound", test_not_bound_any_time);
  g_test_add_func ("/login/unknown-opcode-in-each-state-fails", test_garbage_opcode);
  g_test_add_func ("/login/malformed-frames-change-nothing", test_malformed_frames);
  g_test_add_func ("/login/oversize-announce-fails", test_oversize_announce);
  g_test_add_func ("/login/short-random-fails", test_short_random);
  g_test_add_func ("/login/no-random-bytes-fails", test_no_random);
  g_test_add_func ("/login/opcode-before-acknowledgement-is-held", test_opcode_overtakes);
  g_test_add_func ("/login/verdict-before-confirmation-fails", test_verdict_too_early);
  g_test_add_func ("/login/unanswered-exploration-goes-on-at-18", test_explore_unanswered);
  g_test_add_func ("/login/finished-is-inert", test_inert);
  g_test_add_func ("/session/vectors", test_session);
  g_test_add_func ("/session/rollover", test_session_rollover);
  g_test_add_func ("/info/did-is-padded-on-the-left", test_did_text);
  g_test_add_func ("/info/lengths", test_info);
  g_test_add_func ("/info/too-short-fails", test_info_too_short);
  g_test_add_func ("/info/silence-ends", test_info_silence);
  return g_test_run ();
}
