/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "mi-models.h"

G_BEGIN_DECLS

/*
 * Firmware files that the daemon may offer of its own accord (docs/storage.md): copies in
 * STATE-DIR/catalog, named by their SHA-256, and what was found in them. A file is read again, and
 * its SHA-256 compared, whenever it matters.
 */
typedef struct _MithermCatalog MithermCatalog;

/* Files that are kept at most. */
#define MITHERM_CATALOG_MAX 256

/* @roots: as MithermManagerConfig; they and @models must outlive the catalogue. */
MithermCatalog *mitherm_catalog_new (const char *state_dir, MiModels *models, const guint8 *roots,
                                     gsize n_roots);
void mitherm_catalog_free (MithermCatalog *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MithermCatalog, mitherm_catalog_free)

/* What firmware.json says: custom and original files by hardware id (contract of the format:
 * protocol/image.md section 9). */
typedef struct _MithermCatalogIndex MithermCatalogIndex;

/* Whether @file is meant as an index and not as an image. */
gboolean mitherm_catalog_index_is (GBytes *file);
/* Errors: MITHERM_ERROR_INVALID_ARGS. */
MithermCatalogIndex *mitherm_catalog_index_new (GBytes *file, GError **error);
void mitherm_catalog_index_free (MithermCatalogIndex *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (MithermCatalogIndex, mitherm_catalog_index_free)

/**
 * mitherm_catalog_add:
 * @name: (nullable): base name of the file
 * @index: (nullable): what it says of a file of this name must be true
 *
 * Returns: (transfer floating): a{sv}: name, sha256, version, kind (s), models (as), size (u),
 *   hardware-ids (au), added (b); NULL with MITHERM_ERROR_BAD_IMAGE if the file is not to be
 *   offered, or MITHERM_ERROR_STORAGE
 */
GVariant *mitherm_catalog_add (MithermCatalog *self, GBytes *file, const char *name,
                               const MithermCatalogIndex *index, GError **error);
/* @sha256: the hash or its beginning. Errors: MITHERM_ERROR_NOT_FOUND, _STORAGE. */
gboolean mitherm_catalog_remove (MithermCatalog *self, const char *sha256, GError **error);
/* (transfer floating): aa{sv}, as mitherm_catalog_add() */
GVariant *mitherm_catalog_list (MithermCatalog *self);

/**
 * mitherm_catalog_get_offer:
 * @hardware: (nullable)
 * @running: (nullable): nothing is offered to an unknown version
 *
 * The newest version of the same kind, stock or custom, that is newer than @running, certainly fits
 * and would be taken without any risk.
 *
 * Returns: (nullable): interned
 */
const char *mitherm_catalog_get_offer (MithermCatalog *self, const MiModel *model,
                                       const char *hardware, const char *running);

/**
 * mitherm_catalog_load:
 * @version: (nullable): of the kind wanted, for @model; NULL: what is offered
 *
 * Errors: MITHERM_ERROR_NOT_FOUND, _STORAGE.
 */
GBytes *mitherm_catalog_load (MithermCatalog *self, const MiModel *model, const char *hardware,
                              const char *running, const char *version, GError **error);

G_END_DECLS
