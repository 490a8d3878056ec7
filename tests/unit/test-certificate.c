/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "vectors.h"

#include "mi-bytes.h"
#include "mi-certificate.h"

#include <string.h>

static guint8 *
chain_der (guint index, gsize *len)
{
  JsonArray *chain = json_object_get_array_member (vectors_load ("image"), "chain");

  return vectors_hex (json_array_get_string_element (chain, index), len);
}

static MiCertificate *
chain_certificate (guint index)
{
  gsize len;
  g_autofree guint8 *der = chain_der (index, &len);
  g_autoptr (GError) error = NULL;
  MiCertificate *certificate = mi_certificate_parse (der, len, &error);

  g_assert_no_error (error);
  return certificate;
}

static void
root_public (guint8 out[64])
{
  JsonObject *root = json_object_get_object_member (vectors_load ("image"), "root");

  g_assert_true (mi_hex_decode (json_object_get_string_member (root, "public"), out, 64));
}

static void
test_vendor_root (void)
{
  JsonObject *vectors = vectors_load ("image");
  JsonObject *expected = json_object_get_object_member (vectors, "mijia_root_certificate");
  gsize len, der_len;
  g_autofree guint8 *der = vectors_bytes (expected, "der", &len);
  g_autoptr (GError) error = NULL;
  g_autoptr (MiCertificate) root = mi_certificate_parse (der, len, &error);
  guint8 key[64], stated[64];
  const guint8 *kept;

  g_assert_no_error (error);
  mi_certificate_get_public (root, key);
  g_assert_true (mi_hex_decode (json_object_get_string_member (vectors, "mijia_root"), stated, 64));
  g_assert_cmpmem (key, 64, stated, 64);
  g_assert_cmpmem (mi_mijia_root, 64, stated, 64);
  g_assert_true (mi_certificate_verify (root, mi_mijia_root));
  g_assert_cmpstr (mi_certificate_get_sha256 (root), ==,
                   json_object_get_string_member (expected, "sha256"));
  g_assert_cmpstr (mi_certificate_get_subject (root), ==, "Mijia Root");
  g_assert_cmpstr (mi_certificate_get_issuer (root), ==, "Mijia Root");
  kept = mi_certificate_get_der (root, &der_len);
  g_assert_cmpmem (kept, der_len, der, len);
}

static void
test_chain (void)
{
  g_autoptr (MiCertificate) first = chain_certificate (0), second = chain_certificate (1);
  guint8 root[64], first_key[64];

  root_public (root);
  mi_certificate_get_public (first, first_key);
  g_assert_true (mi_certificate_verify (first, root));
  g_assert_true (mi_certificate_verify (second, first_key));
  g_assert_false (mi_certificate_verify (second, root));
  g_assert_false (mi_certificate_verify (first, mi_mijia_root));
  g_assert_cmpstr (mi_certificate_get_subject (second), ==, "signer");
  g_assert_cmpstr (mi_certificate_get_serial (second), ==, "3");
}

static void
test_validity (void)
{
  JsonObject *expected
      = json_object_get_object_member (vectors_load ("image"), "mijia_root_certificate");
  gsize len;
  g_autofree guint8 *der = vectors_bytes (expected, "der", &len);
  g_autoptr (MiCertificate) root = mi_certificate_parse (der, len, NULL);
  guint32 first = 1479865185; /* 2016-11-23 01:39:45 */
  guint32 last = 3056665185;  /* 2066-11-11 01:39:45 */

  g_assert_false (mi_certificate_valid_at (root, 0));
  g_assert_false (mi_certificate_valid_at (root, first - 1));
  g_assert_true (mi_certificate_valid_at (root, first));
  g_assert_true (mi_certificate_valid_at (root, last));
  g_assert_false (mi_certificate_valid_at (root, last + 1));
  g_assert_false (mi_certificate_valid_at (root, G_MAXUINT32));
}

/* Every flipped bit of a certificate is refused by the parser or by the issuer's key. */
static void
test_flipped_bits (void)
{
  gsize len, bit;
  g_autofree guint8 *der = chain_der (0, &len);
  guint8 root[64];

  root_public (root);
  for (bit = 0; bit < len * 8; bit++)
    {
      g_autoptr (MiCertificate) certificate = NULL;

      der[bit / 8] ^= (guint8) (1 << bit % 8);
      certificate = mi_certificate_parse (der, len, NULL);
      if (certificate != NULL && mi_certificate_verify (certificate, root))
        g_error ("bit %" G_GSIZE_FORMAT " flipped, and still verified", bit);
      der[bit / 8] ^= (guint8) (1 << bit % 8);
    }
}

static void
test_truncated (void)
{
  gsize len, i;
  g_autofree guint8 *der = chain_der (0, &len);
  g_autofree guint8 *longer = g_malloc0 (len + 1);

  for (i = 0; i < len; i++)
    {
      g_autofree guint8 *copy = g_memdup2 (der, i);
      g_autoptr (GError) error = NULL;

      g_assert_null (mi_certificate_parse (copy, i, &error));
      g_assert_nonnull (error);
    }
  memcpy (longer, der, len);
  g_assert_null (mi_certificate_parse (longer, len + 1, NULL));
}

/* Signatures */

static void
check_signature (const char *hex, gboolean good, gsize expected_used)
{
  gsize len, used = 0;
  g_autofree guint8 *der = vectors_hex (hex, &len);
  guint8 out[64];

  g_assert_true (mi_signature_from_der (der, len, out, &used) == good);
  if (good)
    g_assert_cmpuint (used, ==, expected_used);
}

static void
test_signature_forms (void)
{
  static const char *const bad[] = {
    "00",                 /* nothing */
    "3006020101",         /* shorter than it says */
    "3103020101",         /* SET */
    "300602010102810101", /* long form where the short one does */
    "30810602010102010"
    "1", /* the same for the sequence */
    "3080020101020101"
    "0000",                   /* indefinite length */
    "300702020001020101",     /* leading zero without need */
    "3006020181020101",       /* negative */
    "30050200020101",         /* empty integer */
    "3009020101020101020101", /* three integers */
    "3003020101",             /* one integer */
    "3006030101020101",       /* BIT STRING */
  };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (bad); i++)
    check_signature (bad[i], FALSE, 0);
  check_signature ("3006020101020102", TRUE, 8);
  check_signature ("3006020101020102ffff", TRUE, 8); /* padding may follow */
  check_signature ("30070202008102017f", TRUE, 9);
}

static void
test_signature_value (void)
{
  static const guint8 der[] = { 0x30, 0x07, 0x02, 0x02, 0x00, 0x81, 0x02, 0x01, 0x7f };
  guint8 out[64], expected[64] = { 0 };

  expected[31] = 0x81;
  expected[63] = 0x7f;
  g_assert_true (mi_signature_from_der (der, sizeof der, out, NULL));
  g_assert_cmpmem (out, 64, expected, 64);
}

static void
test_scalar_of_33_bytes (void)
{
  guint8 der[2 + 35 + 3] = { 0x30, 38, 0x02, 33, 0x01 }, out[64];

  der[37] = 0x02;
  der[38] = 1;
  der[39] = 1;
  g_assert_false (mi_signature_from_der (der, sizeof der, out, NULL));
  der[4] = 0x00;
  der[5] = 0x80;
  g_assert_true (mi_signature_from_der (der, sizeof der, out, NULL));
  g_assert_cmpuint (out[0], ==, 0x80);
}

/* PEM */

static GString *
chain_pem (void)
{
  GString *pem = g_string_new (NULL);
  guint index;

  for (index = 0; index < 2; index++)
    {
      gsize len, i;
      g_autofree guint8 *der = chain_der (index, &len);
      g_autofree char *text = g_base64_encode (der, len);

      g_string_append (pem, "-----BEGIN CERTIFICATE-----\n");
      for (i = 0; i < strlen (text); i += 64)
        g_string_append_printf (pem, "%.64s\n", text + i);
      g_string_append (pem, "-----END CERTIFICATE-----\n");
    }
  return pem;
}

static gboolean
pem_is_accepted (GString *pem)
{
  g_autoptr (GPtrArray) list = mi_certificate_parse_pem ((const guint8 *) pem->str, pem->len, NULL);

  return list != NULL;
}

static void
test_pem (void)
{
  g_autoptr (GString) pem = chain_pem ();
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) list
      = mi_certificate_parse_pem ((const guint8 *) pem->str, pem->len, &error);

  g_assert_no_error (error);
  g_assert_cmpuint (list->len, ==, 2);
}

static void
check_pem_edit (gsize at, gsize erase, const char *insert)
{
  g_autoptr (GString) pem = chain_pem ();

  g_string_erase (pem, (gssize) at, (gssize) erase);
  g_string_insert (pem, (gssize) at, insert);
  g_assert_false (pem_is_accepted (pem));
}

static void
test_pem_is_strict (void)
{
  g_autoptr (GString) pem = chain_pem ();
  gsize second = (gsize) (strstr (pem->str + 1, "-----BEGIN") - pem->str);

  g_assert_true (pem_is_accepted (pem));
  check_pem_edit (0, 0, "\n");             /* a blank line before */
  check_pem_edit (second, 0, "\n");        /* between */
  check_pem_edit (second, 0, "garbage\n"); /* text between */
  check_pem_edit (pem->len, 0, "\n");      /* after */
  check_pem_edit (pem->len - 1, 1, "");    /* no LF at the end */
  check_pem_edit (27, 1, "\r\n");          /* CR LF */
  check_pem_edit (28 + 64, 1, " \n");      /* a blank at the end of a line */
  check_pem_edit (28 + 63, 0, "\n");       /* a line that is broken early */
  check_pem_edit (28 + 64, 1, "");         /* two lines in one */
  check_pem_edit (0, pem->len, "");        /* nothing */
}

static void
test_pem_stray_bits (void)
{
  g_autoptr (GString) pem = chain_pem ();
  char *pad = strchr (pem->str, '=');

  /* The bits of the last digit that no byte takes must be 0; decoders ignore them. */
  g_assert_nonnull (pad);
  pad[-1]++;
  g_assert_false (pem_is_accepted (pem));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/certificate/vendor-root", test_vendor_root);
  g_test_add_func ("/certificate/chain-verifies-with-its-own-issuers-only", test_chain);
  g_test_add_func ("/certificate/validity", test_validity);
  g_test_add_func ("/certificate/every-flipped-bit-is-seen", test_flipped_bits);
  g_test_add_func ("/certificate/other-lengths-are-refused", test_truncated);
  g_test_add_func ("/certificate/signature/only-strict-der", test_signature_forms);
  g_test_add_func ("/certificate/signature/value-is-right-aligned", test_signature_value);
  g_test_add_func ("/certificate/signature/scalar-of-33-bytes-is-refused", test_scalar_of_33_bytes);
  g_test_add_func ("/certificate/pem/two-certificates", test_pem);
  g_test_add_func ("/certificate/pem/only-one-form", test_pem_is_strict);
  g_test_add_func ("/certificate/pem/stray-bits-are-refused", test_pem_stray_bits);
  return g_test_run ();
}
