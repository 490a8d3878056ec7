/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/* What to do about a failed call to org.bluez. */
typedef enum
{
  MITHERM_BLUEZ_FATAL,     /* repeating it changes nothing */
  MITHERM_BLUEZ_TRANSIENT, /* the radio had bad luck: again after a short pause */
  MITHERM_BLUEZ_BUSY,      /* another client is at work: again after 1 s or more */
  MITHERM_BLUEZ_GONE,      /* object, adapter or bluetoothd is away: again when it is back */
  MITHERM_BLUEZ_FINE,      /* what was asked for is so already */
  MITHERM_BLUEZ_OUTDATED,  /* BlueZ has kept services of an earlier firmware */
} MithermBluezVerdict;

/**
 * mitherm_bluez_error_classify:
 * @error: from a D-Bus call to org.bluez
 * @code: (out) (optional): the MITHERM_ERROR that a user would be told, -1 if the table knows none
 *
 * The one table of BlueZ's errors: names and, because nearly everything is called Failed, texts.
 */
MithermBluezVerdict mitherm_bluez_error_classify (const GError *error, int *code);

G_END_DECLS
