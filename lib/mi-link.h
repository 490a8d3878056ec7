/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "mi-procedure.h"

G_BEGIN_DECLS

#define MI_TYPE_LINK (mi_link_get_type ())
G_DECLARE_INTERFACE (MiLink, mi_link, MI, LINK, GObject)

/* What a characteristic can do, as the device declares it (protocol/gatt.md). */
typedef enum
{
  MI_LINK_READ = 1 << 0,
  MI_LINK_WRITE = 1 << 1,         /* with response */
  MI_LINK_WRITE_COMMAND = 1 << 2, /* without response */
  MI_LINK_NOTIFY = 1 << 3,
} MiLinkFlags;

/* A notification. Called from the main loop, never from inside a MiLink call. */
typedef void (*MiLinkNotifyFunc) (MiLink *link, guint16 channel, const guint8 *data, gsize len,
                                  gpointer user_data);
/* The connection has gone; called once, last. */
typedef void (*MiLinkClosedFunc) (MiLink *link, gpointer user_data);

/**
 * MiLinkInterface:
 *
 * One connection to one thermometer, services resolved: the seam between the protocol and any
 * radio. @write never blocks: what cannot be handed on at once is queued in order (per link: writes
 * of CONTROL and AUTH keep their order among each other; bulk channels keep theirs; a read is
 * executed after the writes of the same channel that were made before it). Errors are MI_ERROR_IO
 * (refused by the device or the stack) or MI_ERROR_LINK_LOST.
 */
struct _MiLinkInterface
{
  GTypeInterface parent_iface;

  MiLinkFlags (*get_flags) (MiLink *self, guint16 channel); /* 0: no such characteristic */
  guint16 (*get_att_payload) (MiLink *self);                /* ATT_MTU - 3 */
  gboolean (*write) (MiLink *self, guint16 channel, const guint8 *data, gsize len, GError **error);
  void (*write_request_async) (MiLink *self, guint16 channel, const guint8 *data, gsize len,
                               GCancellable *cancellable, GAsyncReadyCallback callback,
                               gpointer user_data);
  gboolean (*write_request_finish) (MiLink *self, GAsyncResult *result, GError **error);
  void (*read_async) (MiLink *self, guint16 channel, GCancellable *cancellable,
                      GAsyncReadyCallback callback, gpointer user_data);
  GBytes *(*read_finish) (MiLink *self, GAsyncResult *result, GError **error);
  /* Enables notifications; finishes when the device has confirmed. */
  void (*subscribe_async) (MiLink *self, guint16 channel, GCancellable *cancellable,
                           GAsyncReadyCallback callback, gpointer user_data);
  gboolean (*subscribe_finish) (MiLink *self, GAsyncResult *result, GError **error);
  void (*set_callbacks) (MiLink *self, MiLinkNotifyFunc notify, MiLinkClosedFunc closed,
                         gpointer user_data);
  /* Starts dropping the link; "closed" follows. Harmless when closed. */
  void (*disconnect) (MiLink *self);
  gboolean (*is_closed) (MiLink *self);
};

MiLinkFlags mi_link_get_flags (MiLink *self, guint16 channel);
guint16 mi_link_get_att_payload (MiLink *self);
gboolean mi_link_write (MiLink *self, guint16 channel, const guint8 *data, gsize len,
                        GError **error);
void mi_link_write_request_async (MiLink *self, guint16 channel, const guint8 *data, gsize len,
                                  GCancellable *cancellable, GAsyncReadyCallback callback,
                                  gpointer user_data);
gboolean mi_link_write_request_finish (MiLink *self, GAsyncResult *result, GError **error);
void mi_link_read_async (MiLink *self, guint16 channel, GCancellable *cancellable,
                         GAsyncReadyCallback callback, gpointer user_data);
/* Returns: (transfer full) */
GBytes *mi_link_read_finish (MiLink *self, GAsyncResult *result, GError **error);
void mi_link_subscribe_async (MiLink *self, guint16 channel, GCancellable *cancellable,
                              GAsyncReadyCallback callback, gpointer user_data);
gboolean mi_link_subscribe_finish (MiLink *self, GAsyncResult *result, GError **error);
void mi_link_set_callbacks (MiLink *self, MiLinkNotifyFunc notify, MiLinkClosedFunc closed,
                            gpointer user_data);
void mi_link_disconnect (MiLink *self);
gboolean mi_link_is_closed (MiLink *self);

G_END_DECLS
