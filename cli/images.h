/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gunixfdlist.h>

#include "app.h"

G_BEGIN_DECLS

/* What plan and update have in common. */

/* Hops that the daemon takes in one job. */
#define IMAGES_MAX 8

#define ENVELOPE_ENTRY(value)                                                                      \
  {                                                                                                \
    "envelope", 0, 0, G_OPTION_ARG_FILENAME, value,                                                \
        "Signature envelope to put around the last image: the thermometer itself decides", "FILE"  \
  }
#define EXPECT_ENTRY(value)                                                                        \
  {                                                                                                \
    "expect-version", 0, 0, G_OPTION_ARG_STRING, value,                                            \
        "Version that must answer afterwards, where the file does not tell", "VERSION"             \
  }

/**
 * images_open:
 *
 * Opens files for passing on.
 *
 * Returns: (transfer full) (nullable): ah with their handles in @fds, or %NULL after printing why
 */
GVariant *images_open (GUnixFDList *fds, char **paths, int n_paths, ExitStatus *status);
/* Adds one more file as option @key; without @path it does nothing. */
gboolean images_add_file (GUnixFDList *fds, GVariantDict *options, const char *key,
                          const char *path, ExitStatus *status);

G_END_DECLS
