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

#define MI_READER(bytes, length)                                                                   \
  {                                                                                                \
    (const guint8 *) (bytes), (length), 0, FALSE                                                   \
  }

/* Inline, because they are most of what decoding an advertisement does. */

static inline guint16
mi_get_u16 (const guint8 *in)
{
  return (guint16) (in[0] | in[1] << 8);
}

static inline guint32
mi_get_u32 (const guint8 *in)
{
  return mi_get_u16 (in) | (guint32) mi_get_u16 (in + 2) << 16;
}

static inline const guint8 *
mi_reader_take (MiReader *self, gsize len)
{
  const guint8 *taken;

  if (self->failed || len > self->len - self->pos)
    {
      self->failed = TRUE;
      return NULL;
    }
  /* An empty take must not look like a failure when the reader stands on a NULL buffer. */
  taken = self->data != NULL ? self->data + self->pos : (const guint8 *) "";
  self->pos += len;
  return taken;
}

static inline guint8
mi_reader_u8 (MiReader *self)
{
  const guint8 *p = mi_reader_take (self, 1);

  return p != NULL ? p[0] : 0;
}

static inline guint16
mi_reader_u16 (MiReader *self)
{
  const guint8 *p = mi_reader_take (self, 2);

  return p != NULL ? mi_get_u16 (p) : 0;
}

static inline guint32
mi_reader_u32 (MiReader *self)
{
  const guint8 *p = mi_reader_take (self, 4);

  return p != NULL ? mi_get_u32 (p) : 0;
}

static inline gsize
mi_reader_left (const MiReader *self)
{
  return self->failed ? 0 : self->len - self->pos;
}

/* Nothing left and nothing failed. */
static inline gboolean
mi_reader_at_end (const MiReader *self)
{
  return !self->failed && self->pos == self->len;
}

static inline gboolean
mi_reader_ok (const MiReader *self)
{
  return !self->failed;
}

/* Little-endian stores; @out must have room. */
void mi_put_u16 (guint8 *out, guint16 value);
void mi_put_u32 (guint8 *out, guint32 value);

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
