/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/*
 * The service's envelope "ENCRYPT-RC4" (protocol/registration.md section 6), without I/O, clock or
 * randomness. One envelope serves one request and its answer.
 */

#define CLOUD_RANDOM_LEN        8
#define CLOUD_ENVELOPE_RC4_DROP 1024

/* A form: names and values in the order in which they are signed. */
typedef struct
{
  char *name;
  char *value;
} CloudField;
typedef GPtrArray CloudForm; /* of CloudField; values are overwritten when it is freed */

CloudForm *cloud_form_new (void);
/* Copies both. */
void cloud_form_add (CloudForm *self, const char *name, const char *value);
/* (transfer full): application/x-www-form-urlencoded */
char *cloud_form_encode (const CloudForm *self);
void cloud_form_free (CloudForm *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CloudForm, cloud_form_free)

typedef struct _CloudEnvelope CloudEnvelope;

/*
 * @ssecurity: the session's secret, base64
 * @random: CLOUD_RANDOM_LEN fresh bytes
 * @unix_ms: now
 * Returns: (transfer full) (nullable): NULL if ssecurity is no base64
 */
CloudEnvelope *cloud_envelope_new (const char *ssecurity, const guint8 *random, gint64 unix_ms);
/* Overwrites its keys. */
void cloud_envelope_free (CloudEnvelope *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CloudEnvelope, cloud_envelope_free)

/* Random bytes and minutes since 1970, u32 big-endian; base64. */
const char *cloud_envelope_get_nonce (CloudEnvelope *self);
/* SHA-256 (ssecurity || nonce), base64: the key of signatures and of the cipher. */
const char *cloud_envelope_get_signed_nonce (CloudEnvelope *self);

/*
 * @path: with or without the leading "/app", which is not signed
 * Returns: (transfer full): base64 (SHA-1 (METHOD & path & name=value ... & signed nonce))
 */
char *cloud_envelope_sign (CloudEnvelope *self, const char *method, const char *path,
                           const CloudForm *form);

/* (transfer full): base64 of the encrypted text */
char *cloud_envelope_encrypt (CloudEnvelope *self, const char *plain);
/*
 * Returns: (transfer full) (nullable): the plain bytes of base64 text, one zero byte behind them;
 * NULL if it is no base64. With a foreign key they are noise: the envelope has no check of its own.
 */
char *cloud_envelope_decrypt (CloudEnvelope *self, const char *text, gsize *len);

/* (transfer full): @plain with rc4_hash__, encrypted, with signature, ssecurity and _nonce. */
CloudForm *cloud_envelope_seal (CloudEnvelope *self, const char *method, const char *path,
                                const CloudForm *plain);

/* RC4 whose first @drop key-stream bytes are thrown away; @key_len 1 to 256; @out may be @in. */
void cloud_rc4 (const guint8 *key, gsize key_len, gsize drop, const guint8 *in, guint8 *out,
                gsize len);

G_END_DECLS
