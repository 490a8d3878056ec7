/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "bridge-config.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_PATH   MITHERM_CONF_DIR "/mqtt.conf"
#define DEFAULT_HOST   "localhost"
#define DEFAULT_PREFIX "homeassistant"
#define PORT_PLAIN     1883
#define PORT_TLS       8883
#define SECRET_MAX     1024
#define PREFIX_MAX     128

static gboolean G_GNUC_PRINTF (2, 3) invalid (GError **error, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  g_propagate_error (error,
                     g_error_new_valist (G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, format, args));
  va_end (args);
  return FALSE;
}

void
bridge_config_free (BridgeConfig *self)
{
  if (self->password != NULL)
    explicit_bzero (self->password, strlen (self->password));
  g_free (self->host);
  g_free (self->ca_file);
  g_free (self->user);
  g_free (self->password);
  g_free (self->prefix);
  g_free (self);
}

/* An absent key is no error; a broken one is. */
static gboolean
was_absent (GError **local, GError **error)
{
  if (g_error_matches (*local, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_KEY_NOT_FOUND)
      || g_error_matches (*local, G_KEY_FILE_ERROR, G_KEY_FILE_ERROR_GROUP_NOT_FOUND))
    {
      g_clear_error (local);
      return TRUE;
    }
  g_propagate_error (error, g_steal_pointer (local));
  return FALSE;
}

/* (nullable): empty counts as absent. */
static char *
get_text (GKeyFile *file, const char *group, const char *key)
{
  g_autofree char *text = g_key_file_get_string (file, group, key, NULL);

  return text != NULL && *text != '\0' ? g_steal_pointer (&text) : NULL;
}

static gboolean
check_names (GKeyFile *file, GError **error)
{
  static const char *const known[] = { "broker/Host",   "broker/Port",     "broker/TLS",
                                       "broker/CAFile", "broker/UserFile", "discovery/Prefix" };
  g_auto (GStrv) groups = g_key_file_get_groups (file, NULL);

  for (guint i = 0; groups[i] != NULL; i++)
    {
      g_auto (GStrv) keys = g_key_file_get_keys (file, groups[i], NULL, NULL);

      for (guint k = 0; keys != NULL && keys[k] != NULL; k++)
        {
          g_autofree char *name = g_strconcat (groups[i], "/", keys[k], NULL);
          gboolean found = FALSE;

          for (gsize n = 0; n < G_N_ELEMENTS (known); n++)
            found |= g_str_equal (name, known[n]);
          if (!found)
            return invalid (error, "there is no key %s in group [%s]", keys[k], groups[i]);
        }
    }
  return TRUE;
}

static gboolean
read_broker (BridgeConfig *self, GKeyFile *file, GError **error)
{
  g_autoptr (GError) local = NULL;
  int port;

  self->host = get_text (file, "broker", "Host");
  if (self->host == NULL)
    self->host = g_strdup (DEFAULT_HOST);
  self->tls = g_key_file_get_boolean (file, "broker", "TLS", &local);
  if (local != NULL && !was_absent (&local, error))
    return FALSE;
  port = g_key_file_get_integer (file, "broker", "Port", &local);
  if (local != NULL)
    {
      if (!was_absent (&local, error))
        return FALSE;
      port = self->tls ? PORT_TLS : PORT_PLAIN;
    }
  if (port < 1 || port > G_MAXUINT16)
    return invalid (error, "Port must be 1 to 65535, not %d", port);
  self->port = (guint16) port;
  self->ca_file = get_text (file, "broker", "CAFile");
  if (self->ca_file != NULL && !self->tls)
    return invalid (error, "CAFile needs TLS=true");
  return TRUE;
}

static gboolean
read_prefix (BridgeConfig *self, GKeyFile *file, GError **error)
{
  self->prefix = get_text (file, "discovery", "Prefix");
  if (self->prefix == NULL)
    self->prefix = g_strdup (DEFAULT_PREFIX);
  while (g_str_has_suffix (self->prefix, "/"))
    self->prefix[strlen (self->prefix) - 1] = '\0';
  if (*self->prefix == '\0' || strlen (self->prefix) > PREFIX_MAX || *self->prefix == '$'
      || strpbrk (self->prefix, "+#") != NULL || !g_utf8_validate (self->prefix, -1, NULL))
    return invalid (error, "Prefix is no topic: \"%s\"", self->prefix);
  return TRUE;
}

/* Reads at most @size - 1 bytes of a file that others must not be able to read. */
static gboolean
read_secret (const char *path, char *buffer, gsize size, GError **error)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
  struct stat info = { 0 };
  gssize n = 0;
  gboolean ok = FALSE;

  if (fd < 0 || fstat (fd, &info) < 0)
    g_set_error (error, G_FILE_ERROR, g_file_error_from_errno (errno), "%s: %s", path,
                 g_strerror (errno));
  else if (!S_ISREG (info.st_mode) || (info.st_mode & S_IRWXO) != 0)
    invalid (error, "%s: must be a file that not everybody can read (chmod o= %s)", path, path);
  else if ((n = read (fd, buffer, size)) < 0 || (gsize) n == size)
    invalid (error, "%s: cannot be read, or is longer than %zu bytes", path, size - 1);
  else
    ok = TRUE;
  if (fd >= 0)
    close (fd);
  buffer[ok ? n : 0] = '\0';
  return ok;
}

/* user:password in one line, or the user in the first line and the password in the second. */
static gboolean
split_secret (BridgeConfig *self, char *text)
{
  char *end = strpbrk (text, "\r\n");
  char *password, *colon;

  if (end == NULL)
    end = text + strlen (text);
  password = end + strspn (end, "\r\n");
  *end = '\0';
  password[strcspn (password, "\r\n")] = '\0';
  colon = strchr (text, ':');
  if (*password == '\0' && colon != NULL)
    {
      *colon = '\0';
      password = colon + 1;
    }
  if (*text == '\0' || !g_utf8_validate (text, -1, NULL))
    return FALSE;
  self->user = g_strdup (text);
  self->password = *password != '\0' ? g_strdup (password) : NULL;
  return TRUE;
}

static gboolean
read_user (BridgeConfig *self, GKeyFile *file, GError **error)
{
  g_autofree char *path = get_text (file, "broker", "UserFile");
  char text[SECRET_MAX];
  gboolean ok;

  if (path == NULL)
    return TRUE;
  if (!read_secret (path, text, sizeof text, error))
    return FALSE;
  ok = split_secret (self, text);
  explicit_bzero (text, sizeof text);
  if (!ok)
    invalid (error, "%s: holds no user:password", path);
  return ok;
}

static gboolean
load (GKeyFile *file, const char *path, GError **error)
{
  g_autoptr (GError) local = NULL;

  if (g_key_file_load_from_file (file, path != NULL ? path : DEFAULT_PATH, G_KEY_FILE_NONE, &local)
      || (path == NULL && g_error_matches (local, G_FILE_ERROR, G_FILE_ERROR_NOENT)))
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

BridgeConfig *
bridge_config_load (const char *path, GError **error)
{
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (BridgeConfig) self = g_new0 (BridgeConfig, 1);

  if (load (file, path, error) && check_names (file, error) && read_broker (self, file, error)
      && read_prefix (self, file, error) && read_user (self, file, error))
    return g_steal_pointer (&self);
  g_prefix_error (error, "%s: ", path != NULL ? path : DEFAULT_PATH);
  return NULL;
}
