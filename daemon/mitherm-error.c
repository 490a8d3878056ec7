/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-error.h"

#include "mi-error.h"
#include "mitherm-bluez-error.h"

static const GDBusErrorEntry names[] = {
  { MITHERM_ERROR_ALREADY_BOUND, "org.mitherm.Error.AlreadyBound" },
  { MITHERM_ERROR_AUTH_FAILED, "org.mitherm.Error.AuthFailed" },
  { MITHERM_ERROR_BAD_IMAGE, "org.mitherm.Error.BadImage" },
  { MITHERM_ERROR_BATTERY_LOW, "org.mitherm.Error.BatteryLow" },
  { MITHERM_ERROR_BUSY, "org.mitherm.Error.Busy" },
  { MITHERM_ERROR_CANCELLED, "org.mitherm.Error.Cancelled" },
  { MITHERM_ERROR_CREDENTIAL_REFUSED, "org.mitherm.Error.CredentialRefused" },
  { MITHERM_ERROR_INVALID_ARGS, "org.mitherm.Error.InvalidArgs" },
  { MITHERM_ERROR_LINK_LOST, "org.mitherm.Error.LinkLost" },
  { MITHERM_ERROR_NEEDS_CREDENTIAL, "org.mitherm.Error.NeedsCredential" },
  { MITHERM_ERROR_NO_KEYS, "org.mitherm.Error.NoKeys" },
  { MITHERM_ERROR_NOT_AUTHORIZED, "org.mitherm.Error.NotAuthorized" },
  { MITHERM_ERROR_NOT_BOUND, "org.mitherm.Error.NotBound" },
  { MITHERM_ERROR_NOT_FOUND, "org.mitherm.Error.NotFound" },
  { MITHERM_ERROR_NOT_SIGNED, "org.mitherm.Error.NotSigned" },
  { MITHERM_ERROR_NOT_UPDATED, "org.mitherm.Error.NotUpdated" },
  { MITHERM_ERROR_PROTOCOL, "org.mitherm.Error.Protocol" },
  { MITHERM_ERROR_STORAGE, "org.mitherm.Error.Storage" },
  { MITHERM_ERROR_TIMEOUT, "org.mitherm.Error.Timeout" },
  { MITHERM_ERROR_UNSUPPORTED, "org.mitherm.Error.Unsupported" },
  { MITHERM_ERROR_WRONG_HARDWARE, "org.mitherm.Error.WrongHardware" },
};
G_STATIC_ASSERT (G_N_ELEMENTS (names) == MITHERM_ERROR_WRONG_HARDWARE + 1);

GQuark
mitherm_error_quark (void)
{
  static gsize quark = 0;

  g_dbus_error_register_error_domain ("mitherm-error-quark", &quark, names, G_N_ELEMENTS (names));
  return (GQuark) quark;
}

const char *
mitherm_error_name (MithermError code)
{
  g_return_val_if_fail ((gsize) code < G_N_ELEMENTS (names), NULL);

  return names[code].dbus_error_name;
}

static MithermError
from_mi_error (int code)
{
  switch ((MiError) code)
    {
    case MI_ERROR_INVALID_ARGUMENT:
      return MITHERM_ERROR_INVALID_ARGS;
    case MI_ERROR_TIMEOUT:
      return MITHERM_ERROR_TIMEOUT;
    case MI_ERROR_LINK_LOST:
      return MITHERM_ERROR_LINK_LOST;
    case MI_ERROR_CANCELLED:
      return MITHERM_ERROR_CANCELLED;
    case MI_ERROR_NOT_BOUND:
      return MITHERM_ERROR_NOT_BOUND;
    case MI_ERROR_ALREADY_BOUND:
      return MITHERM_ERROR_ALREADY_BOUND;
    case MI_ERROR_WRONG_TOKEN:
    case MI_ERROR_LOGIN_REFUSED:
    case MI_ERROR_REGISTRATION_REFUSED:
    case MI_ERROR_OOB_REFUSED:
      return MITHERM_ERROR_AUTH_FAILED;
    case MI_ERROR_CREDENTIAL_NEEDED:
      return MITHERM_ERROR_NEEDS_CREDENTIAL;
    case MI_ERROR_CREDENTIAL_REFUSED:
      return MITHERM_ERROR_CREDENTIAL_REFUSED;
    case MI_ERROR_OOB_NEEDED:
    case MI_ERROR_UNSUPPORTED:
      return MITHERM_ERROR_UNSUPPORTED;
    case MI_ERROR_STORAGE:
      return MITHERM_ERROR_STORAGE;
    case MI_ERROR_BAD_IMAGE:
      return MITHERM_ERROR_BAD_IMAGE;
    case MI_ERROR_PROTOCOL:
    case MI_ERROR_TRANSFER:
    case MI_ERROR_OTA:
    case MI_ERROR_DFU:
    case MI_ERROR_IO:
    case MI_ERROR_CRYPTO:
    default:
      return MITHERM_ERROR_PROTOCOL;
    }
}

static MithermError
from_io_error (int code)
{
  switch (code)
    {
    case G_IO_ERROR_CANCELLED:
      return MITHERM_ERROR_CANCELLED;
    case G_IO_ERROR_TIMED_OUT:
      return MITHERM_ERROR_TIMEOUT;
    case G_IO_ERROR_NOT_FOUND:
      return MITHERM_ERROR_NOT_FOUND;
    case G_IO_ERROR_BUSY:
    case G_IO_ERROR_PENDING:
      return MITHERM_ERROR_BUSY;
    case G_IO_ERROR_NOT_SUPPORTED:
      return MITHERM_ERROR_UNSUPPORTED;
    case G_IO_ERROR_INVALID_ARGUMENT:
    case G_IO_ERROR_INVALID_DATA:
      return MITHERM_ERROR_INVALID_ARGS;
    case G_IO_ERROR_CLOSED:
    case G_IO_ERROR_CONNECTION_CLOSED:
    case G_IO_ERROR_NOT_CONNECTED:
      return MITHERM_ERROR_LINK_LOST;
    case G_IO_ERROR_NO_SPACE:
    case G_IO_ERROR_PERMISSION_DENIED:
    case G_IO_ERROR_READ_ONLY:
      return MITHERM_ERROR_STORAGE;
    default:
      return MITHERM_ERROR_PROTOCOL;
    }
}

/* The code for everything that is not MITHERM_ERROR itself. */
static MithermError
code_of (const GError *error)
{
  int code = -1;

  if (error->domain == MI_ERROR)
    return from_mi_error (error->code);
  if (error->domain == G_FILE_ERROR)
    return MITHERM_ERROR_STORAGE;
  if (g_dbus_error_is_remote_error (error))
    mitherm_bluez_error_classify (error, &code);
  if (code >= 0)
    return code;
  if (error->domain == G_IO_ERROR)
    return from_io_error (error->code);
  return MITHERM_ERROR_PROTOCOL;
}

GError *
mitherm_error_translate (const GError *error)
{
  GError *result = NULL;

  g_return_val_if_fail (error != NULL, NULL);

  result = g_error_copy (error);
  g_dbus_error_strip_remote_error (result);
  if (result->domain == MITHERM_ERROR)
    return result;
  /* Classified by the original: the copy has lost the remote name. */
  result->code = code_of (error);
  result->domain = MITHERM_ERROR;
  return result;
}
