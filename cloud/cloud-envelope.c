/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "cloud-envelope.h"

#include "cloud-text.h"

#include <nettle/arcfour.h>

#include <string.h>

#define NONCE_LEN (CLOUD_RANDOM_LEN + 4)
#define KEY_LEN   32

struct _CloudEnvelope
{
  char *ssecurity;
  char *nonce;
  char *signed_nonce;
  guint8 key[KEY_LEN];
};

static void
field_free (gpointer data)
{
  CloudField *self = data;

  g_free (self->name);
  cloud_secret_free (self->value);
  g_free (self);
}

CloudForm *
cloud_form_new (void)
{
  return g_ptr_array_new_with_free_func (field_free);
}

void
cloud_form_free (CloudForm *self)
{
  g_ptr_array_unref (self);
}

void
cloud_form_add (CloudForm *self, const char *name, const char *value)
{
  CloudField *field = g_new (CloudField, 1);

  field->name = g_strdup (name);
  field->value = g_strdup (value);
  g_ptr_array_add (self, field);
}

char *
cloud_form_encode (const CloudForm *self)
{
  GString *out = g_string_new (NULL);

  for (guint i = 0; i < self->len; i++)
    {
      const CloudField *field = g_ptr_array_index (self, i);

      if (i > 0)
        g_string_append_c (out, '&');
      g_string_append_uri_escaped (out, field->name, NULL, FALSE);
      g_string_append_c (out, '=');
      g_string_append_uri_escaped (out, field->value, NULL, FALSE);
    }
  return g_string_free (out, FALSE);
}

void
cloud_rc4 (const guint8 *key, gsize key_len, gsize drop, const guint8 *in, guint8 *out, gsize len)
{
  struct arcfour_ctx context;
  guint8 dropped[64] = { 0 };

  g_return_if_fail (key_len >= ARCFOUR_MIN_KEY_SIZE && key_len <= ARCFOUR_MAX_KEY_SIZE);

  arcfour_set_key (&context, key_len, key);
  for (gsize left = drop; left > 0; left -= MIN (left, sizeof dropped))
    arcfour_crypt (&context, MIN (left, sizeof dropped), dropped, dropped);
  arcfour_crypt (&context, len, out, in);
  explicit_bzero (&context, sizeof context);
  explicit_bzero (dropped, sizeof dropped);
}

CloudEnvelope *
cloud_envelope_new (const char *ssecurity, const guint8 *random, gint64 unix_ms)
{
  gsize secret_len = 0, key_len = KEY_LEN;
  guint8 *secret = cloud_base64_decode (ssecurity, &secret_len);
  guint32 minutes = GUINT32_TO_BE ((guint32) (unix_ms / 60000));
  g_autoptr (GChecksum) sum = NULL;
  guint8 nonce[NONCE_LEN];
  CloudEnvelope *self;

  if (secret == NULL)
    return NULL;
  self = g_new0 (CloudEnvelope, 1);
  memcpy (nonce, random, CLOUD_RANDOM_LEN);
  memcpy (nonce + CLOUD_RANDOM_LEN, &minutes, sizeof minutes);
  sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_checksum_update (sum, secret, (gssize) secret_len);
  g_checksum_update (sum, nonce, sizeof nonce);
  g_checksum_get_digest (sum, self->key, &key_len);
  explicit_bzero (secret, secret_len);
  g_free (secret);
  self->ssecurity = g_strdup (ssecurity);
  self->nonce = g_base64_encode (nonce, sizeof nonce);
  self->signed_nonce = g_base64_encode (self->key, sizeof self->key);
  return self;
}

void
cloud_envelope_free (CloudEnvelope *self)
{
  explicit_bzero (self->key, sizeof self->key);
  cloud_secret_free (self->ssecurity);
  cloud_secret_free (self->signed_nonce);
  g_free (self->nonce);
  g_free (self);
}

const char *
cloud_envelope_get_nonce (CloudEnvelope *self)
{
  return self->nonce;
}

const char *
cloud_envelope_get_signed_nonce (CloudEnvelope *self)
{
  return self->signed_nonce;
}

/* Adds "&", then the parts. */
static void
sum_part (GChecksum *sum, const char *first, const char *second, const char *third)
{
  g_checksum_update (sum, (const guchar *) "&", 1);
  g_checksum_update (sum, (const guchar *) first, -1);
  g_checksum_update (sum, (const guchar *) second, -1);
  g_checksum_update (sum, (const guchar *) third, -1);
}

char *
cloud_envelope_sign (CloudEnvelope *self, const char *method, const char *path,
                     const CloudForm *form)
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA1);
  guint8 digest[20];
  gsize len = sizeof digest;

  g_checksum_update (sum, (const guchar *) method, -1);
  sum_part (sum, g_str_has_prefix (path, "/app/") ? path + strlen ("/app") : path, "", "");
  for (guint i = 0; i < form->len; i++)
    {
      const CloudField *field = g_ptr_array_index (form, i);

      sum_part (sum, field->name, "=", field->value);
    }
  sum_part (sum, self->signed_nonce, "", "");
  g_checksum_get_digest (sum, digest, &len);
  return g_base64_encode (digest, len);
}

char *
cloud_envelope_encrypt (CloudEnvelope *self, const char *plain)
{
  gsize len = strlen (plain);
  g_autofree guint8 *cipher = g_malloc (len + 1);

  cloud_rc4 (self->key, sizeof self->key, CLOUD_ENVELOPE_RC4_DROP, (const guint8 *) plain, cipher,
             len);
  return g_base64_encode (cipher, len);
}

char *
cloud_envelope_decrypt (CloudEnvelope *self, const char *text, gsize *len)
{
  guint8 *bytes = cloud_base64_decode (text, len);

  if (bytes == NULL)
    return NULL;
  cloud_rc4 (self->key, sizeof self->key, CLOUD_ENVELOPE_RC4_DROP, bytes, bytes, *len);
  return (char *) bytes;
}

CloudForm *
cloud_envelope_seal (CloudEnvelope *self, const char *method, const char *path,
                     const CloudForm *plain)
{
  g_autofree char *hash = cloud_envelope_sign (self, method, path, plain);
  g_autofree char *sealed_hash = cloud_envelope_encrypt (self, hash);
  g_autofree char *signature = NULL;
  CloudForm *form = cloud_form_new ();

  for (guint i = 0; i < plain->len; i++)
    {
      const CloudField *field = g_ptr_array_index (plain, i);
      g_autofree char *sealed = cloud_envelope_encrypt (self, field->value);

      cloud_form_add (form, field->name, sealed);
    }
  cloud_form_add (form, "rc4_hash__", sealed_hash);
  signature = cloud_envelope_sign (self, method, path, form);
  cloud_form_add (form, "signature", signature);
  cloud_form_add (form, "ssecurity", self->ssecurity);
  cloud_form_add (form, "_nonce", self->nonce);
  return form;
}
