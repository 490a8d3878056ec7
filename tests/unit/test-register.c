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

static JsonObject *
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

/* --- deviations ----------------------------------------------------------------------------- */

/* A conversation of the vectors as a script: what the host has to write, what the device says. */
typedef struct
{
  JsonObject *vector;
  JsonArray *wire;
  guint n;
} Script;

static Script
script_v1 (void)
{
  Script script = { .vector = find_case (v1, "fresh device, 20-byte frames") };

  script.wire = wire_of (script.vector);
  script.n = json_array_get_length (script.wire);
  return script;
}

static Script
script_v2 (void)
{
  Script script = { .vector = find_case (v2, "registered device, 20-byte frames") };

  script.wire = wire_of (script.vector);
  script.n = json_array_get_length (script.wire);
  return script;
}

static Script
script_oob (void)
{
  Script script = { .vector = find_case (v1, "OOB: numeric input") };

  script.wire = wire_of (script.vector);
  script.n = json_array_get_length (script.wire);
  return script;
}

static void
prepare (Fixture *f, const Script *script)
{
  fixture_init (f, script->vector);
  if (json_object_has_member (script->vector, "credential"))
    {
      fixture_v2 (f);
      fixture_certificate (f, script->vector);
      fixture_credential (f, script->vector, 22);
      f->drive->credential = &f->credential;
    }
}

static void
feed (Fixture *f, const char *line)
{
  drive_receive (f->drive, (guint16) g_ascii_strtoull (line + 2, NULL, 16), line + 7);
}

/* Plays the device's lines among the first @n. */
static void
play (Fixture *f, const Script *script, guint n)
{
  drive_event (f->drive, MI_EVENT_START);
  for (guint i = 0; i < n; i++)
    if (line_of (script->wire, i)[0] == '<')
      feed (f, line_of (script->wire, i));
}

/* Whether the next line is the device's, so that the host is waiting here. */
static gboolean
host_waits (const Script *script, guint n)
{
  return n < script->n && line_of (script->wire, n)[0] == '<';
}

/* Index of the first line that is @text. */
static guint
line_index (const Script *script, const char *text)
{
  for (guint i = 0; i < script->n; i++)
    if (g_str_equal (line_of (script->wire, i), text))
      return i;
  g_error ("no line %s", text);
}

static gboolean
wrote (Drive *drive, const char *line)
{
  for (guint i = 0; i < drive->lines->len; i++)
    if (g_str_equal (g_ptr_array_index (drive->lines, i), line))
      return TRUE;
  return FALSE;
}

typedef Script (*ScriptFunc) (void);
static const ScriptFunc scripts[] = { script_v1, script_v2, script_oob };

static void
test_silence (void)
{
  for (guint s = 0; s < G_N_ELEMENTS (scripts); s++)
    {
      Script script = scripts[s]();

      for (guint n = 0; n < script.n; n++)
        {
          Fixture f;

          if (!host_waits (&script, n))
            continue;
          prepare (&f, &script);
          play (&f, &script, n);
          drive_wait_end (f.drive, 30000);
          g_assert_true (f.drive->failed);
          g_assert_true (f.drive->error == MI_ERROR_TIMEOUT || f.drive->error == MI_ERROR_TRANSFER);
          g_assert_cmpuint (f.drive->effects.deadline_ms, ==, -1);
          fixture_clear (&f);
        }
    }
}

static void
each_wait (MiEventKind kind, const char *opcode, MiError error)
{
  for (guint s = 0; s < G_N_ELEMENTS (scripts); s++)
    {
      Script script = scripts[s]();

      for (guint n = 0; n < script.n; n++)
        {
          Fixture f;

          if (!host_waits (&script, n))
            continue;
          prepare (&f, &script);
          play (&f, &script, n);
          if (opcode != NULL)
            drive_receive (f.drive, MI_CHANNEL_CONTROL, opcode);
          else
            drive_event (f.drive, kind);
          drive_assert_failed (f.drive, error);
          fixture_clear (&f);
        }
    }
}

static void
test_cancel (void)
{
  each_wait (MI_EVENT_CANCEL, NULL, MI_ERROR_CANCELLED);
}

static void
test_link_lost (void)
{
  each_wait (MI_EVENT_LINK_LOST, NULL, MI_ERROR_LINK_LOST);
}

/* While the device waits for 13 or 14, it is told. */
static void
test_cancel_while_waiting (void)
{
  for (guint k = 0; k < 2; k++)
    {
      Script script = script_v2 ();
      Fixture f;

      prepare (&f, &script);
      f.drive->on_pending = k == 0 ? DRIVE_KEEP : DRIVE_ANSWER;
      f.drive->on_credential = DRIVE_KEEP;
      play (&f, &script, 21);
      g_assert_cmpstr (mi_procedure_get_state_name (f.drive->procedure), ==,
                       k == 0 ? "persist-pending" : "wait-credential");
      drive_event (f.drive, MI_EVENT_CANCEL);
      drive_assert_failed (f.drive, MI_ERROR_CANCELLED);
      g_assert_cmpstr (g_ptr_array_index (f.drive->lines, f.drive->lines->len - 1), ==,
                       "> 0010 14000000");
      fixture_clear (&f);
    }
}

static void
pass_time (Drive *drive, gint64 ms)
{
  gint64 until = drive->now_ms + ms;

  while (!drive->failed && drive->effects.deadline_ms >= 0 && drive->effects.deadline_ms <= until)
    drive_tick (drive);
  if (!drive->failed)
    drive->now_ms = until;
}

/* Every single answer comes in time, all of them together do not. */
static void
test_whole_limit (void)
{
  Script script = script_oob ();
  gint64 start = -1;
  Fixture f;

  prepare (&f, &script);
  drive_event (f.drive, MI_EVENT_START);
  for (guint i = 0; i < script.n && !f.drive->failed; i++)
    {
      if (line_of (script.wire, i)[0] != '<')
        continue;
      if (g_str_has_prefix (line_of (script.wire, i), "< 0019 0000"))
        pass_time (f.drive, 6000);
      if (!f.drive->failed)
        feed (&f, line_of (script.wire, i));
      if (start < 0 && wrote (f.drive, "> 0010 15010000"))
        start = f.drive->now_ms;
    }
  drive_assert_failed (f.drive, MI_ERROR_TIMEOUT);
  g_assert_nonnull (strstr (f.drive->message, "whole procedure"));
  g_assert_cmpint (f.drive->now_ms, ==, start + 30000);
  fixture_clear (&f);
}

static void
test_unexpected_event (void)
{
  each_wait (MI_EVENT_VALUE, NULL, MI_ERROR_PROTOCOL);
  each_wait (MI_EVENT_PERSISTED, NULL, MI_ERROR_PROTOCOL);
  each_wait (MI_EVENT_START, NULL, MI_ERROR_PROTOCOL);
}

static void
test_ending_opcodes (void)
{
  each_wait (0, "e0000000", MI_ERROR_NOT_BOUND);
  each_wait (0, "e1000000", MI_ERROR_ALREADY_BOUND);
  each_wait (0, "e3000000", MI_ERROR_OOB_NEEDED);
  each_wait (0, "e2000000", MI_ERROR_PROTOCOL);
  each_wait (0, "99000000", MI_ERROR_PROTOCOL);
  each_wait (0, "1100000011", MI_ERROR_PROTOCOL);
}

/* 12 before the verdict, in every state after the start; while the certificate is being sent it is
 * held first. */
static void
test_refused_early (void)
{
  for (guint s = 0; s < G_N_ELEMENTS (scripts); s++)
    {
      Script script = scripts[s]();

      for (guint n = 7; n < script.n; n++)
        {
          Fixture f;

          if (!host_waits (&script, n))
            continue;
          prepare (&f, &script);
          play (&f, &script, n);
          drive_receive (f.drive, MI_CHANNEL_CONTROL, "12000000");
          drive_wait_end (f.drive, 400);
          g_assert_true (f.drive->error == MI_ERROR_REGISTRATION_REFUSED
                         || (s == 2 && f.drive->error == MI_ERROR_OOB_REFUSED));
          fixture_clear (&f);
        }
    }
}

/* A device that says 11 before it could check anything lies. */
static void
test_registered_too_early (void)
{
  for (guint s = 0; s < G_N_ELEMENTS (scripts); s++)
    {
      Script script = scripts[s]();

      for (guint n = 0; n < script.n - 1; n++)
        {
          Fixture f;

          prepare (&f, &script);
          play (&f, &script, n);
          if (host_waits (&script, n)
              && !g_str_equal (mi_procedure_get_state_name (f.drive->procedure),
                               "send-certificate"))
            {
              drive_receive (f.drive, MI_CHANNEL_CONTROL, "11000000");
              drive_assert_failed (f.drive, MI_ERROR_PROTOCOL);
              g_assert_nonnull (strstr (f.drive->message, "0x11"));
            }
          fixture_clear (&f);
        }
    }
}

static void
test_verdict_overtakes (void)
{
  Script script = script_v2 ();
  Fixture f;

  for (guint k = 0; k < 3; k++)
    {
      prepare (&f, &script);
      play (&f, &script, script.n - 2);
      g_assert_cmpstr (mi_procedure_get_state_name (f.drive->procedure), ==, "send-certificate");
      drive_receive (f.drive, MI_CHANNEL_CONTROL, k == 2 ? "12000000" : "11000000");
      g_assert_false (f.drive->done || f.drive->failed);
      g_assert_cmpuint (f.drive->persists->len, ==, 1);
      if (k == 1)
        drive_tick (f.drive); /* 400 ms: it counts without the acknowledgement */
      else
        feed (&f, line_of (script.wire, script.n - 2));
      if (k == 2)
        drive_assert_failed (f.drive, MI_ERROR_REGISTRATION_REFUSED);
      else
        drive_assert_done (f.drive);
      fixture_clear (&f);
    }
}

static void
test_malformed (void)
{
  static const char *const frames[]
      = { "", "00", "000000", "0000000001", "00000900", "0000000000000", "4200", "00000105" };

  for (guint s = 0; s < G_N_ELEMENTS (scripts); s++)
    {
      Script script = scripts[s]();
      Fixture f;

      prepare (&f, &script);
      drive_event (f.drive, MI_EVENT_START);
      for (guint i = 0; i < script.n; i++)
        {
          if (line_of (script.wire, i)[0] != '<')
            continue;
          for (guint k = 0; k < G_N_ELEMENTS (frames); k++)
            {
              guint8 data[16] = { 0 };
              gsize len = strlen (frames[k]) / 2;

              if (strlen (frames[k]) % 2 == 0)
                g_assert_true (mi_hex_decode (frames[k], data, len));
              drive_channel_event (f.drive, MI_EVENT_RECEIVED, MI_CHANNEL_AUTH, data, len);
            }
          feed (&f, line_of (script.wire, i));
        }
      drive_assert_done (f.drive);
      fixture_clear (&f);
    }
}

/* Each notification twice. The one that hurts is an acknowledgement right before the next message
 * of the host: framing takes it for a wrong answer to that. */
static void
test_doubled (void)
{
  for (guint s = 0; s < G_N_ELEMENTS (scripts); s++)
    {
      Script script = scripts[s]();

      for (guint n = 0; n < script.n; n++)
        {
          gboolean hurts = (s == 1 && n == 30) || (s == 2 && n == 37);
          Fixture f;

          if (line_of (script.wire, n)[0] != '<')
            continue;
          prepare (&f, &script);
          drive_event (f.drive, MI_EVENT_START);
          for (guint i = 0; i < script.n && !f.drive->failed; i++)
            if (line_of (script.wire, i)[0] == '<')
              {
                feed (&f, line_of (script.wire, i));
                if (i == n)
                  feed (&f, line_of (script.wire, i));
              }
          if (hurts)
            {
              drive_assert_failed (f.drive, MI_ERROR_TRANSFER);
              g_assert_cmpuint (f.drive->persists->len, ==, 1);
            }
          else
            drive_assert_done (f.drive);
          fixture_clear (&f);
        }
    }
}

static void
test_oversize (void)
{
  Script script = script_v1 ();
  Fixture f;

  prepare (&f, &script);
  play (&f, &script, line_index (&script, "< 0019 00000100"));
  drive_receive (f.drive, MI_CHANNEL_AUTH, "00000100");
  drive_receive (f.drive, MI_CHANNEL_AUTH, "000000030500");
  drive_assert_failed (f.drive, MI_ERROR_TRANSFER);
  g_assert_cmpuint (f.drive->persists->len, ==, 0);
  fixture_clear (&f);
}

static void
answer_info (Fixture *f, const char *payload)
{
  g_autofree char *frame = g_strdup_printf ("0100%s", payload);

  drive_event (f->drive, MI_EVENT_START);
  drive_receive (f->drive, MI_CHANNEL_AUTH, "000000000100");
  drive_receive (f->drive, MI_CHANNEL_AUTH, frame);
}

static void
test_versions (void)
{
  static const struct
  {
    const char *info;
    gboolean can_credential;
    MiError error;
  } table[] = {
    { "03000000", TRUE, MI_ERROR_UNSUPPORTED }, { "0300000001020304", TRUE, MI_ERROR_UNSUPPORTED },
    { "00000000", TRUE, MI_ERROR_UNSUPPORTED }, { "02000000", FALSE, MI_ERROR_CREDENTIAL_NEEDED },
    { "010000", TRUE, MI_ERROR_PROTOCOL },
  };

  for (guint i = 0; i < G_N_ELEMENTS (table); i++)
    {
      Script script = script_v1 ();
      const MiDeviceInfo *info;
      Fixture f;

      prepare (&f, &script);
      f.options.can_credential = table[i].can_credential;
      drive_next (f.drive, mi_register_new (&f.options));
      g_assert_null (mi_register_get_info (f.drive->procedure));
      answer_info (&f, table[i].info);
      drive_assert_failed (f.drive, table[i].error);
      g_assert_false (wrote (f.drive, "> 0010 15000000"));
      info = mi_register_get_info (f.drive->procedure);
      g_assert_true ((info != NULL) == (table[i].error != MI_ERROR_PROTOCOL));
      fixture_clear (&f);
    }
}

/* --- durable keys ----------------------------------------------------------------------------- */

/* Nothing that makes the device accept the keys, before they are durable. */
static void
test_waits_for_durable (void)
{
  for (guint s = 0; s < G_N_ELEMENTS (scripts); s++)
    {
      Script script = scripts[s]();
      guint lines;
      Fixture f;

      prepare (&f, &script);
      f.drive->on_pending = DRIVE_KEEP;
      play (&f, &script, script.n - 1);
      g_assert_cmpuint (f.drive->persists->len, ==, 1);
      lines = g_array_index (f.drive->persists, DrivePersist, 0).before_line;
      for (guint i = lines; i < f.drive->lines->len; i++)
        g_assert_cmpint (*(char *) g_ptr_array_index (f.drive->lines, i), ==, '<');
      g_assert_false (wrote (f.drive, "> 0010 13000000"));
      g_assert_cmpuint (f.drive->need_credential, ==, 0);
      fixture_clear (&f);
    }
}

static void
test_pending_not_durable (void)
{
  for (guint s = 0; s < G_N_ELEMENTS (scripts); s++)
    {
      Script script = scripts[s]();
      guint lines;
      Fixture f;

      prepare (&f, &script);
      f.drive->on_pending = DRIVE_REFUSE;
      drive_event (f.drive, MI_EVENT_START);
      for (guint i = 0; i < script.n && !f.drive->failed; i++)
        if (line_of (script.wire, i)[0] == '<')
          feed (&f, line_of (script.wire, i));
      drive_assert_failed (f.drive, MI_ERROR_STORAGE);
      lines = g_array_index (f.drive->persists, DrivePersist, 0).before_line;
      g_assert_cmpuint (f.drive->lines->len, ==, lines + 1);
      g_assert_cmpstr (g_ptr_array_index (f.drive->lines, lines), ==, "> 0010 14000000");
      fixture_clear (&f);
    }
}

static void
test_current_not_durable (void)
{
  Script script = script_v1 ();
  Fixture f;

  prepare (&f, &script);
  f.drive->on_current = DRIVE_REFUSE;
  play (&f, &script, script.n);
  drive_assert_failed (f.drive, MI_ERROR_STORAGE);
  g_assert_nonnull (strstr (f.drive->message, "pending"));
  g_assert_false (wrote (f.drive, "> 0010 14000000"));
  fixture_clear (&f);
}

/* After 11 the device holds the keys: a lost link or a late notification changes nothing. */
static void
test_after_registered (void)
{
  Script script = script_v1 ();
  Fixture f;

  prepare (&f, &script);
  f.drive->on_current = DRIVE_KEEP;
  play (&f, &script, script.n);
  drive_receive (f.drive, MI_CHANNEL_CONTROL, "11000000");
  drive_receive (f.drive, MI_CHANNEL_CONTROL, "12000000");
  drive_receive (f.drive, MI_CHANNEL_AUTH, "00000100");
  drive_event (f.drive, MI_EVENT_LINK_LOST);
  g_assert_false (f.drive->failed);
  drive_event (f.drive, MI_EVENT_PERSISTED);
  drive_assert_done (f.drive);
  fixture_clear (&f);

  prepare (&f, &script);
  f.drive->on_current = DRIVE_KEEP;
  play (&f, &script, script.n);
  drive_wait_end (f.drive, 10000);
  drive_assert_failed (f.drive, MI_ERROR_TIMEOUT);
  fixture_clear (&f);

  prepare (&f, &script);
  f.drive->on_pending = DRIVE_KEEP;
  play (&f, &script, script.n - 1);
  drive_wait_end (f.drive, 10000);
  drive_assert_failed (f.drive, MI_ERROR_TIMEOUT);
  g_assert_true (wrote (f.drive, "> 0010 14000000"));
  fixture_clear (&f);
}

static void
test_no_did_persisted_again (void)
{
  Script script = { .vector = find_case (v2, "device without DID") };
  DrivePersist *persists;
  Fixture f;

  script.wire = wire_of (script.vector);
  script.n = json_array_get_length (script.wire);
  for (guint k = 0; k < 2; k++)
    {
      fixture_init (&f, script.vector);
      fixture_v2 (&f);
      fixture_certificate (&f, script.vector);
      fixture_credential (&f, script.vector, line_index (&script, "> 0010 13000000") + 1);
      f.drive->credential = &f.credential;
      f.drive->on_credential = DRIVE_KEEP;
      play (&f, &script, line_index (&script, "> 0010 13000000"));
      g_assert_cmpuint (f.drive->need_credential, ==, 1);
      g_assert_cmpuint (f.drive->persists->len, ==, 1);
      f.drive->on_pending = k == 0 ? DRIVE_KEEP : DRIVE_REFUSE;
      drive_event (f.drive, MI_EVENT_CREDENTIAL);
      g_assert_cmpuint (f.drive->persists->len, ==, 2);
      persists = (DrivePersist *) f.drive->persists->data;
      g_assert_cmpint (persists[1].state, ==, MI_KEY_STATE_PENDING);
      g_assert_true (persists[1].keys.has_did);
      g_assert_cmpmem (persists[1].keys.did, 20, f.credential.did, 20);
      g_assert_false (wrote (f.drive, "> 0010 13000000"));
      if (k == 0)
        {
          drive_event (f.drive, MI_EVENT_PERSISTED);
          g_assert_true (wrote (f.drive, "> 0010 13000000"));
        }
      else
        {
          drive_assert_failed (f.drive, MI_ERROR_STORAGE);
          g_assert_true (wrote (f.drive, "> 0010 14000000"));
        }
      fixture_clear (&f);
    }
}

/* --- credential ---------------------------------------------------------------------------------
 */

static void
test_credential_deadline (void)
{
  Script script = script_v2 ();
  gint64 start;
  Fixture f;

  prepare (&f, &script);
  f.drive->on_credential = DRIVE_KEEP;
  drive_event (f.drive, MI_EVENT_START);
  start = -1;
  for (guint i = 0; i < 21; i++)
    {
      if (line_of (script.wire, i)[0] == '<')
        feed (&f, line_of (script.wire, i));
      if (start < 0 && wrote (f.drive, "> 0010 15000000"))
        start = f.drive->now_ms;
    }
  g_assert_cmpuint (f.drive->need_credential, ==, 1);
  g_assert_cmpint (f.drive->credential_deadline_ms, ==, start + 18000);
  drive_tick (f.drive);
  g_assert_cmpint (f.drive->now_ms, ==, start + 18000);
  drive_assert_failed (f.drive, MI_ERROR_TIMEOUT);
  g_assert_cmpstr (g_ptr_array_index (f.drive->lines, f.drive->lines->len - 1), ==,
                   "> 0010 14000000");
  fixture_clear (&f);
}

static void
test_bad_certificate_length (void)
{
  static guint8 large[MI_FRAME_MAX + 1];
  Script script = script_v2 ();

  for (guint k = 0; k < 2; k++)
    {
      Fixture f;

      prepare (&f, &script);
      f.credential.certificate = large;
      f.credential.certificate_len = k == 0 ? 0 : sizeof large;
      play (&f, &script, 21);
      drive_assert_failed (f.drive, MI_ERROR_CREDENTIAL_REFUSED);
      g_assert_true (wrote (f.drive, "> 0010 14000000"));
      g_assert_false (wrote (f.drive, "> 0010 13000000"));
      fixture_clear (&f);
    }
}

static void
test_credential_verify (void)
{
  Script script = script_v2 ();
  g_autoptr (GError) error = NULL;
  JsonObject *vector_credential = json_object_get_object_member (script.vector, "credential");
  guint8 root[64], other_root[64];
  MiKeys keys = { .has_did = TRUE, .auth_version = 2 };
  MiCredential changed;
  Fixture f;

  g_assert_nonnull (vector_credential);
  prepare (&f, &script);
  drive_hex (json_object_get_object_member (v2, "root"), "public", root, sizeof root);
  drive_hex (json_object_get_object_member (v2, "other_root"), "public", other_root,
             sizeof other_root);
  drive_hex (script.vector, "bind_key", keys.bind_key, sizeof keys.bind_key);
  memcpy (keys.did, f.credential.did, MI_DID_LEN);
  mi_credential_verify (&f.credential, root, &keys, &error);
  g_assert_no_error (error);
  keys.has_did = FALSE;
  g_assert_true (mi_credential_verify (&f.credential, root, &keys, NULL));
  g_assert_false (mi_credential_verify (&f.credential, other_root, &keys, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_CREDENTIAL_REFUSED);
  changed = f.credential;
  changed.utc++;
  g_assert_false (mi_credential_verify (&changed, root, &keys, NULL));
  changed = f.credential;
  changed.utc = 1000; /* 1970: before the certificate */
  g_assert_false (mi_credential_verify (&changed, root, &keys, NULL));
  changed = f.credential;
  changed.did[19] ^= 1;
  g_assert_false (mi_credential_verify (&changed, root, &keys, NULL));
  changed = f.credential;
  changed.certificate_len--;
  g_assert_false (mi_credential_verify (&changed, root, &keys, NULL));
  changed = f.credential;
  changed.signature[5] ^= 0x10;
  g_assert_false (mi_credential_verify (&changed, root, &keys, NULL));
  keys.bind_key[0] ^= 1;
  g_assert_false (mi_credential_verify (&f.credential, root, &keys, NULL));
  keys.bind_key[0] ^= 1;
  keys.has_did = TRUE;
  keys.did[19] ^= 1;
  g_assert_false (mi_credential_verify (&f.credential, root, &keys, NULL));
  fixture_clear (&f);
}

/* --- randomness, sizes
 * ---------------------------------------------------------------------------- */

static void
test_fresh_did (void)
{
  static const guint8 letters[] = { 0, 9, 10, 35, 36, 255 };
  Script script = script_v1 ();
  const MiKeys *keys;
  Fixture f;

  prepare (&f, &script);
  f.options.did = NULL;
  g_byte_array_set_size (f.random, 32);
  g_byte_array_append (f.random, letters, sizeof letters);
  drive_next (f.drive, mi_register_new (&f.options));
  play (&f, &script, 20);
  keys = mi_register_get_keys (f.drive->procedure);
  g_assert_true (keys->has_did);
  g_assert_cmpuint (keys->did[0], ==, 0);
  g_assert_cmpmem (keys->did + 1, 19, "blt.3.129v09az03g00", 19);
  g_assert_cmpuint (f.random->len, ==, 0);
  fixture_clear (&f);
}

static void
test_no_random (void)
{
  Script script = script_v1 ();
  Fixture f;

  prepare (&f, &script);
  g_byte_array_set_size (f.random, 31);
  play (&f, &script, 4);
  g_assert_true (f.drive->failed);
  g_assert_false (wrote (f.drive, "> 0010 15000000"));
  fixture_clear (&f);
}

static void
test_explore_unanswered (void)
{
  Script script = script_v1 ();
  Fixture f;

  prepare (&f, &script);
  f.options.explore = TRUE;
  drive_next (f.drive, mi_register_new (&f.options));
  drive_event (f.drive, MI_EVENT_START);
  g_assert_cmpstr (g_ptr_array_index (f.drive->lines, 0), ==, "> 0010 a4");
  while (f.drive->lines->len == 1 && drive_tick (f.drive))
    ;
  g_assert_cmpint (f.drive->now_ms, ==, 2000);
  g_assert_cmpstr (g_ptr_array_index (f.drive->lines, 1), ==, "> 0010 a2000000");
  for (guint i = 1; i < script.n; i++)
    if (line_of (script.wire, i)[0] == '<')
      feed (&f, line_of (script.wire, i));
  drive_assert_done (f.drive);
  fixture_clear (&f);
}

/* --- the capture: keys unknown, so only its frames ---------------------------------------------
 */

typedef struct
{
  MiSizes sizes[2];
  MiFrame *frames[2]; /* host, device */
  MiEffects effects[2];
  GPtrArray *out[2]; /* lines written and not yet seen on the wire */
  guint received;
} Capture;

enum
{
  HOST,
  DEVICE,
};

static void
collect (Capture *self, guint side)
{
  for (guint i = 0; i < self->effects[side].n; i++)
    {
      const MiEffect *effect = &self->effects[side].items[i];
      g_autofree char *hex = mi_hex_encode (effect->data, effect->len);

      g_ptr_array_add (self->out[side],
                       g_strdup_printf ("%c 0019 %s", side == HOST ? '>' : '<', hex));
    }
  mi_effects_reset (&self->effects[side]);
}

/* A message has arrived at @side: as long and of the type that the capture's list says. */
static void
check_message (Capture *self, guint side, const MiFrameEvent *event)
{
  JsonObject *seed = json_object_get_object_member (v2, "seed");
  JsonArray *messages = json_object_get_array_member (seed, "messages");
  JsonObject *message = json_array_get_object_element (messages, self->received++);
  g_autofree char *hex = mi_hex_encode (event->data, event->len);

  g_assert_cmpstr (json_object_get_string_member (message, "dir"), ==, side == HOST ? "<" : ">");
  g_assert_cmpint (json_object_get_int_member (message, "type"), ==, event->type);
  g_assert_cmpint (json_object_get_int_member (message, "length"), ==, event->len);
  if (self->received == 1)
    g_assert_cmpstr (hex, ==, json_object_get_string_member (seed, "info"));
  if (self->received == 2)
    g_assert_cmpstr (hex, ==, json_object_get_string_member (seed, "host_public"));
  if (self->received == 3)
    g_assert_cmpstr (hex, ==, json_object_get_string_member (seed, "device_public"));
  if (self->received == 5)
    g_assert_cmpstr (hex, ==, json_object_get_string_member (seed, "certificate"));
}

/* Payload of the next message that @direction sends, from line @first on; its type. */
static GByteArray *
next_message (JsonArray *wire, guint first, char direction, guint8 *type)
{
  GByteArray *message = g_byte_array_new ();
  gboolean announced = FALSE;

  for (guint i = first; i < json_array_get_length (wire); i++)
    {
      const char *line = line_of (wire, i);
      gsize len;
      g_autofree guint8 *data = mi_hex_decode_alloc (line + 7, &len);

      if (line[0] != direction || strncmp (line + 2, "0019", 4) != 0)
        continue;
      if (mi_get_u16 (data) == 0 && data[2] == MI_FRAME_ANNOUNCE && len == 6)
        {
          if (announced)
            break;
          announced = TRUE;
          *type = data[3];
        }
      else if (mi_get_u16 (data) != 0 && announced)
        g_byte_array_append (message, data + 2, (guint) len - 2);
    }
  return message;
}

/* What each side starts on its own at line @i, as the procedures would. */
static void
start_side (Capture *self, JsonArray *wire, guint i, gint64 now_ms)
{
  const char *line = line_of (wire, i);
  guint side = line[0] == '>' ? HOST : DEVICE;
  guint8 type = 0;

  if (strncmp (line + 2, "0019 000000", 11) != 0 || strlen (line) != 19 || self->out[side]->len > 0)
    return;
  {
    g_autoptr (GByteArray) message = next_message (wire, i, line[0], &type);

    g_assert_true (mi_frame_send (self->frames[side], type, message->data, message->len, now_ms,
                                  &self->effects[side]));
    collect (self, side);
    mi_frame_expect (self->frames[!side], type, MI_FRAME_MAX, now_ms, &self->effects[!side]);
    collect (self, !side);
  }
}

static void
capture_line (Capture *self, JsonArray *wire, guint i, gint64 now_ms)
{
  const char *line = line_of (wire, i);
  guint side = line[0] == '>' ? HOST : DEVICE;
  gsize len;
  g_autofree guint8 *data = mi_hex_decode_alloc (line + 7, &len);
  MiFrameEvent event;

  if (g_str_equal (line, "> 0010 a4"))
    {
      mi_frame_explore (self->frames[HOST], now_ms, &self->effects[HOST]);
      mi_frame_explore (self->frames[DEVICE], now_ms, &self->effects[DEVICE]);
      collect (self, HOST);
      collect (self, DEVICE);
    }
  if (strncmp (line + 2, "0019", 4) != 0)
    return;
  start_side (self, wire, i, now_ms);
  g_assert_cmpuint (self->out[side]->len, >, 0);
  g_assert_cmpstr (g_ptr_array_index (self->out[side], 0), ==, line);
  g_ptr_array_remove_index (self->out[side], 0);
  event = mi_frame_feed (self->frames[!side], data, len, now_ms, &self->effects[!side]);
  if (event.kind == MI_FRAME_RECEIVED)
    check_message (self, !side, &event);
  collect (self, !side);
}

static void
test_seed (void)
{
  JsonArray *wire = wire_of (json_object_get_object_member (v2, "seed"));
  g_autofree Capture *capture = g_new0 (Capture, 1);

  for (guint side = 0; side < 2; side++)
    {
      capture->sizes[side] = (MiSizes) MI_SIZES_INIT (20);
      capture->frames[side]
          = mi_frame_new (MI_CHANNEL_AUTH, side == HOST ? MI_ROLE_HOST : MI_ROLE_DEVICE_GEN2,
                          &capture->sizes[side]);
      capture->out[side] = g_ptr_array_new_with_free_func (g_free);
      mi_effects_reset (&capture->effects[side]);
      /* The app sends everything but exploration frames as announced messages. */
      mi_frame_set_announce_only (capture->frames[side], TRUE);
    }
  for (guint i = 0; i < json_array_get_length (wire); i++)
    capture_line (capture, wire, i, 1000 + 10 * i);
  g_assert_cmpuint (capture->received, ==, 5);
  for (guint side = 0; side < 2; side++)
    {
      g_assert_cmpuint (capture->sizes[side].dmtu, ==, 18);
      g_assert_cmpuint (capture->sizes[side].simul, ==, 6);
      g_assert_cmpuint (capture->out[side]->len, ==, 0);
      mi_frame_free (capture->frames[side]);
      g_ptr_array_unref (capture->out[side]);
    }
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
  g_test_add_func ("/register/seed/frames-of-the-capture", test_seed);
  g_test_add_func ("/register/silence-in-each-state-ends", test_silence);
  g_test_add_func ("/register/cancel-in-each-state", test_cancel);
  g_test_add_func ("/register/cancel-while-the-device-waits-tells-it", test_cancel_while_waiting);
  g_test_add_func ("/register/whole-limit-of-30-s", test_whole_limit);
  g_test_add_func ("/register/link-lost-in-each-state", test_link_lost);
  g_test_add_func ("/register/unexpected-event-in-each-state-fails", test_unexpected_event);
  g_test_add_func ("/register/ending-opcodes-in-each-state", test_ending_opcodes);
  g_test_add_func ("/register/refusal-in-each-state", test_refused_early);
  g_test_add_func ("/register/confirmation-before-its-time-fails", test_registered_too_early);
  g_test_add_func ("/register/verdict-before-acknowledgement-is-held", test_verdict_overtakes);
  g_test_add_func ("/register/malformed-frames-change-nothing", test_malformed);
  g_test_add_func ("/register/doubled-notifications-do-no-harm", test_doubled);
  g_test_add_func ("/register/oversize-announce-fails", test_oversize);
  g_test_add_func ("/register/versions-that-cannot-be-registered", test_versions);
  g_test_add_func ("/register/keys/nothing-is-sent-before-they-are-durable",
                   test_waits_for_durable);
  g_test_add_func ("/register/keys/pending-not-durable-gives-up", test_pending_not_durable);
  g_test_add_func ("/register/keys/current-not-durable-is-told", test_current_not_durable);
  g_test_add_func ("/register/keys/after-the-confirmation-nothing-undoes-it",
                   test_after_registered);
  g_test_add_func ("/register/keys/new-did-is-made-durable-before-13", test_no_did_persisted_again);
  g_test_add_func ("/register/credential/deadline-18-s-after-15", test_credential_deadline);
  g_test_add_func ("/register/credential/bad-certificate-length", test_bad_certificate_length);
  g_test_add_func ("/register/credential/verify", test_credential_verify);
  g_test_add_func ("/register/fresh-did", test_fresh_did);
  g_test_add_func ("/register/no-random-bytes-fails", test_no_random);
  g_test_add_func ("/register/unanswered-exploration-goes-on-at-18", test_explore_unanswered);
  return g_test_run ();
}
