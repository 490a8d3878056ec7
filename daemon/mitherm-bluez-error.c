/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-bluez-error.h"

#include "mitherm-error.h"

typedef struct
{
  const char *name; /* D-Bus error name */
  const char *text; /* part of the message, NULL: any */
  MithermBluezVerdict verdict;
  MithermError code;
} BluezError;

/* The first match counts. Texts as in BlueZ 5.55 to 5.82. */
static const BluezError bluez_errors[] = {
  { "org.bluez.Error.Failed", "already in progress", MITHERM_BLUEZ_BUSY, MITHERM_ERROR_BUSY },
  { "org.bluez.Error.Failed", "concurrent-connection-limit", MITHERM_BLUEZ_BUSY,
    MITHERM_ERROR_BUSY },
  { "org.bluez.Error.Failed", "adapter-not-powered", MITHERM_BLUEZ_GONE, MITHERM_ERROR_NOT_FOUND },
  /* The text of an adapter that has been switched off. */
  { "org.bluez.Error.Failed", "Input/output error", MITHERM_BLUEZ_GONE, MITHERM_ERROR_LINK_LOST },
  { "org.bluez.Error.Failed", "key-missing", MITHERM_BLUEZ_FATAL, MITHERM_ERROR_NOT_AUTHORIZED },
  { "org.bluez.Error.Failed", "le-connection-", MITHERM_BLUEZ_TRANSIENT, MITHERM_ERROR_LINK_LOST },
  { "org.bluez.Error.Failed", "br-connection-", MITHERM_BLUEZ_TRANSIENT, MITHERM_ERROR_LINK_LOST },
  { "org.bluez.Error.Failed", "ATT error: 0x0e", MITHERM_BLUEZ_TRANSIENT, MITHERM_ERROR_LINK_LOST },
  { "org.bluez.Error.Failed", "ATT error: 0x01", MITHERM_BLUEZ_OUTDATED, MITHERM_ERROR_PROTOCOL },
  { "org.bluez.Error.Failed", "ATT error", MITHERM_BLUEZ_FATAL, MITHERM_ERROR_PROTOCOL },
  { "org.bluez.Error.Failed", NULL, MITHERM_BLUEZ_TRANSIENT, MITHERM_ERROR_LINK_LOST },
  { "org.bluez.Error.InProgress", NULL, MITHERM_BLUEZ_BUSY, MITHERM_ERROR_BUSY },
  { "org.bluez.Error.NotReady", NULL, MITHERM_BLUEZ_GONE, MITHERM_ERROR_NOT_FOUND },
  { "org.bluez.Error.DoesNotExist", NULL, MITHERM_BLUEZ_GONE, MITHERM_ERROR_NOT_FOUND },
  { "org.bluez.Error.NotAvailable", NULL, MITHERM_BLUEZ_GONE, MITHERM_ERROR_NOT_FOUND },
  { "org.bluez.Error.AlreadyConnected", NULL, MITHERM_BLUEZ_FINE, MITHERM_ERROR_BUSY },
  { "org.bluez.Error.AlreadyExists", NULL, MITHERM_BLUEZ_FINE, MITHERM_ERROR_BUSY },
  { "org.bluez.Error.NotConnected", NULL, MITHERM_BLUEZ_TRANSIENT, MITHERM_ERROR_LINK_LOST },
  { "org.bluez.Error.ConnectionAttemptFailed", NULL, MITHERM_BLUEZ_TRANSIENT,
    MITHERM_ERROR_LINK_LOST },
  { "org.bluez.Error.AuthenticationCanceled", NULL, MITHERM_BLUEZ_TRANSIENT,
    MITHERM_ERROR_LINK_LOST },
  { "org.bluez.Error.NotPermitted", NULL, MITHERM_BLUEZ_FATAL, MITHERM_ERROR_PROTOCOL },
  { "org.bluez.Error.NotAuthorized", NULL, MITHERM_BLUEZ_FATAL, MITHERM_ERROR_NOT_AUTHORIZED },
  { "org.bluez.Error.NotSupported", NULL, MITHERM_BLUEZ_FATAL, MITHERM_ERROR_UNSUPPORTED },
  { "org.bluez.Error.InvalidArguments", NULL, MITHERM_BLUEZ_FATAL, MITHERM_ERROR_PROTOCOL },
  { "org.bluez.Error.InvalidValueLength", NULL, MITHERM_BLUEZ_FATAL, MITHERM_ERROR_PROTOCOL },
  { "org.freedesktop.DBus.Error.UnknownObject", NULL, MITHERM_BLUEZ_GONE, MITHERM_ERROR_NOT_FOUND },
  /* What a vanished object gives when its path still has other interfaces. */
  { "org.freedesktop.DBus.Error.UnknownMethod", NULL, MITHERM_BLUEZ_GONE, MITHERM_ERROR_NOT_FOUND },
  { "org.freedesktop.DBus.Error.UnknownInterface", NULL, MITHERM_BLUEZ_GONE,
    MITHERM_ERROR_NOT_FOUND },
  { "org.freedesktop.DBus.Error.ServiceUnknown", NULL, MITHERM_BLUEZ_GONE,
    MITHERM_ERROR_NOT_FOUND },
  { "org.freedesktop.DBus.Error.NameHasNoOwner", NULL, MITHERM_BLUEZ_GONE,
    MITHERM_ERROR_NOT_FOUND },
  { "org.freedesktop.DBus.Error.NoReply", NULL, MITHERM_BLUEZ_GONE, MITHERM_ERROR_TIMEOUT },
  { "org.freedesktop.DBus.Error.Disconnected", NULL, MITHERM_BLUEZ_GONE, MITHERM_ERROR_LINK_LOST },
  { "org.freedesktop.DBus.Error.AccessDenied", NULL, MITHERM_BLUEZ_FATAL,
    MITHERM_ERROR_NOT_AUTHORIZED },
};

static const BluezError *
find_error (const char *name, const char *message)
{
  for (gsize i = 0; i < G_N_ELEMENTS (bluez_errors); i++)
    {
      const BluezError *entry = &bluez_errors[i];

      if (g_str_equal (entry->name, name)
          && (entry->text == NULL || strstr (message, entry->text) != NULL))
        return entry;
    }
  return NULL;
}

MithermBluezVerdict
mitherm_bluez_error_classify (const GError *error, int *code)
{
  g_autofree char *name = NULL;
  const BluezError *entry = NULL;

  if (g_dbus_error_is_remote_error (error))
    name = g_dbus_error_get_remote_error (error);
  if (name != NULL)
    entry = find_error (name, error->message);

  if (code != NULL)
    *code = entry != NULL ? (int) entry->code : -1;
  if (entry != NULL)
    return entry->verdict;
  /* GDBus's own time limit, or one of ours; a closed bus connection is bluetoothd gone for good. */
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
    return MITHERM_BLUEZ_TRANSIENT;
  if (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CLOSED))
    return MITHERM_BLUEZ_GONE;
  return MITHERM_BLUEZ_FATAL;
}
