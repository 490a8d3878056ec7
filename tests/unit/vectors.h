/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <json-glib/json-glib.h>

G_BEGIN_DECLS

/* Helpers over tests/vectors/NAME.json; whatever does not fit stops the test program. */

/* The file's top object, in the folder of env MITHERM_VECTORS; kept until the program ends. */
JsonObject *vectors_load (const char *name);
/* (transfer full): bytes of a hex member; absent or null: NULL and 0 */
guint8 *vectors_bytes (JsonObject *object, const char *member, gsize *len);
/* (transfer full): bytes of a hex string */
guint8 *vectors_hex (const char *hex, gsize *len);
/* (transfer full): "/prefix/name" with everything that a test path cannot carry made '-' */
char *vectors_path (const char *prefix, const char *name);

G_END_DECLS
