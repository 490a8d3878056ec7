/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

#define MI_ERROR (mi_error_quark ())

/**
 * MiError:
 *
 * What went wrong, told by what the caller can do next. Texts are lower case, without a full
 * stop, and carry the numbers seen; they never carry a secret.
 */
typedef enum
{
  MI_ERROR_INVALID_ARGUMENT,     /* a caller's value is out of range */
  MI_ERROR_PROTOCOL,             /* the device broke the protocol (protocol/framing.md section 5) */
  MI_ERROR_TRANSFER,             /* a chunked message failed: busy, cancelled, lost fragments */
  MI_ERROR_TIMEOUT,              /* a step's time limit passed */
  MI_ERROR_LINK_LOST,            /* the connection dropped */
  MI_ERROR_CANCELLED,            /* the caller asked to stop */
  MI_ERROR_NOT_BOUND,            /* opcode E0: the device holds no keys */
  MI_ERROR_ALREADY_BOUND,        /* opcode E1: bound, and has a reset button */
  MI_ERROR_WRONG_TOKEN,          /* the device's confirmation does not match our token */
  MI_ERROR_LOGIN_REFUSED,        /* opcode 23 */
  MI_ERROR_REGISTRATION_REFUSED, /* opcode 12 */
  MI_ERROR_OOB_NEEDED,           /* opcode E3 */
  MI_ERROR_OOB_REFUSED,          /* the out-of-band value does not match */
  MI_ERROR_CREDENTIAL_NEEDED,    /* authentication version 2, and nobody can supply a credential */
  MI_ERROR_CREDENTIAL_REFUSED,   /* the credential was refused, or does not verify */
  MI_ERROR_UNSUPPORTED,          /* authentication version 3, unknown DFU protocol, ... */
  MI_ERROR_STORAGE,              /* keys could not be made durable */
  MI_ERROR_BAD_IMAGE,            /* the firmware file is not sound */
  MI_ERROR_OTA,                  /* the device reported an OTA result code other than 0 */
  MI_ERROR_DFU,                  /* the device reported a mible DFU status other than 0 */
  MI_ERROR_IO,                   /* reading or writing a characteristic failed */
  MI_ERROR_CRYPTO,               /* the crypto library refused */
} MiError;

/**
 * mi_error_quark:
 *
 * Returns: the error domain of libmi.
 */
GQuark mi_error_quark (void);

G_END_DECLS
