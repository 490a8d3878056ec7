/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef void (*MiDataFunc) (gpointer target, GKeyFile *file, const char *origin,
                            GPtrArray *problems);

/*
 * Hands every NAME.conf of @data_dir/@folder to @func, in the order of the names; a file of the
 * same name in @conf_dir/@folder takes its place, others there are added. What cannot be read is
 * skipped and told in @problems.
 */
void mi_data_load (const char *data_dir, const char *conf_dir, const char *folder, MiDataFunc func,
                   gpointer target, GPtrArray *problems);

G_GNUC_PRINTF (2, 3)
void mi_data_problem (GPtrArray *problems, const char *format, ...);

/* Decimal or 0x..., nothing else around it. */
gboolean mi_data_parse_number (const char *text, guint64 max, guint64 *out);

/* (transfer full): the list without blanks around its items; empty if the key is absent */
char **mi_data_get_list (GKeyFile *file, const char *group, const char *key);

G_END_DECLS
