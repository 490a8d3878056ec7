/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/**
 * MiReader:
 *
 * A checked cursor over bytes from outside: the only code of libmi that does pointer arithmetic
 * on input. A getter that runs past the end gives 0 or NULL and marks the reader failed; once
 * failed it stays failed, so one check at the end is enough. All integers are little-endian.
 */
typedef struct
{
  const guint8 *data;
  gsize len;
  gsize pos;
  gboolean failed;
} MiReader;

#define MI_READER(bytes, length) { (const guint8 *) (bytes), (length), 0, FALSE }

const guint8 *mi_reader_take (MiReader *self, gsize len);
guint8 mi_reader_u8 (MiReader *self);
guint16 mi_reader_u16 (MiReader *self);
guint32 mi_reader_u32 (MiReader *self);
gsize mi_reader_left (const MiReader *self);
gboolean mi_reader_at_end (const MiReader *self); /* nothing left and nothing failed */
gboolean mi_reader_ok (const MiReader *self);

/* Little-endian stores; @out must have room. */
void mi_put_u16 (guint8 *out, guint16 value);
void mi_put_u32 (guint8 *out, guint32 value);
guint16 mi_get_u16 (const guint8 *in);
guint32 mi_get_u32 (const guint8 *in);

/**
 * mi_hex_decode:
 * @hex: two digits per byte, either case, nothing else
 * @out: room for @out_len bytes
 *
 * Returns: %TRUE if @hex is exactly @out_len bytes
 */
gboolean mi_hex_decode (const char *hex, guint8 *out, gsize out_len);

/**
 * mi_hex_decode_alloc:
 * Returns: (transfer full) (nullable): the bytes, or NULL if @hex is no even run of hex digits
 */
guint8 *mi_hex_decode_alloc (const char *hex, gsize *out_len);

/**
 * mi_hex_encode:
 * Returns: (transfer full): lower-case hex
 */
char *mi_hex_encode (const guint8 *data, gsize len);

/**
 * mi_address_parse:
 * @text: "A4:C1:38:00:00:01", either case
 * @out: 6 bytes in display order
 */
gboolean mi_address_parse (const char *text, guint8 out[6]);

G_END_DECLS
