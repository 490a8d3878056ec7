/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-certificate.h"

#include "mi-bytes.h"
#include "mi-crypto.h"

#include <mbedtls/x509_crt.h>

#include <string.h>

#define TAG_INTEGER    0x02
#define TAG_BIT_STRING 0x03
#define TAG_NULL       0x05
#define TAG_OID        0x06
#define TAG_SEQUENCE   0x30

/* Larger than any certificate that a thermometer could hold. */
#define MAX_DER 4096

#define PEM_BEGIN "-----BEGIN CERTIFICATE-----\n"
#define PEM_END   "-----END CERTIFICATE-----\n"
#define PEM_LINE  64

/* protocol/image.md section 6 */
const guint8 mi_mijia_root[64] = {
  0xbe, 0xf5, 0x8b, 0x02, 0xda, 0xe3, 0xff, 0xf8, 0x54, 0x1a, 0xa0, 0x44, 0x8f, 0xba, 0xc4, 0x4d,
  0xb7, 0xc6, 0x9a, 0x2f, 0xa8, 0xf0, 0xb1, 0xb6, 0xff, 0x7a, 0xd9, 0x51, 0xdb, 0x66, 0x28, 0xfa,
  0xd7, 0xf0, 0x20, 0xea, 0x39, 0xa2, 0xee, 0x86, 0x7f, 0xdd, 0x78, 0x3f, 0xdc, 0x2f, 0xb0, 0x86,
  0x09, 0x5c, 0xc2, 0x85, 0x04, 0x13, 0xa2, 0x80, 0x2c, 0x62, 0x7d, 0xbd, 0xc7, 0x15, 0xf4, 0xf9,
};

/* ecdsa-with-SHA256, 1.2.840.10045.4.3.2 */
static const guint8 oid_ecdsa_sha256[] = { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02 };

/* SubjectPublicKeyInfo of an uncompressed P-256 point, up to its 0x04. */
static const guint8 spki_p256[]
    = { 0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
        0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04 };

struct _MiCertificate
{
  mbedtls_x509_crt crt;
  gsize tbs_offset;
  gsize tbs_len;
  guint8 signature[64];
  guint8 public[64];
  char *subject;
  char *issuer;
  char *serial;
  char *sha256;
};

/* One strict-DER element: definite length in its shortest form. */
static const guint8 *
take_element (MiReader *in, guint8 tag, gsize *len)
{
  gsize value_len;

  if (mi_reader_u8 (in) != tag)
    {
      in->failed = TRUE;
      return NULL;
    }
  value_len = mi_reader_u8 (in);
  if (value_len & 0x80)
    {
      guint n_bytes = value_len & 0x7f;
      gsize least = n_bytes == 1 ? 0x80 : 0x100;

      if (n_bytes < 1 || n_bytes > 2)
        {
          in->failed = TRUE;
          return NULL;
        }
      for (value_len = 0; n_bytes > 0; n_bytes--)
        value_len = value_len << 8 | mi_reader_u8 (in);
      if (value_len < least)
        {
          in->failed = TRUE;
          return NULL;
        }
    }
  *len = value_len;
  return mi_reader_take (in, value_len);
}

/* A positive INTEGER of at most 32 bytes, in its shortest form, right-aligned into @out. */
static gboolean
take_scalar (MiReader *in, guint8 out[32])
{
  gsize len = 0;
  const guint8 *value = take_element (in, TAG_INTEGER, &len);

  if (value == NULL || len == 0 || value[0] & 0x80)
    return FALSE;
  if (value[0] == 0 && len > 1)
    {
      if (!(value[1] & 0x80))
        return FALSE;
      value++;
      len--;
    }
  if (len > 32)
    return FALSE;
  memset (out, 0, 32 - len);
  memcpy (out + 32 - len, value, len);
  return TRUE;
}

gboolean
mi_signature_from_der (const guint8 *der, gsize len, guint8 out[64], gsize *used)
{
  MiReader in = MI_READER (der, len);
  gsize body_len = 0;
  const guint8 *body = take_element (&in, TAG_SEQUENCE, &body_len);
  guint8 scalars[64];
  MiReader inner = MI_READER (body, body_len);

  if (body == NULL || !take_scalar (&inner, scalars) || !take_scalar (&inner, scalars + 32)
      || !mi_reader_at_end (&inner))
    return FALSE;
  memcpy (out, scalars, sizeof scalars);
  if (used != NULL)
    *used = in.pos;
  return TRUE;
}

static gboolean
is_ecdsa_sha256 (const guint8 *algorithm, gsize len)
{
  MiReader in = MI_READER (algorithm, len);
  gsize oid_len = 0;
  const guint8 *oid = take_element (&in, TAG_OID, &oid_len);

  if (oid == NULL || oid_len != sizeof oid_ecdsa_sha256
      || memcmp (oid, oid_ecdsa_sha256, oid_len) != 0)
    return FALSE;
  if (mi_reader_left (&in) > 0)
    {
      gsize null_len = 0;

      /* The vendor's root writes the parameters as NULL. */
      take_element (&in, TAG_NULL, &null_len);
      if (null_len != 0)
        return FALSE;
    }
  return mi_reader_at_end (&in);
}

/*
 * SEQUENCE { tbs, algorithm, BIT STRING { signature } } and nothing more. mbedTLS keeps the
 * signature's place to itself since 3.0, so it is found here.
 */
static gboolean
split (MiCertificate *self, const guint8 *der, gsize len)
{
  MiReader in = MI_READER (der, len);
  gsize body_len = 0, tbs_len = 0, algorithm_len = 0, bits_len = 0, used = 0;
  const guint8 *body = take_element (&in, TAG_SEQUENCE, &body_len);
  MiReader inner = MI_READER (body, body_len);
  const guint8 *algorithm, *bits;

  if (body == NULL || !mi_reader_at_end (&in))
    return FALSE;
  if (take_element (&inner, TAG_SEQUENCE, &tbs_len) == NULL)
    return FALSE;
  self->tbs_offset = (gsize) (body - der);
  self->tbs_len = inner.pos;
  algorithm = take_element (&inner, TAG_SEQUENCE, &algorithm_len);
  bits = take_element (&inner, TAG_BIT_STRING, &bits_len);
  if (algorithm == NULL || bits == NULL || !mi_reader_at_end (&inner))
    return FALSE;
  if (!is_ecdsa_sha256 (algorithm, algorithm_len) || bits_len < 1 || bits[0] != 0)
    return FALSE;
  return mi_signature_from_der (bits + 1, bits_len - 1, self->signature, &used)
         && used == bits_len - 1;
}

/* The text of attribute 2.5.4.@last, or NULL. */
static char *
find_attribute (const mbedtls_x509_name *name, guint8 last)
{
  for (; name != NULL; name = name->next)
    {
      const guint8 oid[] = { 0x55, 0x04, last };

      if (name->oid.len == sizeof oid && name->oid.p != NULL
          && memcmp (name->oid.p, oid, sizeof oid) == 0)
        return g_utf8_make_valid ((const char *) name->val.p, (gssize) name->val.len);
    }
  return NULL;
}

static char *
name_text (const mbedtls_x509_name *name)
{
  char *text = find_attribute (name, 3); /* commonName */

  if (text == NULL)
    text = find_attribute (name, 10); /* organizationName */
  return text != NULL ? text : g_strdup ("");
}

static char *
serial_text (const mbedtls_x509_buf *serial)
{
  g_autofree char *hex = mi_hex_encode (serial->p, serial->len);
  const char *p = hex;

  while (p[0] == '0' && p[1] != '\0')
    p++;
  return g_strdup (p);
}

static gboolean
take_public (MiCertificate *self)
{
  guint8 buffer[256];
  int len = mbedtls_pk_write_pubkey_der (&self->crt.pk, buffer, sizeof buffer);
  const guint8 *der;

  if (len != (int) sizeof spki_p256 + 64)
    return FALSE;
  der = buffer + sizeof buffer - len;
  if (memcmp (der, spki_p256, sizeof spki_p256) != 0)
    return FALSE;
  memcpy (self->public, der + sizeof spki_p256, 64);
  return TRUE;
}

static gboolean
bad_certificate (GError **error, const char *what, gsize len)
{
  g_set_error (error, MI_ERROR, MI_ERROR_INVALID_ARGUMENT,
               "certificate of %" G_GSIZE_FORMAT " bytes: %s", len, what);
  return FALSE;
}

static gboolean
fill (MiCertificate *self, const guint8 *der, gsize len, GError **error)
{
  guint8 digest[32];
  int status;

  if (!split (self, der, len))
    return bad_certificate (error, "not a certificate signed with ecdsa-with-SHA256 in strict DER",
                            len);
  /* Before mbedTLS' parser, which needs PSA running from 4.0 on. */
  if (!mi_crypto_sha256 (der, len, digest, error))
    return FALSE;
  status = mbedtls_x509_crt_parse_der (&self->crt, der, len);
  if (status != 0)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_INVALID_ARGUMENT,
                   "certificate of %" G_GSIZE_FORMAT " bytes: X.509 parser refuses it (-0x%04x)",
                   len, (guint) -status);
      return FALSE;
    }
  if (!take_public (self))
    return bad_certificate (error, "its key is not a point of P-256", len);
  self->subject = name_text (&self->crt.subject);
  self->issuer = name_text (&self->crt.issuer);
  self->serial = serial_text (&self->crt.serial);
  self->sha256 = mi_hex_encode (digest, sizeof digest);
  return TRUE;
}

MiCertificate *
mi_certificate_parse (const guint8 *der, gsize len, GError **error)
{
  g_autoptr (MiCertificate) self = NULL;

  if (der == NULL || len == 0 || len > MAX_DER)
    {
      bad_certificate (error, "impossible size", len);
      return NULL;
    }
  self = g_new0 (MiCertificate, 1);
  mbedtls_x509_crt_init (&self->crt);
  if (!fill (self, der, len, error))
    return NULL;
  return g_steal_pointer (&self);
}

void
mi_certificate_free (MiCertificate *self)
{
  if (self == NULL)
    return;
  mbedtls_x509_crt_free (&self->crt);
  g_free (self->subject);
  g_free (self->issuer);
  g_free (self->serial);
  g_free (self->sha256);
  g_free (self);
}

void
mi_certificate_get_public (MiCertificate *self, guint8 out[64])
{
  memcpy (out, self->public, sizeof self->public);
}

gboolean
mi_certificate_verify (MiCertificate *self, const guint8 issuer_key[64])
{
  return mi_ecdsa_verify (issuer_key, self->crt.raw.p + self->tbs_offset, self->tbs_len,
                          self->signature);
}

/* One number that orders as the time does. */
static gint64
time_rank (int year, int month, int day, int hour, int minute, int second)
{
  return ((((((gint64) year * 100 + month) * 100 + day) * 100 + hour) * 100 + minute) * 100)
         + second;
}

static gint64
x509_time_rank (const mbedtls_x509_time *t)
{
  return time_rank (t->year, t->mon, t->day, t->hour, t->min, t->sec);
}

gboolean
mi_certificate_valid_at (MiCertificate *self, guint32 utc)
{
  g_autoptr (GDateTime) at = g_date_time_new_from_unix_utc (utc);
  gint64 rank = time_rank (g_date_time_get_year (at), g_date_time_get_month (at),
                           g_date_time_get_day_of_month (at), g_date_time_get_hour (at),
                           g_date_time_get_minute (at), g_date_time_get_second (at));

  return rank >= x509_time_rank (&self->crt.valid_from)
         && rank <= x509_time_rank (&self->crt.valid_to);
}

const char *
mi_certificate_get_subject (MiCertificate *self)
{
  return self->subject;
}

const char *
mi_certificate_get_issuer (MiCertificate *self)
{
  return self->issuer;
}

const char *
mi_certificate_get_serial (MiCertificate *self)
{
  return self->serial;
}

const char *
mi_certificate_get_sha256 (MiCertificate *self)
{
  return self->sha256;
}

const guint8 *
mi_certificate_get_der (MiCertificate *self, gsize *len)
{
  if (len != NULL)
    *len = self->crt.raw.len;
  return self->crt.raw.p;
}

static gboolean
take_text (MiReader *in, const char *text)
{
  const guint8 *p = mi_reader_take (in, strlen (text));

  return p != NULL && memcmp (p, text, strlen (text)) == 0;
}

/* One line of base64 without its LF; NULL: no such line. */
static const guint8 *
take_base64_line (MiReader *in, gsize *len)
{
  MiReader ahead = *in;
  guint8 c;

  *len = 0;
  while ((c = mi_reader_u8 (&ahead)) != '\n')
    {
      if (!mi_reader_ok (&ahead) || !(g_ascii_isalnum (c) || c == '+' || c == '/' || c == '=')
          || ++*len > PEM_LINE)
        return NULL;
    }
  if (*len == 0)
    return NULL;
  mi_reader_take (in, *len + 1);
  return in->data + in->pos - *len - 1;
}

/* The lines up to the END line, joined; every line but the last is full. */
static char *
take_base64_body (MiReader *in)
{
  g_autoptr (GString) text = g_string_new (NULL);
  gsize len, last = PEM_LINE;

  while (mi_reader_left (in) > 0 && in->data[in->pos] != '-')
    {
      const guint8 *line = take_base64_line (in, &len);

      if (line == NULL || last != PEM_LINE || text->len > 2 * MAX_DER)
        return NULL;
      g_string_append_len (text, (const char *) line, (gssize) len);
      last = len;
    }
  return g_string_free (g_steal_pointer (&text), FALSE);
}

static MiCertificate *
take_pem (MiReader *in, GError **error)
{
  g_autofree char *text = NULL, *canonical = NULL;
  g_autofree guint8 *der = NULL;
  gsize at = in->pos, len = 0;

  if (take_text (in, PEM_BEGIN))
    text = take_base64_body (in);
  if (text == NULL || !take_text (in, PEM_END))
    {
      g_set_error (error, MI_ERROR, MI_ERROR_INVALID_ARGUMENT,
                   "no strict PEM certificate at offset %" G_GSIZE_FORMAT, at);
      return NULL;
    }
  /* Decoders forgive stray bits and padding; the round trip does not. */
  der = g_base64_decode (text, &len);
  canonical = g_base64_encode (der, len);
  if (strcmp (text, canonical) != 0)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_INVALID_ARGUMENT,
                   "base64 of the certificate at offset %" G_GSIZE_FORMAT " is not canonical", at);
      return NULL;
    }
  return mi_certificate_parse (der, len, error);
}

GPtrArray *
mi_certificate_parse_pem (const guint8 *pem, gsize len, GError **error)
{
  g_autoptr (GPtrArray) list
      = g_ptr_array_new_with_free_func ((GDestroyNotify) mi_certificate_free);
  MiReader in = MI_READER (pem, len);

  do
    {
      MiCertificate *certificate = take_pem (&in, error);

      if (certificate == NULL)
        return NULL;
      g_ptr_array_add (list, certificate);
    }
  while (mi_reader_left (&in) > 0);
  return g_steal_pointer (&list);
}
