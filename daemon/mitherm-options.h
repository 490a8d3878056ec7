/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/**
 * MithermOption:
 * @key: name in the a{sv}
 * @type: "b", "u", "x", "s", "o", "as", "h" or "ah"
 * @out: gboolean, guint, gint64, char *, char *, char **, gint (handle) or GVariant * (floating
 *   reference sunk); strings and arrays are newly allocated
 *
 * One option that a method knows.
 */
typedef struct
{
  const char *key;
  const char *type;
  gpointer out;
} MithermOption;

/**
 * mitherm_options_parse:
 * @options: a{sv}
 *
 * Fills in what is there and leaves the rest alone. Returns: %FALSE with MITHERM_ERROR_INVALID_ARGS
 * naming the key, if one is unknown or has another type.
 */
gboolean mitherm_options_parse (GVariant *options, const MithermOption *known, gsize n_known,
                                GError **error);

G_END_DECLS
