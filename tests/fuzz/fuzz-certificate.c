/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include "mi-certificate.h"
#include "mi-register.h"

#include <string.h>

static void
look (MiCertificate *certificate, gsize most)
{
  guint8 public_key[64];
  gsize len;

  mi_certificate_get_public (certificate, public_key);
  /* Whatever was changed, the root key has not signed it: the vendor's own are not in the corpus.
   */
  mi_certificate_verify (certificate, mi_mijia_root);
  mi_certificate_valid_at (certificate, 1600000000);
  g_assert (mi_certificate_get_subject (certificate) != NULL);
  g_assert (mi_certificate_get_issuer (certificate) != NULL);
  g_assert (mi_certificate_get_serial (certificate) != NULL);
  g_assert (mi_certificate_get_der (certificate, &len) != NULL && len <= most);
  g_assert (strlen (mi_certificate_get_sha256 (certificate)) == 64);
}

static void
parse_der (const guint8 *data, gsize len)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (MiCertificate) certificate = mi_certificate_parse (data, len, &error);

  g_assert ((certificate == NULL) == (error != NULL));
  if (certificate != NULL)
    look (certificate, len);
}

static void
parse_pem (const guint8 *data, gsize len)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) certificates = mi_certificate_parse_pem (data, len, &error);

  g_assert ((certificates == NULL) == (error != NULL));
  for (guint i = 0; certificates != NULL && i < certificates->len; i++)
    look (certificates->pdata[i], len);
}

static void
parse_signature (const guint8 *data, gsize len)
{
  guint8 signature[64];
  gsize used = 0;

  if (mi_signature_from_der (data, len, signature, &used))
    g_assert (used >= 8 && used <= len);
}

static void
verify_credential (const guint8 *data, gsize len)
{
  static const MiKeys keys = { .auth_version = 2 };
  MiCredential credential = { .utc = 1600000000, .certificate = data, .certificate_len = len };
  g_autoptr (GError) error = NULL;

  if (!mi_credential_verify (&credential, mi_mijia_root, &keys, &error))
    g_assert_error (error, MI_ERROR, MI_ERROR_CREDENTIAL_REFUSED);
}

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  MiReader in = MI_READER (data, size);
  guint8 mode = mi_reader_u8 (&in);
  gsize len = mi_reader_left (&in);
  g_autofree guint8 *exact = NULL;

  fuzz_begin ();
  /* Never NULL: an empty file has an address, too. */
  exact = g_malloc (len + 1);
  memcpy (exact, mi_reader_take (&in, len) != NULL ? data + size - len : exact, len);
  exact = g_realloc (exact, MAX (len, 1));
  switch (mode % 4)
    {
    case 0:
      parse_der (exact, len);
      break;
    case 1:
      parse_pem (exact, len);
      break;
    case 2:
      parse_signature (exact, len);
      break;
    default:
      verify_credential (exact, len);
      break;
    }
  return 0;
}
