/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* A string that is overwritten before it is freed. */
typedef char CloudSecret;
void cloud_secret_free (CloudSecret *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CloudSecret, cloud_secret_free)

/*
 * (transfer full) (nullable): the bytes of base64 text in the standard or the url-safe alphabet,
 * with or without padding; blanks and line ends are skipped. NULL if anything else is in it, if it
 * is cut off, or if it is empty. One zero byte follows the data.
 */
guint8 *cloud_base64_decode (const char *text, gsize *len);

/* (transfer full) (nullable): exactly @len bytes from hex digits of either case; NULL otherwise. */
guint8 *cloud_hex_decode (const char *text, gsize len);
/* (transfer full): lower-case hex digits */
char *cloud_hex_encode (const guint8 *data, gsize len);

/* (transfer full): text of the service, fit to be shown: valid UTF-8, no control characters, short.
 */
char *cloud_text_for_people (const char *text);

G_END_DECLS
