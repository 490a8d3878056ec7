/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "fuzz.h"

#include "mitherm-credential.h"
#include "mitherm-error.h"

#include "mi-certificate.h"
#include "mi-register.h"

/* What a credential agent answers: whatever it is, it becomes a credential or an error, and a
 * credential can be checked. */

int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static const MiKeys keys = { .auth_version = 2 };
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) verdict = NULL;
  MiCredential *credential;

  fuzz_begin ();
  credential = mitherm_credential_from_json ((const char *) data, size, &error);
  if (credential == NULL)
    {
      g_assert_error (error, MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED);
      g_assert_true (g_utf8_validate (error->message, -1, NULL));
      return 0;
    }
  g_assert_no_error (error);
  g_assert_cmpuint (credential->certificate_len, >, 0);
  g_assert_false (mi_credential_verify (credential, mi_mijia_root, &keys, &verdict));
  g_assert_error (verdict, MI_ERROR, MI_ERROR_CREDENTIAL_REFUSED);
  mitherm_credential_free (credential);
  return 0;
}
