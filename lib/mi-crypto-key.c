/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-crypto-key.h"

#include "mi-crypto.h"

#include <psa/crypto.h>
#include <string.h>

#define KEY_LEN   16
#define TAG_SHORT 4
#define TAG_FULL  16
#define DATA_MAX  256
#define CCM_TAG4  PSA_ALG_AEAD_WITH_SHORTENED_TAG (PSA_ALG_CCM, TAG_SHORT)

struct _MiCryptoKey
{
  psa_key_id_t id; /* 0: not imported now */
  MiCryptoKeyUse use;
  guint64 used; /* value of uses at the last use */
  guint8 key[KEY_LEN];
};

/* PSA's slots belong to the process, and so does the list of who holds them. */
static MiCryptoKey *imported[MI_CRYPTO_KEYS_MAX];
static guint64 uses;

static void
drop (guint index)
{
  psa_destroy_key (imported[index]->id);
  imported[index]->id = 0;
  imported[index] = NULL;
}

/* Place of the key that was not used for longest, or of none (@empty). */
static gint
find_place (gboolean empty)
{
  gint found = -1;

  for (gint i = 0; i < MI_CRYPTO_KEYS_MAX; i++)
    {
      if (empty != (imported[i] == NULL))
        continue;
      if (found < 0 || (!empty && imported[i]->used < imported[found]->used))
        found = i;
    }
  return found;
}

/* Returns: FALSE if no key is held */
static gboolean
drop_oldest (void)
{
  gint oldest = find_place (FALSE);

  if (oldest >= 0)
    drop (oldest);
  return oldest >= 0;
}

static psa_status_t
import (MiCryptoKey *self)
{
  psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;
  gboolean whole_tag = self->use == MI_CRYPTO_KEY_TAG_BYTE;
  psa_status_t status = psa_crypto_init ();

  if (status != PSA_SUCCESS)
    return status;
  psa_set_key_type (&attributes, PSA_KEY_TYPE_AES);
  psa_set_key_algorithm (&attributes, whole_tag ? PSA_ALG_CCM : CCM_TAG4);
  psa_set_key_usage_flags (&attributes, whole_tag ? PSA_KEY_USAGE_ENCRYPT : PSA_KEY_USAGE_DECRYPT);
  return psa_import_key (&attributes, self->key, KEY_LEN, &self->id);
}

static gboolean
ensure_imported (MiCryptoKey *self)
{
  psa_status_t status;
  gint place;

  self->used = ++uses;
  if (G_LIKELY (self->id != 0))
    return TRUE;
  if (find_place (TRUE) < 0)
    drop_oldest ();
  do
    status = import (self);
  /* Somebody else in the process uses many slots: give one back. */
  while (status == PSA_ERROR_INSUFFICIENT_MEMORY && drop_oldest ());
  place = find_place (TRUE);
  if (status != PSA_SUCCESS || place < 0)
    {
      self->id = 0;
      return FALSE;
    }
  imported[place] = self;
  return TRUE;
}

MiCryptoKey *
mi_crypto_key_new (const guint8 key[16], MiCryptoKeyUse use)
{
  MiCryptoKey *self = g_new0 (MiCryptoKey, 1);

  memcpy (self->key, key, KEY_LEN);
  self->use = use;
  return self;
}

void
mi_crypto_key_free (MiCryptoKey *self)
{
  if (self == NULL)
    return;
  for (guint i = 0; i < MI_CRYPTO_KEYS_MAX; i++)
    if (imported[i] == self)
      drop (i);
  mi_crypto_wipe (self, sizeof *self);
  g_free (self);
}

gboolean
mi_crypto_key_open (MiCryptoKey *self, const guint8 *nonce, gsize nonce_len, const guint8 *aad,
                    gsize aad_len, const guint8 *sealed, gsize sealed_len, guint8 *out)
{
  gsize plain_len = 0;

  if (sealed_len < TAG_SHORT)
    return FALSE;
  if (ensure_imported (self)
      && psa_aead_decrypt (self->id, CCM_TAG4, nonce, nonce_len, aad, aad_len, sealed, sealed_len,
                           out, sealed_len - TAG_SHORT, &plain_len)
             == PSA_SUCCESS
      && plain_len == sealed_len - TAG_SHORT)
    return TRUE;
  memset (out, 0, sealed_len - TAG_SHORT);
  return FALSE;
}

/*
 * PSA does not decrypt without the whole tag, but sealing is counter mode, which is its own
 * inverse: sealing the cipher text gives the plain text (and a tag that means nothing), sealing
 * that gives the cipher text again and the tag whose first byte was transmitted.
 */
gboolean
mi_crypto_key_open_tag_byte (MiCryptoKey *self, const guint8 *nonce, gsize nonce_len,
                             const guint8 *aad, gsize aad_len, const guint8 *cipher, gsize len,
                             guint8 tag_byte, guint8 *out)
{
  guint8 again[DATA_MAX + TAG_FULL];
  gsize out_len = 0, again_len = 0;
  gboolean right;

  if (len > DATA_MAX)
    return FALSE;
  right = ensure_imported (self)
          && psa_aead_encrypt (self->id, PSA_ALG_CCM, nonce, nonce_len, aad, aad_len, cipher, len,
                               out, len + TAG_FULL, &out_len)
                 == PSA_SUCCESS
          && psa_aead_encrypt (self->id, PSA_ALG_CCM, nonce, nonce_len, aad, aad_len, out, len,
                               again, len + TAG_FULL, &again_len)
                 == PSA_SUCCESS
          && again_len == len + TAG_FULL && mi_crypto_equal (&again[len], &tag_byte, 1);
  mi_crypto_wipe (again, sizeof again);
  memset (out + (right ? len : 0), 0, right ? TAG_FULL : len + TAG_FULL);
  return right;
}

guint
mi_crypto_key_count_imported (void)
{
  guint n = 0;

  for (guint i = 0; i < MI_CRYPTO_KEYS_MAX; i++)
    n += imported[i] != NULL;
  return n;
}
