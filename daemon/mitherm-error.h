/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

#define MITHERM_ERROR (mitherm_error_quark ())

/* Exactly the names org.mitherm.Error.*, in both directions on the bus. */
typedef enum
{
  MITHERM_ERROR_ALREADY_BOUND,
  MITHERM_ERROR_AUTH_FAILED,
  MITHERM_ERROR_BAD_IMAGE,
  MITHERM_ERROR_BATTERY_LOW,
  MITHERM_ERROR_BUSY,
  MITHERM_ERROR_CANCELLED,
  MITHERM_ERROR_CREDENTIAL_REFUSED,
  MITHERM_ERROR_INVALID_ARGS,
  MITHERM_ERROR_LINK_LOST,
  MITHERM_ERROR_NEEDS_CREDENTIAL,
  MITHERM_ERROR_NO_KEYS,
  MITHERM_ERROR_NOT_AUTHORIZED,
  MITHERM_ERROR_NOT_BOUND,
  MITHERM_ERROR_NOT_FOUND,
  MITHERM_ERROR_NOT_SIGNED,
  MITHERM_ERROR_NOT_UPDATED,
  MITHERM_ERROR_PROTOCOL,
  MITHERM_ERROR_STORAGE,
  MITHERM_ERROR_TIMEOUT,
  MITHERM_ERROR_UNSUPPORTED,
  MITHERM_ERROR_WRONG_HARDWARE,
} MithermError;

GQuark mitherm_error_quark (void);

/* Returns: (transfer none): "org.mitherm.Error.AuthFailed" */
const char *mitherm_error_name (MithermError code);

/* Translates an error of libmi, GIO or BlueZ into MITHERM_ERROR, keeping the text. */
GError *mitherm_error_translate (const GError *error);

G_END_DECLS
