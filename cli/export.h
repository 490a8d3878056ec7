/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef enum
{
  EXPORT_JSON, /* the daemon's own */
  EXPORT_HOMEASSISTANT,
  EXPORT_ESPHOME,
  EXPORT_BLE_MONITOR,
} ExportFormat;

/* "json", "homeassistant", "esphome", "ble_monitor" */
gboolean export_format_from_string (const char *name, ExportFormat *format);

/**
 * export_format:
 * @json: keys as the daemon exports them (docs/storage.md)
 *
 * Returns: (transfer full) (nullable): the same keys in @format; snippets have the bind keys of the
 *   sets that are in use
 */
char *export_format (const char *json, ExportFormat format, GError **error);

G_END_DECLS
