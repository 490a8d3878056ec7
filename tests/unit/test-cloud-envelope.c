/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "cloud-envelope.h"
#include "cloud-text.h"
#include "vectors.h"

#include <string.h>

static JsonObject *
vector (void)
{
  return json_object_get_object_member (vectors_load ("registration_v2"), "cloud_envelope");
}

static const char *
text (const char *name)
{
  return json_object_get_string_member (vector (), name);
}

static CloudEnvelope *
new_envelope (void)
{
  gsize len;
  g_autofree guint8 *random = vectors_bytes (vector (), "nonce_random", &len);
  CloudEnvelope *self;

  g_assert_cmpuint (len, ==, CLOUD_RANDOM_LEN);
  self = cloud_envelope_new (text ("ssecurity"), random,
                             json_object_get_int_member (vector (), "unix_ms"));
  g_assert_nonnull (self);
  return self;
}

static CloudForm *
form_of (const char *name)
{
  JsonArray *fields = json_object_get_array_member (vector (), name);
  CloudForm *form = cloud_form_new ();

  g_assert_cmpuint (json_array_get_length (fields), >, 0);
  for (guint i = 0; i < json_array_get_length (fields); i++)
    {
      JsonArray *pair = json_array_get_array_element (fields, i);

      cloud_form_add (form, json_array_get_string_element (pair, 0),
                      json_array_get_string_element (pair, 1));
    }
  return form;
}

static void
test_nonce (void)
{
  g_autoptr (CloudEnvelope) envelope = new_envelope ();

  g_assert_cmpstr (cloud_envelope_get_nonce (envelope), ==, text ("nonce"));
}

static void
test_signed_nonce (void)
{
  g_autoptr (CloudEnvelope) envelope = new_envelope ();

  g_assert_cmpstr (cloud_envelope_get_signed_nonce (envelope), ==, text ("signed_nonce"));
}

static void
test_form (void)
{
  g_autoptr (CloudEnvelope) envelope = new_envelope ();
  g_autoptr (CloudForm) plain = form_of ("fields");
  g_autoptr (CloudForm) wanted = form_of ("form");
  g_autoptr (CloudForm) form
      = cloud_envelope_seal (envelope, text ("method"), text ("path"), plain);

  g_assert_cmpuint (form->len, ==, wanted->len);
  for (guint i = 0; i < form->len; i++)
    {
      const CloudField *a = g_ptr_array_index (form, i), *b = g_ptr_array_index (wanted, i);

      g_assert_cmpstr (a->name, ==, b->name);
      g_assert_cmpstr (a->value, ==, b->value);
    }
}

static void
test_path_without_app (void)
{
  g_autoptr (CloudEnvelope) envelope = new_envelope ();
  g_autoptr (CloudForm) plain = form_of ("fields");
  g_autofree char *with = cloud_envelope_sign (envelope, "POST", "/app/device/bltbind", plain);
  g_autofree char *without = cloud_envelope_sign (envelope, "POST", "/device/bltbind", plain);
  g_autofree char *other = cloud_envelope_sign (envelope, "POST", "/application/bltbind", plain);

  g_assert_cmpstr (with, ==, without);
  g_assert_cmpstr (with, !=, other);
}

static void
test_answer_sealed (void)
{
  g_autoptr (CloudEnvelope) envelope = new_envelope ();
  g_autofree char *sealed = cloud_envelope_encrypt (envelope, text ("response_plain"));

  g_assert_cmpstr (sealed, ==, text ("response_encrypted"));
}

static void
test_answer_opened (void)
{
  g_autoptr (CloudEnvelope) envelope = new_envelope ();
  gsize len = 0;
  g_autofree char *plain = cloud_envelope_decrypt (envelope, text ("response_encrypted"), &len);

  g_assert_cmpstr (plain, ==, text ("response_plain"));
  g_assert_cmpuint (len, ==, strlen (text ("response_plain")));
}

static void
test_no_base64 (void)
{
  g_autoptr (CloudEnvelope) envelope = new_envelope ();
  guint8 random[CLOUD_RANDOM_LEN] = { 0 };
  gsize len = 7;

  g_assert_null (cloud_envelope_decrypt (envelope, "8WZOVOmN*TTmhkM9", &len));
  g_assert_null (cloud_envelope_decrypt (envelope, "", &len));
  g_assert_cmpuint (len, ==, 0);
  g_assert_null (cloud_envelope_new ("not base64!", random, 0));
}

static void
test_encoding (void)
{
  g_autoptr (CloudForm) form = cloud_form_new ();
  g_autofree char *body = NULL;

  cloud_form_add (form, "data", "a+b/c==");
  cloud_form_add (form, "rc4_hash__", "x &y%\xc3\xa4");
  body = cloud_form_encode (form);
  g_assert_cmpstr (body, ==, "data=a%2Bb%2Fc%3D%3D&rc4_hash__=x%20%26y%25%C3%A4");
}

static void
test_rc4 (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  gsize key_len, len, wanted_len;
  g_autofree guint8 *key = vectors_bytes (object, "key", &key_len);
  g_autofree guint8 *bytes = vectors_bytes (object, "plain", &len);
  g_autofree guint8 *wanted = vectors_bytes (object, "cipher", &wanted_len);
  g_autofree guint8 *out = g_malloc (len);
  gsize drop = (gsize) json_object_get_int_member (object, "drop");

  cloud_rc4 (key, key_len, drop, bytes, out, len);
  g_assert_cmpmem (out, len, wanted, wanted_len);
  cloud_rc4 (key, key_len, drop, out, out, len);
  g_assert_cmpmem (out, len, bytes, len);
}

static void
add_rc4 (void)
{
  JsonArray *cases = json_object_get_array_member (vectors_load ("ccm_hkdf"), "rc4");

  g_assert_cmpuint (json_array_get_length (cases), >, 0);
  for (guint i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *object = json_array_get_object_element (cases, i);
      g_autofree char *path = g_strdup_printf ("/cloud/rc4/drop-%" G_GINT64_FORMAT,
                                               json_object_get_int_member (object, "drop"));

      g_test_add_data_func (path, object, test_rc4);
    }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/cloud/envelope/nonce-is-random-and-minutes", test_nonce);
  g_test_add_func ("/cloud/envelope/signed-nonce-is-the-hash-with-the-secret", test_signed_nonce);
  g_test_add_func ("/cloud/envelope/form-is-hashed-encrypted-and-signed", test_form);
  g_test_add_func ("/cloud/envelope/app-is-not-signed", test_path_without_app);
  g_test_add_func ("/cloud/envelope/answer-is-sealed", test_answer_sealed);
  g_test_add_func ("/cloud/envelope/answer-is-opened", test_answer_opened);
  g_test_add_func ("/cloud/envelope/what-is-no-base64-is-not-opened", test_no_base64);
  g_test_add_func ("/cloud/envelope/form-is-escaped-for-the-way", test_encoding);
  add_rc4 ();
  return g_test_run ();
}
