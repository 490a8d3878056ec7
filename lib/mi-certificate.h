/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-error.h"

G_BEGIN_DECLS

/* The vendor's root key (protocol/image.md section 6), X || Y. */
extern const guint8 mi_mijia_root[64];

/**
 * MiCertificate:
 *
 * One parsed X.509 certificate (P-256, ecdsa-with-SHA256), by mbedTLS' x509. Only signatures count
 * for a device; names and dates are for people (protocol/image.md section 4).
 */
typedef struct _MiCertificate MiCertificate;

/**
 * mi_certificate_parse:
 * @der: exactly one certificate, nothing after it; copied
 */
MiCertificate *mi_certificate_parse (const guint8 *der, gsize len, GError **error);
void mi_certificate_free (MiCertificate *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MiCertificate, mi_certificate_free)

/* @out: X || Y */
void mi_certificate_get_public (MiCertificate *self, guint8 out[64]);
/* Whether the signature over its TBS verifies with @issuer_key (X || Y). No dates, no names. */
gboolean mi_certificate_verify (MiCertificate *self, const guint8 issuer_key[64]);
/* Whether @utc (s since 1970) lies within its validity. */
gboolean mi_certificate_valid_at (MiCertificate *self, guint32 utc);
/* The common name, or the organization where there is none (the vendor's have only that). */
const char *mi_certificate_get_subject (MiCertificate *self);
const char *mi_certificate_get_issuer (MiCertificate *self);
const char *mi_certificate_get_serial (MiCertificate *self); /* lower-case hex, no leading zeros */
const guint8 *mi_certificate_get_der (MiCertificate *self, gsize *len);
const char *mi_certificate_get_sha256 (MiCertificate *self); /* of the DER, lower-case hex */

/**
 * mi_certificate_parse_pem:
 * @pem: certificates one after the other and nothing else: BEGIN line, lines of 64 base64 digits
 * (the last may be shorter), END line, every line ending in LF; base64 in its one canonical form
 *
 * So strict that no bit of the text can change without changing a certificate or failing here.
 *
 * Returns: (transfer full) (element-type MiCertificate): at least one
 */
GPtrArray *mi_certificate_parse_pem (const guint8 *pem, gsize len, GError **error);

/**
 * mi_signature_from_der:
 * @der: SEQUENCE of two INTEGERs in strict DER; more may follow it
 * @out: r || s
 * @used: (out): bytes taken
 */
gboolean mi_signature_from_der (const guint8 *der, gsize len, guint8 out[64], gsize *used);

G_END_DECLS
