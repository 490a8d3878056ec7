/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "cloud-error.h"

G_DEFINE_QUARK (cloud - error - quark, cloud_error)

const char *
cloud_error_name (const GError *error)
{
  static const char *const names[] = {
    [CLOUD_ERROR_EXPIRED_SESSION] = "expired-session",
    [CLOUD_ERROR_REFUSED] = "refused",
    [CLOUD_ERROR_NETWORK] = "network",
    [CLOUD_ERROR_MALFORMED] = "malformed",
    [CLOUD_ERROR_WRONG_REGION] = "wrong-region",
    [CLOUD_ERROR_TIMEOUT] = "timeout",
    [CLOUD_ERROR_BAD_REQUEST] = "bad-request",
    [CLOUD_ERROR_BAD_SESSION] = "bad-session",
    [CLOUD_ERROR_NOT_PERMITTED] = "not-permitted",
  };

  if (error->domain != CLOUD_ERROR || (guint) error->code >= G_N_ELEMENTS (names))
    return names[CLOUD_ERROR_NETWORK];
  return names[error->code];
}
