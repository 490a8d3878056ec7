/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-crypto.h"

#include "mi-error.h"

#include <psa/crypto.h>
#include <string.h>

#define CCM_TAG_LEN 4
#define CCM_ALG     PSA_ALG_AEAD_WITH_SHORTENED_TAG (PSA_ALG_CCM, CCM_TAG_LEN)
#define HKDF_ALG    PSA_ALG_HKDF (PSA_ALG_SHA_256)
#define HMAC_ALG    PSA_ALG_HMAC (PSA_ALG_SHA_256)
#define ECDSA_ALG   PSA_ALG_ECDSA (PSA_ALG_SHA_256)
#define P256_PAIR   PSA_KEY_TYPE_ECC_KEY_PAIR (PSA_ECC_FAMILY_SECP_R1)
#define P256_PUBLIC PSA_KEY_TYPE_ECC_PUBLIC_KEY (PSA_ECC_FAMILY_SECP_R1)
#define POINT_LEN   64
/* PSA wants and gives 04 || X || Y. */
#define PSA_POINT_LEN (1 + POINT_LEN)
/* A draw is outside 1..n-1 once in 2^32 with an honest source: this many in a row are its fault. */
#define KEY_DRAWS_MAX 64

/* Repeating it is free; every path that reaches PSA passes here. */
static gboolean
crypto_ready (GError **error)
{
  psa_status_t status = psa_crypto_init ();

  if (status == PSA_SUCCESS)
    return TRUE;
  g_set_error (error, MI_ERROR, MI_ERROR_CRYPTO, "crypto library does not start (status %d)",
               (int) status);
  return FALSE;
}

/* Turns a status into an error; %TRUE for success. */
static gboolean
check_status (psa_status_t status, const char *what, GError **error)
{
  if (status == PSA_SUCCESS)
    return TRUE;
  g_set_error (error, MI_ERROR, MI_ERROR_CRYPTO, "%s failed (status %d)", what, (int) status);
  return FALSE;
}

/* A volatile key; 0 (which psa_destroy_key() takes) and an error if it is refused. */
static psa_key_id_t
import_key (psa_key_type_t type, psa_algorithm_t alg, psa_key_usage_t usage, const guint8 *data,
            gsize len, psa_status_t *status)
{
  psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;
  psa_key_id_t key = 0;

  psa_set_key_type (&attributes, type);
  psa_set_key_algorithm (&attributes, alg);
  psa_set_key_usage_flags (&attributes, usage);
  *status = psa_import_key (&attributes, data, len, &key);
  psa_reset_key_attributes (&attributes);
  return *status == PSA_SUCCESS ? key : 0;
}

gboolean
mi_crypto_random (guint8 *out, gsize len, gpointer user_data)
{
  return crypto_ready (NULL) && psa_generate_random (out, len) == PSA_SUCCESS;
}

static psa_status_t
hkdf_run (psa_key_derivation_operation_t *operation, const guint8 *ikm, gsize ikm_len,
          const guint8 *salt, gsize salt_len, const guint8 *info, gsize info_len, guint8 *out,
          gsize out_len)
{
  psa_status_t status = psa_key_derivation_setup (operation, HKDF_ALG);

  if (status == PSA_SUCCESS && salt_len > 0)
    status
        = psa_key_derivation_input_bytes (operation, PSA_KEY_DERIVATION_INPUT_SALT, salt, salt_len);
  if (status == PSA_SUCCESS)
    status
        = psa_key_derivation_input_bytes (operation, PSA_KEY_DERIVATION_INPUT_SECRET, ikm, ikm_len);
  if (status == PSA_SUCCESS)
    status
        = psa_key_derivation_input_bytes (operation, PSA_KEY_DERIVATION_INPUT_INFO, info, info_len);
  if (status == PSA_SUCCESS)
    status = psa_key_derivation_output_bytes (operation, out, out_len);
  return status;
}

gboolean
mi_crypto_hkdf_sha256 (const guint8 *ikm, gsize ikm_len, const guint8 *salt, gsize salt_len,
                       const guint8 *info, gsize info_len, guint8 *out, gsize out_len,
                       GError **error)
{
  psa_key_derivation_operation_t operation = PSA_KEY_DERIVATION_OPERATION_INIT;
  psa_status_t status;

  if (!crypto_ready (error))
    return FALSE;
  status = hkdf_run (&operation, ikm, ikm_len, salt, salt_len, info, info_len, out, out_len);
  psa_key_derivation_abort (&operation);
  return check_status (status, "key derivation", error);
}

gboolean
mi_crypto_ccm_seal (const guint8 key[16], const guint8 *nonce, gsize nonce_len, const guint8 *aad,
                    gsize aad_len, const guint8 *plain, gsize len, guint8 *out, GError **error)
{
  psa_status_t status;
  psa_key_id_t id;
  size_t used = 0;

  if (!crypto_ready (error))
    return FALSE;
  id = import_key (PSA_KEY_TYPE_AES, CCM_ALG, PSA_KEY_USAGE_ENCRYPT, key, 16, &status);
  if (status == PSA_SUCCESS)
    status = psa_aead_encrypt (id, CCM_ALG, nonce, nonce_len, aad, aad_len, plain, len, out,
                               len + CCM_TAG_LEN, &used);
  psa_destroy_key (id);
  if (status == PSA_SUCCESS && used != len + CCM_TAG_LEN)
    status = PSA_ERROR_GENERIC_ERROR;
  return check_status (status, "encryption", error);
}

gboolean
mi_crypto_ccm_open (const guint8 key[16], const guint8 *nonce, gsize nonce_len, const guint8 *aad,
                    gsize aad_len, const guint8 *sealed, gsize sealed_len, guint8 *out,
                    GError **error)
{
  guint8 none[1]; /* PSA of 2.28 refuses an empty buffer without an address */
  psa_status_t status;
  psa_key_id_t id;
  size_t used = 0;

  if (sealed_len < CCM_TAG_LEN)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_CRYPTO,
                   "encrypted message of %" G_GSIZE_FORMAT " bytes", sealed_len);
      return FALSE;
    }
  if (!crypto_ready (error))
    return FALSE;
  id = import_key (PSA_KEY_TYPE_AES, CCM_ALG, PSA_KEY_USAGE_DECRYPT, key, 16, &status);
  if (status == PSA_SUCCESS)
    status
        = psa_aead_decrypt (id, CCM_ALG, nonce, nonce_len, aad, aad_len, sealed, sealed_len,
                            sealed_len > CCM_TAG_LEN ? out : none, sealed_len - CCM_TAG_LEN, &used);
  psa_destroy_key (id);
  if (status == PSA_SUCCESS && used != sealed_len - CCM_TAG_LEN)
    status = PSA_ERROR_GENERIC_ERROR;
  return check_status (status, "decryption", error);
}

gboolean
mi_crypto_hmac_sha256 (const guint8 *key, gsize key_len, const guint8 *data, gsize len,
                       guint8 out[32], GError **error)
{
  psa_status_t status;
  psa_key_id_t id;
  size_t used = 0;

  if (!crypto_ready (error))
    return FALSE;
  id = import_key (PSA_KEY_TYPE_HMAC, HMAC_ALG, PSA_KEY_USAGE_SIGN_MESSAGE, key, key_len, &status);
  if (status == PSA_SUCCESS)
    status = psa_mac_compute (id, HMAC_ALG, data, len, out, 32, &used);
  psa_destroy_key (id);
  return check_status (status, "authentication code", error);
}

gboolean
mi_crypto_sha256 (const guint8 *data, gsize len, guint8 out[32], GError **error)
{
  size_t used = 0;

  return crypto_ready (error)
         && check_status (psa_hash_compute (PSA_ALG_SHA_256, data, len, out, 32, &used), "hash",
                          error);
}

gboolean
mi_crypto_equal (const guint8 *a, const guint8 *b, gsize len)
{
  volatile guint8 difference = 0;

  for (gsize i = 0; i < len; i++)
    difference |= a[i] ^ b[i];
  return difference == 0;
}

void
mi_crypto_wipe (gpointer data, gsize len)
{
  if (len > 0)
    explicit_bzero (data, len);
}

struct _MiEcKey
{
  psa_key_id_t id;
};

/* Draws until PSA takes the value: it refuses 0 and everything >= n. */
static psa_key_id_t
draw_private_key (MiRandomFunc random, gpointer user_data, GError **error)
{
  psa_status_t status = PSA_ERROR_INVALID_ARGUMENT;
  guint8 secret[32] = { 0 };
  psa_key_id_t id = 0;

  for (guint i = 0; i < KEY_DRAWS_MAX && status == PSA_ERROR_INVALID_ARGUMENT; i++)
    {
      if (!random (secret, sizeof secret, user_data))
        {
          status = PSA_ERROR_INSUFFICIENT_ENTROPY;
          break;
        }
      id = import_key (P256_PAIR, PSA_ALG_ECDH, PSA_KEY_USAGE_DERIVE, secret, sizeof secret,
                       &status);
    }
  mi_crypto_wipe (secret, sizeof secret);
  check_status (status, "private key", error);
  return id;
}

MiEcKey *
mi_ec_key_new (MiRandomFunc random, gpointer user_data, GError **error)
{
  psa_key_id_t id;
  MiEcKey *self;

  g_return_val_if_fail (random != NULL, NULL);

  if (!crypto_ready (error))
    return NULL;
  id = draw_private_key (random, user_data, error);
  if (id == 0)
    return NULL;
  self = g_new0 (MiEcKey, 1);
  self->id = id;
  return self;
}

void
mi_ec_key_free (MiEcKey *self)
{
  if (self == NULL)
    return;
  psa_destroy_key (self->id);
  g_free (self);
}

gboolean
mi_ec_key_public (MiEcKey *self, guint8 out[64], GError **error)
{
  guint8 point[PSA_POINT_LEN];
  size_t used = 0;

  g_return_val_if_fail (self != NULL, FALSE);

  if (!check_status (psa_export_public_key (self->id, point, sizeof point, &used), "public key",
                     error))
    return FALSE;
  if (used != PSA_POINT_LEN)
    return check_status (PSA_ERROR_GENERIC_ERROR, "public key", error);
  memcpy (out, point + 1, POINT_LEN);
  return TRUE;
}

static void
to_psa_point (const guint8 point[64], guint8 out[PSA_POINT_LEN])
{
  out[0] = 0x04;
  memcpy (out + 1, point, POINT_LEN);
}

gboolean
mi_ec_key_agree (MiEcKey *self, const guint8 peer[64], guint8 out[32], GError **error)
{
  guint8 point[PSA_POINT_LEN];
  psa_status_t status;
  size_t used = 0;

  g_return_val_if_fail (self != NULL, FALSE);

  to_psa_point (peer, point);
  status = psa_raw_key_agreement (PSA_ALG_ECDH, self->id, point, sizeof point, out, 32, &used);
  if (status == PSA_ERROR_INVALID_ARGUMENT)
    {
      g_set_error_literal (error, MI_ERROR, MI_ERROR_PROTOCOL,
                           "the peer's public key is no point of the curve");
      return FALSE;
    }
  return check_status (status, "key agreement", error);
}

/* A public key to verify with; 0 if @point is none. */
static psa_key_id_t
import_public (const guint8 point[64])
{
  guint8 psa_point[PSA_POINT_LEN];
  psa_status_t status;

  if (!crypto_ready (NULL))
    return 0;
  to_psa_point (point, psa_point);
  return import_key (P256_PUBLIC, ECDSA_ALG,
                     PSA_KEY_USAGE_VERIFY_MESSAGE | PSA_KEY_USAGE_VERIFY_HASH, psa_point,
                     sizeof psa_point, &status);
}

gboolean
mi_ec_point_is_valid (const guint8 point[64])
{
  psa_key_id_t id = import_public (point);

  if (id == 0)
    return FALSE;
  psa_destroy_key (id);
  return TRUE;
}

gboolean
mi_ecdsa_verify (const guint8 public_key[64], const guint8 *data, gsize len,
                 const guint8 signature[64])
{
  psa_key_id_t id = import_public (public_key);
  psa_status_t status;

  if (id == 0)
    return FALSE;
  status = psa_verify_message (id, ECDSA_ALG, data, len, signature, 64);
  psa_destroy_key (id);
  return status == PSA_SUCCESS;
}

gboolean
mi_ecdsa_sign (const guint8 private_key[32], const guint8 *data, gsize len, guint8 signature[64],
               GError **error)
{
  psa_status_t status;
  psa_key_id_t id;
  size_t used = 0;

  if (!crypto_ready (error))
    return FALSE;
  id = import_key (P256_PAIR, ECDSA_ALG, PSA_KEY_USAGE_SIGN_MESSAGE, private_key, 32, &status);
  if (status == PSA_SUCCESS)
    status = psa_sign_message (id, ECDSA_ALG, data, len, signature, 64, &used);
  psa_destroy_key (id);
  return check_status (status, "signature", error);
}

guint16
mi_crc16_modbus (const guint8 *data, gsize len)
{
  guint16 crc = 0xffff;

  for (gsize i = 0; i < len; i++)
    {
      crc ^= data[i];
      for (guint bit = 0; bit < 8; bit++)
        crc = crc & 1 ? crc >> 1 ^ 0xa001 : crc >> 1;
    }
  return crc;
}

/* Four bits at a time: 64 bytes of table, fast enough for whole images. */
static const guint32 crc32_nibbles[16] = {
  0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
  0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
};

guint32
mi_crc32 (guint32 start, const guint8 *data, gsize len)
{
  guint32 crc = start;

  for (gsize i = 0; i < len; i++)
    {
      crc = crc >> 4 ^ crc32_nibbles[(crc ^ data[i]) & 0xf];
      crc = crc >> 4 ^ crc32_nibbles[(crc ^ data[i] >> 4) & 0xf];
    }
  return crc;
}
