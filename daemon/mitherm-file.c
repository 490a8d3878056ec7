/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-file.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib-unix.h>

#include "mi-crypto.h"
#include "mitherm-error.h"

#define WRITE_LIMIT_S 20

int
mitherm_file_get_fd (GUnixFDList *list, gint handle, GError **error)
{
  g_autoptr (GError) local = NULL;
  int fd = -1;

  if (list != NULL && handle >= 0 && handle < g_unix_fd_list_get_length (list))
    fd = g_unix_fd_list_get (list, handle, &local);
  if (fd < 0)
    g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                 "Descriptor %d is not there%s%s.", handle, local != NULL ? ": " : "",
                 local != NULL ? local->message : "");
  return fd;
}

static gboolean
check_file (int fd, const char *what, struct stat *info, GError **error)
{
  if (fstat (fd, info) != 0 || !S_ISREG (info->st_mode))
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                   "The %s is not a regular file or memfd.", what);
      return FALSE;
    }
  if (info->st_size > MITHERM_FILE_MAX)
    {
      g_set_error (error, MITHERM_ERROR,
                   g_str_equal (what, "image") ? MITHERM_ERROR_BAD_IMAGE
                                               : MITHERM_ERROR_INVALID_ARGS,
                   "The %s has %" G_GINT64_FORMAT " bytes, more than %d.", what,
                   (gint64) info->st_size, MITHERM_FILE_MAX);
      return FALSE;
    }
  return TRUE;
}

static void
wipe_bytes (gpointer data)
{
  GByteArray *array = data;

  mi_crypto_wipe (array->data, array->len);
  g_byte_array_unref (array);
}

GBytes *
mitherm_file_read (int fd, const char *what, GError **error)
{
  struct stat info;
  GByteArray *array;
  gsize done = 0;
  ssize_t n;

  if (!check_file (fd, what, &info, error))
    return NULL;
  array = g_byte_array_new ();
  g_byte_array_set_size (array, (guint) info.st_size);
  while (done < array->len)
    {
      n = pread (fd, array->data + done, array->len - done, (off_t) done);
      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0)
        {
          g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                       "The %s cannot be read: %s.", what, g_strerror (errno));
          wipe_bytes (array);
          return NULL;
        }
      if (n == 0) /* it has just become shorter */
        break;
      done += (gsize) n;
    }
  g_byte_array_set_size (array, (guint) done);
  /* It may be a key file: wiped with its last reference. */
  return g_bytes_new_with_free_func (array->data, array->len, wipe_bytes, array);
}

GBytes *
mitherm_file_take (GDBusMethodInvocation *invocation, gint handle, const char *what, GError **error)
{
  GDBusMessage *message = g_dbus_method_invocation_get_message (invocation);
  int fd = mitherm_file_get_fd (g_dbus_message_get_unix_fd_list (message), handle, error);
  GBytes *bytes;

  if (fd < 0)
    return NULL;
  bytes = mitherm_file_read (fd, what, error);
  close (fd);
  return bytes;
}

typedef struct
{
  int fd;
  char *data;
  gsize len;
  gsize done;
  guint fd_source;
  guint limit_source;
} Write;

static void
write_free (Write *write_data)
{
  g_clear_handle_id (&write_data->fd_source, g_source_remove);
  g_clear_handle_id (&write_data->limit_source, g_source_remove);
  if (write_data->fd >= 0)
    close (write_data->fd);
  mi_crypto_wipe (write_data->data, write_data->len);
  g_free (write_data->data);
  g_free (write_data);
}

static void
write_end (GTask *task, const char *problem)
{
  Write *data = g_task_get_task_data (task);

  g_clear_handle_id (&data->fd_source, g_source_remove);
  g_clear_handle_id (&data->limit_source, g_source_remove);
  if (problem == NULL)
    g_task_return_boolean (task, TRUE);
  else
    g_task_return_new_error (task, MITHERM_ERROR, MITHERM_ERROR_STORAGE,
                             "The descriptor cannot be written to: %s.", problem);
  g_object_unref (task);
}

static gboolean
on_limit (gpointer user_data)
{
  GTask *task = user_data;

  ((Write *) g_task_get_task_data (task))->limit_source = 0;
  write_end (task, "nobody reads it");
  return G_SOURCE_REMOVE;
}

/* A writable pipe takes PIPE_BUF bytes at least, so that writing no more never blocks. */
static gboolean
on_writable (gint fd, GIOCondition condition, gpointer user_data)
{
  GTask *task = user_data;
  Write *data = g_task_get_task_data (task);
  ssize_t n = write (fd, data->data + data->done, MIN (data->len - data->done, PIPE_BUF));

  if (n < 0 && (errno == EINTR || errno == EAGAIN))
    return G_SOURCE_CONTINUE;
  if (n >= 0)
    data->done += (gsize) n;
  if (n >= 0 && data->done < data->len)
    return G_SOURCE_CONTINUE;
  data->fd_source = 0;
  write_end (task, n < 0 ? g_strerror (errno) : NULL);
  return G_SOURCE_REMOVE;
}

void
mitherm_file_write_async (int fd, char *data, gsize len, GAsyncReadyCallback callback,
                          gpointer user_data)
{
  GTask *task = g_task_new (NULL, NULL, callback, user_data);
  Write *write_data = g_new0 (Write, 1);

  g_task_set_source_tag (task, mitherm_file_write_async);
  write_data->fd = fd;
  write_data->data = data;
  write_data->len = len;
  g_task_set_task_data (task, write_data, (GDestroyNotify) write_free);
  write_data->fd_source = g_unix_fd_add (fd, G_IO_OUT | G_IO_ERR | G_IO_HUP, on_writable, task);
  write_data->limit_source = g_timeout_add_seconds (WRITE_LIMIT_S, on_limit, task);
}

gboolean
mitherm_file_write_finish (GAsyncResult *result, GError **error)
{
  return g_task_propagate_boolean (G_TASK (result), error);
}
