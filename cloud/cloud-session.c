/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "cloud-session.h"

#include "cloud-error.h"
#include "cloud-text.h"

#include <glib/gstdio.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUP    "session"
#define MAX_FILE 16384
#define MAX_TEXT 4096

static const char *const regions[] = { "cn", "de", "us", "ru", "tw", "sg", "in", "i2", NULL };

/* Fails for what is open to others: whoever reads the file is that user for the service. */
static gboolean
check_file (int fd, const char *path, GError **error)
{
  struct stat info;

  if (fstat (fd, &info) != 0)
    g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_SESSION, "session file %s: %s", path,
                 g_strerror (errno));
  else if (!S_ISREG (info.st_mode))
    g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_SESSION, "session file %s: no regular file",
                 path);
  else if ((info.st_mode & 077) != 0)
    g_set_error (
        error, CLOUD_ERROR, CLOUD_ERROR_BAD_SESSION,
        "session file %s may be used by others: chmod 600 it, and sign in anew if they may "
        "have read it",
        path);
  else if (info.st_size > MAX_FILE)
    g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_SESSION, "session file %s is too long", path);
  else
    return TRUE;
  return FALSE;
}

/* Reads at most @size bytes; the file may be shorter. */
static gssize
read_all (int fd, char *buffer, gsize size)
{
  gsize len = 0;

  while (len < size)
    {
      gssize got = read (fd, buffer + len, size - len);

      if (got < 0 && errno == EINTR)
        continue;
      if (got < 0)
        return -1;
      if (got == 0)
        break;
      len += (gsize) got;
    }
  return (gssize) len;
}

static GKeyFile *
load_key_file (const char *path, GError **error)
{
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (GError) local = NULL;
  char text[MAX_FILE];
  gssize len = -1;
  int fd = g_open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);

  if (fd < 0)
    {
      g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_SESSION, "session file %s: %s", path,
                   g_strerror (errno));
      return NULL;
    }
  if (!check_file (fd, path, error))
    {
      close (fd);
      return NULL;
    }
  len = read_all (fd, text, sizeof text);
  close (fd);
  if (len > 0)
    g_key_file_load_from_data (file, text, (gsize) len, G_KEY_FILE_NONE, &local);
  explicit_bzero (text, sizeof text);
  /* The parser's own text would quote a line of the file. */
  if (len > 0 && local == NULL)
    return g_steal_pointer (&file);
  g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_SESSION,
               "session file %s is no key file with a group [" GROUP "]", path);
  return NULL;
}

/* What goes into a cookie may hold nothing that ends it. */
static gboolean
is_cookie_text (const char *text)
{
  gsize len = strlen (text);

  for (gsize i = 0; i < len; i++)
    if (!g_ascii_isgraph (text[i]) || strchr (";,\"\\", text[i]) != NULL)
      return FALSE;
  return len > 0 && len <= MAX_TEXT;
}

static char *
take_text (GKeyFile *file, const char *path, const char *key, GError **error)
{
  g_autoptr (CloudSecret) text = g_key_file_get_string (file, GROUP, key, NULL);

  if (text != NULL && is_cookie_text (g_strstrip (text)))
    return g_steal_pointer (&text);
  g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_SESSION, "session file %s: %s in [" GROUP "] %s",
               path, key, text == NULL ? "is missing" : "has a value that cannot be right");
  return NULL;
}

static gboolean
check_values (const CloudSession *self, const char *path, GError **error)
{
  gsize len;
  guint8 *secret = cloud_base64_decode (self->ssecurity, &len);

  if (secret == NULL)
    {
      g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_SESSION,
                   "session file %s: SSecurity is no base64", path);
      return FALSE;
    }
  explicit_bzero (secret, len);
  g_free (secret);
  if (g_strv_contains (regions, self->region))
    return TRUE;
  g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_WRONG_REGION,
               "session file %s: no region %s, only cn, de, us, ru, tw, sg, in and i2", path,
               self->region);
  return FALSE;
}

CloudSession *
cloud_session_load (const char *path, GError **error)
{
  g_autoptr (GKeyFile) file = load_key_file (path, error);
  g_autoptr (CloudSession) self = NULL;

  if (file == NULL)
    return NULL;
  self = g_new0 (CloudSession, 1);
  if ((self->user_id = take_text (file, path, "UserId", error)) == NULL
      || (self->service_token = take_text (file, path, "ServiceToken", error)) == NULL
      || (self->ssecurity = take_text (file, path, "SSecurity", error)) == NULL
      || (self->region = take_text (file, path, "Region", error)) == NULL
      || !check_values (self, path, error))
    return NULL;
  return g_steal_pointer (&self);
}

void
cloud_session_free (CloudSession *self)
{
  cloud_secret_free (self->user_id);
  cloud_secret_free (self->service_token);
  cloud_secret_free (self->ssecurity);
  cloud_secret_free (self->region);
  g_free (self);
}

char *
cloud_session_dup_base_url (const CloudSession *self)
{
  if (strcmp (self->region, "cn") == 0)
    return g_strdup ("https://api.io.mi.com");
  return g_strdup_printf ("https://%s.api.io.mi.com", self->region);
}
