/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-procedure.h"

G_BEGIN_DECLS

/*
 * All cryptography of libmi, by mbedTLS' PSA API (one source for 2.28, 3.6 and later); the
 * files mi-crypto*.c alone include psa/crypto.h. One thread only: PSA of Debian 12 is not safe
 * between threads. Functions that return gboolean + GError set MI_ERROR_CRYPTO unless said
 * otherwise.
 */

/**
 * mi_crypto_random:
 * A #MiRandomFunc over PSA's generator; @user_data is ignored.
 */
gboolean mi_crypto_random (guint8 *out, gsize len, gpointer user_data);

/**
 * mi_crypto_hkdf_sha256:
 * RFC 5869; @salt may be empty (equal to 32, and to 16, zero bytes).
 */
gboolean mi_crypto_hkdf_sha256 (const guint8 *ikm, gsize ikm_len, const guint8 *salt,
                                gsize salt_len, const guint8 *info, gsize info_len, guint8 *out,
                                gsize out_len, GError **error);

/**
 * mi_crypto_ccm_seal:
 * AES-128-CCM with a 4-byte tag. @out gets @len + 4 bytes, cipher text then tag.
 */
gboolean mi_crypto_ccm_seal (const guint8 key[16], const guint8 *nonce, gsize nonce_len,
                             const guint8 *aad, gsize aad_len, const guint8 *plain, gsize len,
                             guint8 *out, GError **error);

/**
 * mi_crypto_ccm_open:
 * @sealed: cipher text then tag; @out gets @sealed_len - 4 bytes. A wrong tag is an error.
 */
gboolean mi_crypto_ccm_open (const guint8 key[16], const guint8 *nonce, gsize nonce_len,
                             const guint8 *aad, gsize aad_len, const guint8 *sealed,
                             gsize sealed_len, guint8 *out, GError **error);

gboolean mi_crypto_hmac_sha256 (const guint8 *key, gsize key_len, const guint8 *data, gsize len,
                                guint8 out[32], GError **error);
gboolean mi_crypto_sha256 (const guint8 *data, gsize len, guint8 out[32], GError **error);

/**
 * mi_crypto_equal:
 * Constant-time comparison.
 */
gboolean mi_crypto_equal (const guint8 *a, const guint8 *b, gsize len);

/**
 * mi_crypto_wipe:
 * Overwrites @data for good.
 */
void mi_crypto_wipe (gpointer data, gsize len);

/**
 * MiEcKey:
 * A P-256 private key held by PSA. Public keys are X || Y, 64 bytes big-endian, without the 0x04
 * prefix (protocol/registration.md).
 */
typedef struct _MiEcKey MiEcKey;

/**
 * mi_ec_key_new:
 * @random: 32 bytes are drawn, again while they are 0 or >= n
 */
MiEcKey *mi_ec_key_new (MiRandomFunc random, gpointer user_data, GError **error);
void mi_ec_key_free (MiEcKey *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiEcKey, mi_ec_key_free)
gboolean mi_ec_key_public (MiEcKey *self, guint8 out[64], GError **error);

/**
 * mi_ec_key_agree:
 * @out: the 32-byte X of the shared point. %MI_ERROR_PROTOCOL if @peer is no point of P-256.
 */
gboolean mi_ec_key_agree (MiEcKey *self, const guint8 peer[64], guint8 out[32], GError **error);

/**
 * mi_ec_point_is_valid:
 * Whether @point (X || Y) lies on P-256 and is not the point at infinity.
 */
gboolean mi_ec_point_is_valid (const guint8 point[64]);

/**
 * mi_ecdsa_verify:
 * @signature: r || s, 32 + 32 bytes big-endian, over SHA-256 of @data
 * Returns: whether it verifies with @public_key (X || Y)
 */
gboolean mi_ecdsa_verify (const guint8 public_key[64], const guint8 *data, gsize len,
                          const guint8 signature[64]);

/**
 * mi_ecdsa_sign:
 * @private_key: 32 bytes; for test peers and the simulator's test server
 * @signature: r || s
 */
gboolean mi_ecdsa_sign (const guint8 private_key[32], const guint8 *data, gsize len,
                        guint8 signature[64], GError **error);

/* Checksums of protocol/ota-telink.md section 1 and protocol/image.md sections 1 and 3. */
guint16 mi_crc16_modbus (const guint8 *data, gsize len);
/* Reflected 0xEDB88320 from @start, no final inversion; feed the result back in to go on. */
guint32 mi_crc32 (guint32 start, const guint8 *data, gsize len);

G_END_DECLS
