/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "drive.h"

#include "mi-bytes.h"
#include "mi-crypto.h"
#include "mi-frame.h"
#include "mi-register.h"

#include <string.h>

/* What a host sends that has no DID of the device (the vectors' six letters are fixed). */
static const char fresh_did[] = "00626c742e332e31323976746573746161673030";

static JsonObject *v1, *v2;

typedef struct
{
  MiSizes sizes;
  guint8 did[MI_DID_LEN];
  guint8 oob[16];
  GByteArray *random;
  MiCredential credential;
  guint8 *certificate;
  MiRegisterOptions options;
  Drive *drive;
} Fixture;

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

static G_GNUC_UNUSED JsonObject *
find_case (JsonObject *file, const char *name)
{
  JsonArray *cases = json_object_get_array_member (file, "cases");

  for (guint i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *vector = json_array_get_object_element (cases, i);

      if (g_str_equal (json_object_get_string_member (vector, "name"), name))
        return vector;
    }
  g_error ("no case %s", name);
}

/* The host's random of the out-of-band exchange: the wire shows it, or never lets it out. */
static void
append_host_random (GByteArray *random, JsonArray *wire)
{
  guint8 bytes[16] = { 0 };

  for (guint i = 0; i + 2 < json_array_get_length (wire); i++)
    if (g_str_equal (line_of (wire, i), "> 0019 0000000b0100"))
      g_assert_true (mi_hex_decode (line_of (wire, i + 2) + 11, bytes, sizeof bytes));
  g_byte_array_append (random, bytes, sizeof bytes);
}

static void
fixture_init (Fixture *self, JsonObject *vector)
{
  JsonArray *wire = wire_of (vector);
  gboolean explore = g_str_equal (line_of (wire, 0), "> 0010 a4");
  gboolean override = json_object_get_null_member (vector, "device_did_before")
                      || strstr (json_object_get_string_member (vector, "name"), "another one");
  guint8 key[32];

  memset (self, 0, sizeof *self);
  self->sizes = (MiSizes) MI_SIZES_INIT (explore ? 244 : 20);
  self->random = g_byte_array_new ();
  drive_hex (json_object_get_object_member (vector, "host_key"), "private", key, sizeof key);
  g_byte_array_append (self->random, key, sizeof key);
  append_host_random (self->random, wire);
  drive_hex (vector, "oob", self->oob, sizeof self->oob);
  g_assert_true (mi_hex_decode (fresh_did, self->did, sizeof self->did));
  self->options = (MiRegisterOptions){
    .sizes = &self->sizes,
    .random = drive_random,
    .random_data = self->random,
    .explore = explore,
    .can_credential = TRUE,
    .did = override ? self->did : NULL,
  };
  for (guint i = 0; i < json_array_get_length (wire); i++)
    if (g_str_equal (line_of (wire, i), "> 0010 15010000"))
      {
        self->options.oob = self->oob;
        self->options.oob_method = 1;
      }
  self->drive = drive_new (mi_register_new (&self->options));
}

/* Version 2: without a DID of the device the credential names it. */
static void
fixture_v2 (Fixture *self)
{
  self->options.did = NULL;
  mi_procedure_free (self->drive->procedure);
  self->drive->procedure = mi_register_new (&self->options);
}

static void
fixture_clear (Fixture *self)
{
  drive_free (self->drive);
  g_byte_array_unref (self->random);
  g_free (self->certificate);
}

static MiError
error_named (const char *name)
{
  static const struct
  {
    const char *name;
    MiError error;
  } table[] = {
    { "registration-refused", MI_ERROR_REGISTRATION_REFUSED },
    { "already-registered", MI_ERROR_ALREADY_BOUND },
    { "credential-refused", MI_ERROR_CREDENTIAL_REFUSED },
    { "link-lost", MI_ERROR_LINK_LOST },
    { "oob-needed", MI_ERROR_OOB_NEEDED },
    { "oob-refused", MI_ERROR_OOB_REFUSED },
    { "protocol", MI_ERROR_PROTOCOL },
    { "timeout", MI_ERROR_TIMEOUT },
    { "transfer", MI_ERROR_TRANSFER },
  };

  for (guint i = 0; i < G_N_ELEMENTS (table); i++)
    if (g_str_equal (table[i].name, name))
      return table[i].error;
  g_error ("unknown error %s", name);
}

static void
check_keys (JsonObject *vector, const MiKeys *keys)
{
  guint8 token[MI_TOKEN_LEN], bind_key[MI_BIND_KEY_LEN];

  drive_hex (vector, "token", token, sizeof token);
  drive_hex (vector, "bind_key", bind_key, sizeof bind_key);
  g_assert_cmpmem (keys->token, MI_TOKEN_LEN, token, MI_TOKEN_LEN);
  g_assert_cmpmem (keys->bind_key, MI_BIND_KEY_LEN, bind_key, MI_BIND_KEY_LEN);
}

static void
check_persists (JsonObject *vector, Drive *drive)
{
  JsonArray *wanted = json_object_get_array_member (vector, "persist");
  guint k = 0;

  for (guint i = 0; i < drive->persists->len; i++)
    {
      DrivePersist *got = &g_array_index (drive->persists, DrivePersist, i);
      JsonObject *object;
      const char *state = got->state == MI_KEY_STATE_PENDING ? "pending" : "current";

      check_keys (vector, &got->keys);
      /* The second pending record of a device without DID is ours: the same, with the DID. */
      if (i > 0 && got->state == MI_KEY_STATE_PENDING)
        {
          DrivePersist *before = &g_array_index (drive->persists, DrivePersist, i - 1);

          g_assert_cmpuint (before->before_line, ==, got->before_line);
          g_assert_false (before->keys.has_did);
          g_assert_true (got->keys.has_did);
          continue;
        }
      object = json_array_get_object_element (wanted, k++);
      g_assert_cmpint (got->before_line, ==, json_object_get_int_member (object, "before_line"));
      g_assert_cmpstr (state, ==, json_object_get_string_member (object, "state"));
    }
  g_assert_cmpuint (k, ==, json_array_get_length (wanted));
}

static void
check_outcome (JsonObject *vector, Drive *drive)
{
  JsonObject *outcome = json_object_get_object_member (vector, "outcome");
  JsonObject *value;
  const MiKeys *keys = mi_register_get_keys (drive->procedure);
  guint8 did[MI_DID_LEN];

  if (g_str_equal (json_object_get_string_member (outcome, "result"), "failed"))
    {
      drive_assert_failed (drive, error_named (json_object_get_string_member (outcome, "error")));
      return;
    }
  drive_assert_done (drive);
  value = json_object_get_object_member (outcome, "value");
  check_keys (value, keys);
  drive_hex (value, "did", did, sizeof did);
  g_assert_true (keys->has_did);
  g_assert_cmpmem (keys->did, MI_DID_LEN, did, MI_DID_LEN);
  g_assert_cmpint (keys->auth_version, ==, json_object_get_int_member (value, "version"));
}

static void
finish (JsonObject *vector, Drive *drive)
{
  JsonObject *outcome = json_object_get_object_member (vector, "outcome");

  if (g_strcmp0 (json_object_get_string_member_with_default (outcome, "error", NULL), "link-lost")
      == 0)
    drive_event (drive, MI_EVENT_LINK_LOST);
  drive_wait_end (drive, 30000);
  check_outcome (vector, drive);
  check_persists (vector, drive);
}

static void
test_v1 (gconstpointer data)
{
  JsonObject *vector = (JsonObject *) data;
  Fixture f;

  fixture_init (&f, vector);
  drive_event (f.drive, MI_EVENT_START);
  if (g_str_equal (json_object_get_string_member (vector, "name"), "OOB: wrong value"))
    {
      /* The wire does not give the host's random away: lines 27 and 28 cannot be foreseen. */
      for (guint i = 0; i < json_array_get_length (wire_of (vector)); i++)
        {
          const char *line = line_of (wire_of (vector), i);

          if (line[0] == '<')
            drive_receive (f.drive, MI_CHANNEL_AUTH, line + 7);
          else if (i != 27 && i != 28)
            g_assert_cmpstr (g_ptr_array_index (f.drive->lines, i), ==, line);
        }
      g_assert_cmpuint (f.drive->lines->len, ==, json_array_get_length (wire_of (vector)));
    }
  else
    drive_replay (f.drive, wire_of (vector), 0);
  finish (vector, f.drive);
  fixture_clear (&f);
}

/* Payload of the message that the host announces on line @first, without the frame headers. */
static GByteArray *
message_at (JsonArray *wire, guint first)
{
  GByteArray *message = g_byte_array_new ();
  const char *line = line_of (wire, first);

  if (strncmp (line, "> 0019 000002", 13) == 0)
    {
      gsize len;
      g_autofree guint8 *data = mi_hex_decode_alloc (line + 15, &len);

      return g_byte_array_append (message, data, (guint) len);
    }
  for (guint i = first + 1; i < json_array_get_length (wire); i++)
    {
      gsize len;
      g_autofree guint8 *data = NULL;

      line = line_of (wire, i);
      if (strncmp (line, "< 0019 00000100", 15) == 0 || strncmp (line, "< 0019 00000105", 15) == 0)
        break;
      if (line[0] == '<')
        continue;
      data = mi_hex_decode_alloc (line + 11, &len);
      g_byte_array_append (message, data, (guint) len);
    }
  return message;
}

/* Opens the credential of the wire with the vector's key: what the host of the vector was given. */
static void
fixture_credential (Fixture *self, JsonObject *vector, guint at)
{
  static const guint8 nonce[]
      = { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b };
  g_autoptr (GByteArray) sealed = message_at (wire_of (vector), at);
  g_autoptr (GError) error = NULL;
  guint8 key[16], plain[88];

  g_assert_cmpuint (sealed->len, ==, 92);
  drive_hex (vector, "did_key", key, sizeof key);
  mi_crypto_ccm_open (key, nonce, sizeof nonce, (const guint8 *) "devID", 5, sealed->data, 92,
                      plain, &error);
  g_assert_no_error (error);
  memcpy (self->credential.did, plain, 20);
  memcpy (self->credential.signature, plain + 20, 64);
  self->credential.utc = mi_get_u32 (plain + 84);
}

static void
fixture_certificate (Fixture *self, JsonObject *vector)
{
  const char *name = json_object_get_string_member (vector, "name");
  const char *hex = json_object_get_string_member (
      v2, g_str_has_prefix (name, "certificate by another") ? "other_certificate" : "certificate");
  gsize len;

  self->certificate = mi_hex_decode_alloc (hex, &len);
  if (g_str_equal (name, "certificate truncated"))
    len -= 10;
  if (g_str_equal (name, "certificate longer than 512 bytes"))
    {
      self->certificate = g_realloc (self->certificate, 900);
      memset (self->certificate + len, 0, 900 - len);
      len = 900;
    }
  self->credential.certificate = self->certificate;
  self->credential.certificate_len = len;
}

static void
test_v2 (gconstpointer data)
{
  JsonObject *vector = (JsonObject *) data;
  JsonArray *wire = wire_of (vector);
  Fixture f;

  fixture_init (&f, vector);
  fixture_v2 (&f);
  fixture_certificate (&f, vector);
  for (guint i = 0; i + 1 < json_array_get_length (wire); i++)
    if (g_str_equal (line_of (wire, i), "> 0010 13000000"))
      fixture_credential (&f, vector, i + 1);
  f.drive->credential = &f.credential;
  if (g_str_equal (json_object_get_string_member (vector, "name"), "credential refused"))
    f.drive->on_credential = DRIVE_REFUSE;
  drive_event (f.drive, MI_EVENT_START);
  drive_replay (f.drive, wire, 0);
  finish (vector, f.drive);
  g_assert_cmpuint (f.drive->need_credential, ==, 1);
  fixture_clear (&f);
}

int
main (int argc, char **argv)
{
  const struct
  {
    const char *prefix;
    JsonObject **file;
    GTestDataFunc func;
  } suites[] = { { "/register/v1/vector", &v1, test_v1 }, { "/register/v2/vector", &v2, test_v2 } };

  g_test_init (&argc, &argv, NULL);
  v1 = vectors_load ("registration_v1");
  v2 = vectors_load ("registration_v2");
  for (guint s = 0; s < G_N_ELEMENTS (suites); s++)
    {
      JsonArray *cases = json_object_get_array_member (*suites[s].file, "cases");

      for (guint i = 0; i < json_array_get_length (cases); i++)
        {
          JsonObject *vector = json_array_get_object_element (cases, i);
          g_autofree char *path
              = vectors_path (suites[s].prefix, json_object_get_string_member (vector, "name"));

          g_test_add_data_func (path, vector, suites[s].func);
        }
    }
  return g_test_run ();
}
