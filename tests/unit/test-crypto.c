/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mi-bytes.h"
#include "mi-crypto.h"
#include "vectors.h"

#include <string.h>

/* A test case on its own path: the object is kept by vectors_load(). */
static void
add_case (const char *prefix, JsonObject *object, guint index, GTestDataFunc func)
{
  const char *name = json_object_get_string_member_with_default (object, "name", NULL);
  g_autofree char *number = g_strdup_printf ("%u", index);
  g_autofree char *path = vectors_path (prefix, name != NULL ? name : number);

  g_test_add_data_func (path, object, func);
}

static void
add_cases (JsonObject *top, const char *member, const char *prefix, GTestDataFunc func)
{
  JsonArray *cases = json_object_get_array_member (top, member);

  g_assert_nonnull (cases);
  g_assert_cmpuint (json_array_get_length (cases), >, 0);
  for (guint i = 0; i < json_array_get_length (cases); i++)
    add_case (prefix, json_array_get_object_element (cases, i), i, func);
}

static void
test_hkdf (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  g_autoptr (GError) error = NULL;
  gsize ikm_len, salt_len, info_len, okm_len;
  g_autofree guint8 *ikm = vectors_bytes (object, "ikm", &ikm_len);
  g_autofree guint8 *salt = vectors_bytes (object, "salt", &salt_len);
  g_autofree guint8 *info = vectors_bytes (object, "info", &info_len);
  g_autofree guint8 *okm = vectors_bytes (object, "okm", &okm_len);
  g_autofree guint8 *out = g_malloc0 (okm_len);

  g_assert_cmpuint (okm_len, ==, json_object_get_int_member (object, "length"));
  mi_crypto_hkdf_sha256 (ikm, ikm_len, salt, salt_len, info, info_len, out, okm_len, &error);
  g_assert_no_error (error);
  g_assert_cmpmem (out, okm_len, okm, okm_len);
}

static void
test_ccm (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  g_autoptr (GError) error = NULL;
  gsize key_len, nonce_len, aad_len, plain_len, sealed_len;
  g_autofree guint8 *key = vectors_bytes (object, "key", &key_len);
  g_autofree guint8 *nonce = vectors_bytes (object, "nonce", &nonce_len);
  g_autofree guint8 *aad = vectors_bytes (object, "aad", &aad_len);
  g_autofree guint8 *plain = vectors_bytes (object, "plain", &plain_len);
  g_autofree guint8 *sealed = vectors_bytes (object, "sealed", &sealed_len);
  g_autofree guint8 *out = g_malloc0 (sealed_len);

  g_assert_cmpuint (key_len, ==, 16);
  g_assert_cmpuint (sealed_len, ==, plain_len + 4);
  mi_crypto_ccm_seal (key, nonce, nonce_len, aad, aad_len, plain, plain_len, out, &error);
  g_assert_no_error (error);
  g_assert_cmpmem (out, sealed_len, sealed, sealed_len);

  memset (out, 0, sealed_len);
  mi_crypto_ccm_open (key, nonce, nonce_len, aad, aad_len, sealed, sealed_len, out, &error);
  g_assert_no_error (error);
  g_assert_cmpmem (out, plain_len, plain, plain_len);

  for (gsize i = 0; i < sealed_len; i++)
    {
      g_autoptr (GError) forged = NULL;

      sealed[i] ^= 0x10;
      g_assert_false (mi_crypto_ccm_open (key, nonce, nonce_len, aad, aad_len, sealed, sealed_len,
                                          out, &forged));
      g_assert_error (forged, MI_ERROR, MI_ERROR_CRYPTO);
      sealed[i] ^= 0x10;
    }
}

static void
test_ccm_of_nothing (void)
{
  const guint8 key[16] = { 1 }, nonce[12] = { 2 };
  g_autoptr (GError) error = NULL;
  guint8 sealed[4];

  mi_crypto_ccm_seal (key, nonce, sizeof nonce, NULL, 0, NULL, 0, sealed, &error);
  g_assert_no_error (error);
  mi_crypto_ccm_open (key, nonce, sizeof nonce, NULL, 0, sealed, 4, NULL, &error);
  g_assert_no_error (error);
  g_assert_false (mi_crypto_ccm_open (key, nonce, sizeof nonce, NULL, 0, sealed, 3, NULL, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_CRYPTO);
}

static void
test_hmac (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  g_autoptr (GError) error = NULL;
  gsize key_len, message_len, mac_len;
  g_autofree guint8 *key = vectors_bytes (object, "key", &key_len);
  g_autofree guint8 *message = vectors_bytes (object, "message", &message_len);
  g_autofree guint8 *mac = vectors_bytes (object, "mac", &mac_len);
  guint8 out[32];

  mi_crypto_hmac_sha256 (key, key_len, message, message_len, out, &error);
  g_assert_no_error (error);
  g_assert_cmpmem (out, 32, mac, mac_len);
  g_assert_true (mi_crypto_equal (out, mac, 32));
  out[31] ^= 1;
  g_assert_false (mi_crypto_equal (out, mac, 32));
}

/* Hands out the bytes at @user_data once. */
static gboolean
fixed_random (guint8 *out, gsize len, gpointer user_data)
{
  const guint8 **next = user_data;

  if (*next == NULL)
    return FALSE;
  memcpy (out, *next, len);
  *next = NULL;
  return TRUE;
}

static void
test_ecdh (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  g_autoptr (GError) error = NULL;
  gsize private_len, peer_len, secret_len;
  g_autofree guint8 *secret = vectors_bytes (object, "secret", &secret_len);
  g_autofree guint8 *private = vectors_bytes (object, "private", &private_len);
  g_autofree guint8 *peer = vectors_bytes (object, "peer", &peer_len);
  const guint8 *next = private;
  g_autoptr (MiEcKey) key = mi_ec_key_new (fixed_random, &next, &error);
  guint8 out[32];

  g_assert_no_error (error);
  g_assert_true (mi_ec_point_is_valid (peer));
  mi_ec_key_agree (key, peer, out, &error);
  g_assert_no_error (error);
  g_assert_cmpmem (out, 32, secret, secret_len);
}

static void
test_ecdsa (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  g_autoptr (GError) error = NULL;
  gsize private_len, public_len, message_len, signature_len;
  g_autofree guint8 *private = vectors_bytes (object, "private", &private_len);
  g_autofree guint8 *public = vectors_bytes (object, "public", &public_len);
  g_autofree guint8 *message = vectors_bytes (object, "message", &message_len);
  g_autofree guint8 *signature = vectors_bytes (object, "signature", &signature_len);
  const guint8 *next = private;
  g_autoptr (MiEcKey) key = mi_ec_key_new (fixed_random, &next, &error);
  guint8 own[64];

  g_assert_no_error (error);
  mi_ec_key_public (key, own, &error);
  g_assert_no_error (error);
  g_assert_cmpmem (own, 64, public, public_len);
  g_assert_true (mi_ecdsa_verify (public, message, message_len, signature));
  mi_ecdsa_sign (private, message, message_len, own, &error);
  g_assert_no_error (error);
  g_assert_true (mi_ecdsa_verify (public, message, message_len, own));
  message[0] ^= 1;
  g_assert_false (mi_ecdsa_verify (public, message, message_len, signature));
  message[0] ^= 1;
  signature[40] ^= 1;
  g_assert_false (mi_ecdsa_verify (public, message, message_len, signature));
}

static void
test_invalid_point (gconstpointer data)
{
  g_autoptr (MiEcKey) key = mi_ec_key_new (mi_crypto_random, NULL, NULL);
  g_autoptr (GError) error = NULL;
  gsize len;
  g_autofree guint8 *point = vectors_hex (data, &len);
  guint8 zeros[64] = { 0 }, out[32];

  g_assert_cmpuint (len, ==, 64);
  g_assert_nonnull (key);
  g_assert_false (mi_ec_point_is_valid (point));
  g_assert_false (mi_ec_key_agree (key, point, out, &error));
  g_assert_error (error, MI_ERROR, MI_ERROR_PROTOCOL);
  g_assert_false (mi_ecdsa_verify (point, out, 0, zeros));
}

/* The first draws are no private keys of P-256: 0, n, and all ones. */
static gboolean
stubborn_random (guint8 *out, gsize len, gpointer user_data)
{
  static const char *const draws[] = {
    "0000000000000000000000000000000000000000000000000000000000000000",
    "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0000000000000000000000000000000000000000000000000000000000000001",
  };
  guint *n = user_data;

  return *n < G_N_ELEMENTS (draws) && mi_hex_decode (draws[(*n)++], out, len);
}

static void
test_draws_again (void)
{
  guint draws = 0;
  g_autoptr (GError) error = NULL;
  g_autoptr (MiEcKey) key = mi_ec_key_new (stubborn_random, &draws, &error);
  guint8 point[64], generator[32];

  g_assert_no_error (error);
  g_assert_cmpuint (draws, ==, 4);
  mi_ec_key_public (key, point, &error);
  g_assert_no_error (error);
  mi_hex_decode ("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296", generator, 32);
  g_assert_cmpmem (point, 32, generator, 32);
}

static gboolean
zero_random (guint8 *out, gsize len, gpointer user_data)
{
  memset (out, 0, len);
  return TRUE;
}

static void
test_no_randomness (void)
{
  const guint8 *next = NULL;
  g_autoptr (GError) none = NULL;
  g_autoptr (GError) zeros = NULL;

  g_assert_null (mi_ec_key_new (fixed_random, &next, &none));
  g_assert_error (none, MI_ERROR, MI_ERROR_CRYPTO);
  g_assert_null (mi_ec_key_new (zero_random, NULL, &zeros));
  g_assert_error (zeros, MI_ERROR, MI_ERROR_CRYPTO);
}

/* mbedTLS 2.28 holds 32 keys at a time: a path that forgets one shows after 32 rounds. */
static void
test_keys_are_destroyed (void)
{
  const guint8 key[16] = { 1 }, nonce[12] = { 2 }, off_curve[64] = { 3 };
  guint8 out[32], point[64], sealed[5] = { 0 };

  for (guint i = 0; i < 100; i++)
    {
      g_autoptr (MiEcKey) own = mi_ec_key_new (mi_crypto_random, NULL, NULL);

      g_assert_nonnull (own);
      g_assert_true (mi_ec_key_public (own, point, NULL));
      g_assert_true (mi_ec_key_agree (own, point, out, NULL));
      g_assert_false (mi_ec_key_agree (own, off_curve, out, NULL));
      g_assert_true (mi_ec_point_is_valid (point));
      g_assert_false (mi_ecdsa_verify (point, key, 16, off_curve));
      g_assert_true (mi_crypto_hmac_sha256 (key, 16, nonce, 12, out, NULL));
      g_assert_false (mi_crypto_hmac_sha256 (key, 0, nonce, 12, out, NULL));
      g_assert_false (mi_crypto_ccm_open (key, nonce, 12, NULL, 0, sealed, 5, out, NULL));
      g_assert_false (mi_crypto_ccm_open (key, nonce, 3, NULL, 0, sealed, 5, out, NULL));
      g_assert_true (mi_crypto_ccm_seal (key, nonce, 12, NULL, 0, sealed, 1, out, NULL));
      g_assert_true (mi_crypto_hkdf_sha256 (key, 16, NULL, 0, nonce, 12, out, 32, NULL));
    }
}

static void
test_sha256 (void)
{
  guint8 out[32], want[32];

  mi_hex_decode ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", want, 32);
  g_assert_true (mi_crypto_sha256 ((const guint8 *) "abc", 3, out, NULL));
  g_assert_cmpmem (out, 32, want, 32);
}

static void
test_random_differs (void)
{
  guint8 a[32] = { 0 }, b[32] = { 0 };

  g_assert_true (mi_crypto_random (a, sizeof a, NULL));
  g_assert_true (mi_crypto_random (b, sizeof b, NULL));
  g_assert_false (mi_crypto_equal (a, b, sizeof a));
}

static void
test_wipe (void)
{
  guint8 secret[8] = "secret!";

  mi_crypto_wipe (secret, sizeof secret);
  g_assert_cmpmem (secret, 8, "\0\0\0\0\0\0\0\0", 8);
}

static void
test_zlib_crc32 (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  guint64 want;
  gsize len;
  g_autofree guint8 *input = vectors_bytes (object, "input", &len);

  g_assert_true (g_ascii_string_to_unsigned (json_object_get_string_member (object, "crc32"), 16, 0,
                                             G_MAXUINT32, &want, NULL));
  g_assert_cmphex (mi_crc32 (0xffffffff, input, len) ^ 0xffffffff, ==, want);
}

/* protocol/image.md sections 1 and 3, protocol/ota-telink.md section 1. */
static void
test_checksums (void)
{
  const guint8 *digits = (const guint8 *) "123456789";
  JsonObject *top = vectors_load ("ota_telink");
  JsonObject *crc16 = json_object_get_object_member (top, "crc16_check");
  gsize len, want_len;
  g_autofree guint8 *input = vectors_bytes (crc16, "input", &len);
  g_autofree guint8 *want = vectors_bytes (crc16, "crc16", &want_len);

  g_assert_cmphex (mi_crc16_modbus (input, len), ==, want[0] << 8 | want[1]);
  g_assert_cmphex (mi_crc16_modbus (digits, 9), ==, 0x4b37);
  g_assert_cmphex (mi_crc16_modbus (digits, 0), ==, 0xffff);
  g_assert_cmphex (mi_crc32 (0xffffffff, digits, 9), ==, 0x340bc6d9);
  g_assert_cmphex (mi_crc32 (0, digits, 9), ==, 0x2dfd2d88);
  g_assert_cmphex (mi_crc32 (mi_crc32 (0xffffffff, digits, 4), digits + 4, 5), ==, 0x340bc6d9);
}

int
main (int argc, char **argv)
{
  JsonObject *top;
  JsonArray *points;

  g_test_init (&argc, &argv, NULL);
  top = vectors_load ("ccm_hkdf");
  add_cases (top, "hkdf", "/crypto/hkdf", test_hkdf);
  add_cases (top, "ccm", "/crypto/ccm", test_ccm);
  add_cases (top, "hmac", "/crypto/hmac", test_hmac);
  add_cases (top, "ecdh", "/crypto/ecdh", test_ecdh);
  add_cases (top, "ecdsa", "/crypto/ecdsa", test_ecdsa);
  add_cases (top, "zlib_crc32", "/crypto/zlib-crc32", test_zlib_crc32);
  points = json_object_get_array_member (top, "invalid_points");
  for (guint i = 0; i < json_array_get_length (points); i++)
    {
      g_autofree char *path = g_strdup_printf ("/crypto/invalid-point-is-refused/%u", i);

      g_test_add_data_func (path, json_array_get_string_element (points, i), test_invalid_point);
    }
  g_test_add_func ("/crypto/ccm/of-nothing-has-a-tag", test_ccm_of_nothing);
  g_test_add_func ("/crypto/ec-key/draws-again-outside-the-group", test_draws_again);
  g_test_add_func ("/crypto/ec-key/fails-without-randomness", test_no_randomness);
  g_test_add_func ("/crypto/every-key-is-destroyed", test_keys_are_destroyed);
  g_test_add_func ("/crypto/sha256/of-abc", test_sha256);
  g_test_add_func ("/crypto/random/differs", test_random_differs);
  g_test_add_func ("/crypto/wipe/leaves-zeros", test_wipe);
  g_test_add_func ("/crypto/checksums/of-123456789", test_checksums);
  return g_test_run ();
}
