/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gio/gio.h>
#include <gio/gunixfdlist.h>

G_BEGIN_DECLS

/* Largest file taken from a caller. */
#define MITHERM_FILE_MAX (1024 * 1024)

/**
 * mitherm_file_get_fd:
 * @list: (nullable): of the message
 *
 * Returns: a descriptor of ours for @handle, or -1 with MITHERM_ERROR_INVALID_ARGS
 */
int mitherm_file_get_fd (GUnixFDList *list, gint handle, GError **error);

/**
 * mitherm_file_read:
 * @fd: a regular file or memfd; stays open; its offset is neither used nor moved
 * @what: "image", for error texts
 *
 * Reads it whole. Pipes and the like are refused, because they could make the daemon wait.
 * Returns: (transfer full): at most %MITHERM_FILE_MAX bytes; MITHERM_ERROR_INVALID_ARGS
 */
GBytes *mitherm_file_read (int fd, const char *what, GError **error);

/* mitherm_file_read() of the descriptor that the call has as @handle. */
GBytes *mitherm_file_take (GDBusMethodInvocation *invocation, gint handle, const char *what,
                           GError **error);

/**
 * mitherm_file_write_async:
 * @fd: (transfer full): file, memfd or pipe
 * @data: (transfer full): @len bytes of secrets, wiped at the end
 *
 * Writes without ever blocking the daemon; gives up after 20 s without progress. Errors:
 * MITHERM_ERROR_STORAGE.
 */
void mitherm_file_write_async (int fd, char *data, gsize len, GAsyncReadyCallback callback,
                               gpointer user_data);
gboolean mitherm_file_write_finish (GAsyncResult *result, GError **error);

G_END_DECLS
