/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/*
 * AES keys that PSA keeps between uses, so that a frame costs no import. mbedTLS 2.28 has 32 slots
 * for the whole process: at most MI_CRYPTO_KEYS_MAX of them are taken here, the key that was not
 * used for longest gives way and is imported again at its next use. One thread only.
 */
#define MI_CRYPTO_KEYS_MAX 24

typedef struct _MiCryptoKey MiCryptoKey;

typedef enum
{
  MI_CRYPTO_KEY_TAG4,     /* for mi_crypto_key_open() */
  MI_CRYPTO_KEY_TAG_BYTE, /* for mi_crypto_key_open_tag_byte() */
} MiCryptoKeyUse;

/**
 * mi_crypto_key_new:
 * @key: copied; wiped by mi_crypto_key_free()
 *
 * Nothing reaches PSA before the first use.
 */
MiCryptoKey *mi_crypto_key_new (const guint8 key[16], MiCryptoKeyUse use);
void mi_crypto_key_free (MiCryptoKey *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiCryptoKey, mi_crypto_key_free)

/**
 * mi_crypto_key_open:
 * @sealed: cipher text, then the tag of 4 bytes
 * @out: room for @sealed_len - 4 bytes, apart from @sealed; all zero after a failure
 *
 * AES-128-CCM (protocol/advertising.md section 3.6, v4 and v5). No GError: it is called for every
 * frame, and a wrong tag is its ordinary failure.
 *
 * Returns: whether the tag is right
 */
gboolean mi_crypto_key_open (MiCryptoKey *self, const guint8 *nonce, gsize nonce_len,
                             const guint8 *aad, gsize aad_len, const guint8 *sealed,
                             gsize sealed_len, guint8 *out);

/**
 * mi_crypto_key_open_tag_byte:
 * @tag_byte: first byte of the CCM tag of 16 bytes
 * @out: room for @len + 16 bytes, of which @len are the plain text; all zero after a failure
 *
 * The same for MiBeacon v2 and v3, which transmit one byte of the tag only.
 */
gboolean mi_crypto_key_open_tag_byte (MiCryptoKey *self, const guint8 *nonce, gsize nonce_len,
                                      const guint8 *aad, gsize aad_len, const guint8 *cipher,
                                      gsize len, guint8 tag_byte, guint8 *out);

/* Returns: how many keys PSA holds for this module now, for tests */
guint mi_crypto_key_count_imported (void);

G_END_DECLS
