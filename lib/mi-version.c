/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-models.h"

#include <string.h>

#define MAX_PARTS 4 /* major.minor.revision_build */
#define BUILD_LEN 4

/* Without the V of custom firmware. */
static const char *
skip_prefix (const char *version)
{
  return version[0] == 'V' || version[0] == 'v' ? version + 1 : version;
}

/* Four digits and nothing else: all that some stock firmware answers. */
static gboolean
is_build (const char *version)
{
  return strlen (version) == BUILD_LEN && strspn (version, "0123456789") == BUILD_LEN;
}

static gboolean
is_build_of (const char *build, const char *version)
{
  const char *own = strrchr (version, '_');

  return is_build (build) && own != NULL && g_str_equal (own + 1, build);
}

gboolean
mi_version_equal (const char *a, const char *b)
{
  if (a == NULL || b == NULL)
    return FALSE;
  a = skip_prefix (a);
  b = skip_prefix (b);
  if (a[0] == '\0' || b[0] == '\0')
    return FALSE;
  return g_ascii_strcasecmp (a, b) == 0 || is_build_of (a, b) || is_build_of (b, a);
}

/* Returns: number of parts, 0 if it is no version that has an order */
static guint
split (const char *version, guint64 parts[MAX_PARTS])
{
  const char *p = skip_prefix (version);
  guint n = 0;

  if (is_build (version))
    return 0;
  while (n < MAX_PARTS && g_ascii_isdigit (*p))
    {
      char *end;

      parts[n++] = g_ascii_strtoull (p, &end, 10);
      p = end;
      if (*p == '\0')
        return n;
      if (*p != '.' && *p != '_')
        return 0;
      p++;
    }
  return 0;
}

gboolean
mi_version_compare (const char *a, const char *b, int *result)
{
  guint64 parts_a[MAX_PARTS], parts_b[MAX_PARTS];
  guint n_a, n_b, i;

  if (a == NULL || b == NULL)
    return FALSE;
  n_a = split (a, parts_a);
  n_b = split (b, parts_b);
  if (n_a == 0 || n_b == 0)
    return FALSE;
  *result = 0;
  for (i = 0; i < MIN (n_a, n_b) && *result == 0; i++)
    *result = parts_a[i] < parts_b[i] ? -1 : parts_a[i] > parts_b[i];
  return TRUE;
}

gboolean
mi_version_is_custom (const char *version)
{
  guint64 parts[MAX_PARTS];

  return version != NULL && skip_prefix (version) != version && split (version, parts) == 2;
}
