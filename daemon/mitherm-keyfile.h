/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>

#include "mi-models.h"
#include "mitherm-store.h"

G_BEGIN_DECLS

/*
 * Keys from and to other places (docs/storage.md, "Import and export").
 */

/**
 * mitherm_keyfile_export:
 * @address: (nullable): only this thermometer
 *
 * Returns: (transfer full): JSON with secrets; wipe it
 */
char *mitherm_keyfile_export (MithermStore *store, const char *address);

typedef struct
{
  guint imported;
  guint skipped;
  GVariant *problems; /* aa{sv}, floating */
} MithermImport;

/* Is told each thermometer whose keys have changed. */
typedef void (*MithermImportFunc) (const char *address, gpointer user_data);

/**
 * mitherm_keyfile_import:
 * @data: JSON (our export, or any with addresses and keys at any depth), text of the token
 *   extractor, lists of "address key [key]", or YAML-like pairs
 *
 * Adds what @data holds to @store; nothing that is stored is lost. Entries whose model is no
 * thermometer are skipped and counted; entries that are not understood become problems {line,
 * field, reason} without any secret. Returns: %FALSE with MITHERM_ERROR_INVALID_ARGS if there is
 * nothing like a key in it, MITHERM_ERROR_STORAGE if a set could not be stored.
 */
gboolean mitherm_keyfile_import (MithermStore *store, MiModels *models, const char *data, gsize len,
                                 MithermImportFunc changed, gpointer user_data, MithermImport *out,
                                 GError **error);

G_END_DECLS
