/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* What went wrong, by what the user can do next. */
typedef enum
{
  CLOUD_ERROR_EXPIRED_SESSION, /* sign in again, write a new session file */
  CLOUD_ERROR_REFUSED,         /* the service said no */
  CLOUD_ERROR_NETWORK,         /* not reached, or not the service (TLS) */
  CLOUD_ERROR_MALFORMED,       /* the service's answer makes no sense */
  CLOUD_ERROR_WRONG_REGION,    /* the account lives on another region's host */
  CLOUD_ERROR_TIMEOUT,         /* no answer within the thermometer's time */
  CLOUD_ERROR_BAD_REQUEST,     /* what came on standard input is no request */
  CLOUD_ERROR_BAD_SESSION,     /* session file absent, open to others, or incomplete */
  CLOUD_ERROR_NOT_PERMITTED,   /* run as root */
} CloudError;

#define CLOUD_ERROR (cloud_error_quark ())
GQuark cloud_error_quark (void);

/* The name for member "error" of the answer, such as "expired-session"; an error of another domain
   is "network". */
const char *cloud_error_name (const GError *error);

G_END_DECLS
