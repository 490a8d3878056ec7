/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "images.h"

#include <stdio.h>
#include <unistd.h>

/* Returns: its handle, or -1 after printing why */
static gint
open_handle (GUnixFDList *fds, const char *path, ExitStatus *status)
{
  g_autoptr (GError) error = NULL;
  int fd = app_open_file (path, status);
  gint handle;

  if (fd < 0)
    return -1;
  handle = g_unix_fd_list_append (fds, fd, &error);
  close (fd);
  if (handle < 0)
    {
      fprintf (stderr, "mithermctl: %s: %s\n", path, error->message);
      *status = EXIT_FAILED;
    }
  return handle;
}

GVariant *
images_open (GUnixFDList *fds, char **paths, int n_paths, ExitStatus *status)
{
  g_auto (GVariantBuilder) handles = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE ("ah"));

  for (int i = 0; i < n_paths; i++)
    {
      gint handle = open_handle (fds, paths[i], status);

      if (handle < 0)
        return NULL;
      g_variant_builder_add (&handles, "h", handle);
    }
  return g_variant_ref_sink (g_variant_builder_end (&handles));
}

gboolean
images_add_file (GUnixFDList *fds, GVariantDict *options, const char *key, const char *path,
                 ExitStatus *status)
{
  gint handle = path != NULL ? open_handle (fds, path, status) : -1;

  if (handle >= 0)
    g_variant_dict_insert (options, key, "h", handle);
  return path == NULL || handle >= 0;
}
